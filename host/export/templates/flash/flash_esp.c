/* The partition called model of partitions.csv. */
#include "flash.h"

#include "esp_partition.h"

enum { SECTOR = 4096, UNIT = 16 }; /* 16: also where flash is encrypted */

static _Alignas(4) uint8_t buffer[STROP_STORE_BUFFER_BYTES(UNIT)];

static const esp_partition_t *partition(void) {
    static const esp_partition_t *found;
    if (found == NULL) {
        found = esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, "model");
    }
    return found;
}

static int flash_read_at(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    (void)ctx;
    return partition() == NULL || esp_partition_read(partition(), offset, bytes, n) != ESP_OK;
}

static int flash_write_at(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    (void)ctx;
    return partition() == NULL || esp_partition_write(partition(), offset, bytes, n) != ESP_OK;
}

static int flash_erase_at(void *ctx, uint32_t offset) {
    (void)ctx;
    return partition() == NULL || esp_partition_erase_range(partition(), offset, SECTOR) != ESP_OK;
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
