#include "sound.h"

#include <math.h>
#include <string.h>

enum {
    LOUD = 654,             /* -34 dBFS: a person has begun to speak */
    AUDIBLE = 33,           /* -60 dBFS: the loudspeaker is not silent */
    SILENCE = SOUND_RATE / 2 /* so long a pause is an end, not a breath */
};

/* The loudspeaker's next sample; silence where nothing is queued. */
static int16_t play_one(struct sound *sound) {
    if (sound->hardware_used == 0) {
        return 0;
    }
    int16_t sample = sound->hardware[0];
    sound->hardware_used--;
    memmove(sound->hardware, sound->hardware + 1, (size_t)sound->hardware_used * sizeof sample);
    sound->played++;
    return sample;
}

static void note_output(struct sound *sound, int16_t sample) {
    int64_t span = (int64_t)(sizeof sound->history / sizeof *sound->history);
    sound->history[sound->now % span] = sample;
    if (sample > AUDIBLE || sample < -AUDIBLE) {
        sound->last_sound = sound->now;
    }
}

static double echo_now(const struct sound *sound) {
    double sum = 0;
    int64_t span = (int64_t)(sizeof sound->history / sizeof *sound->history);
    for (int tap = 0; tap < sound->echo.taps; tap++) {
        int64_t then = sound->now - sound->echo.delay_samples - tap;
        if (then >= 0) {
            sum += sound->echo.fir[tap] * sound->history[then % span];
        }
    }
    return sum;
}

static double noise_now(struct sound *sound) {
    sound->noise_state = sound->noise_state * 1664525U + 1013904223U;
    return sound->noise * ((double)sound->noise_state / (double)UINT32_MAX * 2 - 1);
}

/* Whether this utterance's speech silenced the loudspeaker, and when. */
static void watch(struct sound *sound, struct sound_utterance *utterance, int16_t sample) {
    if (utterance->loud_at < 0 && (sample > LOUD || sample < -LOUD)) {
        utterance->loud_at = sound->now;
        utterance->over_reply =
            sound->last_sound >= 0 && sound->now - sound->last_sound < SILENCE;
    }
    if (utterance->over_reply && utterance->silent_at < 0 &&
        sound->now - sound->last_sound > SILENCE) {
        int64_t end = sound->last_sound + 1;
        utterance->silent_at = end > utterance->loud_at ? end : utterance->loud_at;
    }
}

static double voices_now(struct sound *sound) {
    double sum = 0;
    for (int i = 0; i < sound->utterance_count; i++) {
        struct sound_utterance *utterance = &sound->utterances[i];
        int64_t at = sound->now - utterance->start;
        if (utterance->start < 0 || at < 0) {
            continue;
        }
        int16_t sample = 0;
        if ((size_t)at < utterance->wav.samples) {
            sample = utterance->wav.pcm[at];
        }
        watch(sound, utterance, sample);
        sum += sample;
    }
    return sum;
}

static void hear(struct sound *sound, double sample) {
    uint32_t size = (uint32_t)(sizeof sound->mic / sizeof *sound->mic);
    double limited = fmax(-32768, fmin(32767, round(sample)));
    if (sound->mic_put - sound->mic_taken == size) {
        sound->mic_taken++;
        sound->mic_lost++;
    }
    sound->mic[sound->mic_put++ % size] = (int16_t)limited;
}

int sound_advance(struct sound *sound, int64_t until) {
    int16_t output[1024];
    size_t count = 0;
    for (; sound->now < until; sound->now++) {
        int16_t sample = play_one(sound);
        note_output(sound, sample);
        hear(sound, voices_now(sound) + echo_now(sound) + noise_now(sound));
        output[count++] = sample;
        if (count == sizeof output / sizeof *output || sound->now + 1 == until) {
            if (sound->output != NULL && wav_append(sound->output, output, count) != 0) {
                return -1;
            }
            count = 0;
        }
    }
    return 0;
}

int sound_read(struct sound *sound, int16_t *pcm, int samples) {
    uint32_t size = (uint32_t)(sizeof sound->mic / sizeof *sound->mic);
    if (sound->mic_put - sound->mic_taken < (uint32_t)samples) {
        return 0;
    }
    for (int i = 0; i < samples; i++) {
        pcm[i] = sound->mic[sound->mic_taken++ % size];
    }
    return samples;
}

int sound_write(struct sound *sound, const int16_t *pcm, int samples) {
    int room = SOUND_HARDWARE_SAMPLES - sound->hardware_used;
    int count = samples < room ? samples : room;
    memcpy(sound->hardware + sound->hardware_used, pcm, (size_t)count * sizeof *pcm);
    sound->hardware_used += count;
    return count;
}

void sound_flush(struct sound *sound) {
    sound->hardware_used = 0;
}
