/* Stands for src/include/model_path.h of the component espressif/esp-sr 2.4.6. */
#pragma once

typedef struct {
    char **model_name;
    int num;
} srmodel_list_t;

srmodel_list_t *esp_srmodel_init(const char *partition_label);
