/* The whole device against a scripted server. */
#include <stdio.h>
#include <string.h>

#include "cmocka_all.h"
#include "fake_port.h"

enum { RATE_PER_MS = 16, QUIET = 20, VOICE = 3000 };

struct bench {
    struct fake_port fake;
    struct la_device device;
    struct la_config config;
    int16_t memory[LA_PLAYBACK_SAMPLES_MIN];
    int tool_runs;
};

static int run_tool(void *context, const char *arguments, char *answer, size_t size) {
    struct bench *bench = context;
    bench->tool_runs++;
    if (strcmp(arguments, "{\"fail\":true}") == 0) {
        snprintf(answer, size, "it is broken");
        return LA_ERR_IO;
    }
    snprintf(answer, size, "{\"ok\":true}");
    return LA_OK;
}

static int setup(void **state) {
    struct bench *bench = test_calloc(1, sizeof *bench);
    bench->fake.random = 7;
    bench->fake.amplitude = QUIET;
    bench->fake.now = 1000000;
    la_config_defaults(&bench->config);
    bench->config.playback_memory = bench->memory;
    bench->config.playback_samples = LA_PLAYBACK_SAMPLES_MIN;
    *state = bench;
    return 0;
}

static int teardown(void **state) {
    test_free(*state);
    return 0;
}

static int init(struct bench *bench) {
    struct la_port port = fake_port(&bench->fake);
    return la_device_init(&bench->device, &bench->config, &port);
}

/* Time passes in ticks of 16 ms, with a frame of the microphone and the loudspeaker in each. */
static void run(struct bench *bench, int ms) {
    for (int at = 0; at < ms; at += 16) {
        bench->fake.now += 16;
        bench->fake.mic_frames = 1;
        fake_play(&bench->fake, 16 * RATE_PER_MS);
        la_device_tick(&bench->device);
    }
}

static int data(struct bench *bench, int opcode, const void *bytes, size_t length) {
    struct la_ws_piece piece = {opcode, true, bytes, length, 0, length};
    return la_device_on_ws_data(&bench->device, &piece);
}

static void say(struct bench *bench, const char *text) {
    assert_int_equal(data(bench, LA_OPCODE_TEXT, text, strlen(text)), strlen(text));
}

static void send_audio(struct bench *bench, int ms) {
    static int16_t pcm[16000];
    for (int i = 0; i < ms * RATE_PER_MS; i++) {
        pcm[i] = i % 2 != 0 ? 1000 : -1000;
    }
    data(bench, LA_OPCODE_BINARY, pcm, (size_t)(ms * RATE_PER_MS) * 2);
}

static void connect_device(struct bench *bench) {
    run(bench, 16);
    assert_int_equal(bench->fake.opened, 1);
    la_device_on_ws_open(&bench->device);
}

static void become_ready(struct bench *bench) {
    assert_int_equal(init(bench), LA_OK);
    connect_device(bench);
    say(bench, "{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\",\"restored\":false}");
    assert_true(la_device_ready(&bench->device));
}

static void begin_reply(struct bench *bench, int ms) {
    say(bench, "{\"type\":\"status\",\"state\":\"thinking\",\"session_id\":\"s\"}");
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":1,\"stream_id\":1,"
               "\"sample_rate\":16000,\"source\":\"speech\"}");
    send_audio(bench, ms);
    run(bench, 160);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
    assert_true(bench->fake.hardware > 0);
}

/* --- the connection ----------------------------------------------------------------------- */

static void it_says_who_it_is_and_listens(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    assert_int_equal(fake_count(&bench->fake, "\"type\":\"start_session\""), 1);
    assert_non_null(strstr(bench->fake.texts[0], "\"display_text\":true,\"echo\":\"unknown\""));
    assert_non_null(strstr(bench->fake.texts[0], "\"name\":\"set_volume\""));
    assert_true(fake_sent(&bench->fake, "\"output_sample_rate\":16000"));
    assert_int_equal(bench->fake.frames, 0);
    run(bench, 160);
    assert_int_equal(bench->fake.frames, 10);
    assert_int_equal(bench->fake.frame_length, 512);
    assert_int_equal(bench->fake.shown, LA_STATE_LISTENING);
}

