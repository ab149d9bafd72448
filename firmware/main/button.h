/* The button: pressed to talk, to interrupt, and held to be told another network. */
#ifndef BUTTON_H
#define BUTTON_H

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "la_port.h"

/* Prepares the pin (pull-up, closed to ground).  A press notifies `woken`, also out of light
 * sleep. */
void button_open(TaskHandle_t woken);

/* Whether it is down now; bounces are the caller's business. */
bool button_pressed(void *context);

/* For how long it has been down, in ms; 0 when it is up.  To be called at every tick: it also
 * makes the next press notify again. */
la_ms button_held_ms(la_ms now);

extern const struct la_port_button button_port;

#endif
