/* Reset and traps of a 32-bit RISC-V core in machine mode, one hart, no interrupts. */
#include "stack.h"

    .file   "startup_rv32.S"       /* or a linker names its temporary object in the symbol table */

#define MSTATUS_FS_INITIAL 0x2000   /* privileged specification 1.12, 3.1.6.6: without it every float traps */

    .section .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    .option push
    .option norelax                 /* gp cannot be found by means of gp */
    la      gp, __global_pointer$
    .option pop
    la      sp, strop_stack_top
    la      t0, strop_trap
    csrw    mtvec, t0
#ifdef __riscv_flen
    li      t0, MSTATUS_FS_INITIAL
    csrs    mstatus, t0
    fscsr   zero                    /* round to nearest even, no flags */
#endif
    la      t0, strop_stack_limit
    li      t1, STROP_STACK_PAINT
1:  sw      t1, 0(t0)
    addi    t0, t0, 4
    bltu    t0, sp, 1b
    call    strop_boot              /* does not return */
    .size _start, . - _start

/* The stack may be what broke: start again at its top, there is no way back. mtvec wants 4-byte alignment. */
    .section .text.strop_trap, "ax", @progbits
    .globl strop_trap
    .type strop_trap, @function
    .balign 4
strop_trap:
    la      sp, strop_stack_top
    csrr    a0, mcause
    csrr    a1, mepc
    csrr    a2, mtval
    call    strop_fault             /* does not return */
    .size strop_trap, . - strop_trap
