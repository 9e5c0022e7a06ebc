/*
 * The part of an STM32 port that all families share: a USART with its interrupt, SysTick, reset. The family's C
 * file first says where its registers are: USART_STATUS, USART_CONTROL, USART_RECEIVED, USART_TRANSMIT, and
 * USART_FORGET_OVERRUN() where reading a byte does not do that. Bits: RM0090, RM0041, RM0390 and RM0433 agree.
 */
#ifndef STROP_STM32_USART_H
#define STROP_STM32_USART_H

#include "serial.h"
#include "systick.h"

enum { OVERRUN = 0x08, RECEIVED = 0x20, SENT = 0x40, TRANSMIT_EMPTY = 0x80 };              /* of USART_STATUS */
enum { RECEIVE_ENABLE = 0x04, TRANSMIT_ENABLE = 0x08 };                                    /* of USART_CONTROL */
enum { RECEIVE_INTERRUPT_ENABLE = 0x20, EMPTY_INTERRUPT_ENABLE = 0x80 };

static void start(uint32_t usart_enable) {
    USART_CONTROL = usart_enable | TRANSMIT_ENABLE | RECEIVE_ENABLE | RECEIVE_INTERRUPT_ENABLE;
    systick_start();
    strop_interrupt_on(STROP_UART_IRQ);
    strop_interrupts_on();
}

/* After an overrun there may be an interrupt without a byte; reading clears it. */
static int uart_take(uint8_t *byte) {
    uint32_t status;
    while (((status = USART_STATUS) & (RECEIVED | OVERRUN)) != 0) {
        *byte = (uint8_t)USART_RECEIVED;
        USART_FORGET_OVERRUN();
        if ((status & RECEIVED) != 0) {
            return 1;
        }
    }
    return 0;
}

static int uart_has_room(void) {
    return (USART_STATUS & TRANSMIT_EMPTY) != 0;
}

static void uart_send(uint8_t byte) {
    USART_TRANSMIT = byte;
}

/* In the NVIC, as QEMU's model goes on asking for it otherwise. What is to be sent waits with it. */
static void uart_receive_interrupt(int on) {
    if (on) {
        strop_interrupt_on(STROP_UART_IRQ);
    } else {
        strop_interrupt_off(STROP_UART_IRQ);
    }
}

static void uart_room_interrupt(int on) {
    const uint32_t others = USART_CONTROL & ~(uint32_t)EMPTY_INTERRUPT_ENABLE;
    USART_CONTROL = on ? others | EMPTY_INTERRUPT_ENABLE : others;
}

void strop_interrupt(void);
void strop_interrupt(void) {
    strop_serial_interrupt();
}

uint64_t strop_port_counter(void) {
    return systick_cycles();
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none; QEMU quits on it when started with -no-reboot */
    strop_serial_finish();
    while ((USART_STATUS & SENT) == 0) {
    }
    strop_system_reset();
}

#endif
