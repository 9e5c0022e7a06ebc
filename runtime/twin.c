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

typedef void (*sink_t)(const uint8_t *bytes, size_t n);

EXPORT int strop_twin_open(sink_t sink);
EXPORT void strop_twin_feed(const uint8_t *bytes, size_t n);
EXPORT void strop_twin_init(void);
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

static const strop_session_config_t config = {
    .model = &strop_model,
    .board = "host",
    .window = WINDOW,
    .rx = rx,
    .rx_bytes = sizeof rx,
    .out = out,
    .out_bytes = sizeof out,
    .write = write_staged,
};

/* Power on: initial parameters, a fresh session. `sink` takes what the board sends, during feed and log.
 * Returns an enum strop_status. */
int strop_twin_open(sink_t sink) {
    sink_of_host = sink;
    staged = 0;
    strop_model.init();
    return (int)strop_session_init(&session, &config);
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
