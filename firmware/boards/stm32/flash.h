/*
 * flash.h: how STM32 chips unlock their flash for an operation. For one C file to include, behind its names of
 * the flash registers. Sources: PM0063 (F1),
 * RM0090 (F4) and RM0433 (H7), unlocking and status of the flash.
 */
#ifndef STROP_STM32_FLASH_H
#define STROP_STM32_FLASH_H

/* Operations come one at a time; the core waits by itself while it reads from busy flash. */
static void open_flash(uint32_t operation) {
    FLASH_CLEAR = FAILURES; /* one from before, a debugger's say, would refuse this */
    FLASH_KEY = KEY_1;
    FLASH_KEY = KEY_2;
    FLASH_CONTROL = operation;
}

static void wait_for_flash(void) {
    while ((FLASH_STATUS & BUSY) != 0) {
    }
}

#endif
