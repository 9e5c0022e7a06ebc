#include <stdio.h>

#include "example.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

static void say(const char *line) {
    printf("%s\n", line);
}

void app_main(void) {
    example_begin(say);
    for (;;) {
        example_round(say);
        vTaskDelay(pdMS_TO_TICKS(1000));
    }
}
