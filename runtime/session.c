/*
 * session.c: see session.h for the contract; PROTOCOL.md says why each step runs exactly once.
 */
#include "session.h"

#define BOARD_BYTES 32u
#define LINE_BYTES 1024u
#define UNKNOWN UINT32_MAX

/* A freestanding compiler has no <string.h>, but knows its functions. */
#define copy __builtin_memcpy
#define clear __builtin_memset

_Static_assert(sizeof(strop_ack_t) == 16, "an ack goes to the wire as it lies in memory");
_Static_assert(STROP_SESSION_REPLIES >= 1, "without the last reply a lost one could not be repeated");

static size_t length(const char *text, size_t most) {
    size_t n = 0;
    while (n < most && text[n] != 0) {
        n++;
    }
    return n;
}

/* ---- the request in rx ---- */

static const uint8_t *payload(const strop_session_t *s) { return s->config->rx + STROP_FRAME_HEADER; }

static uint32_t max_payload(const strop_session_config_t *c) {
    return c->rx_bytes - STROP_FRAME_HEADER - STROP_FRAME_TRAILER;
}

/* The payload's i-th word; the caller has checked that there is one. */
static uint32_t word(const strop_session_t *s, uint32_t i) {
    uint32_t value;
    copy(&value, payload(s) + 4u * i, sizeof value);
    return value;
}

/* ---- replies ---- */

static void begin(strop_session_t *s, enum strop_status status) {
    const strop_header_t header = {.version = STROP_PROTOCOL,
                                   .type = (uint8_t)(s->request.type | STROP_REPLY),
                                   .status = (uint8_t)status,
                                   .echo = s->request.echo,
                                   .seq = s->request.seq};
    strop_encoder_begin(&s->encoder, &header);
}

static void reply(strop_session_t *s, const void *body, size_t n) {
    begin(s, STROP_OK);
    strop_encoder_put(&s->encoder, body, n);
    strop_encoder_end(&s->encoder);
}

/* Every refusal tells where the board stands. */
static void refuse(strop_session_t *s, enum strop_status status) {
    const uint32_t stand[2] = {s->next, s->steps};
    begin(s, status);
    strop_encoder_put(&s->encoder, stand, sizeof stand);
    strop_encoder_end(&s->encoder);
}

/* A LOG of a text and a number, from within a request too. */
static void log_number(strop_session_t *s, const char *text, uint32_t number) {
    const strop_header_t request = s->request;
    s->request = (strop_header_t){.type = STROP_LOG, .seq = s->logs++};
    begin(s, STROP_OK);
    strop_encoder_put(&s->encoder, text, length(text, LINE_BYTES));
    for (uint32_t place = 1000000000u; place > 0; place /= 10u) {
        const char digit = (char)('0' + number / place % 10u);
        if (number >= place || place == 1u) {
            strop_encoder_put(&s->encoder, &digit, 1);
        }
    }
    strop_encoder_end(&s->encoder);
    s->request = request;
}

/* ---- what a model and its tensors can do ---- */

static int labels_are_classes(const strop_model_t *model, const void *y) {
    const int32_t *label = y;
    if (model->n_classes == 0) {
        return 1;
    }
    for (uint32_t i = 0; i < model->y_bytes / sizeof *label; i++) {
        if ((uint32_t)label[i] >= model->n_classes) {
            return 0;
        }
    }
    return 1;
}

/* Constantly NULL where there is to be no store, so that nothing of it is linked. */
static strop_store_t *store_of(const strop_session_t *s) {
    strop_store_t *store = STROP_SESSION_STORE ? s->config->store : NULL;
    return store != NULL && store->config != NULL ? store : NULL;
}

enum strop_status strop_session_save(strop_session_t *s) {
    if (store_of(s) == NULL) {
        return STROP_UNSUPPORTED;
    }
    enum strop_status status = strop_store_save(store_of(s), s->config->model, s->steps);
    s->saved = status == STROP_OK ? s->steps : s->saved;
    return status;
}

enum strop_status strop_session_load(strop_session_t *s) {
    if (store_of(s) == NULL) {
        return STROP_UNSUPPORTED;
    }
    enum strop_status status = strop_store_load(store_of(s), s->config->model, &s->steps);
    if (status == STROP_OK) {
        s->saved = s->steps;
    } else if (status == STROP_STORE_FAILED) {
        s->steps = 0; /* the model is initialised */
    }
    return status;
}

enum strop_status strop_session_forget(strop_session_t *s) {
    if (store_of(s) == NULL) {
        return STROP_UNSUPPORTED;
    }
    enum strop_status status = strop_store_forget(store_of(s), s->config->model);
    if (status == STROP_OK) {
        strop_session_reset(s);
        s->saved = UNKNOWN;
    }
    return status;
}

