#include "provision.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bootloader_random.h"
#include "esp_err.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_netif.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "store.h"
#include "wifi.h"
#include "wifi_provisioning/manager.h"
#include "wifi_provisioning/scheme_softap.h"

static const char TAG[] = "provision";
static const char REQUEST_KEY[] = "provision";
static const char PROOF_KEY[] = "proof";
static const char ENDPOINT[] = "custom-data"; /* where esp_prov.py --custom_data sends */

static const char BLANKS[] = " \t\r\n";

#define GIVE_UP_US (10LL * 60 * 1000 * 1000)
enum { SETTINGS_SIZE = STORE_SERVER_SIZE + STORE_KEY_SIZE + 16 }; /* with blanks around them */

static char proof[16]; /* the manager keeps the pointer */

void provision_prepare(void) {
    if (store_get(NULL, PROOF_KEY, proof, sizeof proof) == LA_OK) {
        return;
    }
    bootloader_random_enable();
    (void)snprintf(proof, sizeof proof, "%08" PRIx32, esp_random());
    bootloader_random_disable();
    (void)store_set(NULL, PROOF_KEY, proof);
}

bool provision_wanted(void) {
    char value[8];
    wifi_config_t network;
    if (store_get(NULL, REQUEST_KEY, value, sizeof value) == LA_OK) {
        return true;
    }
    if (wifi_configured()) {
        return false;
    }
    ESP_ERROR_CHECK(esp_wifi_get_config(WIFI_IF_STA, &network));
    return network.sta.ssid[0] == '\0';
}

_Noreturn void provision_request(void) {
    (void)store_set(NULL, REQUEST_KEY, "yes");
    esp_restart();
}

static void on_event(void *argument, esp_event_base_t base, int32_t id, void *data) {
    (void)argument;
    (void)base;
    (void)data;
    if (id == WIFI_PROV_CRED_FAIL) { /* a mistyped password: may be tried again */
        ESP_LOGW(TAG, "cannot join that network");
        (void)wifi_prov_mgr_reset_sm_state_on_failure();
    }
}

static void on_give_up(void *argument) {
    (void)argument;
    esp_restart();
}

/* The text without the blanks and line ends around it. */
static char *stripped(char *text) {
    text += strspn(text, BLANKS);
    size_t length = strlen(text);
    while (length > 0 && strchr(BLANKS, text[length - 1]) != NULL) {
        length--;
    }
    text[length] = '\0';
    return text;
}

/* Whether it fits, with its final zero, and is one word: a line end would end an HTTP header. */
static bool is_word(const char *text, size_t size) {
    return strlen(text) < size && text[strcspn(text, BLANKS)] == '\0';
}

static bool is_server(const char *text) {
    bool socket = strncmp(text, "ws://", strlen("ws://")) == 0 ||
                  strncmp(text, "wss://", strlen("wss://")) == 0;
    return socket && is_word(text, STORE_SERVER_SIZE);
}

static bool keep_settings(char *text) {
    char *key = strchr(text, '\n');
    if (key != NULL) {
        *key++ = '\0';
        key = stripped(key);
    }
    const char *server = stripped(text);
    if (!is_server(server) || (key != NULL && !is_word(key, STORE_KEY_SIZE))) {
        return false;
    }
    return store_set(NULL, "server", server) == LA_OK &&
           (key == NULL || store_set(NULL, "api_key", key) == LA_OK);
}

/* The app's first line is the server's address, the second its key. */
static esp_err_t on_settings(uint32_t session, const uint8_t *in, ssize_t in_length, uint8_t **out,
                             ssize_t *out_length, void *context) {
    char text[SETTINGS_SIZE] = "";
    char answer[160] = "saved";
    bool kept = false;
    (void)session;
    (void)context;
    if (in != NULL && in_length > 0 && in_length < (ssize_t)sizeof text) {
        memcpy(text, in, (size_t)in_length);
        kept = keep_settings(text);
    }
    if (!kept) {
        (void)snprintf(answer, sizeof answer,
                       "not saved: first line ws://HOST:PORT/ or wss://..., at most %d bytes; "
                       "second line the key, at most %d bytes; no blanks in them",
                       STORE_SERVER_SIZE - 1, STORE_KEY_SIZE - 1);
    }
    *out = (uint8_t *)strdup(answer); /* freed by the caller */
    if (*out == NULL) {
        return ESP_ERR_NO_MEM;
    }
    *out_length = (ssize_t)strlen(answer) + 1;
    return ESP_OK;
}

static void start(void) {
    const wifi_prov_mgr_config_t manager = {
        .scheme = wifi_prov_scheme_softap,
        .scheme_event_handler = WIFI_PROV_EVENT_HANDLER_NONE,
        .app_event_handler = WIFI_PROV_EVENT_HANDLER_NONE,
    };
    char name[24];
    uint8_t mac[6] = {0};
    ESP_ERROR_CHECK(esp_read_mac(mac, ESP_MAC_WIFI_STA));
    (void)snprintf(name, sizeof name, "LISTENAI-%02X%02X%02X", mac[3], mac[4], mac[5]);
    ESP_ERROR_CHECK(esp_event_handler_register(WIFI_PROV_EVENT, ESP_EVENT_ANY_ID, on_event, NULL));
    ESP_ERROR_CHECK(wifi_prov_mgr_init(manager));
    ESP_ERROR_CHECK(wifi_prov_mgr_endpoint_create(ENDPOINT));
    ESP_ERROR_CHECK(
        wifi_prov_mgr_start_provisioning(WIFI_PROV_SECURITY_1, proof, name, NULL));
    ESP_ERROR_CHECK(wifi_prov_mgr_endpoint_register(ENDPOINT, on_settings, NULL));
    /* Shown where only the board's owner looks. */
    ESP_LOGI(TAG, "access point %s, proof of possession %s", name, proof);
}

_Noreturn void provision_run(void) {
    wifi_config_t network;
    ESP_ERROR_CHECK(esp_wifi_get_config(WIFI_IF_STA, &network));
    store_erase(REQUEST_KEY); /* asked for once */
    if (network.sta.ssid[0] != '\0' || wifi_configured()) {
        const esp_timer_create_args_t give_up = {.callback = on_give_up, .name = "provision"};
        esp_timer_handle_t timer = NULL;
        ESP_ERROR_CHECK(esp_timer_create(&give_up, &timer));
        ESP_ERROR_CHECK(esp_timer_start_once(timer, (uint64_t)GIVE_UP_US));
    }
    (void)esp_netif_create_default_wifi_ap();
    start();
    wifi_prov_mgr_wait();
    wifi_prov_mgr_deinit();
    esp_restart();
}
