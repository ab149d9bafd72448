/* How long to wait before connecting again: doubling, with chance, so that a thousand devices do
 * not come back in one moment. */
#ifndef LA_BACKOFF_H
#define LA_BACKOFF_H

#include "la_types.h"

enum {
    LA_BACKOFF_FIRST_MS = 500,
    LA_BACKOFF_LONGEST_MS = 30000,
    LA_BACKOFF_STABLE_MS = 10000 /* a session that lived so long was good: begin anew */
};

struct la_backoff {
    uint32_t ceiling_ms;
};

void la_backoff_init(struct la_backoff *backoff);

/* The next wait in ms: between half the ceiling and the ceiling, which then doubles.
 * at_least_ms: asked for by the server. */
uint32_t la_backoff_next(struct la_backoff *backoff, uint32_t random_bits, uint32_t at_least_ms);

/* The last session was good. */
void la_backoff_reset(struct la_backoff *backoff);

/* No hurry: refused for a reason that will not go away by itself. */
void la_backoff_slow(struct la_backoff *backoff);

#endif
