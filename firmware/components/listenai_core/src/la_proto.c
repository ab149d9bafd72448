#include "la_proto.h"

#include <stddef.h>
#include <string.h>

/* --- reading ------------------------------------------------------------------------------ */

enum field_kind { FIELD_TEXT, FIELD_UINT, FIELD_BOOL, FIELD_RAW };

/* Where a member goes.  Members that are not here are skipped. */
struct field {
    const char *key;
    size_t offset;
    size_t size; /* of a text's buffer */
    enum field_kind kind;
};

#define TEXT(key, member) \
    {key, offsetof(struct la_message, member), sizeof((struct la_message *)0)->member, FIELD_TEXT}
#define UINT(member) {#member, offsetof(struct la_message, member), 0, FIELD_UINT}
#define BOOL(member) {#member, offsetof(struct la_message, member), 0, FIELD_BOOL}

static const struct field FIELDS[] = {
    TEXT("type", kind),
    TEXT("state", state),
    TEXT("status", state),
    TEXT("stage", stage),
    TEXT("target", target),
    TEXT("code", code),
    TEXT("call_id", call_id),
    TEXT("name", name),
    TEXT("text", text),
    TEXT("message", text),
    TEXT("transcript", text),
    TEXT("response", text),
    TEXT("heard_text", text),
    {"arguments", offsetof(struct la_message, text), LA_TEXT_SIZE, FIELD_RAW},
    UINT(turn_id),
    UINT(stream_id),
    UINT(sample_rate),
    UINT(samples),
    UINT(retry_after_ms),
    BOOL(restored),
    BOOL(is_final),
    BOOL(done),
};

static bool set_text(struct la_message *message, const struct field *field,
                     const struct la_json_member *member) {
    bool is_text = field->offset == offsetof(struct la_message, text);
    if (!is_text && (member->cut || member->length >= field->size)) {
        return false; /* an id that was cut is another id */
    }
    memcpy((char *)message + field->offset, member->value, member->length + 1);
    if (is_text) {
        message->text_cut = member->cut;
    }
    return true;
}

static bool set_field(struct la_message *message, const struct field *field,
                      const struct la_json_member *member) {
    char *at = (char *)message + field->offset;
    if (member->type == LA_JSON_NULL) {
        return true; /* as if left out */
    }
    switch (field->kind) {
    case FIELD_TEXT:
        return member->type == LA_JSON_STRING && set_text(message, field, member);
    case FIELD_RAW:
        return member->type == LA_JSON_OBJECT && set_text(message, field, member);
    case FIELD_UINT: {
        uint64_t number = 0;
        if (la_json_to_uint(member, &number) != LA_OK) {
            return false;
        }
        memcpy(at, &number, sizeof number);
        message->has_stream_id |= field->offset == offsetof(struct la_message, stream_id);
        return true;
    }
    case FIELD_BOOL:
        break;
    }
    bool value = member->type == LA_JSON_TRUE;
    memcpy(at, &value, sizeof value);
    return value || member->type == LA_JSON_FALSE;
}

static void take_member(void *context, const struct la_json_member *member) {
    struct la_proto_reader *reader = context;
    for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++) {
        if (strcmp(FIELDS[i].key, member->key) == 0) {
            reader->bad_member |= !set_field(&reader->message, &FIELDS[i], member);
            return;
        }
    }
}

void la_proto_begin(struct la_proto_reader *reader) {
    la_json_begin(&reader->json, take_member, reader);
    memset(&reader->message, 0, sizeof reader->message);
    reader->bad_member = false;
}

int la_proto_feed(struct la_proto_reader *reader, const char *text, size_t length) {
    return la_json_feed(&reader->json, text, length);
}

/* What a type needs beside itself. */
enum needs { NEEDS_NOTHING, NEEDS_STREAM, NEEDS_CALL };

