/* How much of the board is awake, from what the device does. */
#ifndef POWER_H
#define POWER_H

#include "la_port.h"

/* Lets the processor's clock sink, and with LISTENAI_LIGHT_SLEEP the processor sleep, whenever no
 * driver needs more. */
void power_open(void);

/* The state changed. */
void power_follow(enum la_state state, la_ms now);

/* How long the device's task may wait for something to happen, in ms: a tick, or longer when
 * nothing was heard or said for a while.  To be called at every tick with the button up: while it
 * is down, nothing interrupts the wait. */
la_ms power_wait(la_ms now);

#endif
