/* main/socket.c with real threads, against a simulated esp_websocket_client.
 *
 * The client's thread tells its events as the real one does: BEGIN, CONNECTED, DATA in pieces,
 * CLOSED or DISCONNECTED, FINISH; a handler that waits keeps it from reading on, and destroying it
 * waits for its end.  The main thread is the device's task.  Built with -fsanitize=thread. */
#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "esp_crt_bundle.h"
#include "esp_log.h"
#include "esp_websocket_client.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "socket.h"
#include "wifi.h"

enum { FRAME = 3000, PIECE = 2048, FRAMES = 200, CYCLES = 300 };

/* --- FreeRTOS --------------------------------------------------------------------------------- */

struct tskTaskControlBlock {
    pthread_mutex_t mutex;
    pthread_cond_t given;
    unsigned count;
    TaskFunction_t code;
};
static struct tskTaskControlBlock main_task = {PTHREAD_MUTEX_INITIALIZER,
                                               PTHREAD_COND_INITIALIZER, 0, NULL};
static struct tskTaskControlBlock sender_task = {PTHREAD_MUTEX_INITIALIZER,
                                                 PTHREAD_COND_INITIALIZER, 0, NULL};

static void *run_sender(void *argument) {
    (void)argument;
    sender_task.code(NULL);
    return NULL;
}

BaseType_t xTaskCreate(TaskFunction_t code, const char *const name, const uint32_t depth,
                       void *const parameters, UBaseType_t priority, TaskHandle_t *const created) {
    pthread_t thread;
    (void)name, (void)depth, (void)parameters, (void)priority;
    sender_task.code = code;
    *created = &sender_task;
    return pthread_create(&thread, NULL, run_sender, NULL) == 0 ? pdPASS : pdFALSE;
}

BaseType_t xTaskNotifyGive(TaskHandle_t task) {
    pthread_mutex_lock(&task->mutex);
    task->count++;
    pthread_cond_signal(&task->given);
    pthread_mutex_unlock(&task->mutex);
    return pdPASS;
}

uint32_t ulTaskNotifyTake(BaseType_t clear, TickType_t wait) { /* only the sender waits here */
    assert(clear == pdTRUE && wait == portMAX_DELAY);
    pthread_mutex_lock(&sender_task.mutex);
    while (sender_task.count == 0) {
        pthread_cond_wait(&sender_task.given, &sender_task.mutex);
    }
    uint32_t count = sender_task.count;
    sender_task.count = 0;
    pthread_mutex_unlock(&sender_task.mutex);
    return count;
}

void vTaskDelay(const TickType_t ticks) {
    (void)ticks;
    sched_yield();
}

/* --- the client and its server ---------------------------------------------------------------- */

enum behaviour { STREAMS, CLOSES, REFUSES, IDLES };
static atomic_int behaviour;
static atomic_bool can_start = true;
static atomic_bool stalled; /* sends do not come back */
static atomic_int clients;  /* that exist */
static atomic_long texts, binaries, out_of_order;

struct esp_websocket_client {
    esp_event_handler_t handler;
    pthread_t thread;
    bool started;
    atomic_bool connected, stop;
    long last_sent;
};

static void tell(esp_websocket_client_handle_t client, int32_t id,
                 esp_websocket_event_data_t *data) {
    client->handler(NULL, NULL, id, data);
}

/* A frame whose bytes follow from its number, in pieces as the client's buffer cuts it. */
static void stream_frame(esp_websocket_client_handle_t client, int number) {
    char bytes[FRAME];
    memset(bytes, number & 0xFF, sizeof bytes);
    for (int offset = 0; offset < FRAME && !atomic_load(&client->stop); offset += PIECE) {
        esp_websocket_event_data_t data = {
            .data_ptr = bytes + offset,
            .data_len = FRAME - offset < PIECE ? FRAME - offset : PIECE,
            .fin = true,
            .op_code = 2,
            .payload_len = FRAME,
            .payload_offset = offset,
        };
        tell(client, WEBSOCKET_EVENT_DATA, &data);
    }
}

static void *run_client(void *argument) {
    esp_websocket_client_handle_t client = argument;
    esp_websocket_event_data_t data = {0};
    int does = atomic_load(&behaviour);
    tell(client, WEBSOCKET_EVENT_BEGIN, &data);
    if (does == REFUSES) {
        data.error_handle.esp_ws_handshake_status_code = 401;
        tell(client, WEBSOCKET_EVENT_DISCONNECTED, &data);
    } else {
        atomic_store(&client->connected, true);
        tell(client, WEBSOCKET_EVENT_CONNECTED, &data);
        for (int i = 0; does == STREAMS && i < FRAMES; i++) {
            stream_frame(client, i);
        }
        while (does != CLOSES && !atomic_load(&client->stop)) {
            sched_yield();
        }
        atomic_store(&client->connected, false);
        if (does == CLOSES) {
            data.close_status_code = 4001;
            tell(client, WEBSOCKET_EVENT_CLOSED, &data);
        }
    }
    tell(client, WEBSOCKET_EVENT_FINISH, &data);
    return NULL;
}

