/* A room: a microphone that hears WAV files, noise and the loudspeaker's echo, and a loudspeaker
 * whose every sample goes into a WAV file, silence where nothing plays.
 *
 * Both run on one sample clock of 16 kHz, which the caller moves on. */
#ifndef SOUND_H
#define SOUND_H

#include <stdbool.h>

#include "wav.h"

#define SOUND_RATE 16000 /* Hz, of the microphone and the loudspeaker */
#define SOUND_PER_MS 16  /* samples */

enum {
    SOUND_HARDWARE_SAMPLES = 640, /* 4 x 160: what the loudspeaker's DMA holds */
    SOUND_ECHO_DELAY_MAX = 8000, /* samples */
    SOUND_UTTERANCES_MAX = 16,
    SOUND_FIR_MAX = 64
};

struct sound_echo {
    int delay_samples;
    double fir[SOUND_FIR_MAX]; /* the room's answer; with the gain in it */
    int taps;                  /* 0: no echo */
};

struct sound_utterance {
    struct wav wav;
    int64_t start;      /* sample of the clock at which it begins; -1: not yet known */
    int64_t loud_at;    /* its first sample above -34 dBFS, as a sample of the clock; -1 before */
    int64_t silent_at;  /* when the loudspeaker, sounding then, fell silent; -1: not (yet) */
    bool over_reply;    /* the loudspeaker sounded when it became loud */
};

struct sound {
    int64_t now;                 /* samples since the start */
    FILE *output;
    struct sound_echo echo;
    double noise;                /* amplitude of white noise, in int16 steps */
    uint32_t noise_state;
    struct sound_utterance utterances[SOUND_UTTERANCES_MAX];
    int utterance_count;
    /* the loudspeaker */
    int16_t hardware[SOUND_HARDWARE_SAMPLES];
    int hardware_used;
    uint64_t played;             /* samples that left the hardware */
    int64_t last_sound;          /* sample of the clock that was last audible; -1: none */
    int16_t history[SOUND_ECHO_DELAY_MAX + SOUND_FIR_MAX]; /* what was played, a ring */
    /* the microphone's queue */
    int16_t mic[4096];
    uint32_t mic_put;
    uint32_t mic_taken;
    uint32_t mic_lost;           /* samples that nobody read in time */
};

/* Plays and hears this many samples more; 0, or -1 when the output cannot be written. */
int sound_advance(struct sound *sound, int64_t until);

int sound_read(struct sound *sound, int16_t *pcm, int samples);
int sound_write(struct sound *sound, const int16_t *pcm, int samples);
void sound_flush(struct sound *sound);

#endif