void strop_session_resume(strop_session_t *s) {
    enum strop_status status = strop_session_load(s);
    if (status == STROP_OK) {
        log_number(s, "goes on from the checkpoint of step ", s->steps);
    } else if (store_of(s) != NULL && status != STROP_NO_CHECKPOINT) {
        log_number(s, "starts afresh: its checkpoint gives status ", (uint32_t)status);
    }
}

enum strop_status strop_session_autosave(strop_session_t *s, uint32_t steps) {
    if (store_of(s) == NULL) {
        return STROP_UNSUPPORTED;
    }
    s->autosave = steps;
    return STROP_OK;
}

static void autosave(strop_session_t *s) {
    if (store_of(s) != NULL && s->autosave != 0 && s->steps % s->autosave == 0 && strop_session_save(s) != STROP_OK) {
        log_number(s, "autosave failed at step ", s->steps);
    }
}

enum strop_status strop_session_train(strop_session_t *s, const void *x, const void *y, strop_ack_t *ack) {
    const strop_model_t *model = s->config->model;
    if (!labels_are_classes(model, y)) {
        return STROP_BAD_LABEL;
    }
    uint64_t start = strop_port_counter();
    float loss = model->train_step(x, y);
    uint64_t cost = strop_port_counter() - start;
    s->steps++;
    s->nan += loss != loss;
    s->inf += loss == loss && loss - loss != 0.0f;
    *ack = (strop_ack_t){.steps = s->steps, .loss = loss, .cost = cost};
    autosave(s);
    return STROP_OK;
}

void strop_session_reset(strop_session_t *s) {
    s->config->model->init();
    s->steps = 0;
}

enum strop_status strop_tensor_at(const strop_model_t *model, uint32_t index, uint32_t offset, uint32_t n,
                                  uint8_t **address) {
    if (index >= model->n_tensors) {
        return STROP_BAD_TENSOR;
    }
    const strop_tensor_t *tensor = &model->tensors[index];
    if (offset > tensor->bytes || n > tensor->bytes - offset) {
        return STROP_BAD_RANGE;
    }
    *address = (uint8_t *)tensor->data + offset;
    return STROP_OK;
}

enum strop_status strop_tensor_write(const strop_model_t *model, uint32_t index, uint32_t offset, const void *bytes,
                                     uint32_t n) {
    uint8_t *address;
    enum strop_status status = strop_tensor_at(model, index, offset, n, &address);
    if (status == STROP_OK && !model->tensors[index].writable) {
        status = STROP_READ_ONLY;
    }
    if (status == STROP_OK) {
        copy(address, bytes, n);
    }
    return status;
}

/* ---- requests that change the board: each is carried out once ---- */

static enum strop_status run_step(strop_session_t *s, strop_ack_t *ack) {
    const strop_model_t *model = s->config->model;
    if (s->size != STROP_SESSION_STEP_BYTES(model->x_bytes, model->y_bytes)) {
        return STROP_BAD_LENGTH;
    }
    return strop_session_train(s, payload(s), payload(s) + STROP_SESSION_Y_OFFSET(model->x_bytes), ack);
}

static enum strop_status run_write(strop_session_t *s) {
    if (s->size < 8) {
        return STROP_BAD_LENGTH;
    }
    return strop_tensor_write(s->config->model, word(s, 0), word(s, 1), payload(s) + 8, s->size - 8u);
}

static enum strop_status run_autosave(strop_session_t *s) {
    return s->size == 4 ? strop_session_autosave(s, word(s, 0)) : STROP_BAD_LENGTH;
}

/* Those that come without a payload. */
static enum strop_status run_plain(strop_session_t *s) {
    if (s->size != 0) {
        return STROP_BAD_LENGTH;
    }
    switch (s->request.type) {
    case STROP_SAVE: return strop_session_save(s);
    case STROP_LOAD: return strop_session_load(s);
    case STROP_FORGET: return strop_session_forget(s);
    default: strop_session_reset(s); return STROP_OK;
    }
}

static enum strop_status run_change(strop_session_t *s, strop_ack_t *ack) {
    enum strop_status status;
    switch (s->request.type) {
    case STROP_STEP: return run_step(s, ack);
    case STROP_WRITE: status = run_write(s); break;
    case STROP_AUTOSAVE: status = run_autosave(s); break;
    default: status = run_plain(s);
    }
    *ack = (strop_ack_t){.steps = s->steps};
    return status;
}

