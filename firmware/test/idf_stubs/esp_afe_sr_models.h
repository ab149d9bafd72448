/* Stands for include/esp32s3/esp_afe_sr_models.h of the component espressif/esp-sr 2.4.6. */
#pragma once
#include "esp_afe_sr_iface.h"

const esp_afe_sr_iface_t *esp_afe_handle_from_config(const afe_config_t *config);
