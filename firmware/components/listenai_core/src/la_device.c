#include "la_device_parts.h"

enum {
    REPORT_MS = 250,
    DEBOUNCE_MS = 30,
    PING_AFTER_MS = 20000, /* of hearing nothing; the server is silent in a silent room */
    PONG_WITHIN_MS = 10000,
    SUSPICION_ROOM_MS = 740, /* what the server goes on to send until it pauses, or we resume: the
                              * limit of LA_STATE_SUSPECTED, a message, and LA_HARDWARE_MS */
    MIC_FRAMES_PER_TICK = 4  /* more have piled up: the rest is for the next ticks */
};

enum { CLOSE_POLICY = 1008, CLOSE_TAKEN_OVER = 4001 };

la_ms la_device_now(const struct la_device *device) {
    return device->port.clock.now_ms(device->port.context);
}

/* --- saying ------------------------------------------------------------------------------- */

void la_device_send(struct la_device *device, int length) {
    const struct la_port *port = &device->port;
    if (length < 0 ||
        port->ws.send_text(port->context, device->send_buffer, (size_t)length) < 0) {
        device->stats.unsent++;
    }
}

void la_device_report(struct la_device *device, uint64_t stream_id) {
    uint64_t played = 0;
    if (device->config.dialect == LA_DIALECT_LISTENAI &&
        la_playback_played(&device->playback, stream_id, &played)) {
        device->stats.reports++;
        la_device_send(device, la_proto_playback(device->send_buffer, sizeof device->send_buffer,
                                                 stream_id, played));
    }
}

static void report_playing(struct la_device *device) {
    const struct la_stream *stream = la_playback_playing(&device->playback);
    device->reported_at = la_device_now(device);
    if (stream != NULL && stream->taken > 0) {
        la_device_report(device, stream->id);
    }
}

static void end_speech(struct la_device *device) {
    char *buffer = device->send_buffer;
    la_device_send(device, device->config.dialect == LA_DIALECT_HOTPIN
                               ? la_hotpin_end_of_speech(buffer, sizeof device->send_buffer)
                               : la_proto_end_of_speech(buffer, sizeof device->send_buffer));
}

static void interrupt(struct la_device *device) {
    if (device->config.dialect == LA_DIALECT_LISTENAI) { /* Hotpin's is new audio */
        la_device_send(device,
                       la_proto_interrupt(device->send_buffer, sizeof device->send_buffer));
    }
}

/* --- doing what the state machine says ---------------------------------------------------- */

/* The wait before the next connection, by how the last one went. */
static void wait_to_connect(struct la_device *device) {
    la_ms now = la_device_now(device);
    if (device->ready_at != LA_NEVER && now - device->ready_at >= LA_BACKOFF_STABLE_MS) {
        la_backoff_reset(&device->backoff);
    }
    uint32_t chance = device->port.random.bits(device->port.context);
    uint32_t asked_ms = device->retry_at > now ? (uint32_t)(device->retry_at - now) : 0;
    la_fsm_wait(&device->fsm, now + la_backoff_next(&device->backoff, chance, asked_ms));
}

static void open_socket(struct la_device *device) {
    device->ready_at = LA_NEVER;
    if (device->port.ws.open(device->port.context) < 0) {
        (void)la_fsm_step(&device->fsm, LA_EVENT_WS_CLOSED, la_device_now(device));
        wait_to_connect(device);
    }
}

static void show(struct la_device *device) {
    if (device->shown != device->fsm.state) {
        device->shown = device->fsm.state;
        if (device->port.led.show != NULL) {
            device->port.led.show(device->port.context, device->shown);
        }
    }
}

static void act(struct la_device *device, uint32_t actions) {
    /* The loudspeaker first: it is what the user waits for. */
    const struct la_stream *playing = la_playback_playing(&device->playback);
    uint64_t stream_id = playing != NULL ? playing->id : 0;
    if ((actions & LA_ACTION_PAUSE) != 0) {
        la_playback_pause(&device->playback);
    }
    if ((actions & LA_ACTION_FLUSH) != 0) {
        la_playback_flush_all(&device->playback);
    }
    if ((actions & LA_ACTION_RESUME) != 0) {
        la_playback_resume(&device->playback);
    }
    /* Then the server, which is to know what was heard before it is asked to stop. */
    if ((actions & LA_ACTION_REPORT) != 0 && playing != NULL) {
        la_device_report(device, stream_id);
    }
    if ((actions & LA_ACTION_INTERRUPT) != 0) {
        interrupt(device);
    }
    if ((actions & LA_ACTION_END_OF_SPEECH) != 0) {
        end_speech(device);
    }
    if ((actions & LA_ACTION_START_SESSION) != 0) {
        la_device_start_session(device);
    }
    if ((actions & LA_ACTION_CLOSE_WS) != 0) {
        device->port.ws.close(device->port.context);
        wait_to_connect(device);
    }
    if ((actions & LA_ACTION_OPEN_WS) != 0) {
        open_socket(device);
    }
}

