/* The board: puts the adapters together and runs the core.
 *
 * One task does all that the core does, every 10 ms or as soon as something arrives.  Wi-Fi, the
 * WebSocket client, the sender and the audio front end have tasks of their own; they only put
 * things into queues. */
#include <inttypes.h>

#include "button.h"
#include "esp_app_desc.h"
#include "esp_err.h"
#include "esp_log.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "la_device.h"
#include "led.h"
#include "microphone.h"
#include "power.h"
#include "provision.h"
#include "sdkconfig.h"
#include "socket.h"
#include "speaker.h"
#include "store.h"
#include "wifi.h"
#if CONFIG_LISTENAI_AFE
#include "afe.h"
#endif
#if CONFIG_LISTENAI_OTA
#include "ota.h"
#endif

static const char TAG[] = "main";

enum { PRIORITY = 7, STATISTICS_MS = 60000 };

_Static_assert(sizeof CONFIG_LISTENAI_SERVER_URI <= STORE_SERVER_SIZE, "Server: at most 159 bytes");
_Static_assert(sizeof CONFIG_LISTENAI_API_KEY <= STORE_KEY_SIZE, "API key: at most 128 bytes");

static struct la_device device;
static int16_t playback[LA_PLAYBACK_SAMPLES_MIN];
static char api_key[STORE_KEY_SIZE];

static la_ms now_ms(void *context) {
    (void)context;
    return esp_timer_get_time() / 1000;
}

static uint32_t random_bits(void *context) {
    (void)context;
    return esp_random();
}

/* Every change of state comes here, which is the LED's port. */
static void show(void *context, enum la_state state) {
    ESP_LOGI(TAG, "%s", la_state_name(state));
    led_show(context, state);
    power_follow(state, now_ms(NULL));
}

static struct la_port port(void) {
    struct la_port all = {
        .ws = socket_port,
        .speaker = speaker_port,
        .clock = {.now_ms = now_ms},
        .led = {.show = show},
        .button = button_port,
        .store = store_port,
        .random = {.bits = random_bits},
    };
#if CONFIG_LISTENAI_AFE
    all.mic = afe_port;
    all.wake_word = afe_wake_word_port;
#else
    all.mic = microphone_port;
#endif
    return all;
}

static struct la_config config(void) {
    struct la_config chosen;
    la_config_defaults(&chosen);
#if CONFIG_LISTENAI_DIALECT_HOTPIN
    chosen.dialect = LA_DIALECT_HOTPIN;
    chosen.api_key = api_key[0] == '\0' ? NULL : api_key;
#endif
#if CONFIG_LISTENAI_LISTEN_PUSH_TO_TALK
    chosen.mode = LA_LISTEN_PUSH_TO_TALK;
#elif CONFIG_LISTENAI_LISTEN_WAKE_WORD
    chosen.mode = LA_LISTEN_WAKE_WORD;
#endif
#if CONFIG_LISTENAI_AFE
    chosen.echo = LA_ECHO_CANCELLED;
#else
    chosen.echo = LA_ECHO_RAW;
#endif
#if CONFIG_LISTENAI_LOCAL_BARGE_IN
    chosen.local_barge_in = true;
#else
    chosen.local_barge_in = false;
#endif
#if CONFIG_LISTENAI_OTA
    chosen.tools = &ota_tool;
    chosen.tool_count = 1;
#endif
    chosen.speaker_rate = LA_MIC_RATE;
    chosen.volume = CONFIG_LISTENAI_VOLUME;
    chosen.playback_memory = playback;
    chosen.playback_samples = LA_PLAYBACK_SAMPLES_MIN;
    return chosen;
}

static void open_sound(void) {
    microphone_open();
    speaker_open();
#if CONFIG_LISTENAI_AFE
    afe_open();
#endif
}

static void open_network(void) {
    char server[STORE_SERVER_SIZE];
    store_setting("server", CONFIG_LISTENAI_SERVER_URI, server, sizeof server);
    store_setting("api_key", CONFIG_LISTENAI_API_KEY, api_key, sizeof api_key);
    wifi_join();
    socket_prepare(server, api_key, xTaskGetCurrentTaskHandle());
}

/* Held for long, the button asks for another network; but not where it is held to talk.  Acts when
 * it is let go: a board that restarts with GPIO 0 on ground may wait for a new image instead. */
static void look_at_button(la_ms now) {
    static bool asked;
    bool talks = false;
#if CONFIG_LISTENAI_LISTEN_PUSH_TO_TALK
    talks = la_device_ready(&device);
#endif
    la_ms held_ms = button_held_ms(now);
    if (!talks && held_ms >= (la_ms)CONFIG_LISTENAI_BUTTON_HOLD_SECONDS * 1000) {
        asked = true;
        led_show_provisioning();
    } else if (asked && held_ms == 0) {
        provision_request();
    }
}

static void look_at_update(la_ms now) {
#if CONFIG_LISTENAI_OTA
    enum la_state state = la_device_state(&device);
    ota_tick(la_device_ready(&device), state == LA_STATE_IDLE || state == LA_STATE_LISTENING, now);
#else
    (void)now;
#endif
}

/* Counts only; nothing of what was said. */
static void log_statistics(la_ms now) {
    static la_ms logged_at;
    const struct la_device_stats *stats = &device.stats;
    if (now - logged_at < STATISTICS_MS) {
        return;
    }
    logged_at = now;
    ESP_LOGI(TAG,
             "connections=%" PRIu32 " replies=%" PRIu32 " pauses=%" PRIu32 " suspicions=%" PRIu32
             " false=%" PRIu32 " mic_dropped=%" PRIu32 " unsent=%" PRIu32 " errors=%" PRIu32
             " underruns=%" PRIu32 " stale=%" PRIu32,
             stats->connections, stats->replies, stats->pauses, stats->suspicions,
             stats->false_suspicions, stats->mic_dropped, stats->unsent, stats->errors,
             device.playback.jitter.underruns, device.playback.stats.stale_messages);
}

static _Noreturn void run(void) {
    for (;;) {
        la_ms now = now_ms(NULL);
        socket_deliver(&device);
        la_device_tick(&device);
        speaker_tick(now);
        look_at_button(now);
        look_at_update(now);
        log_statistics(now);
        /* The core debounces, so a press that ended the sleep needs a second look soon. */
        la_ms wait = button_pressed(NULL) ? LA_TICK_MS : power_wait(now);
        (void)ulTaskNotifyTake(pdTRUE, pdMS_TO_TICKS(wait));
    }
}

void app_main(void) {
    ESP_LOGI(TAG, "version %s", esp_app_get_description()->version);
    vTaskPrioritySet(NULL, PRIORITY);
    store_open();
    provision_prepare();
    led_open();
    button_open(xTaskGetCurrentTaskHandle());
    wifi_open();
    if (provision_wanted()) {
        led_show_provisioning();
        provision_run();
    }
    power_open();
    open_sound();
    open_network();
#if CONFIG_LISTENAI_OTA
    ota_open(now_ms(NULL));
#endif
    const struct la_config chosen = config();
    const struct la_port all = port();
    int error = la_device_init(&device, &chosen, &all);
    if (error != LA_OK) {
        ESP_LOGE(TAG, "configuration not allowed (%d): see la_device.h and menuconfig", error);
        return;
    }
    run();
}
