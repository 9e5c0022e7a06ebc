/*
 * Arm's MPS2 FPGA board as QEMU models it (AN385, AN386, AN500): CMSDK UART 0 and CMSDK timer 0.
 * Sources: QEMU 7.2 hw/arm/mps2.c (addresses, clock), hw/char/cmsdk-apb-uart.c, hw/timer/cmsdk-apb-timer.c;
 * Cortex-M System Design Kit reference manual, Arm DDI 0479, chapters 4.2 and 4.3.
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

#define NVIC_ENABLE REGISTER(0xE000E100)                      /* Armv7-M B3.4.4 */
#define NVIC_CLEAR  REGISTER(0xE000E280)                      /* Armv7-M B3.4.7 */
enum { UART_IRQ = 1 };                                        /* bit of interrupt 0 */

#define TIMER_BASE    0x40000000
#define TIMER_CONTROL REGISTER(TIMER_BASE + 0)
#define TIMER_VALUE   REGISTER(TIMER_BASE + 4)                /* counts down at the board's clock */
#define TIMER_RELOAD  REGISTER(TIMER_BASE + 8)
enum { INSTRUCTIONS_PER_TICK = 40 };                          /* 25 MHz, 1 ns an instruction (-icount shift=0) */

#define AIRCR REGISTER(0xE000ED0C)                            /* Armv7-M B3.2.6 */
#define AIRCR_SYSTEM_RESET 0x05FA0004

/* The interrupt is never taken: enabled in the NVIC but masked in the core, it only wakes the core from wfi. */
void strop_port_init(void) {
    UART_DIVIDER = STROP_CLOCK_HZ / STROP_UART_BAUD;
    UART_CONTROL = TRANSMIT_ENABLE | RECEIVE_ENABLE | RECEIVE_INTERRUPT_ENABLE;
    __asm__ volatile("cpsid i");
    NVIC_ENABLE = UART_IRQ;
    TIMER_RELOAD = UINT32_MAX;
    TIMER_VALUE = UINT32_MAX;
    TIMER_CONTROL = 1;
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
 * A tick is 40 instructions, too coarse for a kernel. So count the instructions up to the next tick in a loop of
 * four, and restart the timer, whose ticks are then in step with this function: the difference of two calls depends
 * on the instructions between them only, is a multiple of four, and repeats. Wraps unseen after 171 G instructions.
 */
uint64_t strop_port_counter(void) {
    static uint64_t total;
    const uint32_t first = TIMER_VALUE;
    uint32_t waited = 0, now;
    __asm__ volatile("1: adds %0, #4\n\tldr %1, [%2]\n\tcmp %1, %3\n\tbeq 1b"
                     : "+&l"(waited), "=&l"(now)
                     : "l"(&TIMER_VALUE), "l"(first)
                     : "cc");
    total += (uint64_t)(UINT32_MAX - now) * INSTRUCTIONS_PER_TICK - waited;
    TIMER_VALUE = UINT32_MAX;
    return total;
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none; QEMU quits on it when started with -no-reboot */
    AIRCR = AIRCR_SYSTEM_RESET;
    for (;;) {
    }
}