static void its_session_id_is_made_once(void **state) {
    struct bench *bench = *state;
    assert_int_equal(init(bench), LA_OK);
    assert_int_equal(strlen(bench->device.session_id), 32);
    assert_string_equal(bench->device.session_id, bench->fake.session_key);
    char first[LA_ID_SIZE];
    strcpy(first, bench->device.session_id);
    assert_int_equal(init(bench), LA_OK); /* after a restart */
    assert_string_equal(bench->device.session_id, first);
    strcpy(bench->fake.session_key, "not an id");
    assert_int_equal(init(bench), LA_OK);
    assert_string_not_equal(bench->device.session_id, "not an id");
}

static void it_comes_back_with_the_same_session(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 600);
    la_device_on_ws_closed(&bench->device, 1006);
    assert_int_equal(bench->fake.hardware, 0); /* the rest of the reply will never come */
    assert_int_equal(la_device_state(&bench->device), LA_STATE_DISCONNECTED);
    la_device_on_ws_closed(&bench->device, 1006);
    run(bench, LA_BACKOFF_FIRST_MS + 16);
    assert_int_equal(bench->fake.opened, 2);
    la_device_on_ws_open(&bench->device);
    say(bench, "{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\",\"restored\":true}");
    assert_int_equal(bench->device.stats.resumed, 1);
    assert_int_equal(fake_count(&bench->fake, bench->device.session_id), 2);
    send_audio(bench, 60); /* the new connection has no stream */
    assert_int_equal(bench->device.playback.stats.stale_messages, 1);
}

static void it_waits_longer_each_time_it_fails(void **state) {
    struct bench *bench = *state;
    assert_int_equal(init(bench), LA_OK);
    bench->fake.refuses_to_open = true;
    la_ms last = 0;
    for (int i = 0; i < 8; i++) {
        int opened = bench->fake.opened;
        la_ms began = bench->fake.now;
        while (bench->fake.opened == opened) {
            run(bench, 16);
        }
        assert_true(bench->fake.now - began >= last / 4);
        last = bench->fake.now - began;
    }
    assert_true(last > 10000);
    assert_true(last <= LA_BACKOFF_LONGEST_MS + 16);
}

static void it_heeds_what_the_server_asks_of_it(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    say(bench, "{\"type\":\"error\",\"code\":\"RATE_LIMITED\",\"message\":\"full\","
               "\"retry_after_ms\":5000}");
    assert_string_equal(bench->fake.displayed, "full");
    la_device_on_ws_closed(&bench->device, 1013);
    run(bench, 4900);
    assert_int_equal(bench->fake.opened, 1);
    run(bench, 200);
    assert_int_equal(bench->fake.opened, 2);
    la_device_on_ws_open(&bench->device);
    la_device_on_ws_closed(&bench->device, 4001); /* another device has the session */
    run(bench, 14900);
    assert_int_equal(bench->fake.opened, 2);
}

static void a_device_that_was_replaced_is_in_no_hurry(void **state) {
    struct bench *bench = *state;
    static const int CODES[] = {4001, 1008};
    become_ready(bench);
    for (int i = 0; i < 2; i++) {
        run(bench, LA_BACKOFF_STABLE_MS + 1000); /* a good session, until another has the id */
        la_device_on_ws_closed(&bench->device, CODES[i]);
        run(bench, LA_BACKOFF_LONGEST_MS / 2 - 100);
        assert_int_equal(bench->fake.opened, i + 1);
        for (int at = 0; bench->fake.opened == i + 1 && at < LA_BACKOFF_LONGEST_MS; at += 16) {
            run(bench, 16);
        }
        assert_int_equal(bench->fake.opened, i + 2);
        la_device_on_ws_open(&bench->device);
        say(bench, "{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\"}");
    }
    run(bench, LA_BACKOFF_STABLE_MS + 1000);
    la_device_on_ws_closed(&bench->device, 1006); /* the network: that is worth a hurry */
    run(bench, LA_BACKOFF_FIRST_MS + 16);
    assert_int_equal(bench->fake.opened, 4);
}

