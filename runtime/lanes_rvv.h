/*
 * lanes_rvv.h: the functions of lanes.h on RVV 1.0, with groups of registers. Part of lanes.h, which includes it.
 *
 * LANES(N, g, b, h, q) are N lanes in a group of g registers, as 16 and as 8 bits in groups of h and q; b is the ratio
 * in the name of a mask's type.
 */
#include <riscv_vector.h>

/* 16-bit words, N in a group of h registers. */
#define LANES_WORDS(N, h)                                                                                              \
    STROP_INLINE vuint16##h##_t strop_x##N##_words(const uint16_t *p, ptrdiff_t stride, size_t n) {                    \
        return stride == 1 ? __riscv_vle16_v_u16##h(p, n) : __riscv_vlse16_v_u16##h(p, 2 * stride, n);                 \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_words(uint16_t *p, ptrdiff_t stride, vuint16##h##_t v, size_t n) {            \
        if (stride == 1) {                                                                                             \
            __riscv_vse16_v_u16##h(p, v, n);                                                                           \
        } else {                                                                                                       \
            __riscv_vsse16_v_u16##h(p, 2 * stride, v, n);                                                              \
        }                                                                                                              \
    }

/* Bytes, N in a group of q registers. */
#define LANES_BYTES(N, q)                                                                                              \
    STROP_INLINE void strop_x##N##_store_bytes(uint8_t *p, ptrdiff_t stride, vuint8##q##_t v, size_t n) {              \
        if (stride == 1) {                                                                                             \
            __riscv_vse8_v_u8##q(p, v, n);                                                                             \
        } else {                                                                                                       \
            __riscv_vsse8_v_u8##q(p, stride, v, n);                                                                    \
        }                                                                                                              \
    }

