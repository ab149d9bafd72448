#include "ota.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_crt_bundle.h"
#include "esp_err.h"
#include "esp_https_ota.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "esp_system.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"

static const char TAG[] = "ota";

enum { STACK = 8192, PRIORITY = 3, HTTP_TIMEOUT_MS = 10000 };

static la_ms deadline = LA_NEVER; /* of the trial; LA_NEVER: this image is not on trial */

static _Atomic enum { IDLE, DOWNLOADING, DOWNLOADED } update = IDLE;

void ota_open(la_ms now) {
    esp_ota_img_states_t state = ESP_OTA_IMG_UNDEFINED;
    if (esp_ota_get_state_partition(esp_ota_get_running_partition(), &state) == ESP_OK &&
        state == ESP_OTA_IMG_PENDING_VERIFY) {
        deadline = now + (la_ms)CONFIG_LISTENAI_OTA_CONFIRM_SECONDS * 1000;
        ESP_LOGI(TAG, "this image is on trial");
    }
}

void ota_tick(bool ready, bool idle, la_ms now) {
    if (deadline != LA_NEVER && ready) {
        deadline = LA_NEVER;
        ESP_ERROR_CHECK(esp_ota_mark_app_valid_cancel_rollback());
        ESP_LOGI(TAG, "confirmed");
    } else if (now >= deadline) { /* never in a trial that is over */
        ESP_LOGE(TAG, "no server in time: back to the image before");
        ESP_ERROR_CHECK(esp_ota_mark_app_invalid_rollback_and_reboot());
    }
    if (atomic_load(&update) == DOWNLOADED && idle) {
        esp_restart();
    }
}

/* Whether the image that is offered differs from this one, and from one that failed. */
static bool is_news(const esp_app_desc_t *offered) {
    esp_app_desc_t failed;
    const esp_partition_t *invalid = esp_ota_get_last_invalid_partition();
    if (strcmp(offered->version, esp_app_get_description()->version) == 0) {
        ESP_LOGI(TAG, "nothing new");
        return false;
    }
    if (invalid != NULL && esp_ota_get_partition_description(invalid, &failed) == ESP_OK &&
        strcmp(offered->version, failed.version) == 0) {
        ESP_LOGW(TAG, "the newest image failed here before: not installed");
        return false;
    }
    return true;
}

static esp_err_t install(esp_https_ota_handle_t download) {
    esp_app_desc_t offered;
    esp_err_t error = esp_https_ota_get_img_desc(download, &offered);
    if (error != ESP_OK || !is_news(&offered)) {
        (void)esp_https_ota_abort(download);
        return error == ESP_OK ? ESP_ERR_NOT_FOUND : error;
    }
    do {
        error = esp_https_ota_perform(download);
    } while (error == ESP_ERR_HTTPS_OTA_IN_PROGRESS);
    if (error != ESP_OK || !esp_https_ota_is_complete_data_received(download)) {
        (void)esp_https_ota_abort(download);
        return error == ESP_OK ? ESP_ERR_INVALID_SIZE : error;
    }
    return esp_https_ota_finish(download); /* checks the image and chooses it for the next start */
}

static void download_newest(void *argument) {
    const esp_http_client_config_t http = {
        .url = CONFIG_LISTENAI_OTA_URL,
        .timeout_ms = HTTP_TIMEOUT_MS,
        .crt_bundle_attach = esp_crt_bundle_attach,
        .keep_alive_enable = true,
    };
    const esp_https_ota_config_t config = {.http_config = &http};
    esp_https_ota_handle_t download = NULL;
    (void)argument;
    esp_err_t error = esp_https_ota_begin(&config, &download);
    if (error == ESP_OK) {
        error = install(download);
    }
    if (error == ESP_OK) {
        atomic_store(&update, DOWNLOADED);
    } else {
        ESP_LOGW(TAG, "not updated: %s", esp_err_to_name(error));
        atomic_store(&update, IDLE);
    }
    vTaskDelete(NULL);
}

static int run(void *context, const char *arguments, char *answer, size_t size) {
    (void)context;
    (void)arguments;
    if (strncmp(CONFIG_LISTENAI_OTA_URL, "https://", strlen("https://")) != 0) {
        (void)snprintf(answer, size, "this device was not told where its updates are");
        return LA_ERR_UNSUPPORTED;
    }
    if (deadline != LA_NEVER || atomic_load(&update) != IDLE) {
        (void)snprintf(answer, size, "an update is under way already");
        return LA_ERR_FULL;
    }
    atomic_store(&update, DOWNLOADING);
    if (xTaskCreate(download_newest, "update", STACK, NULL, PRIORITY, NULL) != pdPASS) {
        atomic_store(&update, IDLE);
        (void)snprintf(answer, size, "there is not enough memory for an update now");
        return LA_ERR_IO;
    }
    (void)snprintf(answer, size, "{\"started\":true,\"restarts\":\"when nobody talks\"}");
    return LA_OK;
}

const struct la_tool ota_tool = {
    .name = "update_firmware",
    .description = "Install the newest firmware on this device, if there is any.",
    .parameters = "{\"type\":\"object\",\"properties\":{}}",
    .run = run,
};
