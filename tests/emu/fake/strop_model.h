/* A model small enough to check by hand: y = w.x with 64 weights, trained by its squared error. */
#ifndef STROP_MODEL_H
#define STROP_MODEL_H

#define STROP_MODEL_INPUTS 64
#define STROP_MODEL_X_BYTES 256u
#define STROP_MODEL_Y_BYTES 4u
#define STROP_MODEL_OUT_BYTES 4u

#endif
