/* The loudspeaker, a MAX98357A on an I2S bus of its own: 16-bit stereo, both slots alike, four
 * DMA blocks of 160 frames (40 ms at 16 kHz). */
#ifndef SPEAKER_H
#define SPEAKER_H

#include "la_port.h"
#include "microphone.h"

/* Prepares the bus; its clock starts with the first sound.  Stops the board where the driver
 * refuses. */
void speaker_open(void);

/* To be called at every tick: begins to play what does not fill the DMA, plays a last block that
 * is not full, and stops the clock when nothing was played for a second. */
void speaker_tick(la_ms now);

/* For the echo canceller: puts what was played meanwhile into the pairs' reference.  Silence where
 * the two clocks were just started; then always at the same distance. */
void speaker_read_played(struct sound_pair *pairs, int count);

extern const struct la_port_speaker speaker_port;

#endif
