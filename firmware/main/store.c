#include "store.h"

#include <stdio.h>

#include "esp_err.h"
#include "esp_log.h"
#include "nvs.h"
#include "nvs_flash.h"

static const char TAG[] = "store";

static nvs_handle_t handle;

static int translated(esp_err_t error) {
    switch (error) {
    case ESP_OK:
        return LA_OK;
    case ESP_ERR_NVS_NOT_FOUND:
        return LA_ERR_NOT_FOUND;
    case ESP_ERR_NVS_INVALID_LENGTH:
        return LA_ERR_TOO_LONG;
    default:
        return LA_ERR_IO;
    }
}

void store_open(void) {
    esp_err_t error = nvs_flash_init();
    if (error == ESP_ERR_NVS_NO_FREE_PAGES || error == ESP_ERR_NVS_NEW_VERSION_FOUND) {
        ESP_ERROR_CHECK(nvs_flash_erase());
        error = nvs_flash_init();
    }
    ESP_ERROR_CHECK(error);
    ESP_ERROR_CHECK(nvs_open("listenai", NVS_READWRITE, &handle));
}

int store_get(void *context, const char *key, char *value, size_t size) {
    (void)context;
    return translated(nvs_get_str(handle, key, value, &size));
}

int store_set(void *context, const char *key, const char *value) {
    (void)context;
    esp_err_t error = nvs_set_str(handle, key, value);
    if (error == ESP_OK) {
        error = nvs_commit(handle);
    }
    return translated(error);
}

void store_erase(const char *key) {
    if (nvs_erase_key(handle, key) == ESP_OK) {
        (void)nvs_commit(handle);
    }
}

void store_setting(const char *key, const char *otherwise, char *value, size_t size) {
    int error = store_get(NULL, key, value, size);
    if (error == LA_OK) {
        return;
    }
    if (error != LA_ERR_NOT_FOUND) {
        ESP_LOGW(TAG, "%s cannot be read (%d): menuconfig's is used; provision again", key, error);
    }
    (void)snprintf(value, size, "%s", otherwise);
}

const struct la_port_store store_port = {.get = store_get, .set = store_set};
