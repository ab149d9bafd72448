/* One LED that shows what the device does. */
#ifndef LED_H
#define LED_H

#include "la_port.h"

/* Prepares the pin and the timer; without an LED in the configuration nothing is ever shown. */
void led_open(void);

/* Shows a state: off in idle, on while listening, blinking otherwise; see the table in led.c. */
void led_show(void *context, enum la_state state);

/* Shows that the board waits to be told its network. */
void led_show_provisioning(void);

extern const struct la_port_led led_port;

#endif
