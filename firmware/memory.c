/*
 * The four functions that a compiler may call on its own in a freestanding program (C11 leaves them to the
 * implementation; gcc's manual, "Standards", lists them). One version for all toolchains, so that counts agree.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns") /* or memset's loop becomes a call of memset */
#endif

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *left, const void *right, size_t n);

typedef uint32_t __attribute__((may_alias)) word_t; /* any object may be moved a word at a time */

/* In ascending order, so that `to` may overlap `from` from below: bytes up to a word, words, the rest. */
static void copy_up(uint8_t *to, const uint8_t *from, size_t n) {
    if ((((uintptr_t)to ^ (uintptr_t)from) & 3U) == 0) {
        for (; n != 0 && ((uintptr_t)to & 3U) != 0; n--) {
            *to++ = *from++;
        }
        for (; n >= 4; n -= 4, to += 4, from += 4) {
            *(word_t *)(void *)to = *(const word_t *)(const void *)from;
        }
    }
    while (n-- != 0) {
        *to++ = *from++;
    }
}

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    copy_up(to, from, n);
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    uint8_t *out = to;
    const uint8_t *in = from;
    if ((uintptr_t)out - (uintptr_t)in >= n) { /* `to` lies below `from`, or behind its end */
        copy_up(out, in, n);
        return to;
    }
    while (n-- != 0) {
        out[n] = in[n];
    }
    return to;
}

void *memset(void *to, int value, size_t n) {
    uint8_t *out = to;
    for (; n != 0 && ((uintptr_t)out & 3U) != 0; n--) {
        *out++ = (uint8_t)value;
    }
    const word_t word = 0x01010101U * (uint8_t)value;
    for (; n >= 4; n -= 4, out += 4) {
        *(word_t *)(void *)out = word;
    }
    while (n-- != 0) {
        *out++ = (uint8_t)value;
    }
    return to;
}

int memcmp(const void *left, const void *right, size_t n) {
    const uint8_t *a = left;
    const uint8_t *b = right;
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i]) {
            return a[i] - b[i];
        }
    }
    return 0;
}
