/*
 * Start here for a new board: copy this file to firmware/boards/<board>/port.c, describe the board in
 * targets/boards/<board>.toml, and fill in the five places. port.h says what each function promises; core.h, serial.h
 * and systick.h have what most ports share, and boards/stm32 is a port of three families that is mostly that. A chip of
 * a known family needs no port: its TOML file names the family's.
 *
 * What differs between boards comes from the description: STROP_CLOCK_HZ, STROP_UART_BASE, STROP_UART_BAUD, and a macro
 * STROP_<NAME> for every entry of [constants], STROP_UART_IRQ and the numbers of pins for example.
 *
 * This is a UART, with rings of `window` and `backlog` bytes that wait while the model computes. A line that makes the
 * PC wait instead (USB) says window = 0xFFFF_FFFF, takes no serial.h, and has strop_port_read and _write of its own.
 */
#include "serial.h"

/* 1. The UART's data, flags and two interrupts: what serial.h asks of these functions stands there. */
static int uart_take(uint8_t *byte) {
    *byte = 0;
    return 1;
}

static int uart_has_room(void) {
    return 1;
}

static void uart_send(uint8_t byte) {
    (void)byte;
}

static void uart_receive_interrupt(int on) {
    (void)on;
}

static void uart_room_interrupt(int on) {
    (void)on;
}

/*
 * 2. Clock tree, pins, UART at STROP_UART_BAUD with 8 data bits, no parity and 1 stop bit; start the counter; switch
 *    the receive interrupt on, last. Every wait for a clock needs a bound, and a way to go on, if the program is to run
 *    in an emulator as well, which may not have that clock: strop_wait_for.
 */
void strop_port_init(void) {
}

/*
 * 3. The UART's interrupt. A Cortex-M calls it for every interrupt of the chip if the description has [constants]
 *    interrupts = <how many the chip has>. On RISC-V write `STROP_HANDLER void strop_interrupt(void);`, begin with
 *    strop_interrupts_only() and pass it to strop_interrupts_to(). No floats here.
 */
void strop_interrupt(void);
void strop_interrupt(void) {
    strop_serial_interrupt();
}

/* 4. Cycles or instructions since reset, in 64 bits: strop_cycles() on RISC-V, systick_cycles() of systick.h on
 *    Cortex-M, strop_widened() of any 32-bit timer. Return 0 if there is none: only costs are then unknown. */
uint64_t strop_port_counter(void) {
    return 0;
}

/* 5. Let the last byte leave the UART too, then do whatever resets the chip: strop_system_reset() on a Cortex-M. */
_Noreturn void strop_port_exit(int status) {
    (void)status;
    strop_serial_finish();
    for (;;) {
    }
}
