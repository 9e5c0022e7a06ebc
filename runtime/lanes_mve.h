/*
 * lanes_mve.h: the functions of lanes.h in Helium, the vectors of Armv8.1-M. Part of lanes.h, which includes it.
 *
 * Four floats or eight numbers of binary16 are a register; more are two halves, the second of which is left out where n
 * ends in the first.
 *
 * Arithmetic is assembly text, an instruction each. An intrinsic would be the compiler's own vector operation, which it
 * folds by IEEE rules: x * 1 to x, say, where the instruction flushes x. And only text writes predicates (VPR), so none
 * of the compiler's is ever alive where it does. A load reads the last of n lanes again rather than one beyond.
 */
#include <arm_mve.h>

typedef float32x4_t strop_f32x4;

/* Two words in one instruction: `volatile` keeps a compiler from reading one by one. */
typedef volatile uint64_t __attribute__((aligned(4), may_alias)) strop_both;
STROP_INLINE strop_two_words strop_load_two_words(const float *p) {
    const uint64_t both = *(const strop_both *)p;
    return (strop_two_words){(uint32_t)both, (uint32_t)(both >> 32)};
}
STROP_INLINE strop_two strop_load_two(const float *p) {
    const strop_two_words both = strop_load_two_words(p);
    return (strop_two){strop_bits_float(both.first), strop_bits_float(both.second)};
}

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

/* Arithmetic in one register, of N lanes that are float32 or (half_) binary16. Of scalars, `as` are a float's bits in
 * the lanes' format; what fma_fvv multiplies with is a `scalar`, and its bits are `bits`. */
#define LANES_ONE(N, lanes, kind, form, as, scalar, bits)                                                              \
    LANES_TWO(N, lanes, kind, form, as, add)                                                                           \
    LANES_TWO(N, lanes, kind, form, as, sub)                                                                           \
    LANES_TWO(N, lanes, kind, form, as, mul)                                                                           \
    STROP_INLINE lanes strop_x##N##_##kind##add_fv(float a, lanes b, size_t n) {                                       \
        return strop_x##N##_##kind##add_vf(b, a, n);                                                                   \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##mul_fv(float a, lanes b, size_t n) {                                       \
        return strop_x##N##_##kind##mul_vf(b, a, n);                                                                   \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##sub_fv(float a, lanes b, size_t n) {                                       \
        return strop_x##N##_##kind##sub(strop_x##N##_##kind##fill(a, n), b, n);                                        \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##fma(lanes a, lanes b, lanes c, size_t n) {                                 \
        (void)n;                                                                                                       \
        __asm__("vfma" form " %q0, %q1, %q2" : "+t"(c) : "t"(a), "t"(b));                                              \
        return c;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##fma_fvv(scalar a, lanes b, lanes c, size_t n) {                            \
        (void)n;                                                                                                       \
        __asm__("vfma" form " %q0, %q1, %2" : "+t"(c) : "t"(b), "r"((uint32_t)bits(a)));                               \
        return c;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##fnma(lanes a, lanes b, lanes c, size_t n) {                                \
        (void)n;                                                                                                       \
        __asm__("vfms" form " %q0, %q1, %q2" : "+t"(c) : "t"(a), "t"(b));                                              \
        return c;                                                                                                      \
    }                                                                                                                  \
    LANES_PICK(N, lanes, kind, form, gt)                                                                               \
    LANES_PICK(N, lanes, kind, form, ge)                                                                               \
    LANES_PICK(N, lanes, kind, form, eq)                                                                               \
    LANES_PICK(N, lanes, kind, form, ne)                                                                               \
    LANES_LABELS(N, lanes, kind)                                                                                       \
    LANES_RAISE_ONE(N, lanes, kind, form)                                                                              \
    LANES_CLIPPED(N, lanes, kind)                                                                                      \
    STROP_INLINE lanes strop_x##N##_##kind##relu(lanes a, size_t n) {                                                  \
        const lanes zero = strop_x##N##_##kind##fill(0.0f, n);                                                         \
        return strop_x##N##_##kind##pick_gt(a, zero, a, zero, n);                                                      \
    }

/* Labels are numbers in the lanes' own format: one predicate picks both. */
#define LANES_LABELS(N, lanes, kind)                                                                                   \
    typedef lanes lanes##_labels;                                                                                      \
    STROP_INLINE lanes##_labels strop_x##N##_##kind##labels(unsigned name, size_t n) {                                 \
        return strop_x##N##_##kind##fill((float)name, n);                                                              \
    }

#define LANES_RAISE_ONE(N, lanes, kind, form)                                                                          \
    STROP_INLINE void strop_x##N##_##kind##raise(lanes *most, lanes##_labels *label, lanes a, unsigned name, size_t n) {\
        const lanes##_labels names = strop_x##N##_##kind##labels(name, n);                                             \
        __asm__("vcmp" form " gt, %q2, %q0\n\tvpsel %q0, %q2, %q0\n\tvpsel %q1, %q3, %q1"                              \
                : "+&t"(*most), "+t"(*label) : "t"(a), "t"(names));                                                    \
    }

