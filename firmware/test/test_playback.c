/* Streams on a loudspeaker: what is played, paused, flushed, and how truthfully that is told. */
#include <string.h>

#include "cmocka_all.h"
#include "fake_port.h"
#include "la_playback.h"

enum { MS = 16, MEMORY = LA_PLAYBACK_SAMPLES_MIN };

struct room {
    struct fake_port fake;
    struct la_port port;
    struct la_bargein bargein;
    struct la_playback playback;
    int16_t memory[MEMORY];
};

static int setup(void **state) {
    struct room *room = test_calloc(1, sizeof *room);
    room->port = fake_port(&room->fake);
    la_bargein_init(&room->bargein, LA_ECHO_UNKNOWN);
    *state = room;
    return la_playback_init(&room->playback, &room->port, &room->bargein, room->memory, MEMORY,
                            100, 0);
}

static int teardown(void **state) {
    test_free(*state);
    return 0;
}

/* Pushes samples that count from `first` on: each tells where it was in its stream. */
static void push(struct room *room, int first, int samples) {
    uint8_t bytes[2 * 4000];
    for (int i = 0; i < samples; i++) {
        bytes[2 * i] = (uint8_t)((first + i) & 0xFF);
        bytes[2 * i + 1] = (uint8_t)((first + i) >> 8 & 0xFF);
    }
    la_playback_push(&room->playback, bytes, (size_t)samples * 2);
}

/* Time passes in ticks of 10 ms; how many streams came to their end. */
static int run(struct room *room, int ms) {
    int ended = 0;
    for (int at = 0; at < ms; at += 10) {
        fake_play(&room->fake, 10 * MS);
        room->fake.now += 10;
        while (la_playback_pump(&room->playback, room->fake.now)) {
            ended++;
        }
    }
    return ended;
}

static uint64_t played(const struct room *room, uint64_t id) {
    uint64_t samples = UINT64_MAX;
    assert_true(la_playback_played(&room->playback, id, &samples));
    return samples;
}

static void a_stream_is_played_to_its_end(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 1600);
    assert_int_equal(run(room, 10), 0);
    assert_int_equal(played(room, 1), 0); /* it is in the hardware, not yet in the air */
    assert_int_equal(run(room, 50), 0);
    assert_int_equal(played(room, 1), 800);
    la_playback_end(&room->playback, 1, 1600);
    assert_int_equal(run(room, 100), 1);
    assert_int_equal(played(room, 1), 1600); /* it is still known */
    assert_false(la_playback_busy(&room->playback));
    assert_int_equal(room->playback.stats.bad_counts, 0);
    assert_int_equal(room->playback.jitter.underruns, 0);
}

static void samples_may_be_cut_in_two(void **state) {
    struct room *room = *state;
    const uint8_t bytes[] = {1, 0, 2, 0, 3};
    la_playback_start(&room->playback, 1, 16000);
    la_playback_push(&room->playback, bytes, 3);
    la_playback_push(&room->playback, bytes + 3, 2);
    assert_int_equal(room->playback.streams[0].received, 2);
    la_playback_end(&room->playback, 1, 2); /* the fifth byte was half of nothing */
    assert_int_equal(room->playback.stats.bad_counts, 0);
    la_playback_start(&room->playback, 2, 16000);
    la_playback_push(&room->playback, bytes, 2);
    assert_int_equal(room->playback.streams[1].received, 1);
    assert_int_equal(room->memory[2], 1);
}

static void audio_outside_of_a_stream_is_stale(void **state) {
    struct room *room = *state;
    push(room, 0, 10);
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 1600);
    assert_int_equal(la_playback_flush(&room->playback, 1), LA_OK);
    push(room, 0, 20);
    la_playback_start(&room->playback, 2, 16000);
    la_playback_end(&room->playback, 2, 0);
    push(room, 0, 30);
    assert_int_equal(room->playback.stats.stale_messages, 3);
    assert_int_equal(room->playback.stats.stale_samples, 60);
    assert_int_equal(la_ring_queued(&room->playback.ring), 0);
    assert_int_equal(run(room, 10), 1); /* an empty stream is over at once */
}

