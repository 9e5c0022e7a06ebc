/*
 * lanes.h: vectors of float32 for generated kernels, for cores with a vector unit and for the PC that plays one.
 *
 * THE PROMISE
 *   Lane k of a result depends on lane k of the operands alone, by the same operation, rounded once, as on scalars. So a
 *   kernel in vectors has the bits of the kernel in scalars, on the board and on the PC. fma has one rounding.
 *
 * THE TYPES
 *   strop_f32xN holds N lanes, of which the first n count: every function takes n <= N last, and what is in other lanes
 *   is anything. load and store touch n elements, `stride` elements apart; load_u8 and store_u8 find whole numbers from
 *   0 to 255 in memory. A function's name ends in what its operands
 *   are where one is a float: fma_fvv(a, b, c, n) is a * b + c with a float a.
 */
#ifndef STROP_LANES_H
#define STROP_LANES_H

#include <stddef.h>
#include <stdint.h>

#include "numerics.h"

#define STROP_INLINE static inline __attribute__((always_inline, unused))

#if defined(__riscv_vector)
/* RVV 1.0 with groups of registers: LANES(N, g, b, h, q) are N lanes in a group of g registers, as 16 and as 8 bits in groups of
 * h and q; b is the ratio in the name of a mask's type. */
#include <riscv_vector.h>

#define LANES(N, g, b, h, q)                                                                                                 \
    typedef vfloat32m##g##_t strop_f32x##N;                                                                            \
    STROP_INLINE strop_f32x##N strop_x##N##_load(const float *p, ptrdiff_t stride, size_t n) {                         \
        return stride == 1 ? __riscv_vle32_v_f32m##g(p, n) : __riscv_vlse32_v_f32m##g(p, 4 * stride, n);               \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store(float *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                      \
        if (stride == 1) {                                                                                             \
            __riscv_vse32_v_f32m##g(p, v, n);                                                                          \
        } else {                                                                                                       \
            __riscv_vsse32_v_f32m##g(p, 4 * stride, v, n);                                                             \
        }                                                                                                              \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_fill(float a, size_t n) { return __riscv_vfmv_v_f_f32m##g(a, n); }         \
    STROP_INLINE strop_f32x##N strop_x##N##_sqrt(strop_f32x##N a, size_t n) {                                          \
        return __riscv_vfsqrt_v_f32m##g(a, n);                                                                         \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_load_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {                    \
        return __riscv_vfcvt_f_xu_v_f32m##g(                                                                           \
            __riscv_vzext_vf4_u32m##g(                                                                                 \
                stride == 1 ? __riscv_vle8_v_u8##q(p, n) : __riscv_vlse8_v_u8##q(p, stride, n), n), n);                \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_u8(uint8_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                 \
        const vuint16##h##_t half = __riscv_vncvt_x_x_w_u16##h(__riscv_vfcvt_xu_f_v_u32m##g(v, n), n);                 \
        const vuint8##q##_t bytes = __riscv_vncvt_x_x_w_u8##q(half, n);                                                \
        if (stride == 1) {                                                                                             \
            __riscv_vse8_v_u8##q(p, bytes, n);                                                                         \
        } else {                                                                                                       \
            __riscv_vsse8_v_u8##q(p, stride, bytes, n);                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    LANES_TWO(N, g, add, vfadd_vv, vfadd_vf, vfadd_vf)                                                                 \
    LANES_TWO(N, g, sub, vfsub_vv, vfsub_vf, vfrsub_vf)                                                                \
    LANES_TWO(N, g, mul, vfmul_vv, vfmul_vf, vfmul_vf)                                                                 \
    LANES_TWO(N, g, div, vfdiv_vv, vfdiv_vf, vfrdiv_vf)                                                                \
    LANES_FMA(N, g, fma, vfmacc)                                                                                       \
    LANES_FMA(N, g, fnma, vfnmsac)                                                                                     \
    LANES_PICK(N, g, b, gt, vmfgt_vv)                                                                                  \
    LANES_PICK(N, g, b, ge, vmfge_vv)                                                                                  \
    LANES_PICK(N, g, b, eq, vmfeq_vv)

#define LANES_TWO(N, g, name, vv, vf, fv)                                                                              \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, size_t n) {                       \
        return __riscv_##vv##_f32m##g(a, b, n);                                                                        \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_vf(strop_f32x##N a, float b, size_t n) {                          \
        return __riscv_##vf##_f32m##g(a, b, n);                                                                        \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fv(float a, strop_f32x##N b, size_t n) {                          \
        return __riscv_##fv##_f32m##g(b, a, n);                                                                        \
    }

#define LANES_FMA(N, g, name, op)                                                                                      \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N c, size_t n) {      \
        return __riscv_##op##_vv_f32m##g(c, a, b, n);                                                                  \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fvv(float a, strop_f32x##N b, strop_f32x##N c, size_t n) {        \
        return __riscv_##op##_vf_f32m##g(c, a, b, n);                                                                  \
    }

