#include <string.h>

#include "la_device_parts.h"

enum { ANSWER_SIZE = 256 }; /* of a tool */

static void display(const struct la_device *device, enum la_text_kind kind) {
    const struct la_message *message = &device->reader.message;
    if (device->port.display.show != NULL && message->text[0] != '\0') {
        device->port.display.show(device->port.context, kind, message->text);
    }
}

static void begin_stream(struct la_device *device, uint64_t stream_id, uint64_t sample_rate) {
    if (la_playback_start(&device->playback, stream_id, sample_rate) < 0) {
        device->stats.bad_messages++;
        return;
    }
    la_device_step(device, LA_EVENT_STREAM_STARTED);
}

/* --- ListenAI ----------------------------------------------------------------------------- */

static void handle_status(struct la_device *device) {
    const struct la_message *message = &device->reader.message;
    switch (message->server_state) {
    case LA_SERVER_READY:
        device->stats.sessions++;
        device->stats.resumed += message->restored;
        device->ready_at = la_device_now(device);
        la_device_step(device, LA_EVENT_READY);
        break;
    case LA_SERVER_LISTENING:
        la_device_step(device, LA_EVENT_LISTENING);
        break;
    case LA_SERVER_HEARING:
        la_device_step(device, LA_EVENT_HEARING);
        break;
    case LA_SERVER_THINKING:
        la_device_step(device, LA_EVENT_THINKING);
        break;
    case LA_SERVER_SPEAKING: /* the stream says so better */
    case LA_SERVER_CLOSING:
    case LA_SERVER_OTHER:
        break;
    }
}

static void handle_start(struct la_device *device) {
    const struct la_message *message = &device->reader.message;
    if (message->turn_id != device->turn_id) {
        device->turn_id = message->turn_id;
        device->stats.replies++;
    }
    begin_stream(device, message->stream_id, message->sample_rate);
}

/* Pause and resume count only for a stream that we have. */
static void handle_hold(struct la_device *device, enum la_event event) {
    if (la_playback_knows(&device->playback, device->reader.message.stream_id)) {
        device->stats.pauses += event == LA_EVENT_PAUSE;
        la_device_step(device, event);
    }
}

static void handle_flush(struct la_device *device) {
    uint64_t stream_id = device->reader.message.stream_id;
    device->stats.flushes++;
    if (la_playback_flush(&device->playback, stream_id) == LA_OK) {
        la_playback_resume(&device->playback);
        bool more = la_playback_busy(&device->playback); /* music goes on behind the speech */
        la_device_step(device, more ? LA_EVENT_RESUME : LA_EVENT_FLUSH);
    }
    la_device_report(device, stream_id); /* also of one that the button stopped before */
}

static void handle_tool_call(struct la_device *device) {
    struct la_message *message = &device->reader.message;
    if (strcmp(message->target, "device") != 0) {
        return; /* the server's own business */
    }
    device->stats.tool_calls++;
    char answer[ANSWER_SIZE] = "null";
    const struct la_tool *tool =
        la_tools_find(device->tools, device->tool_count, message->name);
    int result = LA_ERR_NOT_FOUND;
    if (tool == NULL) {
        strcpy(answer, "this device has no such tool");
    } else if (message->text_cut) {
        strcpy(answer, "the arguments are too long for this device: at most 767 bytes");
    } else {
        const char *arguments = message->text[0] != '\0' ? message->text : "{}";
        result = tool->run(tool->context, arguments, answer, sizeof answer);
    }
    la_device_send(device,
                   la_proto_tool_result(device->send_buffer, sizeof device->send_buffer,
                                        message->call_id, result >= 0, answer));
}