static void on_change(strop_session_t *s) {
    strop_ack_t ack = {0};
    enum strop_status status = run_change(s, &ack);
    if (status != STROP_OK) {
        refuse(s, status);
        return;
    }
    s->replies[s->next % STROP_SESSION_REPLIES] = ack;
    s->kept += s->kept < STROP_SESSION_REPLIES;
    s->next++;
    reply(s, &ack, sizeof ack);
}

/* It was carried out `age` numbers ago; its reply may have been lost. */
static void on_changed(strop_session_t *s, uint32_t age) {
    if (age > s->kept) {
        refuse(s, STROP_DUPLICATE);
    } else {
        reply(s, &s->replies[s->request.seq % STROP_SESSION_REPLIES], sizeof(strop_ack_t));
    }
}

/* ---- requests that change nothing: carried out again when they come again ---- */

/* Size, erases of both slots, steps of the checkpoint, autosave. */
static void put_store(strop_session_t *s) {
    const strop_store_t *store = store_of(s);
    uint32_t words[5] = {0, 0, 0, s->saved, s->autosave};
    if (store != NULL) {
        words[0] = store->config->bytes;
        words[1] = store->erases[0];
        words[2] = store->erases[1];
    }
    strop_encoder_put(&s->encoder, words, sizeof words);
}

static void on_hello(strop_session_t *s) {
    const strop_session_config_t *c = s->config;
    const strop_model_t *m = c->model;
    const uint32_t words[] = {STROP_ABI,    m->batch, m->x_bytes, m->y_bytes, m->out_bytes,   m->n_tensors,
                              m->n_kernels, s->next,  s->steps,   c->window,  max_payload(c), STROP_SESSION_REPLIES};
    static const uint8_t padding[BOARD_BYTES] = {0};
    size_t name = length(c->board, BOARD_BYTES);
    begin(s, STROP_OK);
    strop_encoder_put(&s->encoder, m->hash, sizeof m->hash);
    strop_encoder_put(&s->encoder, words, sizeof words);
    strop_encoder_put(&s->encoder, c->board, name);
    strop_encoder_put(&s->encoder, padding, BOARD_BYTES - name);
    put_store(s);
    strop_encoder_end(&s->encoder);
}

static enum strop_status on_infer(strop_session_t *s) {
    const strop_model_t *model = s->config->model;
    uint8_t *out = s->config->out;
    if (s->size != model->x_bytes) {
        return STROP_BAD_LENGTH;
    }
    uint64_t start = strop_port_counter();
    model->infer(payload(s), out + 8);
    uint64_t cost = strop_port_counter() - start;
    copy(out, &cost, sizeof cost);
    reply(s, out, STROP_SESSION_OUT_BYTES(model->out_bytes));
    return STROP_OK;
}

static enum strop_status on_read(strop_session_t *s) {
    uint8_t *address;
    if (s->size != 12) {
        return STROP_BAD_LENGTH;
    }
    uint32_t n = word(s, 2);
    enum strop_status status = strop_tensor_at(s->config->model, word(s, 0), word(s, 1), n, &address);
    if (status == STROP_OK) {
        reply(s, address, n);
    }
    return status;
}

static enum strop_status on_tensor(strop_session_t *s) {
    const strop_model_t *model = s->config->model;
    if (s->size != 4) {
        return STROP_BAD_LENGTH;
    }
    if (word(s, 0) >= model->n_tensors) {
        return STROP_BAD_TENSOR;
    }
    const strop_tensor_t *t = &model->tensors[word(s, 0)];
    const uint8_t kind[4] = {t->dtype, t->role, t->writable, 0};
    begin(s, STROP_OK);
    strop_encoder_put(&s->encoder, &t->bytes, sizeof t->bytes);
    strop_encoder_put(&s->encoder, kind, sizeof kind);
    strop_encoder_end(&s->encoder);
    return STROP_OK;
}

static enum strop_status on_stats(strop_session_t *s) {
    const strop_session_config_t *c = s->config;
    uint32_t stack = c->stack_used ? c->stack_used(c->ctx) : UNKNOWN;
    static const uint32_t none[2] = {0, 0};
    const uint32_t *health = c->model->health ? c->model->health : none;
    const uint32_t words[] = {s->steps, s->good, s->bad, s->duplicates, s->gaps,
                              stack,    s->nan,  s->inf, health[0],     health[1]};
    reply(s, words, sizeof words);
    return STROP_OK;
}

static enum strop_status on_profile(strop_session_t *s) {
    const strop_model_t *model = s->config->model;
    if (s->size != 8) {
        return STROP_BAD_LENGTH;
    }
    uint32_t first = word(s, 0), n = word(s, 1);
    if (model->kernel_cost == NULL) {
        return STROP_UNSUPPORTED;
    }
    if (first > model->n_kernels || n > model->n_kernels - first) {
        return STROP_BAD_RANGE;
    }
    reply(s, &model->kernel_cost[first], n * sizeof *model->kernel_cost);
    return STROP_OK;
}

