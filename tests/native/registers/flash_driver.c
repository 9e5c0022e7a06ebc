/* A flash driver of firmware/boards, DRIVER, on registers and ROM functions that a test plays:
 * test_flash_drivers.py.
 *
 * A register is one word in memory. Whether the driver has written to it shows at its next look at any register, or at
 * the end of a call: when the word is no longer what was shown. So a test shows what no driver writes there. */
#include "core.h"

typedef uint32_t (*show_t)(uint32_t address);               /* a register is looked at: what it shows */
typedef void (*written_t)(uint32_t address, uint32_t value); /* it was written */
typedef void (*masked_t)(int is_masked);                    /* interrupts go off, or on again */
typedef int (*rom_t)(uint32_t function, uint32_t a, uint32_t b, uint32_t c, void *data);

static show_t show;
static written_t written;
static masked_t masked;
static rom_t rom;
static uint32_t looked_up, shown; /* the last register, and what it showed */
static volatile uint32_t looked_at;
static _Alignas(8) uint8_t memory[STROP_STORE_BYTES]; /* of the store, as the core sees it */

static void settle(void) {
    const uint32_t value = looked_at;
    if (looked_up != 0 && value != shown) {
        written(looked_up, value);
    }
    looked_up = 0;
}

volatile uint32_t *fake_register(uint32_t address) {
    settle();
    looked_at = shown = show(address);
    looked_up = address;
    return &looked_at;
}

uint32_t fake_pause(void) {
    settle();
    masked(1);
    return 0;
}

void fake_resume(uint32_t state) {
    settle();
    masked((int)state);
}

void fake_bus_faults(int on) {
    settle();
    written(0, (uint32_t)on);
}

#if defined(ESP32C3)
static int describe(uint32_t id, uint32_t chip, uint32_t block, uint32_t sector, uint32_t page, uint32_t mask) {
    (void)id, (void)mask;
    return rom(0x40000134, chip, block, sector, NULL) || page != 256;
}

static int unlock(void) { return rom(0x40000140, 0, 0, 0, NULL); }

static int erase(uint32_t sector) { return rom(0x40000128, sector, 0, 0, NULL); }

static int write_words(uint32_t address, const uint32_t *from, int32_t bytes) {
    return rom(0x4000012C, address, (uint32_t)bytes, 0, (void *)(uintptr_t)from);
}

static int read_words(uint32_t address, uint32_t *to, int32_t bytes) {
    return rom(0x40000130, address, (uint32_t)bytes, 0, to);
}

typedef void (*any_t)(void);

static any_t function_at(uint32_t address) {
    switch (address) {
    case 0x40000128: return (any_t)erase;
    case 0x4000012C: return (any_t)write_words;
    case 0x40000130: return (any_t)read_words;
    case 0x40000134: return (any_t)describe;
    case 0x40000140: return (any_t)unlock;
    default: return NULL;
    }
}
#define ROM(function, address) ((function)function_at(address))
#elif defined(RP2350)
static int flash_op_of_rom(uint32_t flags, uint32_t address, uint32_t bytes, const uint8_t *data) {
    return rom(0, flags, address, bytes, (void *)(uintptr_t)data);
}

static int (*lookup(uint32_t code, uint32_t kind))(uint32_t, uint32_t, uint32_t, const uint8_t *) {
    return rom(1, code, kind, 0, NULL) == 0 ? flash_op_of_rom : NULL;
}
#define ROM_LOOKUP lookup
#endif

#define STROP_STORE_SEEN ((uintptr_t)memory)
#include DRIVER

uint8_t *driver_new(show_t s, written_t w, masked_t m, rom_t r);
uint8_t *driver_new(show_t s, written_t w, masked_t m, rom_t r) {
    show = s;
    written = w;
    masked = m;
    rom = r;
    looked_up = 0;
    return memory;
}

int driver_erase(uint32_t offset);
int driver_erase(uint32_t offset) {
    const int failed = strop_port_store_erase(offset);
    settle();
    return failed;
}

int driver_write(uint32_t offset, const void *data, uint32_t n);
int driver_write(uint32_t offset, const void *data, uint32_t n) {
    const int failed = strop_port_store_write(offset, data, n);
    settle();
    return failed;
}

int driver_read(uint32_t offset, void *data, uint32_t n);
int driver_read(uint32_t offset, void *data, uint32_t n) {
    const int failed = strop_port_store_read(offset, data, n);
    settle();
    return failed;
}
