/*
 * frame.h: what crosses the wire.
 *
 *     header (8 bytes) | payload (0 or more) | CRC-32 (4 bytes, little-endian)
 *
 * the whole of it COBS-encoded (no zero byte left) and ended by one zero byte. PROTOCOL.md shows every byte.
 * Decoder and encoder hold no more than their structures, keep no pointer to what they are fed, and never block.
 */
#ifndef STROP_FRAME_H
#define STROP_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STROP_PROTOCOL 1u      /* version in every header; changes only when an old peer could misread a frame */
#define STROP_FRAME_HEADER 8u  /* bytes; a multiple of 8, so that a payload is aligned like its frame */
#define STROP_FRAME_TRAILER 4u /* bytes of CRC */

/* Types of frames. Extend only. A reply's type is its request's plus STROP_REPLY. */
enum strop_type {
    STROP_NOTICE = 0,    /* board to host, as a reply: a frame was damaged */
    STROP_HELLO = 1,     /* who are you, and which request comes next? The only one without a place in the sequence */
    STROP_STEP = 2,      /* change: train on one batch */
    STROP_INFER = 3,     /* one batch of outputs */
    STROP_READ = 4,      /* bytes of a tensor */
    STROP_WRITE = 5,     /* change: bytes into a tensor */
    STROP_RESET = 6,     /* change: initial parameters and state */
    STROP_STATS = 7,     /* counters of the session */
    STROP_PROFILE = 8,   /* cost of each kernel */
    STROP_TENSOR = 9,    /* size, dtype and role of a tensor */
    STROP_REBOOT = 10,   /* restart the board, or end the emulator */
    STROP_LOG = 11,      /* board to host, as a reply: a line of text */
    STROP_SAVE = 12,     /* change: write a checkpoint */
    STROP_LOAD = 13,     /* change: back to the checkpoint */
    STROP_FORGET = 14,   /* change: factory reset; initial parameters, and no checkpoint */
    STROP_AUTOSAVE = 15, /* change: save every so many steps from now on */
    STROP_WATCH = 16,    /* board to host, as a reply: how training goes (watch.h) */
    STROP_REPLY = 0x80
};

/* STROP_OK, STROP_BAD_FRAME, …: errors.def has their sentences. */
enum strop_status {
#define STROP_STATUS(name, number, sentence) STROP_##name = (number),
#include "errors.def"
#undef STROP_STATUS
};

/* The first 8 bytes of a frame, as they are on the wire. */
typedef struct {
    uint8_t version; /* STROP_PROTOCOL */
    uint8_t type;    /* enum strop_type */
    uint8_t status;  /* enum strop_status in a reply; 0, and not looked at, in a request */
    uint8_t echo;    /* the host's own mark, returned as it came */
    uint32_t seq;    /* PROTOCOL.md, "Order" */
} strop_header_t;

/* CRC-32 as in zlib and Ethernet (reflected 0xEDB88320). Start with 0; chain by passing the previous result. */
uint32_t strop_crc32(uint32_t crc, const void *bytes, size_t n);

/* ---- decoding ---- */

typedef enum {
    STROP_EVENT_NONE,   /* everything was taken; the frame goes on */
    STROP_EVENT_FRAME,  /* a whole frame of `length` bytes, CRC included and right, is in `frame` */
    STROP_EVENT_DAMAGED /* a frame ended that is too short, too long for the buffer, or has a wrong CRC */
} strop_event_t;

typedef struct {
    uint8_t *frame;    /* the caller's buffer; valid after STROP_EVENT_FRAME until the next byte is fed */
    uint32_t capacity; /* bytes in `frame`; longer frames are skipped whole */
    uint32_t length;   /* bytes decoded, <= capacity */
    uint32_t left;     /* bytes left in the COBS block */
    uint8_t zero;      /* the block ends in a zero, unless it is the last */
    uint8_t begun;     /* a byte of this frame has come */
    uint8_t lost;      /* it did not fit */
} strop_decoder_t;

void strop_decoder_init(strop_decoder_t *decoder, uint8_t *frame, uint32_t capacity);

/* Takes bytes up to the end of the first frame among them; returns how many (n > 0 gives at least 1) and the event. */
size_t strop_decoder_feed(strop_decoder_t *decoder, const uint8_t *bytes, size_t n, strop_event_t *event);

/* ---- encoding ---- */

/* Takes n encoded bytes to the wire; may block until the port has them. */
typedef void (*strop_write_t)(void *ctx, const uint8_t *bytes, size_t n);

typedef struct {
    strop_write_t write;
    void *ctx;
    uint32_t crc;
    uint32_t fill;      /* bytes in `block`, its code byte included */
    uint8_t block[256]; /* code byte, up to 254 bytes, delimiter */
} strop_encoder_t;

void strop_encoder_begin(strop_encoder_t *encoder, const strop_header_t *header);
void strop_encoder_put(strop_encoder_t *encoder, const void *bytes, size_t n); /* any number of times */
void strop_encoder_end(strop_encoder_t *encoder);

#ifdef __cplusplus
}
#endif
#endif
