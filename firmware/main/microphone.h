/* The microphone, an INMP441 on an I2S bus of its own: 16 kHz mono.
 *
 * Its slots have 32 bits of which the upper 24 are sound. */
#ifndef MICROPHONE_H
#define MICROPHONE_H

#include "la_port.h"

/* Prepares the bus and starts it.  Stops the board where the driver refuses. */
void microphone_open(void);

/* The bus's clock: stopped it needs no power, and holds no lock on light sleep.  The microphone
 * gives silence for a quarter of a second after it was started. */
enum microphone_clock { MICROPHONE_OFF, MICROPHONE_ON };
void microphone_switch(enum microphone_clock to);

/* What an echo canceller compares: the microphone, and what the loudspeaker played. */
struct sound_pair {
    int16_t microphone;
    int16_t reference;
};

/* For the echo canceller, instead of the port: waits for `count` samples; the reference comes from
 * the bus's right slot, or is zero where that is not used.  False: nothing came for a second. */
bool microphone_read_pairs(struct sound_pair *pairs, int count);

extern const struct la_port_mic microphone_port;

#endif
