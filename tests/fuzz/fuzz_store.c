/* Gives a store whatever a flash may hold and checks the invariants S1 to S3 of runtime/SECURITY.md.
 *
 *     fuzz_store SEED DEVICES             that many devices, of noise or nearly right, from a generator
 *
 * Built with the address and undefined-behaviour sanitizers, which watch S1: device and buffer come from malloc, each
 * with exactly its size. Ends with status 0, or says which invariant broke and aborts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

enum { SECTOR = 512, UNIT = 4, SLOT = 4 * SECTOR, BYTES = 2 * SLOT, BUFFER = 48 };
enum { WEIGHTS = 1200, DATA = 1204, COMMIT_AT = 48, DATA_AT = 48 + 9 * 16 };
enum { UNTOUCHED = 123456789, NEW = 123456 };
enum { MAGIC = 0, FORMAT = 4, SEQUENCE = 8, SIZE = 20, HASH = 28, HEADER_CRC = 44 };

static uint8_t *device;
static strop_store_config_t config;
static strop_store_t store;
static uint32_t state;

static void must(int holds, const char *invariant) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", invariant);
        abort();
    }
}

static uint32_t below(uint32_t n) { /* xorshift32, Marsaglia 2003 */
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % n;
}

/* ---- the device ---- */

static int read_device(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    (void)ctx;
    must(offset <= BYTES && n <= BYTES - offset, "S1: reads stay in the region");
    memcpy(bytes, device + offset, n);
    return 0;
}

static int erase_device(void *ctx, uint32_t offset) {
    (void)ctx;
    must(offset < BYTES && offset % SECTOR == 0, "S1: erases stay in the region");
    memset(device + offset, 0xFF, SECTOR);
    return 0;
}

static int write_device(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    (void)ctx;
    must(offset < BYTES && n <= BYTES - offset, "S1: writes stay in the region");
    memcpy(device + offset, bytes, n);
    return 0;
}

/* ---- what may be loaded, read from the description in store.h ---- */

static uint32_t word_at(uint32_t at) {
    uint32_t word;
    memcpy(&word, device + at, sizeof word);
    return word;
}

static void put_word(uint32_t at, uint32_t word) { memcpy(device + at, &word, sizeof word); }

static int is_whole(uint32_t slot) {
    const uint32_t at = slot * SLOT;
    return strop_crc32(1, device + at, HEADER_CRC) == word_at(at + HEADER_CRC) && word_at(at + MAGIC) == 0x70727473u &&
           word_at(at + FORMAT) == 1 && memcmp(device + at + HASH, strop_model.hash, 16) == 0 &&
           word_at(at + SIZE) == DATA && strop_crc32(2, device + at + COMMIT_AT, 12) == word_at(at + COMMIT_AT + 12) &&
           word_at(at + COMMIT_AT) == word_at(at + HEADER_CRC) &&
           strop_crc32(0, device + at + DATA_AT, DATA) == word_at(at + COMMIT_AT + 4);
}

/* The slot that must load; 2: none. */
static uint32_t expected(void) {
    if (is_whole(0) && is_whole(1)) {
        return word_at(SLOT + SEQUENCE) - word_at(SEQUENCE) - 1u < INT32_MAX ? 1 : 0;
    }
    return is_whole(0) ? 0 : is_whole(1) ? 1 : 2;
}

static void get_model(uint8_t *bytes) {
    memcpy(bytes, strop_model.tensors[0].data, WEIGHTS);
    memcpy(bytes + WEIGHTS, strop_model.tensors[2].data, DATA - WEIGHTS);
}

static void fill_model(void) {
    uint8_t *weights = strop_model.tensors[0].data;
    for (uint32_t i = 0; i < WEIGHTS; i++) {
        weights[i] = (uint8_t)below(256);
    }
}

/* ---- what it may hold ---- */

static void reseal(uint32_t slot) {
    const uint32_t at = slot * SLOT;
    put_word(at + HEADER_CRC, strop_crc32(1, device + at, HEADER_CRC));
    if (below(4) != 0) { /* a commit record of this header; else of another */
        put_word(at + COMMIT_AT, word_at(at + HEADER_CRC));
    }
    put_word(at + COMMIT_AT + 12, strop_crc32(2, device + at + COMMIT_AT, 12));
}

