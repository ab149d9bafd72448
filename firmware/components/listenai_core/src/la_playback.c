/* The hardware's queue is told apart from ours by three counts: samples handed to it, of these
 * forgotten by a flush, and played.  What is left is pending, and belongs to the samples taken
 * last.  To silence the sound, the hardware is flushed and what was pending is put back. */
#include "la_playback.h"

static void shorten(struct la_playback *playback, size_t index) {
    for (size_t i = index; i + 1 < playback->count; i++) {
        playback->streams[i] = playback->streams[i + 1];
    }
    playback->count--;
}

static uint64_t pending(const struct la_playback *playback) {
    uint64_t played = playback->port->speaker.played_samples(playback->port->context);
    uint64_t gone = played + playback->forgotten;
    return playback->handed > gone ? playback->handed - gone : 0;
}

/* How many of the pending samples are this stream's: the later streams' lie behind them. */
static uint64_t pending_of(const struct la_playback *playback, size_t index) {
    uint64_t left = pending(playback);
    for (size_t i = playback->count; i-- > index + 1;) {
        uint64_t taken = playback->streams[i].taken;
        left -= left < taken ? left : taken;
    }
    uint64_t taken = playback->streams[index].taken;
    return left < taken ? left : taken;
}

static bool find(const struct la_playback *playback, uint64_t id, size_t *index) {
    for (size_t i = 0; i < playback->count; i++) {
        if (playback->streams[i].id == id) {
            *index = i;
            return true;
        }
    }
    return false;
}

/* A stream is over; what was played of it stays known, for a late question. */
static void retire(struct la_playback *playback, size_t index) {
    playback->last = playback->streams[index];
    playback->last.taken -= pending_of(playback, index);
    playback->stats.samples_played += playback->last.taken;
    if (index + 1 == playback->count) {
        playback->open = false;
        playback->odd = false;
    }
    shorten(playback, index);
    if (playback->count == 0) {
        la_jitter_restart(&playback->jitter);
    }
}

static void count_taken(struct la_playback *playback, uint64_t samples) {
    for (size_t i = 0; i < playback->count && samples > 0; i++) {
        struct la_stream *stream = &playback->streams[i];
        uint64_t queued = stream->received - stream->taken;
        uint64_t part = samples < queued ? samples : queued;
        stream->taken += part;
        samples -= part;
    }
}

static void count_rewound(struct la_playback *playback, uint64_t samples) {
    for (size_t i = playback->count; i-- > 0 && samples > 0;) {
        struct la_stream *stream = &playback->streams[i];
        uint64_t part = samples < stream->taken ? samples : stream->taken;
        stream->taken -= part;
        samples -= part;
    }
}

/* The hardware falls silent; what it had not yet played is queued again. */
static void silence(struct la_playback *playback) {
    const struct la_port *port = playback->port;
    port->speaker.flush(port->context);
    uint64_t unplayed = pending(playback);
    playback->forgotten += unplayed;
    count_rewound(playback, la_ring_rewind(&playback->ring, (size_t)unplayed));
}

int la_playback_init(struct la_playback *playback, const struct la_port *port,
                     struct la_bargein *bargein, int16_t *memory, size_t samples, int volume,
                     la_ms now) {
    *playback = (struct la_playback){.port = port, .bargein = bargein};
    la_jitter_init(&playback->jitter, now);
    la_gain_init(&playback->gain, volume);
    playback->handed = port->speaker.played_samples(port->context); /* by whoever came before us */
    return la_ring_init(&playback->ring, memory, samples, LA_HISTORY_SAMPLES);
}

