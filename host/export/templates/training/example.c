/* Trains on every sample, says how well it goes, and keeps what it has learnt where the power may fail. */
#include "example.h"

#include "flash.h"
#include "line.h"
#include "sample.h"
#include "strop_model.h"

enum { ROUND = 20 }; /* steps between two lines of text and two checkpoints */

static float x[STROP_MODEL_X_BYTES / sizeof(float)];
static @label@ y[STROP_MODEL_Y_BYTES / sizeof(@label@)];
@classes@static float out[STROP_MODEL_OUT_BYTES / sizeof(float)];
static strop_store_t store;
static uint32_t steps;

void example_begin(say_t say) {
    strop_model_init();
    const bool found = strop_store_init(&store, &flash) == STROP_OK &&
                       strop_store_load(&store, &strop_model, &steps) == STROP_OK;
    line_t line = {.length = 0};
    put(&line, found ? "goes on from step " : "begins at step ");
    put_number(&line, steps);
    say(line.text);
}

@classes@/* How many of a batch the network would have told right: asked before it trains on them. */
@classes@static uint32_t guessed(void) {
@classes@    enum { CLASSES = @kinds@, ANSWERS = sizeof out / sizeof *out / CLASSES };
@classes@    uint32_t right = 0;
@classes@    strop_model_infer(x, out);
@classes@    for (unsigned i = 0; i < ANSWERS; ++i) {
@classes@        int32_t best = 0;
@classes@        for (int32_t k = 1; k < CLASSES; ++k) {
@classes@            best = out[i * CLASSES + (unsigned)k] > out[i * CLASSES + (unsigned)best] ? k : best;
@classes@        }
@classes@        right += best == y[i];
@classes@    }
@classes@    return right * 100u / ANSWERS;
@classes@}
@classes@
void example_round(say_t say) {
    float loss = 0.0f;
@classes@    uint32_t right = 0;
    uint32_t done = 0;
    for (; done < ROUND && strop_sample(x, y); ++done) {
@classes@        right += guessed();
        loss += strop_model_train_step(x, y);
    }
    if (done == 0) {
        return;
    }
    steps += done;
    const enum strop_status saved = strop_store_save(&store, &strop_model, steps);
    line_t line = {.length = 0};
    put(&line, "step ");
    put_number(&line, steps);
    put(&line, ": loss ");
    put_decimal(&line, loss / (float)done);
@classes@    put(&line, ", ");
@classes@    put_number(&line, right / done);
@classes@    put(&line, " % right");
    put(&line, saved == STROP_OK ? ", saved" : ", not saved");
    say(line.text);
}