void la_device_step(struct la_device *device, enum la_event event) {
    uint32_t actions = la_fsm_step(&device->fsm, event, la_device_now(device));
    act(device, actions);
    show(device);
}

/* --- the WebSocket ------------------------------------------------------------------------ */

void la_device_on_ws_open(struct la_device *device) {
    device->stats.connections++;
    device->received_at = la_device_now(device);
    device->pinged_at = LA_NEVER;
    la_reassembly_init(&device->reassembly);
    la_device_step(device, LA_EVENT_WS_OPENED);
}

void la_device_on_ws_closed(struct la_device *device, int code) {
    if (device->fsm.state == LA_STATE_DISCONNECTED) {
        return;
    }
    la_device_step(device, LA_EVENT_WS_CLOSED);
    if (code == CLOSE_POLICY || code == CLOSE_TAKEN_OVER) {
        /* Coming back at once would only be refused again, or put out whoever has the id now;
         * however long the session was good. */
        device->ready_at = LA_NEVER;
        la_backoff_slow(&device->backoff);
    }
    wait_to_connect(device);
}

/* We give the connection up. */
static void hang_up(struct la_device *device) {
    device->port.ws.close(device->port.context);
    la_device_on_ws_closed(device, 0);
}

static void keep_alive(struct la_device *device, la_ms now) {
    if (!la_device_ready(device) || device->config.dialect == LA_DIALECT_HOTPIN) {
        return;
    }
    if (device->pinged_at != LA_NEVER && now - device->pinged_at >= PONG_WITHIN_MS) {
        hang_up(device);
    } else if (device->pinged_at == LA_NEVER && now - device->received_at >= PING_AFTER_MS) {
        device->pinged_at = now;
        la_device_send(device, la_proto_ping(device->send_buffer, sizeof device->send_buffer));
    }
}

static int take_text(struct la_device *device, const struct la_ws_piece *piece,
                     struct la_ws_part part) {
    if (part.first) {
        la_proto_begin(&device->reader);
    }
    (void)la_proto_feed(&device->reader, (const char *)piece->data, piece->length);
    la_reassembly_take(&device->reassembly, piece, piece->length);
    if (!part.last) {
        return (int)piece->length;
    }
    bool hotpin = device->config.dialect == LA_DIALECT_HOTPIN;
    int problem = hotpin ? la_proto_end_untyped(&device->reader) : la_proto_end(&device->reader);
    if (problem != LA_OK) {
        device->stats.bad_messages++;
    } else if (hotpin) {
        la_device_handle_hotpin(device);
    } else {
        la_device_handle_listenai(device);
    }
    return (int)piece->length;
}

int la_device_on_ws_data(struct la_device *device, const struct la_ws_piece *piece) {
    struct la_ws_part part;
    device->received_at = la_device_now(device);
    device->pinged_at = LA_NEVER;
    if (device->fsm.state < LA_STATE_STARTING) {
        return LA_ERR_CLOSED;
    }
    if (la_reassembly_check(&device->reassembly, piece, &part) < 0) {
        device->stats.bad_messages++;
        hang_up(device);
        return LA_ERR_PROTOCOL;
    }
    if (part.opcode == LA_OPCODE_TEXT) {
        return take_text(device, piece, part);
    }
    int taken = (int)piece->length;
    if (device->config.dialect == LA_DIALECT_HOTPIN) {
        taken = la_device_take_wav(device, piece->data, piece->length);
    } else {
        la_playback_push(&device->playback, piece->data, piece->length);
    }
    if (taken >= 0) {
        la_reassembly_take(&device->reassembly, piece, (size_t)taken);
    }
    return taken;
}

