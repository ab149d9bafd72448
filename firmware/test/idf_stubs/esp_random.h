/* Stands for components/esp_hw_support/include/esp_random.h (ESP-IDF 5.4). */
#pragma once
#include <stdint.h>

uint32_t esp_random(void);
