/* How much audio to gather before playing: little where the network is steady, more where it
 * stalls.
 *
 * Each time playback runs dry the depth grows by half, and more is gathered before it goes on;
 * each LA_JITTER_CALM_MS without that it shrinks by an eighth. */
#ifndef LA_JITTER_H
#define LA_JITTER_H

#include "la_types.h"

enum {
    LA_JITTER_MIN_MS = 40,   /* as much as the hardware holds */
    LA_JITTER_START_MS = 60, /* one message */
    LA_JITTER_MAX_MS = 240,  /* a person takes a longer wait for a fault */
    LA_JITTER_CALM_MS = 10000
};

struct la_jitter {
    uint32_t depth_ms;
    la_ms filling_since; /* when the first sample of the present filling came; LA_NEVER: none */
    la_ms calm_since;
    bool playing;
    uint32_t underruns;  /* times playback ran dry inside of a stream */
    uint32_t max_depth_ms;
};

void la_jitter_init(struct la_jitter *jitter, la_ms now);

/* Whether to play now.  queued_ms: gathered so far.  ended: nothing follows.  What was gathered is
 * played after 2 x depth even if it stays less than the depth. */
bool la_jitter_plays(struct la_jitter *jitter, uint32_t queued_ms, bool ended, la_ms now);

/* Playback ran dry before the stream's end: gather again. */
void la_jitter_ran_dry(struct la_jitter *jitter, la_ms now);

/* The next stream begins, or the last was dropped: gather again, which is nobody's fault. */
void la_jitter_restart(struct la_jitter *jitter);

#endif