/* A header that is sealed but not right, and a size at or beyond every bound. */
static void forge(uint32_t slot) {
    static const uint32_t sizes[] = {0, 1, DATA - 1, DATA, DATA + 1, SLOT - DATA_AT, SLOT - DATA_AT + 1, SLOT, BYTES,
                                     INT32_MAX, 0x80000000u, UINT32_MAX};
    static const uint32_t fields[] = {MAGIC, FORMAT, SEQUENCE, 12, 16, 24, HASH, HASH + 12};
    const uint32_t at = slot * SLOT, size = sizes[below(sizeof sizes / sizeof *sizes)];
    put_word(at + SIZE, size);
    if (below(2) == 0) {
        put_word(at + fields[below(sizeof fields / sizeof *fields)], below(2) == 0 ? below(4) : state);
    }
    if (size <= SLOT - DATA_AT) {
        put_word(at + COMMIT_AT + 4, strop_crc32(0, device + at + DATA_AT, size));
    }
    reseal(slot);
}

static void fill_device(void) {
    const uint32_t kind = below(8);
    for (uint32_t i = 0; i < BYTES; i++) {
        device[i] = kind == 0 ? 0xFF : (uint8_t)below(256);
    }
    must(strop_store_init(&store, &config) == STROP_OK, "the config is right");
    for (uint32_t saves = kind < 2 ? 0 : below(4); saves > 0; saves--) {
        fill_model();
        must(strop_store_save(&store, &strop_model, below(1000)) == STROP_OK, "S3: a save is complete");
    }
    for (uint32_t forged = below(3); forged > 0; forged--) {
        forge(below(2));
    }
    for (uint32_t harm = below(3); harm > 0; harm--) {
        device[below(2) * SLOT + below(below(2) == 0 ? DATA_AT : SLOT)] ^= (uint8_t)(1u << below(8));
    }
}

/* ---- */

/* Returns whether one was loaded; *steps: what came with it. */
static uint32_t check_load(uint32_t *steps) {
    static uint8_t before[DATA], after[DATA];
    *steps = UNTOUCHED;
    fill_model();
    get_model(before);
    const uint32_t slot = expected();
    must(strop_store_init(&store, &config) == STROP_OK, "the config is right");
    const enum strop_status status = strop_store_load(&store, &strop_model, steps);
    get_model(after);
    if (slot < 2) {
        must(status == STROP_OK && *steps == word_at(slot * SLOT + 24), "S2: the newest whole checkpoint loads");
        must(memcmp(after, device + slot * SLOT + DATA_AT, DATA) == 0, "S2: as it was saved");
    } else {
        must(status == STROP_NO_CHECKPOINT || status == STROP_OTHER_MODEL, "S2: else there is a status");
        must(memcmp(after, before, DATA) == 0 && *steps == UNTOUCHED, "S2: and the model stays as it is");
    }
    return slot < 2;
}

int main(int argc, char **argv) {
    const long devices = argc == 3 ? atol(argv[2]) : 0;
    long loaded = 0;
    uint32_t steps;
    state = (uint32_t)atoi(argv[1]) * 2654435761u + 1u;
    device = malloc(BYTES);
    config = (strop_store_config_t){.bytes = BYTES, .sector = SECTOR, .unit = UNIT, .buffer = malloc(BUFFER),
                                    .buffer_bytes = BUFFER, .read = read_device, .erase = erase_device,
                                    .write = write_device};
    for (long i = 0; i < devices; i++) {
        fill_device();
        loaded += check_load(&steps);
        must(strop_store_save(&store, &strop_model, NEW) == STROP_OK, "S3: whatever is there, a save is complete");
        must(check_load(&steps) && steps == NEW, "S3: and loads");
        must(below(4) != 0 || (strop_store_forget(&store, &strop_model) == STROP_OK && !check_load(&steps)),
             "S3: and can be forgotten");
    }
    must(loaded > devices / 10 && loaded < devices, "the generator reaches both ends");
    free(config.buffer);
    free(device);
    return 0;
}
