/* Asks the network, trains it, and reports: what is right is counted on answers from before the training. */
#include "onboard.h"

#include "strop_model.h"
#include "watch.h"

#ifndef STROP_ONBOARD_AUTOSAVE
#define STROP_ONBOARD_AUTOSAVE 0
#endif

static strop_watch_t watch;

void strop_onboard(strop_session_t *session) {
    const strop_session_config_t *config = session->config;
    float *const x = (void *)(config->rx + STROP_FRAME_HEADER);
    STROP_LABEL *const y = (void *)(config->rx + STROP_FRAME_HEADER + STROP_SESSION_Y_OFFSET(STROP_MODEL_X_BYTES));
    float *const out = (void *)config->out;
    strop_session_log(session, "trains on samples of its own");
    strop_watch_init(&watch, &session->encoder, config->model, STROP_ONBOARD);
    if (STROP_ONBOARD_AUTOSAVE != 0 && strop_session_autosave(session, STROP_ONBOARD_AUTOSAVE) != STROP_OK) {
        strop_session_log(session, "this board keeps no checkpoints");
    }
    while (strop_sample(x, y)) {
        strop_ack_t ack;
        if (config->model->n_classes != 0) {
            strop_model_infer(x, out);
        }
        if (strop_session_train(session, x, y, &ack) != STROP_OK) {
            strop_session_log(session, "a label is no class of the model: its batch is left out");
            continue;
        }
        strop_watch_guess(&watch, y, out);
        if (watch.report.since + 1 == watch.every) {
            watch.report.stack = config->stack_used(config->ctx);
        }
        strop_watch_step(&watch, ack.steps, ack.loss, ack.cost);
    }
    strop_session_log(session, "there are no more samples");
}
