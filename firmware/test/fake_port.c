#include "fake_port.h"

#include <string.h>

static int ws_open(void *context) {
    struct fake_port *fake = context;
    fake->opened++;
    return fake->refuses_to_open ? LA_ERR_IO : LA_OK;
}

static int ws_send_text(void *context, const char *text, size_t length) {
    struct fake_port *fake = context;
    if (fake->full) {
        return LA_ERR_FULL;
    }
    char *kept = fake->texts[fake->text_count++ % FAKE_MESSAGES];
    memcpy(kept, text, length);
    kept[length] = '\0';
    return LA_OK;
}

static int ws_send_binary(void *context, const void *data, size_t length) {
    struct fake_port *fake = context;
    (void)data;
    if (fake->full) {
        return LA_ERR_FULL;
    }
    fake->frames++;
    fake->frame_length = length;
    return LA_OK;
}

static void ws_close(void *context) {
    struct fake_port *fake = context;
    fake->closed++;
}

static int mic_read(void *context, int16_t *pcm, int samples) {
    struct fake_port *fake = context;
    if (fake->mic_frames == 0) {
        return 0;
    }
    fake->mic_frames--;
    for (int i = 0; i < samples; i++) {
        pcm[i] = (int16_t)(i % 2 != 0 ? -fake->amplitude : fake->amplitude);
    }
    return samples;
}

static int speaker_set_rate(void *context, uint32_t sample_rate) {
    struct fake_port *fake = context;
    fake->rate = sample_rate;
    return fake->no_rate ? LA_ERR_UNSUPPORTED : LA_OK;
}

static int speaker_write(void *context, const int16_t *pcm, int samples) {
    struct fake_port *fake = context;
    int64_t room = FAKE_HARDWARE - fake->hardware;
    int count = samples < room ? samples : (int)room;
    fake->hardware += count;
    if (count > 0) {
        fake->last_sample = pcm[count - 1];
    }
    return count;
}

static void speaker_flush(void *context) {
    struct fake_port *fake = context;
    fake->hardware = 0;
    fake->flushes++;
}

static uint64_t speaker_played(void *context) {
    const struct fake_port *fake = context;
    return fake->played;
}

static la_ms now_ms(void *context) {
    const struct fake_port *fake = context;
    return fake->now;
}

static void led_show(void *context, enum la_state state) {
    struct fake_port *fake = context;
    fake->shown = state;
}

static bool button_pressed(void *context) {
    const struct fake_port *fake = context;
    return fake->pressed;
}

static int store_get(void *context, const char *key, char *value, size_t size) {
    const struct fake_port *fake = context;
    const char *kept = strcmp(key, "volume") == 0 ? fake->volume_key : fake->session_key;
    if (kept[0] == '\0' || strlen(kept) >= size) {
        return LA_ERR_NOT_FOUND;
    }
    strcpy(value, kept);
    return LA_OK;
}

static int store_set(void *context, const char *key, const char *value) {
    struct fake_port *fake = context;
    strcpy(strcmp(key, "volume") == 0 ? fake->volume_key : fake->session_key, value);
    return LA_OK;
}

static uint32_t random_bits(void *context) {
    struct fake_port *fake = context;
    fake->random = fake->random * 1664525U + 1013904223U;
    return fake->random;
}

static void display_show(void *context, enum la_text_kind kind, const char *text) {
    struct fake_port *fake = context;
    fake->displayed_kind = kind;
    strcpy(fake->displayed, text);
}

static bool wake_word_heard(void *context, const int16_t *pcm, int samples) {
    const struct fake_port *fake = context;
    (void)pcm;
    return fake->hears_wake_word && samples == LA_MIC_FRAME_SAMPLES;
}

struct la_port fake_port(struct fake_port *fake) {
    return (struct la_port){
        .context = fake,
        .ws = {ws_open, ws_send_text, ws_send_binary, ws_close},
        .mic = {mic_read},
        .speaker = {speaker_set_rate, speaker_write, speaker_flush, speaker_played},
        .clock = {now_ms},
        .led = {led_show},
        .button = {button_pressed},
        .store = {store_get, store_set},
        .random = {random_bits},
        .display = {display_show},
        .wake_word = {wake_word_heard},
    };
}

void fake_play(struct fake_port *fake, int64_t samples) {
    int64_t count = samples < fake->hardware ? samples : fake->hardware;
    fake->hardware -= count;
    fake->played += (uint64_t)count;
}

bool fake_sent(const struct fake_port *fake, const char *part) {
    return fake->text_count > 0 &&
           strstr(fake->texts[(fake->text_count - 1) % FAKE_MESSAGES], part) != NULL;
}

int fake_count(const struct fake_port *fake, const char *part) {
    int count = 0;
    for (int i = 0; i < fake->text_count && i < FAKE_MESSAGES; i++) {
        count += strstr(fake->texts[i], part) != NULL;
    }
    return count;
}
