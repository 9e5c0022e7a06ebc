#include <zephyr/kernel.h>

#include "example.h"

static void say(const char *line) {
    printk("%s\n", line);
}

int main(void) {
    example_begin(say);
    for (;;) {
        example_round(say);
        k_sleep(K_SECONDS(1));
    }
    return 0;
}
