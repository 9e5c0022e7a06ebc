/*
 * QEMU's RISC-V "virt" machine: a 16550 UART, minstret, parallel flash, and the test device that ends the emulator.
 * Sources: QEMU 7.2 hw/riscv/virt.c (addresses), hw/char/serial.c (UART), hw/intc/sifive_plic.c (interrupt
 * controller), hw/block/pflash_cfi01.c (flash), hw/misc/sifive_test.c (exit).
 */
#include "port.h"

#define UART ((volatile uint8_t *)STROP_UART_BASE)
enum { DATA, INTERRUPT_ENABLE, INTERRUPT_CAUSE, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS };
enum { FIFO_CONTROL = 2, DIVISOR_LOW = 0, DIVISOR_HIGH = 1 };          /* the same addresses, other registers */
enum { RECEIVED = 0x01, TRANSMIT_EMPTY = 0x20 };                       /* bits of LINE_STATUS */
enum { EIGHT_BITS = 0x03, DIVISOR_ACCESS = 0x80 };                     /* bits of LINE_CONTROL */
enum { CAUSE_MASK = 0x0F, CAUSE_NONE = 0x01, CAUSE_LEVEL = 0x04 };     /* values of INTERRUPT_CAUSE */
enum { FIFO_ON_LEVEL_14 = 0xC7, RECEIVE_LEVEL = 14, TRANSMIT_FIFO = 16 };

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define PLIC 0x0C000000
#define PLIC_PRIORITY  REGISTER(PLIC + 4 * UART_INTERRUPT)
#define PLIC_ENABLE    REGISTER(PLIC + 0x2000)                         /* hart 0, machine mode */
#define PLIC_THRESHOLD REGISTER(PLIC + 0x200000)
#define PLIC_CLAIM     REGISTER(PLIC + 0x200004)
enum { UART_INTERRUPT = 10 };
#define MIE_EXTERNAL 0x800

#define TEST_FINISHER REGISTER(0x100000)
enum { FINISH_PASS = 0x5555, FINISH_FAIL = 0x3333 };

/*
 * The interrupt is never taken: enabled in mie but not in mstatus, it only wakes the core from wfi. Divisor 1 gives
 * the highest baud rate, and with it the shortest wait for the "fewer than 14 bytes, and silence" interrupt.
 */
void strop_port_init(void) {
    UART[LINE_CONTROL] = DIVISOR_ACCESS | EIGHT_BITS;
    UART[DIVISOR_LOW] = 1;
    UART[DIVISOR_HIGH] = 0;
    UART[LINE_CONTROL] = EIGHT_BITS;
    UART[FIFO_CONTROL] = FIFO_ON_LEVEL_14;
    UART[INTERRUPT_ENABLE] = RECEIVED;
    PLIC_PRIORITY = 1;
    PLIC_ENABLE = 1U << UART_INTERRUPT;
    PLIC_THRESHOLD = 0;
    __asm__ volatile("csrs mie, %0" : : "r"(MIE_EXTERNAL));
}

/* Claims an interrupt that is no longer of use, or else sleeps until the next one. */
static void wait_for_uart(void) {
    const uint32_t claimed = PLIC_CLAIM;
    if (claimed != 0) {
        PLIC_CLAIM = claimed;
    } else {
        __asm__ volatile("wfi");
    }
}

/*
 * A full level of 14 bytes is taken in one go. Taking bytes as they drop in would hand the emulator back and forth
 * between its threads for every single one, which is ten times slower.
 */
size_t strop_port_read(uint8_t *buf, size_t n) {
    uint32_t cause;
    while ((cause = UART[INTERRUPT_CAUSE] & CAUSE_MASK) == CAUSE_NONE) {
        wait_for_uart();
    }
    size_t got = 0;
    while (got < n && (cause == CAUSE_LEVEL ? got < RECEIVE_LEVEL : (UART[LINE_STATUS] & RECEIVED) != 0)) {
        buf[got++] = UART[DATA];
    }
    return got;
}

