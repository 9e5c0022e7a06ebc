/* A sensor that does not exist: noise, and a pattern that tells the kind. Put your own here. */
#include "sample.h"

enum { BATCH = @samples@, X = @x_count@, Y = @y_count@, KINDS = @kinds@ };

@noise@/* In [0, 1). */
@noise@static float noise(void) {
@noise@    static uint32_t state = 1;
@noise@    state = state * 1664525u + 1013904223u;
@noise@    return (float)(state >> 8) * 0x1p-24f;
@noise@}
@noise@
bool strop_sample(float *x, @label@ *y) {
    static uint32_t count;
    for (int b = 0; b < BATCH; ++b) {
        const int kind = (int)(count++ % KINDS);
        for (int i = 0; i < X; ++i) {
            x[b * X + i] = @value@;
        }
        for (int i = 0; i < Y; ++i) {
            y[b * Y + i] = @answer@;
        }
    }
    return true;
}