static void what_the_server_asked_for_passes(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    say(bench, "{\"type\":\"error\",\"code\":\"RATE_LIMITED\",\"message\":\"full\","
               "\"retry_after_ms\":15000}");
    run(bench, 11000);
    la_device_on_ws_closed(&bench->device, 1006);
    run(bench, 3900);
    assert_int_equal(bench->fake.opened, 1);
    run(bench, 200);
    assert_int_equal(bench->fake.opened, 2);
    la_device_on_ws_open(&bench->device);
    say(bench, "{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\"}");
    say(bench, "{\"type\":\"error\",\"code\":\"RATE_LIMITED\",\"message\":\"full\","
               "\"retry_after_ms\":15000}");
    run(bench, 15100);
    la_device_on_ws_closed(&bench->device, 1006);
    run(bench, LA_BACKOFF_FIRST_MS + 16);
    assert_int_equal(bench->fake.opened, 3);
}

static void a_silent_server_is_asked_then_left(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    run(bench, 20100);
    assert_true(fake_sent(&bench->fake, "\"type\":\"ping\""));
    say(bench, "{\"type\":\"pong\"}");
    run(bench, 19000);
    assert_int_equal(fake_count(&bench->fake, "\"type\":\"ping\""), 1);
    run(bench, 11500);
    assert_int_equal(fake_count(&bench->fake, "\"type\":\"ping\""), 2);
    assert_int_equal(bench->fake.closed, 1);
}

static void a_connection_that_never_opens_is_given_up(void **state) {
    struct bench *bench = *state;
    assert_int_equal(init(bench), LA_OK);
    run(bench, 16);
    run(bench, 10016);
    assert_int_equal(bench->fake.closed, 1);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_DISCONNECTED);
    assert_true(la_device_on_ws_data(&bench->device, &(struct la_ws_piece){0}) < 0);
}

/* --- replies ------------------------------------------------------------------------------ */

static void a_reply_is_played_and_reported(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 800);
    run(bench, 480);
    assert_int_equal(fake_count(&bench->fake, "\"type\":\"playback\",\"stream_id\":1"), 3);
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"end\",\"stream_id\":1,\"samples\":12800}");
    run(bench, 320);
    assert_true(fake_sent(&bench->fake, "\"played_samples\":12800}"));
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    assert_int_equal(bench->device.stats.replies, 1);
    assert_int_equal(bench->device.playback.jitter.underruns, 0);
}

static void a_reply_is_paused_resumed_and_flushed(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 800);
    say(bench, "{\"type\":\"pause\",\"stream_id\":7}"); /* not ours */
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
    say(bench, "{\"type\":\"pause\",\"stream_id\":1}");
    assert_int_equal(bench->fake.hardware, 0);
    run(bench, 320);
    assert_int_equal(bench->fake.hardware, 0);
    say(bench, "{\"type\":\"resume\",\"stream_id\":1}");
    run(bench, 16);
    assert_true(bench->fake.hardware > 0);
    say(bench, "{\"type\":\"pause\",\"stream_id\":1}");
    say(bench, "{\"type\":\"flush\",\"stream_id\":1}");
    char report[80];
    snprintf(report, sizeof report, "\"stream_id\":1,\"played_samples\":%u}",
             (unsigned)bench->fake.played);
    assert_true(fake_sent(&bench->fake, report));
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    send_audio(bench, 60);
    run(bench, 160);
    assert_int_equal(bench->fake.hardware, 0); /* of a stream that was flushed */
    assert_int_equal(bench->device.playback.stats.stale_messages, 1);
}

static void a_hold_that_nobody_ends_ends(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 800);
    say(bench, "{\"type\":\"pause\",\"stream_id\":1}");
    run(bench, 5100);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
    assert_true(bench->fake.played > 0);
}

