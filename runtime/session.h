/*
 * session.h: the board's side of the wire.
 *
 *     static _Alignas(8) uint8_t rx[STROP_SESSION_RX_BYTES(STROP_MODEL_X_BYTES, STROP_MODEL_Y_BYTES)];
 *     static _Alignas(8) uint8_t out[STROP_SESSION_OUT_BYTES(STROP_MODEL_OUT_BYTES)];
 *     static const strop_session_config_t config = {.model = &strop_model, .board = "my-board", .rx = rx, …};
 *     static strop_session_t session;
 *
 *     strop_model.init();
 *     strop_session_init(&session, &config);
 *     strop_session_resume(&session);                    with a store: goes on from its checkpoint
 *     for (;;) strop_session_feed(&session, bytes, strop_port_read(bytes, sizeof bytes));
 *
 * A session answers each frame before it looks at the next byte, so that order on the wire is order in the model.
 * Whatever it is fed, it stays in bounds and answers with a status (SECURITY.md). It allocates nothing; its stack is
 * constant. Not reentrant: not for interrupts, and no callback may call back into it.
 *
 * Cost: 600 bytes of RAM beside the two buffers, some 5 KB of flash (4 KB more with a store); some 35 instructions
 * for a byte received and 30 for one sent on rv32, fewer on Cortex-M; 17 of them are the CRC.
 */
#ifndef STROP_SESSION_H
#define STROP_SESSION_H

#include "frame.h"
#include "store.h"
#include "strop.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Replies to changes kept for a host that missed them: 16 bytes of RAM each, and as many requests as a host may have in
 * flight. >= 1. */
#ifndef STROP_SESSION_REPLIES
#define STROP_SESSION_REPLIES 16
#endif

/* 0 for a board without a store: then none of store.c is linked, and SAVE and its like are refused. */
#ifndef STROP_SESSION_STORE
#define STROP_SESSION_STORE 1
#endif

/* The smallest payload a session must be able to take: every request without tensor bytes, or a WRITE of 52. */
#define STROP_SESSION_MIN_PAYLOAD 60u

/* Labels follow x at the next multiple of 4. */
#define STROP_SESSION_Y_OFFSET(x_bytes) (((x_bytes) + 3u) & ~3u)
#define STROP_SESSION_STEP_BYTES(x_bytes, y_bytes) (STROP_SESSION_Y_OFFSET(x_bytes) + (y_bytes))
#define STROP_SESSION_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Sizes of the two buffers a session needs: one decoded frame, and INFER's reply (its cost, then the output). */
#define STROP_SESSION_RX_BYTES(x_bytes, y_bytes) \
    (STROP_FRAME_HEADER + STROP_SESSION_MAX(STROP_SESSION_STEP_BYTES(x_bytes, y_bytes), STROP_SESSION_MIN_PAYLOAD) + \
     STROP_FRAME_TRAILER)
#define STROP_SESSION_OUT_BYTES(out_bytes) (8u + (out_bytes))

/* What a session works with. The caller owns all of it and keeps it as long as the session. */
typedef struct {
    const strop_model_t *model; /* already initialised */
    const char *board;          /* the board's name; 32 bytes of it are told to the host */
    uint32_t window;            /* bytes the port takes in while the model computes; UINT32_MAX: it never loses any */
    uint8_t *rx;                /* 8-aligned; x and y are used in place */
    uint32_t rx_bytes;          /* >= STROP_SESSION_RX_BYTES(…); larger makes WRITE faster */
    uint8_t *out;               /* 8-aligned */
    uint32_t out_bytes;         /* >= STROP_SESSION_OUT_BYTES(…) */
    void *ctx;                  /* first argument of the callbacks */
    strop_write_t write;        /* takes encoded bytes to the wire; may block */
    uint32_t (*stack_used)(void *ctx);           /* high-water mark in bytes; NULL: unknown */
    void (*restart)(void *ctx, uint32_t code);   /* REBOOT: sends what is unsent, then restarts; NULL: refused */
    strop_store_t *store;                        /* NULL, or never initialised: no checkpoints */
    uint32_t autosave;                           /* steps between checkpoints until a host says otherwise; 0: none */
} strop_session_config_t;