#define LANES_TWO(N, lanes, kind, form, as, name)                                                                      \
    STROP_INLINE lanes strop_x##N##_##kind##name(lanes a, lanes b, size_t n) {                                         \
        lanes y;                                                                                                       \
        (void)n;                                                                                                       \
        __asm__("v" #name form " %q0, %q1, %q2" : "=t"(y) : "t"(a), "t"(b));                                           \
        return y;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##name##_vf(lanes a, float b, size_t n) {                                    \
        lanes y;                                                                                                       \
        (void)n;                                                                                                       \
        __asm__("v" #name form " %q0, %q1, %2" : "=t"(y) : "t"(a), "r"((uint32_t)as(b)));                              \
        return y;                                                                                                      \
    }

#define LANES_PICK(N, lanes, kind, form, name)                                                                         \
    STROP_INLINE lanes strop_x##N##_##kind##pick_##name(lanes a, lanes b, lanes x, lanes y, size_t n) {                \
        lanes z;                                                                                                       \
        (void)n;                                                                                                       \
        __asm__("vcmp" form " " #name ", %q1, %q2\n\tvpsel %q0, %q3, %q4"                                              \
                : "=t"(z) : "t"(a), "t"(b), "t"(x), "t"(y));                                                           \
        return z;                                                                                                      \
    }                                                                                                                  \
    STROP_INLINE lanes strop_x##N##_##kind##pick_##name##_f(lanes a, lanes b, float x, lanes y, size_t n) {            \
        return strop_x##N##_##kind##pick_##name(a, b, strop_x##N##_##kind##fill(x, n), y, n);                          \
    }

STROP_INLINE strop_f32x4 strop_x4_fill(float a, size_t n) {
    (void)n;
    return vdupq_n_f32(a);
}
LANES_ONE(4, strop_f32x4, , ".f32", strop_float_bits, float, strop_float_bits)

STROP_INLINE strop_f32x4 strop_x4_pick_lane(int32_t lane, float a, strop_f32x4 rest, size_t n) {
    return vpselq_f32(strop_x4_fill(a, n), rest, vcmpeqq_n_u32(vidupq_n_u32(0, 1), (uint32_t)lane));
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

STROP_INLINE strop_f32x4 strop_x4_scaled(strop_f32x4 y, strop_f32x4 by, size_t n) {
    const uint32x4_t bits = vreinterpretq_u32_f32(y), places = vshlq_n_u32(vreinterpretq_u32_f32(by), 23);
    (void)n;
    return vreinterpretq_f32_u32(vaddq_u32(bits, places));
}

/* Magnitudes are in the order of their bits, and NaN is beyond all. */
STROP_INLINE bool strop_x4_within(strop_f32x4 a, float most, size_t n) {
    uint32_t beyond;
    __asm__("vcmp.u32 hi, %q1, %2\n\tvmrs %0, p0" : "=r"(beyond) : "t"(vabsq_f32(a)), "r"(strop_float_bits(most)));
    return (n < 4 ? beyond & 0xffffu >> (16 - 4 * n) : beyond) == 0; /* a predicate has four bits a lane */
}

LANES_EXP(4)

STROP_INLINE strop_f32x4 strop_x4_load_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {
    return vcvtq_f32_u32(strop_x4_bytes(p, stride, n));
}
STROP_INLINE void strop_x4_store_u8(uint8_t *p, ptrdiff_t stride, strop_f32x4 v, size_t n) {
    strop_x4_store_bytes(p, stride, vcvtq_u32_f32(v), n);
}
STROP_INLINE void strop_x4_store_labels(uint8_t *p, ptrdiff_t stride, strop_f32x4_labels v, size_t n) {
    strop_x4_store_u8(p, stride, v, n);
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
/* Across lanes: a sum is the scalar unit's, lane by lane. */
#define LANES_FIRST(N, lanes, kind, bits)                                                                              \
    STROP_INLINE lanes strop_x##N##_##kind##first(lanes a, lanes rest, size_t n) {                                     \
        lanes y;                                                                                                       \
        if (n >= (N)) {                                                                                                \
            return a;                                                                                                  \
        }                                                                                                              \
        __asm__("vctp." #bits " %3\n\tvpsel %q0, %q1, %q2" : "=t"(y) : "t"(a), "t"(rest), "r"((uint32_t)n));           \
        return y;                                                                                                      \
    }
LANES_FIRST(4, strop_f32x4, , 32)
STROP_INLINE float strop_x4_sum(float a, strop_f32x4 v, size_t n) {
    a = n > 0 ? a + v[0] : a;
    a = n > 1 ? a + v[1] : a;
    a = n > 2 ? a + v[2] : a;
    return n > 3 ? a + v[3] : a;
}

/* Distances in bytes of four lanes are words, whatever lies there. */
#define LANES_DISTANCES(places)                                                                                        \
    typedef uint32x4_t strop_##places##x4;                                                                             \
    STROP_INLINE uint32x4_t strop_x4_##places(const uint16_t *p, size_t n) { return strop_x4_words(p, 1, n); }         \
    STROP_INLINE void strop_x4_store_##places(uint16_t *p, uint32x4_t v, size_t n) {                                   \
        strop_x4_store_words(p, 1, v, n);                                                                              \
    }                                                                                                                  \
    STROP_INLINE uint32x4_t strop_x4_##places##_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {                     \
        return strop_x4_bytes(p, stride, n);                                                                           \
    }                                                                                                                  \
    STROP_INLINE uint32x4_t strop_x4_##places##_div(uint32x4_t a, unsigned by, size_t n) {                             \
        (void)n;                                                                                                       \
        return vshrq_n_u32(vmulq_n_u32(a, LANES_RECIPROCAL(by)), 16);                                                  \
    }                                                                                                                  \
    STROP_INLINE uint32x4_t strop_x4_##places##_add(uint32x4_t a, uint32x4_t b, unsigned times, size_t n) {            \
        (void)n;                                                                                                       \
        return vmovlbq_u16(vreinterpretq_u16_u32(vmlaq_n_u32(a, b, times)));                                           \
    }