/* The last sample is in the air, and nobody has said yet that it is the last: then comes a pause. */
static void a_hold_at_the_end_of_a_reply_ends_with_it(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 600);
    run(bench, 800);
    say(bench, "{\"type\":\"pause\",\"stream_id\":1}");
    assert_int_equal(la_device_state(&bench->device), LA_STATE_HELD);
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"end\",\"stream_id\":1,\"samples\":9600}");
    run(bench, 16);
    assert_true(fake_sent(&bench->fake, "\"played_samples\":9600}"));
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    say(bench, "{\"type\":\"resume\",\"stream_id\":1}");
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":2,\"stream_id\":2,"
               "\"sample_rate\":16000,\"source\":\"speech\"}");
    send_audio(bench, 600);
    run(bench, 320);
    assert_true(bench->fake.hardware > 0); /* the pause was of the other one */
}

static void a_reply_at_a_rate_that_the_hardware_refuses_is_over(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    bench->fake.no_rate = true;
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":1,\"stream_id\":1,"
               "\"sample_rate\":16000,\"source\":\"speech\"}");
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
    send_audio(bench, 300);
    run(bench, 32);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    assert_true(fake_sent(&bench->fake, "\"stream_id\":1,\"played_samples\":0}"));
}

static void speech_over_a_reply_pauses_it_before_the_server_does(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 600);
    int reports = fake_count(&bench->fake, "\"type\":\"playback\"");
    bench->fake.amplitude = VOICE;
    run(bench, 48);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SUSPECTED);
    assert_int_equal(bench->fake.hardware, 0);
    assert_int_equal(fake_count(&bench->fake, "\"type\":\"playback\""), reports + 1);
    say(bench, "{\"type\":\"pause\",\"stream_id\":1}");
    say(bench, "{\"type\":\"flush\",\"stream_id\":1}");
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    assert_int_equal(bench->device.stats.suspicions, 1);
    assert_int_equal(bench->device.stats.false_suspicions, 0);
}

static void a_suspicion_that_the_server_does_not_share_is_given_up(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 600);
    bench->fake.amplitude = VOICE;
    run(bench, 800); /* it goes on, but once is enough */
    assert_int_equal(bench->device.stats.suspicions, 1);
    assert_int_equal(bench->device.stats.false_suspicions, 1);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
    assert_true(bench->fake.hardware > 0);
}

static void without_room_for_what_follows_it_does_not_pause_first(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 999);
    bench->fake.amplitude = VOICE;
    run(bench, 64);
    assert_int_equal(bench->device.stats.suspicions, 0);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
}

static void the_server_alone_decides_where_the_config_says_so(void **state) {
    struct bench *bench = *state;
    bench->config.local_barge_in = false;
    become_ready(bench);
    begin_reply(bench, 600);
    bench->fake.amplitude = VOICE;
    run(bench, 160);
    assert_int_equal(bench->device.stats.suspicions, 0);
}

static void music_goes_on_when_the_speech_over_it_is_flushed(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 300);
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"end\",\"stream_id\":1,\"samples\":4800}");
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":1,\"stream_id\":2,"
               "\"sample_rate\":16000,\"source\":\"music\"}");
    send_audio(bench, 300);
    say(bench, "{\"type\":\"pause\",\"stream_id\":1}");
    say(bench, "{\"type\":\"flush\",\"stream_id\":1}");
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING);
    assert_int_equal(bench->device.stats.replies, 1);
    run(bench, 32);
    assert_true(bench->fake.hardware > 0);
}

/* --- button, tools, volume ---------------------------------------------------------------- */

static void the_button_stops_a_reply(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 600);
    bench->fake.pressed = true;
    run(bench, 16);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_SPEAKING); /* it may bounce */
    run(bench, 32);
    assert_int_equal(bench->fake.hardware, 0);
    assert_true(fake_sent(&bench->fake, "\"type\":\"interrupt\""));
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    say(bench, "{\"type\":\"flush\",\"stream_id\":1}"); /* it asks again what was played */
    assert_true(fake_sent(&bench->fake, "\"stream_id\":1,\"played_samples\":"));
}

