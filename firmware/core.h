/*
 * core.h: what a port.c needs of its core: registers, interrupts on and off, sleep, waiting for a flag.
 * Sources: Armv7-M Architecture Reference Manual (Armv6-M and Armv8-M agree), RISC-V privileged specification 1.12.
 */
#ifndef STROP_CORE_H
#define STROP_CORE_H

#include <stddef.h>
#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* Of a function that runs while flash cannot be read: it lies in RAM, and calls none but others like it. */
#define STROP_IN_RAM __attribute__((section(".ram_code"), noinline))

/* Waits until one of `bits` is set, for at most `turns` looks of one cycle or more each; returns whether it is. */
static inline int strop_wait_for(const volatile uint32_t *word, uint32_t bits, uint32_t turns) {
    while ((*word & bits) == 0 && turns != 0) {
        turns--;
    }
    return turns != 0;
}

/* A 64-bit count from a 32-bit counter that is asked more often than it wraps around. */
static inline uint64_t strop_widened(uint32_t now) {
    static uint32_t last;
    static uint64_t total;
    total += now - last;
    last = now;
    return total;
}

#if defined(__riscv)

#define MSTATUS_MIE 0x8
#define MIE_EXTERNAL 0x800

/* An interrupt handler saves what it uses; mtvec wants its address in multiples of four. */
#define STROP_HANDLER __attribute__((interrupt("machine"), aligned(4)))

static inline void strop_interrupts_on(void) {
    __asm__ volatile("csrs mstatus, %0" : : "r"(MSTATUS_MIE) : "memory");
}

static inline void strop_interrupts_off(void) {
    __asm__ volatile("csrc mstatus, %0" : : "r"(MSTATUS_MIE) : "memory");
}

/* Off for a while; returns what strop_interrupts_resume needs to leave them as they were. */
static inline uint32_t strop_interrupts_pause(void) {
    uint32_t state;
    __asm__ volatile("csrrc %0, mstatus, %1" : "=r"(state) : "r"(MSTATUS_MIE) : "memory");
    return state & MSTATUS_MIE;
}

static inline void strop_interrupts_resume(uint32_t state) {
    __asm__ volatile("csrs mstatus, %0" : : "r"(state) : "memory");
}

/* All external interrupts of machine mode go to `handler`, from now on. */
static inline void strop_interrupts_to(void (*handler)(void)) {
    __asm__ volatile("csrw mtvec, %0\n\tcsrs mie, %1" : : "r"(handler), "r"(MIE_EXTERNAL) : "memory");
    strop_interrupts_on();
}

/* Exceptions come to the same address as interrupts do: those go on to the start-up code, which reports them. */
_Noreturn void strop_trap(void);
static inline void strop_interrupts_only(void) {
    int32_t cause;
    __asm__ volatile("csrr %0, mcause" : "=r"(cause));
    if (cause >= 0) {
        strop_trap();
    }
}

/* Read the upper half again until it stood still (unprivileged specification 20191213, 10.1). */
static inline uint64_t strop_cycles(void) {
    uint32_t high, low, again;
    do {
        __asm__ volatile("csrr %0, mcycleh\n\tcsrr %1, mcycle\n\tcsrr %2, mcycleh"
                         : "=&r"(high), "=&r"(low), "=r"(again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

#else

#define NVIC_ENABLE(irq)  REGISTER(0xE000E100 + 4 * ((irq) / 32)) /* B3.4.4 */
#define NVIC_DISABLE(irq) REGISTER(0xE000E180 + 4 * ((irq) / 32)) /* B3.4.5 */
#define AIRCR REGISTER(0xE000ED0C)                                /* B3.2.6 */
#define AIRCR_SYSTEM_RESET 0x05FA0004

/* Everything before it is done, and seen by everything behind it. */
static inline void strop_barrier(void) {
    __asm__ volatile("dsb\n\tisb" : : : "memory");
}

#if __ARM_ARCH >= 7
#define CONFIG_CONTROL REGISTER(0xE000ED14)                       /* B3.2.8 */
#define IGNORE_BUS_FAULTS 0x100U

/* Reads that the bus answers with an error give any value, and no fault, until strop_bus_faults_on. Interrupts are off
 * meanwhile: this takes priority -1 (B1.5.4), at which BFHFNMIGN speaks. */
static inline void strop_bus_faults_off(void) {
    CONFIG_CONTROL |= IGNORE_BUS_FAULTS;
    __asm__ volatile("cpsid f" : : : "memory");
    strop_barrier();
}

static inline void strop_bus_faults_on(void) {
    strop_barrier();
    __asm__ volatile("cpsie f" : : : "memory");
    CONFIG_CONTROL &= ~IGNORE_BUS_FAULTS;
}
#endif

static inline void strop_interrupts_on(void) {
    __asm__ volatile("cpsie i\n\tisb" : : : "memory");
}

static inline void strop_interrupts_off(void) {
    __asm__ volatile("cpsid i" : : : "memory");
}

/* Off for a while; returns what strop_interrupts_resume needs to leave them as they were. */
static inline uint32_t strop_interrupts_pause(void) {
    uint32_t state;
    __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(state) : : "memory");
    return state;
}

static inline void strop_interrupts_resume(uint32_t state) {
    __asm__ volatile("msr primask, %0\n\tisb" : : "r"(state) : "memory");
}

/* One interrupt, for which the port's strop_interrupt is called. It stays pending while it is off. */
static inline void strop_interrupt_on(uint32_t irq) {
    NVIC_ENABLE(irq) = 1U << irq % 32;
}

static inline void strop_interrupt_off(uint32_t irq) {
    NVIC_DISABLE(irq) = 1U << irq % 32;
}

_Noreturn static inline void strop_system_reset(void) {
    AIRCR = AIRCR_SYSTEM_RESET;
    for (;;) {
    }
}

#endif

static inline void strop_sleep(void) {
    __asm__ volatile("wfi" : : : "memory");
}

#endif
