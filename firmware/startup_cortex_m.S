/* Vector table, reset and faults of an Armv7-M core; no interrupts are used. */
#include "stack.h"

    .file   "startup_cortex_m.S"    /* or a linker names its temporary object in the symbol table */

#define CPACR           0xE000ED88  /* Armv7-M B3.2.20: access to coprocessors 10 and 11, the FPU */
#define CPACR_FPU_FULL  0x00F00000
#define CFSR            0xE000ED28  /* Armv7-M B3.2.15: why a fault was taken */
#define FRAME_PC        24          /* Armv7-M B1.5.6: offset of the return address in the exception frame */

    .syntax unified
    .thumb

    .section .vectors, "a", %progbits
    .globl strop_vectors
    .type strop_vectors, %object
strop_vectors:
    .word   strop_stack_top
    .word   _start
    .rept   14                      /* NMI … SysTick */
    .word   strop_trap
    .endr
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
    ldr     r0, =strop_stack_limit
    ldr     r1, =STROP_STACK_PAINT
    mov     r2, sp                  /* the core loaded it from the vector table */
1:  str     r1, [r0], #4
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
    ldr     r0, =CFSR
    ldr     r0, [r0]
    ldr     r3, =strop_stack_top
    mov     sp, r3
    bl      strop_fault             /* does not return */
    .pool
    .size strop_trap, . - strop_trap
