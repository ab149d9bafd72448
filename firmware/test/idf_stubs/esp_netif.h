/* Stands for components/esp_netif/include/esp_netif.h, esp_netif_types.h and, for the defaults,
 * components/esp_wifi/include/esp_wifi_default.h (ESP-IDF 5.4). */
#pragma once
#include "esp_event.h"

typedef struct esp_netif_obj esp_netif_t;

typedef enum {
    IP_EVENT_STA_GOT_IP,
    IP_EVENT_STA_LOST_IP,
} ip_event_t;

ESP_EVENT_DECLARE_BASE(IP_EVENT);

esp_err_t esp_netif_init(void);
esp_netif_t *esp_netif_create_default_wifi_sta(void);
esp_netif_t *esp_netif_create_default_wifi_ap(void);
