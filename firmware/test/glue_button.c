/* The button and light sleep: main/main.c, main/button.c and main/power.c with the whole core, on a
 * simulated pin and a simulated clock.  A press and a release are heard within HEARD_MS, also out
 * of light sleep, shorter than its tick, and where the press bounces. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "button.h"
#include "driver/gpio.h"
#include "esp_app_desc.h"
#include "esp_pm.h"
#include "esp_sleep.h"
#include "esp_timer.h"
#include "la_device.h"
#include "led.h"
#include "microphone.h"
#include "provision.h"
#include "socket.h"
#include "speaker.h"
#include "store.h"
#include "wifi.h"

enum {
    HEARD_MS = 60,    /* debouncing, and the ticks around it */
    WAKE_MS = 1,      /* from an interrupt until the task looks at the pin */
    ASLEEP_AT = 45000 /* after the last word, for sure */
};

void app_main(void);

static int64_t now; /* ms since the start */

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "glue_button: at %lld ms: %s\n", (long long)now, what);
    abort();
}

static void check(bool holds, const char *what) {
    if (!holds) {
        fail(what);
    }
}

/* --- what is pressed, and what the device makes of it ----------------------------------------- */

struct press {
    int64_t down;
    int64_t up;
};
static const struct press PRESSES[] = {
    {ASLEEP_AT, ASLEEP_AT + 150},              /* out of light sleep, shorter than its tick */
    {2 * ASLEEP_AT, 2 * ASLEEP_AT + 1},        /* it bounces: up before anybody looks, */
    {2 * ASLEEP_AT + 5, 2 * ASLEEP_AT + 2000}, /* then down */
    {3 * ASLEEP_AT, 3 * ASLEEP_AT + 100},      /* and once more */
};
enum { PRESS_COUNT = sizeof PRESSES / sizeof *PRESSES, HEARD_COUNT = 3 };
static const int64_t END = 4LL * ASLEEP_AT;

static bool is_down(void) {
    for (int i = 0; i < PRESS_COUNT; i++) {
        if (now >= PRESSES[i].down && now < PRESSES[i].up) {
            return true;
        }
    }
    return false;
}

static int64_t hearing_at[HEARD_COUNT];
static int64_t thinking_at[HEARD_COUNT];
static int heard;
static int answered;

void led_show(void *context, enum la_state state) {
    (void)context;
    if (state == LA_STATE_HEARING) {
        check(heard < HEARD_COUNT, "more presses than there were");
        hearing_at[heard++] = now;
    } else if (state == LA_STATE_THINKING) {
        check(answered < HEARD_COUNT, "more ends of speech than there were");
        thinking_at[answered++] = now;
    }
}

static void judge(void) {
    static const int LONG[HEARD_COUNT] = {0, 2, 3}; /* the presses that are no bounce */
    check(heard == HEARD_COUNT, "a press was not heard");
    check(answered == HEARD_COUNT, "a release was not heard");
    for (int i = 0; i < HEARD_COUNT; i++) {
        const struct press *press = &PRESSES[LONG[i]];
        check(hearing_at[i] - press->down <= HEARD_MS, "a press was heard late");
        check(thinking_at[i] - press->up <= HEARD_MS, "a release was heard late");
    }
}

/* --- the pin, the clock and sleep ------------------------------------------------------------- */

static gpio_isr_t on_level;
static bool armed;
static int notifications;
static int waits_asleep;

esp_err_t gpio_config(const gpio_config_t *pGPIOConfig) {
    armed = pGPIOConfig->intr_type == GPIO_INTR_LOW_LEVEL;
    return ESP_OK;
}
int gpio_get_level(gpio_num_t gpio_num) {
    (void)gpio_num;
    return is_down() ? 0 : 1;
}
esp_err_t gpio_intr_enable(gpio_num_t gpio_num) {
    (void)gpio_num;
    armed = true;
    return ESP_OK;
}
esp_err_t gpio_intr_disable(gpio_num_t gpio_num) {
    (void)gpio_num;
    armed = false;
    return ESP_OK;
}
esp_err_t gpio_isr_handler_add(gpio_num_t gpio_num, gpio_isr_t isr_handler, void *args) {
    (void)gpio_num;
    (void)args;
    on_level = isr_handler;
    return ESP_OK;
}
esp_err_t gpio_install_isr_service(int intr_alloc_flags) {
    return intr_alloc_flags;
}
esp_err_t gpio_sleep_sel_dis(gpio_num_t gpio_num) {
    (void)gpio_num;
    return ESP_OK;
}
esp_err_t gpio_wakeup_enable(gpio_num_t gpio_num, gpio_int_type_t intr_type) {
    (void)gpio_num;
    return intr_type == GPIO_INTR_LOW_LEVEL ? ESP_OK : ESP_FAIL;
}
esp_err_t esp_sleep_enable_gpio_wakeup(void) {
    return ESP_OK;
}
esp_err_t esp_pm_configure(const void *config) {
    return ((const esp_pm_config_t *)config)->light_sleep_enable ? ESP_OK : ESP_FAIL;
}
int64_t esp_timer_get_time(void) {
    return now * 1000;
}
void vTaskNotifyGiveFromISR(TaskHandle_t xTaskToNotify, BaseType_t *pxHigherPriorityTaskWoken) {
    (void)xTaskToNotify;
    notifications++;
    *pxHigherPriorityTaskWoken = pdTRUE;
}
void stub_yield_from_isr(BaseType_t woken) {
    (void)woken;
}

