/*
 * port.h: everything strop needs from a board. A new board is one file that defines these functions
 * (start from template/port.c) and one description, targets/boards/<board>.toml.
 *
 * Nothing here is called from an interrupt, and nothing here may allocate. From the board's description come
 * STROP_UART_BASE, STROP_UART_BAUD, STROP_CLOCK_HZ, STROP_BOARD (a string) and STROP_<NAME> of every constant.
 */
#ifndef STROP_PORT_H
#define STROP_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Clocks, pins, UART and counter. Called once, on a zeroed .bss, before any other function. A byte that arrives earlier
 * may be lost: a host begins with a delimiter. */
void strop_port_init(void);

/* Sleeps until a byte has arrived, then moves up to `n` >= 1 received bytes to `buf` and returns how many, at least 1. */
size_t strop_port_read(uint8_t *buf, size_t n);

/* Sends `n` bytes in order, behind those of the call before; `buf` is free when it returns. Blocks until the UART has
 * taken the last one or, on a board with a ring to send from, until that has room for it. Works with interrupts on or
 * off, and after a fault. */
void strop_port_write(const uint8_t *buf, size_t n);

/*
 * A count that never goes back, in the board's counter unit (retired instructions on the emulated boards). Work is
 * measured as the difference of two calls; a call itself may cost a few units, which the board's description states.
 */
uint64_t strop_port_counter(void);

/* Ends the program when all that was written has left: an emulator quits with `status` where it can carry one, a device resets. Does not return. */
_Noreturn void strop_port_exit(int status);

/* --- only where the board's description has a [store]; without them it fails, and nothing else does -------------- */

/*
 * Memory that checkpoints are kept in: the build passes its place and layout as STROP_STORE_ORIGIN, _BYTES, _SECTOR and
 * _UNIT. Offsets count from its origin and never leave it. Each returns 0, or another number when it failed; none
 * returns before the memory has done it. Interrupts may go on if nothing they run or read lies in memory that is busy.
 */

/* Copies `n` bytes from `offset` on. Where power was lost while writing it gives any bytes, or fails; no exception. */
int strop_port_store_read(uint32_t offset, void *data, uint32_t n);

/* Sets STROP_STORE_SECTOR bytes, from a multiple of it on, to 0xFF. */
int strop_port_store_erase(uint32_t offset);

/* Writes `n` erased bytes, all within one sector, both multiples of STROP_STORE_UNIT. `data` is aligned to a word. */
int strop_port_store_write(uint32_t offset, const void *data, uint32_t n);

#if defined(STROP_HARTS) && STROP_HARTS > 1
/* --- needed on boards with several harts only --------------------------------------------------------------------- */

/* Wakes a hart, or keeps it from falling asleep the next time. */
void strop_port_wake(int hart);

/* Sleeps until this hart is woken; may return early. */
void strop_port_sleep(int hart);

/* A count common to all harts, of the instructions of all. */
uint64_t strop_port_counter_raw(void);
#endif

/* --- provided by firmware/, the same on every board ------------------------------------------------------------ */

/* Deepest stack since reset, in bytes: how much of the paint between .bss and the stack's top is gone. */
uint32_t strop_port_stack_used(void);

/* Reports an exception as one line of text between two frame delimiters, and exits with status 1. */
_Noreturn void strop_fault(uint32_t cause, uint32_t pc, uint32_t address);

#endif
