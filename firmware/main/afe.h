/* The audio front end of esp-sr: the microphone without the loudspeaker's echo, and a wake word.
 *
 * Two tasks: one feeds it microphone and reference, the other takes what comes out. */
#ifndef AFE_H
#define AFE_H

#include "la_port.h"

/* Makes the front end and starts its tasks, after microphone and loudspeaker.  Stops the board
 * where memory, or the model of the wake word, is missing. */
void afe_open(void);

extern const struct la_port_mic afe_port;
extern const struct la_port_wake_word afe_wake_word_port;

#endif
