/*
 * serial.h: a UART behind two rings that its interrupt fills and empties: strop_port_read and strop_port_write. For one
 * C file, a port.c, to include behind five functions of its own, which look at registers and never wait:
 */
#ifndef STROP_SERIAL_H
#define STROP_SERIAL_H

#include "port.h"
#include "ring.h"

/* Takes a received byte out of the UART, if there is one; returns whether. */
static int uart_take(uint8_t *byte);
/* Whether the UART takes a byte to send now; and gives it one, only then. */
static int uart_has_room(void);
static void uart_send(uint8_t byte);
/* Switches the UART's interrupts for a received byte, and for room to send. Called with interrupts off. */
static void uart_receive_interrupt(int on);
static void uart_room_interrupt(int on);

STROP_RING(received, STROP_WINDOW); /* wait here while the model computes */
STROP_RING(sending, STROP_BACKLOG); /* leave while the model computes */

/* Hands the UART what it takes of the bytes to send, and asks it for an interrupt when it takes more. It needs none of
 * its interrupts for that, so it may be called at any time with interrupts off. */
static void strop_serial_push(void) {
    if (strop_ring_is_empty(&sending)) {
        return;
    }
    while (!strop_ring_is_empty(&sending) && uart_has_room()) {
        uart_send(strop_ring_take(&sending));
    }
    uart_room_interrupt(!strop_ring_is_empty(&sending));
}

/* The work of the UART's interrupt. Bytes that find the ring full stay in the UART, and the interrupt off, until
 * strop_port_read has made room. */
static void strop_serial_interrupt(void) {
    uint8_t byte;
    int full;
    while (!(full = strop_ring_is_full(&received)) && uart_take(&byte)) {
        strop_ring_put(&received, byte);
    }
    if (full) {
        uart_receive_interrupt(0);
    }
    strop_serial_push();
}

/* An interrupt that comes between the look at the rings and the sleep is pending, which ends the sleep. No sleep before
 * all is sent: QEMU's nRF51 has no interrupt for a byte that had to wait for its reader. */
size_t strop_port_read(uint8_t *buf, size_t n) {
    strop_interrupts_off();
    while (strop_ring_is_empty(&received)) {
        if (strop_ring_is_empty(&sending)) {
            strop_sleep();
        }
        strop_serial_push();
        strop_interrupts_on();
        strop_interrupts_off();
    }
    strop_interrupts_on();
    size_t got = 0;
    while (got < n && !strop_ring_is_empty(&received)) {
        buf[got++] = strop_ring_take(&received);
    }
    strop_interrupts_off();
    uart_receive_interrupt(1);
    strop_interrupts_on();
    return got;
}

/* Leaves interrupts as they are, which a fault has switched off. */
static void strop_serial_hurry(void) {
    const uint32_t state = strop_interrupts_pause();
    strop_serial_push();
    strop_interrupts_resume(state);
}

/* A full ring is emptied from here: that goes on whatever the interrupts do. */
void strop_port_write(const uint8_t *buf, size_t n) {
    for (size_t i = 0; i < n; i++) {
        while (strop_ring_is_full(&sending)) {
            strop_serial_hurry();
        }
        strop_ring_put(&sending, buf[i]);
    }
    strop_serial_hurry();
}

/* Waits until the UART has the last byte. Interrupts stay off: the end is near. */
static void strop_serial_finish(void) {
    strop_interrupts_off();
    while (!strop_ring_is_empty(&sending)) {
        strop_serial_push();
    }
}

#endif
