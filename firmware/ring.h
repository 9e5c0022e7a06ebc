/*
 * ring.h: bytes on their way between an interrupt and the main loop. For serial.h, and for a port.c of its own mind.
 *
 * One side puts, the other takes: each counter has one writer at a time, so neither needs a lock.
 */
#ifndef STROP_RING_H
#define STROP_RING_H

#include "core.h"

typedef struct {
    volatile uint32_t in, out; /* bytes put and taken since reset; they wrap around together */
    const uint32_t size;       /* a power of two */
    volatile uint8_t *const bytes;
} strop_ring_t;

/* Defines a ring of `n` bytes. */
#define STROP_RING(ring, n) \
    _Static_assert((n) != 0 && ((n) & ((n) - 1)) == 0, "the size of a ring must be a power of two"); \
    static volatile uint8_t ring##_bytes[n]; \
    static strop_ring_t ring = {.size = (n), .bytes = ring##_bytes}

static inline int strop_ring_is_full(const strop_ring_t *ring) {
    return ring->in - ring->out == ring->size;
}

static inline int strop_ring_is_empty(const strop_ring_t *ring) {
    return ring->in == ring->out;
}

/* Not when full. */
static inline void strop_ring_put(strop_ring_t *ring, uint8_t byte) {
    ring->bytes[ring->in & (ring->size - 1)] = byte;
    ring->in++;
}

/* Not when empty. */
static inline uint8_t strop_ring_take(strop_ring_t *ring) {
    const uint8_t byte = ring->bytes[ring->out & (ring->size - 1)];
    ring->out++;
    return byte;
}

#endif
