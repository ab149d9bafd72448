#include "la_gain.h"

enum { RAMP_STEP = LA_GAIN_UNITY / 128 }; /* 128 samples: 8 ms at 16 kHz */

/* 10^(-0.4 / 20) in Q15: one step of the volume, 0.4 dB. */
enum { STEP_DOWN = 31293 };

static int32_t gain_of(int volume) {
    if (volume == 0) {
        return 0;
    }
    int64_t gain = LA_GAIN_UNITY;
    for (int step = volume; step < 100; step++) {
        gain = (gain * STEP_DOWN) >> 15;
    }
    return (int32_t)gain;
}

void la_gain_init(struct la_gain *gain, int volume) {
    *gain = (struct la_gain){0};
    if (la_gain_set(gain, volume) != LA_OK) {
        gain->target = LA_GAIN_UNITY;
    }
    gain->now = gain->target;
}

int la_gain_set(struct la_gain *gain, int volume) {
    if (volume < 0 || volume > 100) {
        return LA_ERR_ARGUMENT;
    }
    gain->target = gain_of(volume);
    return LA_OK;
}

void la_gain_fade_in(struct la_gain *gain) {
    gain->now = 0;
}

static int32_t nearer(int32_t now, int32_t target) {
    int32_t distance = target - now;
    if (distance > RAMP_STEP) {
        return now + RAMP_STEP;
    }
    return distance < -RAMP_STEP ? now - RAMP_STEP : target;
}

void la_gain_apply(struct la_gain *gain, int16_t *pcm, size_t samples) {
    for (size_t i = 0; i < samples; i++) {
        gain->now = nearer(gain->now, gain->target);
        pcm[i] = (int16_t)((pcm[i] * (int64_t)gain->now) / LA_GAIN_UNITY);
    }
}