LANES_DISTANCES(places32)
STROP_INLINE strop_f32x4 strop_x4_gather(const float *p, strop_places32x4 places, size_t n) {
    (void)n;
    return vldrwq_gather_offset_f32(p, places);
}
STROP_INLINE strop_f32x4 strop_x4_gather_bf16(const uint16_t *p, strop_places32x4 places, size_t n) {
    (void)n;
    return vreinterpretq_f32_u32(vshlq_n_u32(vldrhq_gather_offset_u32(p, places), 16));
}
/* Binary16. Four lanes are the lower halves of words; eight lie as in memory, so every other one is a lower half. */
typedef uint16x8_t strop_f16x4, strop_f16x8;

#define LANES_HALVES(N, most)                                                                                          \
    STROP_INLINE strop_f16x##N strop_x##N##_half_fill(float a, size_t n) {                                             \
        (void)n;                                                                                                       \
        return vdupq_n_u16(strop_f16_bits(a));                                                                         \
    }                                                                                                                  \
    LANES_ONE(N, strop_f16x##N, half_, ".f16", strop_f16_bits, uint32_t, )                                             \
    STROP_INLINE strop_f16x##N strop_x##N##_half_fnma_fvv(uint32_t a, strop_f16x##N b, strop_f16x##N c, size_t n) {    \
        const float16x8_t less = vnegq_f16(vreinterpretq_f16_u16(b));                                                  \
        return strop_x##N##_half_fma_fvv(a, vreinterpretq_u16_f16(less), c, n);                                        \
    }                                                                                                                  \
    STROP_INLINE bool strop_x##N##_half_within(strop_f16x##N a, float limit, size_t n) {                               \
        const uint32_t lanes = (most) & 0xffffu >> (16 - 16 / (N) * n);                                                \
        const float16x8_t size = vabsq_f16(vreinterpretq_f16_u16(a));                                                  \
        uint32_t beyond;                                                                                               \
        __asm__("vcmp.u16 hi, %q1, %2\n\tvmrs %0, p0"                                                                  \
                : "=r"(beyond) : "t"(size), "r"((uint32_t)strop_f16_bits(limit)));                                     \
        return (lanes < 0xffffu ? beyond & lanes : beyond) == 0;                                                       \
    }
LANES_HALVES(4, 0x3333u)
LANES_HALVES(8, 0xffffu)

STROP_INLINE strop_f16x4 strop_x4_half(const uint16_t *p, ptrdiff_t stride, size_t n) {
    return vreinterpretq_u16_u32(strop_x4_words(p, stride, n));
}
STROP_INLINE void strop_x4_half_store(uint16_t *p, ptrdiff_t stride, strop_f16x4 v, size_t n) {
    strop_x4_store_words(p, stride, vreinterpretq_u32_u16(v), n);
}

/* Offsets have 16 bits: lanes that are further apart go one by one, as do those of a vector that is not full. */
STROP_INLINE bool strop_x8_near(ptrdiff_t stride, size_t n) { return n == 8 && stride < 0x10000 / 8; }
STROP_INLINE uint16x8_t strop_x8_places(ptrdiff_t stride) { return vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)stride); }

