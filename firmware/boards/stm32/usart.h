/*
 * The part of an STM32 port that all families share: a USART with a receive interrupt, SysTick, reset. The family's C
 * file first says where its registers are: USART_STATUS, USART_CONTROL, USART_RECEIVED, USART_TRANSMIT, and
 * USART_FORGET_OVERRUN() where reading a byte does not do that. Bits: RM0090, RM0041, RM0390 and RM0433 agree.
 */
#ifndef STROP_STM32_USART_H
#define STROP_STM32_USART_H

#include "port.h"
#include "ring.h"
#include "systick.h"

enum { OVERRUN = 0x08, RECEIVED = 0x20, SENT = 0x40, TRANSMIT_EMPTY = 0x80 };              /* of USART_STATUS */
enum { RECEIVE_ENABLE = 0x04, TRANSMIT_ENABLE = 0x08, RECEIVE_INTERRUPT_ENABLE = 0x20 };   /* of USART_CONTROL */

static strop_ring_t received;

static void start(uint32_t usart_enable) {
    USART_CONTROL = usart_enable | TRANSMIT_ENABLE | RECEIVE_ENABLE | RECEIVE_INTERRUPT_ENABLE;
    systick_start();
    strop_interrupt_on(STROP_UART_IRQ);
    strop_interrupts_on();
}

/* A byte that finds the ring full stays where it is, and the interrupt off, until strop_port_read has made room; off in
 * the NVIC, as QEMU's model goes on asking for it otherwise. After an overrun there may be an interrupt without a byte;
 * reading clears it. */
void strop_interrupt(void);
void strop_interrupt(void) {
    uint32_t status;
    while (((status = USART_STATUS) & (RECEIVED | OVERRUN)) != 0) {
        if (strop_ring_is_full(&received)) {
            strop_interrupt_off(STROP_UART_IRQ);
            return;
        }
        const uint8_t byte = (uint8_t)USART_RECEIVED;
        USART_FORGET_OVERRUN();
        if ((status & RECEIVED) != 0) {
            strop_ring_put(&received, byte);
        }
    }
}

size_t strop_port_read(uint8_t *buf, size_t n) {
    const size_t got = strop_ring_take(&received, buf, n);
    strop_interrupt_on(STROP_UART_IRQ);
    return got;
}

void strop_port_write(const uint8_t *buf, size_t n) {
    for (size_t i = 0; i < n; i++) {
        while ((USART_STATUS & TRANSMIT_EMPTY) == 0) {
        }
        USART_TRANSMIT = buf[i];
    }
}

uint64_t strop_port_counter(void) {
    return systick_cycles();
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none; QEMU quits on it when started with -no-reboot */
    while ((USART_STATUS & SENT) == 0) {
    }
    strop_system_reset();
}

#endif
