/* Numbers in a line of text, without printf: small programs have none, or none that knows floats. */
#ifndef LINE_H
#define LINE_H

#include <stdint.h>

typedef struct {
    char text[80];
    unsigned length;
} line_t;

static inline void put(line_t *line, const char *text) {
    while (*text != '\0' && line->length + 1 < sizeof line->text) {
        line->text[line->length++] = *text++;
    }
    line->text[line->length] = '\0';
}

static inline void put_number(line_t *line, uint32_t number) {
    char digits[11];
    unsigned at = sizeof digits - 1;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + number % 10u);
        number /= 10u;
    } while (number != 0);
    put(line, digits + at);
}

/* A number with three decimals, cut off. */
static inline void put_decimal(line_t *line, float number) {
    if (number < 0) {
        put(line, "-");
        number = -number;
    }
    if (!(number < 4e6f)) {
        put(line, "large");
        return;
    }
    const uint32_t thousandths = (uint32_t)(number * 1000.0f);
    put_number(line, thousandths / 1000u);
    put(line, thousandths % 1000u < 10u ? ".00" : thousandths % 1000u < 100u ? ".0" : ".");
    put_number(line, thousandths % 1000u);
}

#endif
