/* The model called as a user's own firmware calls it, and nothing else: what the exported library costs. */
#include "port.h"
#include "strop_model.h"

static float x[STROP_MODEL_X_BYTES / sizeof(float)];
static float out[STROP_MODEL_OUT_BYTES / sizeof(float)];
static union {
    int32_t classes[STROP_MODEL_Y_BYTES / sizeof(int32_t)];
    float values[STROP_MODEL_Y_BYTES / sizeof(float)];
} y;

int main(void) {
    strop_port_init();
    strop_model_init();
    const float loss = strop_model_train_step(x, (const void *)&y);
    strop_model_infer(x, out);
    return loss > out[0];
}
