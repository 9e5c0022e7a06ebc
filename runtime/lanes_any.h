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

STROP_INLINE strop_two strop_load_two(const float *p) { return (strop_two){p[0], p[1]}; }
STROP_INLINE strop_two_words strop_load_two_words(const float *p) {
    return (strop_two_words){strop_float_bits(p[0]), strop_float_bits(p[1])};
}

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
    STROP_INLINE strop_f32x##N strop_x##N##_relu(strop_f32x##N a, size_t n)                                            \
        EACH(N, strop_lane_gt(a[i], 0.0f) ? a[i] : 0.0f)                                                               \
    STROP_INLINE strop_f32x##N strop_x##N##_load_u8(const uint8_t *p, ptrdiff_t stride, size_t n)                      \
        EACH(N, (float)p[(ptrdiff_t)i * stride])                                                                       \
    STROP_INLINE strop_f32x##N strop_x##N##_scaled(strop_f32x##N a, strop_f32x##N b, size_t n)                         \
        EACH(N, strop_bits_float(strop_float_bits(a[i]) + (strop_float_bits(b[i]) << 23)))                             \
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
    STROP_INLINE strop_f32x##N strop_x##N##_fill_f16(float a, size_t n) EACH(N, a)                                     \
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
    STROP_INLINE strop_f32x##N strop_x##N##_pick_lane(int32_t lane, float a, strop_f32x##N rest, size_t n)             \
        EACH(N, (int32_t)i == lane ? a : rest[i])                                                                      \
    LANES_PICK(N, gt)                                                                                                  \
    LANES_PICK(N, ge)                                                                                                  \
    LANES_PICK(N, eq)                                                                                                  \
    LANES_CLIPPED(N, strop_f32x##N, )                                                                                  \
    LANES_EXP(N)                                                                                                       \
    LANES_LABELS(N, strop_f32x##N, , strop_lane_gt(a[i], (*most)[i]))                                                  \
    LANES_ARITHMETIC_HALF(N)                                                                                           \
    LANES_ACROSS(N, strop_f32x##N, , v[i])                                                                             \
    LANES_ACROSS(N, strop_f16x##N, half_, strop_lane_f16_float(v[i]))                                                  \
    LANES_PLACES(N)

/* A result in binary16: as cores with such arithmetic make it, every NaN is the same. */
STROP_INLINE uint16_t strop_f16_once(float x) { return x == x ? strop_f16_bits(x) : 0x7e00u; }

/* Sums and products of binary16, rounded once. A double holds a product; its sum with a third number is rounded to odd,
 * so that what is then rounded to binary16 is rounded as if it were exact. */
STROP_INLINE uint16_t strop_f16_fma(float a, float b, float c) {
    const union { double d; uint64_t u; } sum = {.d = (double)a * (double)b + (double)c};
    const uint64_t rest = sum.u & 0x1fffffffu;
    const union { uint64_t u; double d; } odd = {.u = (sum.u - rest) | (uint64_t)(rest != 0) << 29};
    return strop_f16_once((float)odd.d);
}

#define EACH_HALF(N, element)                                                                                          \
    {                                                                                                                  \
        strop_f16x##N z = {0};                                                                                         \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            z[i] = (element);                                                                                          \
        }                                                                                                              \
        return z;                                                                                                      \
    }

#define LANES_ARITHMETIC_HALF(N)                                                                                       \
    STROP_INLINE strop_f16x##N strop_x##N##_half_fill(float a, size_t n) EACH_HALF(N, strop_f16_bits(a))               \
    STROP_INLINE void strop_x##N##_half_store(uint16_t *p, ptrdiff_t stride, strop_f16x##N v, size_t n) {              \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[(ptrdiff_t)i * stride] = v[i];                                                                           \
        }                                                                                                              \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_half_spread(float *p, ptrdiff_t stride, strop_f16x##N v, size_t n) {                \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[(ptrdiff_t)i * stride] = strop_bits_float(v[i]);                                                         \
        }                                                                                                              \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_widen(strop_f16x##N a, size_t n) EACH(N, strop_lane_f16_float(a[i]))       \
    STROP_INLINE strop_f16x##N strop_x##N##_half_round(strop_f32x##N a, size_t n)                                      \
        EACH_HALF(N, strop_lane_f16_bits(a[i]))                                                                        \
    STROP_INLINE strop_f16x##N strop_x##N##_half_relu(strop_f16x##N a, size_t n)                                       \
        EACH_HALF(N, strop_f16_float(a[i]) > 0.0f ? a[i] : 0)                                                          \
    STROP_INLINE bool strop_x##N##_half_within(strop_f16x##N a, float most, size_t n) {                                \
        return strop_x##N##_within(strop_x##N##_widen(a, n), most, n);                                                 \
    }                                                                                                                  \
    LANES_TWO_IN_HALF(N, add, +)                                                                                       \
    LANES_TWO_IN_HALF(N, sub, -)                                                                                       \
    LANES_TWO_IN_HALF(N, mul, *)                                                                                       \
    LANES_FMA_IN_HALF(N, half_fma, +)                                                                                  \
    LANES_FMA_IN_HALF(N, half_fnma, -)                                                                                 \
    LANES_PICK_IN_HALF(N, gt, >)                                                                                       \
    LANES_PICK_IN_HALF(N, ge, >=)                                                                                      \
    LANES_PICK_IN_HALF(N, eq, ==)                                                                                      \
    LANES_CLIPPED(N, strop_f16x##N, half_)                                                                             \
    LANES_LABELS(N, strop_f16x##N, half_, strop_f16_float(a[i]) > strop_f16_float((*most)[i]))

/* Rounding the float32 result once more is as good as rounding once: float32 has more than twice the places. */
#define LANES_TWO_IN_HALF(N, name, op)                                                                                 \
    STROP_INLINE strop_f16x##N strop_x##N##_half_##name(strop_f16x##N a, strop_f16x##N b, size_t n)                    \
        EACH_HALF(N, strop_f16_once(strop_f16_float(a[i]) op strop_f16_float(b[i])))                                   \
    STROP_INLINE strop_f16x##N strop_x##N##_half_##name##_vf(strop_f16x##N a, float b, size_t n)                       \
        EACH_HALF(N, strop_f16_once(strop_f16_float(a[i]) op strop_f16_roundedf(b)))                                   \
    STROP_INLINE strop_f16x##N strop_x##N##_half_##name##_fv(float a, strop_f16x##N b, size_t n)                       \
        EACH_HALF(N, strop_f16_once(strop_f16_roundedf(a) op strop_f16_float(b[i])))

#define LANES_PICK_IN_HALF(N, name, op)                                                                                \
    STROP_INLINE strop_f16x##N strop_x##N##_half_pick_##name(strop_f16x##N a, strop_f16x##N b, strop_f16x##N x,        \
                                                             strop_f16x##N y, size_t n)                                \
        EACH_HALF(N, strop_f16_float(a[i]) op strop_f16_float(b[i]) ? x[i] : y[i])                                     \
    STROP_INLINE strop_f16x##N strop_x##N##_half_pick_##name##_f(strop_f16x##N a, strop_f16x##N b, float x,            \
                                                                 strop_f16x##N y, size_t n) {                          \
        return strop_x##N##_half_pick_##name(a, b, strop_x##N##_half_fill(x, n), y, n);                                \
    }

#define LANES_FMA_IN_HALF(N, name, sign)                                                                               \
    STROP_INLINE strop_f16x##N strop_x##N##_##name(strop_f16x##N a, strop_f16x##N b, strop_f16x##N c, size_t n)        \
        EACH_HALF(N, strop_f16_fma(sign strop_f16_float(a[i]), strop_f16_float(b[i]), strop_f16_float(c[i])))          \
    STROP_INLINE strop_f16x##N strop_x##N##_##name##_fvv(uint32_t a, strop_f16x##N b, strop_f16x##N c, size_t n)       \
        EACH_HALF(N, strop_f16_fma(sign strop_f16_float((uint16_t)a), strop_f16_float(b[i]), strop_f16_float(c[i])))

/* larger: whether lane i of a is more than that of *most. */
#define LANES_LABELS(N, lanes, kind, larger)                                                                           \
    typedef uint8_t lanes##_labels __attribute__((vector_size(N)));                                                    \
    STROP_INLINE lanes##_labels strop_x##N##_##kind##labels(unsigned name, size_t n) {                                 \
        lanes##_labels y = {0};                                                                                        \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            y[i] = (uint8_t)name;                                                                                      \
        }                                                                                                              \
        return y;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_##kind##raise(lanes *most, lanes##_labels *label, lanes a, unsigned name, size_t n) {\
        for (size_t i = 0; i < n; ++i) {                                                                               \
            const bool is = larger;                                                                                    \
            (*most)[i] = is ? a[i] : (*most)[i];                                                                       \
            (*label)[i] = is ? (uint8_t)name : (*label)[i];                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_##kind##store_labels(uint8_t *p, ptrdiff_t stride, lanes##_labels v, size_t n) {    \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[(ptrdiff_t)i * stride] = v[i];                                                                           \
        }                                                                                                              \
    }

/* element: lane i of v as a float. */
#define LANES_ACROSS(N, lanes, kind, element)                                                                          \
    STROP_INLINE float strop_x##N##_##kind##sum(float a, lanes v, size_t n) {                                          \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            a += (element);                                                                                            \
        }                                                                                                              \
        return a;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##first(lanes a, lanes rest, size_t n) {                                     \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            rest[i] = a[i];                                                                                            \
        }                                                                                                              \
        return rest;                                                                                                   \
    }

