/* A flash device that loses power at a chosen write or erase, and watches that it is used as flash must be; and the
 * store of the fake model (fake/model.c) on it, for test_store.py.
 *
 * Operations (writes and erases) are counted. At the chosen one power goes: it is done not at all, by half, as garbage,
 * or wholly (enum harm), and nothing reaches the device any more until `power_on`. */
#include "store_device.h"

#include <stdlib.h>
#include <string.h>

enum { UNARMED = -1 };

static uint8_t *memory, *blank; /* blank[i]: byte i was erased and not written since */
static uint32_t size, sector_bytes, unit_bytes;
static long left; /* operations until power goes */
static int harm, is_dead;
static long worn_in; /* operations until one silently does nothing */
static uint32_t noise = 1, misuses;
static long operations;

static uint8_t *buffer;
static strop_store_config_t config;
static strop_store_t store;

static uint8_t garbage(void) { /* xorshift32, Marsaglia 2003 */
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return (uint8_t)(noise >> 24);
}

static void expect(int holds) { misuses += !holds; }

/* How many of n bytes, in whole pieces, are done before power goes; *torn: of how many more nobody knows. */
static uint32_t done_of(uint32_t n, uint32_t piece, uint32_t *torn) {
    *torn = 0;
    operations++;
    if (is_dead || (worn_in != UNARMED && worn_in-- == 0)) {
        return 0;
    }
    if (left == UNARMED || left-- > 0) {
        return n;
    }
    is_dead = 1;
    left = UNARMED;
    if (harm == HARM_HALF) {
        const uint32_t half = n / piece / 2u * piece;
        *torn = piece;
        return half;
    }
    *torn = harm == HARM_GARBAGE ? n : 0;
    return harm == HARM_NONE ? n : 0;
}

static int device_read(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    (void)ctx;
    expect(offset <= size && n <= size - offset);
    memcpy(bytes, memory + offset, n);
    return 0;
}

static int device_write(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    uint32_t torn;
    (void)ctx;
    expect(n > 0 && offset < size && n <= size - offset && offset % unit_bytes == 0 && n % unit_bytes == 0);
    expect(((uintptr_t)bytes & 3u) == 0 && offset / sector_bytes == (offset + n - 1) / sector_bytes);
    const uint32_t done = done_of(n, unit_bytes, &torn);
    for (uint32_t i = 0; i < done + torn; i++) {
        expect(blank[offset + i]);
        blank[offset + i] = 0;
        memory[offset + i] = i < done ? ((const uint8_t *)bytes)[i] : garbage();
    }
    return is_dead;
}

static int device_erase(void *ctx, uint32_t offset) {
    uint32_t torn;
    (void)ctx;
    expect(offset < size && offset % sector_bytes == 0);
    const uint32_t done = done_of(sector_bytes, 1, &torn);
    for (uint32_t i = 0; i < done + torn; i++) {
        blank[offset + i] = done == sector_bytes;
        memory[offset + i] = i < done ? 0xFF : garbage();
    }
    return is_dead;
}

int device_new(uint32_t bytes, uint32_t sector, uint32_t unit, uint32_t buffer_bytes) {
    free(memory);
    free(blank);
    free(buffer);
    memory = malloc(bytes);
    blank = calloc(bytes, 1);
    buffer = malloc(buffer_bytes);
    memset(memory, 0xA5, bytes);
    size = bytes;
    sector_bytes = sector;
    unit_bytes = unit;
    misuses = 0;
    config = (strop_store_config_t){.bytes = bytes, .sector = sector, .unit = unit, .buffer = buffer,
                                    .buffer_bytes = buffer_bytes, .read = device_read, .erase = device_erase,
                                    .write = device_write};
    return power_on();
}

int power_on(void) {
    is_dead = 0;
    left = worn_in = UNARMED;
    strop_model.init();
    return (int)strop_store_init(&store, &config);
}

void lose_power_at(long operation, int how, uint32_t seed) {
    left = operation;
    harm = how;
    noise = seed * 2654435761u | 1u;
}

void lose_silently(long operation) { worn_in = operation; }

long operations_done(void) {
    const long n = operations;
    operations = 0;
    return n;
}

uint32_t misuse(void) { return misuses; }

void forgive(void) { misuses = 0; }

/* The device's content, and what of it is blank, out and back in. */
void device_get(uint8_t *bytes) {
    memcpy(bytes, memory, size);
    memcpy(bytes + size, blank, size);
}

void device_put(const uint8_t *bytes) {
    memcpy(memory, bytes, size);
    memcpy(blank, bytes + size, size);
}

int store_save(uint32_t steps) { return (int)strop_store_save(&store, &strop_model, steps); }

int store_load(uint32_t *steps) { return (int)strop_store_load(&store, &strop_model, steps); }

int store_forget(void) { return (int)strop_store_forget(&store, &strop_model); }

/* As firmware of another model: the same tensors under another hash. */
int store_save_other(uint32_t steps) {
    strop_model_t other = strop_model;
    other.hash[0] ^= 1u;
    return (int)strop_store_save(&store, &other, steps);
}

uint32_t store_erases(uint32_t slot) { return store.erases[slot]; }

uint32_t model_bytes_of(uint32_t tensor) { return strop_model.tensors[tensor].bytes; }

void model_get(uint32_t tensor, uint8_t *bytes) {
    memcpy(bytes, strop_model.tensors[tensor].data, strop_model.tensors[tensor].bytes);
}

void model_put(uint32_t tensor, const uint8_t *bytes) {
    memcpy(strop_model.tensors[tensor].data, bytes, strop_model.tensors[tensor].bytes);
}
