/* Feeds a session whatever comes and checks the invariants B1 to B6 of runtime/SECURITY.md.
 *
 *     fuzz_session PIECE < bytes          the bytes, PIECE at a time
 *     fuzz_session SEED FRAMES            that many frames, nearly right, from a generator
 *
 * Built with the address and undefined-behaviour sanitizers, which watch B1: both buffers have exactly the size that a
 * session asks for and come from malloc. Ends with status 0, or says which invariant broke and aborts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "strop_model.h"

#define RX_BYTES STROP_SESSION_RX_BYTES(STROP_MODEL_X_BYTES, STROP_MODEL_Y_BYTES)
#define OUT_BYTES STROP_SESSION_OUT_BYTES(STROP_MODEL_OUT_BYTES)
#define LONGEST 4096u
#define MOST_INPUT (1u << 20)
enum { SECTOR = 512, FLASH = 8 * SECTOR };

static strop_session_t session;
static strop_model_t model;
static uint32_t trained; /* calls of train_step since init */

/* A flash; of every second board. With it a checkpoint sets the count of steps, so B4 is tried on the others. */
static uint8_t flash[FLASH];
static strop_store_t store;
static int has_store;

/* What the board has sent. */
static uint8_t heard_frame[LONGEST];
static strop_decoder_t heard;
static size_t replies;
static strop_header_t last_reply;

static void must(int holds, const char *invariant) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", invariant);
        abort();
    }
}

uint64_t strop_port_counter(void) { return 0; }

static void counted_init(void) {
    strop_model.init();
    trained = 0;
}

static float counted_step(const void *x, const void *y) {
    must(((uintptr_t)x & 7u) == 0 && ((uintptr_t)y & 3u) == 0, "B3: x and y are aligned");
    trained++;
    return strop_model.train_step(x, y); /* checks the labels itself */
}

static void hear(void *ctx, const uint8_t *bytes, size_t n) {
    (void)ctx;
    while (n > 0) {
        strop_event_t event;
        size_t taken = strop_decoder_feed(&heard, bytes, n, &event);
        must(event != STROP_EVENT_DAMAGED, "B5: the board sends whole frames only");
        if (event == STROP_EVENT_FRAME) {
            memcpy(&last_reply, heard_frame, sizeof last_reply);
            replies += last_reply.type != (STROP_LOG | STROP_REPLY);
        }
        bytes += taken;
        n -= taken;
    }
}

static int read_flash(void *ctx, uint32_t offset, void *bytes, uint32_t n) {
    (void)ctx;
    must(offset <= FLASH && n <= FLASH - offset, "B1: the store stays in its region");
    memcpy(bytes, flash + offset, n);
    return 0;
}

static int erase_flash(void *ctx, uint32_t offset) {
    (void)ctx;
    must(offset <= FLASH - SECTOR, "B1: the store stays in its region");
    memset(flash + offset, 0xFF, SECTOR);
    return 0;
}

static int write_flash(void *ctx, uint32_t offset, const void *bytes, uint32_t n) {
    (void)ctx;
    must(offset <= FLASH && n <= FLASH - offset, "B1: the store stays in its region");
    memcpy(flash + offset, bytes, n);
    return 0;
}

static void insert_flash(void) {
    static _Alignas(4) uint8_t buffer[STROP_STORE_BUFFER_BYTES(4u)];
    static const strop_store_config_t config = {.bytes = FLASH, .sector = SECTOR, .unit = 4, .buffer = buffer,
                                                .buffer_bytes = sizeof buffer, .read = read_flash,
                                                .erase = erase_flash, .write = write_flash};
    must(strop_store_init(&store, &config) == STROP_OK, "the store's config is right");
    strop_session_resume(&session);
}

static void power_on(void) {
    static strop_session_config_t config = {.model = &model, .board = "fuzz", .rx_bytes = RX_BYTES,
                                            .out_bytes = OUT_BYTES, .write = hear, .store = &store};
    free(config.rx);
    free(config.out);
    config.rx = malloc(RX_BYTES);
    config.out = malloc(OUT_BYTES);
    model = strop_model;
    model.init = counted_init;
    model.train_step = counted_step;
    model.init();
    strop_decoder_init(&heard, heard_frame, sizeof heard_frame);
    must(strop_session_init(&session, &config) == STROP_OK, "the buffers have the size asked for");
    memset(&store, 0, sizeof store);
    has_store = !has_store;
    if (has_store) {
        insert_flash();
    }
}

static size_t zeros(const uint8_t *bytes, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += bytes[i] == 0;
    }
    return count;
}

