/*
 * STM32F100 with USART1 on PA9 and PA10. Source: RM0041 (clocks, pins, USART), PM0063 (flash).
 */
#define USART_STATUS   REGISTER(STROP_UART_BASE + 0x00)
#define USART_RECEIVED REGISTER(STROP_UART_BASE + 0x04)
#define USART_TRANSMIT USART_RECEIVED
#define USART_DIVIDER  REGISTER(STROP_UART_BASE + 0x08)
#define USART_CONTROL  REGISTER(STROP_UART_BASE + 0x0C)
#define USART_ENABLE   0x2000
#define USART_FORGET_OVERRUN() ((void)0) /* reading status and byte did it */
#include "usart.h"
#include "mapped_store.h"

#define RCC 0x40021000
#define RCC_CONTROL REGISTER(RCC + 0x00)
#define RCC_CONFIG  REGISTER(RCC + 0x04)
#define RCC_APB2    REGISTER(RCC + 0x18)
#define PLL_ON      0x01000000U
#define PLL_READY   0x02000000U
enum { PLL_TIMES_6 = 4 << 18, SELECT_PLL = 0x2, SELECTED_PLL = 0x8 }; /* of half the RC oscillator: 4 MHz * 6 = 24 */
enum { GPIOA_CLOCK = 1 << 2, USART1_CLOCK = 1 << 14 };
enum { HSI_HZ = 8000000 };
enum { LOCK_TURNS = 8 * 200 }; /* the PLL locks within 200 us (DS5944): 1600 cycles of the RC oscillator */

#define FLASH_KEY     REGISTER(0x40022004)
#define FLASH_STATUS  REGISTER(0x4002200C)
#define FLASH_CLEAR   FLASH_STATUS /* by ones */
#define FLASH_CONTROL REGISTER(0x40022010)
#define FLASH_ADDRESS REGISTER(0x40022014)
#define KEY_1 0x45670123U
#define KEY_2 0xCDEF89ABU
enum { BUSY = 1, FAILURES = 0x14, PROGRAM = 0x01, ERASE_PAGE = 0x02, START = 0x40, LOCKED = 0x80 };

#define GPIOA_MODE_HIGH REGISTER(0x40010804)
#define GPIOA_SET       REGISTER(0x40010810)
enum { PINS_9_AND_10 = 0xFF << 4, FAST_OUTPUT_AND_PULLED_INPUT = 0x8B << 4, PIN_10 = 1 << 10 };

/* Returns the core's clock in Hz: that of the RC oscillator if the PLL does not lock, as in an emulator without one.
 * Up to 24 MHz the flash needs no wait states and no bus a divider. */
static uint32_t start_clock(void) {
    RCC_CONFIG = PLL_TIMES_6;
    RCC_CONTROL |= PLL_ON;
    if (!strop_wait_for(&RCC_CONTROL, PLL_READY, LOCK_TURNS)) {
        return HSI_HZ;
    }
    RCC_CONFIG |= SELECT_PLL;
    return strop_wait_for(&RCC_CONFIG, SELECTED_PLL, LOCK_TURNS) ? STROP_CLOCK_HZ : HSI_HZ;
}

void strop_port_init(void) {
    const uint32_t clock = start_clock();
    RCC_APB2 |= GPIOA_CLOCK | USART1_CLOCK;
    GPIOA_SET = PIN_10; /* pulled up, not down */
    GPIOA_MODE_HIGH = (GPIOA_MODE_HIGH & ~(uint32_t)PINS_9_AND_10) | FAST_OUTPUT_AND_PULLED_INPUT;
    USART_DIVIDER = (clock + STROP_UART_BAUD / 2) / STROP_UART_BAUD;
    start(USART_ENABLE);
}

#include "flash.h"

int strop_port_store_erase(uint32_t offset) {
    open_flash(ERASE_PAGE);
    FLASH_ADDRESS = STROP_STORE_ORIGIN + offset;
    FLASH_CONTROL = ERASE_PAGE | START;
    wait_for_flash();
    FLASH_CONTROL = LOCKED;
    return strop_store_is_used(offset);
}

int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    const uint16_t *from = data;
    volatile uint16_t *const to = (volatile uint16_t *)(volatile void *)strop_store_at(offset);
    int failed = 0;
    open_flash(PROGRAM);
    for (uint32_t i = 0; i < n / 2; i++) {
        to[i] = from[i];
        wait_for_flash();
        failed |= to[i] != from[i];
    }
    FLASH_CONTROL = LOCKED;
    return failed;
}
