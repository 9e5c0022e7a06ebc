/* The partition that the board's devicetree calls storage. */
#include "flash.h"

#include <zephyr/storage/flash_map.h>

enum { SECTOR = 4096, UNIT = 8 }; /* what most flash controllers divide; see your board's devicetree */

static _Alignas(8) uint8_t buffer[STROP_STORE_BUFFER_BYTES(UNIT)];

static const struct flash_area *area(void) {
    static const struct flash_area *opened;
    if (opened == NULL && flash_area_open(FIXED_PARTITION_ID(storage_partition), &opened) != 0) {
        opened = NULL;
    }
    return opened;
}

static int flash_read_at(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    (void)ctx;
    return area() == NULL || flash_area_read(area(), (off_t)offset, bytes, n) != 0;
}

static int flash_write_at(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    (void)ctx;
    return area() == NULL || flash_area_write(area(), (off_t)offset, bytes, n) != 0;
}

static int flash_erase_at(void *ctx, uint32_t offset) {
    (void)ctx;
    return area() == NULL || flash_area_erase(area(), (off_t)offset, SECTOR) != 0;
}

const strop_store_config_t flash = {
    .bytes = FLASH_BYTES(SECTOR, UNIT),
    .sector = SECTOR,
    .unit = UNIT,
    .buffer = buffer,
    .buffer_bytes = sizeof buffer,
    .read = flash_read_at,
    .erase = flash_erase_at,
    .write = flash_write_at,
};
