/* Reset and traps of a 32-bit RISC-V core in machine mode, one hart, no interrupts. */
#include "stack.h"

    .file   "startup_rv32.S"       /* or a linker names its temporary object in the symbol table */

#define MSTATUS_FS_INITIAL 0x2000   /* privileged specification 1.12, 3.1.6.6: without it every float traps */
#define MSTATUS_VS_INITIAL 0x0200   /* the same for vectors */

#define MIE_SOFTWARE 8
#define STACK_BYTES 1024            /* of each hart but the first: STACK_WORDS of team.c */

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
#ifdef __riscv_vector
    li      t0, MSTATUS_VS_INITIAL
    csrs    mstatus, t0
#endif
#if defined(STROP_HARTS) && STROP_HARTS > 1
    csrr    a0, mhartid
    bnez    a0, strop_start_hart
#endif
    la      t0, strop_stack_limit
    li      t1, STROP_STACK_PAINT
1:  sw      t1, 0(t0)
    addi    t0, t0, 4
    bltu    t0, sp, 1b
    call    strop_boot              /* does not return */

#if defined(STROP_HARTS) && STROP_HARTS > 1
/* All other harts: sleep until the first has prepared the memory and wakes them by a software interrupt. */
strop_start_hart:
    csrwi   mie, MIE_SOFTWARE
1:  wfi
    csrr    t0, mip
    andi    t0, t0, MIE_SOFTWARE
    beqz    t0, 1b
    la      sp, strop_team_stacks
    mv      t0, a0
1:  addi    sp, sp, STACK_BYTES     /* a loop, as the stack analysis wants a constant */
    addi    t0, t0, -1
    bnez    t0, 1b
    call    strop_team_join         /* does not return */
#endif
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
