/*
 * team.h: the harts that run a model together, on a board that has several with one memory.
 *
 * Every hart runs the same function, with its own number and how many they are, and computes the outputs of its range
 * of every kernel. Between kernels, and where a kernel says so, each waits for all. The bits do not depend on how many
 * harts there are. With one, which is what a PC and any other board are, nothing here costs an instruction.
 */
#ifndef STROP_TEAM_H
#define STROP_TEAM_H

enum { STROP_PART_TRAIN, STROP_PART_INFER };

/* One hart's share of a step (`what`). x, y: what the step reads; out: what it writes. Defined by the generated model. */
void strop_model_part(int what, const void *x, const void *y, void *out, int hart, int harts);

#if defined(STROP_HARTS) && STROP_HARTS > 1
/* Runs a step on all harts and returns when the last has finished. Called by hart 0 only. */
void strop_team_run(int what, const void *x, const void *y, void *out);

/* Waits until every hart has called it as often. */
void strop_team_barrier(int hart);
#else
static inline void strop_team_run(int what, const void *x, const void *y, void *out) {
    strop_model_part(what, x, y, out, 0, 1);
}

static inline void strop_team_barrier(int hart) { (void)hart; }
#endif

#endif
