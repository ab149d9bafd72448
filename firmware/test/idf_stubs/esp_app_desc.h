/* Stands for components/esp_app_format/include/esp_app_desc.h (ESP-IDF 5.4). */
#pragma once
#include <stdint.h>

typedef struct {
    char version[32];
    char project_name[32];
} esp_app_desc_t;

const esp_app_desc_t *esp_app_get_description(void);