/* What a change (STEP, WRITE, RESET, SAVE, …) did; on the wire as it lies here. */
typedef struct {
    uint32_t steps; /* done since the parameters were initial; this one included */
    float loss;     /* of a STEP; 0 otherwise */
    uint64_t cost;  /* of a STEP: counter difference around the train step, without autosave; 0 otherwise */
} strop_ack_t;

/* To look at: `steps` and the counters. The rest is the session's own. */
typedef struct {
    const strop_session_config_t *config;
    strop_decoder_t decoder;
    strop_encoder_t encoder;
    strop_header_t request; /* header of the frame in rx */
    uint32_t size;          /* bytes of its payload */
    uint32_t next;          /* sequence number of the next request */
    uint32_t kept;          /* changes without a question since, <= STROP_SESSION_REPLIES: these replies are kept */
    uint32_t steps;
    uint32_t saved;    /* steps of the checkpoint that was last saved or loaded; UINT32_MAX: none since power on */
    uint32_t autosave; /* steps between two checkpoints; 0: none by itself */
    uint32_t good, bad, duplicates, gaps, logs; /* frames */
    uint32_t nan, inf;                          /* steps whose loss was NaN, or infinite */
    strop_ack_t replies[STROP_SESSION_REPLIES]; /* to the latest changes, by sequence number */
} strop_session_t;

/* Returns STROP_OK, or STROP_BAD_LENGTH when a buffer of the config is too small for the model. Does not touch the
 * model and sends nothing. */
enum strop_status strop_session_init(strop_session_t *session, const strop_session_config_t *config);

/* Takes n bytes from the wire, in any pieces; carries out and answers every frame that is complete. */
void strop_session_feed(strop_session_t *session, const uint8_t *bytes, size_t n);

/* Sends one line of UTF-8, at most 1024 bytes of it, to the host. Not from inside a callback. */
void strop_session_log(strop_session_t *session, const char *line);

/* The same without the wire, for a main loop that has data of its own, and for the twin. Returns STROP_OK, or
 * STROP_BAD_LABEL with nothing trained. */
enum strop_status strop_session_train(strop_session_t *session, const void *x, const void *y, strop_ack_t *ack);
void strop_session_reset(strop_session_t *session);

/* The same for checkpoints: model and count of steps into the store, back from it, and both to their beginning with
 * nothing left in the store. Return STROP_OK, STROP_UNSUPPORTED without a store, or what store.h says. A model that
 * could not be loaded or forgotten stays as it is, unless store.h says that it is initialised. */
enum strop_status strop_session_save(strop_session_t *session);
enum strop_status strop_session_load(strop_session_t *session);
enum strop_status strop_session_forget(strop_session_t *session);

/* From now on a checkpoint whenever the count of steps is a multiple of `steps`; 0: none by itself. A save that fails
 * is told in a LOG, and training goes on. Returns STROP_OK or STROP_UNSUPPORTED. */
enum strop_status strop_session_autosave(strop_session_t *session, uint32_t steps);

/* Loads the newest checkpoint, if there is one, and says so in a LOG: for a board that has started. */
void strop_session_resume(strop_session_t *session);

/* The address of n bytes at an offset of a tensor; checks every bound. Returns STROP_OK, _BAD_TENSOR or _BAD_RANGE. */
enum strop_status strop_tensor_at(const strop_model_t *model, uint32_t index, uint32_t offset, uint32_t n,
                                  uint8_t **address);
/* Copies n bytes into a tensor. Returns STROP_OK, _BAD_TENSOR, _BAD_RANGE or _READ_ONLY. */
enum strop_status strop_tensor_write(const strop_model_t *model, uint32_t index, uint32_t offset, const void *bytes,
                                     uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