STROP_INLINE strop_f16x8 strop_x8_half(const uint16_t *p, ptrdiff_t stride, size_t n) {
    if (strop_x8_near(stride, n)) {
        return stride == 1 ? vldrhq_u16(p) : vldrhq_gather_shifted_offset_u16(p, strop_x8_places(stride));
    }
    uint16x8_t y = vdupq_n_u16(p[0]);
#define LOAD(i) y = n > (i) ? vsetq_lane_u16(p[(i) * stride], y, i) : y;
    LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7)
    return y;
}
STROP_INLINE void strop_x8_half_store(uint16_t *p, ptrdiff_t stride, strop_f16x8 v, size_t n) {
    if (strop_x8_near(stride, n)) {
        if (stride == 1) {
            vstrhq_u16(p, v);
        } else {
            vstrhq_scatter_shifted_offset_u16(p, strop_x8_places(stride), v);
        }
        return;
    }
#define STORE(i)                                                                                                       \
    if (n > (i)) {                                                                                                     \
        p[(i) * stride] = vgetq_lane_u16(v, i);                                                                        \
    }
    STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6) STORE(7)
}

STROP_INLINE void strop_x4_half_spread(float *p, ptrdiff_t stride, strop_f16x4 v, size_t n) {
    strop_x4_store(p, stride, vreinterpretq_f32_u16(v), n);
}
STROP_INLINE void strop_x8_half_spread(float *p, ptrdiff_t stride, strop_f16x8 v, size_t n) {
    strop_x4_half_spread(p, 2 * stride, v, (n + 1) / 2);
    if (n > 1) {
        const uint32x4_t upper = vshrq_n_u32(vreinterpretq_u32_u16(v), 16);
        strop_x4_half_spread(p + stride, 2 * stride, vreinterpretq_u16_u32(upper), n / 2);
    }
}

/* The lower (b) and upper (t) halves of words to floats, and back. */
#define CONVERTED(half)                                                                                                \
    STROP_INLINE strop_f32x4 strop_widen##half(uint16x8_t a) {                                                         \
        strop_f32x4 y;                                                                                                 \
        __asm__("vcvt" #half ".f32.f16 %q0, %q1" : "=t"(y) : "t"(a));                                                  \
        return y;                                                                                                      \
    }
CONVERTED(b)
CONVERTED(t)
STROP_INLINE strop_f32x4 strop_x4_widen(strop_f16x4 a, size_t n) {
    (void)n;
    return strop_widenb(a);
}
STROP_INLINE strop_f16x4 strop_x4_half_round(strop_f32x4 a, size_t n) {
    uint16x8_t y; /* the upper halves are anything */
    (void)n;
    __asm__("vcvtb.f16.f32 %q0, %q1" : "=t"(y) : "t"(a));
    return y;
}
LANES_FIRST(4, strop_f16x4, half_, 32)
LANES_FIRST(8, strop_f16x8, half_, 16)
STROP_INLINE float strop_x4_half_sum(float a, strop_f16x4 v, size_t n) { return strop_x4_sum(a, strop_widenb(v), n); }
STROP_INLINE float strop_x8_half_sum(float a, strop_f16x8 v, size_t n) {
    const strop_f32x4 even = strop_widenb(v), odd = strop_wident(v);
    const strop_f32x4 low = {even[0], odd[0], even[1], odd[1]}, high = {even[2], odd[2], even[3], odd[3]};
    return strop_x4_sum(strop_x4_sum(a, low, n), high, n > 4 ? n - 4 : 0);
}
STROP_INLINE void strop_x4_half_store_labels(uint8_t *p, ptrdiff_t stride, strop_f16x4_labels v, size_t n) {
    strop_x4_store_u8(p, stride, strop_widenb(v), n);
}
STROP_INLINE void strop_x8_half_store_labels(uint8_t *p, ptrdiff_t stride, strop_f16x8_labels v, size_t n) {
    const uint16x8_t bytes = vcvtq_u16_f16(vreinterpretq_f16_u16(v));
    if (n == 8 && stride == 1) {
        vstrbq_u16(p, bytes);
        return;
    }
#define STORE_BYTE(i)                                                                                                  \
    if (n > (i)) {                                                                                                     \
        p[(i) * stride] = (uint8_t)vgetq_lane_u16(bytes, i);                                                           \
    }
    STORE_BYTE(0) STORE_BYTE(1) STORE_BYTE(2) STORE_BYTE(3) STORE_BYTE(4) STORE_BYTE(5) STORE_BYTE(6) STORE_BYTE(7)
}