static void the_button_is_held_to_talk(void **state) {
    struct bench *bench = *state;
    bench->config.mode = LA_LISTEN_PUSH_TO_TALK;
    become_ready(bench);
    run(bench, 160);
    assert_int_equal(bench->fake.frames, 0);
    bench->fake.pressed = true;
    run(bench, 320);
    int frames = bench->fake.frames;
    assert_in_range(frames, 17, 20);
    bench->fake.pressed = false;
    run(bench, 64);
    assert_true(fake_sent(&bench->fake, "\"type\":\"end_of_speech\""));
    assert_int_equal(la_device_state(&bench->device), LA_STATE_THINKING);
    frames = bench->fake.frames;
    run(bench, 160);
    assert_int_equal(bench->fake.frames, frames);
}

static void a_reply_that_comes_while_the_button_is_held_is_stopped(void **state) {
    struct bench *bench = *state;
    bench->config.mode = LA_LISTEN_PUSH_TO_TALK;
    become_ready(bench);
    bench->fake.pressed = true;
    run(bench, 160);
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":1,\"stream_id\":1,"
               "\"sample_rate\":16000,\"source\":\"speech\"}");
    assert_true(fake_sent(&bench->fake, "\"type\":\"interrupt\""));
    assert_int_equal(fake_count(&bench->fake, "\"stream_id\":1,\"played_samples\":0}"), 1);
    send_audio(bench, 600); /* was on its way */
    int frames = bench->fake.frames;
    run(bench, 160);
    assert_int_equal(bench->fake.frames, frames + 10);
    assert_int_equal(bench->fake.hardware, 0);
    bench->fake.pressed = false;
    run(bench, 64);
    assert_true(fake_sent(&bench->fake, "\"type\":\"end_of_speech\""));
    begin_reply(bench, 600);
}

static void the_wake_word_opens_the_microphone(void **state) {
    struct bench *bench = *state;
    bench->config.mode = LA_LISTEN_WAKE_WORD;
    become_ready(bench);
    run(bench, 160);
    assert_int_equal(bench->fake.frames, 0);
    bench->fake.hears_wake_word = true;
    run(bench, 16);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    bench->fake.hears_wake_word = false;
    run(bench, 8100);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_IDLE);
}

static void tools_are_run_and_answered(void **state) {
    struct bench *bench = *state;
    const struct la_tool tools[] = {{.name = "t", .description = "d", .parameters = "{}",
                                     .run = run_tool, .context = bench}};
    bench->config.tools = tools;
    bench->config.tool_count = 1;
    become_ready(bench);
#define CALL(id, name, arguments, target)                                                       \
    "{\"type\":\"tool_call\",\"turn_id\":1,\"call_id\":\"" id "\",\"name\":\"" name              \
    "\",\"arguments\":" arguments ",\"target\":\"" target "\"}"
    say(bench, CALL("a", "t", "{}", "device"));
    assert_true(fake_sent(&bench->fake, "\"call_id\":\"a\",\"result\":{\"ok\":true}}"));
    say(bench, CALL("b", "t", "{\"fail\":true}", "device"));
    assert_true(fake_sent(&bench->fake, "\"call_id\":\"b\",\"error\":\"it is broken\"}"));
    say(bench, CALL("c", "nobody", "{}", "device"));
    assert_true(fake_sent(&bench->fake, "\"call_id\":\"c\",\"error\":\"this device has no such"));
    say(bench, CALL("d", "t", "{}", "server")); /* not our business */
    assert_int_equal(bench->tool_runs, 2);
    char text[2048] = "{\"type\":\"tool_call\",\"call_id\":\"e\",\"name\":\"t\",\"target\":\"device\","
                      "\"arguments\":{\"x\":\"";
    memset(text + strlen(text), 'x', 1000);
    strcat(text, "\"}}");
    say(bench, text);
    assert_true(fake_sent(&bench->fake, "\"call_id\":\"e\",\"error\":\"the arguments are too"));
    assert_int_equal(bench->tool_runs, 2);
}