#define LANES(N, g, b, h, q)                                                                                           \
    LANES_BYTES(N, q)                                                                                                  \
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
    STROP_INLINE strop_f32x##N strop_x##N##_relu(strop_f32x##N a, size_t n) {                                          \
        return __riscv_vfmax_vf_f32m##g(a, 0.0f, n);                                                                   \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_load_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {                    \
        return __riscv_vfcvt_f_xu_v_f32m##g(                                                                           \
            __riscv_vzext_vf4_u32m##g(                                                                                 \
                stride == 1 ? __riscv_vle8_v_u8##q(p, n) : __riscv_vlse8_v_u8##q(p, stride, n), n), n);                \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_u8(uint8_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                 \
        const vuint16##h##_t words = __riscv_vncvt_x_x_w_u16##h(__riscv_vfcvt_xu_f_v_u32m##g(v, n), n);                \
        strop_x##N##_store_bytes(p, stride, __riscv_vncvt_x_x_w_u8##q(words, n), n);                                   \
    }                                                                                                                  \
    LANES_WORDS(N, h)                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_load_bf16(const uint16_t *p, ptrdiff_t stride, size_t n) {                 \
        const vuint32m##g##_t low = __riscv_vzext_vf2_u32m##g(strop_x##N##_words(p, stride, n), n);                    \
        return __riscv_vreinterpret_v_u32m##g##_f32m##g(__riscv_vsll_vx_u32m##g(low, 16, n));                          \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_bf16(uint16_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {              \
        const vuint32m##g##_t bits = __riscv_vreinterpret_v_f32m##g##_u32m##g(v);                                      \
        const vuint16##h##_t near = __riscv_vnclipu_wx_u16##h(bits, 16, __RISCV_VXRM_RNE, n);                          \
        const vbool##b##_t nan = __riscv_vmfne_vv_f32m##g##_b##b(v, v, n);                                             \
        strop_x##N##_store_words(p, stride, __riscv_vmerge_vxm_u16##h(near, 0x7fc0u, nan, n), n);                      \
    }                                                                                                                  \
    STROP_INLINE bool strop_x##N##_within(strop_f32x##N a, float most, size_t n) {                                     \
        const vbool##b##_t is = __riscv_vmfle_vf_f32m##g##_b##b(__riscv_vfabs_v_f32m##g(a, n), most, n);               \
        return __riscv_vcpop_m_b##b(is, n) == n;                                                                       \
    }                                                                                                                  \
    LANES_PLACES(N, g, h, q)                                                                                           \
    LANES_HALF(N, g, b, h, q)                                                                                          \
    STROP_INLINE float strop_x##N##_sum(float a, strop_f32x##N v, size_t n) {                                          \
        const vfloat32m1_t sum = __riscv_vfmv_s_f_f32m1(a, 1);                                                         \
        return __riscv_vfmv_f_s_f32m1_f32(__riscv_vfredosum_vs_f32m##g##_f32m1(v, sum, n));                            \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_first(strop_f32x##N a, strop_f32x##N rest, size_t n) {                     \
        return __riscv_vmv_v_v_f32m##g##_tu(rest, a, n);                                                               \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_lane(int32_t lane, float a, strop_f32x##N rest, size_t n) {           \
        const vbool##b##_t is = __riscv_vmseq_vx_u32m##g##_b##b(__riscv_vid_v_u32m##g(n), (uint32_t)lane, n);          \
        return __riscv_vfmerge_vfm_f32m##g(rest, a, is, n);                                                            \
    }                                                                                                                  \
    LANES_TWO(N, g, add, vfadd_vv, vfadd_vf, vfadd_vf)                                                                 \
    LANES_TWO(N, g, sub, vfsub_vv, vfsub_vf, vfrsub_vf)                                                                \
    LANES_TWO(N, g, mul, vfmul_vv, vfmul_vf, vfmul_vf)                                                                 \
    LANES_TWO(N, g, div, vfdiv_vv, vfdiv_vf, vfrdiv_vf)                                                                \
    LANES_FMA(N, g, fma, vfmacc)                                                                                       \
    LANES_FMA(N, g, fnma, vfnmsac)                                                                                     \
    LANES_PICK(N, g, b, gt, vmfgt_vv)                                                                                  \
    LANES_PICK(N, g, b, ge, vmfge_vv)                                                                                  \
    LANES_PICK(N, g, b, eq, vmfeq_vv)                                                                                  \
    LANES_CLIPPED(N, strop_f32x##N, )                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_scaled(strop_f32x##N y, strop_f32x##N by, size_t n) {                      \
        const vuint32m##g##_t bits = __riscv_vreinterpret_v_f32m##g##_u32m##g(y);                                      \
        const vuint32m##g##_t places = __riscv_vsll_vx_u32m##g(__riscv_vreinterpret_v_f32m##g##_u32m##g(by), 23, n);   \
        return __riscv_vreinterpret_v_u32m##g##_f32m##g(__riscv_vadd_vv_u32m##g(bits, places, n));                     \
    }                                                                                                                  \
    LANES_EXP(N)                                                                                                       \
    LANES_LABELS(N, strop_f32x##N, , f32m##g, b, q)

/* Labels are bytes, in a group of q registers; form is that of the lanes they belong to. */
#define LANES_LABELS(N, lanes, kind, form, b, q)                                                                       \
    typedef vuint8##q##_t lanes##_labels;                                                                              \
    STROP_INLINE lanes##_labels strop_x##N##_##kind##labels(unsigned name, size_t n) {                                 \
        return __riscv_vmv_v_x_u8##q((uint8_t)name, n);                                                                \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_##kind##raise(lanes *most, lanes##_labels *label, lanes a, unsigned name, size_t n) {\
        const vbool##b##_t larger = __riscv_vmfgt_vv_##form##_b##b(a, *most, n);                                       \
        *most = __riscv_vmerge_vvm_##form(*most, a, larger, n);                                                        \
        *label = __riscv_vmerge_vxm_u8##q(*label, (uint8_t)name, larger, n);                                           \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_##kind##store_labels(uint8_t *p, ptrdiff_t stride, lanes##_labels v, size_t n) {    \
        strop_x##N##_store_bytes(p, stride, v, n);                                                                     \
    }

