/*
 * watch.c: counts over the steps between two WATCH frames.
 */
#include "watch.h"

_Static_assert(sizeof(strop_watch_report_t) == 48, "a report goes to the wire as it lies in memory");

static void begin(strop_watch_t *w) {
    w->report = (strop_watch_report_t){.stack = UINT32_MAX};
}

void strop_watch_init(strop_watch_t *w, strop_encoder_t *encoder, const strop_model_t *model, uint32_t every) {
    *w = (strop_watch_t){.encoder = encoder, .model = model, .every = every == 0 ? 1 : every};
    begin(w);
}

/* The place of the largest of n >= 1 numbers; of equal ones the first. */
static uint32_t largest(const float *numbers, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        best = numbers[i] > numbers[best] ? i : best;
    }
    return best;
}

void strop_watch_guess(strop_watch_t *w, const void *y, const void *out) {
    const int32_t *label = y;
    const float *answer = out;
    const uint32_t classes = w->model->n_classes;
    if (classes == 0) {
        return;
    }
    const uint32_t n = w->model->out_bytes / (classes * (uint32_t)sizeof(float));
    for (uint32_t i = 0; i < n; i++, answer += classes) {
        w->report.right += (int32_t)largest(answer, classes) == label[i];
    }
    w->report.asked += n;
}

static void send(strop_watch_t *w) {
    const strop_header_t header = {
        .version = STROP_PROTOCOL, .type = STROP_WATCH | STROP_REPLY, .status = STROP_OK, .seq = w->frames++};
    strop_encoder_begin(w->encoder, &header);
    strop_encoder_put(w->encoder, w->model->hash, sizeof w->model->hash);
    strop_encoder_put(w->encoder, &w->report.steps, sizeof w->report - sizeof w->report.hash);
    strop_encoder_end(w->encoder);
}

void strop_watch_step(strop_watch_t *w, uint32_t steps, float loss, uint64_t cost) {
    w->report.steps = steps;
    w->report.since++;
    w->report.loss += loss;
    w->report.cost += cost;
    if (w->report.since >= w->every) {
        w->report.loss /= (float)w->report.since;
        send(w);
        begin(w);
    }
}
