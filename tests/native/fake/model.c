/* A model small enough to follow by hand, whose parameters depend on every sample and on their order.
 *
 * x is ten bytes, y two labels below 5. A step does, for each of 300 weights w[i],
 *     w[i] = w[i] * DECAY + x[i % 10] + y[i % 2]
 * and returns w[0]; the state counts steps; `bias` is read-only. Whatever a session must guarantee, it checks. */
#include <stdint.h>
#include <stdlib.h>

#include "strop.h"
#include "strop_model.h"

#define WEIGHTS 300u
#define CLASSES 5u
#define DECAY 0.9990234375f /* so slow that the first sample still shows after a thousand */

static float weights[WEIGHTS];
static uint32_t calls;
static const float bias[3] = {1.0f, 2.0f, 3.0f};
static uint64_t kernel_cost[2];

static void check(int holds) {
    if (!holds) {
        abort();
    }
}

static int aligned(const void *address, uintptr_t to) { return ((uintptr_t)address & (to - 1u)) == 0; }

static void init(void) {
    for (uint32_t i = 0; i < WEIGHTS; i++) {
        weights[i] = 0.0f;
    }
    calls = 0;
}

static float train_step(const void *x, const void *y) {
    const uint8_t *sample = x;
    const int32_t *label = y;
    check(aligned(y, 4));
    check(label[0] >= 0 && label[0] < (int32_t)CLASSES && label[1] >= 0 && label[1] < (int32_t)CLASSES);
    for (uint32_t i = 0; i < WEIGHTS; i++) {
        weights[i] = weights[i] * DECAY + (float)sample[i % STROP_MODEL_X_BYTES] + (float)label[i % 2u];
    }
    calls++;
    kernel_cost[0] += 3u;
    kernel_cost[1] += UINT64_C(1) << 32;
    return weights[0];
}

static void infer(const void *x, void *out) {
    const uint8_t *sample = x;
    float *logits = out;
    check(aligned(out, 4));
    for (uint32_t i = 0; i < STROP_MODEL_OUT_BYTES / sizeof *logits; i++) {
        logits[i] = weights[i] + (float)sample[i];
    }
}

/* The cast takes `const` off a tensor that is not writable. */
static const strop_tensor_t tensors[] = {
    {.data = weights, .bytes = sizeof weights, .dtype = STROP_F32, .role = STROP_PARAM, .writable = 1},
    {.data = (void *)(uintptr_t)bias, .bytes = sizeof bias, .dtype = STROP_F32, .role = STROP_PARAM},
    {.data = &calls, .bytes = sizeof calls, .dtype = STROP_U32, .role = STROP_STATE, .writable = 1},
};

const strop_model_t strop_model = {
    .hash = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
    .batch = 2,
    .x_bytes = STROP_MODEL_X_BYTES,
    .y_bytes = STROP_MODEL_Y_BYTES,
    .out_bytes = STROP_MODEL_OUT_BYTES,
    .n_tensors = sizeof tensors / sizeof *tensors,
    .tensors = tensors,
    .init = init,
    .train_step = train_step,
    .infer = infer,
    .n_kernels = 2,
    .kernel_cost = kernel_cost,
    .n_classes = CLASSES,
};
