/* Stands for components/esp_hw_support/include/esp_sleep.h (ESP-IDF 5.4). */
#pragma once
#include "esp_err.h"

esp_err_t esp_sleep_enable_gpio_wakeup(void);
