/* What a device without PSRAM holds in static RAM: `size` measures this. */
#include "la_device.h"
#include "la_mailbox.h"

struct la_device footprint_device;
int16_t footprint_playback[LA_PLAYBACK_SAMPLES_MIN];
struct la_mailbox footprint_mailbox;
uint8_t footprint_mail[8192]; /* 0.25 s of audio between the WebSocket's task and the core's */