LANES_DISTANCES(places16)
STROP_INLINE strop_f16x4 strop_x4_gather_half(const uint16_t *p, strop_places16x4 places, size_t n) {
    (void)n;
    return vreinterpretq_u16_u32(vldrhq_gather_offset_u32(p, places));
}
/* Of eight lanes they are halves of words. */
typedef uint16x8_t strop_places16x8;
STROP_INLINE strop_places16x8 strop_x8_places16(const uint16_t *p, size_t n) { return strop_x8_half(p, 1, n); }
STROP_INLINE void strop_x8_store_places16(uint16_t *p, strop_places16x8 v, size_t n) { strop_x8_half_store(p, 1, v, n); }
STROP_INLINE strop_places16x8 strop_x8_places16_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {
    if (n == 8) {
        return stride == 1 ? vldrbq_u16(p) : vldrbq_gather_offset_u16(p, strop_x8_places(stride));
    }
    uint16x8_t y = vdupq_n_u16(p[0]);
    LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7)
    return y;
}
STROP_INLINE strop_places16x8 strop_x8_places16_div(strop_places16x8 a, unsigned by, size_t n) {
    (void)n;
    return vmulhq_u16(a, vdupq_n_u16((uint16_t)LANES_RECIPROCAL(by)));
}
STROP_INLINE strop_places16x8 strop_x8_places16_add(strop_places16x8 a, strop_places16x8 b, unsigned times, size_t n) {
    (void)n;
    return vmlaq_n_u16(a, b, (uint16_t)times);
}
STROP_INLINE strop_f16x8 strop_x8_gather_half(const uint16_t *p, strop_places16x8 places, size_t n) {
    (void)n;
    return vldrhq_gather_offset_u16(p, places);
}
/* N lanes as two halves of H, each of lanes STEP apart from FIRST on, LEFT of n: the first ones and the rest, or where
 * APART those at even and at odd places, as conversions from and to binary16 have eight. */
#if defined(STROP_LANES_FLOATS)
#define APART(H) false
#else
#define APART(H) ((H) == 4)
#endif
#define STEP(H) (APART(H) ? 2 : 1)
#define FIRST(H) (APART(H) ? i : (H) * i)
#define LEFT(H) (APART(H) ? (n + 1 - i) / 2 : i ? n - (H) : n < (H) ? n : (H))
#define HALF(k, H, statement)                                                                                          \
    {                                                                                                                  \
        enum { i = (k) };                                                                                              \
        if (n > FIRST(H)) {                                                                                            \
            statement;                                                                                                 \
        }                                                                                                              \
    }
#define EACH(lanes, H, element)                                                                                        \
    {                                                                                                                  \
        lanes y;                                                                                                       \
        HALF(0, H, y.half[i] = (element))                                                                              \
        HALF(1, H, y.half[i] = (element))                                                                              \
        return y;                                                                                                      \
    }
#define LANES_MADE(N, H, lanes, name, parameters, ...)                                                                 \
    STROP_INLINE lanes strop_x##N##_##name parameters EACH(lanes, H, strop_x##H##_##name(__VA_ARGS__, LEFT(H)))

