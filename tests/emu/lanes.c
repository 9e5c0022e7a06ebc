/*
 * lanes.c: functions of lanes.h over operands that rounding, flushing and NaN treat apart, each to one hash. Which they
 * are, and what calls them, is added by test_lanes_emu.py.
 */
#include "lanes.h"
#include "rng.h"

/* Magnitudes: around zero, FLT_MIN, halves of it, one, binary16's limits and ties, float's limits; infinity and NaN. */
static const uint32_t edges[] = {
    0x00000000u, 0x00000001u, 0x00400000u, 0x007fffffu, 0x00800000u, 0x00800001u, 0x00fffffeu, 0x00ffffffu, 0x01000000u,
    0x1f800000u, 0x1fffffffu, 0x20000000u, 0x33000000u, 0x33000001u, 0x33800000u, 0x387fe000u, 0x38800000u, 0x3effffffu,
    0x3f000000u, 0x3f000001u, 0x3f7fffffu, 0x3f800000u, 0x3f800001u, 0x477fe000u, 0x477fefffu, 0x477ff000u, 0x7f7fffffu,
    0x7f800000u, 0x7f800001u, 0x7fc00000u, 0x7fc12345u,
};
enum { WIDTH = 8, SIGNED = 2 * sizeof edges / sizeof *edges, TRIPLES = SIGNED * SIGNED * SIGNED / WIDTH, MORE = 40000 };

static union { uint32_t u[WIDTH]; float f[WIDTH]; uint16_t h[2 * WIDTH]; uint8_t b[4 * WIDTH]; } a, b, c, y;

/* What lanes are gathered from, where they lie in it, and whole numbers in binary16. */
static union { uint32_t u[64]; float f[64]; uint16_t h[128]; } table;
static const uint16_t distances[WIDTH] = {52, 40, 100, 44, 124, 60, 48, 80};
static const uint8_t bytes[2 * WIDTH] = {0, 3, 17, 30, 1, 29, 2, 5, 28, 30, 7, 11, 23, 4, 6, 8};
static uint16_t numbers[40];

static void fill(void) {
    for (uint32_t i = 0; i < 64; ++i) {
        table.u[i] = strop_rng(5, 6, i) & 0xbfffbfffu;
        numbers[i % 40] = strop_f16_bits((float)(i % 40 * 37 % 256));
    }
}

static uint32_t edge(uint32_t i) {
    return edges[i % SIGNED / 2] | i << 31;
}

/* Turn t of the operands: first all triples of edges; then random ones, whose product is about FLT_MIN. */
static void draw(uint32_t t) {
    if (t == 0) {
        fill();
    }
    for (uint32_t i = 0; i < WIDTH; ++i) {
        const uint32_t k = t * WIDTH + i, random = strop_rng(1, 2, k), other = strop_rng(3, 4, k);
        const uint32_t exponent = (random >> 23 & 0xffu) % 120u + 5u;
        if (t < TRIPLES) {
            a.u[i] = edge(k / (SIGNED * SIGNED));
            b.u[i] = edge(k / SIGNED);
            c.u[i] = edge(k);
        } else {
            a.u[i] = (random & 0x807fffffu) | exponent << 23;
            b.u[i] = (other & 0x807fffffu) | (126u + other % 5u - exponent) << 23;
            c.u[i] = k % 3u ? edge(random >> 8) : random ^ other;
        }
    }
}

static uint32_t mixed(uint32_t hash, uint32_t word) {
    return (hash ^ word) * 16777619u;
}

/* Vectors that flush have one NaN, which is compared; of all others, and of scalar instructions, any is as good. */
#if defined(STROP_LANES_FLUSH)
enum { SCALAR = true, VECTOR = false };
#else
enum { SCALAR = true, VECTOR = true };
#endif

static uint32_t float_bits(uint32_t bits, bool any_nan) {
    return any_nan && (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : bits;
}

static uint32_t half_bits(uint32_t bits, bool any_nan) {
    return any_nan && (bits & 0x7fffu) > 0x7c00u ? 0x7e00u : bits;
}

#define CASE(name, statement, result)                             \
    static uint32_t case_##name(void) {                           \
        uint32_t hash = 2166136261u;                              \
        for (uint32_t t = 0; t < TRIPLES + MORE; ++t) {           \
            draw(t);                                              \
            statement;                                            \
            for (uint32_t i = 0; i < WIDTH; ++i) {                \
                hash = mixed(hash, result);                       \
            }                                                     \
        }                                                         \
        return hash;                                              \
    }
#define A strop_x8_load(a.f, 1, WIDTH)
#define B strop_x8_load(b.f, 1, WIDTH)
#define C strop_x8_load(c.f, 1, WIDTH)
#define HALVES(from) strop_x8_half(from, 2, WIDTH)
#define FLOATS(name, unit, vector) CASE(name, strop_x8_store(y.f, 1, vector, WIDTH), float_bits(y.u[i], unit))

/* Any number of lanes at any distance: what lies between and behind them stays as it is. */
#define MEMORY(N, name, type)                                                                                      \
    static uint32_t case_memory_x##N##name(void) {                                                                 \
        enum { LONGEST = 3 * (N) + 3 };                                                                            \
        uint32_t hash = 0;                                                                                         \
        for (uint32_t k = 0; k < 3 * (N); ++k) {                                                                   \
            const uint32_t n = 1 + k / 3;                                                                          \
            const ptrdiff_t stride = 1 + (ptrdiff_t)k % 3;                                                         \
            type from[LONGEST], to[LONGEST];                                                                       \
            for (uint32_t i = 0; i < LONGEST; ++i) {                                                               \
                from[i] = (type)(i + 7 * n);                                                                       \
                to[i] = (type)1;                                                                                   \
            }                                                                                                      \
            strop_x##N##_store##name(to + 1, stride, strop_x##N##_load##name(from + 2, 4 - stride, n), n);         \
            for (uint32_t i = 0; i < LONGEST; ++i) {                                                               \
                hash = mixed(hash, (uint32_t)to[i]);                                                               \
            }                                                                                                      \
        }                                                                                                          \
        return hash;                                                                                               \
    }

