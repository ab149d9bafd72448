/* Updates over the air: two images, of which a new one must prove itself.
 *
 * The boot loader starts a new image on trial.  It is confirmed when the server is ready, and
 * given up for the one before when that takes too long, or when it crashes first. */
#ifndef OTA_H
#define OTA_H

#include "la_tools.h"

/* Looks whether this image is on trial. */
void ota_open(la_ms now);

/* To be called at every tick.  ready: the server has the session.  idle: nobody talks; the moment
 * to start a new image. */
void ota_tick(bool ready, bool idle, la_ms now);

/* The tool with which the server starts an update; the address is the configuration's. */
extern const struct la_tool ota_tool;

#endif
