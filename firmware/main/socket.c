#include "socket.h"

#include <stdatomic.h>
#include <stdio.h>

#include "esp_crt_bundle.h"
#include "esp_err.h"
#include "esp_event.h"
#include "esp_log.h"
#include "esp_websocket_client.h"
#include "la_mailbox.h"
#include "sdkconfig.h"
#include "store.h"
#include "wifi.h"

static const char TAG[] = "socket";

enum {
    MAILBOX_BYTES = 16384,     /* half a second of audio, each way */
    TEXT_RESERVE_BYTES = 3072, /* audio leaves so much of the outgoing box to text */
    PIECE_BYTES = 2048,        /* of a frame, received at once; larger ones come in pieces */
    CONNECT_TIMEOUT_MS = 5000,
    SEND_TIMEOUT_MS = 3000,    /* a longer stall ends the connection: it is begun anew */
    CLOSE_TIMEOUT_MS = 200,
    FULL_WAIT_MS = 5,
    SENDER_STACK = 4096,
    CLIENT_STACK = 8192,       /* a TLS handshake takes most of it */
    PRIORITY = 6,
    HTTP_UNAUTHORIZED = 401,
    HTTP_FORBIDDEN = 403,
    POLICY_VIOLATION = 1008    /* the WebSocket close code that means the same */
};

/* A mail's kind: what it is in the lower bits, the connection in the upper ones. */
enum { OPENED = 1, RECEIVED, CLOSED, TEXT, BINARY };
enum { KIND_BITS = 4, KIND_MASK = 15, CONNECTION_MASK = 0xFFF };
enum { FIN = 0x100, OPCODE_MASK = 0xFF }; /* flags of a received piece */

#define AUTHORIZATION "Authorization: Bearer %s\r\n"
static char uri[STORE_SERVER_SIZE];
static char headers[sizeof AUTHORIZATION + STORE_KEY_SIZE];

static TaskHandle_t device_task;
static TaskHandle_t sender_task;
static struct la_mailbox incoming;
static struct la_mailbox outgoing;

/* The connection that the device wants, 0: none.  The device's task sets it, the sender's makes it
 * true. */
static atomic_uint wanted;
static unsigned last_wanted; /* device task: the number that was given out last */
static uint32_t delivered;   /* device task: of the mail that is being delivered, in bytes */

static atomic_uint client_connection; /* that the client was started for */
static atomic_int closed_code; /* why the connection ended; a failed send tells from the sender */

static uint16_t kind_of(unsigned what, unsigned connection) {
    return (uint16_t)((connection & CONNECTION_MASK) << KIND_BITS | what);
}

static bool belongs(const struct la_mail *mail, unsigned connection) {
    return connection != 0 && mail->kind >> KIND_BITS == (connection & CONNECTION_MASK);
}

/* --- the client's task: only enqueues ------------------------------------------------------- */

/* Waits where the device has no room: then the peer is not read, which is TCP's own brake. */
static void put_incoming(const struct la_mail *mail, const void *data) {
    while (belongs(mail, atomic_load(&wanted))) {
        if (la_mailbox_put(&incoming, mail, data) == LA_OK) {
            xTaskNotifyGive(device_task);
            return;
        }
        vTaskDelay(pdMS_TO_TICKS(FULL_WAIT_MS));
    }
}

static void put_piece(unsigned connection, const esp_websocket_event_data_t *data) {
    const struct la_mail mail = {
        .kind = kind_of(RECEIVED, connection),
        .flags = (uint16_t)(data->op_code | (data->fin ? FIN : 0)),
        .number = (uint32_t)data->payload_offset,
        .total = (uint32_t)data->payload_len,
        .length = (uint32_t)data->data_len,
    };
    if (data->op_code <= LA_OPCODE_BINARY) { /* not a ping, pong or close */
        put_incoming(&mail, data->data_ptr);
    }
}

static void put_closed(unsigned connection, int code) {
    const struct la_mail mail = {.kind = kind_of(CLOSED, connection), .number = (uint32_t)code};
    put_incoming(&mail, NULL);
}

/* The close frame's code, or what a refused handshake means. */
static int code_of(const esp_websocket_event_data_t *data) {
    int status = data->error_handle.esp_ws_handshake_status_code;
    if (status == HTTP_UNAUTHORIZED || status == HTTP_FORBIDDEN) {
        return POLICY_VIOLATION;
    }
    return data->close_status_code;
}

