/*
 * rng.h: random tensors that cost no memory. A number is a hash of where it is needed, not of how many came before.
 *
 *   strop_rng(seed, tensor, index) is a pure function: element `index` of the tensor whose key is `tensor`, in the run
 *   whose seed is `seed`. A projection of a learning rule is regenerated element by element, in any order, whenever it
 *   is read; nothing is stored and there is no state. compiler/rng.py computes the same bits, and so does every core.
 *
 *   seed    any 32 bits; chosen by the user for the whole model
 *   tensor  any 32 bits; CRC-32 of the tensor's name in UTF-8 (tensor_key in compiler/rng.py), so that adding a layer
 *           does not change the numbers of another
 *   index   position in the tensor, row major, below 2^32
 *
 * QUALITY    For one (seed, tensor), index -> number is a bijection of the 32-bit words: every value comes once.
 *            Flipping any bit of seed, tensor or index flips each bit of the result with probability 1/2. Neighbours,
 *            also at power-of-two distances such as the rows of a matrix, are uncorrelated (to the noise of the tests).
 *            Two tensors share no run of numbers: their keys enter twice, before and inside the mixer, so that one
 *            stream is not a permutation of the other. It is not cryptography.
 * COST       13 instructions an element on rv32im, 3 of them multiplications. The keys depend on (seed, tensor) only:
 *            constants when those are, else hoisted out of a loop over index; hence the inline definitions.
 * STABILITY  These bits are part of the file format: a checkpoint trained against a projection needs that projection.
 *            They never change between releases; a better generator would get a new name.
 * SOURCES    The multipliers and shifts [17 ed5ad4bb 11 ac4c1b51 15 31848bab 14] were found by Chris Wellons'
 *            hash-prospector (public domain, https://github.com/skeeto/hash-prospector, "triple32": bias 0.0209, the
 *            least possible; the best of two rounds saves three instructions, but correlates elements 4096 apart by up
 *            to 1 %). The odd constant is 2^32 divided by the golden ratio.
 */
#ifndef STROP_RNG_H
#define STROP_RNG_H

#include "numerics.h"

/* Three rounds of multiply and xorshift, with `key` added after the first; a bijection in x for every key. */
static inline uint32_t strop_rng_mix(uint32_t x, uint32_t key) {
    x = (x ^ x >> 17) * 0xed5ad4bbu;
    x = (x ^ x >> 11) + key;
    x = x * 0xac4c1b51u;
    x = (x ^ x >> 15) * 0x31848babu;
    return x ^ x >> 14;
}

/* 32 uniform bits. */
static inline uint32_t strop_rng(uint32_t seed, uint32_t tensor, uint32_t index) {
    const uint32_t golden = 0x9e3779b9u;
    const uint32_t first = strop_rng_mix(strop_rng_mix(seed + golden, 0u) ^ tensor, 0u);
    const uint32_t second = strop_rng_mix(first + golden, 0u);
    return strop_rng_mix(index ^ first, second);
}

/* Uniform in [0, 1): a multiple of 2^-24, all of which are equally likely. */
static inline float strop_rng_uniform(uint32_t seed, uint32_t tensor, uint32_t index) {
    return (float)(int32_t)(strop_rng(seed, tensor, index) >> 8) * 0x1p-24f;
}

/* +1.0f or -1.0f, equally likely. */
static inline float strop_rng_sign(uint32_t seed, uint32_t tensor, uint32_t index) {
    return strop_bits_float((strop_rng(seed, tensor, index) & 0x80000000u) | 0x3f800000u);
}

#endif
