/* See store_device.c. */
#ifndef STORE_DEVICE_H
#define STORE_DEVICE_H

#include "store.h"

/* What is done of the operation during which power goes. HARM_NONE: all of it. */
enum harm { HARM_NOTHING_DONE, HARM_HALF, HARM_GARBAGE, HARM_NONE };

int device_new(uint32_t bytes, uint32_t sector, uint32_t unit, uint32_t buffer_bytes);
int power_on(void);
void lose_power_at(long operation, int how, uint32_t seed);
void lose_silently(long operation);
long operations_done(void);
uint32_t misuse(void);
void forgive(void);
void device_get(uint8_t *bytes); /* twice the device's size: contents, and a flag for each byte */
void device_put(const uint8_t *bytes);
int store_save(uint32_t steps);
int store_load(uint32_t *steps);
int store_forget(void);
int store_save_other(uint32_t steps);
uint32_t store_erases(uint32_t slot);
uint32_t model_bytes_of(uint32_t tensor);
void model_get(uint32_t tensor, uint8_t *bytes);
void model_put(uint32_t tensor, const uint8_t *bytes);

#endif
