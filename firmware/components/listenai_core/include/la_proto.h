/* The ListenAI protocol's messages: read into one struct, written into a buffer. */
#ifndef LA_PROTO_H
#define LA_PROTO_H

#include "la_json.h"
#include "la_tools.h"
#include "la_types.h"

enum la_message_type {
    LA_MESSAGE_UNKNOWN, /* one of a newer server: ignored */
    LA_MESSAGE_STATUS,
    LA_MESSAGE_ASR_RESULT,
    LA_MESSAGE_LLM_RESPONSE,
    LA_MESSAGE_TOOL_CALL,
    LA_MESSAGE_TTS_START,
    LA_MESSAGE_TTS_SENTENCE,
    LA_MESSAGE_TTS_END,
    LA_MESSAGE_PAUSE,
    LA_MESSAGE_RESUME,
    LA_MESSAGE_FLUSH,
    LA_MESSAGE_INTERRUPTED,
    LA_MESSAGE_ERROR,
    LA_MESSAGE_PONG,
    LA_MESSAGE_IGNORED /* known, and of no use to a device: tool_result, turn_metrics, … */
};

enum la_server_state {
    LA_SERVER_OTHER, /* queued, or one of a newer server */
    LA_SERVER_READY,
    LA_SERVER_LISTENING,
    LA_SERVER_HEARING,
    LA_SERVER_THINKING,
    LA_SERVER_SPEAKING,
    LA_SERVER_CLOSING
};

/* A message of the server.  Members that it does not have are 0, false or "". */
struct la_message {
    enum la_message_type type;
    enum la_server_state server_state; /* of a status */
    uint64_t turn_id;
    uint64_t stream_id;
    uint64_t sample_rate;
    uint64_t samples;
    uint64_t retry_after_ms;
    bool has_stream_id;
    bool restored;
    bool is_final;
    bool done;
    bool text_cut;
    char kind[24];           /* the member `type` */
    char state[16];          /* the member `state`, or Hotpin's `status` */
    char stage[16];          /* Hotpin's */
    char target[8];
    char code[24];           /* of an error */
    char call_id[LA_ID_SIZE];
    char name[LA_NAME_SIZE];
    char text[LA_TEXT_SIZE]; /* `text`, `message`, `transcript`, `response`, `heard_text`; of a
                              * tool_call its `arguments` as JSON */
};

struct la_proto_reader {
    struct la_json_reader json;
    struct la_message message;
    bool bad_member; /* a member of the wrong type */
};

/* Reads a message in pieces: begin, feed as often as needed, end. */
void la_proto_begin(struct la_proto_reader *reader);
int la_proto_feed(struct la_proto_reader *reader, const char *text, size_t length);

/* LA_OK: `reader->message` is whole.  LA_ERR_PROTOCOL: not JSON, or a member that we need is
 * missing or of the wrong type. */
int la_proto_end(struct la_proto_reader *reader);

/* The same without a look at `type`, for dialects of other servers. */
int la_proto_end_untyped(struct la_proto_reader *reader);

/* What the device can do, as the server is told. */
struct la_capabilities {
    bool display_text;
    enum la_echo echo;
};

/* Writers: the length of the text in `buffer`, or LA_ERR_TOO_LONG. */
int la_proto_start_session(char *buffer, size_t size, const char *session_id,
                           struct la_capabilities capabilities, const struct la_tool *tools,
                           size_t tool_count);
int la_proto_configure(char *buffer, size_t size, uint32_t output_sample_rate);
int la_proto_end_of_speech(char *buffer, size_t size);
int la_proto_interrupt(char *buffer, size_t size);
int la_proto_playback(char *buffer, size_t size, uint64_t stream_id, uint64_t played_samples);
int la_proto_end_session(char *buffer, size_t size);
int la_proto_ping(char *buffer, size_t size);

/* answer: JSON where ok, else words. */
int la_proto_tool_result(char *buffer, size_t size, const char *call_id, bool ok,
                         const char *answer);

/* Whether an id is 1 to 64 letters, digits, '_', '.' or '-'. */
bool la_proto_is_id(const char *id);

#endif
