/*
 * Arm's MPS3 FPGA board with image AN547 as QEMU models it: CMSDK UART 0 and the system counter of SSE-300.
 * Sources: QEMU 7.2 hw/arm/mps2-tz.c (addresses, clock), hw/arm/armsse.c (counter), hw/timer/sse-counter.c; SSE-300
 * reference manual, Arm 101773, system counter.
 */
enum { UART_IRQ = 33 };                                       /* receive interrupt of UART 0 */

#include "cmsdk.h"

#define COUNTER_CONTROL REGISTER(0x58100000)
#define COUNTER_LOW     REGISTER(0x58100008)                  /* counts up at the board's clock */
#define COUNTER_HIGH    REGISTER(0x5810000C)
enum { COUNTER_ENABLE = 1 };
/* 32 MHz, 1 ns an instruction (-icount shift=0): 31.25 instructions a tick */
enum { QUARTERS_PER_TICK = 125 };

void strop_port_init(void) {
    cmsdk_start();
    COUNTER_CONTROL = COUNTER_ENABLE;
}

/*
 * A tick is 31.25 instructions, too coarse for a kernel. So count the instructions up to the next tick in a loop of
 * four: that tick's time less what was waited. Good to four instructions either way.
 */
uint64_t strop_port_counter(void) {
    uint32_t waited;
    const uint32_t now = next_tick(&COUNTER_LOW, &waited);
    const uint32_t high = COUNTER_HIGH; /* a carry between the two reads would need a tick of its own */
    return ((uint64_t)high << 32 | now) * QUARTERS_PER_TICK / 4 - waited;
}