static void the_volume_is_a_tool_and_is_kept(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    say(bench, CALL("a", "set_volume", "{\"level\":30}", "device"));
    assert_true(fake_sent(&bench->fake, "\"result\":{\"level\":30,\"previous\":80}"));
    say(bench, CALL("a", "set_volume", "{\"change\":-5}", "device"));
    assert_true(fake_sent(&bench->fake, "\"result\":{\"level\":25,\"previous\":30}"));
    assert_string_equal(bench->fake.volume_key, "25");
    say(bench, CALL("b", "set_volume", "{\"level\":101}", "device"));
    assert_true(fake_sent(&bench->fake, "set_volume needs either level"));
    say(bench, CALL("b", "set_volume", "{\"level\":1,\"change\":1}", "device"));
    assert_true(fake_sent(&bench->fake, "set_volume needs either level"));
    say(bench, CALL("b", "set_volume", "{}", "device"));
    assert_true(fake_sent(&bench->fake, "set_volume needs either level"));
    assert_int_equal(init(bench), LA_OK);
    assert_int_equal(bench->device.volume, 25);
    assert_int_equal(la_device_set_volume(&bench->device, 100), LA_OK);
    assert_string_equal(bench->fake.volume_key, "100");
    assert_int_equal(la_device_set_volume(&bench->device, 0), LA_OK);
    assert_string_equal(bench->fake.volume_key, "0");
}

/* --- what may go wrong -------------------------------------------------------------------- */

static void bad_messages_are_counted_and_survived(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    say(bench, "no json");
    say(bench, "{\"type\":\"flush\"}");
    say(bench, "{\"type\":\"tts_audio\",\"state\":\"start\",\"stream_id\":1,\"sample_rate\":1}");
    assert_int_equal(bench->device.stats.bad_messages, 3);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_LISTENING);
    struct la_ws_piece gap = {LA_OPCODE_TEXT, true, (const uint8_t *)"x", 1, 5, 9};
    assert_int_equal(la_device_on_ws_data(&bench->device, &gap), LA_ERR_PROTOCOL);
    assert_int_equal(bench->fake.closed, 1);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_DISCONNECTED);
}

static void a_message_may_be_longer_than_all_our_memory(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    begin_reply(bench, 300);
    static char text[200000];
    strcpy(text, "{\"type\":\"pause\",\"more\":[\"");
    memset(text + strlen(text), 'x', 190000);
    strcat(text, "\"],\"stream_id\":1}");
    size_t length = strlen(text);
    for (size_t at = 0; at < length; at += 1000) {
        size_t size = length - at < 1000 ? length - at : 1000;
        struct la_ws_piece piece = {LA_OPCODE_TEXT, true, (const uint8_t *)text + at, size, at,
                                    length};
        assert_int_equal(la_device_on_ws_data(&bench->device, &piece), size);
    }
    assert_int_equal(la_device_state(&bench->device), LA_STATE_HELD);
}

static void a_full_socket_drops_frames_and_counts_them(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    bench->fake.full = true;
    run(bench, 160);
    assert_int_equal(bench->device.stats.mic_dropped, 10);
    assert_int_equal(bench->fake.frames, 0);
}

static void configs_that_lack_something_are_refused(void **state) {
    struct bench *bench = *state;
    struct la_config good = bench->config;
    struct la_config *config = &bench->config;
#define REFUSED(change)                                                                         \
    *config = good;                                                                             \
    change;                                                                                     \
    assert_int_equal(init(bench), LA_ERR_ARGUMENT)
    REFUSED(config->playback_memory = NULL);
    REFUSED(config->playback_samples = LA_PLAYBACK_SAMPLES_MIN - 1);
    REFUSED(config->dialect = LA_DIALECT_HOTPIN);
    REFUSED(config->session_id = "with a blank");
    REFUSED(config->volume = 101);
    REFUSED(config->speaker_rate = 96000);
    REFUSED(config->tool_count = 1);
    REFUSED(config->tool_count = LA_TOOLS_MAX + 1);
    static char long_text[LA_SEND_SIZE];
    memset(long_text, 'x', sizeof long_text - 1);
    const struct la_tool tool = {.name = "t", .description = long_text, .parameters = "{}"};
    *config = good;
    config->tools = &tool;
    config->tool_count = 1;
    assert_int_equal(init(bench), LA_ERR_TOO_LONG);
    struct la_port port = fake_port(&bench->fake);
    port.speaker.flush = NULL;
    assert_int_equal(la_device_init(&bench->device, &good, &port), LA_ERR_ARGUMENT);
}

