/*
 * lanes_mve.h: the functions of lanes.h in Helium, the vectors of Armv8.1-M. Part of lanes.h, which includes it.
 *
 * Four lanes are a register; more are two halves, the second of which is left out where n ends in the first.
 *
 * Arithmetic is assembly text, an instruction each. An intrinsic would be the compiler's own vector operation, which it
 * folds by IEEE rules: x * 1 to x, say, where the instruction flushes x. And only text writes predicates (VPR), so none
 * of the compiler's is ever alive where it does. A load reads the last of n lanes again rather than one beyond.
 */
#include <arm_mve.h>

typedef float32x4_t strop_f32x4;

/* How far each lane is from the first; those beyond the last of n are where that is. */
STROP_INLINE uint32x4_t strop_x4_places(ptrdiff_t stride, size_t n) {
    const uint32_t step = (uint32_t)stride, last = (uint32_t)n - 1;
    return (uint32x4_t){0, (last < 1 ? last : 1) * step, (last < 2 ? last : 2) * step, (last < 3 ? last : 3) * step};
}

/* Elements of a type in memory, and in registers 32 bits a lane: near ones are neighbours, far ones are not. */
#define LANES_MEMORY(load, store, type, lanes, near_load, far_load, near_store, far_store)                             \
    STROP_INLINE lanes strop_x4_##load(const type *p, ptrdiff_t stride, size_t n) {                                    \
        return stride == 1 && n == 4 ? near_load(p) : far_load(p, strop_x4_places(stride, n));                         \
    }                                                                                                                  \
    STROP_INLINE void strop_x4_##store(type *p, ptrdiff_t stride, lanes v, size_t n) {                                 \
        if (n == 4 && stride == 1) {                                                                                   \
            near_store(p, v);                                                                                          \
        } else if (n == 4) {                                                                                           \
            far_store(p, strop_x4_places(stride, n), v);                                                               \
        } else {                                                                                                       \
            p[0] = (type)v[0];                                                                                         \
            if (n > 1) {                                                                                               \
                p[stride] = (type)v[1];                                                                                \
            }                                                                                                          \
            if (n > 2) {                                                                                               \
                p[2 * stride] = (type)v[2];                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    }
LANES_MEMORY(load, store, float, strop_f32x4, vldrwq_f32, vldrwq_gather_shifted_offset_f32, vstrwq_f32,
             vstrwq_scatter_shifted_offset_f32)
LANES_MEMORY(words, store_words, uint16_t, uint32x4_t, vldrhq_u32, vldrhq_gather_shifted_offset_u32, vstrhq_u32,
             vstrhq_scatter_shifted_offset_u32)
LANES_MEMORY(bytes, store_bytes, uint8_t, uint32x4_t, vldrbq_u32, vldrbq_gather_offset_u32, vstrbq_u32,
             vstrbq_scatter_offset_u32)

#define LANES_TWO(name)                                                                                                \
    STROP_INLINE strop_f32x4 strop_x4_##name(strop_f32x4 a, strop_f32x4 b, size_t n) {                                 \
        strop_f32x4 y;                                                                                                 \
        (void)n;                                                                                                       \
        __asm__("v" #name ".f32 %q0, %q1, %q2" : "=t"(y) : "t"(a), "t"(b));                                            \
        return y;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE strop_f32x4 strop_x4_##name##_vf(strop_f32x4 a, float b, size_t n) {                                  \
        strop_f32x4 y;                                                                                                 \
        (void)n;                                                                                                       \
        __asm__("v" #name ".f32 %q0, %q1, %2" : "=t"(y) : "t"(a), "r"(strop_float_bits(b)));                           \
        return y;                                                                                                      \
    }
LANES_TWO(add)
LANES_TWO(sub)
LANES_TWO(mul)

STROP_INLINE strop_f32x4 strop_x4_fill(float a, size_t n) {
    (void)n;
    return vdupq_n_f32(a);
}
STROP_INLINE strop_f32x4 strop_x4_add_fv(float a, strop_f32x4 b, size_t n) { return strop_x4_add_vf(b, a, n); }
STROP_INLINE strop_f32x4 strop_x4_mul_fv(float a, strop_f32x4 b, size_t n) { return strop_x4_mul_vf(b, a, n); }
STROP_INLINE strop_f32x4 strop_x4_sub_fv(float a, strop_f32x4 b, size_t n) {
    return strop_x4_sub(strop_x4_fill(a, n), b, n);
}

STROP_INLINE strop_f32x4 strop_x4_fma(strop_f32x4 a, strop_f32x4 b, strop_f32x4 c, size_t n) {
    (void)n;
    __asm__("vfma.f32 %q0, %q1, %q2" : "+t"(c) : "t"(a), "t"(b));
    return c;
}
STROP_INLINE strop_f32x4 strop_x4_fma_fvv(float a, strop_f32x4 b, strop_f32x4 c, size_t n) {
    (void)n;
    __asm__("vfma.f32 %q0, %q1, %2" : "+t"(c) : "t"(b), "r"(strop_float_bits(a)));
    return c;
}
STROP_INLINE strop_f32x4 strop_x4_fnma(strop_f32x4 a, strop_f32x4 b, strop_f32x4 c, size_t n) {
    (void)n;
    __asm__("vfms.f32 %q0, %q1, %q2" : "+t"(c) : "t"(a), "t"(b));
    return c;
}
/* No vfms takes a scalar. Where that is no constant the vector is negated: it is what loops leave as it is. */
STROP_INLINE strop_f32x4 strop_x4_fnma_fvv(float a, strop_f32x4 b, strop_f32x4 c, size_t n) {
    return __builtin_constant_p(a) ? strop_x4_fma_fvv(-a, b, c, n) : strop_x4_fma_fvv(a, vnegq_f32(b), c, n);
}

/* Quotients and roots are no vector instructions: they are the scalar unit's, which flushes nothing. */
#define LANE(k, element)                                                                                               \
    {                                                                                                                  \
        enum { i = (k) };                                                                                              \
        if (n > i) {                                                                                                   \
            y[i] = (element);                                                                                          \
        }                                                                                                              \
    }
#define LANES_APART(name, parameters, element)                                                                         \
    STROP_INLINE strop_f32x4 strop_x4_##name parameters {                                                              \
        strop_f32x4 y = vdupq_n_f32(0.0f);                                                                             \
        LANE(0, element) LANE(1, element) LANE(2, element) LANE(3, element)                                            \
        return y;                                                                                                      \
    }
LANES_APART(div, (strop_f32x4 a, strop_f32x4 b, size_t n), a[i] / b[i])
LANES_APART(div_vf, (strop_f32x4 a, float b, size_t n), a[i] / b)
LANES_APART(div_fv, (float a, strop_f32x4 b, size_t n), a / b[i])
LANES_APART(sqrt, (strop_f32x4 a, size_t n), strop_sqrtf(a[i]))

#define LANES_PICK(name)                                                                                               \
    STROP_INLINE strop_f32x4 strop_x4_pick_##name(strop_f32x4 a, strop_f32x4 b, strop_f32x4 x, strop_f32x4 y,          \
                                                   size_t n) {                                                         \
        strop_f32x4 z;                                                                                                 \
        (void)n;                                                                                                       \
        __asm__("vcmp.f32 " #name ", %q1, %q2\n\tvpsel %q0, %q3, %q4" : "=t"(z) : "t"(a), "t"(b), "t"(x), "t"(y));     \
        return z;                                                                                                      \
    }
LANES_PICK(gt)
LANES_PICK(ge)
LANES_PICK(eq)
LANES_PICK(ne)
LANES_CLIPPED(4)

STROP_INLINE strop_f32x4 strop_x4_relu(strop_f32x4 a, size_t n) {
    const strop_f32x4 zero = strop_x4_fill(0.0f, n);
    return strop_x4_pick_gt(a, zero, a, zero, n);
}

/* Not `le`, which is true of NaN. */
STROP_INLINE bool strop_x4_within(strop_f32x4 a, float most, size_t n) {
    const uint32_t lanes = 0xffffu >> (16 - 4 * n); /* a predicate has four bits a lane */
    uint32_t is;
    __asm__("vcmp.f32 ge, %q1, %q2\n\tvmrs %0, p0" : "=r"(is) : "t"(vdupq_n_f32(most)), "t"(vabsq_f32(a)));
    return (is & lanes) == lanes;
}

STROP_INLINE strop_f32x4 strop_x4_load_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {
    return vcvtq_f32_u32(strop_x4_bytes(p, stride, n));
}
STROP_INLINE void strop_x4_store_u8(uint8_t *p, ptrdiff_t stride, strop_f32x4 v, size_t n) {
    strop_x4_store_bytes(p, stride, vcvtq_u32_f32(v), n);
}
STROP_INLINE strop_f32x4 strop_x4_load_bf16(const uint16_t *p, ptrdiff_t stride, size_t n) {
    return vreinterpretq_f32_u32(vshlq_n_u32(strop_x4_words(p, stride, n), 16));
}
STROP_INLINE void strop_x4_store_bf16(uint16_t *p, ptrdiff_t stride, strop_f32x4 v, size_t n) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t near = vaddq_u32(vaddq_n_u32(bits, 0x7fff), odd);
    const strop_f32x4 nan = vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000u));
    const strop_f32x4 kept = strop_x4_pick_ne(v, v, nan, vreinterpretq_f32_u32(near), n);
    strop_x4_store_words(p, stride, vshrq_n_u32(vreinterpretq_u32_f32(kept), 16), n);
}
STROP_INLINE strop_f32x4 strop_x4_load_f16(const uint16_t *p, ptrdiff_t stride, size_t n) {
    const uint32x4_t bits = strop_x4_words(p, stride, n);
    strop_f32x4 y;
    __asm__("vcvtb.f32.f16 %q0, %q1" : "=t"(y) : "t"(bits));
    return y;
}
STROP_INLINE void strop_x4_store_f16(uint16_t *p, ptrdiff_t stride, strop_f32x4 v, size_t n) {
    uint32x4_t bits; /* the upper half of each lane is anything */
    __asm__("vcvtb.f16.f32 %q0, %q1" : "=t"(bits) : "t"(v));
    strop_x4_store_words(p, stride, bits, n);
}

