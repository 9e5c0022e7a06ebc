/* The board's program: one model, one session, one serial line. The build passes STROP_BOARD and STROP_WINDOW. */
#include "port.h"
#include "session.h"
#include "strop_model.h"

/* Room for one STEP, or for a WRITE of a kilobyte, whichever is larger. */
enum {
    STEP_BYTES = STROP_SESSION_RX_BYTES(STROP_MODEL_X_BYTES, STROP_MODEL_Y_BYTES),
    RX_BYTES = STROP_SESSION_MAX(STEP_BYTES, 1024U),
};

static _Alignas(8) uint8_t rx[RX_BYTES];
static _Alignas(8) uint8_t out[STROP_SESSION_OUT_BYTES(STROP_MODEL_OUT_BYTES)];
static uint8_t bytes[256];
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
};

int main(void) {
    strop_port_init();
    strop_model.init();
    if (strop_session_init(&session, &config) != STROP_OK) {
        return 1;
    }
    for (;;) {
        strop_session_feed(&session, bytes, strop_port_read(bytes, sizeof bytes));
    }
}
