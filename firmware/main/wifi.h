/* Wi-Fi: joins the network, joins it again, and sleeps when nobody talks. */
#ifndef WIFI_H
#define WIFI_H

#include "la_types.h"

/* Starts the network stack and the driver, not the radio. */
void wifi_open(void);

/* Whether menuconfig names a network. */
bool wifi_configured(void);

/* Joins the network that is configured or was provisioned, and again whenever it is lost, after
 * waits that grow to 30 s. */
void wifi_join(void);

/* Whether there is an address now. */
bool wifi_joined(void);

/* What the radio may do for power. */
enum wifi_rest {
    WIFI_AWAKE, /* someone talks: no power save, which would delay answers by up to a beacon */
    WIFI_NAPS   /* it sleeps between the beacons that announce traffic */
};
void wifi_rest(enum wifi_rest rest);

#endif