static const struct {
    const char *kind;
    const char *state; /* of tts_audio */
    enum la_message_type type;
    enum needs needs;
} TYPES[] = {
    {"status", NULL, LA_MESSAGE_STATUS, NEEDS_NOTHING},
    {"asr_result", NULL, LA_MESSAGE_ASR_RESULT, NEEDS_NOTHING},
    {"llm_response", NULL, LA_MESSAGE_LLM_RESPONSE, NEEDS_NOTHING},
    {"tool_call", NULL, LA_MESSAGE_TOOL_CALL, NEEDS_CALL},
    {"tts_audio", "start", LA_MESSAGE_TTS_START, NEEDS_STREAM},
    {"tts_audio", "sentence", LA_MESSAGE_TTS_SENTENCE, NEEDS_STREAM},
    {"tts_audio", "end", LA_MESSAGE_TTS_END, NEEDS_STREAM},
    {"pause", NULL, LA_MESSAGE_PAUSE, NEEDS_STREAM},
    {"resume", NULL, LA_MESSAGE_RESUME, NEEDS_STREAM},
    {"flush", NULL, LA_MESSAGE_FLUSH, NEEDS_STREAM},
    {"interrupted", NULL, LA_MESSAGE_INTERRUPTED, NEEDS_NOTHING},
    {"error", NULL, LA_MESSAGE_ERROR, NEEDS_NOTHING},
    {"pong", NULL, LA_MESSAGE_PONG, NEEDS_NOTHING},
    {"tool_result", NULL, LA_MESSAGE_IGNORED, NEEDS_NOTHING},
    {"turn_metrics", NULL, LA_MESSAGE_IGNORED, NEEDS_NOTHING},
    {"session_stats", NULL, LA_MESSAGE_IGNORED, NEEDS_NOTHING},
};

static const struct {
    const char *name;
    enum la_server_state state;
} SERVER_STATES[] = {
    {"ready", LA_SERVER_READY},       {"listening", LA_SERVER_LISTENING},
    {"hearing", LA_SERVER_HEARING},   {"thinking", LA_SERVER_THINKING},
    {"speaking", LA_SERVER_SPEAKING}, {"closing", LA_SERVER_CLOSING},
};

static enum la_server_state server_state(const char *name) {
    for (size_t i = 0; i < sizeof SERVER_STATES / sizeof *SERVER_STATES; i++) {
        if (strcmp(SERVER_STATES[i].name, name) == 0) {
            return SERVER_STATES[i].state;
        }
    }
    return LA_SERVER_OTHER;
}

static bool has(const struct la_message *message, enum needs needs) {
    switch (needs) {
    case NEEDS_STREAM:
        return message->has_stream_id;
    case NEEDS_CALL:
        return message->call_id[0] != '\0' && message->name[0] != '\0';
    case NEEDS_NOTHING:
        break;
    }
    return true;
}

int la_proto_end_untyped(struct la_proto_reader *reader) {
    int problem = la_json_end(&reader->json);
    if (problem != LA_OK) {
        return problem;
    }
    return reader->bad_member ? LA_ERR_PROTOCOL : LA_OK;
}

int la_proto_end(struct la_proto_reader *reader) {
    struct la_message *message = &reader->message;
    int problem = la_json_end(&reader->json);
    if (problem != LA_OK || message->kind[0] == '\0') {
        return LA_ERR_PROTOCOL;
    }
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(TYPES[i].kind, message->kind) != 0 ||
            (TYPES[i].state != NULL && strcmp(TYPES[i].state, message->state) != 0)) {
            continue;
        }
        message->type = TYPES[i].type;
        message->server_state = server_state(message->state);
        bool whole = !reader->bad_member && has(message, TYPES[i].needs);
        return whole || message->type == LA_MESSAGE_IGNORED ? LA_OK : LA_ERR_PROTOCOL;
    }
    return LA_OK; /* LA_MESSAGE_UNKNOWN, whatever its members are */
}

bool la_proto_is_id(const char *id) {
    size_t length = strlen(id);
    if (length == 0 || length >= LA_ID_SIZE) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        char byte = id[i];
        bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
        bool digit = byte >= '0' && byte <= '9';
        if (!letter && !digit && byte != '_' && byte != '.' && byte != '-') {
            return false;
        }
    }
    return true;
}
