/* What happened, as JSON. */
#ifndef REPORT_H
#define REPORT_H

#include "la_device.h"
#include "network.h"
#include "options.h"
#include "sound.h"

/* Writes one object; 0, or -1 when the file cannot be written (errno says why). */
int report_write(const struct options *options, const struct la_device *device,
                 const struct sound *sound, struct network *network, int cycles);

#endif
