/*
 * lanes.h: vectors of float32 for generated kernels, for cores with a vector unit and for the PC that plays one.
 *
 * THE PROMISE
 *   Lane k of a result depends on lane k of the operands alone, by the same operation, rounded once, as on scalars. So a
 *   kernel whose lanes are outputs has the bits of the kernel in scalars, and any kernel has the same on the board and on
 *   the PC. fma has one rounding.
 *
 * THE TYPES
 *   strop_f32xN holds N lanes, of which the first n count: every function takes n <= N last, and what is in other lanes
 *   is anything. load and store touch n elements, `stride` elements apart; load_u8 and store_u8 find whole numbers from
 *   0 to 255 in memory, load_f16, store_bf16 and the like what numerics.h calls 16-bit storage. A function's name ends
 *   in what its operands are where one is a float: fma_fvv(a, b, c, n) is a * b + c with a float a.
 *
 *   strop_f16xN holds N binary16 numbers, as `half` loads them. Where they feed sums in float32, fma_f16(a, b, c, n) is
 *   a * b + c of binary16 a and b, fma_wide_fvv of a float a and a binary16 b, add_f16(a, b, n) is a + b of a binary16 b:
 *   the bits are those of fma and add on operands that were widened before, because widening is exact; fill_f16(a, n)
 *   is what such sums begin with, a float that binary16 holds. dot_f16(a, b, c, n) has two products a lane: to lane k of
 *   c it adds that of lanes 2k of a and b, then that of lanes 2k + 1; it is for Helium (and the PC), four lanes at most.
 *   Functions whose names begin with half_ compute in binary16: each result is rounded once, subnormals are kept, and
 *   float operands are rounded to binary16 before. widen and half_round convert. half_spread stores each as the lower
 *   half of a word, `stride` words apart. On a board this takes Zvfh or Helium, and so do load_f16 and store_f16. Code
 *   that uses none of it may define STROP_LANES_FLOATS before it includes this, and is then spared what it costs.
 *
 * LABELS
 *   strop_f32xN_labels and strop_f16xN_labels hold a number below 256 for each lane of such a vector: labels(name, n) are
 *   all `name`, raise(most, label, a, name, n) puts a and `name` where *most and *label are, in lanes in which a is more
 *   than *most, and store_labels stores bytes.
 *
 * ACROSS LANES
 *   sum(a, v, n) adds the first n lanes to the float a, one after the other from the first on, as float32 scalars;
 *   half_sum does it to lanes in binary16. first(a, rest, n) has the first n lanes of a, and those of `rest` beyond,
 *   which are kept: a sum that a shorter vector is added to keeps its other lanes. pick_lane(lane, a, rest, n) has the
 *   float a in the lane of that number, if there is one, and `rest` in the others.
 *
 * PLACES
 *   strop_placesKxN says how many bytes each lane lies from an address, 0 to 65535; K is 16 for what `half` and load_f16
 *   load, 32 for all else. placesK reads distances from a table, placesK_u8 numbers that lie in memory as bytes,
 *   placesK_div(v, by, n) are those divided by 2 to 255, rounded down, and placesK_add(a, v, times, n) is a + v * times,
 *   modulo 2^16; store_placesK makes a table of them. gather, gather_f16, gather_bf16 and gather_half load from there.
 *
 * ELEMENTARY
 *   exp(v, n) has the bits of strop_expf, lane by lane, flushing or not.
 *
 * ADDRESSES
 *   strop_address(p) is p, but compilers do not know that: they keep it in a register, and load anew what lies there.
 *
 * FLUSHING
 *   Some vector units take subnormal numbers for zero, as operands and as results. The code of such a board defines
 *   STROP_LANES_FLUSH before it includes this, and then every function does, on the PC as well: lanes_flush.h says how.
 *   Division, square root, and what only moves numbers (load, store, fill, the sides of a pick) keep them. Scalars do in
 *   any case, so a kernel in vectors has the bits of the kernel in scalars where nothing is subnormal.
 */
#ifndef STROP_LANES_H
#define STROP_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numerics.h"

#define STROP_INLINE static inline __attribute__((always_inline, unused))

/* (number * this) >> 16 is number / by, for numbers below 256 and 1 < by < 256. */
#define LANES_RECIPROCAL(by) ((65536u + (by) - 1u) / (by))

STROP_INLINE void *strop_address(const void *p) {
    uintptr_t address = (uintptr_t)p;
    __asm__("" : "+r"(address));
    return (void *)address;
}

/* Two neighbours in memory, floats or what half_spread stored: of those the upper halves of words are anything. */
typedef struct { float first, second; } strop_two;
typedef struct { uint32_t first, second; } strop_two_words;

