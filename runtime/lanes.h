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
 *   0 to 255 in memory, load_f16, store_bf16 and the like what numerics.h calls 16-bit storage. A function's name ends
 *   in what its operands are where one is a float: fma_fvv(a, b, c, n) is a * b + c with a float a.
 *
 *   strop_f16xN holds N binary16 numbers, as `half` loads them. Where they feed sums in float32, fma_f16(a, b, c, n) is
 *   a * b + c of binary16 a and b, add_f16(a, b, n) is a + b of a binary16 b: the bits are those of fma and add on
 *   operands that were widened before, because widening is exact. Functions whose names begin with half_ compute in
 *   binary16: each result is rounded once, subnormals are kept, and float operands are rounded to binary16 before.
 *   widen and half_round convert. half_spread stores each as the lower half of a word, `stride` words apart. On a board this takes Zvfh or Helium, and so do load_f16 and store_f16. Code that
 *   uses none of it may define STROP_LANES_FLOATS before it includes this, and is then spared what it costs.
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
#undef LANES_ARITHMETIC_HALF
#undef LANES_FMA_IN_HALF
#undef LANES_TWO_IN_HALF
#undef LANES_PICK_IN_HALF
#undef LANES_CLIPPED
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
