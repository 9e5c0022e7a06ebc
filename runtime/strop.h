/*
 * strop.h: a network that trains on a microcontroller, as the programs around it see it.
 *
 * This header is the contract between a generated model and everything that drives it: the session (session.h), the
 * firmware's main loop and the twin. Who only wants to call a model from C needs none of it, just `strop_model.h`.
 *
 *     strop_model_table.c   defines `strop_model`, generated beside the model
 *     port.c                defines `strop_port_counter`, one per board
 *     session.c, frame.c    answer a host's requests with the two (PROTOCOL.md)
 *
 * The runtime allocates nothing, calls no libm, never recurses, and takes a little-endian core for granted.
 */
#ifndef STROP_H
#define STROP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows by one whenever a structure below changes; HELLO reports it. */
#define STROP_ABI 1u

/* strop_tensor_t.dtype. Extend only. */
enum strop_dtype {
    STROP_F32 = 0,
    STROP_I32 = 1,
    STROP_U32 = 2,
    STROP_F16 = 3,
    STROP_BF16 = 4,
    STROP_I8 = 5,
    STROP_U8 = 6,
    STROP_I16 = 7
};

/* strop_tensor_t.role. Extend only. */
enum strop_role {
    STROP_PARAM = 0, /* trained or frozen parameter: an entry of the module's state_dict */
    STROP_STATE = 1  /* optimizer state, step counter, running statistics */
};

/* One parameter or state tensor. Its name and shape live in the host's manifest under the same index.
 * Every bit pattern of a writable tensor must be safe: a tensor that holds an address or an index is not writable. */
typedef struct {
    void *data;       /* never NULL; aligned for its dtype; owned by the model */
    uint32_t bytes;   /* > 0 */
    uint8_t dtype;    /* enum strop_dtype */
    uint8_t role;     /* enum strop_role */
    uint8_t writable; /* 0: WRITE is refused (and `data` may lie in flash) */
    uint8_t reserved; /* 0 */
} strop_tensor_t;

/* A model, ready to train. Nothing here blocks; nothing is safe to call from an interrupt. */
typedef struct strop_model {
    uint8_t hash[16];              /* first 16 bytes of sha-256 over the Program's text and initial values */
    uint32_t batch;                /* samples a step, >= 1 */
    uint32_t x_bytes, y_bytes;     /* one batch of input / labels, on the wire and in memory */
    uint32_t out_bytes;            /* one batch of infer's output */
    uint32_t n_tensors;            /* length of `tensors` */
    const strop_tensor_t *tensors; /* parameters first, then state */
    void (*init)(void);            /* sets initial parameters and state; any number of times */
    /* Trains on one batch and returns its mean loss. x: x_bytes, y: y_bytes, aligned for their dtypes, only read.
     * x may hold any float, NaN included; labels are in [0, n_classes) when n_classes is not 0. */
    float (*train_step)(const void *x, const void *y);
    /* x: x_bytes, out: out_bytes, aligned for their dtypes, apart. Leaves every tensor above as it was. */
    void (*infer)(const void *x, void *out);
    uint32_t n_kernels;    /* kernels of the train step; 0 unless built with STROP_COUNT_KERNELS */
    uint64_t *kernel_cost; /* n_kernels sums of counter differences; NULL unless built with STROP_COUNT_KERNELS */
    uint32_t n_classes;    /* y is int32 in [0, n_classes), and the session refuses others; 0: y is any data */
    const uint32_t *health; /* steps with a 16-bit error beyond its range, and updates skipped for it; NULL: none */
} strop_model_t;

/* The model of this program, defined by the generated `strop_model_table.c`. */
extern const strop_model_t strop_model;

/* Monotonic count of retired instructions or cycles (the board's file says which); 0 where there is none. */
uint64_t strop_port_counter(void);

#ifdef __cplusplus
}
#endif
#endif
