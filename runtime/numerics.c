/*
 * numerics.c: see numerics.h for the contract.
 *
 * The polynomials are minimax fits of the relative error of the whole function (Lawson's reweighted least squares on
 * Chebyshev nodes). Their coefficients were rounded one after the other and the rest refitted each time, those of the
 * highest powers to 12 bits, which a core loads with one instruction.
 */
#include "numerics.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define INFINITE strop_bits_float(0x7f800000u)
#define NOT_A_NUMBER strop_bits_float(0x7fc00000u)
#define MANTISSA_BITS 23

/* y * 2^n for a result that is a normal number. Only the low 9 bits of n count. */
static float scale(float y, uint32_t n) {
    return strop_bits_float(strop_float_bits(y) + (n << MANTISSA_BITS));
}

/* The end of strop_expf for |x| >= 87, where 2^n may leave the exponent field, and for NaN: y * 2^n, rounded once. */
static float exp_extreme(float x, float y, uint32_t n) {
    if (x > 0.0f) {
        return x < 89.0f ? scale(y, n - 1u) * 2.0f : INFINITE;
    }
    if (x < 0.0f) {
        return x > -104.0f ? scale(y, n + 64u) * 0x1p-64f : 0.0f;
    }
    return NOT_A_NUMBER;
}

#define HORNER(coefficient, _) q = q * r + (coefficient);

/* x = n ln 2 + r with |r| <= ln(2) / 2, then e^x = 2^n (1 + r + r^2 Q(r)). Q's error is below 2^-28 of e^r. */
float strop_expf(float x) {
    const float sum = x * STROP_LOG2_E + STROP_INTEGER; /* its low bits are n */
    const float n = sum - STROP_INTEGER;
    const float r = (x - n * STROP_LN2_HIGH) - n * STROP_LN2_LOW;
    float q = STROP_EXP_FIRST;
    STROP_EXP_REST(HORNER, )
    const float y = 1.0f + (r + r * r * q);
    return __builtin_fabsf(x) < 87.0f ? scale(y, strop_float_bits(sum)) : exp_extreme(x, y, strop_float_bits(sum));
}

/* x = 2^k (1 + f) with f in [-1/3, 1/3), s = f / (2 + f); then log(1 + f) = 2 atanh(s) = f - (f^2/2 - s (f^2/2 + R)),
 * where R = s^2 P(s^2) has an error below 2^-28 of the result. */
float strop_logf(float x) {
    if (!(x > 0.0f && x < INFINITE)) {
        return x == 0.0f ? -INFINITE : x > 0.0f ? x : NOT_A_NUMBER;
    }
    const int subnormal = x < FLT_MIN;
    const uint32_t bits = strop_float_bits(subnormal ? x * 0x1p23f : x);
    const uint32_t above = bits - 0x3f2aaaabu; /* distance from 2/3; its exponent field, signed, is k */
    const uint32_t exponent = above & 0xff800000u;
    const float f = strop_bits_float(bits - exponent) - 1.0f;
    const float k = (float)((int32_t)exponent / (1 << MANTISSA_BITS) - (subnormal ? 23 : 0));
    const float s = f / (2.0f + f), z = s * s, half = 0.5f * f * f;
    float p = 0x1.36ep-2f;
    p = p * z + 0x1.992b1ap-2f;
    p = p * z + 0x1.5555b4p-1f;
    return k * STROP_LN2_HIGH + (f - (half - (s * (half + z * p) + k * STROP_LN2_LOW)));
}

/* A polynomial in a = |x| up to 0.55, where tanh reaches 1/2: above, 1 - 2 / (e^2a + 1) is free of cancellation. */
float strop_tanhf(float x) {
    const float a = __builtin_fabsf(x);
    if (!(a < 0.55f)) {
        return __builtin_copysignf(1.0f - 2.0f / (strop_expf(2.0f * a) + 1.0f), x);
    }
    const float z = a * a;
    float p = -0x1.9b4p-8f;
    p = p * z + 0x1.594p-6f;
    p = p * z - 0x1.b9285ap-5f;
    p = p * z + 0x1.110d1ap-3f;
    p = p * z - 0x1.55554ap-2f;
    return __builtin_copysignf(a + a * z * p, x);
}

/* With e = e^-|x| <= 1 nothing overflows: 1 / (1 + e) for x >= 0, e / (1 + e) below. */
float strop_sigmoidf(float x) {
    const float e = strop_expf(-__builtin_fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

#if !STROP_HAS_SQRT

/* The upper word of a product: fixed-point multiplication, UQa.b * UQc.d -> UQ(a+c).(b+d-32). */
static uint32_t multiply_high(uint32_t a, uint32_t b) {
    return (uint32_t)(((uint64_t)a * b) >> 32);
}

/* floor(sqrt(v) 2^23) or one less, for v in [1, 4) as UQ2.30. Newton's r <- r (3 - v r^2) / 2 takes a guess of
 * 1/sqrt(v), linear in each octave and within 5.1 %, to 2^-26.9; guess and r are UQ1.31. */
static uint32_t root_below(uint32_t v, uint32_t guess) {
    uint32_t r = guess;
    for (int i = 0; i < 3; i++) {
        const uint32_t vr2 = multiply_high(v, multiply_high(r, r)); /* UQ4.28 */
        r = multiply_high(r, (3u << 28) - vr2) << 3;
    }
    return (multiply_high(v, r) - 8u) >> 6; /* UQ3.29, off by -10 to +4: the 8 keep it below; to 23 fraction bits */
}

float strop_sqrtf_soft(float x) {
    uint32_t bits = strop_float_bits(x);
    if (bits - 1u >= 0x7f7fffffu) { /* not a positive finite number */
        return bits << 1 == 0u || bits == 0x7f800000u ? x : NOT_A_NUMBER;
    }
    const int subnormal = bits < 0x00800000u;
    if (subnormal) {
        bits = strop_float_bits(x * 0x1p24f);
    }
    const uint32_t octave = (bits + 0x00800000u) & 0x00ffffffu; /* position in [1, 2) or [2, 4): odd exponents double */
    const uint32_t v = ((octave & 0x007fffffu) | 0x00800000u) << (7u + (octave >> MANTISSA_BITS));
    const uint32_t root = root_below(v, 0x7d000000u - (octave << 6));
    const uint32_t remainder = (v << 16) - root * root; /* small, so arithmetic modulo 2^32 finds it */
    const uint32_t exponent = ((bits >> MANTISSA_BITS) + 127u) / 2u - (subnormal ? 12u : 0u);
    return strop_bits_float(((exponent - 1u) << MANTISSA_BITS) + root + (remainder > root ? 1u : 0u));
}

#endif

#if !STROP_HAS_FMA

/* The product is exact in double. Their sum is rounded to odd (inexact sums get an odd last bit), which makes the
 * second rounding, to float, the only one that counts: S. Boldo and G. Melquiond, "Emulation of a FMA and correctly
 * rounded sums: proved algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008. */
float strop_fmaf_soft(float a, float b, float c) {
    const double product = (double)a * (double)b, addend = (double)c;
    union { double f; uint64_t u; } sum = {.f = product + addend};
    const double part = sum.f - product; /* Knuth's TwoSum: error is what sum lost, exactly; NaN beside infinities */
    const double error = (product - (sum.f - part)) + (addend - part);
    const int inexact = error < 0.0 || error > 0.0;
    if (inexact && (sum.u & 1u) == 0u) {
        sum.u = (error > 0.0) == (sum.f > 0.0) ? sum.u + 1u : sum.u - 1u;
    }
    return (float)sum.f;
}

#endif