static enum strop_status on_reboot(strop_session_t *s) {
    const strop_session_config_t *c = s->config;
    if (s->size != 4) {
        return STROP_BAD_LENGTH;
    }
    if (c->restart == NULL) {
        return STROP_UNSUPPORTED;
    }
    uint32_t code = word(s, 0);
    reply(s, NULL, 0);
    c->restart(c->ctx, code);
    return STROP_OK;
}

/* Answers the request itself when it returns STROP_OK. */
static enum strop_status answer(strop_session_t *s) {
    switch (s->request.type) {
    case STROP_INFER: return on_infer(s);
    case STROP_READ: return on_read(s);
    case STROP_STATS: return on_stats(s);
    case STROP_PROFILE: return on_profile(s);
    case STROP_TENSOR: return on_tensor(s);
    case STROP_REBOOT: return on_reboot(s);
    default: return STROP_BAD_TYPE;
    }
}

/* A host never repeats a change from before a question, so no reply needs to be kept across one. */
static void on_question(strop_session_t *s, uint32_t age) {
    enum strop_status status = answer(s);
    if (status != STROP_OK) {
        refuse(s, status);
    } else if (age == 0) {
        s->next++;
        s->kept = 0;
    }
}

/* ---- order ---- */

static int is_change(uint8_t type) {
    return type == STROP_STEP || type == STROP_WRITE || type == STROP_RESET ||
           (type >= STROP_SAVE && type <= STROP_AUTOSAVE);
}

/* Only what is carried out takes a number: after a refusal everything in flight behind it is refused too. */
static void on_numbered(strop_session_t *s) {
    uint32_t age = s->next - s->request.seq; /* 0: the next one; up to half of all numbers: done; the rest: too early */
    if (age > INT32_MAX) {
        s->gaps++;
        refuse(s, STROP_OUT_OF_ORDER);
        return;
    }
    s->duplicates += age != 0;
    if (!is_change(s->request.type)) {
        on_question(s, age);
    } else if (age == 0) {
        on_change(s);
    } else {
        on_changed(s, age);
    }
}

/* ---- frames ---- */

static void on_request(strop_session_t *s) {
    s->good++;
    if (s->request.version != STROP_PROTOCOL) {
        refuse(s, STROP_BAD_VERSION);
    } else if (s->request.type == STROP_HELLO) {
        on_hello(s);
    } else {
        on_numbered(s);
    }
}

static void on_frame(strop_session_t *s) {
    copy(&s->request, s->config->rx, sizeof s->request);
    s->size = s->decoder.length - STROP_FRAME_HEADER - STROP_FRAME_TRAILER;
    if (s->request.type & STROP_REPLY) {
        s->bad++; /* our own words, off a wire that echoes: an answer would go round for ever */
    } else {
        on_request(s);
    }
}

/* Which frame it was nobody knows; the host resends what is unanswered. */
static void on_damaged(strop_session_t *s) {
    s->bad++;
    s->request = (strop_header_t){.type = STROP_NOTICE, .seq = s->next};
    refuse(s, STROP_BAD_FRAME);
}

/* ---- the session ---- */

enum strop_status strop_session_init(strop_session_t *s, const strop_session_config_t *config) {
    const strop_model_t *model = config->model;
    clear(s, 0, sizeof *s);
    s->config = config;
    s->encoder.write = config->write;
    s->encoder.ctx = config->ctx;
    s->saved = UNKNOWN;
    s->autosave = config->autosave;
    strop_decoder_init(&s->decoder, config->rx, config->rx_bytes);
    int fits = config->rx_bytes >= STROP_SESSION_RX_BYTES(model->x_bytes, model->y_bytes) &&
               config->out_bytes >= STROP_SESSION_OUT_BYTES(model->out_bytes);
    return fits ? STROP_OK : STROP_BAD_LENGTH;
}

void strop_session_feed(strop_session_t *s, const uint8_t *bytes, size_t n) {
    while (n > 0) {
        strop_event_t event;
        size_t taken = strop_decoder_feed(&s->decoder, bytes, n, &event);
        bytes += taken;
        n -= taken;
        if (event == STROP_EVENT_FRAME) {
            on_frame(s);
        } else if (event == STROP_EVENT_DAMAGED) {
            on_damaged(s);
        }
    }
}

void strop_session_log(strop_session_t *s, const char *line) {
    s->request = (strop_header_t){.type = STROP_LOG, .seq = s->logs++};
    reply(s, line, length(line, LINE_BYTES));
}
