/*
 * Start here for a new board: copy this file to firmware/boards/<board>/port.c, describe the board in
 * targets/boards/<board>.toml, and fill in the five places. port.h says what each function promises.
 */
#include "port.h"

/* 1. Clock tree, pins, UART at STROP_UART_BAUD, 8 data bits, no parity, 1 stop bit; start the counter. */
void strop_port_init(void) {
}

/* 2. Sleep (wfi, wfe) while nothing has arrived. A port that can lose bytes while the model computes needs a buffer
 *    filled by DMA or an interrupt, and states its size as `window` in the board's description. */
size_t strop_port_read(uint8_t *buf, size_t n) {
    (void)buf;
    (void)n;
    return 0;
}

/* 3. Blocking; bytes leave in order. */
void strop_port_write(const uint8_t *buf, size_t n) {
    (void)buf;
    (void)n;
}

/* 4. Cycles or instructions, extended to 64 bits: minstret or mcycle on RISC-V, DWT CYCCNT or SysTick on Cortex-M.
 *    Return 0 if the core has none; costs are then unknown, everything else works. */
uint64_t strop_port_counter(void) {
    return 0;
}

/* 5. Whatever resets the core. */
_Noreturn void strop_port_exit(int status) {
    (void)status;
    for (;;) {
    }
}
