/* The JSON reader and writer, and the messages made of them. */
#include <stdio.h>
#include <string.h>

#include "cmocka_all.h"
#include "la_hotpin.h"
#include "la_proto.h"

/* --- reader ------------------------------------------------------------------------------- */

struct seen {
    char text[4096];
};

static void note(void *context, const struct la_json_member *member) {
    static const char TYPES[] = "snTFNoa";
    struct seen *seen = context;
    size_t length = strlen(seen->text);
    snprintf(seen->text + length, sizeof seen->text - length, "%s=%c%s%s;", member->key,
             TYPES[member->type], member->value, member->cut ? "..." : "");
}

/* Reads a text in pieces of this size; what was told, or NULL where it is no JSON. */
static const char *read_json(const char *text, size_t piece) {
    static struct seen seen;
    struct la_json_reader reader;
    size_t length = strlen(text);
    seen.text[0] = '\0';
    la_json_begin(&reader, note, &seen);
    for (size_t at = 0; at < length; at += piece) {
        (void)la_json_feed(&reader, text + at, length - at < piece ? length - at : piece);
    }
    return la_json_end(&reader) == LA_OK ? seen.text : NULL;
}

static void reader_tells_members_whatever_the_pieces(void **state) {
    (void)state;
    static const char TEXT[] =
        " {\"a\" : \"x\\n\\u00e9\\ud83d\\ude00\xc3\xa9\", \"b\":[1, {\"c\":\"\\\"]\"}],"
        "\"d\":-1.5e+3,\"e\":true,\"f\":false,\"g\":null,\"h\":{},\"i\":0 }\r\n";
    for (size_t piece = 1; piece < sizeof TEXT; piece++) {
        const char *seen = read_json(TEXT, piece);
        assert_non_null(seen);
        assert_string_equal(seen, "a=sx\n\xc3\xa9\xf0\x9f\x98\x80\xc3\xa9;"
                                  "b=a[1,{\"c\":\"\\\"]\"}];d=n-1.5e+3;e=Ttrue;f=Ffalse;"
                                  "g=Nnull;h=o{};i=n0;");
    }
}

static void reader_refuses_what_is_no_json(void **state) {
    (void)state;
    static const char *const BAD[] = {
        "", " ", "1", "[]", "\"a\"", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}",
        "{\"a\":01}", "{\"a\":1.}", "{\"a\":.5}", "{\"a\":-}", "{\"a\":1e}", "{\"a\":+1}",
        "{\"a\":tru}", "{\"a\":nul1}", "{\"a\":\"\t\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\ud800\"}", "{\"a\":\"\\udc00\"}", "{\"a\":\"\\ud800x\"}",
        "{\"a\":\"\\ud800\\n\"}", "{\"a\":1}}", "{\"a\":1}{", "{\"a\":[1,]}", "{\"a\":[1}}",
        "{\"a\":{\"b\"]}", "{\"a\":1 2}", "{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}",
        "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xe9\"}", "{\"a\":\"\xf5\x80\x80\x80\"}",
        "{'a':1}", "{\"a\":NaN}", "{\"a\":1}x", "{\"a\":[[]", "{\"a\":\"x",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        for (size_t piece = 1; piece < 8; piece += 6) {
            if (read_json(BAD[i], piece) != NULL) {
                fail_msg("was taken for JSON: %s", BAD[i]);
            }
        }
    }
}

static void reader_takes_32_levels_and_no_more(void **state) {
    (void)state;
    char text[128] = "{\"a\":";
    memset(text + 5, '[', 31);
    memset(text + 36, ']', 31);
    strcpy(text + 67, "}");
    assert_non_null(read_json(text, 1));
    memset(text + 5, '[', 32);
    memset(text + 37, ']', 32);
    strcpy(text + 69, "}");
    assert_null(read_json(text, 1));
}

