/*
 * STM32H743 with USART3 on PD8 and PD9, on the 64 MHz RC oscillator that it starts with.
 * Source: RM0433 (clocks, pins, USART, flash).
 */
#define USART_CONTROL  REGISTER(STROP_UART_BASE + 0x00)
#define USART_DIVIDER  REGISTER(STROP_UART_BASE + 0x0C)
#define USART_STATUS   REGISTER(STROP_UART_BASE + 0x1C)
#define USART_CLEAR    REGISTER(STROP_UART_BASE + 0x20)
#define USART_RECEIVED REGISTER(STROP_UART_BASE + 0x24)
#define USART_TRANSMIT REGISTER(STROP_UART_BASE + 0x28)
#define USART_ENABLE   0x01
#define USART_FORGET_OVERRUN() (USART_CLEAR = OVERRUN)
#include "usart.h"
#include "h7_flash.h"

#define RCC_AHB4 REGISTER(0x580244E0)
#define RCC_APB1 REGISTER(0x580244E8)
enum { GPIOD_CLOCK = 1 << 3, USART3_CLOCK = 1 << 18 };

#define GPIOD 0x58020C00
#define GPIOD_MODE REGISTER(GPIOD + 0x00)
#define GPIOD_PULL REGISTER(GPIOD + 0x0C)
#define GPIOD_FUNCTION REGISTER(GPIOD + 0x24)
enum { PINS_8_AND_9_MODE = 0xF << 16, ALTERNATE = 0xA << 16, PIN_9_UP = 1 << 18, PINS_8_AND_9_FUNCTION = 0x77 };

/* Armv7-M Architecture Reference Manual, B2.2.7: the instruction cache starts out off and with arbitrary contents. */
#define CACHE_INVALIDATE REGISTER(0xE000EF50)
#define INSTRUCTION_CACHE 0x20000U /* of CONFIG_CONTROL */

static void start_cache(void) {
    CACHE_INVALIDATE = 0;
    strop_barrier();
    CONFIG_CONTROL |= INSTRUCTION_CACHE;
    strop_barrier();
}

void strop_port_init(void) {
    start_cache();
    RCC_AHB4 |= GPIOD_CLOCK;
    RCC_APB1 |= USART3_CLOCK;
    (void)RCC_APB1; /* a clock runs two cycles after the write */
    GPIOD_FUNCTION |= PINS_8_AND_9_FUNCTION;
    GPIOD_PULL |= PIN_9_UP;
    GPIOD_MODE = (GPIOD_MODE & ~(uint32_t)PINS_8_AND_9_MODE) | ALTERNATE;
    USART_DIVIDER = (STROP_CLOCK_HZ + STROP_UART_BAUD / 2) / STROP_UART_BAUD;
    start(USART_ENABLE);
}