esp_websocket_client_handle_t esp_websocket_client_init(
    const esp_websocket_client_config_t *config) {
    assert(strcmp(config->uri, "wss://server.example/") == 0 && config->disable_auto_reconnect);
    assert(strcmp(config->headers, "Authorization: Bearer key\r\n") == 0);
    atomic_fetch_add(&clients, 1);
    return calloc(1, sizeof(struct esp_websocket_client));
}

esp_err_t esp_websocket_register_events(esp_websocket_client_handle_t client,
                                        esp_websocket_event_id_t event,
                                        esp_event_handler_t handler, void *argument) {
    assert(event == WEBSOCKET_EVENT_ANY && argument == NULL);
    client->handler = handler;
    return ESP_OK;
}

esp_err_t esp_websocket_client_start(esp_websocket_client_handle_t client) {
    if (!atomic_load(&can_start)) {
        return ESP_FAIL;
    }
    client->started = true;
    return pthread_create(&client->thread, NULL, run_client, client) == 0 ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_websocket_client_destroy(esp_websocket_client_handle_t client) {
    atomic_store(&client->stop, true);
    if (client->started) {
        pthread_join(client->thread, NULL);
    }
    free(client);
    atomic_fetch_sub(&clients, 1);
    return ESP_OK;
}

bool esp_websocket_client_is_connected(esp_websocket_client_handle_t client) {
    return atomic_load(&client->connected);
}

/* What is sent are numbers that rise by one. */
static int sent(esp_websocket_client_handle_t client, const char *data, int length) {
    long number = 0;
    memcpy(&number, data, sizeof number);
    if (number != client->last_sent + 1) {
        atomic_fetch_add(&out_of_order, 1);
    }
    client->last_sent = number;
    while (atomic_load(&stalled)) {
        sched_yield();
    }
    return length;
}

int esp_websocket_client_send_text(esp_websocket_client_handle_t client, const char *data,
                                   int length, TickType_t timeout) {
    assert(timeout != portMAX_DELAY);
    atomic_fetch_add(&texts, 1);
    return sent(client, data, length);
}

int esp_websocket_client_send_bin(esp_websocket_client_handle_t client, const char *data,
                                  int length, TickType_t timeout) {
    assert(timeout != portMAX_DELAY);
    atomic_fetch_add(&binaries, 1);
    return sent(client, data, length);
}

int esp_websocket_client_send_with_opcode(esp_websocket_client_handle_t client,
                                          ws_transport_opcodes_t opcode, const uint8_t *data,
                                          int length, TickType_t timeout) {
    (void)client, (void)data, (void)length;
    assert(opcode == WS_TRANSPORT_OPCODES_CLOSE && timeout != portMAX_DELAY);
    return 0;
}

esp_err_t esp_crt_bundle_attach(void *conf) {
    (void)conf;
    return ESP_OK;
}

void stub_log(const char *tag, const char *format, ...) {
    (void)tag, (void)format;
}

_Noreturn void stub_error_check_failed(esp_err_t error) {
    (void)error;
    abort();
}

static bool joined = true;

bool wifi_joined(void) {
    return joined;
}

/* --- the device ------------------------------------------------------------------------------- */

static struct la_device device;
static int opened, closed, close_code;
static long received; /* bytes of the stream */
static bool choosy;   /* takes only a part of what it is offered */

void la_device_on_ws_open(struct la_device *given) {
    assert(given == &device);
    opened++;
}

void la_device_on_ws_closed(struct la_device *given, int code) {
    (void)given;
    closed++;
    close_code = code;
}

int la_device_on_ws_data(struct la_device *given, const struct la_ws_piece *piece) {
    int taken = choosy ? rand() % (int)(piece->length + 1) : (int)piece->length;
    (void)given;
    assert(piece->fin && piece->opcode == LA_OPCODE_BINARY && piece->frame_length == FRAME);
    assert((long)piece->offset == received % FRAME);
    for (int i = 0; i < taken; i++) {
        assert(piece->data[i] == ((received / FRAME) & 0xFF));
    }
    received += taken;
    return taken;
}

static void open_socket(enum behaviour does) {
    atomic_store(&behaviour, does);
    opened = closed = close_code = 0;
    received = 0;
    assert(socket_port.open(NULL) == LA_OK);
}

static void close_socket(void) {
    socket_port.close(NULL);
    while (atomic_load(&clients) > 0) {
        sched_yield();
    }
}

#define DELIVER_UNTIL(condition)  \
    while (!(condition)) {        \
        socket_deliver(&device);  \
        sched_yield();            \
    }

static void test_everything_arrives_once_and_in_order(void) {
    choosy = true;
    open_socket(STREAMS);
    DELIVER_UNTIL(received == (long)FRAME * FRAMES);
    assert(opened == 1 && closed == 0);
    close_socket();
    choosy = false;
}

static void test_a_close_ends_a_client_that_waits_for_room(void) {
    open_socket(STREAMS);
    DELIVER_UNTIL(received > 0);
    for (int i = 0; i < 1000; i++) { /* its box is full now */
        sched_yield();
    }
    close_socket();
    long before = received;
    socket_deliver(&device);
    assert(received == before && closed == 0); /* nothing of a connection that is over */
    open_socket(STREAMS);
    DELIVER_UNTIL(received == (long)FRAME * FRAMES); /* checked byte by byte: all of it is new */
    close_socket();
}

static void test_how_it_ended_is_told_once(void) {
    open_socket(CLOSES);
    DELIVER_UNTIL(closed > 0);
    assert(opened == 1 && closed == 1 && close_code == 4001);
    open_socket(REFUSES);
    DELIVER_UNTIL(closed > 0);
    assert(opened == 0 && close_code == 1008);
    atomic_store(&can_start, false);
    open_socket(STREAMS);
    DELIVER_UNTIL(closed > 0);
    atomic_store(&can_start, true);
    assert(opened == 0 && close_code == 0);
    joined = false;
    assert(socket_port.open(NULL) == LA_ERR_CLOSED);
    joined = true;
}

static void test_a_stall_refuses_audio_first_and_never_waits(void) {
    long message[64] = {0};
    char long_text[LA_SEND_SIZE + 1] = {0};
    int error = LA_OK;
    open_socket(IDLES);
    DELIVER_UNTIL(opened > 0);
    atomic_store(&stalled, true);
    while (error == LA_OK) {
        message[0]++;
        error = socket_port.send_binary(NULL, message, sizeof message);
    }
    assert(error == LA_ERR_FULL && message[0] > 20);
    for (int i = 0; i < 2; i++) { /* the text that an interruption takes */
        assert(socket_port.send_text(NULL, (const char *)message, 1000) == LA_OK);
        message[0]++;
    }
    assert(socket_port.send_text(NULL, long_text, sizeof long_text) == LA_ERR_TOO_LONG);
    atomic_store(&stalled, false);
    while (atomic_load(&texts) < 2) {
        sched_yield();
    }
    assert(atomic_load(&out_of_order) == 0);
    close_socket();
    assert(socket_port.send_text(NULL, long_text, 1) == LA_ERR_CLOSED);
}

static void test_what_was_not_sent_is_not_sent_to_the_next(void) {
    long message[8] = {0};
    open_socket(IDLES);
    DELIVER_UNTIL(opened > 0);
    atomic_store(&stalled, true);
    atomic_store(&binaries, 0);
    for (message[0] = 1; message[0] <= 5; message[0]++) {
        assert(socket_port.send_binary(NULL, message, sizeof message) == LA_OK);
    }
    while (atomic_load(&binaries) == 0) {
        sched_yield();
    }
    socket_port.close(NULL);
    atomic_store(&stalled, false);
    open_socket(IDLES);
    DELIVER_UNTIL(opened > 0);
    atomic_store(&texts, 0);
    message[0] = 1; /* the first of this connection */
    assert(socket_port.send_text(NULL, (const char *)message, sizeof message) == LA_OK);
    while (atomic_load(&texts) == 0) {
        sched_yield();
    }
    assert(atomic_load(&binaries) == 1 && atomic_load(&out_of_order) == 0);
    close_socket();
}

static void test_many_connections_leave_nothing(void) {
    for (int i = 0; i < CYCLES; i++) {
        open_socket((enum behaviour)(rand() % 4));
        for (int j = rand() % 20; j > 0; j--) {
            socket_deliver(&device);
            (void)socket_port.send_binary(NULL, "01234567", 8);
            sched_yield();
        }
        if (rand() % 2 == 0) {
            socket_port.close(NULL); /* and opens the next at once */
        }
    }
    close_socket(); /* waits for the last client's end */
}

int main(void) {
    socket_prepare("wss://server.example/", "key", &main_task);
    test_everything_arrives_once_and_in_order();
    test_a_close_ends_a_client_that_waits_for_room();
    test_how_it_ended_is_told_once();
    test_a_stall_refuses_audio_first_and_never_waits();
    test_what_was_not_sent_is_not_sent_to_the_next();
    test_many_connections_leave_nothing();
    printf("glue: socket with threads: %d connections\n", CYCLES);
    return 0;
}
