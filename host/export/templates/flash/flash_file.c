/* A file that plays flash: checkpoints outlive the program. */
#include "flash.h"

#include <stdio.h>

enum { SECTOR = 1024, UNIT = 4 };

static _Alignas(4) uint8_t buffer[STROP_STORE_BUFFER_BYTES(UNIT)];

/* The file, filled with erased bytes when it is new; NULL where there can be none. */
static FILE *opened(void) {
    static const char name[] = "strop_model.flash";
    static FILE *file;
    if (file == NULL && (file = fopen(name, "r+b")) == NULL && (file = fopen(name, "w+b")) != NULL) {
        for (unsigned i = 0; i < FLASH_BYTES(SECTOR, UNIT); ++i) {
            (void)fputc(0xFF, file);
        }
    }
    return file;
}

static int flash_read(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    FILE *const file = opened();
    (void)ctx;
    return file == NULL || fseek(file, (long)offset, SEEK_SET) != 0 || fread(bytes, 1, n, file) != n;
}

static int flash_write(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    FILE *const file = opened();
    (void)ctx;
    return file == NULL || fseek(file, (long)offset, SEEK_SET) != 0 || fwrite(bytes, 1, n, file) != n ||
           fflush(file) != 0;
}

static int flash_erase(void *ctx, uint32_t offset) {
    static const uint8_t erased[] = {0xFF, 0xFF, 0xFF, 0xFF};
    for (uint32_t i = 0; i < SECTOR; i += sizeof erased) {
        if (flash_write(ctx, offset + i, erased, sizeof erased) != 0) {
            return 1;
        }
    }
    return 0;
}

const strop_store_config_t flash = {
    .bytes = FLASH_BYTES(SECTOR, UNIT),
    .sector = SECTOR,
    .unit = UNIT,
    .buffer = buffer,
    .buffer_bytes = sizeof buffer,
    .read = flash_read,
    .erase = flash_erase,
    .write = flash_write,
};
