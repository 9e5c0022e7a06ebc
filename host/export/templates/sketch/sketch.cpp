#include <Arduino.h>

#include "example.h"

#include <strop_model.h>

@train@extern "C" void flash_begin(void);
@train@
static void say(const char *line) {
    Serial.println(line);
}

void setup() {
    Serial.begin(115200);
@train@    flash_begin();
    example_begin(say);
}

void loop() {
    example_round(say);
    delay(1000);
}