static void feed(const uint8_t *bytes, size_t n) {
    static const float bias[3] = {1.0f, 2.0f, 3.0f};
    uint32_t next = session.next;
    replies = 0;
    strop_session_feed(&session, bytes, n);
    must(memcmp(model.tensors[1].data, bias, sizeof bias) == 0, "B2: what is not writable never changes");
    must(has_store || session.steps == trained, "B4: steps counts the calls of train_step");
    must(session.next - next <= zeros(bytes, n), "B4: a frame takes at most one number");
    must(replies <= zeros(bytes, n), "B5: at most one reply to a zero");
}

/* ---- frames ---- */

static uint8_t said[2u * LONGEST];
static size_t said_bytes;

static void say(void *ctx, const uint8_t *bytes, size_t n) {
    (void)ctx;
    memcpy(said + said_bytes, bytes, n);
    said_bytes += n;
}

static void build(uint8_t type, uint32_t seq, const void *payload, size_t n) {
    static strop_encoder_t encoder = {.write = say};
    const strop_header_t header = {.version = STROP_PROTOCOL, .type = type, .seq = seq};
    said_bytes = 0;
    strop_encoder_begin(&encoder, &header);
    strop_encoder_put(&encoder, payload, n);
    strop_encoder_end(&encoder);
}

static void check_still_alive(void) {
    static const uint8_t zero = 0;
    feed(&zero, 1);
    build(STROP_HELLO, 0x12345678u, NULL, 0);
    feed(said, said_bytes);
    must(replies == 1 && last_reply.type == (STROP_HELLO | STROP_REPLY) && last_reply.status == STROP_OK &&
             last_reply.seq == 0x12345678u,
         "B6: a zero and HELLO are always answered");
}

/* ---- the generator ---- */

static uint32_t state;

static uint32_t below(uint32_t n) { /* xorshift32, Marsaglia 2003 */
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % n;
}

/* Lengths and words that are right, nearly right, or nothing of the kind. */
static size_t random_payload(uint8_t *payload) {
    static const size_t lengths[] = {0, 1, 4, 7, 8, 9, 10, 12, 20, 20, 20, 20, 21, 60, 61, 300};
    static const uint32_t words[] = {0, 1, 2, 3, 4, 12, 1196, 1199, 1200, 1201, 0x7fffffffu, 0x80000000u, 0xffffffffu};
    size_t n = lengths[below(sizeof lengths / sizeof *lengths)];
    for (size_t i = 0; i < n; i++) {
        payload[i] = (uint8_t)below(256);
    }
    for (size_t i = 0; i + 4 <= n && below(8) != 0; i += 4) {
        memcpy(payload + i, &words[below(sizeof words / sizeof *words)], 4);
    }
    if (n == 20 && below(4) != 0) {
        const uint32_t labels[2] = {below(6), below(6)};
        memcpy(payload + 12, labels, sizeof labels);
    }
    return n;
}

static void random_frame(void) {
    uint8_t payload[300];
    size_t n = random_payload(payload);
    uint8_t type = (uint8_t)(below(16) == 0 ? below(256) : below(16) == 0 ? STROP_SAVE + below(4) : below(12));
    uint32_t seq = session.next + (below(2) == 0 ? 0 : below(24) - 20u);
    build(type, seq, payload, n);
    for (uint32_t harm = below(8); harm == 0; harm = below(2)) {
        said[below((uint32_t)said_bytes)] = (uint8_t)below(256);
    }
    size_t cut = below((uint32_t)said_bytes);
    feed(said, cut);
    feed(said + cut, below(32) == 0 ? 0 : said_bytes - cut);
}

static void run_random(uint32_t seed, long frames) {
    uint32_t steps_seen = 0, saves_seen = 0;
    state = seed * 2654435761u + 1u;
    for (long i = 0; i < frames; i++) {
        if (i % 5000 == 0) {
            power_on();
        }
        random_frame();
        steps_seen += session.steps > 0;
        saves_seen += session.saved != UINT32_MAX;
    }
    check_still_alive();
    must(steps_seen > frames / 4, "the generator reaches the train step");
    must(saves_seen > frames / 8, "and the store");
}

static void run_input(size_t piece) {
    uint8_t *input = malloc(MOST_INPUT);
    size_t n = fread(input, 1, MOST_INPUT, stdin);
    power_on();
    for (size_t at = 0; at < n; at += piece) {
        feed(input + at, n - at < piece ? n - at : piece);
    }
    check_still_alive();
    free(input);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        run_random((uint32_t)atoi(argv[1]), atol(argv[2]));
    } else {
        run_input(argc == 2 ? (size_t)atoi(argv[1]) : 64u);
    }
    return 0;
}
