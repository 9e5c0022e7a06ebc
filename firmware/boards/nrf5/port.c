/*
 * Nordic nRF51 and nRF52: UART0 with its interrupt, on the 16 or 64 MHz that the crystal gives.
 * Sources: nRF51 Series Reference Manual v3.0 and nRF52840 Product Specification v1.7 (CLOCK, GPIO, NVMC, TIMER, UART),
 * where the same registers lie at the same places.
 */
#include "serial.h"
#include "mapped_store.h"

#define CLOCK_START_CRYSTAL   REGISTER(0x40000000)
#define CLOCK_CRYSTAL_STARTED REGISTER(0x40000100)
enum { CRYSTAL_TURNS = 64000 }; /* it starts within 0.8 ms (nRF51822 specification), 51200 cycles at 64 MHz */

#define UART_START_RECEIVER    REGISTER(STROP_UART_BASE + 0x000)
#define UART_START_TRANSMITTER REGISTER(STROP_UART_BASE + 0x008)
#define UART_HAS_RECEIVED      REGISTER(STROP_UART_BASE + 0x108)
#define UART_HAS_SENT          REGISTER(STROP_UART_BASE + 0x11C)
#define UART_INTERRUPT_ON      REGISTER(STROP_UART_BASE + 0x304)
#define UART_INTERRUPT_OFF     REGISTER(STROP_UART_BASE + 0x308)
#define UART_ENABLE            REGISTER(STROP_UART_BASE + 0x500)
#define UART_TRANSMIT_PIN      REGISTER(STROP_UART_BASE + 0x50C)
#define UART_RECEIVE_PIN       REGISTER(STROP_UART_BASE + 0x514)
#define UART_RECEIVED          REGISTER(STROP_UART_BASE + 0x518)
#define UART_TRANSMIT          REGISTER(STROP_UART_BASE + 0x51C)
#define UART_RATE              REGISTER(STROP_UART_BASE + 0x524)
enum { RECEIVED_INTERRUPT = 1 << 2, SENT_INTERRUPT = 1 << 7, UART_ON = 4 };
/* The rate is baud * 2^32 / 16 MHz; Nordic's table of rates has 20 bits of it. */
#define RATE ((uint32_t)((((uint64_t)STROP_UART_BAUD << 32) / 16000000U + 0x800U) & 0xFFFFF000U))

#define GPIO_OUT_SET  REGISTER(0x50000508)
#define GPIO_PIN(pin) REGISTER(0x50000700 + 4 * (pin))
enum { OUTPUT = 3, PULLED_UP_INPUT = 0xC };

#define FLASH_READY REGISTER(0x4001E400)
#define FLASH_MODE  REGISTER(0x4001E504)
#define FLASH_ERASE REGISTER(0x4001E508) /* an address in the page */
enum { MODE_READ, MODE_WRITE, MODE_ERASE };

#if __ARM_ARCH >= 7
#include "systick.h"

static void start_counter(void) {
    systick_start();
}

uint64_t strop_port_counter(void) {
    return systick_cycles();
}
#else /* a Cortex-M0 without SysTick: timer 0, 32 bits at the core's 16 MHz, wraps unseen after 268 s without a call */
#define TIMER_START    REGISTER(0x40008000)
#define TIMER_CAPTURE  REGISTER(0x40008040)
#define TIMER_WIDTH    REGISTER(0x40008508)
#define TIMER_PRESCALE REGISTER(0x40008510)
#define TIMER_CAPTURED REGISTER(0x40008540)
enum { WIDTH_32 = 3 };

static void start_counter(void) {
    TIMER_WIDTH = WIDTH_32;
    TIMER_PRESCALE = 0;
    TIMER_START = 1;
}

uint64_t strop_port_counter(void) {
    TIMER_CAPTURE = 1;
    return strop_widened(TIMER_CAPTURED);
}
#endif

/* The event is cleared before the byte is taken: with another one behind it, it is set again. */
static int uart_take(uint8_t *byte) {
    if (UART_HAS_RECEIVED == 0) {
        return 0;
    }
    UART_HAS_RECEIVED = 0;
    *byte = (uint8_t)UART_RECEIVED;
    return 1;
}

static uint8_t under_way; /* a byte was given to the UART, whose event tells when it has left */

static int uart_has_room(void) {
    return !under_way || UART_HAS_SENT != 0;
}

static void uart_send(uint8_t byte) {
    under_way = 1;
    UART_HAS_SENT = 0;
    UART_TRANSMIT = byte;
}

static void uart_switch(uint32_t interrupt, int on) {
    *(on ? &UART_INTERRUPT_ON : &UART_INTERRUPT_OFF) = interrupt;
}

static void uart_receive_interrupt(int on) {
    uart_switch(RECEIVED_INTERRUPT, on);
}

static void uart_room_interrupt(int on) {
    uart_switch(SENT_INTERRUPT, on);
}

void strop_interrupt(void);
void strop_interrupt(void) {
    strop_serial_interrupt();
}

void strop_port_init(void) {
    CLOCK_START_CRYSTAL = 1; /* without it the RC oscillator goes on, which is less exact than UARTs like */
    (void)strop_wait_for(&CLOCK_CRYSTAL_STARTED, 1, CRYSTAL_TURNS);
    GPIO_OUT_SET = 1U << STROP_UART_TX_PIN; /* the line's idle level, before it is an output */
    GPIO_PIN(STROP_UART_TX_PIN) = OUTPUT;
    GPIO_PIN(STROP_UART_RX_PIN) = PULLED_UP_INPUT;
    UART_TRANSMIT_PIN = STROP_UART_TX_PIN;
    UART_RECEIVE_PIN = STROP_UART_RX_PIN;
    UART_RATE = RATE;
    UART_ENABLE = UART_ON;
    UART_INTERRUPT_ON = RECEIVED_INTERRUPT;
    UART_START_TRANSMITTER = 1;
    UART_START_RECEIVER = 1;
    start_counter();
    strop_interrupt_on(STROP_UART_IRQ);
    strop_interrupts_on();
}

static void wait_for_flash(void) {
    while (FLASH_READY == 0) {
    }
}

int strop_port_store_erase(uint32_t offset) {
    FLASH_MODE = MODE_ERASE;
    FLASH_ERASE = STROP_STORE_ORIGIN + offset;
    wait_for_flash();
    FLASH_MODE = MODE_READ;
    return strop_store_is_used(offset);
}

int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    const uint32_t *from = data;
    int failed = 0;
    for (uint32_t i = 0; i < n / 4; i++) {
        volatile uint32_t *const word = &REGISTER(STROP_STORE_ORIGIN + offset + 4 * i);
        FLASH_MODE = MODE_WRITE;
        *word = from[i];
        wait_for_flash();
        FLASH_MODE = MODE_READ;
        failed |= *word != from[i];
    }
    return failed;
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none; QEMU quits on it when started with -no-reboot */
    strop_serial_finish();
    while (!uart_has_room()) { /* until the last byte has left */
    }
    strop_system_reset();
}
