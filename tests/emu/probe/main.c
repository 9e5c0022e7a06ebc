/* Shows what a port promises: answers one-letter commands on the serial line. test_firmware.py sends them. */
#include "port.h"

static uint8_t get(void)
{
    uint8_t byte;
    strop_port_read(&byte, 1);
    return byte;
}

static uint32_t get_word(void)
{
    uint32_t word = 0;
    for (unsigned shift = 0; shift < 32; shift += 8) {
        word |= (uint32_t)get() << shift;
    }
    return word;
}

static void put_words(const uint64_t *words, size_t n)
{
    strop_port_write((const uint8_t *)words, n * sizeof *words);
}

#if defined(__riscv)
#define ILLEGAL "unimp"
#define COUNT_DOWN "1: addi %0, %0, -1\n\tbnez %0, 1b"
#else
#define ILLEGAL "udf #0"
#define COUNT_DOWN "1: subs %0, #1\n\tbne 1b"
#endif

/* Two instructions a turn, n >= 1. */
static void spin(uint32_t n)
{
    __asm__ volatile(COUNT_DOWN : "+r"(n) : : "cc");
}

__attribute__((noinline)) static uint64_t cost_of_spin(uint32_t n)
{
    const uint64_t before = strop_port_counter();
    spin(n);
    return strop_port_counter() - before;
}

/* 'c' n: what asking costs, and a loop of 2n instructions, measured twice. */
static void count(void)
{
    const uint32_t n = get_word();
    const uint64_t before = strop_port_counter();
    const uint64_t asking = strop_port_counter() - before;
    const uint64_t costs[3] = {asking, cost_of_spin(n), cost_of_spin(n)};
    put_words(costs, 3);
}

/* 's': takes a kilobyte of stack, and answers with the high-water mark. */
__attribute__((noinline)) static void use_stack(void)
{
    volatile uint8_t local[1024];
    for (unsigned i = 0; i < sizeof local; i++) {
        local[i] = (uint8_t)i;
    }
    const uint64_t used = strop_port_stack_used();
    put_words(&used, 1);
}

/* 'm' n: n bytes 0, 1, 2, …, as fast as the board sends. */
static void many(void)
{
    static uint8_t block[4096];
    for (unsigned i = 0; i < sizeof block; i++) {
        block[i] = (uint8_t)i;
    }
    for (uint32_t left = get_word(); left != 0;) {
        const uint32_t n = left < sizeof block ? left : (uint32_t)sizeof block;
        strop_port_write(block, n);
        left -= n;
    }
}

/* 'e' n: n bytes as they came. */
static void echo(void)
{
    static uint8_t block[256];
    for (uint32_t left = get_word(); left != 0;) {
        const size_t n = strop_port_read(block, left < sizeof block ? left : sizeof block);
        strop_port_write(block, n);
        left -= (uint32_t)n;
    }
}

/* A word that starts as 0x12345678, another that starts as zero: answers 1 when start-up code did its work. */
static volatile uint32_t initialised = 0x12345678, zeroed;

int main(void)
{
    strop_port_init();
    for (;;) {
        switch (get()) {
        case 'c': count(); break;
        case 's': use_stack(); break;
        case 'm': many(); break;
        case 'e': echo(); break;
        case 'i': put_words(&(uint64_t){initialised == 0x12345678 && zeroed == 0}, 1); break;
        case 'f': __asm__ volatile(ILLEGAL); break;
        case 'x': return (int)get_word();
        default: break;
        }
    }
}
