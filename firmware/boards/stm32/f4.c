/*
 * STM32F4 with USART2 on PA2 and PA3: STM32F405, STM32F446 and, within 168 MHz, their relatives.
 * Sources: RM0090 (F405) and RM0390 (F446), on flash, clocks, pins and USART; they agree in what is used here.
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

#define RCC 0x40023800
#define RCC_CONTROL REGISTER(RCC + 0x00)
#define RCC_PLL     REGISTER(RCC + 0x04)
#define RCC_CONFIG  REGISTER(RCC + 0x08)
#define RCC_AHB1    REGISTER(RCC + 0x30)
#define RCC_APB1    REGISTER(RCC + 0x40)
#define PLL_ON      0x01000000U
#define PLL_READY   0x02000000U
enum { SELECT_PLL = 0x2, SELECTED_PLL = 0x8, APB1_QUARTER = 5 << 10, APB2_HALF = 4 << 13 };
enum { GPIOA_CLOCK = 1, USART2_CLOCK = 1 << 17 };

/* 16 MHz / 16 * 336 / 2 = 168 MHz; Q = 7 gives the USB its 48. R = 2 is the F446's, and the F405's reserved bits. */
#define PLL_168_MHZ (16U | 336U << 6 | 0U << 16 | 7U << 24 | 2U << 28)
enum { HSI_HZ = 16000000, APB1_DIVIDER = 4 };
enum { LOCK_TURNS = 16 * 300 }; /* the PLL locks within 300 us (DS8626): 4800 cycles of the RC oscillator */

#define FLASH_ACCESS REGISTER(0x40023C00)
#define FLASH_KEY     REGISTER(0x40023C04)
#define FLASH_STATUS  REGISTER(0x40023C0C)
#define FLASH_CLEAR   FLASH_STATUS /* by ones */
#define FLASH_CONTROL REGISTER(0x40023C10)
#define FIVE_WAIT_STATES_AND_CACHES 0x705U
enum { DATA_CACHE = 1 << 10, DATA_CACHE_RESET = 1 << 12 };
#define KEY_1 0x45670123U
#define KEY_2 0xCDEF89ABU
#define LOCKED 0x80000000U
enum { FAILURES = 0xF3, BUSY = 1 << 16, PROGRAM_WORDS = 0x201, ERASE_SECTOR = 0x202, START = 1 << 16 };

#define GPIOA 0x40020000
#define GPIOA_MODE REGISTER(GPIOA + 0x00)
#define GPIOA_PULL REGISTER(GPIOA + 0x0C)
#define GPIOA_FUNCTION REGISTER(GPIOA + 0x20)
enum { PINS_2_AND_3_MODE = 0xF << 4, ALTERNATE = 0xA << 4, PIN_3_UP = 1 << 6, PINS_2_AND_3_FUNCTION = 0x77 << 8 };

/* Returns the core's clock in Hz: that of the RC oscillator if the PLL does not lock, as in an emulator without one. */
static uint32_t start_clock(void) {
    FLASH_ACCESS = FIVE_WAIT_STATES_AND_CACHES;
    RCC_CONFIG = APB1_QUARTER | APB2_HALF;
    RCC_PLL = PLL_168_MHZ;
    RCC_CONTROL |= PLL_ON;
    if (!strop_wait_for(&RCC_CONTROL, PLL_READY, LOCK_TURNS)) {
        return HSI_HZ;
    }
    RCC_CONFIG |= SELECT_PLL;
    return strop_wait_for(&RCC_CONFIG, SELECTED_PLL, LOCK_TURNS) ? STROP_CLOCK_HZ : HSI_HZ;
}

void strop_port_init(void) {
    const uint32_t clock = start_clock() / APB1_DIVIDER;
    RCC_AHB1 |= GPIOA_CLOCK;
    RCC_APB1 |= USART2_CLOCK;
    GPIOA_FUNCTION |= PINS_2_AND_3_FUNCTION;
    GPIOA_PULL |= PIN_3_UP;
    GPIOA_MODE = (GPIOA_MODE & ~(uint32_t)PINS_2_AND_3_MODE) | ALTERNATE;
    USART_DIVIDER = (clock + STROP_UART_BAUD / 2) / STROP_UART_BAUD;
    start(USART_ENABLE);
}

#include "flash.h"

static void close_flash(void) {
    wait_for_flash();
    FLASH_CONTROL = LOCKED;
    FLASH_ACCESS &= ~(uint32_t)DATA_CACHE; /* it still holds what was there before */
    FLASH_ACCESS |= DATA_CACHE_RESET;
    FLASH_ACCESS = FIVE_WAIT_STATES_AND_CACHES;
}

int strop_port_store_erase(uint32_t offset) {
    open_flash(ERASE_SECTOR | (STROP_STORE_FIRST_SECTOR + offset / STROP_STORE_SECTOR) << 3);
    FLASH_CONTROL |= START;
    close_flash();
    return strop_store_is_used(offset);
}

int strop_port_store_write(uint32_t offset, const void *data, uint32_t n) {
    const uint32_t *from = data;
    volatile uint32_t *const to = &REGISTER(STROP_STORE_ORIGIN + offset);
    open_flash(PROGRAM_WORDS);
    for (uint32_t i = 0; i < n / 4; i++) {
        to[i] = from[i];
        wait_for_flash();
    }
    close_flash();
    return strop_store_differs(offset, data, n);
}
