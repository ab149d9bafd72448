/* Stands for include/esp_websocket_client.h of the component espressif/esp_websocket_client 1.8,
 * and for the opcodes of components/tcp_transport/include/esp_transport_ws.h (ESP-IDF 5.4). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "esp_err.h"
#include "esp_event.h"
#include "freertos/FreeRTOS.h"

typedef struct esp_websocket_client *esp_websocket_client_handle_t;

typedef enum {
    WEBSOCKET_EVENT_ANY = -1,
    WEBSOCKET_EVENT_ERROR = 0,
    WEBSOCKET_EVENT_CONNECTED,
    WEBSOCKET_EVENT_DISCONNECTED,
    WEBSOCKET_EVENT_DATA,
    WEBSOCKET_EVENT_CLOSED,
    WEBSOCKET_EVENT_BEFORE_CONNECT,
    WEBSOCKET_EVENT_BEGIN,
    WEBSOCKET_EVENT_FINISH,
} esp_websocket_event_id_t;

typedef enum {
    WS_TRANSPORT_OPCODES_CONT = 0x00,
    WS_TRANSPORT_OPCODES_TEXT = 0x01,
    WS_TRANSPORT_OPCODES_BINARY = 0x02,
    WS_TRANSPORT_OPCODES_CLOSE = 0x08,
} ws_transport_opcodes_t;

/* Of the fields, those that are used. */
typedef struct {
    int esp_ws_handshake_status_code;
} esp_websocket_error_codes_t;

typedef struct {
    const char *data_ptr;
    int data_len;
    bool fin;
    uint8_t op_code;
    int payload_len;
    int payload_offset;
    esp_websocket_error_codes_t error_handle;
    int close_status_code;
} esp_websocket_event_data_t;

typedef struct {
    const char *uri;
    bool disable_auto_reconnect;
    int task_prio;
    const char *task_name;
    int task_stack;
    int buffer_size;
    const char *headers;
    bool disable_pingpong_discon;
    esp_err_t (*crt_bundle_attach)(void *conf);
    bool keep_alive_enable;
    int network_timeout_ms;
} esp_websocket_client_config_t;

esp_websocket_client_handle_t esp_websocket_client_init(
    const esp_websocket_client_config_t *config);
esp_err_t esp_websocket_client_start(esp_websocket_client_handle_t client);
esp_err_t esp_websocket_client_destroy(esp_websocket_client_handle_t client);
bool esp_websocket_client_is_connected(esp_websocket_client_handle_t client);
int esp_websocket_client_send_text(esp_websocket_client_handle_t client, const char *data, int len,
                                   TickType_t timeout);
int esp_websocket_client_send_bin(esp_websocket_client_handle_t client, const char *data, int len,
                                  TickType_t timeout);
int esp_websocket_client_send_with_opcode(esp_websocket_client_handle_t client,
                                          ws_transport_opcodes_t opcode, const uint8_t *data,
                                          int len, TickType_t timeout);
esp_err_t esp_websocket_register_events(esp_websocket_client_handle_t client,
                                        esp_websocket_event_id_t event,
                                        esp_event_handler_t event_handler,
                                        void *event_handler_arg);
