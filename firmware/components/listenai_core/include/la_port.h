/* What the core asks of a board: a struct of function pointers, all called from the task that
 * calls the core, none of which may block longer than its comment says.
 *
 * `context` of the struct is the first argument of every function.  Functions marked optional may
 * be NULL.  Where a function returns int: 0 or a count, or a negative `enum la_error`. */
#ifndef LA_PORT_H
#define LA_PORT_H

#include "la_fsm.h"
#include "la_types.h"

/* The WebSocket.  What happens on it is told with la_device_on_ws_*. */
struct la_port_ws {
    /* Starts connecting and returns; la_device_on_ws_open or _closed follows. */
    int (*open)(void *context);
    /* Queue one whole message, or send it within 100 ms; LA_ERR_FULL: try again later.
     * The text is not terminated by a zero. */
    int (*send_text)(void *context, const char *text, size_t length);
    int (*send_binary)(void *context, const void *data, size_t length);
    /* Closes at once.  Nothing that happened on this connection may be told any more: a late
     * la_device_on_ws_closed would be taken for the next connection's. */
    void (*close)(void *context);
};

struct la_port_mic {
    /* A frame of `samples` samples (16 kHz mono), if there is a whole one: `samples` or 0.
     * Does not wait. */
    int (*read)(void *context, int16_t *pcm, int samples);
};

/* The loudspeaker: a short queue in front of the hardware (DMA), 40 ms long or so. */
struct la_port_speaker {
    /* Sets the rate in Hz of what is written next; only called while the queue is empty.
     * LA_ERR_UNSUPPORTED: the stream is dropped. */
    int (*set_rate)(void *context, uint32_t sample_rate);
    /* Queues up to `samples` samples; how many were taken, maybe 0.  Does not wait. */
    int (*write)(void *context, const int16_t *pcm, int samples);
    /* Silence at once: forgets what is queued.  played_samples then stands still. */
    void (*flush)(void *context);
    /* How many of all samples ever written have left the hardware: never counts what was
     * flushed, nor the silence that is played when the queue is empty. */
    uint64_t (*played_samples)(void *context);
};

struct la_port_clock {
    la_ms (*now_ms)(void *context);
};

struct la_port_led {
    /* Shows what the device does; called at every change.  Optional. */
    void (*show)(void *context, enum la_state state);
};

struct la_port_button {
    /* Whether the button is down; the core debounces.  Optional. */
    bool (*pressed)(void *context);
};

/* Key-value store that survives a restart.  Keys have at most 15 characters, as NVS allows. */
struct la_port_store {
    /* Reads a text; LA_ERR_NOT_FOUND, LA_ERR_TOO_LONG.  Optional. */
    int (*get)(void *context, const char *key, char *value, size_t size);
    /* Writes a text.  Optional. */
    int (*set)(void *context, const char *key, const char *value);
};

struct la_port_random {
    /* 32 random bits. */
    uint32_t (*bits)(void *context);
};

enum la_text_kind {
    LA_TEXT_HEARD_PARTLY, /* what the user said, so far */
    LA_TEXT_HEARD,        /* what the user said */
    LA_TEXT_REPLY_PART,   /* an increment of the reply */
    LA_TEXT_ERROR         /* what went wrong, in words for people */
};

struct la_port_display {
    /* Shows a text (UTF-8); with it the server is told that the device shows text.  Optional. */
    void (*show)(void *context, enum la_text_kind kind, const char *text);
};

struct la_port_wake_word {
    /* Whether this frame of the microphone completes the wake word.  Needed by
     * LA_LISTEN_WAKE_WORD only. */
    bool (*heard)(void *context, const int16_t *pcm, int samples);
};

struct la_port {
    void *context;
    struct la_port_ws ws;
    struct la_port_mic mic;
    struct la_port_speaker speaker;
    struct la_port_clock clock;
    struct la_port_led led;
    struct la_port_button button;
    struct la_port_store store;
    struct la_port_random random;
    struct la_port_display display;
    struct la_port_wake_word wake_word;
};

#endif
