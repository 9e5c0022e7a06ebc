/*
 * store.c: see store.h for the contract and for what a slot looks like.
 */
#include "store.h"

#include <stddef.h>

#define MAGIC 0x70727473u /* "strp" */
#define FORMAT 1u
#define SLOTS 2u
#define NONE SLOTS

/* A freestanding compiler has no <string.h>, but knows its functions. */
#define copy __builtin_memcpy
#define fill __builtin_memset
#define compare __builtin_memcmp

/* Begins a slot. Its layout stays the same in every format. */
typedef struct {
    uint32_t magic, format;
    uint32_t sequence; /* one more than the other slot's, modulo 2^32 */
    uint32_t erases[SLOTS];
    uint32_t bytes; /* of the tensors */
    uint32_t steps;
    uint8_t hash[16]; /* the model's */
    uint32_t crc;
} header_t;

/* A commit record: the header's CRC, the tensors' CRC. A note: a count of erases. */
typedef struct {
    uint32_t words[3];
    uint32_t crc;
} mark_t;

/* First value of a record's CRC, so that none is taken for another. */
enum { HEADER = 1, COMMIT = 2, NOTE = 3 };

/* What makes a slot's content count: a header; tensors that are whole; and of this model. Each includes the former. */
typedef enum { BEGUN, COMPLETE, OWN } worth_t;

typedef struct {
    header_t header;
    mark_t commit;
} content_t;

_Static_assert(sizeof(header_t) == STROP_STORE_HEADER_BYTES && sizeof(mark_t) == 16, "as they lie on the device");

/* ---- places ---- */

static uint32_t padded(const strop_store_t *s, uint32_t n) {
    const uint32_t unit = s->config->unit;
    return (n + unit - 1u) & ~(unit - 1u);
}

static uint32_t commit_at(const strop_store_t *s, uint32_t slot) {
    return slot * s->slot + padded(s, sizeof(header_t));
}

static uint32_t note_at(const strop_store_t *s, uint32_t slot, uint32_t i) {
    return commit_at(s, slot) + (1u + i) * padded(s, sizeof(mark_t));
}

static uint32_t data_at(const strop_store_t *s, uint32_t slot) { return note_at(s, slot, STROP_STORE_NOTES); }

static uint32_t room(const strop_store_t *s) {
    const uint32_t overhead = data_at(s, 0);
    return s->slot > overhead ? s->slot - overhead : 0;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- reading ---- */

static int get(const strop_store_t *s, uint32_t at, void *bytes, uint32_t n) {
    return s->config->read(s->config->ctx, at, bytes, n) == 0;
}

/* Whether there is a whole record of n bytes, whose last word is its CRC. */
static int get_record(const strop_store_t *s, uint32_t at, void *record, uint32_t n, uint32_t kind) {
    uint32_t crc;
    if (!get(s, at, record, n)) {
        return 0;
    }
    copy(&crc, (uint8_t *)record + n - sizeof crc, sizeof crc);
    return strop_crc32(kind, record, n - sizeof crc) == crc;
}

static int get_header(const strop_store_t *s, uint32_t slot, header_t *header) {
    return get_record(s, slot * s->slot, header, sizeof *header, HEADER) && header->magic == MAGIC;
}

/* Whether n bytes can be read and have this CRC. */
static int has_crc(const strop_store_t *s, uint32_t at, uint32_t n, uint32_t expected) {
    const strop_store_config_t *c = s->config;
    uint32_t crc = 0;
    while (n > 0) {
        const uint32_t piece = least(n, c->buffer_bytes);
        if (!get(s, at, c->buffer, piece)) {
            return 0;
        }
        crc = strop_crc32(crc, c->buffer, piece);
        at += piece;
        n -= piece;
    }
    return crc == expected;
}

static int is_complete(const strop_store_t *s, uint32_t slot, content_t *content) {
    const header_t *header = &content->header;
    mark_t *commit = &content->commit;
    return header->bytes <= room(s) && get_record(s, commit_at(s, slot), commit, sizeof *commit, COMMIT) &&
           commit->words[0] == header->crc && has_crc(s, data_at(s, slot), header->bytes, commit->words[1]);
}

/* ---- what a slot is worth ---- */

static uint32_t model_bytes(const strop_model_t *model) {
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        bytes += model->tensors[i].writable ? model->tensors[i].bytes : 0;
    }
    return bytes;
}

static int is_of(const strop_model_t *model, const header_t *header) {
    return header->format == FORMAT && header->bytes == model_bytes(model) &&
           compare(header->hash, model->hash, sizeof header->hash) == 0;
}

static int is_worth(const strop_store_t *s, uint32_t slot, const strop_model_t *model, worth_t worth,
                    content_t *content) {
    return get_header(s, slot, &content->header) && (worth != OWN || is_of(model, &content->header)) &&
           (worth == BEGUN || is_complete(s, slot, content));
}

