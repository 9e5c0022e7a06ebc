/*
 * numerics.h: the elementary functions of every generated model. They replace libm, so that a board and the PC agree.
 *
 * THE PROMISE
 *   The same argument bits give the same result bits on every core and compiler: with or without FPU, at -O0 and -O3.
 *   A difference between a board and its twin is therefore never one of rounding.
 *
 * WHAT IT TAKES
 *   - IEEE-754 binary32 `float`, round to nearest even, subnormals kept (no flush to zero). Soft float qualifies.
 *   - Compile with -ffp-contract=off (gcc's default under -std=c11) and without -ffast-math. The functions use plain
 *     + - * / and integers, each operation rounded once; none relies on a fused multiply-add, which a core without FPU
 *     would pay for dearly.
 *   - On a core with Helium, without vectors of the compiler's own, which flush: -fno-tree-vectorize
 *     -fno-tree-slp-vectorize. What computes in vectors is written so (lanes.h).
 *   - No double (save strop_fmaf_soft), table, static data, allocation, errno or libm. Reentrant.
 *   - IEEE exception flags are not part of the contract.
 *
 * FUNCTIONS        domain     range              error, ulp           instructions a call
 *                                               bound   max seen     rv32imf   rv32imac
 *   strop_expf      all        [0, inf]          1.0     0.9903       57        1250
 *   strop_logf      x >= 0     [-inf, inf]       0.85    0.8376       65        1450
 *   strop_tanhf     all        [-1, 1]           1.5     1.4587       34..73    400..1700
 *   strop_sigmoidf  all        [0, 1]            2.5     2.4019       66        1440
 *   strop_sqrtf     x >= -0    [-0, inf]         0.5     0.5000       1         124
 *   strop_fmaf      all        all               0.5     0.5          1         not meant for it
 *
 *   One ulp is the spacing of floats at the exact result, 2^-149 for a subnormal one. "Max seen" is over all 2^32
 *   arguments against double precision, so the bound holds; the tests repeat a part of that sweep, or all of it on
 *   demand. Instructions: typical, zig cc -O2 -fomit-frame-pointer, the call included.
 *
 * SPECIAL VALUES
 *   A NaN argument, or one outside the domain, gives a quiet NaN. Which one is the core's choice, as for inf - inf in
 *   any program: whoever compares bits takes all NaNs for one. Infinities give the limit. A result too large is inf,
 *   one too small a subnormal or zero.
 */
#ifndef STROP_NUMERICS_H
#define STROP_NUMERICS_H

#include <float.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "strop needs IEEE arithmetic: compile without -ffast-math and -ffinite-math-only"
#endif
_Static_assert(sizeof(float) == 4 && FLT_MANT_DIG == 24 && FLT_MAX_EXP == 128, "float must be IEEE-754 binary32");
_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16, "float must not be evaluated in a wider type (x87?)");

/* The bits of x. */
static inline uint32_t strop_float_bits(float x) {
    const union { float f; uint32_t u; } pun = {.f = x};
    return pun.u;
}

/* The float whose bits are u. */
static inline float strop_bits_float(uint32_t u) {
    const union { uint32_t u; float f; } pun = {.u = u};
    return pun.f;
}

/* e^x. inf above 88.7228, subnormal below -87.3365, 0 below -103.9721; exp(+-0) = 1. */
float strop_expf(float x);

/* What e^x is computed with, here and in the lanes of lanes.h. */
#define STROP_LOG2_E 0x1.715476p0f
#define STROP_INTEGER 0x1.8p23f         /* so large that a sum with it is an integer */
#define STROP_LN2_HIGH 0x1.63p-1f       /* 9 bits of ln 2: an integer below 2^15 times it is exact */
#define STROP_LN2_LOW -0x1.bd0106p-13f  /* ln 2 - STROP_LN2_HIGH */
#define STROP_EXP_FIRST 0x1.6a2p-10f    /* the coefficients of Q (numerics.c), from the highest power on */
#define STROP_EXP_REST(step, N) \
    step(0x1.124p-7f, N) step(0x1.5558dep-5f, N) step(0x1.55548ap-3f, N) step(0x1.fffffcp-2f, N)

