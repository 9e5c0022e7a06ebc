/*
 * half.c: the conversions of numerics.h between float and 16 bits over arrays, and one number for all that they do.
 * Runs on the host as a library, and as part of digest.c on emulated boards.
 */
#include "numerics.h"
#include "rng.h"

void widen(int brain, const uint16_t *h, float *x, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        x[i] = brain ? strop_bf16_float(h[i]) : strop_f16_float(h[i]);
    }
}

void narrow(int brain, const float *x, uint16_t *h, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        h[i] = brain ? strop_bf16_bits(x[i]) : strop_f16_bits(x[i]);
    }
}

void rest(int brain, const float *x, float *y, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        y[i] = brain ? strop_bf16_roundedf(x[i]) : strop_f16_roundedf(x[i]);
    }
}

void dither(int brain, const float *x, const uint32_t *random, float *y, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        y[i] = brain ? strop_bf16_ditheredf(x[i], random[i]) : strop_f16_ditheredf(x[i], random[i]);
    }
}

static uint32_t fold(uint32_t state, float y) {
    return strop_rng_mix(state ^ (y == y ? strop_float_bits(y) : 0x7fc00000u), 1);
}

/* The bits of every 16-bit number as a float, and of the floats at, below and above the middle between it and the next,
 * stored to the nearest and by chance, folded into 32 bits. NaNs are one. */
uint32_t half_digest(int brain) {
    const uint32_t middle = brain ? 0x8000u : 0x1000u;
    uint32_t state = 0;
    for (uint32_t h = 0; h < 0x10000u; h++) {
        const float x = brain ? strop_bf16_float((uint16_t)h) : strop_f16_float((uint16_t)h);
        state = fold(state, x);
        for (uint32_t i = 0; i < 3; i++) {
            const float y = strop_bits_float(strop_float_bits(x) + middle + i - 1u);
            const uint32_t random = strop_rng(3, 5, 3u * h + i);
            state = fold(state, brain ? strop_bf16_roundedf(y) : strop_f16_roundedf(y));
            state = fold(state, brain ? strop_bf16_ditheredf(y, random) : strop_f16_ditheredf(y, random));
        }
    }
    return state;
}
