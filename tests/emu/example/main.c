/* An exported example as a board's program: lines go to the serial line, checkpoints to a memory that forgets. */
#include "example.h"
#include "flash.h"
#include "port.h"

enum { SECTOR = 1024, UNIT = 4 };

static uint8_t memory[FLASH_BYTES(SECTOR, UNIT)];
static _Alignas(4) uint8_t buffer[STROP_STORE_BUFFER_BYTES(UNIT)];

static int flash_read(void *ctx, uint32_t offset, void *bytes, uint32_t n)
{
    (void)ctx;
    for (uint32_t i = 0; i < n; i++) {
        ((uint8_t *)bytes)[i] = memory[offset + i];
    }
    return 0;
}

static int flash_write(void *ctx, uint32_t offset, const void *bytes, uint32_t n)
{
    (void)ctx;
    for (uint32_t i = 0; i < n; i++) {
        memory[offset + i] &= ((const uint8_t *)bytes)[i];
    }
    return 0;
}

static int flash_erase(void *ctx, uint32_t offset)
{
    (void)ctx;
    for (uint32_t i = 0; i < SECTOR; i++) {
        memory[offset + i] = 0xFF;
    }
    return 0;
}

const strop_store_config_t flash = {
    .bytes = sizeof memory,
    .sector = SECTOR,
    .unit = UNIT,
    .buffer = buffer,
    .buffer_bytes = sizeof buffer,
    .read = flash_read,
    .erase = flash_erase,
    .write = flash_write,
};

static void say(const char *line)
{
    size_t n = 0;
    while (line[n] != '\0') {
        n++;
    }
    strop_port_write((const uint8_t *)line, n);
    strop_port_write((const uint8_t *)"\n", 1);
}

/* Waits for a byte before each round, so that no line is said before someone listens. */
int main(void)
{
    uint8_t byte;
    strop_port_init();
    strop_port_read(&byte, 1);
    example_begin(say);
    for (;;) {
        strop_port_read(&byte, 1);
        example_round(say);
    }
}
