#include "afe.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "esp_afe_sr_iface.h"
#include "esp_afe_sr_models.h"
#include "esp_err.h"
#include "esp_log.h"
#include "freertos/FreeRTOS.h"
#include "freertos/stream_buffer.h"
#include "freertos/task.h"
#include "microphone.h"
#include "model_path.h"
#include "sdkconfig.h"
#include "speaker.h"

static const char TAG[] = "afe";

enum {
    /* The reference comes out of the loudspeaker's DMA 10 to 20 ms late, and must not come after
     * its echo: the microphone is held back for longer. */
    DELAY_SAMPLES = 480,
    FETCH_WAIT_MS = 100,
    CLEAN_BYTES = 8192, /* 256 ms for the device's task to fetch */
    FEED_STACK = 6144,
    FETCH_STACK = 4096,
    PRIORITY = 8,
    CORE_FEED = 0,
    CORE_FETCH = 1
};

static const esp_afe_sr_iface_t *afe;
static esp_afe_sr_data_t *instance;
static StreamBufferHandle_t clean;
static atomic_bool wake_word_heard;

#if CONFIG_LISTENAI_AFE_REFERENCE_PLAYED
static void add_reference(struct sound_pair *pairs, int count) {
    static int16_t late[DELAY_SAMPLES];
    static int next;
    for (int i = 0; i < count; i++) {
        int16_t sample = late[next];
        late[next] = pairs[i].microphone;
        pairs[i].microphone = sample;
        next = (next + 1) % DELAY_SAMPLES;
    }
    speaker_read_played(pairs, count);
}
#else
static void add_reference(struct sound_pair *pairs, int count) {
    (void)pairs; /* the bus brought it */
    (void)count;
}
#endif

static void feed(void *argument) {
    int count = afe->get_feed_chunksize(instance);
    struct sound_pair *pairs = malloc((size_t)count * sizeof *pairs);
    (void)argument;
    ESP_ERROR_CHECK(pairs == NULL ? ESP_ERR_NO_MEM : ESP_OK);
    for (;;) {
        if (microphone_read_pairs(pairs, count)) {
            add_reference(pairs, count);
            (void)afe->feed(instance, &pairs[0].microphone); /* by turns, "MR" */
        } else {
            ESP_LOGE(TAG, "the microphone gives nothing");
        }
    }
}

static void fetch(void *argument) {
    (void)argument;
    for (;;) {
        const afe_fetch_result_t *result =
            afe->fetch_with_delay(instance, pdMS_TO_TICKS(FETCH_WAIT_MS));
        if (result == NULL || result->ret_value == ESP_FAIL) {
            continue; /* nothing was fed for so long */
        }
        if (result->wakeup_state == WAKENET_DETECTED) {
            atomic_store(&wake_word_heard, true);
        }
        /* Without room the device's task has been away for 256 ms: old sound is of no use. */
        if (xStreamBufferSpacesAvailable(clean) >= (size_t)result->data_size) {
            (void)xStreamBufferSend(clean, result->data, (size_t)result->data_size, 0);
        }
    }
}

static afe_config_t *configuration(void) {
    srmodel_list_t *models = NULL;
#if CONFIG_LISTENAI_LISTEN_WAKE_WORD
    models = esp_srmodel_init("model");
#endif
    afe_config_t *config = afe_config_init("MR", models, AFE_TYPE_FD, AFE_MODE_LOW_COST);
    ESP_ERROR_CHECK(config == NULL ? ESP_ERR_NO_MEM : ESP_OK);
    config->aec_init = true;
    config->vad_init = false; /* the server has a better one */
    config->agc_init = false; /* it would raise the echo that is left */
    config->ns_init = false;
    config->se_init = false;
    config->memory_alloc_mode = AFE_MEMORY_ALLOC_MORE_PSRAM;
#if CONFIG_LISTENAI_LISTEN_WAKE_WORD
    if (config->wakenet_model_name == NULL) {
        ESP_LOGE(TAG, "no wake word in the partition \"model\": choose one in menuconfig, "
                      "ESP Speech Recognition, and flash again");
        ESP_ERROR_CHECK(ESP_ERR_NOT_FOUND);
    }
#else
    config->wakenet_init = false;
#endif
    return afe_config_check(config);
}

void afe_open(void) {
    afe_config_t *config = configuration();
    afe = esp_afe_handle_from_config(config);
    ESP_ERROR_CHECK(afe == NULL ? ESP_ERR_INVALID_ARG : ESP_OK);
    instance = afe->create_from_config(config);
    afe_config_free(config);
    clean = xStreamBufferCreate(CLEAN_BYTES, 1);
    ESP_ERROR_CHECK(instance == NULL || clean == NULL ? ESP_ERR_NO_MEM : ESP_OK);
    if (xTaskCreatePinnedToCore(feed, "feed", FEED_STACK, NULL, PRIORITY, NULL, CORE_FEED) !=
            pdPASS ||
        xTaskCreatePinnedToCore(fetch, "fetch", FETCH_STACK, NULL, PRIORITY, NULL, CORE_FETCH) !=
            pdPASS) {
        ESP_ERROR_CHECK(ESP_ERR_NO_MEM);
    }
}

static int read_clean(void *context, int16_t *pcm, int samples) {
    const size_t bytes = (size_t)samples * sizeof *pcm;
    (void)context;
    if (xStreamBufferBytesAvailable(clean) < bytes) {
        return 0;
    }
    (void)xStreamBufferReceive(clean, pcm, bytes, 0);
    return samples;
}

/* The front end has heard it in what was read here; the samples tell nothing more. */
static bool heard(void *context, const int16_t *pcm, int samples) {
    (void)context;
    (void)pcm;
    (void)samples;
    return atomic_exchange(&wake_word_heard, false);
}

const struct la_port_mic afe_port = {.read = read_clean};
const struct la_port_wake_word afe_wake_word_port = {.heard = heard};
