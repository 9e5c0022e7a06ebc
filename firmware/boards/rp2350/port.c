/*
 * Raspberry Pi RP2350, on its Cortex-M33 or its Hazard3 core: UART0 with its interrupt, 150 MHz from the crystal.
 * Source: RP2350 Datasheet (Hazard3, minimum viable image metadata, power-on state machine, resets, clocks, XOSC, PLL,
 * GPIO, UART, watchdog).
 */
#include "serial.h"
#include "flash.h"

/* What the boot ROM looks for in the first 4 KB. Without an item that names an entry point, it starts the program at
 * its vector table, or on RISC-V at its first address. */
#if defined(__riscv)
#define EXECUTABLE 0x11010142U
#else
#define EXECUTABLE 0x10210142U /* a secure one */
#endif
extern const uint32_t strop_image_definition[5];
__attribute__((section(".image_definition"), used)) const uint32_t strop_image_definition[5] = {
    0xFFFFDED3U, EXECUTABLE, 0x000001FFU, 0, 0xAB123579U,
};

#define RESETS      0x40020000
#define RESET_CLEAR REGISTER(RESETS + 0x3000) /* writing here clears bits */
#define RESET_DONE  REGISTER(RESETS + 0x08)
enum { RESET_PINS = 1 << 6, RESET_PADS = 1 << 9, RESET_PLL = 1 << 14, RESET_UART0 = 1 << 26 };

#define CRYSTAL_CONTROL REGISTER(0x40048000)
#define CRYSTAL_STATUS  REGISTER(0x40048004)
#define CRYSTAL_STARTUP REGISTER(0x4004800C)
#define CRYSTAL_ON      0xFABAA0U
#define CRYSTAL_STABLE  0x80000000U
enum { STARTUP_1_MS = 47 }; /* units of 256 cycles at 12 MHz */

#define PLL_STATUS      REGISTER(0x40050000)
#define PLL_POWER_CLEAR REGISTER(0x40053004)
#define PLL_FEEDBACK    REGISTER(0x40050008)
#define PLL_DIVIDERS    REGISTER(0x4005000C)
#define PLL_LOCKED      0x80000000U
enum { TIMES_125 = 125, BY_5_AND_2 = 5 << 16 | 2 << 12, PLL_AND_VCO = 0x21, OUTPUT_DIVIDERS = 0x08 };

#define CLOCK_REFERENCE          REGISTER(0x40010030)
#define CLOCK_REFERENCE_SELECTED REGISTER(0x40010038)
#define CLOCK_SYSTEM             REGISTER(0x4001003C)
#define CLOCK_SYSTEM_SELECTED    REGISTER(0x40010044)
#define CLOCK_PERIPHERALS        REGISTER(0x40010048)
enum { FROM_CRYSTAL = 2, CRYSTAL_SELECTED = 1 << 2, FROM_PLL = 1, PLL_SELECTED = 1 << 1, PERIPHERALS_ON = 1 << 11 };

#define PIN_FUNCTION(pin) REGISTER(0x40028004 + 8 * (pin))
#define PAD(pin)          REGISTER(0x40038004 + 4 * (pin))
enum { UART_FUNCTION = 2, PAD_OUTPUT = 0x52, PAD_PULLED_UP_INPUT = 0xCA }; /* no longer isolated, input on */
enum { TRANSMIT_PIN = 0, RECEIVE_PIN = 1 };

#define UART_DATA      REGISTER(STROP_UART_BASE + 0x00)
#define UART_STATUS    REGISTER(STROP_UART_BASE + 0x18)
#define UART_DIVIDER   REGISTER(STROP_UART_BASE + 0x24)
#define UART_FRACTION  REGISTER(STROP_UART_BASE + 0x28)
#define UART_FORMAT    REGISTER(STROP_UART_BASE + 0x2C)
#define UART_CONTROL   REGISTER(STROP_UART_BASE + 0x30)
#define UART_INTERRUPT_SET   REGISTER(STROP_UART_BASE + 0x2038) /* writing to these sets and clears bits */
#define UART_INTERRUPT_CLEAR REGISTER(STROP_UART_BASE + 0x3038)
enum { SENDING = 0x08, RECEIVE_EMPTY = 0x10, TRANSMIT_FULL = 0x20 }; /* of UART_STATUS */
enum { EIGHT_BITS_AND_FIFOS = 0x70, UART_ON = 0x301 };
/* Of both: the receive FIFO's level is reached, or time is up; the transmit FIFO's level is. */
enum { RECEIVED_OR_SILENT = 0x50, HALF_SENT = 0x20 };

#define RESET_SCOPE     REGISTER(0x40018008)
#define WATCHDOG        REGISTER(0x400D8000)
#define ALL_BUT_CLOCKS  0x01FFFFF3U
#define WATCHDOG_RESETS 0x80000000U

