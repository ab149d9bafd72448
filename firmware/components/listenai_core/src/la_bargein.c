#include "la_bargein.h"

enum {
    COUPLING_UNITY = 1 << 16,
    COUPLING_CANCELLED = COUPLING_UNITY / 1000, /* -30 dB: what a canceller leaves at worst */
    COUPLING_RAW = COUPLING_UNITY / 4,          /* -6 dB: a loudspeaker beside its microphone */
    COUPLING_LEAST = COUPLING_UNITY / 30000,    /* -45 dB */
    QUIET = 3300,                               /* -55 dBFS: no echo can be learned from this */
    NOISE_START = 1000,                         /* -60 dBFS */
    NOISE_LEAST = 30
};

uint32_t la_energy(const int16_t *pcm, size_t samples) {
    uint64_t sum = 0;
    for (size_t i = 0; i < samples; i++) {
        sum += (uint64_t)((int32_t)pcm[i] * pcm[i]);
    }
    return samples > 0 ? (uint32_t)(sum / samples) : 0;
}

void la_bargein_init(struct la_bargein *bargein, enum la_echo echo) {
    *bargein = (struct la_bargein){
        .coupling = echo == LA_ECHO_CANCELLED ? COUPLING_CANCELLED : COUPLING_RAW,
        .noise = NOISE_START,
    };
}

static void remember(struct la_bargein *bargein, uint32_t energy) {
    bargein->reference[bargein->next] = energy;
    bargein->next = (bargein->next + 1) % LA_ECHO_BLOCKS;
}

void la_bargein_played(struct la_bargein *bargein, const int16_t *pcm, size_t samples,
                       uint32_t sample_rate) {
    bargein->block_size = sample_rate * LA_MIC_FRAME_SAMPLES / LA_MIC_RATE;
    for (size_t i = 0; i < samples; i++) {
        bargein->block_energy += (uint64_t)((int32_t)pcm[i] * pcm[i]);
        bargein->block_samples++;
        if (bargein->block_samples >= bargein->block_size) {
            remember(bargein, (uint32_t)(bargein->block_energy / bargein->block_samples));
            bargein->block_energy = 0;
            bargein->block_samples = 0;
        }
    }
}

static uint32_t loudest(const struct la_bargein *bargein) {
    uint32_t energy = 0;
    for (int i = 0; i < LA_ECHO_BLOCKS; i++) {
        energy = bargein->reference[i] > energy ? bargein->reference[i] : energy;
    }
    return energy;
}

uint32_t la_bargein_predicted(const struct la_bargein *bargein) {
    return (uint32_t)(((uint64_t)loudest(bargein) * bargein->coupling) >> 16);
}

/* The coupling follows the loudest echoes: up at once, 4 dB a second down between syllables.  A
 * frame that is too loud for echo is likely the user and teaches little: 2 dB a second up, so that
 * a loudspeaker moved nearer to the microphone is learned in the end. */
static void learn_coupling(struct la_bargein *bargein, uint32_t energy, uint32_t reference,
                           bool vote) {
    uint64_t measured = ((uint64_t)energy << 16) / reference;
    uint64_t coupling = bargein->coupling;
    if (vote) {
        coupling += coupling / 128 + 1;
    } else if (measured > coupling) {
        coupling += (measured - coupling) / 4 + 1;
    } else {
        coupling -= (coupling - measured) / 64;
    }
    coupling = coupling > COUPLING_UNITY ? COUPLING_UNITY : coupling;
    bargein->coupling = coupling < COUPLING_LEAST ? COUPLING_LEAST : (uint32_t)coupling;
}

/* The noise floor: quickly down, 1 dB a second up. */
static void learn_noise(struct la_bargein *bargein, uint32_t energy) {
    if (energy < bargein->noise) {
        bargein->noise -= (bargein->noise - energy) / 4;
    } else {
        bargein->noise += bargein->noise / 256 + 1;
    }
    bargein->noise = bargein->noise < NOISE_LEAST ? NOISE_LEAST : bargein->noise;
}

static bool louder(uint32_t energy, uint32_t than, uint32_t margin) {
    return energy > (uint64_t)than * margin;
}

static bool enough(uint32_t votes) {
    int count = 0;
    for (; votes != 0; votes &= votes - 1) {
        count++;
    }
    return count >= LA_VOTES_NEEDED;
}

bool la_bargein_heard(struct la_bargein *bargein, const int16_t *pcm, bool speaking) {
    uint32_t energy = la_energy(pcm, LA_MIC_FRAME_SAMPLES);
    uint32_t reference = loudest(bargein);
    bool vote = energy > LA_LEVEL_MIN && louder(energy, bargein->noise, LA_NOISE_MARGIN) &&
                louder(energy, la_bargein_predicted(bargein), LA_MARGIN);
    if (reference > QUIET) {
        learn_coupling(bargein, energy, reference, vote);
    } else {
        learn_noise(bargein, energy);
    }
    if (!speaking) { /* no sound goes out any more: the reference grows old, frame by frame */
        remember(bargein, 0);
    }
    bargein->votes = ((bargein->votes << 1) | (vote ? 1U : 0U)) & ((1U << LA_VOTES) - 1);
    return enough(bargein->votes);
}