#define LANES_PLACES(N)                                                                                                \
    LANES_DISTANCES(N, places32)                                                                                       \
    LANES_DISTANCES(N, places16)                                                                                       \
    STROP_INLINE strop_f32x##N strop_x##N##_gather(const float *p, strop_places32x##N places, size_t n)                \
        EACH(N, p[places[i] / sizeof(*p)])                                                                             \
    STROP_INLINE strop_f32x##N strop_x##N##_gather_bf16(const uint16_t *p, strop_places32x##N places, size_t n)        \
        EACH(N, strop_lane_bf16_float(p[places[i] / sizeof(*p)]))                                                      \
    STROP_INLINE strop_f16x##N strop_x##N##_gather_half(const uint16_t *p, strop_places16x##N places, size_t n)        \
        EACH_HALF(N, p[places[i] / sizeof(*p)])                                                                        \
    STROP_INLINE strop_f32x##N strop_x##N##_gather_f16(const uint16_t *p, strop_places16x##N places, size_t n)         \
        EACH(N, strop_lane_f16_float(p[places[i] / sizeof(*p)]))

#define LANES_DISTANCES(N, places)                                                                                     \
    typedef uint16_t strop_##places##x##N __attribute__((vector_size(2 * (N))));                                       \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places(const uint16_t *p, size_t n) EACH_HALF(N, p[i])            \
    STROP_INLINE void strop_x##N##_store_##places(uint16_t *p, strop_##places##x##N v, size_t n) {                     \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            p[i] = v[i];                                                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places##_u8(const uint8_t *p, ptrdiff_t stride, size_t n)         \
        EACH_HALF(N, p[(ptrdiff_t)i * stride])                                                                         \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places##_div(strop_##places##x##N a, unsigned by, size_t n)       \
        EACH_HALF(N, (uint16_t)(a[i] * LANES_RECIPROCAL(by) >> 16))                                                    \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places##_add(strop_##places##x##N a, strop_##places##x##N b,      \
                                                                  unsigned times, size_t n)                            \
        EACH_HALF(N, (uint16_t)(a[i] + b[i] * times))

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
        EACH(N, strop_lane_fma(sign strop_lane_f16_float(a), strop_lane_f16_float(b[i]), c[i]))                        \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_wide_fvv(float a, strop_f16x##N b, strop_f32x##N c, size_t n)     \
        EACH(N, strop_lane_fma(sign a, strop_lane_f16_float(b[i]), c[i]))

#define LANES_PICK(N, name)                                                                                            \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N x,             \
                                                        strop_f32x##N y, size_t n) {                                   \
        strop_f32x##N z = {0};                                                                                         \
        for (size_t i = 0; i < n; ++i) {                                                                               \
            z[i] = strop_lane_##name(a[i], b[i]) ? x[i] : y[i];                                                        \
        }                                                                                                              \
        return z;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name##_f(strop_f32x##N a, strop_f32x##N b, float x,                 \
                                                            strop_f32x##N y, size_t n) {                               \
        return strop_x##N##_pick_##name(a, b, strop_x##N##_fill(x, n), y, n);                                          \
    }

LANES(4)
LANES(8)
LANES(16)
LANES(32)
LANES(64)
LANES(128)

STROP_INLINE strop_f32x4 strop_x4_dot_f16(strop_f16x8 a, strop_f16x8 b, strop_f32x4 c, size_t n) {
    const strop_f32x8 x = strop_x8_widen(a, 2 * n), z = strop_x8_widen(b, 2 * n);
    for (size_t i = 0; i < 2 * n; ++i) {
        c[i / 2] = strop_lane_fma(x[i], z[i], c[i / 2]);
    }
    return c;
}