/* Natural logarithm. log(+-0) = -inf, log(1) = +0, log(inf) = inf, log(x < 0) = NaN; subnormal arguments are exact. */
float strop_logf(float x);

/* Hyperbolic tangent. tanh(-x) is -tanh(x) to the bit, x <= y implies tanh(x) <= tanh(y), |tanh(x)| <= 1 (reached from
 * |x| = 9.0109138 on); tanh(+-0) = +-0, and a subnormal argument is its own result. */
float strop_tanhf(float x);

/* Logistic function 1 / (1 + e^-x). Keeps its relative accuracy for negative x, down to subnormal results at -103.9. */
float strop_sigmoidf(float x);

/* --- 16-bit storage ---------------------------------------------------------------------------------------------
 *
 * Numbers rest in memory as 16 bits, in a uint16_t, and are float in every computation. All 65,536 patterns widen
 * exactly; a float becomes the nearest 16-bit number, ties to even, subnormals kept, infinity beyond the largest.
 *
 *   binary16 (IEEE 754-2008)   1 + 5 + 10 bits   6e-8 .. 65504   2^-11 relative   strop_f16_*
 *   bfloat16 (float's upper)   1 + 8 + 7 bits    float's range   2^-9 relative    strop_bf16_*
 *
 * Cores that convert in hardware do (Zfh, ARM's half-precision extension, F16C), with the same result but for the bits
 * of a NaN; others take 5 to 12 integer instructions. */
#if defined(__riscv_zfh) || defined(__riscv_zfhmin) || (defined(__F16C__) && defined(__FLT16_MANT_DIG__))
#define STROP_HALF _Float16
#elif defined(__ARM_FP16_FORMAT_IEEE) && defined(__ARM_FP) && (__ARM_FP & 2)
#define STROP_HALF __fp16
#endif

/* The value of binary16 bits; exact. */
static inline float strop_f16_float(uint16_t h) {
#if defined(STROP_HALF) && !defined(STROP_SOFT)
    const union { uint16_t u; STROP_HALF h; } pun = {.u = h};
    return (float)pun.h;
#else
    const uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13;
    const float wide = strop_bits_float(magnitude) * 0x1p112f; /* the exponents' biases differ by 112 */
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
    return strop_bits_float(strop_float_bits(wide) | special | (uint32_t)(h & 0x8000u) << 16);
#endif
}

/* The nearest binary16. */
static inline uint16_t strop_f16_bits(float x) {
#if defined(STROP_HALF) && !defined(STROP_SOFT)
    const union { STROP_HALF h; uint16_t u; } pun = {.h = (STROP_HALF)x};
    return pun.u;
#else
    const uint32_t bits = strop_float_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x47800000u) { /* 65536 and more, and NaN */
        return (uint16_t)(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
    }
    if (magnitude < 0x38800000u) { /* subnormal: 0.5's last place is 2^-24, and the addition rounds to it */
        const float aligned = strop_bits_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (strop_float_bits(aligned) - 0x3f000000u));
    }
    return (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
#endif
}

/* The value of bfloat16 bits; exact. */
static inline float strop_bf16_float(uint16_t h) {
    return strop_bits_float((uint32_t)h << 16);
}

/* The nearest bfloat16. */
static inline uint16_t strop_bf16_bits(float x) {
    const uint32_t bits = strop_float_bits(x);
    const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0u : nearest);
}

/* x as it would be after a rest in memory. */
static inline float strop_f16_roundedf(float x) {
    return strop_f16_float(strop_f16_bits(x));
}

static inline float strop_bf16_roundedf(float x) {
    return strop_bf16_float(strop_bf16_bits(x));
}

/* Stochastic rounding: one of the two 16-bit neighbours of x, the nearer the likelier, so that the mean over `random`,
 * 32 uniform bits, is x. Exact numbers, infinities and NaN stay as they are. */
