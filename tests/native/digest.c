/*
 * digest.c: one number for the bits of every function of numerics.h and rng.h over a sample of all arguments, and of
 * both 16-bit formats, which half.c goes through.
 * Runs on the host as a library and, with STROP_BARE, on an emulated board, which prints it on its serial line.
 */
#include "numerics.h"
#include "rng.h"

static float soft_or_instruction(float x) { return strop_sqrtf(x); }
static float generator(float x) { return strop_rng_uniform(7, 8, strop_float_bits(x)) * strop_rng_sign(7, 9, 1); }

uint32_t half_digest(int brain);

/* Function `which` at `count` arguments spread evenly over the 2^32 bit patterns, folded into 32 bits. NaNs are one. */
uint32_t digest(uint32_t which, uint32_t count) {
    float (*const functions[])(float) = {
        strop_expf, strop_logf, strop_tanhf, strop_sigmoidf, soft_or_instruction, generator,
    };
    uint32_t state = 0;
    if (which >= 6) {
        return half_digest(which == 7);
    }
    for (uint32_t i = 0; i < count; i++) {
        const float y = functions[which](strop_bits_float(i * (0xffffffffu / count) + i % 251u));
        state = strop_rng_mix(state ^ (y == y ? strop_float_bits(y) : 0x7fc00000u), 1);
    }
    return state;
}

#ifdef STROP_BARE
static void print_hex(uint32_t word) {
    for (int shift = 28; shift >= 0; shift -= 4) {
        *(volatile uint32_t *)STROP_UART = (uint32_t)"0123456789abcdef"[(word >> shift) & 15u];
    }
    *(volatile uint32_t *)STROP_UART = '\n';
}

/* Not inlined: its prologue may push floating-point registers, which start enables first. */
__attribute__((noinline)) static void print_digests(void) {
    for (uint32_t which = 0; which < 8; which++) {
        print_hex(digest(which, STROP_BARE));
    }
}

#ifdef __arm__
static void start(void) {
    *(volatile uint32_t *)0xe000ed88 = 0xf00000;  /* CPACR: FPU on */
    *(volatile uint32_t *)(STROP_UART + 8) = 1;   /* CMSDK UART: transmitter on */
    __asm__ volatile("dsb\n isb");
    print_digests();
    __asm__ volatile("movs r0, #0x18\n ldr r1, =0x20026\n bkpt 0xab"); /* semihosting: exit with 0 */
}

extern void (*const vectors[])(void);
__attribute__((section(".start"), used)) void (*const vectors[])(void) = {(void (*)(void))0x20010000, start};
#else
__attribute__((used)) static void start(void) {
    print_digests();
    *(volatile uint32_t *)0x100000 = 0x5555; /* the virt machine's test device: exit with 0 */
}

void _start(void);
__attribute__((naked, section(".start"))) void _start(void) {
    __asm__("la sp, 0x80100000\n li t0, 0x2000\n csrs mstatus, t0\n call start"); /* FS: FPU on */
}
#endif
#endif