/* Distances in bytes are 16 bits wide, whatever lies there. */
#define LANES_PLACES(N, g, h, q)                                                                                       \
    LANES_DISTANCES(N, h, q, places32)                                                                                 \
    LANES_DISTANCES(N, h, q, places16)                                                                                 \
    STROP_INLINE strop_f32x##N strop_x##N##_gather(const float *p, strop_places32x##N places, size_t n) {              \
        return __riscv_vluxei16_v_f32m##g(p, places, n);                                                               \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_gather_bf16(const uint16_t *p, strop_places32x##N places, size_t n) {      \
        const vuint32m##g##_t low = __riscv_vzext_vf2_u32m##g(__riscv_vluxei16_v_u16##h(p, places, n), n);             \
        return __riscv_vreinterpret_v_u32m##g##_f32m##g(__riscv_vsll_vx_u32m##g(low, 16, n));                          \
    }

#define LANES_DISTANCES(N, h, q, places)                                                                               \
    typedef vuint16##h##_t strop_##places##x##N;                                                                       \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places(const uint16_t *p, size_t n) {                             \
        return __riscv_vle16_v_u16##h(p, n);                                                                           \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_##places(uint16_t *p, strop_##places##x##N v, size_t n) {                     \
        __riscv_vse16_v_u16##h(p, v, n);                                                                               \
    }                                                                                                                  \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places##_u8(const uint8_t *p, ptrdiff_t stride, size_t n) {       \
        return __riscv_vzext_vf2_u16##h(                                                                               \
            stride == 1 ? __riscv_vle8_v_u8##q(p, n) : __riscv_vlse8_v_u8##q(p, stride, n), n);                        \
    }                                                                                                                  \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places##_div(strop_##places##x##N a, unsigned by, size_t n) {     \
        return __riscv_vmulhu_vx_u16##h(a, (uint16_t)LANES_RECIPROCAL(by), n);                                         \
    }                                                                                                                  \
    STROP_INLINE strop_##places##x##N strop_x##N##_##places##_add(strop_##places##x##N a, strop_##places##x##N b,      \
                                                                  unsigned times, size_t n) {                          \
        return __riscv_vmacc_vx_u16##h(a, (uint16_t)times, b, n);                                                      \
    }

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
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_pick_##name##_f(strop_f32x##N a, strop_f32x##N c, float x,                 \
                                                            strop_f32x##N y, size_t n) {                               \
        return __riscv_vfmerge_vfm_f32m##g(y, x, __riscv_##op##_f32m##g##_b##b(a, c, n), n);                           \
    }

#if defined(__riscv_zvfh)
#define LANES_HALF(N, g, b, h, q)                                                                                      \
    LANES_F16(N, h, b, q)                                                                                              \
    STROP_INLINE strop_f32x##N strop_x##N##_load_f16(const uint16_t *p, ptrdiff_t stride, size_t n) {                  \
        return __riscv_vfwcvt_f_f_v_f32m##g(strop_x##N##_half(p, stride, n), n);                                       \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_f16(uint16_t *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {               \
        strop_x##N##_half_store(p, stride, __riscv_vfncvt_f_f_w_f16##h(v, n), n);                                      \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_gather_f16(const uint16_t *p, strop_places16x##N places, size_t n) {       \
        return __riscv_vfwcvt_f_f_v_f32m##g(strop_x##N##_gather_half(p, places, n), n);                                \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_add_f16(strop_f32x##N a, strop_f16x##N c, size_t n) {                      \
        return __riscv_vfwadd_wv_f32m##g(a, c, n);                                                                     \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_sub_f16(strop_f32x##N a, strop_f16x##N c, size_t n) {                      \
        return __riscv_vfwsub_wv_f32m##g(a, c, n);                                                                     \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_widen(strop_f16x##N a, size_t n) {                                         \
        return __riscv_vfwcvt_f_f_v_f32m##g(a, n);                                                                     \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_fill_f16(float a, size_t n) {                                              \
        return strop_x##N##_widen(strop_x##N##_half_fill(a, n), n);                                                    \
    }                                                                                                                  \
    LANES_FMA_HALF(N, g, fma, vfwmacc, vfmacc)                                                                         \
    LANES_FMA_HALF(N, g, fnma, vfwnmsac, vfnmsac)                                                                      \
    STROP_INLINE strop_f16x##N strop_x##N##_half_round(strop_f32x##N a, size_t n) {                                    \
        return __riscv_vfncvt_f_f_w_f16##h(a, n);                                                                      \
    }

