/* Where samples come from: yours to write. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Waits for the next @batch@ and writes it. x: @x@; y: @y@. Returns false when there will be no more. */
bool strop_sample(float *x, @label@ *y);

#ifdef __cplusplus
}
#endif
#endif
