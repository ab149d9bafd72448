/* Stands for components/esp_https_ota/include/esp_https_ota.h and, of what it includes,
 * components/esp_http_client/include/esp_http_client.h (ESP-IDF 5.4). */
#pragma once
#include <stdbool.h>

#include "esp_app_desc.h"
#include "esp_err.h"

/* Of the many fields, those that are used. */
typedef struct {
    const char *url;
    int timeout_ms;
    esp_err_t (*crt_bundle_attach)(void *conf);
    bool keep_alive_enable;
} esp_http_client_config_t;

typedef struct {
    const esp_http_client_config_t *http_config;
} esp_https_ota_config_t;

typedef void *esp_https_ota_handle_t;

#define ESP_ERR_HTTPS_OTA_IN_PROGRESS 0x9001

esp_err_t esp_https_ota_begin(const esp_https_ota_config_t *ota_config,
                              esp_https_ota_handle_t *handle);
esp_err_t esp_https_ota_perform(esp_https_ota_handle_t https_ota_handle);
bool esp_https_ota_is_complete_data_received(esp_https_ota_handle_t https_ota_handle);
esp_err_t esp_https_ota_finish(esp_https_ota_handle_t https_ota_handle);
esp_err_t esp_https_ota_abort(esp_https_ota_handle_t https_ota_handle);
esp_err_t esp_https_ota_get_img_desc(esp_https_ota_handle_t https_ota_handle,
                                     esp_app_desc_t *new_app_info);