/* An empty FIFO takes 16 bytes without another look at the status. */
void strop_port_write(const uint8_t *buf, size_t n) {
    for (size_t i = 0; i < n; i++) {
        while (i % TRANSMIT_FIFO == 0 && (UART[LINE_STATUS] & TRANSMIT_EMPTY) == 0) {
        }
        UART[DATA] = buf[i];
    }
}

/* Read the upper half again until it stood still (unprivileged specification 20191213, 10.1). */
static uint64_t instructions(void) {
    uint32_t high, low, again;
    do {
        __asm__ volatile("csrr %0, minstreth\n\tcsrr %1, minstret\n\tcsrr %2, minstreth"
                         : "=&r"(high), "=&r"(low), "=r"(again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

#if defined(STROP_HARTS) && STROP_HARTS > 1
/* hw/intc/riscv_aclint.c: one word a hart, a software interrupt as long as it is 1. */
#define SOFTWARE_INTERRUPT(hart) REGISTER(0x02000000 + 4 * (hart))
#define MIE_SOFTWARE 0x8

extern uint64_t strop_team_hidden;

void strop_port_wake(int hart) { SOFTWARE_INTERRUPT(hart) = 1; }

/* Never taken, as the UART's, which must not wake a hart that waits for another. */
void strop_port_sleep(int hart) {
    uint32_t enabled;
    __asm__ volatile("csrrw %0, mie, %1\n\twfi\n\tcsrw mie, %0" : "=&r"(enabled) : "r"(MIE_SOFTWARE) : "memory");
    SOFTWARE_INTERRUPT(hart) = 0;
}

/* With -icount, QEMU 7.2 counts the instructions of all harts together in each hart's minstret. */
uint64_t strop_port_counter_raw(void) { return instructions(); }

uint64_t strop_port_counter(void) { return instructions() - strop_team_hidden; }
#else
uint64_t strop_port_counter(void) { return instructions(); }
#endif

_Noreturn void strop_port_exit(int status) {
    TEST_FINISHER = status == 0 ? FINISH_PASS : (uint32_t)status << 16 | FINISH_FAIL;
    for (;;) {
    }
}

#ifdef STROP_STORE_ORIGIN
/* Two 16-bit chips side by side, so every command stands in both halves of a word. Intel StrataFlash (28F640J3)
 * datasheet, table 4 (commands) and 5.7 (status register). */
#define STORE(offset) REGISTER(STROP_STORE_ORIGIN + (offset))
enum { PROGRAM = 0x00400040, ERASE = 0x00200020, CONFIRM = 0x00D000D0, CLEAR_STATUS = 0x00500050,
       READ_ARRAY = 0x00FF00FF };
enum { READY = 0x00800080, FAILED = 0x003A003A }; /* status; the errors of erase, program, voltage and lock */

/* Waits for the end of a command, and returns whether it failed. */
static int store_failed(uint32_t offset) {
    uint32_t status;
    while (((status = STORE(offset)) & READY) != READY) {
    }
    return (status & FAILED) != 0;
}

/* Back from commands to contents, which is slow in the emulator. */
static void store_show(uint32_t offset) {
    STORE(offset) = CLEAR_STATUS;
    STORE(offset) = READ_ARRAY;
    __asm__ volatile("" ::: "memory");
}

int strop_port_store_read(uint32_t offset, void *data, uint32_t n) {
    __builtin_memcpy(data, (const void *)(STROP_STORE_ORIGIN + offset), n);
    return 0;
}

int strop_port_store_erase(uint32_t offset) {
    STORE(offset) = ERASE;
    STORE(offset) = CONFIRM;
    const int failed = store_failed(offset);
    store_show(offset);
    return failed;
}

int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    int failed = 0;
    for (uint32_t i = 0; i < n && !failed; i += sizeof(uint32_t)) {
        STORE(offset + i) = PROGRAM;
        STORE(offset + i) = *(const uint32_t *)((uintptr_t)data + i);
        failed = store_failed(offset + i);
    }
    store_show(offset);
    return failed;
}
#endif