static inline float strop_bf16_ditheredf(float x, uint32_t random) {
    const uint32_t bits = strop_float_bits(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? x : strop_bits_float((bits + (random >> 16)) & 0xffff0000u);
}

static inline float strop_f16_ditheredf(float x, uint32_t random) {
    const uint32_t bits = strop_float_bits(x), magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x38800000u) { /* 2^-14 and more: thirteen bits too many; what exceeds the range rounds to inf */
        return magnitude >= 0x7f800000u ? x : strop_bits_float((bits + (random >> 19)) & 0xffffe000u);
    }
    const float places = strop_bits_float(magnitude) * 0x1p24f; /* subnormal: multiples of 2^-24, below 1024 of them */
    const uint32_t whole = (uint32_t)places;
    const float rest = places - (float)whole;
    const uint32_t up = rest * 0x1p24f > (float)(random >> 8);
    const float value = (float)(whole + up) * 0x1p-24f;
    return bits >> 31 ? -value : value;
}

/* Does the core have the instruction, and does this compiler promise to emit it rather than call libm? clang's
 * elementwise builtins and gcc's fma always do, the older ones under -fno-math-errno only; else the software version is
 * taken. -DSTROP_SOFT takes the software versions everywhere: slower, the same bits. */
#ifdef __has_builtin
#if __has_builtin(__builtin_elementwise_fma) && __has_builtin(__builtin_elementwise_sqrt)
#define STROP_BUILTIN_FMA __builtin_elementwise_fma
#define STROP_BUILTIN_SQRT __builtin_elementwise_sqrt
#endif
#endif
#if !defined(STROP_BUILTIN_FMA) && (defined(__NO_MATH_ERRNO__) || (defined(__GNUC__) && !defined(__clang__)))
#define STROP_BUILTIN_FMA __builtin_fmaf
#endif
#if !defined(STROP_BUILTIN_SQRT) && defined(__NO_MATH_ERRNO__)
#define STROP_BUILTIN_SQRT __builtin_sqrtf
#endif

#if defined(STROP_BUILTIN_FMA) && !defined(STROP_SOFT) && \
    (defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__riscv_flen))
#define STROP_HAS_FMA 1
#else
#define STROP_HAS_FMA 0
#endif

#if defined(STROP_BUILTIN_SQRT) && !defined(STROP_SOFT) && \
    (defined(__SSE2__) || (defined(__ARM_FP) && (__ARM_FP & 4)) || defined(__riscv_flen))
#define STROP_HAS_SQRT 1
#else
#define STROP_HAS_SQRT 0
#endif

#if !STROP_HAS_FMA
/* strop_fmaf in software. Uses double: meant for a PC that plays a board with the instruction. A Program for a core
 * without it contains no fma. */
float strop_fmaf_soft(float a, float b, float c);
#endif

#if !STROP_HAS_SQRT
/* strop_sqrtf in integer arithmetic: ten 32 x 32 -> 64 bit multiplications and no division. */
float strop_sqrtf_soft(float x);
#endif

/* a * b + c with one rounding. One instruction where the core has it. */
static inline float strop_fmaf(float a, float b, float c) {
#if STROP_HAS_FMA
    return STROP_BUILTIN_FMA(a, b, c);
#else
    return strop_fmaf_soft(a, b, c);
#endif
}

/* The larger of x and +0; +0 for NaN and -0. RISC-V's fmax does exactly this; others compare. gcc makes a call of libm's
 * fmaxf out of its builtin, for the sake of signalling NaNs: it is given the instruction. */
static inline float strop_reluf(float x) {
#if defined(__riscv_flen) && defined(__clang__)
    return __builtin_fmaxf(x, 0.0f);
#elif defined(__riscv_flen)
    float larger;
    __asm__("fmax.s %0, %1, %2" : "=f"(larger) : "f"(x), "f"(0.0f));
    return larger;
#else
    return x > 0.0f ? x : 0.0f;
#endif
}

/* Square root. sqrt(+-0) = +-0, sqrt(inf) = inf, sqrt(x < 0) = NaN. One instruction where the core has it. */
static inline float strop_sqrtf(float x) {
#if STROP_HAS_SQRT
    return STROP_BUILTIN_SQRT(x);
#else
    return strop_sqrtf_soft(x);
#endif
}

#endif