static void a_pause_is_silent_at_once_and_loses_nothing(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 3200);
    run(room, 110);
    assert_int_equal(played(room, 1), 1600);
    assert_true(la_playback_audible(&room->playback));
    la_playback_pause(&room->playback);
    assert_int_equal(room->fake.hardware, 0);
    assert_false(la_playback_audible(&room->playback));
    assert_int_equal(played(room, 1), 1600);
    run(room, 500);
    assert_int_equal(played(room, 1), 1600);
    la_playback_resume(&room->playback);
    run(room, 10);
    assert_int_equal(room->playback.streams[0].taken, 1600 + 640);
    la_playback_end(&room->playback, 1, 3200);
    assert_int_equal(run(room, 200), 1);
    assert_int_equal(played(room, 1), 3200);
    assert_int_equal(room->fake.played, 3200); /* each sample once */
}

static void a_flush_tells_what_was_played(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 3200);
    run(room, 60);
    assert_int_equal(la_playback_flush(&room->playback, 1), LA_OK);
    assert_int_equal(room->fake.hardware, 0);
    assert_int_equal(played(room, 1), 800);
    assert_int_equal(la_playback_flush(&room->playback, 1), LA_ERR_NOT_FOUND);
    run(room, 100);
    assert_int_equal(played(room, 1), 800);
    uint64_t samples = 0;
    assert_false(la_playback_played(&room->playback, 9, &samples));
    la_playback_start(&room->playback, 2, 16000); /* what follows is not mixed up with it */
    push(room, 0, 1600);
    run(room, 60);
    assert_int_equal(played(room, 2), 800);
}

static void running_dry_is_counted_once_and_waits_longer(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 1600);
    run(room, 400);
    assert_int_equal(room->playback.jitter.underruns, 1);
    uint32_t depth = room->playback.jitter.depth_ms;
    assert_true(depth > LA_JITTER_START_MS);
    push(room, 1600, (int)(depth - 1) * MS);
    run(room, 10);
    assert_int_equal(room->fake.hardware, 0); /* it gathers again */
    push(room, 0, MS);
    run(room, 10);
    assert_true(room->fake.hardware > 0);
}

static void an_overfull_queue_drops_its_oldest(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    la_playback_pause(&room->playback);
    for (int i = 0; i < 6; i++) {
        push(room, 4000 * i, 4000);
    }
    size_t room_for = MEMORY - LA_HISTORY_SAMPLES;
    assert_int_equal(room->playback.stats.overflow_samples, 24000 - room_for);
    assert_int_equal(la_ring_queued(&room->playback.ring), room_for);
    int16_t oldest = 0;
    la_ring_peek(&room->playback.ring, &oldest, 1);
    assert_int_equal(oldest, (int16_t)(24000 - room_for));
    assert_int_equal(played(room, 1), 24000 - room_for); /* they are past, though unheard */
}

static void streams_follow_each_other(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 800);
    la_playback_start(&room->playback, 2, 16000); /* without an end of the first */
    push(room, 0, 800);
    run(room, 70);
    assert_int_equal(played(room, 1), 800);
    assert_int_equal(played(room, 2), 160);
    la_playback_pause(&room->playback); /* the pending samples are the second one's */
    assert_int_equal(played(room, 2), 160);
    la_playback_resume(&room->playback);
    la_playback_end(&room->playback, 2, 800);
    assert_int_equal(run(room, 60), 1);
    assert_int_equal(room->fake.played, 1600);
}

static void flush_one_of_two(struct room *room, uint64_t flushed) {
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 1600);
    la_playback_end(&room->playback, 1, 1600);
    la_playback_start(&room->playback, 2, 16000);
    push(room, 5000, 1600);
    run(room, 60);
    assert_int_equal(la_playback_flush(&room->playback, flushed), LA_OK);
    assert_int_equal(played(room, flushed), flushed == 1 ? 800 : 0);
    assert_true(la_playback_knows(&room->playback, 3 - flushed));
    int16_t next = 0;
    la_ring_peek(&room->playback.ring, &next, 1);
    assert_int_equal(next, flushed == 1 ? 5000 : 800);
    la_playback_end(&room->playback, 2, 1600);
    assert_int_equal(run(room, 200), 1);
    assert_int_equal(room->fake.played, flushed == 1 ? 800 + 1600 : 1600);
}

static void the_first_of_two_streams_is_flushed(void **state) {
    flush_one_of_two(*state, 1);
}

