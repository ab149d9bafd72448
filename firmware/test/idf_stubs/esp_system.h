/* Stands for components/esp_system/include/esp_system.h (ESP-IDF 5.4). */
#pragma once
#include "esp_err.h"

void esp_restart(void) __attribute__((__noreturn__));
