/* A bounded queue of messages from one task to another, without a lock: one task puts, one takes.
 *
 * WebSocket handlers must only enqueue; this is where.  A message is a kind, a number and bytes.
 * It uses C11 atomics and nothing of an operating system; waking the other side is the caller's
 * business. */
#ifndef LA_MAILBOX_H
#define LA_MAILBOX_H

#include <stdatomic.h>

#include "la_types.h"

struct la_mail {
    uint16_t kind;
    uint16_t flags;
    uint32_t number; /* whatever the two sides agree about */
    uint32_t total;  /* the same */
    uint32_t length; /* of the bytes that follow */
};

struct la_mailbox {
    uint8_t *memory;
    uint32_t size; /* bytes, a power of two */
    atomic_uint_least32_t put; /* positions that only rise, modulo 2^32 */
    atomic_uint_least32_t taken;
    atomic_uint_least32_t high_water;
};

/* size: a power of two of at least 256. */
int la_mailbox_init(struct la_mailbox *mailbox, uint8_t *memory, uint32_t size);

/* LA_ERR_FULL: no room now.  LA_ERR_TOO_LONG: there never will be. */
int la_mailbox_put(struct la_mailbox *mailbox, const struct la_mail *mail, const void *data);

/* The oldest message's head; false when there is none. */
bool la_mailbox_peek(struct la_mailbox *mailbox, struct la_mail *mail);

/* Copies bytes of the oldest message from an offset; how many, at most `size`. */
uint32_t la_mailbox_copy(struct la_mailbox *mailbox, uint32_t offset, void *data, uint32_t size);

/* Removes the oldest message. */
void la_mailbox_drop(struct la_mailbox *mailbox);

/* Whether a message of this length would find room. */
bool la_mailbox_has_room(struct la_mailbox *mailbox, uint32_t length);

#endif