static void the_second_of_two_streams_is_flushed(void **state) {
    flush_one_of_two(*state, 2);
}

static void another_rate_waits_for_silence(void **state) {
    struct room *room = *state;
    la_playback_start(&room->playback, 1, 16000);
    push(room, 0, 1600);
    la_playback_end(&room->playback, 1, 1600);
    la_playback_start(&room->playback, 2, 24000);
    push(room, 0, 2400);
    run(room, 80);
    assert_int_equal(room->fake.rate, 16000);
    run(room, 60);
    assert_int_equal(room->fake.rate, 24000);
    room->fake.no_rate = true;
    la_playback_start(&room->playback, 3, 22050);
    push(room, 0, 2400);
    assert_int_equal(run(room, 400), 2); /* the second, and the third: this hardware cannot */
    assert_false(la_playback_knows(&room->playback, 3));
    assert_int_equal(room->playback.last.id, 3);
    assert_int_equal(played(room, 3), 0);
    assert_int_equal(la_playback_start(&room->playback, 4, 0), LA_ERR_ARGUMENT);
    assert_int_equal(la_playback_start(&room->playback, 4, 1U << 31), LA_ERR_ARGUMENT);
}

static void a_fifth_stream_ends_the_first(void **state) {
    struct room *room = *state;
    for (uint64_t id = 1; id <= 5; id++) {
        la_playback_start(&room->playback, id, 16000);
        push(room, 0, 160);
    }
    assert_false(la_playback_knows(&room->playback, 1));
    assert_true(la_playback_knows(&room->playback, 2));
    assert_int_equal(la_ring_queued(&room->playback.ring), 4 * 160);
    assert_int_equal(la_playback_flush(&room->playback, 3), LA_OK); /* and what lies before it */
    assert_int_equal(room->playback.count, 2);
    assert_int_equal(la_ring_queued(&room->playback.ring), 2 * 160);
    la_playback_flush_all(&room->playback);
    assert_int_equal(la_ring_queued(&room->playback.ring), 0);
}

/* Whatever happens, in whatever order: the account of each stream is right. */
static void the_account_is_always_true(void **state) {
    struct room *room = *state;
    uint32_t chance = 1;
    uint64_t id = 0;
    uint64_t before = 0;
    for (int step = 0; step < 20000; step++) {
        chance = chance * 1664525U + 1013904223U;
        uint32_t what = chance >> 28;
        int amount = (int)(chance >> 16 & 0x3FF);
        if (what < 5) {
            push(room, 0, amount);
        } else if (what < 11) {
            run(room, 10);
        } else if (what == 11) {
            la_playback_start(&room->playback, ++id, 16000);
            before = 0;
        } else if (what == 12) {
            la_playback_end(&room->playback, id, 0);
        } else if (what == 13) {
            la_playback_pause(&room->playback);
        } else if (what == 14) {
            la_playback_resume(&room->playback);
        } else {
            (void)la_playback_flush(&room->playback, id - (chance >> 20 & 1));
        }
        uint64_t queued = 0;
        for (size_t i = 0; i < room->playback.count; i++) {
            const struct la_stream *stream = &room->playback.streams[i];
            assert_true(stream->taken <= stream->received);
            queued += stream->received - stream->taken;
        }
        assert_int_equal(queued, la_ring_queued(&room->playback.ring));
        uint64_t now = 0;
        if (la_playback_played(&room->playback, id, &now)) {
            assert_true(now >= before); /* what was played stays played */
            before = now;
        }
    }
    assert_true(id > 500);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_stream_is_played_to_its_end),
        TEST(samples_may_be_cut_in_two),
        TEST(audio_outside_of_a_stream_is_stale),
        TEST(a_pause_is_silent_at_once_and_loses_nothing),
        TEST(a_flush_tells_what_was_played),
        TEST(running_dry_is_counted_once_and_waits_longer),
        TEST(an_overfull_queue_drops_its_oldest),
        TEST(streams_follow_each_other),
        TEST(the_first_of_two_streams_is_flushed),
        TEST(the_second_of_two_streams_is_flushed),
        TEST(another_rate_waits_for_silence),
        TEST(a_fifth_stream_ends_the_first),
        TEST(the_account_is_always_true),
    };
    return cmocka_run_group_tests_name("playback", tests, NULL, NULL);
}