static void it_forgets_when_told_to(void **state) {
    struct bench *bench = *state;
    become_ready(bench);
    char before[LA_ID_SIZE];
    strcpy(before, bench->device.session_id);
    la_device_forget(&bench->device);
    assert_true(fake_sent(&bench->fake, "\"type\":\"end_session\""));
    assert_string_not_equal(bench->device.session_id, before);
}

/* --- Hotpin ------------------------------------------------------------------------------- */

static void begin_hotpin(struct bench *bench) {
    bench->config.dialect = LA_DIALECT_HOTPIN;
    bench->config.mode = LA_LISTEN_PUSH_TO_TALK;
    bench->config.session_id = "esp32-hotpin-001";
    bench->config.api_key = "key";
    assert_int_equal(init(bench), LA_OK);
    connect_device(bench);
    assert_string_equal(bench->fake.texts[0],
                        "{\"session_id\":\"esp32-hotpin-001\",\"api_key\":\"key\"}");
    assert_int_equal(bench->fake.text_count, 1);
    say(bench, "{\"status\":\"connected\",\"session_id\":\"esp32-hotpin-001\"}");
    bench->fake.pressed = true;
    run(bench, 320);
    assert_true(bench->fake.frames > 10);
    bench->fake.pressed = false;
    run(bench, 64);
    assert_true(fake_sent(&bench->fake, "{\"signal\":\"EOS\"}"));
    say(bench, "{\"status\":\"processing\",\"stage\":\"transcription\"}");
    say(bench, "{\"status\":\"processing\",\"stage\":\"llm\",\"transcript\":\"hello\"}");
    assert_string_equal(bench->fake.displayed, "hello");
    say(bench, "{\"status\":\"processing\",\"stage\":\"tts\",\"response\":\"Hi there.\"}");
    assert_string_equal(bench->fake.displayed, "Hi there.");
}

enum { WAV_SAMPLES = 80000 }; /* 5 s: more than the queue holds */

static size_t make_wav(uint8_t *wav) {
    static const uint8_t HEAD[] = {'R', 'I', 'F', 'F', 0,   0,    0,    0,    'W', 'A', 'V',
                                   'E', 'f', 'm', 't', ' ', 16,   0,    0,    0,   1,   0,
                                   1,   0,   128, 62,  0,   0,    0,    125,  0,   0,   2,
                                   0,   16,  0,   'd', 'a', 't',  'a',  0,    113, 2,   0};
    memcpy(wav, HEAD, sizeof HEAD);
    for (size_t i = 0; i < WAV_SAMPLES; i++) {
        wav[sizeof HEAD + 2 * i] = 100;
        wav[sizeof HEAD + 2 * i + 1] = 1;
    }
    return sizeof HEAD + (size_t)2 * WAV_SAMPLES;
}

static void hotpin_plays_a_wav_longer_than_its_memory(void **state) {
    struct bench *bench = *state;
    begin_hotpin(bench);
    static uint8_t wav[44 + 2 * WAV_SAMPLES];
    size_t length = make_wav(wav);
    int waits = 0;
    for (size_t at = 0; at < length;) {
        struct la_ws_piece piece = {LA_OPCODE_BINARY, true, wav + at, length - at, at, length};
        int taken = la_device_on_ws_data(&bench->device, &piece);
        assert_true(taken >= 0);
        at += (size_t)taken;
        waits += at < length;
        run(bench, 32);
    }
    assert_true(waits > 10);
    say(bench, "{\"status\":\"complete\"}");
    run(bench, 2000);
    assert_int_equal(bench->fake.played, WAV_SAMPLES);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_IDLE);
    assert_int_equal(bench->device.playback.stats.overflow_samples, 0);
    assert_int_equal(bench->device.playback.jitter.underruns, 0);
}

