/* w -= 1/16 (w.x - y) x: every operation is exact for small integers, so Python predicts the bits. */
#include "numerics.h"
#include "strop.h"
#include "strop_model.h"

#define PARAMS __attribute__((section(".strop_params")))

static const PARAMS float initial[STROP_MODEL_INPUTS] = {1.0f, -1.0f, 0.5f, 0.25f, 2.0f, 0.0f, -0.5f, 4.0f};
static float w[STROP_MODEL_INPUTS];
static uint32_t steps;

static void init(void)
{
    for (int i = 0; i < STROP_MODEL_INPUTS; i++) {
        w[i] = initial[i];
    }
    steps = 0;
}

static float dot(const float *x)
{
    float sum = 0.0f;
    for (int i = 0; i < STROP_MODEL_INPUTS; i++) {
        sum = strop_fmaf(w[i], x[i], sum);
    }
    return sum;
}

static float train_step(const void *x, const void *y)
{
    const float *inputs = x;
    const float error = dot(inputs) - *(const float *)y;
    for (int i = 0; i < STROP_MODEL_INPUTS; i++) {
        w[i] = strop_fmaf(-0.0625f * error, inputs[i], w[i]);
    }
    steps++;
    return error * error;
}

static void infer(const void *x, void *out)
{
    *(float *)out = dot(x);
}

static const strop_tensor_t tensors[] = {
    {w, sizeof w, STROP_F32, STROP_PARAM, 1, 0},
    {&steps, sizeof steps, STROP_U32, STROP_STATE, 0, 0},
};

const strop_model_t strop_model = {
    .hash = "emulated model!",
    .batch = 1,
    .x_bytes = STROP_MODEL_X_BYTES,
    .y_bytes = STROP_MODEL_Y_BYTES,
    .out_bytes = STROP_MODEL_OUT_BYTES,
    .n_tensors = sizeof tensors / sizeof *tensors,
    .tensors = tensors,
    .init = init,
    .train_step = train_step,
    .infer = infer,
};
