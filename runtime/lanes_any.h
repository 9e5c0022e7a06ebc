/*
 * lanes_any.h: the functions of lanes.h in the vector types of gcc and clang, which any core can compute with; a
 * function's body is a loop over lanes. Part of lanes.h, which includes it.
 */
#if defined(STROP_LANES_FLUSH)
#include "lanes_flush.h"
#else
STROP_INLINE float strop_lane_add(float a, float b) { return a + b; }
STROP_INLINE float strop_lane_sub(float a, float b) { return a - b; }
STROP_INLINE float strop_lane_mul(float a, float b) { return a * b; }
STROP_INLINE float strop_lane_fma(float a, float b, float c) { return strop_fmaf(a, b, c); }
STROP_INLINE bool strop_lane_gt(float a, float b) { return a > b; }
STROP_INLINE bool strop_lane_ge(float a, float b) { return a >= b; }
STROP_INLINE bool strop_lane_eq(float a, float b) { return a == b; }
STROP_INLINE float strop_lane_f16_float(uint16_t h) { return strop_f16_float(h); }
STROP_INLINE uint16_t strop_lane_f16_bits(float x) { return strop_f16_bits(x); }
#endif
STROP_INLINE float strop_lane_div(float a, float b) { return a / b; }
STROP_INLINE float strop_lane_bf16_float(uint16_t h) { return strop_bf16_float(h); }
STROP_INLINE uint16_t strop_lane_bf16_bits(float x) { return strop_bf16_bits(x); }

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
    STROP_INLINE strop_f32x##N strop_x##N##_load_bf16(const uint16_t *p, ptrdiff_t stride, size_t n)                   \
        EACH(N, strop_lane_bf16_float(p[(ptrdiff_t)i * stride]))                                                       \
    STROP_INLINE strop_f32x##N strop_x##N##_load_f16(const uint16_t *p, ptrdiff_t stride, size_t n)                    \
        EACH(N, strop_lane_f16_float(p[(ptrdiff_t)i * stride]))                                                        \
    LANES_STORE(N, bf16)                                                                                               \
    LANES_STORE(N, f16)                                                                                                \
    typedef uint16_t strop_f16x##N __attribute__((vector_size(2 * (N))));                                              \
    STROP_INLINE strop_f16x##N strop_x##N##_half(const uint16_t *p, ptrdiff_t stride, size_t n) {                      \
        strop_f16x##N y = {0};                                                                                         \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            y[i] = p[(ptrdiff_t)i * stride];                                                                           \
        }                                                                                                              \
        return y;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_add_f16(strop_f32x##N a, strop_f16x##N b, size_t n)                        \
        EACH(N, strop_lane_add(a[i], strop_lane_f16_float(b[i])))                                                      \
    STROP_INLINE strop_f32x##N strop_x##N##_sub_f16(strop_f32x##N a, strop_f16x##N b, size_t n)                        \
        EACH(N, strop_lane_sub(a[i], strop_lane_f16_float(b[i])))                                                      \
    LANES_FMA_HALF(N, fma, +)                                                                                          \
    LANES_FMA_HALF(N, fnma, -)                                                                                         \
    STROP_INLINE bool strop_x##N##_within(strop_f32x##N a, float most, size_t n) {                                     \
        bool is = true;                                                                                                \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            is &= strop_lane_ge(a[i], -most) && strop_lane_ge(most, a[i]);                                             \
        }                                                                                                              \
        return is;                                                                                                     \
    }                                                                                                                  \
    LANES_TWO(N, add)                                                                                                  \
    LANES_TWO(N, sub)                                                                                                  \
    LANES_TWO(N, mul)                                                                                                  \
    LANES_TWO(N, div)                                                                                                  \
    LANES_FMA(N, fma, +)                                                                                               \
    LANES_FMA(N, fnma, -)                                                                                              \
    LANES_PICK(N, gt)                                                                                                  \
    LANES_PICK(N, ge)                                                                                                  \
    LANES_PICK(N, eq)                                                                                                  \
    LANES_CLIPPED(N)

#define LANES_TWO(N, name)                                                                                             \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, size_t n)                         \
        EACH(N, strop_lane_##name(a[i], b[i]))                                                                         \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_vf(strop_f32x##N a, float b, size_t n)                            \
        EACH(N, strop_lane_##name(a[i], b))                                                                            \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fv(float a, strop_f32x##N b, size_t n)                            \
        EACH(N, strop_lane_##name(a, b[i]))

#define LANES_FMA(N, name, sign)                                                                                       \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N c, size_t n)        \
        EACH(N, strop_lane_fma(sign a[i], b[i], c[i]))                                                                 \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fvv(float a, strop_f32x##N b, strop_f32x##N c, size_t n)          \
        EACH(N, strop_lane_fma(sign a, b[i], c[i]))

#define LANES_STORE(N, name)                                                                                           \
    STROP_INLINE void strop_x##N##_store_##name(uint16_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {            \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[(ptrdiff_t)i * stride] = strop_lane_##name##_bits(v[i]);                                                 \
        }                                                                                                              \
    }

#define LANES_FMA_HALF(N, name, sign)                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16(strop_f16x##N a, strop_f16x##N b, strop_f32x##N c, size_t n)  \
        EACH(N, strop_lane_fma(sign strop_lane_f16_float(a[i]), strop_lane_f16_float(b[i]), c[i]))                     \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16_fvv(uint16_t a, strop_f16x##N b, strop_f32x##N c, size_t n)   \
        EACH(N, strop_lane_fma(sign strop_lane_f16_float(a), strop_lane_f16_float(b[i]), c[i]))

#define LANES_PICK(N, name)                                                                                            \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N x,             \
                                                        strop_f32x##N y, size_t n) {                                   \
        strop_f32x##N z = {0};                                                                                         \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            z[i] = strop_lane_##name(a[i], b[i]) ? x[i] : y[i];                                                        \
        }                                                                                                              \
        return z;                                                                                                      \
    }

LANES(4)
LANES(8)
LANES(16)
LANES(32)
LANES(64)
