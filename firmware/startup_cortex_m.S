/*
 * Vector table, reset and faults of a Cortex-M core. A board that uses interrupts says how many its chip has
 * (STROP_INTERRUPTS): they all call the port's strop_interrupt, and SysTick calls strop_tick.
 */
#include "stack.h"

    .file   "startup_cortex_m.S"    /* or a linker names its temporary object in the symbol table */

#define CPACR           0xE000ED88  /* Armv7-M B3.2.20: access to coprocessors 10 and 11, the FPU */
#define CPACR_FPU_FULL  0x00F00000
#define CFSR            0xE000ED28  /* Armv7-M B3.2.15: why a fault was taken */
#define VTOR            0xE000ED08  /* Armv7-M B3.2.5: where the vector table is; an Armv6-M core has it at 0 */
#define FRAME_PC        24          /* Armv7-M B1.5.6: offset of the return address in the exception frame */

    .syntax unified
    .thumb

    .section .vectors, "a", %progbits
    .globl strop_vectors
    .type strop_vectors, %object
strop_vectors:
    .word   strop_stack_top
    .word   _start
    .rept   13                      /* NMI … PendSV */
    .word   strop_trap
    .endr
#ifdef STROP_INTERRUPTS
    .weak   strop_tick, strop_interrupt
    .thumb_set strop_tick, strop_trap
    .thumb_set strop_interrupt, strop_trap
    .word   strop_tick
    .rept   STROP_INTERRUPTS
    .word   strop_interrupt
    .endr
#else
    .word   strop_trap
#endif
    .size strop_vectors, . - strop_vectors

    .section .text.start, "ax", %progbits
    .globl _start
    .type _start, %function
    .thumb_func
_start:
#ifdef __ARM_FP
    ldr     r0, =CPACR              /* before the first function that pushes a float register */
    ldr     r1, [r0]
    orr     r1, r1, #CPACR_FPU_FULL
    str     r1, [r0]
    dsb
    isb
#endif
#if defined(STROP_INTERRUPTS) && __ARM_ARCH >= 7
    ldr     r0, =VTOR               /* a boot loader may have left its own */
    ldr     r1, =strop_vectors
    str     r1, [r0]
#endif
    ldr     r0, =strop_stack_limit
    ldr     r1, =STROP_STACK_PAINT
    mov     r2, sp                  /* the core loaded it from the vector table */
1:  stmia   r0!, {r1}
    cmp     r0, r2
    blo     1b
    bl      strop_boot              /* does not return */
    .pool
    .size _start, . - _start

/* The stack may be what broke: start again at its top, there is no way back. */
    .section .text.strop_trap, "ax", %progbits
    .globl strop_trap
    .type strop_trap, %function
    .thumb_func
strop_trap:
    mrs     r2, msp                 /* reported as the address: the exception frame */
    ldr     r1, [r2, #FRAME_PC]
#if __ARM_ARCH >= 7
    ldr     r0, =CFSR
    ldr     r0, [r0]
#else
    mrs     r0, ipsr                /* an Armv6-M core knows the exception's number only */
#endif
    ldr     r3, =strop_stack_top
    mov     sp, r3
    bl      strop_fault             /* does not return */
    .pool
    .size strop_trap, . - strop_trap
