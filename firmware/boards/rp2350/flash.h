/*
 * flash.h: an RP2350's flash through its boot ROM, which the store lies in and the program runs from. For port.c to
 * include. ROM code alone runs while the flash is busy; interrupts, whose handler lies in flash, wait. The read mode
 * that the ROM chose when it started the program stays: in none of them does the chip go on reading (continuous read).
 * Sources: RP2350 Datasheet, RP-008373-DS (address map; bootrom APIs: locating functions, flash_op); the ROM's own
 * source, pico-bootrom-rp2350, src/main/arm/varm_checked_flash.c and varm_generic_flash.c.
 */
#ifndef STROP_RP2350_FLASH_H
#define STROP_RP2350_FLASH_H

#ifndef STROP_STORE_SEEN /* past the cache, which may hold what was there before */
#define STROP_STORE_SEEN (STROP_STORE_ORIGIN + 0x04000000U)
#endif
#include "mapped_store.h"

typedef int (*rom_flash_op_t)(uint32_t flags, uint32_t address, uint32_t bytes, const uint8_t *data);
typedef rom_flash_op_t (*rom_lookup_t)(uint32_t code, uint32_t kind);

#ifndef ROM_LOOKUP /* its address is a half-word at a fixed place */
/* The asm hides the place from gcc, which takes the first page of memory for an array without elements. */
static inline uint32_t rom_half_word(uint32_t place) {
    __asm__("" : "+r"(place));
    return *(const volatile uint16_t *)place;
}
#if defined(__riscv)
#define ROM_LOOKUP ((rom_lookup_t)rom_half_word(0x7DFA))
#else
#define ROM_LOOKUP ((rom_lookup_t)rom_half_word(0x16))
#endif
#endif
#if defined(__riscv)
enum { ROM_KIND = 0x01 }; /* a function for RISC-V */
#else
enum { ROM_KIND = 0x04 }; /* a function for Arm, secure */
#endif
enum { ROM_FLASH_OP = 'F' | 'O' << 8 };
enum { ERASE = 0 << 16, PROGRAM = 1 << 16, SECURE_BY_MAPPED_ADDRESS = 1 << 8 | 1 };

/* By its name the stack analysis knows that this calls ROM only, which takes `rom_stack` bytes. */
__attribute__((noinline)) static int strop_rom_flash_op(uint32_t flags, uint32_t address, uint32_t n,
                                                        const void *data) {
    return ROM_LOOKUP(ROM_FLASH_OP, ROM_KIND)(flags, address, n, data);
}

static int flash_op(uint32_t operation, uint32_t offset, const void *data, uint32_t n) {
    const uint32_t state = strop_interrupts_pause();
    const int failed = strop_rom_flash_op(operation | SECURE_BY_MAPPED_ADDRESS, STROP_STORE_ORIGIN + offset, n, data);
    strop_interrupts_resume(state);
    return failed;
}

int strop_port_store_erase(uint32_t offset) {
    return flash_op(ERASE, offset, NULL, STROP_STORE_SECTOR) || strop_store_is_used(offset);
}

int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    return flash_op(PROGRAM, offset, data, n) || strop_store_differs(offset, data, n);
}

#endif
