/*
 * systick.h: cycles since reset from a Cortex-M's SysTick timer, whose 24 bits its interrupt extends to 64. For one C
 * file, a port.c, to include: it defines the handler. Source: Armv7-M Architecture Reference Manual, B3.3.
 */
#ifndef STROP_SYSTICK_H
#define STROP_SYSTICK_H

#include "core.h"

#define SYSTICK_CONTROL REGISTER(0xE000E010)
#define SYSTICK_RELOAD  REGISTER(0xE000E014)
#define SYSTICK_VALUE   REGISTER(0xE000E018)
#define SYSTICK_TURN    0x1000000U
enum { SYSTICK_ON_CORE_CLOCK_WITH_INTERRUPT = 7 };
#define ICSR REGISTER(0xE000ED04)
#define ICSR_SYSTICK_PENDING 0x4000000U

static volatile uint32_t systick_turns;

void strop_tick(void);
void strop_tick(void) {
    systick_turns++;
}

static inline void systick_start(void) {
    SYSTICK_RELOAD = SYSTICK_TURN - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = SYSTICK_ON_CORE_CLOCK_WITH_INTERRUPT;
}

/* The timer counts down; the interrupt comes as it gets to 0, which is thus where a turn begins. */
static inline uint64_t systick_cycles(void) {
    strop_interrupts_off();
    uint32_t left = SYSTICK_VALUE;
    uint32_t turns = systick_turns;
    if ((ICSR & ICSR_SYSTICK_PENDING) != 0) { /* not counted yet */
        left = SYSTICK_VALUE;
        turns++;
    }
    strop_interrupts_on();
    return (uint64_t)turns * SYSTICK_TURN + (SYSTICK_TURN - left) % SYSTICK_TURN;
}

#endif
