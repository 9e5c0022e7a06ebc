/*
 * Arm's MPS2 FPGA board as QEMU models it (AN385, AN386, AN500): CMSDK UART 0 and CMSDK timer 0.
 * Sources: QEMU 7.2 hw/arm/mps2.c (addresses, clock), hw/timer/cmsdk-apb-timer.c; Cortex-M System Design Kit reference
 * manual, Arm DDI 0479, chapter 4.2.
 */
enum { UART_IRQ = 0 };                                        /* receive interrupt of UART 0 */

#include "cmsdk.h"

#define TIMER_BASE    0x40000000
#define TIMER_CONTROL REGISTER(TIMER_BASE + 0)
#define TIMER_VALUE   REGISTER(TIMER_BASE + 4)                /* counts down at the board's clock */
#define TIMER_RELOAD  REGISTER(TIMER_BASE + 8)
enum { INSTRUCTIONS_PER_TICK = 40 };                          /* 25 MHz, 1 ns an instruction (-icount shift=0) */

void strop_port_init(void) {
    cmsdk_start();
    TIMER_RELOAD = UINT32_MAX;
    TIMER_VALUE = UINT32_MAX;
    TIMER_CONTROL = 1;
}

/*
 * A tick is 40 instructions, too coarse for a kernel. So count the instructions up to the next tick in a loop of
 * four, and restart the timer, whose ticks are then in step with this function: the difference of two calls depends
 * on the instructions between them only, is a multiple of four, and repeats. Wraps unseen after 171 G instructions.
 */
uint64_t strop_port_counter(void) {
    static uint64_t total;
    uint32_t waited;
    const uint32_t now = next_tick(&TIMER_VALUE, &waited);
    total += (uint64_t)(UINT32_MAX - now) * INSTRUCTIONS_PER_TICK - waited;
    TIMER_VALUE = UINT32_MAX;
    return total;
}
