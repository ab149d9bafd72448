/* Stands for components/freertos/FreeRTOS-Kernel/include/freertos/FreeRTOS.h and the port's
 * portmacro.h (ESP-IDF 5.4, Xtensa). */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int BaseType_t;
typedef unsigned int UBaseType_t;
typedef uint32_t TickType_t;

#define pdFALSE ((BaseType_t)0)
#define pdTRUE ((BaseType_t)1)
#define pdPASS pdTRUE
#define portMAX_DELAY ((TickType_t)0xffffffffUL)
#define configTICK_RATE_HZ 1000
#define pdMS_TO_TICKS(time_ms) \
    ((TickType_t)(((uint64_t)(time_ms) * configTICK_RATE_HZ) / (uint64_t)1000U))

typedef struct {
    uint32_t owner;
    uint32_t count;
} portMUX_TYPE;
#define portMUX_INITIALIZER_UNLOCKED {.owner = 0xB33FFFFF, .count = 0}

void stub_critical(portMUX_TYPE *mux);
#define portENTER_CRITICAL(mux) stub_critical(mux)
#define portEXIT_CRITICAL(mux) stub_critical(mux)
#define portENTER_CRITICAL_ISR(mux) stub_critical(mux)
#define portEXIT_CRITICAL_ISR(mux) stub_critical(mux)

void stub_yield_from_isr(BaseType_t woken);
#define portYIELD_FROM_ISR(woken) stub_yield_from_isr(woken)