/* The numbers go round: one is later than those of the half circle before it. */
static int is_later(uint32_t a, uint32_t b) { return a - b - 1u < INT32_MAX; }

/* The latest slot of that worth, with its content; NONE if there is none. */
static uint32_t latest(const strop_store_t *s, const strop_model_t *model, worth_t worth, content_t *found) {
    uint32_t best = NONE;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        content_t content;
        if (is_worth(s, slot, model, worth, &content) &&
            (best == NONE || is_later(content.header.sequence, found->header.sequence))) {
            *found = content;
            best = slot;
        }
    }
    return best;
}

/* The slot to write next: the other one than the latest of this model, or else of anyone, or else begun. */
static uint32_t other_than_latest(const strop_store_t *s, const strop_model_t *model) {
    static const uint8_t worths[] = {OWN, COMPLETE, BEGUN};
    content_t content;
    uint32_t keep = NONE;
    for (uint32_t i = 0; keep == NONE && i < sizeof worths; i++) {
        keep = latest(s, model, (worth_t)worths[i], &content);
    }
    return keep == NONE ? 0 : 1u - keep;
}

/* ---- writing ---- */

static int flush(strop_store_t *s) {
    const strop_store_config_t *c = s->config;
    const uint32_t at = s->at, n = padded(s, s->filled);
    fill(c->buffer + s->filled, 0xFF, n - s->filled);
    s->at += n;
    s->filled = 0;
    return n == 0 || c->write(c->ctx, at, c->buffer, n) == 0;
}

/* Goes on writing at s->at: what fills the buffer, or the sector, goes out. */
static int put(strop_store_t *s, const uint8_t *bytes, uint32_t n) {
    const strop_store_config_t *c = s->config;
    while (n > 0) {
        const uint32_t most = least(c->buffer_bytes, c->sector - s->at % c->sector);
        const uint32_t piece = least(n, most - s->filled);
        copy(c->buffer + s->filled, bytes, piece);
        s->filled += piece;
        bytes += piece;
        n -= piece;
        if (s->filled == most && !flush(s)) {
            return 0;
        }
    }
    return 1;
}

/* Gives a record its CRC, writes it, and reads it back. */
static int put_record(strop_store_t *s, uint32_t at, void *record, uint32_t n, uint32_t kind) {
    const uint32_t crc = strop_crc32(kind, record, n - sizeof crc);
    uint32_t found;
    copy((uint8_t *)record + n - sizeof crc, &crc, sizeof crc);
    s->at = at;
    s->filled = 0;
    if (!put(s, record, n) || !flush(s) || !get_record(s, at, record, n, kind)) {
        return 0;
    }
    copy(&found, (uint8_t *)record + n - sizeof found, sizeof found);
    return found == crc;
}

/* Writes all tensors, and reads them back. */
static int put_tensors(strop_store_t *s, uint32_t slot, const strop_model_t *model, uint32_t *crc) {
    *crc = 0;
    s->at = data_at(s, slot);
    s->filled = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const strop_tensor_t *tensor = &model->tensors[i];
        if (tensor->writable) {
            *crc = strop_crc32(*crc, tensor->data, tensor->bytes);
            if (!put(s, tensor->data, tensor->bytes)) {
                return 0;
            }
        }
    }
    return flush(s) && has_crc(s, data_at(s, slot), model_bytes(model), *crc);
}

/* ---- counts of erases ---- */

static int is_blank(const mark_t *note) {
    for (uint32_t i = 0; i < 3; i++) {
        if (note->words[i] != UINT32_MAX) {
            return 0;
        }
    }
    return note->crc == UINT32_MAX;
}

/* What a slot that was begun knows of the other's count; free: index of its first note that is not yet written.
 * A header vouches for the one erase that follows it in the usual course; a note does for each that is repeated. */
static uint32_t known_by(const strop_store_t *s, uint32_t slot, const header_t *header, uint32_t *free) {
    uint32_t known = header->erases[1u - slot];
    mark_t note = {0};
    known += known != 0;
    *free = STROP_STORE_NOTES;
    for (uint32_t i = STROP_STORE_NOTES; i-- > 0;) {
        if (get_record(s, note_at(s, slot, i), &note, sizeof note, NOTE)) {
            known = note.words[0] > known ? note.words[0] : known;
        } else if (is_blank(&note)) {
            *free = i;
        }
    }
    return known;
}

/* A slot's own header knows its count; where it has none, the other slot does. */
static uint32_t count_of(const strop_store_t *s, uint32_t slot) {
    header_t header;
    uint32_t free;
    if (get_header(s, slot, &header)) {
        return header.erases[slot];
    }
    return get_header(s, 1u - slot, &header) ? known_by(s, 1u - slot, &header, &free) : 0;
}

/* The count of a slot once it is erased. The other slot gets to know it before: a count that only the slot itself knew
 * would go back when its next erase takes its header. So where there is no room to tell, it stands still. */
