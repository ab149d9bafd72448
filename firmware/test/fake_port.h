/* A board in memory: what the core sends is kept, what it asks for is what the test put there. */
#ifndef FAKE_PORT_H
#define FAKE_PORT_H

#include "la_device.h"

enum { FAKE_MESSAGES = 32, FAKE_TEXT = 2048, FAKE_HARDWARE = 640 };

struct fake_port {
    la_ms now;
    /* WebSocket */
    int opened;
    int closed;
    bool full;                 /* nothing more is taken */
    bool refuses_to_open;
    char texts[FAKE_MESSAGES][FAKE_TEXT];
    int text_count;
    int frames;                /* binary messages */
    size_t frame_length;       /* of the last */
    /* microphone: a constant amplitude; one frame for each of `mic_frames` */
    int mic_frames;
    int16_t amplitude;
    /* loudspeaker: `hardware` samples wait; fake_play lets them out */
    int64_t hardware;
    uint64_t played;
    int flushes;
    uint32_t rate;
    int16_t last_sample;
    bool no_rate;              /* set_rate fails */
    bool pressed;
    bool hears_wake_word;
    enum la_state shown;
    char displayed[FAKE_TEXT];
    enum la_text_kind displayed_kind;
    char session_key[LA_ID_SIZE]; /* the store */
    char volume_key[8];
    uint32_t random;
};

struct la_port fake_port(struct fake_port *fake);

/* The loudspeaker plays this many samples, or what it has. */
void fake_play(struct fake_port *fake, int64_t samples);

/* The last text that was sent contains this. */
bool fake_sent(const struct fake_port *fake, const char *part);

/* How many of the texts sent contain this. */
int fake_count(const struct fake_port *fake, const char *part);

#endif
