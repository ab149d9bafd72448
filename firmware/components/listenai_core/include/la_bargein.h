/* Does the user speak while we do?  By energy alone: is the microphone louder than our own echo
 * can be?
 *
 * What is played is remembered in blocks; the echo of the last LA_ECHO_BLOCKS may be in the
 * microphone now.  How loud it comes back (the coupling) is learned while we play.  Frames that
 * are louder than echo and noise by a margin are votes; LA_VOTES_NEEDED of the last LA_VOTES
 * frames are a suspicion.  Energies are mean squares of int16 samples; integers only, so that a
 * chip without a floating-point unit can do it. */
#ifndef LA_BARGEIN_H
#define LA_BARGEIN_H

#include "la_types.h"

enum {
    LA_ECHO_BLOCKS = 16,   /* x 16 ms: hardware, room and microphone delay the echo so much */
    LA_VOTES = 4,          /* frames of 16 ms */
    LA_VOTES_NEEDED = 3,   /* 48 ms: a click has fewer */
    LA_MARGIN = 4,         /* 6 dB over the echo */
    LA_NOISE_MARGIN = 8,   /* 9 dB over the noise */
    LA_LEVEL_MIN = 33000   /* -45 dBFS: nobody who speaks to the device is more quiet */
};

struct la_bargein {
    uint32_t reference[LA_ECHO_BLOCKS]; /* energy of what was played, a ring */
    uint32_t next;                      /* the oldest of them */
    uint64_t block_energy;              /* of the block that is being filled */
    uint32_t block_samples;
    uint32_t block_size;                /* samples in 16 ms at the loudspeaker's rate */
    uint32_t coupling;                  /* microphone's energy over the reference's, Q16 */
    uint32_t noise;                     /* energy of the microphone when nobody speaks */
    uint32_t votes;                     /* bits, newest lowest */
};

/* The mean square of some samples. */
uint32_t la_energy(const int16_t *pcm, size_t samples);

/* echo: a hardware that cancels its echo starts with a lower coupling. */
void la_bargein_init(struct la_bargein *bargein, enum la_echo echo);

/* The loudspeaker was given this, at this rate in Hz. */
void la_bargein_played(struct la_bargein *bargein, const int16_t *pcm, size_t samples,
                       uint32_t sample_rate);

/* One frame of the microphone (LA_MIC_FRAME_SAMPLES).  speaking: whether we are audible.
 * True: the user seems to speak. */
bool la_bargein_heard(struct la_bargein *bargein, const int16_t *pcm, bool speaking);

/* The energy that our own echo may have in the microphone now. */
uint32_t la_bargein_predicted(const struct la_bargein *bargein);

#endif