static uint32_t count_erase(strop_store_t *s, uint32_t slot, const header_t *others) {
    const uint32_t other = 1u - slot, next = s->erases[slot] + 1u;
    mark_t note = {.words = {next, 0, 0}};
    uint32_t free;
    if (known_by(s, other, others, &free) >= next) {
        return next;
    }
    int told = free < STROP_STORE_NOTES && put_record(s, note_at(s, other, free), &note, sizeof note, NOTE);
    return told ? next : next - 1u;
}

/* ---- slots ---- */

/* Erases `bytes` of a slot and writes its header, as the later one of both. */
static int begin(strop_store_t *s, uint32_t slot, uint32_t bytes, header_t *header) {
    const strop_store_config_t *c = s->config;
    const uint32_t start = slot * s->slot;
    uint32_t count = s->erases[slot] + 1u;
    header_t others;
    if (get_header(s, 1u - slot, &others)) {
        header->sequence = others.sequence + 1u;
        count = count_erase(s, slot, &others);
    }
    if (c->erase(c->ctx, start) != 0) {
        return 0;
    }
    s->erases[slot] = count;
    copy(header->erases, s->erases, sizeof header->erases);
    int done = put_record(s, start, header, sizeof *header, HEADER);
    for (uint32_t at = c->sector; at < bytes && done; at += c->sector) {
        done = c->erase(c->ctx, start + at) == 0;
    }
    return done;
}

static int commit(strop_store_t *s, uint32_t slot, const header_t *header, uint32_t crc) {
    mark_t record = {.words = {header->crc, crc, 0}};
    return put_record(s, commit_at(s, slot), &record, sizeof record, COMMIT);
}

/* Two slots of whole sectors; 0 for a config that breaks a bound. */
static uint32_t slot_bytes(const strop_store_config_t *c) {
    if (c->unit == 0 || c->unit > 256 || (c->unit & (c->unit - 1u)) != 0 || c->sector == 0 ||
        c->sector % c->unit != 0 || c->buffer_bytes % c->unit != 0 ||
        c->buffer_bytes < STROP_STORE_BUFFER_BYTES(c->unit)) {
        return 0;
    }
    return c->bytes / 2u / c->sector * c->sector;
}

/* ---- the store ---- */

enum strop_status strop_store_init(strop_store_t *s, const strop_store_config_t *config) {
    fill(s, 0, sizeof *s);
    s->slot = slot_bytes(config);
    if (s->slot == 0) {
        return STROP_STORE_FAILED;
    }
    s->config = config;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        s->erases[slot] = count_of(s, slot);
    }
    return STROP_OK;
}

enum strop_status strop_store_save(strop_store_t *s, const strop_model_t *model, uint32_t steps) {
    if (s->config == NULL) {
        return STROP_UNSUPPORTED;
    }
    header_t header = {.magic = MAGIC, .format = FORMAT, .bytes = model_bytes(model), .steps = steps};
    if (header.bytes > room(s)) {
        return STROP_STORE_TOO_SMALL;
    }
    const uint32_t slot = other_than_latest(s, model);
    uint32_t crc;
    copy(header.hash, model->hash, sizeof header.hash);
    int done = begin(s, slot, data_at(s, 0) + header.bytes, &header) && put_tensors(s, slot, model, &crc) &&
               commit(s, slot, &header, crc);
    return done ? STROP_OK : STROP_STORE_FAILED;
}

static int get_tensors(const strop_store_t *s, uint32_t slot, const strop_model_t *model, uint32_t expected) {
    uint32_t at = data_at(s, slot), crc = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const strop_tensor_t *tensor = &model->tensors[i];
        if (tensor->writable) {
            if (!get(s, at, tensor->data, tensor->bytes)) {
                return 0;
            }
            crc = strop_crc32(crc, tensor->data, tensor->bytes);
            at += tensor->bytes;
        }
    }
    return crc == expected;
}

enum strop_status strop_store_load(strop_store_t *s, const strop_model_t *model, uint32_t *steps) {
    content_t content;
    if (s->config == NULL) {
        return STROP_UNSUPPORTED;
    }
    const uint32_t slot = latest(s, model, OWN, &content);
    if (slot == NONE) {
        return latest(s, model, COMPLETE, &content) == NONE ? STROP_NO_CHECKPOINT : STROP_OTHER_MODEL;
    }
    if (!get_tensors(s, slot, model, content.commit.words[1])) {
        model->init();
        return STROP_STORE_FAILED;
    }
    *steps = content.header.steps;
    return STROP_OK;
}

enum strop_status strop_store_forget(strop_store_t *s, const strop_model_t *model) {
    if (s->config == NULL) {
        return STROP_UNSUPPORTED;
    }
    uint32_t slot = other_than_latest(s, model);
    for (uint32_t i = 0; i < SLOTS; i++, slot = 1u - slot) {
        header_t header = {.magic = MAGIC, .format = FORMAT};
        if (!begin(s, slot, s->slot, &header)) {
            return STROP_STORE_FAILED;
        }
    }
    return STROP_OK;
}