#define LANES_FMA_HALF(N, g, name, op, wide)                                                                           \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16(strop_f16x##N a, strop_f16x##N b, strop_f32x##N c, size_t n) {\
        return __riscv_##op##_vv_f32m##g(c, a, b, n);                                                                  \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_f16_fvv(uint16_t a, strop_f16x##N b, strop_f32x##N c, size_t n) { \
        const union { uint16_t u; _Float16 h; } pun = {.u = a};                                                        \
        return __riscv_##op##_vf_f32m##g(c, pun.h, b, n);                                                              \
    }                                                                                                                  \
    STROP_INLINE strop_f32x##N strop_x##N##_##name##_wide_fvv(float a, strop_f16x##N b, strop_f32x##N c, size_t n) {   \
        return __riscv_##wide##_vf_f32m##g(c, a, strop_x##N##_widen(b, n), n);                                         \
    }
/* Numbers in binary16 and arithmetic rounded to it, N lanes in a group of h registers. b, q: as those of LANES. */
#define LANES_F16(N, h, b, q)                                                                                          \
    typedef vfloat16##h##_t strop_f16x##N;                                                                             \
    STROP_INLINE strop_f16x##N strop_x##N##_half(const uint16_t *p, ptrdiff_t stride, size_t n) {                      \
        return __riscv_vreinterpret_v_u16##h##_f16##h(strop_x##N##_words(p, stride, n));                               \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_half_store(uint16_t *p, ptrdiff_t stride, strop_f16x##N v, size_t n) {              \
        strop_x##N##_store_words(p, stride, __riscv_vreinterpret_v_f16##h##_u16##h(v), n);                             \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_fill(float a, size_t n) {                                             \
        return __riscv_vfmv_v_f_f16##h((_Float16)a, n);                                                                \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_gather_half(const uint16_t *p, strop_places16x##N places, size_t n) {      \
        return __riscv_vreinterpret_v_u16##h##_f16##h(__riscv_vluxei16_v_u16##h(p, places, n));                        \
    }                                                                                                                  \
    STROP_INLINE float strop_x##N##_half_sum(float a, strop_f16x##N v, size_t n) {                                     \
        const vfloat32m1_t sum = __riscv_vfmv_s_f_f32m1(a, 1);                                                         \
        return __riscv_vfmv_f_s_f32m1_f32(__riscv_vfwredosum_vs_f16##h##_f32m1(v, sum, n));                            \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_first(strop_f16x##N a, strop_f16x##N rest, size_t n) {                \
        return __riscv_vmv_v_v_f16##h##_tu(rest, a, n);                                                                \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_relu(strop_f16x##N a, size_t n) {                                     \
        return __riscv_vfmax_vf_f16##h(a, (_Float16)0, n);                                                             \
    }                                                                                                                  \
    STROP_INLINE bool strop_x##N##_half_within(strop_f16x##N a, float most, size_t n) {                                \
        const vbool##b##_t is = __riscv_vmfle_vf_f16##h##_b##b(__riscv_vfabs_v_f16##h(a, n), (_Float16)most, n);       \
        return __riscv_vcpop_m_b##b(is, n) == n;                                                                       \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_clipped(strop_f16x##N a, float most, size_t n) {                      \
        const vbool##b##_t low = __riscv_vmflt_vf_f16##h##_b##b(a, (_Float16)-most, n);                                \
        const strop_f16x##N y = __riscv_vfmerge_vfm_f16##h(a, (_Float16)-most, low, n);                                \
        const vbool##b##_t high = __riscv_vmfgt_vf_f16##h##_b##b(y, (_Float16)most, n);                                \
        return __riscv_vfmerge_vfm_f16##h(y, (_Float16)most, high, n);                                                 \
    }                                                                                                                  \
    LANES_TWO_IN_HALF(N, h, add, vfadd_vv, vfadd_vf, vfadd_vf)                                                         \
    LANES_TWO_IN_HALF(N, h, sub, vfsub_vv, vfsub_vf, vfrsub_vf)                                                        \
    LANES_TWO_IN_HALF(N, h, mul, vfmul_vv, vfmul_vf, vfmul_vf)                                                         \
    LANES_FMA_IN_HALF(N, h, half_fma, vfmacc)                                                                          \
    LANES_FMA_IN_HALF(N, h, half_fnma, vfnmsac)                                                                        \
    LANES_PICK_IN_HALF(N, h, b, gt, vmfgt_vv)                                                                          \
    LANES_PICK_IN_HALF(N, h, b, ge, vmfge_vv)                                                                          \
    LANES_PICK_IN_HALF(N, h, b, eq, vmfeq_vv)                                                                          \
    LANES_LABELS(N, strop_f16x##N, half_, f16##h, b, q)

#define LANES_TWO_IN_HALF(N, h, name, vv, vf, fv)                                                                      \
    STROP_INLINE strop_f16x##N strop_x##N##_half_##name(strop_f16x##N a, strop_f16x##N b, size_t n) {                  \
        return __riscv_##vv##_f16##h(a, b, n);                                                                         \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_##name##_vf(strop_f16x##N a, float b, size_t n) {                     \
        return __riscv_##vf##_f16##h(a, (_Float16)b, n);                                                               \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_##name##_fv(float a, strop_f16x##N b, size_t n) {                     \
        return __riscv_##fv##_f16##h(b, (_Float16)a, n);                                                               \
    }

