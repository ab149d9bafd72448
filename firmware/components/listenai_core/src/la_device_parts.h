/* Private to the device: what its halves, the tick and the messages, share. */
#ifndef LA_DEVICE_PARTS_H
#define LA_DEVICE_PARTS_H

#include "la_device.h"

la_ms la_device_now(const struct la_device *device);

/* Tells the state machine an event, and does what it says. */
void la_device_step(struct la_device *device, enum la_event event);

/* Sends what was written into send_buffer; length: its writer's result. */
void la_device_send(struct la_device *device, int length);

/* Tells the server what was played of a stream, if the stream is known. */
void la_device_report(struct la_device *device, uint64_t stream_id);

/* Says who we are, in the words of the dialect. */
void la_device_start_session(struct la_device *device);

/* A session id that no other device has; kept in the store, as the volume is. */
void la_device_new_session_id(struct la_device *device);
void la_device_keep_volume(struct la_device *device);

/* Does what a whole text message says. */
void la_device_handle_listenai(struct la_device *device);
void la_device_handle_hotpin(struct la_device *device);

/* Takes a piece of a WAV; how many bytes there was room for, or a negative error. */
int la_device_take_wav(struct la_device *device, const uint8_t *data, size_t length);

#endif
