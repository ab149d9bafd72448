/* What the board is told at its first start: main/provision.c and main/store.c, with an app that
 * sends all sorts of settings.  What is said to be saved is what is used after the restart. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bootloader_random.h"
#include "esp_mac.h"
#include "esp_netif.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "nvs.h"
#include "nvs_flash.h"
#include "provision.h"
#include "store.h"
#include "wifi.h"
#include "wifi_provisioning/manager.h"
#include "wifi_provisioning/scheme_softap.h"

enum { LONGEST_SERVER = 159, LONGEST_KEY = 128, TEXT = 512 };

_Noreturn static void fail(const char *what, const char *text) {
    fprintf(stderr, "glue_provision: %s: %s\n", what, text);
    abort();
}

/* --- the flash -------------------------------------------------------------------------------- */

struct entry {
    char key[16];
    char value[TEXT];
    bool there;
};
static struct entry flash[8];

static struct entry *find(const char *key) {
    for (size_t i = 0; i < sizeof flash / sizeof *flash; i++) {
        if (flash[i].key[0] == '\0' || strcmp(flash[i].key, key) == 0) {
            (void)snprintf(flash[i].key, sizeof flash[i].key, "%s", key);
            return &flash[i];
        }
    }
    fail("the flash is full", key);
}
esp_err_t nvs_get_str(nvs_handle_t handle, const char *key, char *out_value, size_t *length) {
    const struct entry *entry = find(key);
    (void)handle;
    if (!entry->there) {
        return ESP_ERR_NVS_NOT_FOUND;
    }
    if (strlen(entry->value) >= *length) {
        return ESP_ERR_NVS_INVALID_LENGTH;
    }
    *length = strlen(entry->value) + 1;
    memcpy(out_value, entry->value, *length);
    return ESP_OK;
}
esp_err_t nvs_set_str(nvs_handle_t handle, const char *key, const char *value) {
    (void)handle;
    struct entry *entry = find(key);
    (void)snprintf(entry->value, sizeof entry->value, "%s", value);
    entry->there = true;
    return ESP_OK;
}
esp_err_t nvs_erase_key(nvs_handle_t handle, const char *key) {
    (void)handle;
    find(key)->there = false;
    return ESP_OK;
}
esp_err_t nvs_commit(nvs_handle_t handle) {
    (void)handle;
    return ESP_OK;
}
esp_err_t nvs_open(const char *namespace_name, nvs_open_mode_t open_mode,
                   nvs_handle_t *out_handle) {
    (void)namespace_name;
    (void)open_mode;
    *out_handle = 1;
    return ESP_OK;
}
esp_err_t nvs_flash_init(void) {
    return ESP_OK;
}
esp_err_t nvs_flash_erase(void) {
    return ESP_FAIL;
}

/* --- the app ---------------------------------------------------------------------------------- */

static protocomm_req_handler_t settings;

static bool tell(const char *text) {
    uint8_t *out = NULL;
    ssize_t length = 0;
    if (settings(1, (const uint8_t *)text, (ssize_t)strlen(text), &out, &length, NULL) != ESP_OK ||
        length != (ssize_t)strlen((const char *)out) + 1) {
        fail("no answer", text);
    }
    const char *answer = (const char *)out;
    bool saved = strcmp(answer, "saved") == 0;
    if (!saved && (strstr(answer, "159") == NULL || strstr(answer, "128") == NULL)) {
        fail("the limits are not said", answer);
    }
    free(out);
    return saved;
}

/* Whether these are used after a restart. */
static void expect(const char *server, const char *key) {
    char used[LONGEST_SERVER + 1];
    char used_key[LONGEST_KEY + 1];
    store_setting("server", "no server", used, sizeof used);
    store_setting("api_key", "no key", used_key, sizeof used_key);
    if (strcmp(used, server) != 0) {
        fail("not the server", used);
    }
    if (strcmp(used_key, key) != 0) {
        fail("not the key", used_key);
    }
}

static void refuse(const char *text) {
    if (tell(text)) {
        fail("said to be saved", text);
    }
    expect("wss://kept:9400/", "kept");
}

static void keep(const char *text, const char *server, const char *key) {
    if (!tell(text)) {
        fail("not saved", text);
    }
    expect(server, key);
}

static const char *repeated(char *text, const char *begin, size_t length) {
    memset(text, 'x', length);
    memcpy(text, begin, strlen(begin));
    text[length] = '\0';
    return text;
}

