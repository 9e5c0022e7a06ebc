/*
 * onboard.h: training without a host. A program that is linked with one function of yours trains on what that gives,
 * and says over the serial line how it goes (`strop monitor`); no request is needed, nobody must listen.
 *
 *     #include "onboard.h"
 *     bool strop_sample(float *x, int32_t *y) { … }
 *
 * The build passes, beside what main.c takes: STROP_ONBOARD, the steps between two reports; STROP_LABEL, the type of a
 * label; and STROP_ONBOARD_AUTOSAVE, the steps between two checkpoints, 0 for none.
 */
#ifndef STROP_ONBOARD_H
#define STROP_ONBOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "session.h"

#ifndef STROP_LABEL
#define STROP_LABEL int32_t
#endif

/* Yours. Waits for the next batch and writes it, as strop_model.h says. Returns false when there will be no more: then
 * the board answers a host's requests as ever. It may use the port's counter, and any peripheral but the serial line. */
bool strop_sample(float *x, STROP_LABEL *y);

/* Trains until there are no more samples. A batch with a label that is no class is told and left out. Its memory is the
 * session's two buffers. */
void strop_onboard(strop_session_t *session);

#endif
