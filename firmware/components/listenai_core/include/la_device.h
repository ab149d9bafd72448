/* The whole device: microphone, loudspeaker, session and state, in the caller's memory.
 *
 *     static struct la_device device;
 *     static int16_t playback[LA_PLAYBACK_SAMPLES_MIN];
 *     struct la_config config;
 *     la_config_defaults(&config);
 *     config.playback_memory = playback; config.playback_samples = LA_PLAYBACK_SAMPLES_MIN;
 *     la_device_init(&device, &config, &port);
 *     for (;;) { la_device_tick(&device); wait up to 10 ms; }
 *
 * Everything here is called from one task.  A WebSocket task puts what happened into a la_mailbox
 * and this task takes it out, calling la_device_on_ws_*. */
#ifndef LA_DEVICE_H
#define LA_DEVICE_H

#include "la_backoff.h"
#include "la_bargein.h"
#include "la_fsm.h"
#include "la_hotpin.h"
#include "la_playback.h"
#include "la_port.h"
#include "la_proto.h"
#include "la_reassembly.h"
#include "la_tools.h"
#include "la_types.h"

enum {
    LA_TICK_MS = 10,             /* how often la_device_tick wants to be called; at most 20 */
    LA_PLAYBACK_SAMPLES_MIN = 22528, /* 1.4 s at 16 kHz: the server's lead of 0.5 s, a message,
                                      * a local pause of 0.6 s, and what may be played again */
    LA_TOOLS_MAX = 8             /* so many fit into the message that announces them */
};

struct la_config {
    enum la_dialect dialect;       /* LA_DIALECT_HOTPIN needs LA_LISTEN_PUSH_TO_TALK */
    enum la_listen_mode mode;
    enum la_echo echo;             /* what the hardware does about its echo, truthfully */
    bool local_barge_in;           /* may pause before the server says so */
    uint32_t speaker_rate;         /* Hz the server is asked for: 8000, 16000, 22050, 24000, 44100
                                    * or 48000 */
    const char *session_id;        /* 1 to 64 letters, digits, '_', '.', '-'; NULL: made once and
                                    * kept in the store */
    const char *api_key;           /* of the Hotpin handshake; NULL: none.  In the other dialect
                                    * the key is a header of the handshake, the port's business */
    const struct la_tool *tools;   /* beside the built-in set_volume; copied */
    size_t tool_count;             /* at most LA_TOOLS_MAX */
    int volume;                    /* 0 to 100, until one is found in the store */
    int16_t *playback_memory;      /* the caller's, as long as the device lives */
    size_t playback_samples;       /* at least LA_PLAYBACK_SAMPLES_MIN */
};

/* Counts since la_device_init; all of them only rise. */
struct la_device_stats {
    uint32_t connections;        /* WebSockets that were opened */
    uint32_t sessions;           /* times the server was ready */
    uint32_t resumed;            /* of these, with the session as it was */
    uint32_t replies;            /* turns whose audio began */
    uint32_t suspicions;         /* times we paused before the server did */
    uint32_t false_suspicions;   /* of these, given up because the server heard nothing */
    uint32_t pauses;             /* as the server said */
    uint32_t flushes;            /* the same */
    uint32_t reports;            /* playback messages */
    uint32_t tool_calls;
    uint32_t errors;             /* error messages of the server */
    uint32_t bad_messages;       /* what we could not read */
    uint32_t mic_frames;         /* sent */
    uint32_t mic_dropped;        /* frames that the WebSocket had no room for */
    uint32_t unsent;             /* text messages that the WebSocket did not take */
};

struct la_device {
    struct la_config config;
    struct la_port port;
    struct la_fsm fsm;
    struct la_backoff backoff;
    struct la_bargein bargein;
    struct la_playback playback;
    struct la_reassembly reassembly;
    struct la_proto_reader reader;
    struct la_hotpin hotpin;
    struct la_device_stats stats;
    struct la_tool tools[LA_TOOLS_MAX + 1]; /* the config's, and set_volume */
    size_t tool_count;
    char session_id[LA_ID_SIZE];
    char send_buffer[LA_SEND_SIZE];
    enum la_state shown;
    int volume;
    uint64_t turn_id;        /* of the reply whose audio began last */
    la_ms received_at;       /* when the server was last heard */
    la_ms pinged_at;         /* LA_NEVER: it owes us no answer */
    la_ms reported_at;
    la_ms ready_at;          /* LA_NEVER: not in this connection, or it was refused */
    la_ms retry_at;          /* the server asked not to be connected to before */
    la_ms button_since;      /* when the button's level last changed */
    bool button_level;
    bool button_down;        /* after debouncing */
    bool loud;               /* the microphone's last frame was suspicious */
};

/* Always listening in the ListenAI dialect at 16 kHz, echo unknown, volume 80; no memory. */
void la_config_defaults(struct la_config *config);

/* Makes a device in the caller's memory; it connects with the first tick.
 * LA_ERR_ARGUMENT: the config or the port lacks something; see their comments.
 * LA_ERR_TOO_LONG: the tools do not fit into a message. */
int la_device_init(struct la_device *device, const struct la_config *config,
                   const struct la_port *port);

/* Polls the microphone and the button, feeds the loudspeaker, and does what is due. */
void la_device_tick(struct la_device *device);

/* The WebSocket is open. */
void la_device_on_ws_open(struct la_device *device);

/* A piece of a message arrived.  How many of its bytes were taken, or a negative error after
 * which the connection is being closed.  Fewer than `piece->length`: there is no room; offer the
 * rest after the next tick, with `offset` moved on.  Only a Hotpin WAV is ever left over. */
int la_device_on_ws_data(struct la_device *device, const struct la_ws_piece *piece);

/* The WebSocket is closed, or could not be opened.  code: WebSocket close code, 0 if unknown. */
void la_device_on_ws_closed(struct la_device *device, int code);

/* Has the server forget the conversation.  In the ListenAI dialect it closes the connection, and
 * the next one begins a session of a new id, unless the config gives one. */
void la_device_forget(struct la_device *device);

/* 0 to 100; kept in the store.  LA_ERR_ARGUMENT. */
int la_device_set_volume(struct la_device *device, int volume);

/* What the device is doing.  From LA_STATE_IDLE on the server is ready: the moment to confirm a
 * new firmware image. */
enum la_state la_device_state(const struct la_device *device);
bool la_device_ready(const struct la_device *device);

#endif
