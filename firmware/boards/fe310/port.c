/*
 * SiFive FE310: UART0 with its interrupt, on the 16 MHz crystal.
 * Sources: FE310-G000 Manual v3p2 (PRCI, PLIC, watchdog, GPIO, UART); RISC-V semihosting
 * specification 0.2.
 */
#include "serial.h"
#include "flash.h"

#define CRYSTAL    REGISTER(0x10008004)
#define PLL        REGISTER(0x10008008)
#define PLL_OUTPUT REGISTER(0x1000800C)
#define CRYSTAL_ON    0x40000000U
#define CRYSTAL_READY 0x80000000U
enum { PLL_SELECT = 1 << 16, FROM_CRYSTAL = 1 << 17, PLL_BYPASS = 1 << 18, UNDIVIDED = 1 << 8 };
enum { CRYSTAL_TURNS = 1000000 }; /* it starts within milliseconds; the boot loader may run at up to 320 MHz */

#define UART_TRANSMIT         REGISTER(STROP_UART_BASE + 0x00)
#define UART_RECEIVED         REGISTER(STROP_UART_BASE + 0x04)
#define UART_TRANSMIT_CONTROL REGISTER(STROP_UART_BASE + 0x08)
#define UART_RECEIVE_CONTROL  REGISTER(STROP_UART_BASE + 0x0C)
#define UART_INTERRUPT        REGISTER(STROP_UART_BASE + 0x10)
#define UART_DIVIDER          REGISTER(STROP_UART_BASE + 0x18)
#define FULL_OR_EMPTY 0x80000000U /* of UART_TRANSMIT, of UART_RECEIVED */
enum { UART_ON = 1, FEWER_THAN_4 = 4 << 16 };              /* the level, of eight bytes, of the interrupt for room */
enum { ROOM_INTERRUPT = 1, RECEIVE_INTERRUPT = 2 };

#define GPIO_FUNCTION        REGISTER(0x10012038)
#define GPIO_FUNCTION_SELECT REGISTER(0x1001203C)
enum { UART0_PINS = 3 << 16 };

#define PLIC 0x0C000000
#define PLIC_PRIORITY  REGISTER(PLIC + 4 * STROP_UART_IRQ)
#define PLIC_ENABLE    REGISTER(PLIC + 0x2000)
#define PLIC_THRESHOLD REGISTER(PLIC + 0x200000)
#define PLIC_CLAIM     REGISTER(PLIC + 0x200004)

#define WATCHDOG_CONFIG  REGISTER(0x10000000)
#define WATCHDOG_KEY     REGISTER(0x1000001C)
#define WATCHDOG_COMPARE REGISTER(0x10000020)
enum { UNLOCK = 0x51F15E, RESET_ALWAYS = 0x1100 };
enum { LINGER = 8000000 }; /* cycles: half a second for the last bytes to leave, and for the PC to take an emulator's */

static int uart_take(uint8_t *byte) {
    const uint32_t word = UART_RECEIVED;
    *byte = (uint8_t)word;
    return (word & FULL_OR_EMPTY) == 0;
}

static int uart_has_room(void) {
    return (UART_TRANSMIT & FULL_OR_EMPTY) == 0;
}

static void uart_send(uint8_t byte) {
    UART_TRANSMIT = byte;
}

static void uart_switch(uint32_t interrupt, int on) {
    UART_INTERRUPT = on ? UART_INTERRUPT | interrupt : UART_INTERRUPT & ~interrupt;
}

static void uart_receive_interrupt(int on) {
    uart_switch(RECEIVE_INTERRUPT, on);
}

static void uart_room_interrupt(int on) {
    uart_switch(ROOM_INTERRUPT, on);
}

STROP_HANDLER void strop_interrupt(void);
void strop_interrupt(void) {
    strop_interrupts_only();
    const uint32_t claimed = PLIC_CLAIM;
    strop_serial_interrupt();
    PLIC_CLAIM = claimed;
}

static void start_clock(void) {
    CRYSTAL = CRYSTAL_ON;
    if (strop_wait_for(&CRYSTAL, CRYSTAL_READY, CRYSTAL_TURNS)) {
        PLL_OUTPUT = UNDIVIDED;
        PLL = FROM_CRYSTAL | PLL_BYPASS;
        PLL = FROM_CRYSTAL | PLL_BYPASS | PLL_SELECT;
    }
}

void strop_port_init(void) {
    start_clock();
    GPIO_FUNCTION_SELECT &= ~(uint32_t)UART0_PINS;
    GPIO_FUNCTION |= UART0_PINS;
    UART_DIVIDER = (STROP_CLOCK_HZ + STROP_UART_BAUD / 2) / STROP_UART_BAUD - 1;
    UART_TRANSMIT_CONTROL = UART_ON | FEWER_THAN_4;
    UART_RECEIVE_CONTROL = UART_ON; /* its interrupt: more than 0 bytes */
    UART_INTERRUPT = RECEIVE_INTERRUPT;
    PLIC_PRIORITY = 1;
    PLIC_ENABLE = 1U << STROP_UART_IRQ;
    PLIC_THRESHOLD = 0;
    strop_interrupts_to(strop_interrupt);
}

uint64_t strop_port_counter(void) {
    return strop_cycles();
}

/* An emulator, or a debugger, takes the breakpoint between two shifts for a call and ends the program with `status`.
 * On its own the chip gets stuck at the breakpoint, until the watchdog resets it some 30 us later. */
_Noreturn void strop_port_exit(int status) {
    strop_serial_finish();
    const uint64_t end = strop_cycles() + LINGER;
    while (strop_cycles() < end) {
    }
    WATCHDOG_KEY = UNLOCK;
    WATCHDOG_COMPARE = 0;
    WATCHDOG_KEY = UNLOCK;
    WATCHDOG_CONFIG = RESET_ALWAYS;
    const uint32_t reason[2] = {0x20026, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    register uint32_t operation __asm__("a0") = 0x20;      /* SYS_EXIT_EXTENDED */
    register const uint32_t *argument __asm__("a1") = reason;
    __asm__ volatile(".balign 4\n\t.option push\n\t.option norvc\n\t" /* from there to 16 fit whole nops */
                     "la t0, 1f\n\tcsrw mtvec, t0\n\t"
                     ".balign 16\n\tslli zero, zero, 0x1f\n\tebreak\n\tsrai zero, zero, 7\n"
                     "1:\tj 1b\n\t.option pop"
                     : "+r"(operation)
                     : "r"(argument)
                     : "t0", "memory");
    for (;;) {
    }
}
