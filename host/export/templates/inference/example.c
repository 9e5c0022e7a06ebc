/* Says what the network makes of every sample. */
#include "example.h"

#include "line.h"
#include "sample.h"
#include "strop_model.h"

static float x[STROP_MODEL_X_BYTES / sizeof(float)];
static float out[STROP_MODEL_OUT_BYTES / sizeof(float)];
static @label@ y[@y_count@ * STROP_MODEL_BATCH]; /* what it should be */

void example_begin(say_t say) {
    say("begins");
}

void example_round(say_t say) {
    if (!strop_sample(x, y)) {
        return;
    }
    strop_model_infer(x, out);
    line_t line = {.length = 0};
@classes@    enum { CLASSES = @kinds@ };
@classes@    uint32_t best = 0;
@classes@    for (uint32_t k = 1; k < CLASSES; ++k) {
@classes@        best = out[k] > out[best] ? k : best;
@classes@    }
@classes@    put(&line, "class ");
@classes@    put_number(&line, best);
@classes@    put(&line, ", made as ");
@classes@    put_number(&line, (uint32_t)y[0]);
@values@    put(&line, "output ");
@values@    put_decimal(&line, out[0]);
    say(line.text);
}
