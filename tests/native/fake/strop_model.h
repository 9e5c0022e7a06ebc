/* Sizes of the fake model, as a generated strop_model.h gives them. */
#ifndef STROP_MODEL_H
#define STROP_MODEL_H

#define STROP_MODEL_X_BYTES 10u /* not a multiple of 4: labels start behind two bytes of padding */
#define STROP_MODEL_Y_BYTES 8u
#define STROP_MODEL_OUT_BYTES 12u

#endif