static int uart_take(uint8_t *byte) {
    if ((UART_STATUS & RECEIVE_EMPTY) != 0) {
        return 0;
    }
    *byte = (uint8_t)UART_DATA;
    return 1;
}

static int uart_has_room(void) {
    return (UART_STATUS & TRANSMIT_FULL) == 0;
}

static void uart_send(uint8_t byte) {
    UART_DATA = byte;
}

static void uart_switch(uint32_t interrupt, int on) {
    *(on ? &UART_INTERRUPT_SET : &UART_INTERRUPT_CLEAR) = interrupt;
}

static void uart_receive_interrupt(int on) {
    uart_switch(RECEIVED_OR_SILENT, on);
}

/* It comes as the FIFO falls to half of its 32 bytes, which it was above: bytes still wait only because it was full. */
static void uart_room_interrupt(int on) {
    uart_switch(HALF_SENT, on);
}

#if defined(__riscv)
STROP_HANDLER void strop_interrupt(void);
void strop_interrupt(void) {
    strop_interrupts_only();
    strop_serial_interrupt();
}

/* CSR meiea: a window of 16 interrupts, and which of them to enable. The counters start out stopped. */
static void start_core(void) {
    const uint32_t enable = 1U << (16 + STROP_UART_IRQ % 16) | STROP_UART_IRQ / 16;
    __asm__ volatile("csrs 0xbe0, %0\n\tcsrw mcountinhibit, zero" : : "r"(enable));
    strop_interrupts_to(strop_interrupt);
}

uint64_t strop_port_counter(void) {
    return strop_cycles();
}
#else
#include "systick.h"

void strop_interrupt(void);
void strop_interrupt(void) {
    strop_serial_interrupt();
}

static void start_core(void) {
    systick_start();
    strop_interrupt_on(STROP_UART_IRQ);
    strop_interrupts_on();
}

uint64_t strop_port_counter(void) {
    return systick_cycles();
}
#endif

static void leave_reset(uint32_t blocks) {
    RESET_CLEAR = blocks;
    while ((RESET_DONE & blocks) != blocks) {
    }
}

/* 12 MHz * 125 / 5 / 2 = 150 MHz. Nothing but the crystal gives a rate that a UART can use, so this waits for it. */
static void start_clock(void) {
    CRYSTAL_STARTUP = STARTUP_1_MS;
    CRYSTAL_CONTROL = CRYSTAL_ON;
    while ((CRYSTAL_STATUS & CRYSTAL_STABLE) == 0) {
    }
    CLOCK_REFERENCE = FROM_CRYSTAL;
    while ((CLOCK_REFERENCE_SELECTED & CRYSTAL_SELECTED) == 0) {
    }
    CLOCK_SYSTEM = 0; /* from the reference, and the PLL as its other source */
    leave_reset(RESET_PLL);
    PLL_STATUS = 1; /* reference divider */
    PLL_FEEDBACK = TIMES_125;
    PLL_POWER_CLEAR = PLL_AND_VCO;
    while ((PLL_STATUS & PLL_LOCKED) == 0) {
    }
    PLL_DIVIDERS = BY_5_AND_2;
    PLL_POWER_CLEAR = OUTPUT_DIVIDERS;
    CLOCK_SYSTEM = FROM_PLL;
    while ((CLOCK_SYSTEM_SELECTED & PLL_SELECTED) == 0) {
    }
    CLOCK_PERIPHERALS = PERIPHERALS_ON;
}

void strop_port_init(void) {
    start_clock();
    leave_reset(RESET_PINS | RESET_PADS | RESET_UART0);
    const uint32_t divider = (8 * STROP_CLOCK_HZ / STROP_UART_BAUD + 1) / 2; /* in units of 1/64 */
    UART_DIVIDER = divider / 64;
    UART_FRACTION = divider % 64;
    UART_FORMAT = EIGHT_BITS_AND_FIFOS; /* the divider takes effect with this write */
    UART_CONTROL = UART_ON;
    PIN_FUNCTION(TRANSMIT_PIN) = UART_FUNCTION;
    PIN_FUNCTION(RECEIVE_PIN) = UART_FUNCTION;
    PAD(TRANSMIT_PIN) = PAD_OUTPUT;
    PAD(RECEIVE_PIN) = PAD_PULLED_UP_INPUT;
    uart_receive_interrupt(1);
    start_core();
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none */
    strop_serial_finish();
    while ((UART_STATUS & SENDING) != 0) {
    }
    RESET_SCOPE = ALL_BUT_CLOCKS;
    WATCHDOG = WATCHDOG_RESETS;
    for (;;) {
    }
}
