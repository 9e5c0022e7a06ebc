/* The board's program: one model, one session, one serial line, and a store where the board has one. The build passes
 * STROP_BOARD and STROP_WINDOW, and of a store STROP_STORE_BYTES, STROP_STORE_SECTOR and STROP_STORE_UNIT. */
#ifdef STROP_ONBOARD
#include "onboard.h"
#endif
#include "port.h"
#include "session.h"
#include "strop_model.h"

/* Room for one STEP, or for a WRITE of a kilobyte, whichever is larger. */
enum {
    STEP_BYTES = STROP_SESSION_RX_BYTES(STROP_MODEL_X_BYTES, STROP_MODEL_Y_BYTES),
    RX_BYTES = STROP_SESSION_MAX(STEP_BYTES, 1024U),
    CHUNK_BYTES = STROP_WINDOW < 256U ? STROP_WINDOW : 256U, /* a port has no more at a time */
};

static _Alignas(8) uint8_t rx[RX_BYTES];
static _Alignas(8) uint8_t out[STROP_SESSION_OUT_BYTES(STROP_MODEL_OUT_BYTES)];
static uint8_t bytes[CHUNK_BYTES];
static strop_session_t session;

static void send(void *ctx, const uint8_t *data, size_t n) {
    (void)ctx;
    strop_port_write(data, n);
}

static uint32_t stack_used(void *ctx) {
    (void)ctx;
    return strop_port_stack_used();
}

static void restart(void *ctx, uint32_t code) {
    (void)ctx;
    strop_port_exit((int)code);
}

#ifdef STROP_STORE_BYTES
static _Alignas(4) uint8_t buffer[STROP_STORE_BUFFER_BYTES(STROP_STORE_UNIT)];
static strop_store_t store;

static int store_read(void *ctx, uint32_t offset, void *data, uint32_t n) {
    (void)ctx;
    return strop_port_store_read(offset, data, n);
}

static int store_erase(void *ctx, uint32_t offset) {
    (void)ctx;
    return strop_port_store_erase(offset);
}

static int store_write(void *ctx, uint32_t offset, const void *data, uint32_t n) {
    (void)ctx;
    return strop_port_store_write(offset, data, n);
}

static const strop_store_config_t store_config = {
    .bytes = STROP_STORE_BYTES,
    .sector = STROP_STORE_SECTOR,
    .unit = STROP_STORE_UNIT,
    .buffer = buffer,
    .buffer_bytes = sizeof buffer,
    .read = store_read,
    .erase = store_erase,
    .write = store_write,
};

/* A port without a driver has a store that fails. */
__attribute__((weak)) int strop_port_store_read(uint32_t offset, void *data, uint32_t n) {
    (void)offset, (void)data, (void)n;
    return 1;
}

__attribute__((weak)) int strop_port_store_erase(uint32_t offset) {
    (void)offset;
    return 1;
}

__attribute__((weak)) int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    (void)offset, (void)data, (void)n;
    return 1;
}
#endif

static const strop_session_config_t config = {
    .model = &strop_model,
    .board = STROP_BOARD,
    .window = STROP_WINDOW,
    .rx = rx,
    .rx_bytes = sizeof rx,
    .out = out,
    .out_bytes = sizeof out,
    .write = send,
    .stack_used = stack_used,
    .restart = restart,
#ifdef STROP_STORE_BYTES
    .store = &store,
#endif
};

int main(void) {
    strop_port_init();
    strop_model.init();
    if (strop_session_init(&session, &config) != STROP_OK) {
        return 1;
    }
#ifdef STROP_STORE_BYTES
    (void)strop_store_init(&store, &store_config);
    strop_session_resume(&session);
#endif
#ifdef STROP_ONBOARD
    strop_onboard(&session);
#endif
    for (;;) {
        strop_session_feed(&session, bytes, strop_port_read(bytes, sizeof bytes));
    }
}
