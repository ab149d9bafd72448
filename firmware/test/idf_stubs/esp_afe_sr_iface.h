/* Stands for include/esp32s3/esp_afe_sr_iface.h, esp_afe_config.h and esp_wn_iface.h of the
 * component espressif/esp-sr 2.4.6. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "model_path.h"

typedef enum { AFE_MODE_LOW_COST = 0, AFE_MODE_HIGH_PERF = 1 } afe_mode_t;
typedef enum {
    AFE_TYPE_SR = 0,
    AFE_TYPE_VC = 1,
    AFE_TYPE_VC_8K = 2,
    AFE_TYPE_FD = 3,
} afe_type_t;
typedef enum {
    AFE_MEMORY_ALLOC_MORE_INTERNAL = 1,
    AFE_MEMORY_ALLOC_INTERNAL_PSRAM_BALANCE = 2,
    AFE_MEMORY_ALLOC_MORE_PSRAM = 3,
} afe_memory_alloc_mode_t;
typedef enum {
    WAKENET_NO_DETECT = 0,
    WAKENET_CHANNEL_VERIFIED = 1,
    WAKENET_DETECTED = 2,
} wakenet_state_t;

/* Of the fields, those that are used. */
typedef struct {
    bool aec_init;
    bool se_init;
    bool ns_init;
    bool vad_init;
    bool wakenet_init;
    char *wakenet_model_name;
    bool agc_init;
    afe_memory_alloc_mode_t memory_alloc_mode;
} afe_config_t;

typedef struct esp_afe_sr_data_t esp_afe_sr_data_t;

typedef struct afe_fetch_result_t {
    int16_t *data;
    int data_size;
    wakenet_state_t wakeup_state;
    int ret_value;
} afe_fetch_result_t;

typedef struct {
    esp_afe_sr_data_t *(*create_from_config)(afe_config_t *afe_config);
    int (*feed)(esp_afe_sr_data_t *afe, const int16_t *in);
    afe_fetch_result_t *(*fetch_with_delay)(esp_afe_sr_data_t *afe, TickType_t ticks_to_wait);
    int (*get_feed_chunksize)(esp_afe_sr_data_t *afe);
} esp_afe_sr_iface_t;

afe_config_t *afe_config_init(const char *input_format, srmodel_list_t *models, afe_type_t type,
                              afe_mode_t mode);
afe_config_t *afe_config_check(afe_config_t *afe_config);
void afe_config_free(afe_config_t *afe_config);