/* a > b ? x : y and the like. */
#define LANES_PICK(N, g, b, name, op)                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name(strop_f32x##N a, strop_f32x##N c, strop_f32x##N x,             \
                                                        strop_f32x##N y, size_t n) {                                   \
        return __riscv_vmerge_vvm_f32m##g(y, x, __riscv_##op##_f32m##g##_b##b(a, c, n), n);                            \
    }

#if __riscv_v_min_vlen >= 256
LANES(8, 1, 32, mf2, mf4)
LANES(16, 2, 16, m1, mf2)
LANES(32, 4, 8, m2, m1)
LANES(64, 8, 4, m4, m2)
#elif __riscv_v_min_vlen >= 128
LANES(8, 2, 16, m1, mf2)
LANES(16, 4, 8, m2, m1)
LANES(32, 8, 4, m4, m2)
#else
#error "kernels in vectors need registers of at least 128 bits: tell the compiler zvl128b or more"
#endif

#else
/* Vector types of gcc and clang, which any core can compute with; a function's body is a loop over lanes. */
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* all of it is inlined: no vector crosses a call */
#endif

#define EACH(N, element)                                                                                               \
    {                                                                                                                  \
        strop_f32x##N y = {0};                                                                                         \
        for (size_t i = 0; i < (N); ++i) {                                                                             \
            y[i] = i < n ? (element) : 0.0f;                                                                           \
        }                                                                                                              \
        return y;                                                                                                      \
    }

#define LANES(N)                                                                                                       \
    typedef float strop_f32x##N __attribute__((vector_size(4 * (N))));                                                 \
    STROP_INLINE strop_f32x##N strop_x##N##_load(const float *p, ptrdiff_t stride, size_t n)                           \
        EACH(N, p[(ptrdiff_t)i * stride])                                                                              \
    STROP_INLINE void strop_x##N##_store(float *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                      \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[(ptrdiff_t)i * stride] = v[i];                                                                           \
        }                                                                                                              \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_fill(float a, size_t n) EACH(N, a)                                         \
    STROP_INLINE strop_f32x##N strop_x##N##_sqrt(strop_f32x##N a, size_t n) EACH(N, strop_sqrtf(a[i]))                 \
    STROP_INLINE strop_f32x##N strop_x##N##_load_u8(const uint8_t *p, ptrdiff_t stride, size_t n)                      \
        EACH(N, (float)p[(ptrdiff_t)i * stride])                                                                       \
    STROP_INLINE void strop_x##N##_store_u8(uint8_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                 \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[(ptrdiff_t)i * stride] = (uint8_t)v[i];                                                                  \
        }                                                                                                              \
    }                                                                                                                  \
    LANES_TWO(N, add, +)                                                                                               \
    LANES_TWO(N, sub, -)                                                                                               \
    LANES_TWO(N, mul, *)                                                                                               \
    LANES_TWO(N, div, /)                                                                                               \
    LANES_FMA(N, fma, +)                                                                                               \
    LANES_FMA(N, fnma, -)                                                                                              \
    LANES_PICK(N, gt, >)                                                                                               \
    LANES_PICK(N, ge, >=)                                                                                              \
    LANES_PICK(N, eq, ==)

#define LANES_TWO(N, name, op)                                                                                         \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, size_t n) EACH(N, a[i] op b[i])   \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_vf(strop_f32x##N a, float b, size_t n) EACH(N, a[i] op b)         \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fv(float a, strop_f32x##N b, size_t n) EACH(N, a op b[i])

#define LANES_FMA(N, name, sign)                                                                                       \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N c, size_t n)        \
        EACH(N, strop_fmaf(sign a[i], b[i], c[i]))                                                                     \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fvv(float a, strop_f32x##N b, strop_f32x##N c, size_t n)          \
        EACH(N, strop_fmaf(sign a, b[i], c[i]))

#define LANES_PICK(N, name, op)                                                                                        \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N x,             \
                                                        strop_f32x##N y, size_t n) {                                   \
        strop_f32x##N z = {0};                                                                                         \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            z[i] = a[i] op b[i] ? x[i] : y[i];                                                                         \
        }                                                                                                              \
        return z;                                                                                                      \
    }

LANES(8)
LANES(16)
LANES(32)
LANES(64)
#endif

#undef EACH
#undef LANES
#undef LANES_TWO
#undef LANES_FMA
#undef LANES_PICK

#endif
