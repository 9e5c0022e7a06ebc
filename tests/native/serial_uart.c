/* firmware/serial.h on a UART of four bytes each way whose clock is turned by whoever looks at it, for test_serial.py.
 * Its interrupt comes, as on a chip, at any look at a register or change of the mask that leaves it open. */
#define STROP_CORE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FIFO = 4 };

static int masked, receive_on, room_on, serving, interrupts;
static uint8_t line[1 << 16], out_fifo[FIFO], in[1 << 16];
static uint32_t line_bytes, out_bytes, in_bytes, in_taken, turns, period, overruns;

static void strop_serial_interrupt(void);

static void look(void) { /* one byte leaves every `period` looks; 0: the line stands still */
    if (period != 0 && ++turns % period == 0 && out_bytes != 0) {
        line[line_bytes++] = out_fifo[0];
        memmove(out_fifo, out_fifo + 1, --out_bytes);
    }
    const int wanted = (receive_on && in_taken < in_bytes) || (room_on && out_bytes < FIFO);
    if (!masked && !serving && wanted) {
        serving = 1;
        interrupts++;
        strop_serial_interrupt();
        serving = 0;
    }
}

static inline void strop_interrupts_on(void) {
    masked = 0;
    look();
}

static inline void strop_interrupts_off(void) { masked = 1; }

static inline uint32_t strop_interrupts_pause(void) {
    const int was = masked;
    masked = 1;
    return (uint32_t)was;
}

static inline void strop_interrupts_resume(uint32_t state) {
    masked = (int)state;
    look();
}

static inline void strop_sleep(void) { look(); }

#include "serial.h"

static int uart_take(uint8_t *byte) {
    if (in_taken == in_bytes) {
        return 0;
    }
    *byte = in[in_taken++];
    return 1;
}

static int uart_has_room(void) {
    look();
    return out_bytes < FIFO;
}

static void uart_send(uint8_t byte) {
    overruns += out_bytes == FIFO;
    out_fifo[out_bytes++ % FIFO] = byte;
}

static void uart_receive_interrupt(int on) { receive_on = on; }

static void uart_room_interrupt(int on) { room_on = on; }

void serial_new(uint32_t looks_a_byte);
void serial_new(uint32_t looks_a_byte) {
    masked = room_on = serving = interrupts = 0;
    line_bytes = out_bytes = in_bytes = in_taken = turns = overruns = 0;
    received.in = received.out = sending.in = sending.out = 0;
    receive_on = 1;
    period = looks_a_byte;
}

void serial_mask(int off);
void serial_mask(int off) { masked = off; }

/* The model computes: nobody but the interrupt looks at the UART. */
void serial_compute(uint32_t looks);
void serial_compute(uint32_t looks) {
    while (looks-- != 0) {
        look();
    }
}

/* The UART has all these bytes, in any number; a real one would have lost those beyond its FIFO. */
void serial_arrive(const uint8_t *bytes, uint32_t n);
void serial_arrive(const uint8_t *bytes, uint32_t n) {
    memcpy(in + in_bytes, bytes, n);
    in_bytes += n;
    look();
}

void serial_finish(void);
void serial_finish(void) { strop_serial_finish(); }

uint32_t serial_line(uint8_t *bytes);
uint32_t serial_line(uint8_t *bytes) {
    memcpy(bytes, line, line_bytes);
    return line_bytes;
}

/* Bytes in the ring, in the UART; interrupts taken; whether the UART would ask for one for room; bytes overwritten. */
void serial_state(uint32_t *state);
void serial_state(uint32_t *state) {
    state[0] = sending.in - sending.out;
    state[1] = out_bytes;
    state[2] = (uint32_t)interrupts;
    state[3] = (uint32_t)room_on;
    state[4] = overruns;
}
