/* Stands for components/mbedtls/esp_crt_bundle/include/esp_crt_bundle.h (ESP-IDF 5.4). */
#pragma once
#include "esp_err.h"

esp_err_t esp_crt_bundle_attach(void *conf);
