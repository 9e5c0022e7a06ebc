/*
 * mapped_store.h: reading a store that lies in the core's address space, and checking what was written there. For one C
 * file, a port.c, to include; it adds strop_port_store_erase and strop_port_store_write. Before that it may say where
 * reads see the store (STROP_STORE_SEEN), and how it is copied from there (STROP_STORE_COPY, 0 unless it failed).
 */
#ifndef STROP_MAPPED_STORE_H
#define STROP_MAPPED_STORE_H

#include "core.h"

#ifndef STROP_STORE_SEEN
#define STROP_STORE_SEEN STROP_STORE_ORIGIN
#endif
#ifndef STROP_STORE_COPY
#define STROP_STORE_COPY(to, from, n) (memcpy(to, from, n), 0)
#endif

void *memcpy(void *restrict to, const void *restrict from, size_t n);

static inline volatile uint8_t *strop_store_at(uint32_t offset) {
    return (volatile uint8_t *)(STROP_STORE_SEEN + offset);
}

int strop_port_store_read(uint32_t offset, void *data, uint32_t n) {
    return STROP_STORE_COPY(data, (const void *)(STROP_STORE_SEEN + offset), n);
}

/* Returns 1 unless `n` bytes at `offset`, both multiples of four, are those of `data`. */
static inline int strop_store_differs(uint32_t offset, const void *data, uint32_t n) {
    const volatile uint32_t *word = (const volatile uint32_t *)(const volatile void *)strop_store_at(offset);
    const uint32_t *wanted = data;
    for (uint32_t i = 0; i < n / 4; i++) {
        if (word[i] != wanted[i]) {
            return 1;
        }
    }
    return 0;
}

/* Returns 1 unless the sector that begins at `offset` is erased; an emulator may have flash that never is. */
static inline int strop_store_is_used(uint32_t offset) {
    const volatile uint32_t *word = (const volatile uint32_t *)(const volatile void *)strop_store_at(offset);
    for (uint32_t i = 0; i < STROP_STORE_SECTOR / 4; i++) {
        if (word[i] != UINT32_MAX) {
            return 1;
        }
    }
    return 0;
}

#endif