void la_device_handle_listenai(struct la_device *device) {
    const struct la_message *message = &device->reader.message;
    switch (message->type) {
    case LA_MESSAGE_STATUS:
        handle_status(device);
        break;
    case LA_MESSAGE_ASR_RESULT:
        display(device, message->is_final ? LA_TEXT_HEARD : LA_TEXT_HEARD_PARTLY);
        break;
    case LA_MESSAGE_LLM_RESPONSE:
        if (!message->done) { /* the last one is the whole text again */
            display(device, LA_TEXT_REPLY_PART);
        }
        break;
    case LA_MESSAGE_TOOL_CALL:
        handle_tool_call(device);
        break;
    case LA_MESSAGE_TTS_START:
        handle_start(device);
        break;
    case LA_MESSAGE_TTS_END:
        la_playback_end(&device->playback, message->stream_id, message->samples);
        break;
    case LA_MESSAGE_PAUSE:
        handle_hold(device, LA_EVENT_PAUSE);
        break;
    case LA_MESSAGE_RESUME:
        handle_hold(device, LA_EVENT_RESUME);
        break;
    case LA_MESSAGE_FLUSH:
        handle_flush(device);
        break;
    case LA_MESSAGE_ERROR:
        device->stats.errors++;
        device->retry_at =
            la_device_now(device) + (la_ms)(message->retry_after_ms & INT32_MAX);
        display(device, LA_TEXT_ERROR);
        la_device_step(device, LA_EVENT_FAILED);
        break;
    case LA_MESSAGE_UNKNOWN:
    case LA_MESSAGE_TTS_SENTENCE:
    case LA_MESSAGE_INTERRUPTED:
    case LA_MESSAGE_PONG:
    case LA_MESSAGE_IGNORED:
        break;
    }
}

/* --- Hotpin ------------------------------------------------------------------------------- */

static void end_wav(struct la_device *device) {
    const struct la_stream *stream = la_playback_playing(&device->playback);
    if (stream != NULL) {
        la_playback_end(&device->playback, stream->id, stream->received);
    }
}

void la_device_handle_hotpin(struct la_device *device) {
    switch (la_hotpin_classify(&device->reader.message)) {
    case LA_HOTPIN_CONNECTED:
        device->stats.sessions++;
        device->ready_at = la_device_now(device);
        la_device_step(device, LA_EVENT_READY);
        break;
    case LA_HOTPIN_TRANSCRIPT:
        display(device, LA_TEXT_HEARD);
        break;
    case LA_HOTPIN_RESPONSE:
        display(device, LA_TEXT_REPLY_PART);
        device->stats.replies++;
        la_hotpin_wav_begin(&device->hotpin);
        break;
    case LA_HOTPIN_COMPLETE:
        end_wav(device);
        break;
    case LA_HOTPIN_ERROR:
        device->stats.errors++;
        display(device, LA_TEXT_ERROR);
        end_wav(device);
        la_device_step(device, LA_EVENT_FAILED);
        break;
    case LA_HOTPIN_PROCESSING:
    case LA_HOTPIN_RESET:
    case LA_HOTPIN_OTHER:
        break;
    }
}

int la_device_take_wav(struct la_device *device, const uint8_t *data, size_t length) {
    uint8_t pcm[2 * LA_BLOCK_SAMPLES];
    struct la_hotpin *hotpin = &device->hotpin;
    size_t used = 0;
    while (used < length) {
        /* A reply that nobody plays any more is read to its end, and dropped. */
        bool wanted = device->playback.open;
        size_t room = la_playback_room(&device->playback);
        size_t out_size = !wanted || room > sizeof pcm ? sizeof pcm : room;
        enum la_wav_part part = LA_WAV_NOTHING;
        size_t out_length = 0;
        int taken = la_hotpin_wav_feed(hotpin, data + used, length - used, &part, pcm, out_size,
                                       &out_length);
        if (taken < 0) {
            device->stats.bad_messages++;
            return (int)length; /* no WAV: nothing of it can be played */
        }
        used += (size_t)taken;
        if (part == LA_WAV_STARTED) {
            begin_stream(device, ++hotpin->stream_id, hotpin->sample_rate);
        } else if (part == LA_WAV_ENDED) {
            end_wav(device);
        } else if (part == LA_WAV_AUDIO && wanted) {
            if (taken == 0) {
                break; /* no room until the loudspeaker has played some */
            }
            la_playback_push(&device->playback, pcm, out_length);
        }
    }
    return (int)used;
}
