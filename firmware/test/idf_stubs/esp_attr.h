/* Stands for components/esp_common/include/esp_attr.h (ESP-IDF 5.4). */
#pragma once

#define IRAM_ATTR __attribute__((section(".text.iram")))
