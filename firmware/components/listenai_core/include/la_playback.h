/* The loudspeaker's side of a conversation: streams, their queue, and a true account of what was
 * played.
 *
 * Audio counts only for the stream that is open; all else is dropped and counted as stale.  A
 * pause silences the hardware at once and plays again later what it had not yet played.  Of each
 * stream, in samples:  received = played + queued + dropped, where `played` leaves out what the
 * hardware (DMA) still holds. */
#ifndef LA_PLAYBACK_H
#define LA_PLAYBACK_H

#include "la_bargein.h"
#include "la_gain.h"
#include "la_jitter.h"
#include "la_port.h"
#include "la_ring.h"
#include "la_types.h"

enum {
    LA_RATE_MIN = 8000, /* Hz */
    LA_RATE_MAX = 48000,
    LA_STREAMS_MAX = 4,        /* begun and not yet played to their end */
    LA_BLOCK_SAMPLES = 160,    /* of one write; a hardware buffer of 10 ms at 16 kHz */
    LA_HARDWARE_MS = 40,       /* no more than this is queued in the hardware */
    LA_HISTORY_SAMPLES = 1920  /* what a pause may play again: LA_HARDWARE_MS at 48 kHz */
};

struct la_stream {
    uint64_t id;
    uint32_t sample_rate; /* Hz */
    uint64_t received;    /* samples */
    uint64_t taken;       /* of these, handed to the hardware, or dropped from the queue */
    bool ended;           /* all of it was received */
};

struct la_playback_stats {
    uint32_t streams;
    uint32_t stale_messages;    /* binary messages outside of an open stream */
    uint64_t stale_samples;
    uint64_t overflow_samples;  /* oldest ones, dropped for newer ones */
    uint32_t bad_counts;        /* streams that ended with another count than announced */
    uint64_t samples_played;
};

struct la_playback {
    const struct la_port *port;
    struct la_bargein *bargein;  /* is told what is played */
    struct la_ring ring;
    struct la_jitter jitter;
    struct la_gain gain;
    struct la_stream streams[LA_STREAMS_MAX]; /* oldest first */
    size_t count;
    struct la_stream last;       /* the one that was played to its end or flushed last */
    bool open;                   /* audio belongs to streams[count - 1] */
    bool paused;
    bool odd;                    /* `half` is the first byte of a sample */
    uint8_t half;
    uint32_t rate;               /* Hz of the hardware; 0: not yet set */
    uint64_t handed;             /* samples that the hardware took */
    uint64_t forgotten;          /* of these, flushed */
    struct la_playback_stats stats;
};

int la_playback_init(struct la_playback *playback, const struct la_port *port,
                     struct la_bargein *bargein, int16_t *memory, size_t samples, int volume,
                     la_ms now);

/* Opens a stream; audio belongs to it from here on.  LA_ERR_ARGUMENT: no such rate. */
int la_playback_start(struct la_playback *playback, uint64_t id, uint64_t sample_rate);

/* Audio of the open stream, as bytes of int16 little-endian, cut anywhere: half a sample waits for
 * its other half.  A full queue drops its oldest samples. */
void la_playback_push(struct la_playback *playback, const uint8_t *data, size_t length);

/* How many bytes there is room for without dropping. */
size_t la_playback_room(const struct la_playback *playback);

/* The open stream is complete.  samples: how many the server sent; another count than ours is
 * counted in bad_counts. */
void la_playback_end(struct la_playback *playback, uint64_t id, uint64_t samples);

/* Silence at once, keeping the queue; and on again. */
void la_playback_pause(struct la_playback *playback);
void la_playback_resume(struct la_playback *playback);

/* Silence at once; forgets this stream's queue, or with flush_all every one's.
 * LA_ERR_NOT_FOUND: it is not known, or over. */
int la_playback_flush(struct la_playback *playback, uint64_t id);
void la_playback_flush_all(struct la_playback *playback);

/* Hands samples to the hardware as it has room for them.  True: a stream is over (`last` says
 * which), played to its end, or flushed because the hardware refuses its rate; call again, another
 * one may be over too. */
bool la_playback_pump(struct la_playback *playback, la_ms now);

/* Samples of a stream that have left the hardware; of one that is over, its last count.
 * false: the stream is not known. */
bool la_playback_played(const struct la_playback *playback, uint64_t id, uint64_t *samples);

/* The stream that is being played or comes next, or NULL. */
const struct la_stream *la_playback_playing(const struct la_playback *playback);

/* Whether this stream may be paused, resumed or flushed: begun, and not over. */
bool la_playback_knows(const struct la_playback *playback, uint64_t id);

/* Whether sound comes out of the hardware now. */
bool la_playback_audible(const struct la_playback *playback);

/* Whether a stream is not yet over. */
bool la_playback_busy(const struct la_playback *playback);

/* Milliseconds of audio that the queue has room for at the present rate. */
uint32_t la_playback_room_ms(const struct la_playback *playback);

#endif