static void reader_cuts_long_values_between_characters(void **state) {
    (void)state;
    static char text[8192];
    strcpy(text, "{\"a\":\"x");
    for (int i = 0; i < 1000; i++) {
        strcat(text, "\xe4\xbd\xa0");
    }
    strcat(text, "\",\"b\":[");
    for (int i = 0; i < 1000; i++) {
        strcat(text, "1,");
    }
    strcat(text, "1],\"this name is longer than any that we know\":2,\"c\":3}");
    const char *seen = read_json(text, 1000);
    assert_non_null(seen);
    const char *end = strstr(seen, "...;b=a[");
    assert_non_null(end);
    size_t value = (size_t)(end - seen) - strlen("a=s");
    assert_int_equal(value % 3, 1);
    assert_in_range(value, LA_TEXT_SIZE - 4, LA_TEXT_SIZE - 1);
    assert_non_null(strstr(seen, "...;=n2;c=n3;"));
}

static void a_zero_in_a_text_cannot_end_it(void **state) {
    (void)state;
    assert_string_equal(read_json("{\"a\":\"x\\u0000y\"}", 1), "a=sx\xef\xbf\xbdy;");
}

/* --- writer ------------------------------------------------------------------------------- */

static void writer_escapes_and_says_when_it_is_full(void **state) {
    (void)state;
    char text[64];
    struct la_json_writer writer;
    la_json_open(&writer, text, sizeof text);
    la_json_object(&writer, NULL);
    la_json_text(&writer, "a", "\"\\\n");
    la_json_uint(&writer, "b", UINT64_MAX);
    la_json_array(&writer, "c");
    la_json_bool(&writer, NULL, false);
    la_json_uint(&writer, NULL, 0);
    la_json_array_end(&writer);
    la_json_object_end(&writer);
    static const char WANTED[] = "{\"a\":\"\\\"\\\\\\u000a\",\"b\":18446744073709551615,"
                                 "\"c\":[false,0]}";
    assert_int_equal(la_json_close(&writer), (int)strlen(WANTED));
    assert_string_equal(text, WANTED);
    for (size_t size = 0; size < sizeof WANTED; size++) { /* one byte is the final zero */
        char *small = test_malloc(size + 1);
        int length = la_proto_playback(small, size, 1, 2);
        assert_true(length == LA_ERR_TOO_LONG || length < (int)size);
        test_free(small);
    }
}

/* --- messages ----------------------------------------------------------------------------- */

static struct la_proto_reader reader;

static int read_message(const char *text) {
    la_proto_begin(&reader);
    (void)la_proto_feed(&reader, text, strlen(text));
    return la_proto_end(&reader);
}

static void messages_are_read(void **state) {
    (void)state;
    const struct la_message *message = &reader.message;
    assert_int_equal(read_message("{\"type\":\"status\",\"state\":\"ready\",\"session_id\":\"s\","
                                  "\"restored\":true,\"configuration\":{\"language\":\"en\"},"
                                  "\"capabilities\":{\"voices\":[\"a\"]}}"),
                     LA_OK);
    assert_int_equal(message->type, LA_MESSAGE_STATUS);
    assert_int_equal(message->server_state, LA_SERVER_READY);
    assert_true(message->restored);
    assert_int_equal(read_message("{\"type\":\"tts_audio\",\"state\":\"start\",\"turn_id\":7,"
                                  "\"stream_id\":9007199254740991,\"sample_rate\":16000,"
                                  "\"source\":\"speech\"}"),
                     LA_OK);
    assert_int_equal(message->type, LA_MESSAGE_TTS_START);
    assert_true(message->stream_id == 9007199254740991U);
    assert_int_equal(message->sample_rate, 16000);
    assert_int_equal(read_message("{\"stream_id\":2,\"samples\":64,\"state\":\"end\","
                                  "\"type\":\"tts_audio\"}"),
                     LA_OK); /* whatever the order */
    assert_int_equal(message->type, LA_MESSAGE_TTS_END);
    assert_int_equal(message->samples, 64);
    assert_int_equal(read_message("{\"type\":\"tool_call\",\"turn_id\":1,\"call_id\":\"c1\","
                                  "\"name\":\"set_led\",\"arguments\":{\"color\":\"red\"},"
                                  "\"target\":\"device\"}"),
                     LA_OK);
    assert_string_equal(message->text, "{\"color\":\"red\"}");
    assert_int_equal(read_message("{\"type\":\"error\",\"code\":\"RATE_LIMITED\","
                                  "\"message\":\"later\",\"retry_after_ms\":1500}"),
                     LA_OK);
    assert_int_equal(message->retry_after_ms, 1500);
    assert_string_equal(message->text, "later");
}

