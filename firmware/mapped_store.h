/*
 * mapped_store.h: reading a store that lies in the core's address space, and checking what was written there. For one C
 * file, a port.c, to include; it adds strop_port_store_erase and strop_port_store_write.
 */
#ifndef STROP_MAPPED_STORE_H
#define STROP_MAPPED_STORE_H

#include "core.h"

void *memcpy(void *restrict to, const void *restrict from, size_t n);

static inline volatile uint8_t *strop_store_at(uint32_t offset) {
    return (volatile uint8_t *)(STROP_STORE_ORIGIN + offset);
}

int strop_port_store_read(uint32_t offset, void *data, uint32_t n) {
    memcpy(data, (const void *)(STROP_STORE_ORIGIN + offset), n);
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