static void on_event(void *argument, esp_event_base_t base, int32_t id, void *event_data) {
    unsigned connection = atomic_load(&client_connection);
    const esp_websocket_event_data_t *data = event_data;
    const struct la_mail opened = {.kind = kind_of(OPENED, connection)};
    (void)argument;
    (void)base;
    switch (id) {
    case WEBSOCKET_EVENT_BEGIN:
        atomic_store(&closed_code, 0);
        break;
    case WEBSOCKET_EVENT_CONNECTED:
        put_incoming(&opened, NULL);
        break;
    case WEBSOCKET_EVENT_DATA:
        put_piece(connection, data);
        break;
    case WEBSOCKET_EVENT_ERROR:
    case WEBSOCKET_EVENT_DISCONNECTED:
    case WEBSOCKET_EVENT_CLOSED:
        atomic_store(&closed_code, code_of(data));
        break;
    case WEBSOCKET_EVENT_FINISH: /* the last one, whatever ended it */
        put_closed(connection, atomic_load(&closed_code));
        break;
    default:
        break;
    }
}

/* --- the sender's task: owns the client ----------------------------------------------------- */

static esp_websocket_client_handle_t start_client(unsigned connection) {
    const esp_websocket_client_config_t config = {
        .uri = uri,
        .headers = headers[0] == '\0' ? NULL : headers,
        .disable_auto_reconnect = true, /* the core decides when */
        .disable_pingpong_discon = true, /* the core has a ping of its own */
        .task_prio = PRIORITY,
        .task_name = "websocket",
        .task_stack = CLIENT_STACK,
        .buffer_size = PIECE_BYTES,
        .crt_bundle_attach = esp_crt_bundle_attach,
        .network_timeout_ms = CONNECT_TIMEOUT_MS,
        .keep_alive_enable = true,
    };
    esp_websocket_client_handle_t client = esp_websocket_client_init(&config);
    if (client == NULL) {
        return NULL;
    }
    atomic_store(&client_connection, connection);
    if (esp_websocket_register_events(client, WEBSOCKET_EVENT_ANY, on_event, NULL) !=
            ESP_OK ||
        esp_websocket_client_start(client) != ESP_OK) {
        (void)esp_websocket_client_destroy(client);
        return NULL;
    }
    return client;
}

/* A close frame first, but not at any price: the library's own close waits without a limit. */
static void end_client(esp_websocket_client_handle_t client) {
    if (esp_websocket_client_is_connected(client)) {
        (void)esp_websocket_client_send_with_opcode(client, WS_TRANSPORT_OPCODES_CLOSE, NULL, 0,
                                                    pdMS_TO_TICKS(CLOSE_TIMEOUT_MS));
    }
    (void)esp_websocket_client_destroy(client); /* stops it first */
}

/* Sends what is queued; stops where another connection is wanted. */
static void send_outgoing(esp_websocket_client_handle_t client, unsigned connection) {
    static char message[LA_SEND_SIZE];
    struct la_mail mail;
    while (atomic_load(&wanted) == connection && la_mailbox_peek(&outgoing, &mail)) {
        if (client != NULL && belongs(&mail, connection)) {
            int length = (int)la_mailbox_copy(&outgoing, 0, message, sizeof message);
            if ((mail.kind & KIND_MASK) == TEXT) {
                (void)esp_websocket_client_send_text(client, message, length,
                                                     pdMS_TO_TICKS(SEND_TIMEOUT_MS));
            } else {
                (void)esp_websocket_client_send_bin(client, message, length,
                                                    pdMS_TO_TICKS(SEND_TIMEOUT_MS));
            }
        }
        /* What could not be sent has ended the connection: the client tells. */
        la_mailbox_drop(&outgoing);
    }
}

static void sender(void *argument) {
    esp_websocket_client_handle_t client = NULL;
    unsigned connection = 0;
    (void)argument;
    for (;;) {
        unsigned now_wanted = atomic_load(&wanted);
        if (now_wanted != connection) {
            if (client != NULL) {
                end_client(client);
                client = NULL;
            }
            connection = now_wanted;
            if (connection != 0) {
                client = start_client(connection);
                if (client == NULL) {
                    ESP_LOGE(TAG, "cannot start the client: out of memory, or a URI that is not "
                                  "ws:// or wss://");
                    put_closed(connection, 0);
                }
            }
        }
        send_outgoing(client, connection);
        if (atomic_load(&wanted) == connection) {
            (void)ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
        }
    }
}

