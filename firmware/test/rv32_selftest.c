/* One conversation on the chip's instruction set: a reply is played, paused, resumed, flushed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_port.h"

static struct fake_port fake;
static struct la_device device;
static int16_t memory[LA_PLAYBACK_SAMPLES_MIN];

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            printf("rv32: line %d: not so: %s\n", __LINE__, #condition);                         \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

static void run(int ms) {
    for (int at = 0; at < ms; at += 10) {
        fake.now += 10;
        fake_play(&fake, 160);
        la_device_tick(&device);
    }
}

static void data(int opcode, const void *bytes, size_t length) {
    struct la_ws_piece piece = {opcode, true, bytes, length, 0, length};
    CHECK(la_device_on_ws_data(&device, &piece) == (int)length);
}

static void say(const char *text) {
    data(LA_OPCODE_TEXT, text, strlen(text));
}

int main(void) {
    static uint8_t audio[16000];
    memset(audio, 5, sizeof audio);
    struct la_config config;
    struct la_port port = fake_port(&fake);
    la_config_defaults(&config);
    config.playback_memory = memory;
    config.playback_samples = LA_PLAYBACK_SAMPLES_MIN;
    CHECK(la_device_init(&device, &config, &port) == LA_OK);
    run(10);
    CHECK(fake.opened == 1);
    la_device_on_ws_open(&device);
    say("{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\",\"restored\":false}");
    say("{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":1,\"stream_id\":9007199254740991,"
        "\"sample_rate\":16000}");
    data(LA_OPCODE_BINARY, audio, sizeof audio);
    run(110);
    CHECK(la_device_state(&device) == LA_STATE_SPEAKING);
    CHECK(fake.played == 1600 && fake.hardware > 0);
    say("{\"type\":\"pause\",\"stream_id\":9007199254740991}");
    CHECK(fake.hardware == 0);
    run(100);
    say("{\"type\":\"resume\",\"stream_id\":9007199254740991}");
    run(110);
    CHECK(fake.played == 3200);
    say("{\"type\":\"flush\",\"stream_id\":9007199254740991}");
    CHECK(fake_sent(&fake, "\"stream_id\":9007199254740991,\"played_samples\":3200}"));
    CHECK(la_device_state(&device) == LA_STATE_LISTENING);
    say("{\"type\":\"tool_call\",\"turn_id\":1,\"call_id\":\"c\",\"name\":\"set_volume\","
        "\"arguments\":{\"level\":7},\"target\":\"device\"}");
    CHECK(strcmp(fake.volume_key, "7") == 0);
    printf("rv32: a conversation, %u bytes of device\n", (unsigned)sizeof device);
    return 0;
}