static void each_type_has_its_name(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum la_message_type type;
    } CASES[] = {
        {"{\"type\":\"pause\",\"stream_id\":1}", LA_MESSAGE_PAUSE},
        {"{\"type\":\"resume\",\"stream_id\":1}", LA_MESSAGE_RESUME},
        {"{\"type\":\"flush\",\"stream_id\":1}", LA_MESSAGE_FLUSH},
        {"{\"type\":\"asr_result\",\"text\":\"hi\",\"is_final\":true}", LA_MESSAGE_ASR_RESULT},
        {"{\"type\":\"llm_response\",\"delta\":true,\"text\":\"hi\"}", LA_MESSAGE_LLM_RESPONSE},
        {"{\"type\":\"tts_audio\",\"state\":\"sentence\",\"stream_id\":1,\"from_sample\":0}",
         LA_MESSAGE_TTS_SENTENCE},
        {"{\"type\":\"interrupted\",\"heard_text\":\"a\",\"played_ms\":1.5}",
         LA_MESSAGE_INTERRUPTED},
        {"{\"type\":\"pong\"}", LA_MESSAGE_PONG},
        {"{\"type\":\"turn_metrics\",\"turn_id\":1,\"ended_ms\":null}", LA_MESSAGE_IGNORED},
        {"{\"type\":\"tool_result\",\"call_id\":\"c\",\"ok\":true,\"result\":1}",
         LA_MESSAGE_IGNORED},
        {"{\"type\":\"session_stats\"}", LA_MESSAGE_IGNORED},
        {"{\"type\":\"of tomorrow\",\"stream_id\":\"x\"}", LA_MESSAGE_UNKNOWN},
        {"{\"type\":\"tts_audio\",\"state\":\"of tomorrow\"}", LA_MESSAGE_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        assert_int_equal(read_message(CASES[i].text), LA_OK);
        assert_int_equal(reader.message.type, CASES[i].type);
    }
}

#define TOO_LONG_AN_ID                                                                            \
    "{\"type\":\"tool_call\",\"name\":\"x\",\"call_id\":\""                                        \
    "0123456789012345678901234567890123456789012345678901234567890123456789\"}"

static void messages_that_lack_something_are_refused(void **state) {
    (void)state;
    static const char *const BAD[] = {
        "{}", "{\"type\":1}", "{\"type\":\"pause\"}", "{\"type\":\"flush\",\"stream_id\":\"1\"}",
        "{\"type\":\"flush\",\"stream_id\":-1}", "{\"type\":\"flush\",\"stream_id\":1.5}",
        "{\"type\":\"flush\",\"stream_id\":9007199254740992}",
        "{\"type\":\"flush\",\"stream_id\":null}", "{\"type\":\"tool_call\",\"name\":\"x\"}",
        "{\"type\":\"tool_call\",\"call_id\":\"c\",\"name\":\"x\",\"arguments\":[]}",
        "{\"type\":\"status\",\"state\":\"ready\",\"restored\":1}",
        (TOO_LONG_AN_ID),
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        if (read_message(BAD[i]) != LA_ERR_PROTOCOL) {
            fail_msg("was taken: %s", BAD[i]);
        }
    }
}

