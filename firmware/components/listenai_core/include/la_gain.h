/* The volume, and ramps in place of clicks. */
#ifndef LA_GAIN_H
#define LA_GAIN_H

#include "la_types.h"

enum { LA_GAIN_UNITY = 1 << 15 };

struct la_gain {
    int32_t target; /* Q15 */
    int32_t now;    /* Q15 */
};

/* volume: 0 to 100. */
void la_gain_init(struct la_gain *gain, int volume);

/* 0 is silence, 100 unity, between them 0.4 dB a step: steps sound alike.  Reached in 8 ms.
 * LA_ERR_ARGUMENT outside of 0 to 100. */
int la_gain_set(struct la_gain *gain, int volume);

/* Sound begins: from silence to the volume in 8 ms. */
void la_gain_fade_in(struct la_gain *gain);

void la_gain_apply(struct la_gain *gain, int16_t *pcm, size_t samples);

#endif
