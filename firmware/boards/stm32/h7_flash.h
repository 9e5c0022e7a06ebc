/*
 * h7_flash.h: the second flash bank of an STM32H743, which the store lies in. For h7.c to include. The program may run
 * from the same bank: the core then waits by itself. Source: RM0433, embedded flash memory
 * (program, erase, error management, registers of bank 2).
 */
#ifndef STROP_STM32_H7_FLASH_H
#define STROP_STM32_H7_FLASH_H

#include "core.h"

#define FLASH_KEY     REGISTER(0x52002104)
#define FLASH_CONTROL REGISTER(0x5200210C)
#define FLASH_STATUS  REGISTER(0x52002110)
#define FLASH_CLEAR   REGISTER(0x52002114)
#define KEY_1 0x45670123U
#define KEY_2 0xCDEF89ABU
enum { LOCKED = 1, PROGRAM = 0x32, ERASE_SECTOR = 0x34, START = 0x80 }; /* of FLASH_CONTROL, 64 bits at a time */
enum { BUSY = 0x5, FAILURES = 0x1EE0000, TWO_BITS_WRONG = 1 << 26 };    /* of FLASH_STATUS */
enum { WORDS_AT_A_TIME = 8 };

/* A word whose writing lost power may have more wrong bits than its ECC can mend: reading it is a bus error. */
static int copy_unless_wrong(void *to, const void *from, uint32_t n);
#define STROP_STORE_COPY copy_unless_wrong
#include "mapped_store.h"
#include "flash.h"

static int copy_unless_wrong(void *to, const void *from, uint32_t n) {
    FLASH_CLEAR = TWO_BITS_WRONG;
    strop_bus_faults_off();
    memcpy(to, from, n);
    strop_bus_faults_on();
    return (FLASH_STATUS & TWO_BITS_WRONG) != 0;
}

/* Ends an operation; returns whether it failed. */
static int close_flash(void) {
    wait_for_flash();
    const int failed = (FLASH_STATUS & FAILURES) != 0;
    FLASH_CONTROL = LOCKED;
    return failed;
}

int strop_port_store_erase(uint32_t offset) {
    open_flash(ERASE_SECTOR | (STROP_STORE_FIRST_SECTOR + offset / STROP_STORE_SECTOR) << 8);
    FLASH_CONTROL |= START;
    return close_flash() || strop_store_is_used(offset);
}

/* Eight words fill the flash's write buffer, which begins to program then. */
int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    const uint32_t *from = data;
    volatile uint32_t *const to = (volatile uint32_t *)(volatile void *)strop_store_at(offset);
    open_flash(PROGRAM);
    for (uint32_t i = 0; i < n / 4; i += WORDS_AT_A_TIME) {
        strop_barrier();
        for (uint32_t j = i; j < i + WORDS_AT_A_TIME; j++) {
            to[j] = from[j];
        }
        strop_barrier();
        wait_for_flash();
    }
    return close_flash();
}

#endif