/* --- the tick ----------------------------------------------------------------------------- */

static void poll_button(struct la_device *device, la_ms now) {
    if (device->port.button.pressed == NULL) {
        return;
    }
    bool level = device->port.button.pressed(device->port.context);
    if (level != device->button_level) {
        device->button_level = level;
        device->button_since = now;
    }
    if (level != device->button_down && now - device->button_since >= DEBOUNCE_MS) {
        device->button_down = level;
        la_device_step(device, level ? LA_EVENT_BUTTON_DOWN : LA_EVENT_BUTTON_UP);
    }
}

/* Whether the user begins to speak, and we can afford to fall silent until the server knows. */
static bool suspects(struct la_device *device, const int16_t *pcm) {
    bool audible = la_playback_audible(&device->playback);
    bool was_loud = device->loud;
    device->loud = la_bargein_heard(&device->bargein, pcm, audible);
    return device->loud && !was_loud && audible && device->config.local_barge_in &&
           la_playback_room_ms(&device->playback) >= SUSPICION_ROOM_MS;
}

static void take_frame(struct la_device *device, const int16_t *pcm) {
    const struct la_port *port = &device->port;
    if (suspects(device, pcm)) {
        la_device_step(device, LA_EVENT_SUSPICION);
        device->stats.suspicions += device->fsm.state == LA_STATE_SUSPECTED;
    }
    if (device->fsm.state == LA_STATE_IDLE && device->config.mode == LA_LISTEN_WAKE_WORD &&
        port->wake_word.heard(port->context, pcm, LA_MIC_FRAME_SAMPLES)) {
        la_device_step(device, LA_EVENT_WAKE_WORD);
    }
    if (!la_fsm_sends_mic(&device->fsm)) {
        return;
    }
    size_t size = LA_MIC_FRAME_SAMPLES * sizeof *pcm;
    if (port->ws.send_binary(port->context, pcm, size) < 0) {
        device->stats.mic_dropped++;
    } else {
        device->stats.mic_frames++;
    }
}

static void poll_mic(struct la_device *device) {
    int16_t pcm[LA_MIC_FRAME_SAMPLES];
    const struct la_port *port = &device->port;
    for (int i = 0; i < MIC_FRAMES_PER_TICK; i++) {
        if (port->mic.read(port->context, pcm, LA_MIC_FRAME_SAMPLES) != LA_MIC_FRAME_SAMPLES) {
            return;
        }
        take_frame(device, pcm);
    }
}

static void feed_speaker(struct la_device *device, la_ms now) {
    while (la_playback_pump(&device->playback, now)) {
        la_device_report(device, device->playback.last.id);
        if (!la_playback_busy(&device->playback)) {
            la_device_step(device, LA_EVENT_STREAM_PLAYED);
        }
    }
    if (device->fsm.state == LA_STATE_SPEAKING && now - device->reported_at >= REPORT_MS) {
        report_playing(device);
    }
}

void la_device_tick(struct la_device *device) {
    la_ms now = la_device_now(device);
    if (now >= device->fsm.deadline) {
        device->stats.false_suspicions += device->fsm.state == LA_STATE_SUSPECTED;
        la_device_step(device, LA_EVENT_TIMEOUT);
    }
    poll_button(device, now);
    poll_mic(device);
    feed_speaker(device, now);
    keep_alive(device, now);
}

/* --- small parts -------------------------------------------------------------------------- */

void la_device_forget(struct la_device *device) {
    char *buffer = device->send_buffer;
    if (device->config.dialect == LA_DIALECT_HOTPIN) {
        la_device_send(device, la_hotpin_reset(buffer, sizeof device->send_buffer));
        return;
    }
    la_device_send(device, la_proto_end_session(buffer, sizeof device->send_buffer));
    if (device->config.session_id == NULL) {
        la_device_new_session_id(device);
    }
}

int la_device_set_volume(struct la_device *device, int volume) {
    int problem = la_gain_set(&device->playback.gain, volume);
    if (problem != LA_OK) {
        return problem;
    }
    device->volume = volume;
    la_device_keep_volume(device);
    return LA_OK;
}

enum la_state la_device_state(const struct la_device *device) {
    return device->fsm.state;
}

bool la_device_ready(const struct la_device *device) {
    return device->fsm.state >= LA_STATE_IDLE;
}