static void hotpin_is_interrupted_by_the_button(void **state) {
    struct bench *bench = *state;
    begin_hotpin(bench);
    static uint8_t wav[44 + 2 * WAV_SAMPLES];
    size_t length = make_wav(wav);
    assert_true(data(bench, LA_OPCODE_BINARY, wav, length) < (int)length);
    run(bench, 160);
    assert_true(bench->fake.hardware > 0);
    bench->fake.pressed = true;
    run(bench, 48);
    assert_int_equal(bench->fake.hardware, 0);
    assert_int_equal(la_device_state(&bench->device), LA_STATE_HEARING);
    uint64_t before = bench->fake.played;
    size_t offset = bench->device.reassembly.next_offset;
    struct la_ws_piece rest = {LA_OPCODE_BINARY, true,         wav + offset,
                               length - offset,  offset,       length};
    assert_int_equal(la_device_on_ws_data(&bench->device, &rest), length - offset);
    say(bench, "{\"status\":\"complete\"}");
    run(bench, 160);
    assert_int_equal(bench->fake.played, before);
    assert_int_equal(fake_count(&bench->fake, "\"type\""), 0); /* no word of the other dialect */
    assert_int_equal(bench->device.playback.stats.stale_messages, 0);
}

static void hotpin_errors_end_the_turn(void **state) {
    struct bench *bench = *state;
    begin_hotpin(bench);
    say(bench, "{\"status\":\"error\",\"message\":\"Could not understand audio\"}");
    assert_int_equal(la_device_state(&bench->device), LA_STATE_IDLE);
    assert_string_equal(bench->fake.displayed, "Could not understand audio");
    la_device_forget(&bench->device);
    assert_true(fake_sent(&bench->fake, "{\"signal\":\"RESET\"}"));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_says_who_it_is_and_listens),
        TEST(its_session_id_is_made_once),
        TEST(it_comes_back_with_the_same_session),
        TEST(it_waits_longer_each_time_it_fails),
        TEST(it_heeds_what_the_server_asks_of_it),
        TEST(a_device_that_was_replaced_is_in_no_hurry),
        TEST(what_the_server_asked_for_passes),
        TEST(a_silent_server_is_asked_then_left),
        TEST(a_connection_that_never_opens_is_given_up),
        TEST(a_reply_is_played_and_reported),
        TEST(a_reply_is_paused_resumed_and_flushed),
        TEST(a_hold_that_nobody_ends_ends),
        TEST(a_hold_at_the_end_of_a_reply_ends_with_it),
        TEST(a_reply_at_a_rate_that_the_hardware_refuses_is_over),
        TEST(speech_over_a_reply_pauses_it_before_the_server_does),
        TEST(a_suspicion_that_the_server_does_not_share_is_given_up),
        TEST(without_room_for_what_follows_it_does_not_pause_first),
        TEST(the_server_alone_decides_where_the_config_says_so),
        TEST(music_goes_on_when_the_speech_over_it_is_flushed),
        TEST(the_button_stops_a_reply),
        TEST(the_button_is_held_to_talk),
        TEST(a_reply_that_comes_while_the_button_is_held_is_stopped),
        TEST(the_wake_word_opens_the_microphone),
        TEST(tools_are_run_and_answered),
        TEST(the_volume_is_a_tool_and_is_kept),
        TEST(bad_messages_are_counted_and_survived),
        TEST(a_message_may_be_longer_than_all_our_memory),
        TEST(a_full_socket_drops_frames_and_counts_them),
        TEST(configs_that_lack_something_are_refused),
        TEST(it_forgets_when_told_to),
        TEST(hotpin_plays_a_wav_longer_than_its_memory),
        TEST(hotpin_is_interrupted_by_the_button),
        TEST(hotpin_errors_end_the_turn),
    };
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
