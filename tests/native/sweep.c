/*
 * sweep.c: loops that are too long for Python, over the argument bits of the functions of numerics.h and rng.h.
 * Host only: the reference is libm in double, which is right to far less than a float's ulp.
 */
#include <math.h>

#include "numerics.h"
#include "rng.h"

typedef float function(float);
typedef double reference(double);

double reference_sigmoid(double x) {
    return x < 0.0 ? exp(x) / (1.0 + exp(x)) : 1.0 / (1.0 + exp(-x));
}

float inline_sqrt(float x) { return strop_sqrtf(x); }
float inline_fma(float a, float b, float c) { return strop_fmaf(a, b, c); }

/* |got - exact| in units of the spacing of floats at exact; infinite where only equality will do. */
static double ulp_error(float got, double exact) {
    const float nearest = (float)exact;
    if (isnan(exact) || isinf(nearest) || isnan(got) || isinf(got)) {
        return (isnan(exact) && isnan(got)) || got == nearest ? 0.0 : INFINITY;
    }
    const int exponent = fabsf(nearest) < FLT_MIN ? -126 : ilogbf(nearest);
    return fabs((double)got - exact) / ldexp(1.0, exponent - 23);
}

/* The largest error over every stride-th of the 2^32 arguments, and its argument in *at. */
double worst_error(function *f, reference *exact, uint32_t stride, float *at) {
    double worst = 0.0;
    for (uint64_t bits = 0; bits < 1ull << 32; bits += stride) {
        const float x = strop_bits_float((uint32_t)bits);
        const double error = ulp_error(f(x), exact((double)x));
        if (error > worst) {
            worst = error;
            *at = x;
        }
    }
    return worst;
}

/* How many of the positive arguments from..to (bits) give less than their predecessor, more than `most`, or break
 * f(-x) = -f(x) to the bit. */
uint32_t count_broken_shape(function *f, uint32_t from, uint32_t to, float most) {
    uint32_t broken = 0;
    float before = f(strop_bits_float(from));
    for (uint32_t bits = from; bits < to; bits++) {
        const float y = f(strop_bits_float(bits)), mirrored = f(strop_bits_float(bits | 0x80000000u));
        broken += !(y >= before && y <= most && strop_float_bits(mirrored) == (strop_float_bits(y) ^ 0x80000000u));
        before = y;
    }
    return broken;
}

/* How many of the arguments first, first + stride, … (count of them) have not exactly the square root's bits. */
uint32_t count_wrong_roots(function *f, uint32_t first, uint32_t stride, uint32_t count) {
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float x = strop_bits_float(first + i * stride);
        wrong += strop_float_bits(f(x)) != strop_float_bits(sqrtf(x)) && !(isnan(sqrtf(x)) && isnan(f(x)));
    }
    return wrong;
}

typedef float function3(float, float, float);

static uint32_t fma_differs(function3 *f, float a, float b, float c) {
    const float got = f(a, b, c), exact = fmaf(a, b, c);
    return strop_float_bits(got) != strop_float_bits(exact) && !(isnan(got) && isnan(exact));
}

/* Every triple of `edges`. */
uint32_t count_wrong_fma_edges(function3 *f, const float *edges, uint32_t n) {
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < n * n * n; i++) {
        wrong += fma_differs(f, edges[i / (n * n)], edges[i / n % n], edges[i % n]);
    }
    return wrong;
}

/* Random bits: anything; c a few ulp from -a b, where all but the low bits cancel; a product among the subnormals. */
uint32_t count_wrong_fma_random(function3 *f, uint32_t count) {
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float a = strop_bits_float(strop_rng(1, 0, i)), b = strop_bits_float(strop_rng(1, 1, i));
        const uint32_t c = strop_rng(1, 2, i), near = strop_float_bits(-(a * b)) + c % 8u - 4u;
        const float tiny = ldexpf(frexpf(b, &(int){0}), -149 + (int)(c % 40u) - ilogbf(a));
        wrong += fma_differs(f, a, b, strop_bits_float(c));
        wrong += fma_differs(f, a, b, strop_bits_float(near));
        wrong += fma_differs(f, a, tiny, strop_bits_float(c % 0x01000000u));
    }
    return wrong;
}

/* `count` elements of one tensor, from index `first` on. */
void fill_rng(uint32_t seed, uint32_t tensor, uint32_t first, uint32_t count,
              uint32_t *bits, float *uniform, float *sign) {
    for (uint32_t i = 0; i < count; i++) {
        bits[i] = strop_rng(seed, tensor, first + i);
        uniform[i] = strop_rng_uniform(seed, tensor, first + i);
        sign[i] = strop_rng_sign(seed, tensor, first + i);
    }
}
