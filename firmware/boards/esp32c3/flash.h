/*
 * flash.h: an ESP32-C3's flash through its ROM, which the store lies in and the program runs from. For port.c to
 * include. ROM code alone runs while the flash is busy, with interrupts off. It reads past the cache, through the
 * controller that it writes by (SPI1), so nothing stale is seen.
 * Sources: ESP-IDF, components/esp_rom/esp32c3/ld/esp32c3.rom.ld (addresses, for every revision of the chip) and
 * include/esp32c3/rom/spi_flash.h (what the functions do); Technical Reference Manual v1.1 (system and memory).
 */
#ifndef STROP_ESP32C3_FLASH_H
#define STROP_ESP32C3_FLASH_H

#include "core.h"

void *memcpy(void *restrict to, const void *restrict from, size_t n);

typedef int (*rom_erase_t)(uint32_t sector);
typedef int (*rom_write_t)(uint32_t address, const uint32_t *from, int32_t bytes);
typedef int (*rom_read_t)(uint32_t address, uint32_t *to, int32_t bytes);
typedef int (*rom_describe_t)(uint32_t id, uint32_t chip, uint32_t block, uint32_t sector, uint32_t page,
                              uint32_t status_mask);
typedef int (*rom_unlock_t)(void);

#ifndef ROM
#define ROM(function, address) ((function)(address))
#endif
#define ROM_ERASE    ROM(rom_erase_t, 0x40000128)    /* esp_rom_spiflash_erase_sector */
#define ROM_WRITE    ROM(rom_write_t, 0x4000012C)    /* esp_rom_spiflash_write */
#define ROM_READ     ROM(rom_read_t, 0x40000130)     /* esp_rom_spiflash_read */
#define ROM_DESCRIBE ROM(rom_describe_t, 0x40000134) /* esp_rom_spiflash_config_param */
#define ROM_UNLOCK   ROM(rom_unlock_t, 0x40000140)   /* esp_rom_spiflash_unlock: no block is protected */

enum { CHIP_BYTES = 4 << 20, BLOCK_BYTES = 64 << 10, PAGE_BYTES = 256, STATUS_MASK = 0xFFFF };
#define STORE_IN_CHIP (STROP_STORE_ORIGIN - 0x42000000U) /* where the chip's first byte is mapped */

/* By these names the stack analysis knows that they call ROM, which takes `rom_stack` bytes. The first tells the ROM
 * what a second boot loader would have told it from the header of its image. */
__attribute__((noinline)) static int strop_rom_open(void) {
    return ROM_DESCRIBE(0, CHIP_BYTES, BLOCK_BYTES, STROP_STORE_SECTOR, PAGE_BYTES, STATUS_MASK) || ROM_UNLOCK();
}

__attribute__((noinline)) static int strop_rom_erase(uint32_t sector) {
    return ROM_ERASE(sector);
}

__attribute__((noinline)) static int strop_rom_write(uint32_t address, const uint32_t *from, uint32_t n) {
    return ROM_WRITE(address, from, (int32_t)n);
}

__attribute__((noinline)) static int strop_rom_read(uint32_t address, uint32_t *to, uint32_t n) {
    return ROM_READ(address, to, (int32_t)n);
}

int strop_port_store_erase(uint32_t offset) {
    const uint32_t state = strop_interrupts_pause();
    const int failed = strop_rom_open() || strop_rom_erase((STORE_IN_CHIP + offset) / STROP_STORE_SECTOR);
    strop_interrupts_resume(state);
    return failed;
}

int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    const uint32_t state = strop_interrupts_pause();
    const int failed = strop_rom_open() || strop_rom_write(STORE_IN_CHIP + offset, data, n);
    strop_interrupts_resume(state);
    return failed;
}

/* The ROM reads whole words to whole words. */
int strop_port_store_read(uint32_t offset, void *data, uint32_t n) {
    static uint32_t words[16];
    uint8_t *to = data;
    for (uint32_t done = 0, piece; done < n; done += piece) {
        const uint32_t at = offset + done, skip = at % 4, room = (uint32_t)sizeof words - skip;
        piece = n - done < room ? n - done : room;
        const uint32_t state = strop_interrupts_pause();
        const int failed = strop_rom_read(STORE_IN_CHIP + at - skip, words, (skip + piece + 3) / 4 * 4);
        strop_interrupts_resume(state);
        if (failed) {
            return 1;
        }
        memcpy(to + done, (const uint8_t *)words + skip, piece);
    }
    return 0;
}

#endif
