/* The core of a microcontroller that is no more than its registers, each look at which a test answers: stands for
 * firmware/core.h when a flash driver of firmware/boards is compiled for the PC. See flash_driver.c. */
#ifndef STROP_CORE_H
#define STROP_CORE_H

#include <stddef.h>
#include <stdint.h>

volatile uint32_t *fake_register(uint32_t address);
uint32_t fake_pause(void);
void fake_resume(uint32_t state);
void fake_bus_faults(int on);

#define REGISTER(address) (*fake_register(address))
#define STROP_IN_RAM

static inline uint32_t strop_interrupts_pause(void) { return fake_pause(); }

static inline void strop_interrupts_resume(uint32_t state) { fake_resume(state); }

static inline void strop_barrier(void) {}

static inline void strop_bus_faults_off(void) { fake_bus_faults(0); }

static inline void strop_bus_faults_on(void) { fake_bus_faults(1); }

#endif
