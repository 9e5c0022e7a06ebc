/*
 * flash.h: the flash chip behind an FE310's QSPI0, which the store lies in and the program runs from. For port.c to
 * include. While it works it cannot be read: what drives it lies in RAM, and interrupts, whose handler does not, wait.
 * Sources: FE310-G000 Manual v3p2 (memory map; Serial Peripheral Interface: registers, chip select modes); IS25LP128
 * data sheet, ISSI (instruction set: WREN, RDSR, SER, PP; status register). QEMU 7.2, hw/riscv/sifive_e.c, leaves the
 * controller out: its registers are zero, and an erase is told to have failed.
 */
#ifndef STROP_FE310_FLASH_H
#define STROP_FE310_FLASH_H

#include "mapped_store.h"

#define SPI             0x10014000
#define SPI_CHIP_SELECT REGISTER(SPI + 0x18)
#define SPI_FORMAT      REGISTER(SPI + 0x40)
#define SPI_TRANSMIT    REGISTER(SPI + 0x48)
#define SPI_RECEIVED    REGISTER(SPI + 0x4C)
#define SPI_MAPPED      REGISTER(SPI + 0x60)
#define SPI_NOT_NOW     0x80000000U                     /* SPI_TRANSMIT is full, SPI_RECEIVED empty */
enum { SELECT_EACH_BYTE = 0, SELECT_HOLD = 2 };         /* of SPI_CHIP_SELECT */
enum { EIGHT_BITS_BOTH_WAYS = 8 << 16 };                /* of SPI_FORMAT: one line, the highest bit first */
enum { WRITE_ENABLE = 0x06, READ_STATUS = 0x05, ERASE_4_KB = 0x20, PROGRAM_PAGE = 0x02 };
enum { STATUS_BUSY = 1, PAGE_BYTES = 256 };
#define FLASH_MAPPED_AT 0x20000000U                     /* manual, memory map: the chip's first byte */

/* Sends a byte, and returns the one that comes back at the same time. */
STROP_IN_RAM static uint8_t spi(uint8_t byte) {
    uint32_t received;
    while ((SPI_TRANSMIT & SPI_NOT_NOW) != 0) {
    }
    SPI_TRANSMIT = byte;
    while (((received = SPI_RECEIVED) & SPI_NOT_NOW) != 0) {
    }
    return (uint8_t)received;
}

/* A command that changes what the chip holds at an address; returns when the chip has done it. */
STROP_IN_RAM static void spi_change(uint8_t command, uint32_t address, const uint8_t *data, uint32_t n) {
    (void)spi(WRITE_ENABLE);
    SPI_CHIP_SELECT = SELECT_HOLD;
    (void)spi(command);
    (void)spi((uint8_t)(address >> 16));
    (void)spi((uint8_t)(address >> 8));
    (void)spi((uint8_t)address);
    for (uint32_t i = 0; i < n; i++) {
        (void)spi(data[i]);
    }
    SPI_CHIP_SELECT = SELECT_EACH_BYTE;
    SPI_CHIP_SELECT = SELECT_HOLD;
    (void)spi(READ_STATUS);
    while ((spi(0) & STATUS_BUSY) != 0) {
    }
    SPI_CHIP_SELECT = SELECT_EACH_BYTE;
}

/* The same, between the flash's vanishing from the memory map and its return. */
STROP_IN_RAM static void flash_change(uint8_t command, uint32_t address, const uint8_t *data, uint32_t n) {
    SPI_MAPPED = 0;
    const uint32_t format = SPI_FORMAT;
    SPI_FORMAT = EIGHT_BITS_BOTH_WAYS;
    SPI_CHIP_SELECT = SELECT_EACH_BYTE;
    spi_change(command, address, data, n);
    SPI_FORMAT = format;
    SPI_MAPPED = 1;
}

static void change(uint8_t command, uint32_t offset, const uint8_t *data, uint32_t n) {
    const uint32_t state = strop_interrupts_pause();
    flash_change(command, STROP_STORE_ORIGIN - FLASH_MAPPED_AT + offset, data, n);
    strop_interrupts_resume(state);
}

int strop_port_store_erase(uint32_t offset) {
    change(ERASE_4_KB, offset, NULL, 0);
    return strop_store_is_used(offset);
}

/* A command programs within one page of the chip, and wraps around at its end. */
int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    const uint8_t *from = data;
    for (uint32_t done = 0, piece; done < n; done += piece) {
        const uint32_t room = PAGE_BYTES - (offset + done) % PAGE_BYTES;
        piece = n - done < room ? n - done : room;
        change(PROGRAM_PAGE, offset + done, from + done, piece);
    }
    return strop_store_differs(offset, data, n);
}

#endif