int la_playback_start(struct la_playback *playback, uint64_t id, uint64_t sample_rate) {
    if (sample_rate < LA_RATE_MIN || sample_rate > LA_RATE_MAX) {
        return LA_ERR_ARGUMENT;
    }
    playback->stats.streams++;
    if (playback->count > 0) { /* whatever came before is complete */
        playback->streams[playback->count - 1].ended = true;
    }
    if (playback->count == LA_STREAMS_MAX) {
        (void)la_playback_flush(playback, playback->streams[0].id);
    }
    playback->streams[playback->count++] =
        (struct la_stream){.id = id, .sample_rate = (uint32_t)sample_rate};
    playback->open = true;
    playback->odd = false;
    return LA_OK;
}

static void make_room(struct la_playback *playback, size_t samples) {
    size_t room = la_ring_room(&playback->ring);
    if (room < samples) {
        size_t dropped = la_ring_take(&playback->ring, samples - room);
        playback->stats.overflow_samples += dropped;
        count_taken(playback, dropped);
    }
}

static void write_samples(struct la_playback *playback, const int16_t *pcm, size_t samples) {
    make_room(playback, samples);
    size_t written = la_ring_write(&playback->ring, pcm, samples);
    playback->streams[playback->count - 1].received += written;
}

void la_playback_push(struct la_playback *playback, const uint8_t *data, size_t length) {
    if (!playback->open) {
        playback->stats.stale_messages++;
        playback->stats.stale_samples += length / 2;
        return;
    }
    int16_t block[LA_BLOCK_SAMPLES];
    size_t filled = 0;
    for (size_t i = 0; i < length; i++) {
        if (!playback->odd) {
            playback->half = data[i];
            playback->odd = true;
            continue;
        }
        playback->odd = false;
        block[filled++] = (int16_t)(uint16_t)(playback->half | (unsigned)data[i] << 8);
        if (filled == LA_BLOCK_SAMPLES) {
            write_samples(playback, block, filled);
            filled = 0;
        }
    }
    write_samples(playback, block, filled);
}

size_t la_playback_room(const struct la_playback *playback) {
    return la_ring_room(&playback->ring) * 2;
}

uint32_t la_playback_room_ms(const struct la_playback *playback) {
    uint32_t rate = playback->rate > 0 ? playback->rate : LA_MIC_RATE;
    return (uint32_t)(la_ring_room(&playback->ring) * 1000 / rate);
}

void la_playback_end(struct la_playback *playback, uint64_t id, uint64_t samples) {
    size_t index = 0;
    if (!find(playback, id, &index)) {
        return;
    }
    struct la_stream *stream = &playback->streams[index];
    stream->ended = true;
    playback->stats.bad_counts += stream->received != samples;
    if (index + 1 == playback->count) {
        playback->open = false;
        playback->odd = false;
    }
}

void la_playback_pause(struct la_playback *playback) {
    if (!playback->paused) {
        playback->paused = true;
        silence(playback);
    }
}

void la_playback_resume(struct la_playback *playback) {
    if (playback->paused) {
        playback->paused = false;
        la_gain_fade_in(&playback->gain);
    }
}

static void forget_oldest(struct la_playback *playback) {
    const struct la_stream *stream = &playback->streams[0];
    la_ring_take(&playback->ring, (size_t)(stream->received - stream->taken));
    retire(playback, 0);
}

int la_playback_flush(struct la_playback *playback, uint64_t id) {
    size_t index = 0;
    if (!find(playback, id, &index)) {
        return LA_ERR_NOT_FOUND;
    }
    silence(playback);
    if (index > 0 && index + 1 == playback->count) {
        const struct la_stream *stream = &playback->streams[index];
        la_ring_drop_newest(&playback->ring, (size_t)(stream->received - stream->taken));
        retire(playback, index);
        return LA_OK;
    }
    for (size_t i = 0; i <= index; i++) { /* what lies before it is old news */
        forget_oldest(playback);
    }
    return LA_OK;
}

void la_playback_flush_all(struct la_playback *playback) {
    if (playback->count > 0) {
        silence(playback);
    }
    while (playback->count > 0) {
        forget_oldest(playback);
    }
    playback->paused = false;
}