static void send_all_sorts(void) {
    char server[TEXT];
    char key[TEXT];
    char both[3 * TEXT];
    keep("ws://host:9400/", "ws://host:9400/", "no key");
    keep("wss://host/\nsecret", "wss://host/", "secret");
    keep(" wss://other/ \r\n\tanother \r\n", "wss://other/", "another");
    keep("ws://host/\r\n", "ws://host/", ""); /* an empty line: no key from here on */
    keep("ws://host:1/", "ws://host:1/", "");

    repeated(server, "wss://", LONGEST_SERVER);
    repeated(key, "", LONGEST_KEY);
    (void)snprintf(both, sizeof both, "%s\r\n%s\r\n", server, key);
    keep(both, server, key);

    keep("wss://kept:9400/\nkept", "wss://kept:9400/", "kept");
    refuse("");
    refuse("http://host/");
    refuse("kept");
    refuse("wss://host /\nnew");
    refuse("wss://host/\nnew\nand more");
    refuse(repeated(server, "wss://", LONGEST_SERVER + 1));
    (void)snprintf(both, sizeof both, "wss://new/\n%s", repeated(key, "", LONGEST_KEY + 1));
    refuse(both);
    refuse(repeated(server, "wss://", TEXT - 1));
}

/* --- ESP-IDF ---------------------------------------------------------------------------------- */

esp_event_base_t const WIFI_PROV_EVENT = "WIFI_PROV_EVENT";
const wifi_prov_scheme_t wifi_prov_scheme_softap = {NULL};

esp_err_t wifi_prov_mgr_endpoint_register(const char *ep_name, protocomm_req_handler_t handler,
                                          void *user_ctx) {
    (void)user_ctx;
    if (strcmp(ep_name, "custom-data") == 0) {
        settings = handler;
    }
    return ESP_OK;
}
void wifi_prov_mgr_wait(void) {
    send_all_sorts();
    printf("glue_provision: what is saved is used, what is not says why\n");
    exit(0);
}
esp_err_t wifi_prov_mgr_init(wifi_prov_mgr_config_t config) {
    (void)config;
    return ESP_OK;
}
void wifi_prov_mgr_deinit(void) {}
esp_err_t wifi_prov_mgr_start_provisioning(wifi_prov_security_t security,
                                           const void *wifi_prov_sec_params,
                                           const char *service_name, const char *service_key) {
    (void)security;
    (void)wifi_prov_sec_params;
    (void)service_name;
    (void)service_key;
    return ESP_OK;
}
esp_err_t wifi_prov_mgr_endpoint_create(const char *ep_name) {
    (void)ep_name;
    return ESP_OK;
}
esp_err_t wifi_prov_mgr_reset_sm_state_on_failure(void) {
    return ESP_OK;
}
esp_err_t esp_event_handler_register(esp_event_base_t event_base, int32_t event_id,
                                     esp_event_handler_t event_handler, void *event_handler_arg) {
    (void)event_base;
    (void)event_id;
    (void)event_handler;
    (void)event_handler_arg;
    return ESP_OK;
}
esp_err_t esp_wifi_get_config(wifi_interface_t interface, wifi_config_t *conf) {
    (void)interface;
    memset(conf, 0, sizeof *conf);
    return ESP_OK;
}
bool wifi_configured(void) {
    return false;
}
esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args,
                           esp_timer_handle_t *out_handle) {
    (void)create_args;
    (void)out_handle;
    return ESP_OK;
}
esp_err_t esp_timer_start_once(esp_timer_handle_t timer, uint64_t timeout_us) {
    (void)timer;
    (void)timeout_us;
    return ESP_OK;
}
esp_netif_t *esp_netif_create_default_wifi_ap(void) {
    return NULL;
}
esp_err_t esp_read_mac(uint8_t *mac, esp_mac_type_t type) {
    (void)type;
    memset(mac, 1, 6);
    return ESP_OK;
}
uint32_t esp_random(void) {
    return 4;
}
void bootloader_random_enable(void) {}
void bootloader_random_disable(void) {}
void esp_restart(void) {
    fail("it restarts", "");
}
void stub_log(const char *tag, const char *format, ...) {
    (void)tag;
    (void)format;
}
_Noreturn void stub_error_check_failed(esp_err_t error) {
    (void)error;
    fail("ESP_ERROR_CHECK", "");
}

int main(void) {
    store_open();
    provision_prepare();
    provision_run();
}