static void messages_are_written(void **state) {
    (void)state;
    char text[512];
    const struct la_tool tool = {.name = "t", .description = "d", .parameters = "{}"};
    struct la_capabilities capabilities = {.display_text = true, .echo = LA_ECHO_CANCELLED};
    assert_true(la_proto_start_session(text, sizeof text, "s-1", capabilities, &tool, 1) > 0);
    assert_string_equal(
        text, "{\"type\":\"start_session\",\"session_id\":\"s-1\",\"capabilities\":{\"pause\":true,"
              "\"flush\":true,\"playback_reports\":true,\"display_text\":true,"
              "\"echo\":\"cancelled\"},\"device_tools\":[{\"name\":\"t\",\"description\":\"d\","
              "\"parameters\":{}}]}");
    la_proto_playback(text, sizeof text, 3, 12345);
    assert_string_equal(text, "{\"type\":\"playback\",\"stream_id\":3,\"played_samples\":12345}");
    la_proto_tool_result(text, sizeof text, "c", true, "{\"a\":1}");
    assert_string_equal(text, "{\"type\":\"tool_result\",\"call_id\":\"c\",\"result\":{\"a\":1}}");
    la_proto_tool_result(text, sizeof text, "c", false, "no \"such\"");
    assert_string_equal(
        text, "{\"type\":\"tool_result\",\"call_id\":\"c\",\"error\":\"no \\\"such\\\"\"}");
    la_proto_configure(text, sizeof text, 24000);
    assert_string_equal(text, "{\"type\":\"configure\",\"output_sample_rate\":24000}");
    la_hotpin_handshake(text, sizeof text, "s", "k");
    assert_string_equal(text, "{\"session_id\":\"s\",\"api_key\":\"k\"}");
    la_hotpin_end_of_speech(text, sizeof text);
    assert_string_equal(text, "{\"signal\":\"EOS\"}");
}

static void tools_read_their_arguments(void **state) {
    (void)state;
    int32_t value = 0;
    char text[6];
    assert_int_equal(la_tools_integer("{\"a\":50}", "a", 0, 100, &value), LA_OK);
    assert_int_equal(value, 50);
    assert_int_equal(la_tools_integer("{\"a\":-3.0}", "a", -5, 5, &value), LA_OK);
    assert_int_equal(value, -3);
    assert_int_equal(la_tools_integer("{\"a\":101}", "a", 0, 100, &value), LA_ERR_ARGUMENT);
    assert_int_equal(la_tools_integer("{\"a\":-1}", "a", 0, 100, &value), LA_ERR_ARGUMENT);
    assert_int_equal(la_tools_integer("{\"a\":1.5}", "a", 0, 100, &value), LA_ERR_ARGUMENT);
    assert_int_equal(la_tools_integer("{\"a\":12345678901234567890}", "a", 0, 100, &value),
                     LA_ERR_ARGUMENT);
    assert_int_equal(la_tools_integer("{\"a\":\"5\"}", "a", 0, 100, &value), LA_ERR_ARGUMENT);
    assert_int_equal(la_tools_integer("{}", "a", 0, 100, &value), LA_ERR_NOT_FOUND);
    assert_int_equal(la_tools_integer("[]", "a", 0, 100, &value), LA_ERR_ARGUMENT);
    assert_int_equal(la_tools_text("{\"a\":\"green\"}", "a", text, sizeof text), LA_OK);
    assert_string_equal(text, "green");
    assert_int_equal(la_tools_text("{\"a\":\"yellow\"}", "a", text, sizeof text),
                     LA_ERR_TOO_LONG);
}

static void ids_are_checked(void **state) {
    (void)state;
    assert_true(la_proto_is_id("esp32-hotpin_0.1"));
    assert_false(la_proto_is_id(""));
    assert_false(la_proto_is_id("a b"));
    assert_false(la_proto_is_id(
        "01234567890123456789012345678901234567890123456789012345678901234"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reader_tells_members_whatever_the_pieces),
        cmocka_unit_test(reader_refuses_what_is_no_json),
        cmocka_unit_test(reader_takes_32_levels_and_no_more),
        cmocka_unit_test(reader_cuts_long_values_between_characters),
        cmocka_unit_test(a_zero_in_a_text_cannot_end_it),
        cmocka_unit_test(writer_escapes_and_says_when_it_is_full),
        cmocka_unit_test(messages_are_read),
        cmocka_unit_test(each_type_has_its_name),
        cmocka_unit_test(messages_that_lack_something_are_refused),
        cmocka_unit_test(messages_are_written),
        cmocka_unit_test(tools_read_their_arguments),
        cmocka_unit_test(ids_are_checked),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
