/* The WebSocket in a thread of its own, and the faults of a bad network.
 *
 * The two threads share two mailboxes and nothing else: commands and messages to send one way,
 * what happened the other way.  A delayed message waits in its mailbox; in a stall nothing leaves
 * either of them. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "la_device.h"

struct network_faults {
    int delay_ms;       /* of each message, both ways */
    int stall_every_ms; /* 0: never */
    int stall_ms;       /* how long each stall lasts */
};

struct network_url {
    char host[128];
    char path[256];
    int port;
};

struct network;

/* NULL, or what is wrong with the URL, in words. */
const char *network_parse_url(const char *text, struct network_url *url);

/* Starts the thread; NULL when it cannot.  key: the API key, or NULL. */
struct network *network_start(const struct network_url *url, const char *key,
                              struct network_faults faults);

/* Closes the connection, waiting 0.5 s at most for the server to agree, and ends the thread. */
void network_stop(struct network *network);

/* The port's functions; of the core's thread. */
int network_open(struct network *network);
int network_send(struct network *network, int opcode, const void *data, size_t length);
void network_close(struct network *network);

/* Cuts the connection as a broken cable would: no close frame. */
void network_cut(struct network *network);

/* Tells the device what has arrived by now, in pieces of at most piece_bytes. */
void network_deliver(struct network *network, struct la_device *device, size_t piece_bytes);

/* The most bytes that waited in either mailbox. */
uint32_t network_inbound_high_water(struct network *network);
uint32_t network_outbound_high_water(struct network *network);

/* Milliseconds of the monotonic clock. */
la_ms network_now(void);

#endif
