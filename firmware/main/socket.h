/* The WebSocket: esp_websocket_client behind two mailboxes, so that neither the device's task nor
 * the client's ever waits for the other.
 *
 *     device task --- outgoing ---> sender task ---> client ---> network
 *     device task <-- incoming ---- client's task <------------- network
 *
 * A connection has a number; what belongs to an older one is dropped on either side. */
#ifndef SOCKET_H
#define SOCKET_H

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "la_device.h"

/* Starts the sender task.  uri: ws:// or wss://, copied.  api_key: sent as a bearer token, copied;
 * empty: none.  What arrives notifies `woken`. */
void socket_prepare(const char *uri, const char *api_key, TaskHandle_t woken);

/* Tells the device what happened on its socket, in its own task, until nothing is left or the
 * device has no more room. */
void socket_deliver(struct la_device *device);

extern const struct la_port_ws socket_port;

#endif