#define LANES_PICK_IN_HALF(N, h, b, name, op)                                                                          \
    STROP_INLINE strop_f16x##N strop_x##N##_half_pick_##name(strop_f16x##N a, strop_f16x##N c, strop_f16x##N x,        \
                                                             strop_f16x##N y, size_t n) {                              \
        return __riscv_vmerge_vvm_f16##h(y, x, __riscv_##op##_f16##h##_b##b(a, c, n), n);                              \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_half_pick_##name##_f(strop_f16x##N a, strop_f16x##N c, float x,            \
                                                                 strop_f16x##N y, size_t n) {                          \
        return __riscv_vfmerge_vfm_f16##h(y, (_Float16)x, __riscv_##op##_f16##h##_b##b(a, c, n), n);                   \
    }

#define LANES_FMA_IN_HALF(N, h, name, op)                                                                              \
    STROP_INLINE strop_f16x##N strop_x##N##_##name(strop_f16x##N a, strop_f16x##N b, strop_f16x##N c, size_t n) {      \
        return __riscv_##op##_vv_f16##h(c, a, b, n);                                                                   \
    }                                                                                                                  \
    STROP_INLINE strop_f16x##N strop_x##N##_##name##_fvv(uint16_t a, strop_f16x##N b, strop_f16x##N c, size_t n) {     \
        const union { uint16_t u; _Float16 h; } pun = {.u = a};                                                        \
        return __riscv_##op##_vf_f16##h(c, pun.h, b, n);                                                               \
    }
#else
#define LANES_HALF(N, g, b, h, q)
#endif

/* Twice the longest vectors: N lanes in two groups of eight registers, H in each. They are for what meets N numbers in
 * binary16, which one such group holds. */
