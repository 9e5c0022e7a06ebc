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

/* Natural logarithm. log(+-0) = -inf, log(1) = +0, log(inf) = inf, log(x < 0) = NaN; subnormal arguments are exact. */
float strop_logf(float x);

/* Hyperbolic tangent. tanh(-x) is -tanh(x) to the bit, x <= y implies tanh(x) <= tanh(y), |tanh(x)| <= 1 (reached from
 * |x| = 9.0109138 on); tanh(+-0) = +-0, and a subnormal argument is its own result. */
float strop_tanhf(float x);

/* Logistic function 1 / (1 + e^-x). Keeps its relative accuracy for negative x, down to subnormal results at -103.9. */
float strop_sigmoidf(float x);

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

/* Square root. sqrt(+-0) = +-0, sqrt(inf) = inf, sqrt(x < 0) = NaN. One instruction where the core has it. */
/* The larger of x and +0; +0 for NaN and -0. RISC-V's fmax does exactly this; others compare. */
static inline float strop_reluf(float x) {
#if defined(__riscv_flen)
    return __builtin_fmaxf(x, 0.0f);
#else
    return x > 0.0f ? x : 0.0f;
#endif
}

static inline float strop_sqrtf(float x) {
#if STROP_HAS_SQRT
    return STROP_BUILTIN_SQRT(x);
#else
    return strop_sqrtf_soft(x);
#endif
}

#endif
