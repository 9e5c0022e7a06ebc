/*
 * ring.h: received bytes on their way from the receive interrupt to strop_port_read. For a port.c to include.
 *
 * STROP_WINDOW bytes, a power of two, from the board's description. One interrupt puts, the main loop takes: each
 * counter has one writer, so neither needs a lock.
 */
#ifndef STROP_RING_H
#define STROP_RING_H

#include "core.h"

_Static_assert(STROP_WINDOW != 0 && (STROP_WINDOW & (STROP_WINDOW - 1)) == 0, "window must be a power of two");

typedef struct {
    volatile uint32_t in, out; /* bytes put and taken since reset; they wrap around together */
    volatile uint8_t bytes[STROP_WINDOW];
} strop_ring_t;

static inline int strop_ring_is_full(const strop_ring_t *ring) {
    return ring->in - ring->out == STROP_WINDOW;
}

/* Not when full. */
static inline void strop_ring_put(strop_ring_t *ring, uint8_t byte) {
    ring->bytes[ring->in % STROP_WINDOW] = byte;
    ring->in++;
}

/* Sleeps while the ring is empty, then moves up to `n` >= 1 bytes and returns how many. An interrupt that comes between
 * the look at the ring and the sleep is pending, which ends the sleep. */
static inline size_t strop_ring_take(strop_ring_t *ring, uint8_t *buf, size_t n) {
    strop_interrupts_off();
    while (ring->in == ring->out) {
        strop_sleep();
        strop_interrupts_on();
        strop_interrupts_off();
    }
    strop_interrupts_on();
    size_t got = 0;
    while (got < n && ring->in != ring->out) {
        buf[got++] = ring->bytes[ring->out % STROP_WINDOW];
        ring->out++;
    }
    return got;
}

#endif