/* Time passes only here. */
uint32_t ulTaskNotifyTake(BaseType_t xClearCountOnExit, TickType_t xTicksToWait) {
    (void)xClearCountOnExit;
    waits_asleep += now > ASLEEP_AT - 10000 && now < ASLEEP_AT;
    for (TickType_t waited = 0; waited < xTicksToWait && notifications == 0; waited++) {
        if (armed && is_down()) {
            on_level(NULL);
            now += WAKE_MS;
        } else {
            now++;
        }
    }
    if (now >= END) {
        judge();
        check(waits_asleep < 30, "it does not sleep");
        printf("glue_button: %d presses out of light sleep, one of them with a bounce\n", heard);
        exit(0);
    }
    notifications = 0;
    return 1;
}

/* --- the server ------------------------------------------------------------------------------- */

static const char *owed;
static bool opening;

static int open_ws(void *context) {
    (void)context;
    opening = true;
    return LA_OK;
}
static int send_text(void *context, const char *text, size_t length) {
    (void)context;
    (void)length;
    if (strstr(text, "\"start_session\"") != NULL) {
        owed = "{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\"}";
    } else if (strstr(text, "\"ping\"") != NULL) {
        owed = "{\"type\":\"pong\"}";
    }
    return LA_OK;
}
static int send_binary(void *context, const void *data, size_t length) {
    (void)context;
    (void)data;
    (void)length;
    return LA_OK;
}
static void close_ws(void *context) {
    (void)context;
    fail("it hung up");
}
const struct la_port_ws socket_port = {open_ws, send_text, send_binary, close_ws};

void socket_prepare(const char *uri, const char *api_key, TaskHandle_t woken) {
    (void)uri;
    (void)api_key;
    (void)woken;
}
void socket_deliver(struct la_device *device) {
    if (opening) {
        opening = false;
        la_device_on_ws_open(device);
    }
    if (owed != NULL) {
        const char *text = owed;
        size_t length = strlen(text);
        const struct la_ws_piece piece = {LA_OPCODE_TEXT, true, (const uint8_t *)text, length, 0,
                                          length};
        owed = NULL;
        check(la_device_on_ws_data(device, &piece) == (int)length, "it does not understand");
    }
}

/* --- what does not matter here ---------------------------------------------------------------- */

static int read_nothing(void *context, int16_t *pcm, int samples) {
    (void)context;
    (void)pcm;
    (void)samples;
    return 0;
}
static int set_rate(void *context, uint32_t sample_rate) {
    (void)context;
    (void)sample_rate;
    return LA_OK;
}
static int write_samples(void *context, const int16_t *pcm, int samples) {
    (void)context;
    (void)pcm;
    return samples;
}
static void flush_nothing(void *context) {
    (void)context;
}
static uint64_t played_none(void *context) {
    (void)context;
    return 0;
}
const struct la_port_mic microphone_port = {read_nothing};
const struct la_port_speaker speaker_port = {set_rate, write_samples, flush_nothing, played_none};
const struct la_port_store store_port = {NULL, NULL};

void microphone_open(void) {}
void microphone_switch(enum microphone_clock to) {
    (void)to;
}
void speaker_open(void) {}
void speaker_tick(la_ms at) {
    (void)at;
}
void store_open(void) {}
void store_setting(const char *key, const char *otherwise, char *value, size_t size) {
    (void)key;
    (void)snprintf(value, size, "%s", otherwise);
}
void led_open(void) {}
void led_show_provisioning(void) {
    fail("it asks for a network");
}
void provision_prepare(void) {}
bool provision_wanted(void) {
    return false;
}
_Noreturn void provision_run(void) {
    fail("it is told its network");
}
_Noreturn void provision_request(void) {
    fail("it restarts");
}
void wifi_open(void) {}
void wifi_join(void) {}
void wifi_rest(enum wifi_rest rest) {
    (void)rest;
}
uint32_t esp_random(void) {
    return 4;
}
const esp_app_desc_t *esp_app_get_description(void) {
    static const esp_app_desc_t DESCRIPTION = {"1", "listenai"};
    return &DESCRIPTION;
}
TaskHandle_t xTaskGetCurrentTaskHandle(void) {
    return NULL;
}
void vTaskPrioritySet(TaskHandle_t xTask, UBaseType_t uxNewPriority) {
    (void)xTask;
    (void)uxNewPriority;
}
void stub_log(const char *tag, const char *format, ...) {
    (void)tag;
    (void)format;
}
_Noreturn void stub_error_check_failed(esp_err_t error) {
    (void)error;
    fail("ESP_ERROR_CHECK");
}

int main(void) {
    app_main();
    return 1; /* it returns only where the configuration is wrong */
}
