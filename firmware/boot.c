/* From reset to main(), the same on every core: the start-up code has set the stack pointer and painted the stack. */
#include "port.h"
#include "stack.h"

/* Borders drawn by link.ld.in; every one is aligned to a word. */
extern uint32_t strop_data_start[], strop_data_end[], strop_bss_start[], strop_bss_end[];
extern const uint32_t strop_data_image[];
extern const volatile uint32_t strop_stack_limit[], strop_stack_top[];

int main(void);
_Noreturn void strop_boot(void);

_Noreturn void strop_boot(void) {
    const uint32_t *image = strop_data_image;
    for (uint32_t *word = strop_data_start; word < strop_data_end; word++) {
        *word = *image++;
    }
    for (uint32_t *word = strop_bss_start; word < strop_bss_end; word++) {
        *word = 0;
    }
#if defined(STROP_HARTS) && STROP_HARTS > 1
    for (int hart = 1; hart < STROP_HARTS; hart++) {
        strop_port_wake(hart);
    }
#endif
    strop_port_exit(main());
}

uint32_t strop_port_stack_used(void) {
    const volatile uint32_t *word = strop_stack_limit;
    while (word < strop_stack_top && *word == STROP_STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)strop_stack_top - (uintptr_t)word);
}

static void put_hex(const char *label, uint32_t value) {
    uint8_t digits[8];
    for (unsigned i = 0; i < sizeof digits; i++) {
        digits[i] = (uint8_t)"0123456789abcdef"[(value >> (28 - 4 * i)) & 15U];
    }
    size_t length = 0;
    while (label[length] != '\0') {
        length++;
    }
    strop_port_write((const uint8_t *)label, length);
    strop_port_write(digits, sizeof digits);
}

/* The zero bytes end whatever frame was under way, so that the line reaches the host as text of its own. */
_Noreturn void strop_fault(uint32_t cause, uint32_t pc, uint32_t address) {
    static const uint8_t delimiter = 0;
    strop_port_write(&delimiter, 1);
    put_hex("fault: cause 0x", cause);
    put_hex(" pc 0x", pc);
    put_hex(" address 0x", address);
    strop_port_write(&delimiter, 1);
    strop_port_exit(1);
}
