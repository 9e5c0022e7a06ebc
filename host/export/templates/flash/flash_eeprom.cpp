/* The board's EEPROM, or what its core makes of flash under that name. Where writes are collected and committed, as on
 * ESP32 and RP2040, a checkpoint is as safe from a loss of power as that core's commit. */
#include "flash.h"

#include <EEPROM.h>

#if defined(ESP32) || defined(ESP8266) || defined(ARDUINO_ARCH_RP2040)
#define COLLECTED 1
#else
#define COLLECTED 0
#endif

static const uint32_t SECTOR = 64, UNIT = 4;

alignas(4) static uint8_t buffer[STROP_STORE_BUFFER_BYTES(4)];

static int committed(void) {
#if COLLECTED
    return EEPROM.commit() ? 0 : 1;
#else
    return 0;
#endif
}

static int flash_read(void *, uint32_t offset, void *bytes, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
        static_cast<uint8_t *>(bytes)[i] = EEPROM.read(static_cast<int>(offset + i));
    }
    return 0;
}

static int flash_write(void *, uint32_t offset, const void *bytes, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
        EEPROM.write(static_cast<int>(offset + i), static_cast<const uint8_t *>(bytes)[i]);
    }
    return committed();
}

static int flash_erase(void *, uint32_t offset) {
    for (uint32_t i = 0; i < SECTOR; ++i) {
        EEPROM.write(static_cast<int>(offset + i), 0xFF);
    }
    return committed();
}

extern "C" void flash_begin(void) {
#if COLLECTED
    EEPROM.begin(FLASH_BYTES(SECTOR, UNIT));
#endif
}

extern "C" const strop_store_config_t flash = {
    FLASH_BYTES(SECTOR, UNIT), SECTOR, UNIT, buffer, sizeof buffer, nullptr, flash_read, flash_erase, flash_write,
};
