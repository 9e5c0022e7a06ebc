/*
 * twin.c: a model and its session in a shared library of the PC.
 *
 * The same model, the same session and the same frames as on a board, plus calls that pass the frames by for speed.
 * One library holds one board: who wants two loads two copies of the file (host/transport/loopback.py does).
 * Nothing here blocks; calls must not overlap. Sizes come from the generated `strop_model.h`.
 */
#include <string.h>

#include "session.h"
#include "strop_model.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define WINDOW 65536u      /* feeding is a call: no byte is ever lost; this only bounds what a host prepares ahead */
#define RX_PAYLOAD 16384u  /* at least, so that WRITE takes large pieces */
#define STAGE_BYTES 16384u /* a callback into Python costs as much as some hundred bytes */

#define STEP_PAYLOAD STROP_SESSION_STEP_BYTES(STROP_MODEL_X_BYTES, STROP_MODEL_Y_BYTES)
#define RX_BYTES STROP_SESSION_RX_BYTES(STROP_SESSION_MAX(STEP_PAYLOAD, RX_PAYLOAD), 0u)

#define STORE_BUFFER 4096u /* a multiple of every unit */

typedef void (*sink_t)(const uint8_t *bytes, size_t n);

EXPORT void strop_twin_store(uint8_t *memory, uint32_t bytes, uint32_t sector, uint32_t unit);
EXPORT int strop_twin_open(sink_t sink);
EXPORT void strop_twin_feed(const uint8_t *bytes, size_t n);
EXPORT void strop_twin_init(void);
EXPORT int strop_twin_save(void);
EXPORT int strop_twin_load(void);
EXPORT int strop_twin_forget(void);
EXPORT int strop_twin_autosave(uint32_t steps);
EXPORT uint32_t strop_twin_steps(void);
EXPORT uint32_t strop_twin_train(uint32_t n, const void *xs, const void *ys, float *losses);
EXPORT void strop_twin_infer(uint32_t n, const void *xs, void *outs);
EXPORT int strop_twin_read(uint32_t index, uint32_t offset, void *bytes, uint32_t n);
EXPORT int strop_twin_write(uint32_t index, uint32_t offset, const void *bytes, uint32_t n);
EXPORT void strop_twin_log(const char *line);

static _Alignas(8) uint8_t rx[RX_BYTES];
static _Alignas(8) uint8_t out[STROP_SESSION_OUT_BYTES(STROP_MODEL_OUT_BYTES)];
static uint8_t stage[STAGE_BYTES];
static size_t staged;
static sink_t sink_of_host;
static strop_session_t session;

/* The PC's cores have no count that repeats. */
uint64_t strop_port_counter(void) { return 0; }

static void drain(void) {
    if (staged > 0) {
        sink_of_host(stage, staged);
    }
    staged = 0;
}

static void write_staged(void *ctx, const uint8_t *bytes, size_t n) {
    (void)ctx;
    if (n > sizeof stage - staged) {
        drain();
    }
    memcpy(stage + staged, bytes, n); /* an encoder writes at most 256 bytes at a time */
    staged += n;
}

/* ---- a flash in memory ---- */

static uint8_t *flash;
static _Alignas(4) uint8_t store_buffer[STORE_BUFFER];
static strop_store_t store;

static int flash_read(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    (void)ctx;
    memcpy(bytes, flash + offset, n);
    return 0;
}

static int flash_erase(void *ctx, uint32_t offset) {
    const strop_store_config_t *c = ctx;
    memset(flash + offset, 0xFF, c->sector);
    return 0;
}

static int flash_write(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    const uint8_t *from = bytes;
    (void)ctx;
    for (uint32_t i = 0; i < n; i++) {
        flash[offset + i] &= from[i]; /* as flash does: bits fall, and only an erase raises them */
    }
    return 0;
}

static strop_store_config_t store_config = {
    .buffer = store_buffer,
    .buffer_bytes = sizeof store_buffer,
    .ctx = &store_config,
    .read = flash_read,
    .erase = flash_erase,
    .write = flash_write,
};

/* ---- the board ---- */

static const strop_session_config_t config = {
    .model = &strop_model,
    .board = "host",
    .window = WINDOW,
    .rx = rx,
    .rx_bytes = sizeof rx,
    .out = out,
    .out_bytes = sizeof out,
    .write = write_staged,
    .store = &store,
};

/* Memory of the host's that plays the flash, from the next power on; NULL: the board has no store. */
void strop_twin_store(uint8_t *memory, uint32_t bytes, uint32_t sector, uint32_t unit) {
    flash = memory;
    store_config.bytes = bytes;
    store_config.sector = sector;
    store_config.unit = unit;
}

/* Power on: the newest checkpoint or initial parameters, a fresh session. `sink` takes what the board sends, then and
 * during feed and log. Returns an enum strop_status. */
int strop_twin_open(sink_t sink) {
    sink_of_host = sink;
    staged = 0;
    strop_model.init();
    enum strop_status status = strop_session_init(&session, &config);
    memset(&store, 0, sizeof store);
    if (flash != NULL && status == STROP_OK) {
        status = strop_store_init(&store, &store_config);
        strop_session_resume(&session);
        drain();
    }
    return (int)status;
}

/* Bytes from the host; every reply has gone to the sink on return. */
void strop_twin_feed(const uint8_t *bytes, size_t n) {
    strop_session_feed(&session, bytes, n);
    drain();
}

void strop_twin_log(const char *line) {
    strop_session_log(&session, line);
    drain();
}

void strop_twin_init(void) { strop_session_reset(&session); }

/* Each returns an enum strop_status. */
int strop_twin_save(void) { return (int)strop_session_save(&session); }

int strop_twin_load(void) { return (int)strop_session_load(&session); }

int strop_twin_forget(void) { return (int)strop_session_forget(&session); }

int strop_twin_autosave(uint32_t steps) { return (int)strop_session_autosave(&session, steps); }

uint32_t strop_twin_steps(void) { return session.steps; }

/* Trains on n batches in sequence. xs: n * x_bytes, ys: n * y_bytes, losses: n. Returns how many were trained: fewer
 * than n when that batch has a label out of range. */
uint32_t strop_twin_train(uint32_t n, const void *xs, const void *ys, float *losses) {
    const uint8_t *x = xs, *y = ys;
    strop_ack_t ack;
    for (uint32_t i = 0; i < n; i++) {
        if (strop_session_train(&session, x, y, &ack) != STROP_OK) {
            return i;
        }
        losses[i] = ack.loss;
        x += STROP_MODEL_X_BYTES;
        y += STROP_MODEL_Y_BYTES;
    }
    return n;
}

/* xs: n * x_bytes, outs: n * out_bytes. */
void strop_twin_infer(uint32_t n, const void *xs, void *outs) {
    const uint8_t *x = xs;
    uint8_t *y = outs;
    for (uint32_t i = 0; i < n; i++, x += STROP_MODEL_X_BYTES, y += STROP_MODEL_OUT_BYTES) {
        strop_model.infer(x, y);
    }
}

/* Both return an enum strop_status; strop_twin_write checks that the tensor is writable. */
int strop_twin_read(uint32_t index, uint32_t offset, void *bytes, uint32_t n) {
    uint8_t *address;
    enum strop_status status = strop_tensor_at(&strop_model, index, offset, n, &address);
    if (status == STROP_OK) {
        memcpy(bytes, address, n);
    }
    return (int)status;
}

int strop_twin_write(uint32_t index, uint32_t offset, const void *bytes, uint32_t n) {
    return (int)strop_tensor_write(&strop_model, index, offset, bytes, n);
}
