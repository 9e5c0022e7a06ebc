/*
 * frame.c: COBS (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999) around a CRC-32.
 */
#include "frame.h"

_Static_assert(sizeof(strop_header_t) == STROP_FRAME_HEADER, "the header goes to the wire as it lies in memory");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian, and so must the core be");

/* A whole block: its code byte and 254 others, with no zero to follow. */
#define FULL 255u

/* Four bits at a time: 64 bytes of table and 17 instructions a byte. */
uint32_t strop_crc32(uint32_t crc, const void *bytes, size_t n) {
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    const uint8_t *byte = bytes;
    crc = ~crc;
    for (const uint8_t *end = byte + n; byte != end; byte++) {
        crc ^= *byte;
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

/* ---- decoding ---- */

void strop_decoder_init(strop_decoder_t *decoder, uint8_t *frame, uint32_t capacity) {
    *decoder = (strop_decoder_t){.frame = frame, .capacity = capacity};
}

static inline void store(strop_decoder_t *d, uint8_t byte) {
    if (d->length < d->capacity) {
        d->frame[d->length++] = byte;
    } else {
        d->lost = 1;
    }
}

/* The zero that ended the previous block is known to be data only now that another block follows. */
static inline void open_block(strop_decoder_t *d, uint8_t code) {
    if (!d->begun) {
        d->length = 0;
        d->lost = d->zero = 0;
        d->begun = 1;
    }
    if (d->zero) {
        store(d, 0);
    }
    d->left = code - 1u;
    d->zero = code != FULL;
}

static inline int intact(const strop_decoder_t *d) {
    uint32_t crc;
    if (d->lost || d->left != 0 || d->length < STROP_FRAME_HEADER + STROP_FRAME_TRAILER) {
        return 0;
    }
    uint32_t n = d->length - STROP_FRAME_TRAILER;
    __builtin_memcpy(&crc, d->frame + n, sizeof crc);
    return crc == strop_crc32(0, d->frame, n);
}

/* A zero came. Two in a row are no frame at all: a host sends one more to end whatever was cut off before. */
static inline strop_event_t close_frame(strop_decoder_t *d) {
    if (!d->begun) {
        return STROP_EVENT_NONE;
    }
    strop_event_t event = intact(d) ? STROP_EVENT_FRAME : STROP_EVENT_DAMAGED;
    d->left = 0;
    d->begun = 0;
    return event;
}

size_t strop_decoder_feed(strop_decoder_t *decoder, const uint8_t *bytes, size_t n, strop_event_t *event) {
    strop_decoder_t d = *decoder; /* in registers */
    strop_event_t found = STROP_EVENT_NONE;
    size_t i = 0;
    while (i < n && found == STROP_EVENT_NONE) {
        uint8_t byte = bytes[i++];
        if (byte == 0) {
            found = close_frame(&d);
        } else if (d.left != 0) {
            store(&d, byte);
            d.left--;
        } else {
            open_block(&d, byte);
        }
    }
    *decoder = d;
    *event = found;
    return i;
}

/* ---- encoding ---- */

static void close_block(strop_encoder_t *e) {
    e->block[0] = (uint8_t)e->fill;
    e->write(e->ctx, e->block, e->fill);
    e->fill = 1;
}

static void stuff(strop_encoder_t *e, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (e->fill == FULL) {
            close_block(e);
        }
        if (bytes[i] == 0) {
            close_block(e);
        } else {
            e->block[e->fill++] = bytes[i];
        }
    }
}

void strop_encoder_begin(strop_encoder_t *e, const strop_header_t *header) {
    e->crc = 0;
    e->fill = 1;
    strop_encoder_put(e, header, sizeof *header);
}

void strop_encoder_put(strop_encoder_t *e, const void *bytes, size_t n) {
    e->crc = strop_crc32(e->crc, bytes, n);
    stuff(e, bytes, n);
}

void strop_encoder_end(strop_encoder_t *e) {
    uint32_t crc = e->crc;
    stuff(e, (const uint8_t *)&crc, sizeof crc);
    e->block[0] = (uint8_t)e->fill;
    e->block[e->fill] = 0;
    e->write(e->ctx, e->block, e->fill + 1u);
}
