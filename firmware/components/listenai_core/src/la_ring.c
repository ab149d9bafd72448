#include "la_ring.h"

#include <string.h>

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

int la_ring_init(struct la_ring *ring, int16_t *memory, size_t capacity, size_t history) {
    if (memory == NULL || history >= capacity) {
        return LA_ERR_ARGUMENT;
    }
    *ring = (struct la_ring){.memory = memory, .capacity = capacity, .history = history};
    return LA_OK;
}

size_t la_ring_queued(const struct la_ring *ring) {
    return (size_t)(ring->written - ring->taken);
}

size_t la_ring_room(const struct la_ring *ring) {
    size_t queued = la_ring_queued(ring);
    size_t limit = ring->capacity - ring->history;
    return queued < limit ? limit - queued : 0; /* a rewind may put more than the limit back */
}

size_t la_ring_write(struct la_ring *ring, const int16_t *pcm, size_t samples) {
    samples = smaller(samples, la_ring_room(ring));
    size_t at = (size_t)(ring->written % ring->capacity);
    size_t head = smaller(samples, ring->capacity - at);
    memcpy(ring->memory + at, pcm, head * sizeof *pcm);
    memcpy(ring->memory, pcm + head, (samples - head) * sizeof *pcm);
    ring->written += samples;
    if (la_ring_queued(ring) > ring->high_water) {
        ring->high_water = la_ring_queued(ring);
    }
    return samples;
}

size_t la_ring_peek(const struct la_ring *ring, int16_t *pcm, size_t samples) {
    samples = smaller(samples, la_ring_queued(ring));
    size_t at = (size_t)(ring->taken % ring->capacity);
    size_t head = smaller(samples, ring->capacity - at);
    memcpy(pcm, ring->memory + at, head * sizeof *pcm);
    memcpy(pcm + head, ring->memory, (samples - head) * sizeof *pcm);
    return samples;
}

size_t la_ring_take(struct la_ring *ring, size_t samples) {
    samples = smaller(samples, la_ring_queued(ring));
    ring->taken += samples;
    return samples;
}

size_t la_ring_rewind(struct la_ring *ring, size_t samples) {
    size_t kept = ring->capacity - la_ring_queued(ring); /* not yet overwritten */
    samples = smaller(samples, smaller(kept, ring->history));
    if (samples > ring->taken) {
        samples = (size_t)ring->taken;
    }
    ring->taken -= samples;
    return samples;
}

size_t la_ring_drop_newest(struct la_ring *ring, size_t samples) {
    samples = smaller(samples, la_ring_queued(ring));
    ring->written -= samples;
    return samples;
}