/* The first stream that has samples to be handed over, or NULL. */
static struct la_stream *next_stream(struct la_playback *playback) {
    for (size_t i = 0; i < playback->count; i++) {
        if (playback->streams[i].taken < playback->streams[i].received) {
            return &playback->streams[i];
        }
    }
    return NULL;
}

/* Sets the hardware's rate, which can only be done between two sounds.  A stream whose rate the
 * hardware refuses is flushed. */
static bool has_rate(struct la_playback *playback, const struct la_stream *stream) {
    if (playback->rate == stream->sample_rate) {
        return true;
    }
    if (pending(playback) > 0) {
        return false;
    }
    const struct la_port *port = playback->port;
    if (port->speaker.set_rate(port->context, stream->sample_rate) < 0) {
        (void)la_playback_flush(playback, stream->id);
        return false;
    }
    playback->rate = stream->sample_rate;
    return true;
}

static size_t least(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t ab = a < b ? a : b;
    return (size_t)(ab < c ? ab : c);
}

static void hand_over(struct la_playback *playback, struct la_stream *stream) {
    const struct la_port *port = playback->port;
    uint64_t limit = (uint64_t)playback->rate * LA_HARDWARE_MS / 1000;
    for (uint64_t held = pending(playback); held < limit && stream->taken < stream->received;) {
        int16_t block[LA_BLOCK_SAMPLES];
        uint64_t queued = stream->received - stream->taken;
        size_t samples = least(LA_BLOCK_SAMPLES, limit - held, queued);
        (void)la_ring_peek(&playback->ring, block, samples);
        la_gain_apply(&playback->gain, block, samples);
        int written = port->speaker.write(port->context, block, (int)samples);
        if (written <= 0) {
            return;
        }
        la_bargein_played(playback->bargein, block, (size_t)written, playback->rate);
        la_ring_take(&playback->ring, (size_t)written);
        stream->taken += (uint64_t)written;
        playback->handed += (uint64_t)written;
        held += (uint64_t)written;
    }
}

bool la_playback_pump(struct la_playback *playback, la_ms now) {
    if (playback->count == 0) {
        return false;
    }
    const struct la_stream *oldest = &playback->streams[0];
    if (oldest->ended && oldest->taken == oldest->received && pending_of(playback, 0) == 0) {
        retire(playback, 0);
        return true;
    }
    if (playback->paused) {
        return false;
    }
    struct la_stream *stream = next_stream(playback);
    if (stream == NULL) {
        const struct la_stream *newest = &playback->streams[playback->count - 1];
        if (playback->jitter.playing && !newest->ended && pending(playback) == 0) {
            la_jitter_ran_dry(&playback->jitter, now);
        }
        return false;
    }
    uint64_t queued_ms = (stream->received - stream->taken) * 1000 / stream->sample_rate;
    size_t before = playback->count;
    if (has_rate(playback, stream) &&
        la_jitter_plays(&playback->jitter, (uint32_t)queued_ms, stream->ended, now)) {
        hand_over(playback, stream);
    }
    return playback->count < before;
}

bool la_playback_played(const struct la_playback *playback, uint64_t id, uint64_t *samples) {
    size_t index = 0;
    if (find(playback, id, &index)) {
        *samples = playback->streams[index].taken - pending_of(playback, index);
        return true;
    }
    if (playback->last.sample_rate > 0 && playback->last.id == id) {
        *samples = playback->last.taken;
        return true;
    }
    return false;
}

const struct la_stream *la_playback_playing(const struct la_playback *playback) {
    return playback->count > 0 ? &playback->streams[0] : NULL;
}

bool la_playback_knows(const struct la_playback *playback, uint64_t id) {
    size_t index = 0;
    return find(playback, id, &index);
}

bool la_playback_audible(const struct la_playback *playback) {
    return !playback->paused && pending(playback) > 0;
}

bool la_playback_busy(const struct la_playback *playback) {
    return playback->count > 0;
}