/* --- the device's task ----------------------------------------------------------------------- */

static int open_socket(void *context) {
    (void)context;
    if (!wifi_joined()) {
        return LA_ERR_CLOSED;
    }
    last_wanted = (last_wanted & CONNECTION_MASK) % CONNECTION_MASK + 1;
    delivered = 0;
    atomic_store(&wanted, last_wanted);
    xTaskNotifyGive(sender_task);
    return LA_OK;
}

static void close_socket(void *context) {
    (void)context;
    atomic_store(&wanted, 0);
    xTaskNotifyGive(sender_task);
}

static int queue(unsigned what, const void *data, size_t length, size_t reserve) {
    const struct la_mail mail = {
        .kind = kind_of(what, atomic_load(&wanted)),
        .length = (uint32_t)length,
    };
    if (length > LA_SEND_SIZE) {
        return LA_ERR_TOO_LONG;
    }
    if (atomic_load(&wanted) == 0) {
        return LA_ERR_CLOSED;
    }
    if (!la_mailbox_has_room(&outgoing, (uint32_t)(length + reserve))) {
        return LA_ERR_FULL;
    }
    int error = la_mailbox_put(&outgoing, &mail, data);
    xTaskNotifyGive(sender_task);
    return error;
}

static int send_text(void *context, const char *text, size_t length) {
    (void)context;
    return queue(TEXT, text, length, 0);
}

static int send_binary(void *context, const void *data, size_t length) {
    (void)context;
    return queue(BINARY, data, length, TEXT_RESERVE_BYTES);
}

/* Whether the mail is done with; otherwise the device had no room for all of it. */
static bool deliver_piece(struct la_device *device, const struct la_mail *mail) {
    static uint8_t bytes[PIECE_BYTES];
    do {
        uint32_t length = la_mailbox_copy(&incoming, delivered, bytes, sizeof bytes);
        const struct la_ws_piece piece = {
            .opcode = mail->flags & OPCODE_MASK,
            .fin = (mail->flags & FIN) != 0,
            .data = bytes,
            .length = length,
            .offset = mail->number + delivered,
            .frame_length = mail->total,
        };
        int taken = la_device_on_ws_data(device, &piece);
        if (taken < 0) {
            return true; /* the device closes the connection */
        }
        delivered += (uint32_t)taken;
        if ((uint32_t)taken < length) {
            return false;
        }
    } while (delivered < mail->length);
    return true;
}

static bool deliver(struct la_device *device, const struct la_mail *mail) {
    switch (mail->kind & KIND_MASK) {
    case OPENED:
        la_device_on_ws_open(device);
        return true;
    case RECEIVED:
        return deliver_piece(device, mail);
    default:
        atomic_store(&wanted, 0);
        xTaskNotifyGive(sender_task);
        la_device_on_ws_closed(device, (int)mail->number);
        return true;
    }
}

void socket_deliver(struct la_device *device) {
    struct la_mail mail;
    while (la_mailbox_peek(&incoming, &mail)) {
        if (belongs(&mail, atomic_load(&wanted)) && !deliver(device, &mail)) {
            return;
        }
        delivered = 0;
        la_mailbox_drop(&incoming);
    }
}

void socket_prepare(const char *to, const char *api_key, TaskHandle_t woken) {
    static uint8_t incoming_memory[MAILBOX_BYTES];
    static uint8_t outgoing_memory[MAILBOX_BYTES];
    device_task = woken;
    (void)snprintf(uri, sizeof uri, "%s", to);
    if (api_key[0] != '\0') {
        (void)snprintf(headers, sizeof headers, AUTHORIZATION, api_key);
    }
    ESP_ERROR_CHECK(la_mailbox_init(&incoming, incoming_memory, MAILBOX_BYTES));
    ESP_ERROR_CHECK(la_mailbox_init(&outgoing, outgoing_memory, MAILBOX_BYTES));
    if (xTaskCreate(sender, "sender", SENDER_STACK, NULL, PRIORITY, &sender_task) != pdPASS) {
        ESP_ERROR_CHECK(ESP_ERR_NO_MEM);
    }
}

const struct la_port_ws socket_port = {
    .open = open_socket,
    .send_text = send_text,
    .send_binary = send_binary,
    .close = close_socket,
};
