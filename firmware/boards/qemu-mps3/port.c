/*
 * Arm's MPS3 FPGA board with image AN547 as QEMU models it: CMSDK UART 0 and the system counter of SSE-300.
 * Sources: QEMU 7.2 hw/arm/mps2-tz.c (addresses, clock), hw/arm/armsse.c (counter), hw/char/cmsdk-apb-uart.c,
 * hw/timer/sse-counter.c; Cortex-M System Design Kit reference manual, Arm DDI 0479, chapter 4.3; SSE-300 reference
 * manual, Arm 101773, system counter.
 */
#include "port.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA      REGISTER(STROP_UART_BASE + 0x00)
#define UART_STATE     REGISTER(STROP_UART_BASE + 0x04)
#define UART_CONTROL   REGISTER(STROP_UART_BASE + 0x08)
#define UART_INTERRUPT REGISTER(STROP_UART_BASE + 0x0C)       /* write 1 to clear */
#define UART_DIVIDER   REGISTER(STROP_UART_BASE + 0x10)
enum { TRANSMIT_FULL = 1, RECEIVE_FULL = 2 };                 /* bits of UART_STATE */
enum { TRANSMIT_ENABLE = 1, RECEIVE_ENABLE = 2, RECEIVE_INTERRUPT_ENABLE = 8 }; /* bits of UART_CONTROL */
enum { RECEIVE_INTERRUPT = 2 };                               /* bit of UART_INTERRUPT */

#define NVIC_ENABLE REGISTER(0xE000E104)                      /* Armv8-M D1.2.188: interrupts 32 to 63 */
#define NVIC_CLEAR  REGISTER(0xE000E284)
enum { UART_IRQ = 1U << (33 - 32) };                          /* receive interrupt of UART 0 */

#define COUNTER_CONTROL REGISTER(0x58100000)
#define COUNTER_LOW     REGISTER(0x58100008)                  /* counts up at the board's clock */
#define COUNTER_HIGH    REGISTER(0x5810000C)
enum { COUNTER_ENABLE = 1 };
/* 32 MHz, 1 ns an instruction (-icount shift=0): 31.25 instructions a tick */
enum { QUARTERS_PER_TICK = 125 };

#define AIRCR REGISTER(0xE000ED0C)                            /* Armv8-M D1.2.3 */
#define AIRCR_SYSTEM_RESET 0x05FA0004

/* The interrupt is never taken: enabled in the NVIC but masked in the core, it only wakes the core from wfi. */
void strop_port_init(void) {
    UART_DIVIDER = STROP_CLOCK_HZ / STROP_UART_BAUD;
    UART_CONTROL = TRANSMIT_ENABLE | RECEIVE_ENABLE | RECEIVE_INTERRUPT_ENABLE;
    __asm__ volatile("cpsid i");
    NVIC_ENABLE = UART_IRQ;
    COUNTER_CONTROL = COUNTER_ENABLE;
}

/*
 * The UART holds one byte, so one is what there is. Clearing the interrupt before looking at the state again keeps a
 * byte that arrives in between from being slept over.
 */
size_t strop_port_read(uint8_t *buf, size_t n) {
    (void)n;
    while ((UART_STATE & RECEIVE_FULL) == 0) {
        __asm__ volatile("wfi");
        UART_INTERRUPT = RECEIVE_INTERRUPT;
        NVIC_CLEAR = UART_IRQ;
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

/*
 * A tick is 31.25 instructions, too coarse for a kernel. So count the instructions up to the next tick in a loop of
 * four: that tick's time less what was waited. Good to four instructions either way.
 */
uint64_t strop_port_counter(void) {
    const uint32_t first = COUNTER_LOW;
    uint32_t waited = 0, now;
    __asm__ volatile("1: adds %0, #4\n\tldr %1, [%2]\n\tcmp %1, %3\n\tbeq 1b"
                     : "+&l"(waited), "=&l"(now)
                     : "l"(&COUNTER_LOW), "l"(first)
                     : "cc");
    const uint32_t high = COUNTER_HIGH; /* a carry between the two reads would need a tick of its own */
    return ((uint64_t)high << 32 | now) * QUARTERS_PER_TICK / 4 - waited;
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none; QEMU quits on it when started with -no-reboot */
    AIRCR = AIRCR_SYSTEM_RESET;
    for (;;) {
    }
}
