/* The memory that checkpoints are kept in. */
#ifndef FLASH_H
#define FLASH_H

#include "store.h"

#define CHECKPOINT_BYTES @checkpoint@u /* of parameters and optimizer state */

/* Bytes of a region that holds two checkpoints. */
#define FLASH_BYTES(sector, unit) (2u * STROP_STORE_PADDED(STROP_STORE_SLOT_BYTES(CHECKPOINT_BYTES, unit), sector))

#ifdef __cplusplus
extern "C" {
#endif

extern const strop_store_config_t flash;

#ifdef __cplusplus
}
#endif
#endif
