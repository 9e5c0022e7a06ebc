/*
 * watch.h: tells a host that only watches how training goes, with no session and no request.
 *
 *     static strop_encoder_t encoder = {.write = send};
 *     static strop_watch_t watch;
 *     strop_watch_init(&watch, &encoder, &strop_model, 100);
 *     …
 *     strop_model_infer(x, out);                           optional: how many would it have told right?
 *     strop_watch_guess(&watch, y, out);
 *     steps++;
 *     strop_watch_step(&watch, steps, strop_model_train_step(x, y), 0);
 *
 * Every so many steps that sends one WATCH frame (PROTOCOL.md), 62 bytes on the wire; `strop monitor --port …` shows
 * them. What is lost is not sent again: the next frame tells how many steps it speaks of. RAM: 64 bytes, and the
 * encoder's 272. Nothing here blocks but `write`.
 */
#ifndef STROP_WATCH_H
#define STROP_WATCH_H

#include "frame.h"
#include "strop.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the steps since the frame before; on the wire as it lies here. */
typedef struct {
    uint8_t hash[16]; /* the model's */
    uint32_t steps;   /* done in all */
    uint32_t since;   /* steps since the frame before, >= 1 */
    float loss;       /* mean of their losses */
    uint32_t asked;   /* answers that were compared with labels before training on them; 0: none were */
    uint32_t right;   /* of them */
    uint32_t stack;   /* deepest stack since power on, in bytes; UINT32_MAX: unknown */
    uint64_t cost;    /* of their train steps, in counter units; 0: unknown */
} strop_watch_report_t;

/* To look at: `report`, which grows until it is sent; its loss is a sum till then. */
typedef struct {
    strop_encoder_t *encoder; /* the caller's, with its `write`; a session's own will do */
    const strop_model_t *model;
    uint32_t every;  /* steps between two frames */
    uint32_t frames; /* sent */
    strop_watch_report_t report;
} strop_watch_t;

/* every: 0 counts as 1. */
void strop_watch_init(strop_watch_t *watch, strop_encoder_t *encoder, const strop_model_t *model, uint32_t every);

/* Counts what a batch's output has right. y: the model's labels, out: its output for the same batch, both as strop.h
 * says; does nothing for a model without classes. */
void strop_watch_guess(strop_watch_t *watch, const void *y, const void *out);

/* A step is done. steps: how many in all, this one included.  cost: counter units it took, 0 where unknown. */
void strop_watch_step(strop_watch_t *watch, uint32_t steps, float loss, uint64_t cost);

#ifdef __cplusplus
}
#endif
#endif
