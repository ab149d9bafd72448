/* A bounded queue of samples that remembers a little of what was taken out, so that it can be
 * played again.  One task only. */
#ifndef LA_RING_H
#define LA_RING_H

#include "la_types.h"

struct la_ring {
    int16_t *memory;
    size_t capacity; /* samples, with the history */
    size_t history;  /* samples that stay after they were taken */
    uint64_t written;
    uint64_t taken;
    size_t high_water; /* the most samples that were queued */
};

/* memory: `capacity` samples.  history: less than capacity. */
int la_ring_init(struct la_ring *ring, int16_t *memory, size_t capacity, size_t history);

size_t la_ring_queued(const struct la_ring *ring);
size_t la_ring_room(const struct la_ring *ring);

/* Puts samples in; how many there was room for. */
size_t la_ring_write(struct la_ring *ring, const int16_t *pcm, size_t samples);

/* Copies the oldest samples without taking them; how many there were. */
size_t la_ring_peek(const struct la_ring *ring, int16_t *pcm, size_t samples);

/* Takes the oldest samples out; how many there were. */
size_t la_ring_take(struct la_ring *ring, size_t samples);

/* Puts the samples taken last back in front; how many could be, at most the history. */
size_t la_ring_rewind(struct la_ring *ring, size_t samples);

/* Forgets the newest samples; how many there were. */
size_t la_ring_drop_newest(struct la_ring *ring, size_t samples);

#endif