/* N lanes as two halves of H. LEFT: of n lanes, how many the half has. */
#define LEFT(H) (i ? n - (H) : n < (H) ? n : (H))
#define HALF(k, H, statement)                                                                                          \
    {                                                                                                                  \
        enum { i = (k) };                                                                                              \
        if (n > (H) * i) {                                                                                             \
            statement;                                                                                                 \
        }                                                                                                              \
    }
#define EACH(N, H, element)                                                                                            \
    {                                                                                                                  \
        strop_f32x##N y;                                                                                               \
        HALF(0, H, y.half[i] = (element))                                                                              \
        HALF(1, H, y.half[i] = (element))                                                                              \
        return y;                                                                                                      \
    }
#define LANES(N, H)                                                                                                    \
    typedef struct strop_f32x##N { strop_f32x##H half[2]; } strop_f32x##N;                                             \
    LANES_PAIR_MEMORY(N, H, load, store, float)                                                                        \
    LANES_PAIR_MEMORY(N, H, load_u8, store_u8, uint8_t)                                                                \
    LANES_PAIR_MEMORY(N, H, load_bf16, store_bf16, uint16_t)                                                           \
    LANES_PAIR_MEMORY(N, H, load_f16, store_f16, uint16_t)                                                             \
    STROP_INLINE strop_f32x##N strop_x##N##_fill(float a, size_t n)                                                    \
        EACH(N, H, strop_x##H##_fill(a, LEFT(H)))                                                                      \
    STROP_INLINE strop_f32x##N strop_x##N##_relu(strop_f32x##N a, size_t n)                                            \
        EACH(N, H, strop_x##H##_relu(a.half[i], LEFT(H)))                                                              \
    STROP_INLINE strop_f32x##N strop_x##N##_sqrt(strop_f32x##N a, size_t n)                                            \
        EACH(N, H, strop_x##H##_sqrt(a.half[i], LEFT(H)))                                                              \
    STROP_INLINE bool strop_x##N##_within(strop_f32x##N a, float most, size_t n) {                                     \
        bool is = true;                                                                                                \
        HALF(0, H, is &= strop_x##H##_within(a.half[i], most, LEFT(H)))                                                \
        HALF(1, H, is &= strop_x##H##_within(a.half[i], most, LEFT(H)))                                                \
        return is;                                                                                                     \
    }                                                                                                                  \
    LANES_PAIR_TWO(N, H, add)                                                                                          \
    LANES_PAIR_TWO(N, H, sub)                                                                                          \
    LANES_PAIR_TWO(N, H, mul)                                                                                          \
    LANES_PAIR_TWO(N, H, div)                                                                                          \
    LANES_PAIR_FMA(N, H, fma)                                                                                          \
    LANES_PAIR_FMA(N, H, fnma)                                                                                         \
    LANES_PAIR_PICK(N, H, gt)                                                                                          \
    LANES_PAIR_PICK(N, H, ge)                                                                                          \
    LANES_PAIR_PICK(N, H, eq)                                                                                          \
    LANES_CLIPPED(N)

#define LANES_PAIR_MEMORY(N, H, load, store, type)                                                                     \
    STROP_INLINE strop_f32x##N strop_x##N##_##load(const type *p, ptrdiff_t stride, size_t n)                          \
        EACH(N, H, strop_x##H##_##load(p + (H) * i * stride, stride, LEFT(H)))                                         \
    STROP_INLINE void strop_x##N##_##store(type *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                     \
        HALF(0, H, strop_x##H##_##store(p + (H) * i * stride, stride, v.half[i], LEFT(H)))                             \
        HALF(1, H, strop_x##H##_##store(p + (H) * i * stride, stride, v.half[i], LEFT(H)))                             \
    }
#define LANES_PAIR_TWO(N, H, name)                                                                                     \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, size_t n)                         \
        EACH(N, H, strop_x##H##_##name(a.half[i], b.half[i], LEFT(H)))                                                 \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_vf(strop_f32x##N a, float b, size_t n)                            \
        EACH(N, H, strop_x##H##_##name##_vf(a.half[i], b, LEFT(H)))                                                    \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fv(float a, strop_f32x##N b, size_t n)                            \
        EACH(N, H, strop_x##H##_##name##_fv(a, b.half[i], LEFT(H)))
#define LANES_PAIR_FMA(N, H, name)                                                                                     \
    STROP_INLINE strop_f32x##N strop_x##N##_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N c, size_t n)        \
        EACH(N, H, strop_x##H##_##name(a.half[i], b.half[i], c.half[i], LEFT(H)))                                      \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_fvv(float a, strop_f32x##N b, strop_f32x##N c, size_t n)          \
        EACH(N, H, strop_x##H##_##name##_fvv(a, b.half[i], c.half[i], LEFT(H)))
#define LANES_PAIR_PICK(N, H, name)                                                                                    \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name(strop_f32x##N a, strop_f32x##N b, strop_f32x##N x,             \
                                                        strop_f32x##N z, size_t n)                                     \
        EACH(N, H, strop_x##H##_pick_##name(a.half[i], b.half[i], x.half[i], z.half[i], LEFT(H)))

LANES(8, 4)
LANES(16, 8)

/* Numbers of binary16 only feed sums here, so they are widened when they are loaded. */
#define LANES_HALF(N)                                                                                                  \
    typedef strop_f32x##N strop_f16x##N;                                                                               \
    STROP_INLINE strop_f16x##N strop_x##N##_half(const uint16_t *p, ptrdiff_t stride, size_t n) {                      \
        return strop_x##N##_load_f16(p, stride, n);                                                                    \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_add_f16(strop_f32x##N a, strop_f16x##N b, size_t n) {                      \
        return strop_x##N##_add(a, b, n);                                                                              \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_sub_f16(strop_f32x##N a, strop_f16x##N b, size_t n) {                      \
        return strop_x##N##_sub(a, b, n);                                                                              \
    }                                                                                                                  \
    LANES_FMA_HALF(N, fma)                                                                                             \
    LANES_FMA_HALF(N, fnma)
#define LANES_FMA_HALF(N, name)                                                                                        \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16(strop_f16x##N a, strop_f16x##N b, strop_f32x##N c,            \
                                                            size_t n) {                                                \
        return strop_x##N##_##name(a, b, c, n);                                                                        \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16_fvv(uint16_t a, strop_f16x##N b, strop_f32x##N c,             \
                                                                size_t n) {                                            \
        return strop_x##N##_##name##_fvv(strop_f16_float(a), b, c, n);                                                 \
    }
LANES_HALF(4)
LANES_HALF(8)
LANES_HALF(16)
