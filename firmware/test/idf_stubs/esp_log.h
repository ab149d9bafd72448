/* Stands for components/log/include/esp_log.h (ESP-IDF 5.4). */
#pragma once

/* The real macros print; here the compiler only compares formats and arguments. */
__attribute__((format(printf, 2, 3))) void stub_log(const char *tag, const char *format, ...);
#define ESP_LOGE(tag, format, ...) stub_log(tag, format, ##__VA_ARGS__)
#define ESP_LOGW(tag, format, ...) stub_log(tag, format, ##__VA_ARGS__)
#define ESP_LOGI(tag, format, ...) stub_log(tag, format, ##__VA_ARGS__)