#define LANES_PAIR(N, H, b)                                                                                            \
    typedef vfloat32m8_t strop_group##N __attribute__((riscv_rvv_vector_bits(8 * __riscv_v_fixed_vlen)));              \
    typedef struct { strop_group##N low, high; } strop_f32x##N;                                                        \
    LANES_BYTES(N, m4)                                                                                                 \
    PAIR_IN_MEMORY(N, H, , float)                                                                                      \
    PAIR_IN_MEMORY(N, H, _u8, uint8_t)                                                                                 \
    PAIR_IN_MEMORY(N, H, _bf16, uint16_t)                                                                              \
    PAIR_IN_MEMORY(N, H, _f16, uint16_t)                                                                               \
    PAIR_MADE(N, H, fill, (float a, size_t n), (a, FIRST(H)), (a, REST(H)))                                            \
    PAIR_MADE(N, H, relu, (strop_f32x##N a, size_t n), (a.low, FIRST(H)), (a.high, REST(H)))                           \
    PAIR_MADE(N, H, sqrt, (strop_f32x##N a, size_t n), (a.low, FIRST(H)), (a.high, REST(H)))                           \
    PAIR_TWO(N, H, add)                                                                                                \
    PAIR_TWO(N, H, sub)                                                                                                \
    PAIR_TWO(N, H, mul)                                                                                                \
    PAIR_TWO(N, H, div)                                                                                                \
    PAIR_FMA(N, H, fma)                                                                                                \
    PAIR_FMA(N, H, fnma)                                                                                               \
    PAIR_PICK_LANE(N, H)                                                                                               \
    PAIR_PICK(N, H, gt)                                                                                                \
    PAIR_PICK(N, H, ge)                                                                                                \
    PAIR_PICK(N, H, eq)                                                                                                \
    PAIR_PLACES(N, H)                                                                                                  \
    PAIR_F16(N, H, b)                                                                                                  \
    STROP_INLINE float strop_x##N##_sum(float a, strop_f32x##N v, size_t n) {                                          \
        const float low = strop_x##H##_sum(a, v.low, FIRST(H));                                                        \
        return n > (H) ? strop_x##H##_sum(low, v.high, n - (H)) : low;                                                 \
    }                                                                                                                  \
    PAIR_MADE(N, H, first, (strop_f32x##N a, strop_f32x##N rest, size_t n), (a.low, rest.low, FIRST(H)),               \
              (a.high, rest.high, REST(H)))                                                                            \
    STROP_INLINE bool strop_x##N##_within(strop_f32x##N a, float most, size_t n) {                                     \
        return strop_x##H##_within(a.low, most, FIRST(H)) && strop_x##H##_within(a.high, most, REST(H));               \
    }                                                                                                                  \
    LANES_CLIPPED(N, strop_f32x##N, )                                                                                  \
    PAIR_MADE(N, H, exp, (strop_f32x##N a, size_t n), (a.low, FIRST(H)), (a.high, REST(H)))                            \
    PAIR_LABELS(N, H)

#define FIRST(H) (n < (H) ? n : (H))
#define REST(H) (n > (H) ? n - (H) : 0)

#define PAIR_MADE(N, H, name, parameters, first, rest)                                                                 \
    STROP_INLINE strop_f32x##N strop_x##N##_##name parameters {                                                        \
        return (strop_f32x##N){strop_x##H##_##name first, strop_x##H##_##name rest};                                   \
    }

#define PAIR_LABELS(N, H)                                                                                              \
    typedef vuint8m4_t strop_f32x##N##_labels;                                                                         \
    STROP_INLINE strop_f32x##N##_labels strop_x##N##_labels(unsigned name, size_t n) {                                 \
        return __riscv_vmv_v_x_u8m4((uint8_t)name, n);                                                                 \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_raise(strop_f32x##N *most, strop_f32x##N##_labels *label, strop_f32x##N a,          \
                                         unsigned name, size_t n) {                                                    \
        strop_f32x##H low = most->low, high = most->high;                                                              \
        strop_f32x##H##_labels first = __riscv_vget_v_u8m4_u8m2(*label, 0), rest = __riscv_vget_v_u8m4_u8m2(*label, 1);\
        strop_x##H##_raise(&low, &first, a.low, name, FIRST(H));                                                       \
        strop_x##H##_raise(&high, &rest, a.high, name, REST(H));                                                       \
        *most = (strop_f32x##N){low, high};                                                                            \
        *label = __riscv_vset_v_u8m2_u8m4(__riscv_vlmul_ext_v_u8m2_u8m4(first), 1, rest);                              \
    }                                                                                                                  \
    STROP_INLINE void strop_x##N##_store_labels(uint8_t *p, ptrdiff_t stride, strop_f32x##N##_labels v, size_t n) {    \
        strop_x##N##_store_bytes(p, stride, v, n);                                                                     \
    }

#define PAIR_IN_MEMORY(N, H, kind, type)                                                                               \
    PAIR_MADE(N, H, load##kind, (const type *p, ptrdiff_t stride, size_t n), (p, stride, FIRST(H)),                    \
              (p + (H) * stride, stride, REST(H)))                                                                     \
    STROP_INLINE void strop_x##N##_store##kind(type *p, ptrdiff_t stride, strop_f32x##N v, size_t n) {                 \
        strop_x##H##_store##kind(p, stride, v.low, FIRST(H));                                                          \
        strop_x##H##_store##kind(p + (H) * stride, stride, v.high, REST(H));                                           \
    }

/* Distances of N lanes are a group of their own, of which DISTANCES(v, i) goes with half i of a pair. */
#define DISTANCES(v, i) __riscv_vget_v_u16m8_u16m4(v, i)
#define PAIR_PLACES(N, H)                                                                                              \
    LANES_DISTANCES(N, m8, m4, places32)                                                                               \
    LANES_DISTANCES(N, m8, m4, places16)                                                                               \
    PAIR_MADE(N, H, gather, (const float *p, strop_places32x##N places, size_t n), (p, DISTANCES(places, 0), FIRST(H)),\
              (p, DISTANCES(places, 1), REST(H)))                                                                      \
    PAIR_MADE(N, H, gather_bf16, (const uint16_t *p, strop_places32x##N places, size_t n),                             \
              (p, DISTANCES(places, 0), FIRST(H)), (p, DISTANCES(places, 1), REST(H)))

#define PAIR_TWO(N, H, name)                                                                                           \
    PAIR_MADE(N, H, name, (strop_f32x##N a, strop_f32x##N b, size_t n), (a.low, b.low, FIRST(H)),                      \
              (a.high, b.high, REST(H)))                                                                               \
    PAIR_MADE(N, H, name##_vf, (strop_f32x##N a, float b, size_t n), (a.low, b, FIRST(H)), (a.high, b, REST(H)))       \
    PAIR_MADE(N, H, name##_fv, (float a, strop_f32x##N b, size_t n), (a, b.low, FIRST(H)), (a, b.high, REST(H)))

#define PAIR_FMA(N, H, name)                                                                                           \
    PAIR_MADE(N, H, name, (strop_f32x##N a, strop_f32x##N b, strop_f32x##N c, size_t n),                               \
              (a.low, b.low, c.low, FIRST(H)), (a.high, b.high, c.high, REST(H)))                                      \
    PAIR_MADE(N, H, name##_fvv, (float a, strop_f32x##N b, strop_f32x##N c, size_t n),                                 \
              (a, b.low, c.low, FIRST(H)), (a, b.high, c.high, REST(H)))

#define PAIR_PICK_LANE(N, H)                                                                                           \
    PAIR_MADE(N, H, pick_lane, (int32_t lane, float a, strop_f32x##N rest, size_t n), (lane, a, rest.low, FIRST(H)),   \
              (lane - (H), a, rest.high, REST(H)))
#define PAIR_PICK(N, H, name)                                                                                          \
    PAIR_MADE(N, H, pick_##name,                                                                                       \
              (strop_f32x##N a, strop_f32x##N c, strop_f32x##N x, strop_f32x##N y, size_t n),                          \
              (a.low, c.low, x.low, y.low, FIRST(H)), (a.high, c.high, x.high, y.high, REST(H)))                       \
    PAIR_MADE(N, H, pick_##name##_f, (strop_f32x##N a, strop_f32x##N c, float x, strop_f32x##N y, size_t n),           \
              (a.low, c.low, x, y.low, FIRST(H)), (a.high, c.high, x, y.high, REST(H)))

#if defined(__riscv_zvfh)
/* What a pair does with a group of binary16 numbers: HALF(v, i) is the half of the group that meets half i of the pair. */
#define HALF(v, i) __riscv_vget_v_f16m8_f16m4(v, i)

#define PAIR_F16(N, H, b)                                                                                              \
    LANES_WORDS(N, m8)                                                                                                 \
    LANES_F16(N, m8, b, m4)                                                                                            \
    PAIR_MADE(N, H, widen, (strop_f16x##N a, size_t n), (HALF(a, 0), FIRST(H)), (HALF(a, 1), REST(H)))                 \
    STROP_INLINE strop_f16x##N strop_x##N##_half_round(strop_f32x##N a, size_t n) {                                    \
        const vfloat16m4_t low = strop_x##H##_half_round(a.low, FIRST(H));                                             \
        const vfloat16m4_t high = strop_x##H##_half_round(a.high, REST(H));                                            \
        return __riscv_vset_v_f16m4_f16m8(__riscv_vlmul_ext_v_f16m4_f16m8(low), 1, high);                              \
    }                                                                                                                  \
    PAIR_MADE(N, H, gather_f16, (const uint16_t *p, strop_places16x##N places, size_t n),                              \
              (p, DISTANCES(places, 0), FIRST(H)), (p, DISTANCES(places, 1), REST(H)))                                 \
    PAIR_MADE(N, H, fill_f16, (float a, size_t n), (a, FIRST(H)), (a, REST(H)))                                        \
    PAIR_TWO_HALF(N, H, add_f16)                                                                                       \
    PAIR_TWO_HALF(N, H, sub_f16)                                                                                       \
    PAIR_FMA_HALF(N, H, fma)                                                                                           \
    PAIR_FMA_HALF(N, H, fnma)

#define PAIR_TWO_HALF(N, H, name)                                                                                      \
    PAIR_MADE(N, H, name, (strop_f32x##N a, strop_f16x##N b, size_t n), (a.low, HALF(b, 0), FIRST(H)),                 \
              (a.high, HALF(b, 1), REST(H)))

#define PAIR_FMA_HALF(N, H, name)                                                                                      \
    PAIR_MADE(N, H, name##_f16, (strop_f16x##N a, strop_f16x##N b, strop_f32x##N c, size_t n),                         \
              (HALF(a, 0), HALF(b, 0), c.low, FIRST(H)), (HALF(a, 1), HALF(b, 1), c.high, REST(H)))                    \
    PAIR_MADE(N, H, name##_f16_fvv, (uint16_t a, strop_f16x##N b, strop_f32x##N c, size_t n),                          \
              (a, HALF(b, 0), c.low, FIRST(H)), (a, HALF(b, 1), c.high, REST(H)))                                      \
    PAIR_MADE(N, H, name##_wide_fvv, (float a, strop_f16x##N b, strop_f32x##N c, size_t n),                            \
              (a, HALF(b, 0), c.low, FIRST(H)), (a, HALF(b, 1), c.high, REST(H)))

#else
#define PAIR_F16(N, H, b)
#endif

#if __riscv_v_min_vlen >= 256
LANES(4, 1, 32, mf2, mf4)
LANES(8, 1, 32, mf2, mf4)
LANES(16, 2, 16, m1, mf2)
LANES(32, 4, 8, m2, m1)
LANES(64, 8, 4, m4, m2)
LANES_PAIR(128, 64, 2)
#elif __riscv_v_min_vlen >= 128
LANES(4, 1, 32, mf2, mf4)
LANES(8, 2, 16, m1, mf2)
LANES(16, 4, 8, m2, m1)
LANES(32, 8, 4, m4, m2)
LANES_PAIR(64, 32, 2)
#else
#error "kernels in vectors need registers of at least 128 bits: tell the compiler zvl128b or more"
#endif
