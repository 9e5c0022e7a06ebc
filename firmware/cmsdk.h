/*
 * cmsdk.h: what Arm's FPGA boards share as QEMU models them: a CMSDK UART, read asleep, and a reset. For one C file, a
 * port.c, to include, which names the UART's receive interrupt, UART_IRQ.
 * Sources: QEMU 7.2 hw/char/cmsdk-apb-uart.c; Cortex-M System Design Kit reference manual, Arm DDI 0479, chapter 4.3.
 */
#ifndef STROP_CMSDK_H
#define STROP_CMSDK_H

#include "core.h"
#include "port.h"

#define UART_DATA      REGISTER(STROP_UART_BASE + 0x00)
#define UART_STATE     REGISTER(STROP_UART_BASE + 0x04)
#define UART_CONTROL   REGISTER(STROP_UART_BASE + 0x08)
#define UART_INTERRUPT REGISTER(STROP_UART_BASE + 0x0C)       /* write 1 to clear */
#define UART_DIVIDER   REGISTER(STROP_UART_BASE + 0x10)
enum { TRANSMIT_FULL = 1, RECEIVE_FULL = 2 };                 /* bits of UART_STATE */
enum { TRANSMIT_ENABLE = 1, RECEIVE_ENABLE = 2, RECEIVE_INTERRUPT_ENABLE = 8 }; /* bits of UART_CONTROL */
enum { RECEIVE_INTERRUPT = 2 };                               /* bit of UART_INTERRUPT */

#define NVIC_CLEAR(irq) REGISTER(0xE000E280 + 4 * ((irq) / 32)) /* Armv7-M B3.4.7 */

/* The interrupt is never taken: enabled in the NVIC but masked in the core, it only wakes the core from wfi. */
static inline void cmsdk_start(void) {
    UART_DIVIDER = STROP_CLOCK_HZ / STROP_UART_BAUD;
    UART_CONTROL = TRANSMIT_ENABLE | RECEIVE_ENABLE | RECEIVE_INTERRUPT_ENABLE;
    strop_interrupts_off();
    strop_interrupt_on(UART_IRQ);
}

/*
 * The UART holds one byte, so one is what there is. Clearing the interrupt before looking at the state again keeps a
 * byte that arrives in between from being slept over.
 */
size_t strop_port_read(uint8_t *buf, size_t n) {
    (void)n;
    while ((UART_STATE & RECEIVE_FULL) == 0) {
        strop_sleep();
        UART_INTERRUPT = RECEIVE_INTERRUPT;
        NVIC_CLEAR(UART_IRQ) = 1U << UART_IRQ % 32;
    }
    *buf = (uint8_t)UART_DATA;
    return 1;
}

void strop_port_write(const uint8_t *buf, size_t n) {
    for (size_t i = 0; i < n; i++) {
        while ((UART_STATE & TRANSMIT_FULL) != 0) {
        }
        UART_DATA = buf[i];
    }
}

/* Waits until a timer's value changes and returns the new one; `waited`: instructions until then, in a loop of four. */
static inline uint32_t next_tick(volatile uint32_t *timer, uint32_t *waited) {
    const uint32_t first = *timer;
    uint32_t now, count = 0;
    __asm__ volatile("1: adds %0, #4\n\tldr %1, [%2]\n\tcmp %1, %3\n\tbeq 1b"
                     : "+&l"(count), "=&l"(now)
                     : "l"(timer), "l"(first)
                     : "cc");
    *waited = count;
    return now;
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none; QEMU quits on it when started with -no-reboot */
    strop_system_reset();
}

#endif