/* What float32 and (half_) binary16 have alike. scalar: what fma_fvv multiplies with. */
#define LANES_PAIR(N, H, lanes, kind, scalar)                                                                          \
    LANES_MADE(N, H, lanes, kind##fill, (float a, size_t n), a)                                                        \
    LANES_MADE(N, H, lanes, kind##relu, (lanes a, size_t n), a.half[i])                                                \
    STROP_INLINE bool strop_x##N##_##kind##within(lanes a, float most, size_t n) {                                     \
        bool is = true;                                                                                                \
        HALF(0, H, is &= strop_x##H##_##kind##within(a.half[i], most, LEFT(H)))                                        \
        HALF(1, H, is &= strop_x##H##_##kind##within(a.half[i], most, LEFT(H)))                                        \
        return is;                                                                                                     \
    }                                                                                                                  \
    LANES_PAIR_TWO(N, H, lanes, kind##add)                                                                             \
    LANES_PAIR_TWO(N, H, lanes, kind##sub)                                                                             \
    LANES_PAIR_TWO(N, H, lanes, kind##mul)                                                                             \
    LANES_PAIR_FMA(N, H, lanes, kind##fma, scalar)                                                                     \
    LANES_PAIR_FMA(N, H, lanes, kind##fnma, scalar)                                                                    \
    LANES_PAIR_PICK(N, H, lanes, kind##pick_gt)                                                                        \
    LANES_PAIR_PICK(N, H, lanes, kind##pick_ge)                                                                        \
    LANES_PAIR_PICK(N, H, lanes, kind##pick_eq)                                                                        \
    STROP_INLINE lanes strop_x##N##_##kind##first(lanes a, lanes rest, size_t n) {                                     \
        HALF(0, H, rest.half[i] = strop_x##H##_##kind##first(a.half[i], rest.half[i], LEFT(H)))                        \
        HALF(1, H, rest.half[i] = strop_x##H##_##kind##first(a.half[i], rest.half[i], LEFT(H)))                        \
        return rest;                                                                                                   \
    }                                                                                                                  \
    LANES_LABELS(N, lanes, kind)                                                                                       \
    STROP_INLINE void strop_x##N##_##kind##raise(lanes *most, lanes##_labels *label, lanes a, unsigned name, size_t n) {\
        HALF(0, H, strop_x##H##_##kind##raise(&most->half[i], &label->half[i], a.half[i], name, LEFT(H)))              \
        HALF(1, H, strop_x##H##_##kind##raise(&most->half[i], &label->half[i], a.half[i], name, LEFT(H)))              \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_##kind##store_labels(uint8_t *p, ptrdiff_t stride, lanes##_labels v, size_t n) {    \
        HALF(0, H, strop_x##H##_##kind##store_labels(p + FIRST(H) * stride, STEP(H) * stride, v.half[i], LEFT(H)))     \
        HALF(1, H, strop_x##H##_##kind##store_labels(p + FIRST(H) * stride, STEP(H) * stride, v.half[i], LEFT(H)))     \
    }                                                                                                                  \
    LANES_CLIPPED(N, lanes, kind)
/* Distances of N lanes in two halves. */
#define LANES_PAIR_PLACES(N, H, places)                                                                                \
    typedef struct strop_##places##x##N { strop_##places##x##H half[2]; } strop_##places##x##N;                        \
    LANES_MADE(N, H, strop_##places##x##N, places##_div, (strop_##places##x##N a, unsigned by, size_t n), a.half[i], by)\
    LANES_MADE(N, H, strop_##places##x##N, places##_add,                                                               \
               (strop_##places##x##N a, strop_##places##x##N b, unsigned times, size_t n), a.half[i], b.half[i], times)\
    LANES_MADE(N, H, strop_##places##x##N, places##_u8, (const uint8_t *p, ptrdiff_t stride, size_t n),                \
               p + FIRST(H) * stride, STEP(H) * stride)
#define LANES_LONG_PLACES(N, H, places)                                                                                \
    LANES_PAIR_PLACES(N, H, places)                                                                                    \
    LANES_MADE(N, H, strop_##places##x##N, places, (const uint16_t *p, size_t n), p + FIRST(H))                        \
    STROP_INLINE void strop_x##N##_store_##places(uint16_t *p, strop_##places##x##N v, size_t n) {                     \
        HALF(0, H, strop_x##H##_store_##places(p + FIRST(H), v.half[i], LEFT(H)))                                      \
        HALF(1, H, strop_x##H##_store_##places(p + FIRST(H), v.half[i], LEFT(H)))                                      \
    }
#define LANES_PAIR_SUM(N, H, lanes, kind)                                                                              \
    STROP_INLINE float strop_x##N##_##kind##sum(float a, lanes v, size_t n) {                                          \
        a = strop_x##H##_##kind##sum(a, v.half[0], n < (H) ? n : (H));                                                 \
        return n > (H) ? strop_x##H##_##kind##sum(a, v.half[1], n - (H)) : a;                                          \
    }
#define LANES_PAIR_MEMORY(N, H, lanes, load, store, type)                                                              \
    LANES_MADE(N, H, lanes, load, (const type *p, ptrdiff_t stride, size_t n), p + FIRST(H) * stride, STEP(H) * stride)\
    STROP_INLINE void strop_x##N##_##store(type *p, ptrdiff_t stride, lanes v, size_t n) {                             \
        HALF(0, H, strop_x##H##_##store(p + FIRST(H) * stride, STEP(H) * stride, v.half[i], LEFT(H)))                  \
        HALF(1, H, strop_x##H##_##store(p + FIRST(H) * stride, STEP(H) * stride, v.half[i], LEFT(H)))                  \
    }
#define LANES_PAIR_TWO(N, H, lanes, name)                                                                              \
    LANES_MADE(N, H, lanes, name, (lanes a, lanes b, size_t n), a.half[i], b.half[i])                                  \
    LANES_MADE(N, H, lanes, name##_vf, (lanes a, float b, size_t n), a.half[i], b)                                     \
    LANES_MADE(N, H, lanes, name##_fv, (float a, lanes b, size_t n), a, b.half[i])
#define LANES_PAIR_FMA(N, H, lanes, name, scalar)                                                                      \
    LANES_MADE(N, H, lanes, name, (lanes a, lanes b, lanes c, size_t n), a.half[i], b.half[i], c.half[i])              \
    LANES_MADE(N, H, lanes, name##_fvv, (scalar a, lanes b, lanes c, size_t n), a, b.half[i], c.half[i])
#define LANES_PAIR_PICK(N, H, lanes, name)                                                                             \
    LANES_MADE(N, H, lanes, name, (lanes a, lanes b, lanes x, lanes z, size_t n), a.half[i], b.half[i], x.half[i],     \
               z.half[i])                                                                                              \
    LANES_MADE(N, H, lanes, name##_f, (lanes a, lanes b, float x, lanes z, size_t n), a.half[i], b.half[i], x, z.half[i])

#define LANES(N, H)                                                                                                    \
    typedef struct strop_f32x##N { strop_f32x##H half[2]; } strop_f32x##N;                                             \
    LANES_PAIR(N, H, strop_f32x##N, , float)                                                                           \
    LANES_PAIR_TWO(N, H, strop_f32x##N, div)                                                                           \
    LANES_MADE(N, H, strop_f32x##N, sqrt, (strop_f32x##N a, size_t n), a.half[i])                                      \
    LANES_MADE(N, H, strop_f32x##N, exp, (strop_f32x##N a, size_t n), a.half[i])                                       \
    LANES_MADE(N, H, strop_f32x##N, pick_lane, (int32_t lane, float a, strop_f32x##N rest, size_t n),                  \
               (lane - FIRST(H)) % STEP(H) ? -1 : (lane - FIRST(H)) / STEP(H), a, rest.half[i])                        \
    LANES_PAIR_MEMORY(N, H, strop_f32x##N, load_u8, store_u8, uint8_t)                                                 \
    LANES_PAIR_MEMORY(N, H, strop_f32x##N, load_bf16, store_bf16, uint16_t)
#define LANES_PAIR_GATHER(N, H)                                                                                        \
    LANES_MADE(N, H, strop_f32x##N, gather, (const float *p, strop_places32x##N places, size_t n), p, places.half[i])  \
    LANES_MADE(N, H, strop_f32x##N, gather_bf16, (const uint16_t *p, strop_places32x##N places, size_t n), p,          \
               places.half[i])
#define LANES_LONG(N, H)                                                                                               \
    LANES(N, H)                                                                                                        \
    LANES_LONG_PLACES(N, H, places32)                                                                                  \
    LANES_PAIR_GATHER(N, H)                                                                                            \
    LANES_PAIR_SUM(N, H, strop_f32x##N, )                                                                              \
    LANES_PAIR_MEMORY(N, H, strop_f32x##N, load, store, float)
#define LANES_LONG_HALF(N, H)                                                                                          \
    typedef struct strop_f16x##N { strop_f16x##H half[2]; } strop_f16x##N;                                             \
    LANES_PAIR(N, H, strop_f16x##N, half_, uint32_t)                                                                   \
    LANES_PAIR_MEMORY(N, H, strop_f16x##N, half, half_store, uint16_t)                                                 \
    LANES_PAIR_SUM(N, H, strop_f16x##N, half_)                                                                         \
    LANES_LONG_PLACES(N, H, places16)                                                                                  \
    LANES_MADE(N, H, strop_f16x##N, gather_half, (const uint16_t *p, strop_places16x##N places, size_t n), p,          \
               places.half[i])                                                                                         \
    STROP_INLINE void strop_x##N##_half_spread(float *p, ptrdiff_t stride, strop_f16x##N v, size_t n) {                \
        HALF(0, H, strop_x##H##_half_spread(p + FIRST(H) * stride, STEP(H) * stride, v.half[i], LEFT(H)))              \
        HALF(1, H, strop_x##H##_half_spread(p + FIRST(H) * stride, STEP(H) * stride, v.half[i], LEFT(H)))              \
    }                                                                                                                  \
    LANES_MADE(N, H, strop_f32x##N, widen, (strop_f16x##N a, size_t n), a.half[i])                                     \
    LANES_MADE(N, H, strop_f16x##N, half_round, (strop_f32x##N a, size_t n), a.half[i])

LANES(8, 4)
LANES_PAIR_PLACES(8, 4, places32)
LANES_PAIR_GATHER(8, 4)
STROP_INLINE strop_places32x8 strop_x8_places32(const uint16_t *p, size_t n)
    EACH(strop_places32x8, 4, strop_x4_words(p + FIRST(4), STEP(4), LEFT(4)))
STROP_INLINE void strop_x8_store_places32(uint16_t *p, strop_places32x8 v, size_t n) {
    HALF(0, 4, strop_x4_store_words(p + FIRST(4), STEP(4), v.half[i], LEFT(4)))
    HALF(1, 4, strop_x4_store_words(p + FIRST(4), STEP(4), v.half[i], LEFT(4)))
}
STROP_INLINE float strop_x8_sum(float a, strop_f32x8 v, size_t n) {
    if (APART(4)) {
        const strop_f32x4 even = v.half[0], odd = v.half[1];
        v = (strop_f32x8){{{even[0], odd[0], even[1], odd[1]}, {even[2], odd[2], even[3], odd[3]}}};
    }
    return strop_x4_sum(strop_x4_sum(a, v.half[0], n), v.half[1], n > 4 ? n - 4 : 0);
}
STROP_INLINE strop_f32x8 strop_x8_load(const float *p, ptrdiff_t stride, size_t n) {
    if (APART(4) && stride == 1 && n == 8) {
        const float32x4x2_t both = vld2q_f32(p);
        return (strop_f32x8){{both.val[0], both.val[1]}};
    }
    EACH(strop_f32x8, 4, strop_x4_load(p + FIRST(4) * stride, STEP(4) * stride, LEFT(4)))
}
STROP_INLINE void strop_x8_store(float *p, ptrdiff_t stride, strop_f32x8 v, size_t n) {
    if (APART(4) && stride == 1 && n == 8) {
        const float32x4x2_t both = {{v.half[0], v.half[1]}};
        vst2q_f32(p, both);
        return;
    }
    HALF(0, 4, strop_x4_store(p + FIRST(4) * stride, STEP(4) * stride, v.half[i], LEFT(4)))
    HALF(1, 4, strop_x4_store(p + FIRST(4) * stride, STEP(4) * stride, v.half[i], LEFT(4)))
}
LANES_LONG(16, 8)

#if !defined(STROP_LANES_FLOATS)
LANES_LONG(32, 16)
#define WIDE(a) (i ? strop_wident(a) : strop_widenb(a))
STROP_INLINE strop_f32x8 strop_x8_widen(strop_f16x8 a, size_t n) EACH(strop_f32x8, 4, WIDE(a))
STROP_INLINE strop_f16x8 strop_x8_half_round(strop_f32x8 a, size_t n) {
    uint16x8_t y = strop_x4_half_round(a.half[0], n);
    __asm__("vcvtt.f16.f32 %q0, %q1" : "+t"(y) : "t"(a.half[1]));
    return y;
}
LANES_LONG_HALF(16, 8)
LANES_LONG_HALF(32, 16)

/* Numbers of binary16 that meet float32 are widened. */
#define LANES_HALF(N)                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_load_f16(const uint16_t *p, ptrdiff_t stride, size_t n) {                  \
        return strop_x##N##_widen(strop_x##N##_half(p, stride, n), n);                                                 \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_f16(uint16_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {               \
        strop_x##N##_half_store(p, stride, strop_x##N##_half_round(v, n), n);                                          \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_add_f16(strop_f32x##N a, strop_f16x##N b, size_t n) {                      \
        return strop_x##N##_add(a, strop_x##N##_widen(b, n), n);                                                       \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_sub_f16(strop_f32x##N a, strop_f16x##N b, size_t n) {                      \
        return strop_x##N##_sub(a, strop_x##N##_widen(b, n), n);                                                       \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_gather_f16(const uint16_t *p, strop_places16x##N places, size_t n) {       \
        return strop_x##N##_widen(strop_x##N##_gather_half(p, places, n), n);                                          \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_fill_f16(float a, size_t n) { return strop_x##N##_fill(a, n); }            \
    LANES_FMA_SCALAR(N, fma)                                                                                           \
    LANES_FMA_SCALAR(N, fnma)
#define LANES_FMA_SCALAR(N, name)                                                                                      \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16_fvv(uint16_t a, strop_f16x##N b, strop_f32x##N c, size_t n) { \
        return strop_x##N##_##name##_wide_fvv(strop_f16_float(a), b, c, n);                                            \
    }
/* Products are made four at a time, so that what is widened for them fits into registers beside sums. */
#define LANES_FMA_HALF(name)                                                                                           \
    STROP_INLINE strop_f32x4 strop_x4_##name##_f16(strop_f16x4 a, strop_f16x4 b, strop_f32x4 c, size_t n) {            \
        return strop_x4_##name(strop_widenb(a), strop_widenb(b), c, n);                                                \
    }                                                                                                                  \
    STROP_INLINE strop_f32x4 strop_x4_##name##_wide_fvv(float a, strop_f16x4 b, strop_f32x4 c, size_t n) {             \
        return strop_x4_##name##_fvv(a, strop_widenb(b), c, n);                                                        \
    }                                                                                                                  \
    STROP_INLINE strop_f32x8 strop_x8_##name##_f16(strop_f16x8 a, strop_f16x8 b, strop_f32x8 c, size_t n)              \
        EACH(strop_f32x8, 4, strop_x4_##name(WIDE(a), WIDE(b), c.half[i], LEFT(4)))                                    \
    STROP_INLINE strop_f32x8 strop_x8_##name##_wide_fvv(float a, strop_f16x8 b, strop_f32x8 c, size_t n)               \
        EACH(strop_f32x8, 4, strop_x4_##name##_fvv(a, WIDE(b), c.half[i], LEFT(4)))                                    \
    LANES_PAIR_FMA_HALF(16, 8, name)                                                                                   \
    LANES_PAIR_FMA_HALF(32, 16, name)
#define LANES_PAIR_FMA_HALF(N, H, name)                                                                                \
    LANES_MADE(N, H, strop_f32x##N, name##_f16, (strop_f16x##N a, strop_f16x##N b, strop_f32x##N c, size_t n),         \
               a.half[i], b.half[i], c.half[i])                                                                        \
    LANES_MADE(N, H, strop_f32x##N, name##_wide_fvv, (float a, strop_f16x##N b, strop_f32x##N c, size_t n), a,         \
               b.half[i], c.half[i])
LANES_FMA_HALF(fma)
LANES_FMA_HALF(fnma)
STROP_INLINE strop_f32x4 strop_x4_dot_f16(strop_f16x8 a, strop_f16x8 b, strop_f32x4 c, size_t n) {
    c = strop_x4_fma(strop_widenb(a), strop_widenb(b), c, n);
    return strop_x4_fma(strop_wident(a), strop_wident(b), c, n);
}
LANES_HALF(4)
LANES_HALF(8)
LANES_HALF(16)
LANES_HALF(32)
#endif
