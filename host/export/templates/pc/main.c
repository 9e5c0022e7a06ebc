/* On this computer: lines go to standard output. */
#include <stdio.h>

#include "example.h"

static void say(const char *line) {
    puts(line);
}

int main(void) {
    example_begin(say);
    for (int round = 0; round < 10; ++round) {
        example_round(say);
    }
    return 0;
}
