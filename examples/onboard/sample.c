/* Samples that a board makes itself: a machine's vibration, it turns well (0), unbalanced (1), or on a worn
 * bearing (2). Read your sensor here.
 *
 *     strop monitor examples/vibration.py:network --board qemu-rv32imf --rule tpsgd --sample examples/onboard/sample.c
 */
#include "onboard.h"

#include "strop_model.h"

enum { SAMPLES = STROP_MODEL_X_BYTES / sizeof(float), BATCHES = 4000 };

static uint32_t draw(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* In [-1, 1). */
static float noise(void) {
    return (float)draw() * 0x1p-23f - 1.0f;
}

/* A triangle wave between -1 and 1 with a period of `period` samples. */
static float wave(uint32_t at, uint32_t period) {
    const float phase = (float)(at % period) / (float)period;
    return phase < 0.5f ? 4.0f * phase - 1.0f : 3.0f - 4.0f * phase;
}

/* Waits for a window of the sensor. */
bool strop_sample(float *x, int32_t *y) {
    static uint32_t count;
    if (count == BATCHES) {
        return false; /* a sensor never does: this lets an emulator's board come to an end */
    }
    const int32_t state = (int32_t)(draw() % 3u);
    const uint32_t start = draw() % 3u; /* a window begins about where a mark on the shaft passes */
    for (uint32_t i = 0; i < SAMPLES; ++i) {
        const float knock = (start + i) % 9u == 0 ? 1.5f : 0.0f;
        x[i] = (state == 1 ? 1.5f : 0.5f) * wave(start + i, 16) + (state == 2 ? knock : 0.0f) + 0.4f * noise();
    }
    y[0] = state;
    ++count;
    return true;
}
