/*
 * Espressif ESP32-C3: its USB Serial/JTAG controller as the serial line, on the 40 MHz crystal.
 * Source: ESP32-C3 Technical Reference Manual v1.1 (core, clocks, low power, watchdogs, USB).
 */
#include "port.h"
#include "core.h"
#include "flash.h"

/* Direct boot (esp32c3-direct-boot-example, Espressif): the flash begins with this number, twice, and goes on with the
 * program. The boot ROM then maps the flash and jumps behind the numbers. */
extern const uint32_t strop_direct_boot[2];
__attribute__((section(".image_head"), used)) const uint32_t strop_direct_boot[2] = {0xAEDB041DU, 0xAEDB041DU};

#define CLOCK_CONFIG REGISTER(0x600C0058)
enum { FROM_CRYSTAL_UNDIVIDED = 0 };

#define RTC_CONTROL         REGISTER(0x60008000)
#define RTC_WATCHDOG        REGISTER(0x60008090)
#define RTC_WATCHDOG_KEY    REGISTER(0x600080A8)
#define SUPER_WATCHDOG      REGISTER(0x600080AC)
#define SUPER_WATCHDOG_KEY  REGISTER(0x600080B0)
#define TIMER_WATCHDOG      REGISTER(0x6001F048)
#define TIMER_WATCHDOG_KEY  REGISTER(0x6001F064)
#define UNLOCK              0x50D83AA1U
#define UNLOCK_SUPER        0x8F1D312AU
#define FEEDS_ITSELF        0x80000000U
#define SYSTEM_RESET        0x80000000U

#define USB_DATA   REGISTER(STROP_UART_BASE + 0x00)
#define USB_STATUS REGISTER(STROP_UART_BASE + 0x04)
enum { SEND = 1, HAS_ROOM = 2, HAS_RECEIVED = 4 }; /* of USB_STATUS */
enum { PACKET = 64, PATIENCE = 4000000 };

/* Traps are vectored on this core, in a table of 256 bytes; no interrupt is ever enabled. */
_Noreturn void strop_trap(void);
__attribute__((naked, used, aligned(256))) static void trap_table(void) {
    __asm__ volatile("j strop_trap");
}

/* The boot ROM leaves its watchdogs running, to be stopped by a program that got this far. */
static void stop_watchdogs(void) {
    RTC_WATCHDOG_KEY = UNLOCK;
    RTC_WATCHDOG = 0;
    RTC_WATCHDOG_KEY = 0;
    TIMER_WATCHDOG_KEY = UNLOCK;
    TIMER_WATCHDOG = 0;
    TIMER_WATCHDOG_KEY = 0;
    SUPER_WATCHDOG_KEY = UNLOCK_SUPER;
    SUPER_WATCHDOG |= FEEDS_ITSELF;
    SUPER_WATCHDOG_KEY = 0;
}

/* CSRs 0x7e0 and 0x7e1: count cycles; go on counting. */
void strop_port_init(void) {
    __asm__ volatile("csrw mtvec, %0\n\tcsrw 0x7e0, %1\n\tcsrw 0x7e1, %1" : : "r"(&trap_table), "r"(1));
    stop_watchdogs();
    CLOCK_CONFIG = FROM_CRYSTAL_UNDIVIDED;
}

/* The controller takes a packet when the last one has been read, and makes the PC wait until then. */
size_t strop_port_read(uint8_t *buf, size_t n) {
    size_t got = 0;
    while (got == 0) {
        while (got < n && (USB_STATUS & HAS_RECEIVED) != 0) {
            buf[got++] = (uint8_t)USB_DATA;
        }
    }
    return got;
}

/* A packet is sent when it is full, and at the end. Waits as long as no PC reads. */
void strop_port_write(const uint8_t *buf, size_t n) {
    for (size_t i = 0; i < n; i++) {
        while ((USB_STATUS & HAS_ROOM) == 0) {
        }
        USB_DATA = buf[i];
        if (i % PACKET == PACKET - 1 || i == n - 1) {
            USB_STATUS = SEND;
        }
    }
}

/* 32 bits at 40 MHz: wraps unseen after 107 s without a call. */
uint64_t strop_port_counter(void) {
    uint32_t now;
    __asm__ volatile("csrr %0, 0x7e2" : "=r"(now));
    return strop_widened(now);
}

_Noreturn void strop_port_exit(int status) {
    (void)status; /* a reset carries none */
    (void)strop_wait_for(&USB_STATUS, HAS_ROOM, PATIENCE); /* until the PC has read the last packet, if it reads */
    RTC_CONTROL |= SYSTEM_RESET;
    for (;;) {
    }
}
