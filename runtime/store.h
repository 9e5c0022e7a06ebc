/*
 * store.h: checkpoints in flash that survive the loss of power.
 *
 *     static _Alignas(4) uint8_t buffer[STROP_STORE_BUFFER_BYTES(4u)];
 *     static const strop_store_config_t config = {.bytes = 16384, .sector = 2048, .unit = 4, .buffer = buffer, …};
 *     static strop_store_t store;
 *
 *     strop_model.init();
 *     strop_store_init(&store, &config);
 *     strop_store_load(&store, &strop_model, &steps);    STROP_OK: goes on where it was; otherwise still initial
 *     …
 *     strop_store_save(&store, &strop_model, steps);
 *
 * A checkpoint is every writable tensor of the model (parameters, optimizer state, what a rule keeps) and a count of
 * steps. It goes from where the tensors lie straight to the device, and back: there is no copy in RAM.
 *
 * The device is cut into two slots; a save erases and writes the one that does not hold the newest checkpoint:
 *
 *     header, commit record, STROP_STORE_NOTES notes: each begins at a multiple of `unit`
 *     the tensors one after the other, as they lie in memory
 *
 * Power may vanish at any write or erase, or in the middle of one, with whatever that leaves in the unit or sector. A
 * slot counts only with a commit record, which is written last, after all before it was read back; and nothing is
 * loaded before the CRC over all of it is right. So a save leaves the old checkpoint or the new one, never half of one.
 *
 * Format 1; numbers are little-endian. A checkpoint carries the model's hash: another model's is never loaded.
 * Nothing here allocates or recurses. Every call blocks as long as the device does. Not reentrant, not for interrupts.
 *
 * Cost: some 3 KB of flash, 28 bytes of RAM and the buffer, 400 bytes of stack. A save takes three CRCs over the
 * tensors (17 instructions a byte on rv32) beside the device's own time, a load two.
 */
#ifndef STROP_STORE_H
#define STROP_STORE_H

#include "frame.h" /* enum strop_status */
#include "strop.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Notes a slot has room for: each keeps the other slot's count of erases when a save that lost power is repeated.
 * 16 bytes of the slot each, or `unit` if that is more. */
#define STROP_STORE_NOTES 8u

/* Bytes of the buffer: one header, and one unit. */
#define STROP_STORE_HEADER_BYTES 48u
#define STROP_STORE_BUFFER_BYTES(unit) (STROP_STORE_PADDED(STROP_STORE_HEADER_BYTES, unit))

/* Bytes of a slot that holds `data` bytes of tensors: the device's size is twice that, each rounded up to sectors. */
#define STROP_STORE_SLOT_BYTES(data, unit) \
    (STROP_STORE_PADDED(STROP_STORE_HEADER_BYTES, unit) + (1u + STROP_STORE_NOTES) * STROP_STORE_PADDED(16u, unit) + \
     STROP_STORE_PADDED(data, unit))
#define STROP_STORE_PADDED(n, unit) (((n) + (unit) - 1u) / (unit) * (unit))

/* The device. The caller owns all of it and keeps it as long as the store. Offsets count from the start of the region
 * that the store may use; no call leaves it. A callback returns 0, or anything else when the device has failed. */
typedef struct {
    uint32_t bytes;        /* of the region, at least two sectors; what two slots of whole sectors leave is unused */
    uint32_t sector;       /* bytes that one erase sets to 0xFF; all alike; a multiple of unit */
    uint32_t unit;         /* bytes that are written at a time, once only after an erase: 1, 2, 4, … 256 */
    uint8_t *buffer;       /* 4-aligned; every write comes from here, and what is read back goes here */
    uint32_t buffer_bytes; /* >= STROP_STORE_BUFFER_BYTES(unit), a multiple of unit; more means fewer callbacks */
    void *ctx;             /* first argument of the callbacks */
    /* Any n bytes at any offset. Must come back also where power was lost while writing: with any bytes, or with an
     * error where the memory reports one (ECC). A slot that gives an error is taken for an incomplete one. */
    int (*read)(void *ctx, uint32_t offset, void *bytes, uint32_t n);
    /* The sector that begins at `offset`. */
    int (*erase)(void *ctx, uint32_t offset);
    /* n bytes, both multiples of unit; never across a sector's end when buffer_bytes divides the sector; the
     * bytes were erased before. `bytes` is 4-aligned. Need not check: what was written is read back. */
    int (*write)(void *ctx, uint32_t offset, const void *bytes, uint32_t n);
} strop_store_config_t;

/* To look at: `erases`. The rest is the store's own. */
typedef struct {
    const strop_store_config_t *config; /* NULL: not initialised, or the device failed; every call is refused */
    uint32_t slot;                      /* bytes of each of the two */
    /* Times that the first sector of each slot was erased, to compare with what the device endures. Never goes back,
     * whenever power is lost. Of saves that lose power one after the other, those beyond STROP_STORE_NOTES are not
     * counted. */
    uint32_t erases[2];
    uint32_t at, filled; /* while writing: the next offset, and bytes waiting in the buffer */
} strop_store_t;

/* Looks what there is; writes nothing. Returns STROP_OK, or STROP_STORE_FAILED when the config breaks a bound above or
 * the device cannot be read; every later call is then refused with STROP_UNSUPPORTED. */
enum strop_status strop_store_init(strop_store_t *store, const strop_store_config_t *config);

/* Writes a checkpoint of the model; `steps` is the caller's own count, and comes back from strop_store_load. The model
 * stays as it is. Returns STROP_OK when it is complete and read back. Otherwise what was there before still loads:
 * STROP_STORE_TOO_SMALL (nothing was touched), STROP_STORE_FAILED, STROP_UNSUPPORTED.
 * A checkpoint of another model gives way only when this model has none of its own. */
enum strop_status strop_store_save(strop_store_t *store, const strop_model_t *model, uint32_t steps);

/* Sets the model to its newest complete checkpoint. steps: what was saved with it; untouched unless STROP_OK.
 * Returns STROP_OK; with the model untouched STROP_NO_CHECKPOINT, STROP_OTHER_MODEL (there is one, but of another model
 * or format) or STROP_UNSUPPORTED; or, if the device failed between checking and reading, STROP_STORE_FAILED with the
 * model initialised. */
enum strop_status strop_store_load(strop_store_t *store, const strop_model_t *model, uint32_t *steps);

/* Erases both slots, whosever they are, the one that loads last: if power is lost, the checkpoint that was newest still
 * loads or none does. The counts of erases stay. The model stays as it is; a factory reset is its init(), and this.
 * Returns STROP_OK, STROP_STORE_FAILED or STROP_UNSUPPORTED. */
enum strop_status strop_store_forget(strop_store_t *store, const strop_model_t *model);

#ifdef __cplusplus
}
#endif
#endif
