#include "wifi.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "esp_err.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "la_backoff.h"
#include "sdkconfig.h"

static const char TAG[] = "wifi";

static atomic_bool joined;
static struct la_backoff backoff; /* only the event task touches it */
static esp_timer_handle_t retry;

static void on_retry(void *argument) {
    (void)argument;
    (void)esp_wifi_connect(); /* a failure is told as STA_DISCONNECTED */
}

static void on_lost(const wifi_event_sta_disconnected_t *event) {
    uint32_t wait_ms = la_backoff_next(&backoff, esp_random(), 0);
    atomic_store(&joined, false);
    ESP_LOGW(TAG, "lost, reason=%u rssi=%d, again in %" PRIu32 " ms", (unsigned)event->reason,
             (int)event->rssi, wait_ms);
    (void)esp_timer_stop(retry);
    (void)esp_timer_start_once(retry, (uint64_t)wait_ms * 1000);
}

static void on_wifi(void *argument, esp_event_base_t base, int32_t id, void *data) {
    (void)argument;
    (void)base;
    if (id == WIFI_EVENT_STA_START) {
        (void)esp_wifi_connect();
    } else if (id == WIFI_EVENT_STA_DISCONNECTED) {
        on_lost(data);
    }
}

static void on_address(void *argument, esp_event_base_t base, int32_t id, void *data) {
    (void)argument;
    (void)base;
    (void)id;
    (void)data;
    la_backoff_reset(&backoff);
    atomic_store(&joined, true);
    ESP_LOGI(TAG, "joined");
}

void wifi_open(void) {
    const wifi_init_config_t driver = WIFI_INIT_CONFIG_DEFAULT();
    ESP_ERROR_CHECK(esp_netif_init());
    ESP_ERROR_CHECK(esp_event_loop_create_default());
    (void)esp_netif_create_default_wifi_sta();
    ESP_ERROR_CHECK(esp_wifi_init(&driver));
}

/* menuconfig has a password only where it has a network. */
#ifdef CONFIG_LISTENAI_WIFI_PASSWORD

bool wifi_configured(void) {
    return true;
}

/* For this run only; the flash keeps what was provisioned. */
static void use_configured_network(void) {
    wifi_config_t network = {0};
    /* 32 and 64 bytes that need no final zero. */
    (void)strncpy((char *)network.sta.ssid, CONFIG_LISTENAI_WIFI_SSID, sizeof network.sta.ssid);
    (void)strncpy((char *)network.sta.password, CONFIG_LISTENAI_WIFI_PASSWORD,
                  sizeof network.sta.password);
    ESP_ERROR_CHECK(esp_wifi_set_storage(WIFI_STORAGE_RAM));
    ESP_ERROR_CHECK(esp_wifi_set_config(WIFI_IF_STA, &network));
}

#else

bool wifi_configured(void) {
    return false;
}

static void use_configured_network(void) {}

#endif

void wifi_join(void) {
    const esp_timer_create_args_t again = {.callback = on_retry, .name = "wifi"};
    la_backoff_init(&backoff);
    ESP_ERROR_CHECK(esp_timer_create(&again, &retry));
    ESP_ERROR_CHECK(esp_event_handler_register(WIFI_EVENT, ESP_EVENT_ANY_ID, on_wifi, NULL));
    ESP_ERROR_CHECK(esp_event_handler_register(IP_EVENT, IP_EVENT_STA_GOT_IP, on_address, NULL));
    ESP_ERROR_CHECK(esp_wifi_set_mode(WIFI_MODE_STA));
    use_configured_network();
    ESP_ERROR_CHECK(esp_wifi_start());
}

bool wifi_joined(void) {
    return atomic_load(&joined);
}

void wifi_rest(enum wifi_rest rest) {
    (void)esp_wifi_set_ps(rest == WIFI_AWAKE ? WIFI_PS_NONE : WIFI_PS_MIN_MODEM);
}