/* Lanes that lie beyond -most or most moved there; NaN stays. */
#define LANES_CLIPPED(N, lanes, half)                                                                                  \
    STROP_INLINE lanes strop_x##N##_##half##clipped(lanes a, float most, size_t n) {                                   \
        const lanes low = strop_x##N##_##half##fill(-most, n), high = strop_x##N##_##half##fill(most, n);              \
        const lanes y = strop_x##N##_##half##pick_gt(low, a, low, a, n);                                               \
        return strop_x##N##_##half##pick_gt(y, high, high, y, n);                                                      \
    }

/* What strop_expf computes, or where 2^n might leave a lane's exponent field, that function itself. No operation flushes
 * what would show beside the 1 that is added. scaled(y, n) is y * 2^n, by the low bits of the float n. */
#define LANES_HORNER(coefficient, N) q = strop_x##N##_add_vf(strop_x##N##_mul(q, r, n), coefficient, n);
#define LANES_EXP(N)                                                                                                   \
    STROP_INLINE strop_f32x##N strop_x##N##_exp(strop_f32x##N x, size_t n) {                                           \
        if (!strop_x##N##_within(x, 86.0f, n)) {                                                                       \
            float each[N];                                                                                             \
            strop_x##N##_store(each, 1, x, n);                                                                         \
            for (size_t i = 0; i < n; ++i) {                                                                           \
                each[i] = strop_expf(each[i]);                                                                         \
            }                                                                                                          \
            return strop_x##N##_load(each, 1, n);                                                                      \
        }                                                                                                              \
        const strop_f32x##N sum = strop_x##N##_add_vf(strop_x##N##_mul_vf(x, STROP_LOG2_E, n), STROP_INTEGER, n);      \
        const strop_f32x##N whole = strop_x##N##_sub_vf(sum, STROP_INTEGER, n);                                        \
        const strop_f32x##N high = strop_x##N##_sub(x, strop_x##N##_mul_vf(whole, STROP_LN2_HIGH, n), n);              \
        const strop_f32x##N r = strop_x##N##_sub(high, strop_x##N##_mul_vf(whole, STROP_LN2_LOW, n), n);               \
        strop_f32x##N q = strop_x##N##_fill(STROP_EXP_FIRST, n);                                                       \
        STROP_EXP_REST(LANES_HORNER, N)                                                                                \
        q = strop_x##N##_mul(strop_x##N##_mul(r, r, n), q, n);                                                         \
        return strop_x##N##_scaled(strop_x##N##_add_vf(strop_x##N##_add(r, q, n), 1.0f, n), sum, n);                   \
    }

#if defined(STROP_LANES_FLUSH) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "lanes_mve.h"
#elif defined(__riscv_vector) && !defined(STROP_LANES_FLUSH)
#include "lanes_rvv.h"
#else
#include "lanes_any.h"
#endif

#undef EACH
#undef EACH_HALF
#undef HALF
#undef LEFT
#undef LANE
#undef LANES
#undef LANES_TWO
#undef LANES_FMA
#undef LANES_PICK
#undef LANES_HALF
#undef LANES_STORE
#undef LANES_WORDS
#undef LANES_F16
#undef LANES_FMA_HALF
#undef LANES_FMA_SCALAR
#undef LANES_PAIR_FMA_HALF
#undef WIDE
#undef LANES_ARITHMETIC_HALF
#undef LANES_FMA_IN_HALF
#undef LANES_TWO_IN_HALF
#undef LANES_PICK_IN_HALF
#undef LANES_CLIPPED
#undef LANES_EXP
#undef LANES_HORNER
#undef LANES_LABELS
#undef PAIR_LABELS
#undef LANES_RAISE_ONE
#undef LANES_RECIPROCAL
#undef LANES_PLACES
#undef LANES_FIRST
#undef LANES_PAIR_PLACES
#undef LANES_LONG_PLACES
#undef LANES_PAIR_SUM
#undef LANES_PAIR_GATHER
#undef STORE_BYTE
#undef LANES_BYTES
#undef LANES_ACROSS
#undef LANES_DISTANCES
#undef PAIR_PLACES
#undef DISTANCES
#undef LANES_PAIR
#undef PAIR_MADE
#undef PAIR_IN_MEMORY
#undef PAIR_TWO
#undef PAIR_FMA
#undef PAIR_PICK
#undef PAIR_F16
#undef PAIR_TWO_HALF
#undef PAIR_FMA_HALF
#undef FIRST
#undef REST
#undef HALF
#undef LANES_MEMORY
#undef LANES_APART
#undef LANES_PAIR_MEMORY
#undef LANES_PAIR_TWO
#undef LANES_PAIR_FMA
#undef LANES_PAIR_PICK
#undef LANES_ONE
#undef LANES_HALVES
#undef LANES_MADE
#undef LANES_LONG
#undef LOAD
#undef STORE
#undef CONVERTED
#undef STEP
#undef APART
#undef LANES_LONG_HALF

#endif
