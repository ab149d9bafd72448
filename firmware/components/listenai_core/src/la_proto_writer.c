#include "la_proto.h"

static void begin(struct la_json_writer *writer, char *buffer, size_t size, const char *type) {
    la_json_open(writer, buffer, size);
    la_json_object(writer, NULL);
    la_json_text(writer, "type", type);
}

static int end(struct la_json_writer *writer) {
    la_json_object_end(writer);
    return la_json_close(writer);
}

static const char *echo_name(enum la_echo echo) {
    switch (echo) {
    case LA_ECHO_RAW:
        return "raw";
    case LA_ECHO_CANCELLED:
        return "cancelled";
    case LA_ECHO_UNKNOWN:
        break;
    }
    return "unknown";
}

static void write_tools(struct la_json_writer *writer, const struct la_tool *tools,
                        size_t tool_count) {
    la_json_array(writer, "device_tools");
    for (size_t i = 0; i < tool_count; i++) {
        la_json_object(writer, NULL);
        la_json_text(writer, "name", tools[i].name);
        la_json_text(writer, "description", tools[i].description);
        la_json_raw(writer, "parameters", tools[i].parameters);
        la_json_object_end(writer);
    }
    la_json_array_end(writer);
}

int la_proto_start_session(char *buffer, size_t size, const char *session_id,
                           struct la_capabilities capabilities, const struct la_tool *tools,
                           size_t tool_count) {
    struct la_json_writer writer;
    begin(&writer, buffer, size, "start_session");
    la_json_text(&writer, "session_id", session_id);
    la_json_object(&writer, "capabilities");
    la_json_bool(&writer, "pause", true);
    la_json_bool(&writer, "flush", true);
    la_json_bool(&writer, "playback_reports", true);
    la_json_bool(&writer, "display_text", capabilities.display_text);
    la_json_text(&writer, "echo", echo_name(capabilities.echo));
    la_json_object_end(&writer);
    if (tool_count > 0) {
        write_tools(&writer, tools, tool_count);
    }
    return end(&writer);
}

int la_proto_configure(char *buffer, size_t size, uint32_t output_sample_rate) {
    struct la_json_writer writer;
    begin(&writer, buffer, size, "configure");
    la_json_uint(&writer, "output_sample_rate", output_sample_rate);
    return end(&writer);
}

static int bare(char *buffer, size_t size, const char *type) {
    struct la_json_writer writer;
    begin(&writer, buffer, size, type);
    return end(&writer);
}

int la_proto_end_of_speech(char *buffer, size_t size) {
    return bare(buffer, size, "end_of_speech");
}

int la_proto_interrupt(char *buffer, size_t size) {
    return bare(buffer, size, "interrupt");
}

int la_proto_end_session(char *buffer, size_t size) {
    return bare(buffer, size, "end_session");
}

int la_proto_ping(char *buffer, size_t size) {
    return bare(buffer, size, "ping");
}

int la_proto_playback(char *buffer, size_t size, uint64_t stream_id, uint64_t played_samples) {
    struct la_json_writer writer;
    begin(&writer, buffer, size, "playback");
    la_json_uint(&writer, "stream_id", stream_id);
    la_json_uint(&writer, "played_samples", played_samples);
    return end(&writer);
}

int la_proto_tool_result(char *buffer, size_t size, const char *call_id, bool ok,
                         const char *answer) {
    struct la_json_writer writer;
    begin(&writer, buffer, size, "tool_result");
    la_json_text(&writer, "call_id", call_id);
    if (ok) {
        la_json_raw(&writer, "result", answer);
    } else {
        la_json_text(&writer, "error", answer);
    }
    return end(&writer);
}
