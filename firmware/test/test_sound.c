/* Ring, jitter buffer, gain, and the suspicion that the user speaks. */
#include <string.h>

#include "cmocka_all.h"
#include "la_bargein.h"
#include "la_gain.h"
#include "la_jitter.h"
#include "la_ring.h"

/* --- ring --------------------------------------------------------------------------------- */

static void ring_gives_back_what_was_written(void **state) {
    (void)state;
    int16_t memory[16];
    struct la_ring ring;
    assert_int_equal(la_ring_init(&ring, memory, 16, 4), LA_OK);
    int16_t next = 0;
    int16_t expected = 0;
    for (int round = 0; round < 50; round++) { /* the position wraps in every way */
        int16_t in[7];
        for (int i = 0; i < 7; i++) {
            in[i] = next++;
        }
        assert_int_equal(la_ring_write(&ring, in, 7), 7);
        int16_t out[7];
        assert_int_equal(la_ring_peek(&ring, out, 7), 7);
        assert_int_equal(la_ring_take(&ring, 7), 7);
        for (int i = 0; i < 7; i++) {
            assert_int_equal(out[i], expected++);
        }
    }
}

static void ring_is_full_before_it_overwrites_its_history(void **state) {
    (void)state;
    int16_t memory[16];
    int16_t pcm[16] = {0};
    struct la_ring ring;
    la_ring_init(&ring, memory, 16, 4);
    assert_int_equal(la_ring_write(&ring, pcm, 16), 12);
    assert_int_equal(la_ring_room(&ring), 0);
    assert_int_equal(la_ring_take(&ring, 16), 12);
    assert_int_equal(ring.high_water, 12);
}

static void ring_plays_its_history_again(void **state) {
    (void)state;
    int16_t memory[16];
    int16_t pcm[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    int16_t out[4];
    struct la_ring ring;
    la_ring_init(&ring, memory, 16, 4);
    assert_int_equal(la_ring_rewind(&ring, 4), 0); /* nothing was taken yet */
    la_ring_write(&ring, pcm, 10);
    la_ring_take(&ring, 6);
    assert_int_equal(la_ring_rewind(&ring, 9), 4);
    la_ring_peek(&ring, out, 4);
    assert_int_equal(out[0], 2);
    assert_int_equal(la_ring_drop_newest(&ring, 3), 3);
    assert_int_equal(la_ring_queued(&ring), 5);
}

static void ring_refuses_a_history_without_room(void **state) {
    (void)state;
    int16_t memory[4];
    struct la_ring ring;
    assert_int_equal(la_ring_init(&ring, memory, 4, 4), LA_ERR_ARGUMENT);
    assert_int_equal(la_ring_init(&ring, NULL, 4, 1), LA_ERR_ARGUMENT);
}

/* --- jitter ------------------------------------------------------------------------------- */

static void jitter_waits_for_its_depth(void **state) {
    (void)state;
    struct la_jitter jitter;
    la_jitter_init(&jitter, 0);
    assert_false(la_jitter_plays(&jitter, LA_JITTER_START_MS - 1, false, 10));
    assert_true(la_jitter_plays(&jitter, LA_JITTER_START_MS, false, 20));
    assert_true(la_jitter_plays(&jitter, 1, false, 30)); /* and then goes on */
}

static void jitter_does_not_wait_for_what_never_comes(void **state) {
    (void)state;
    struct la_jitter jitter;
    la_jitter_init(&jitter, 0);
    assert_true(la_jitter_plays(&jitter, 1, true, 0)); /* the stream has ended */
    la_jitter_restart(&jitter);
    assert_false(la_jitter_plays(&jitter, 1, false, 100));
    assert_true(la_jitter_plays(&jitter, 1, false, 100 + 2 * LA_JITTER_START_MS));
}

static void jitter_grows_when_it_runs_dry_and_shrinks_in_calm(void **state) {
    (void)state;
    struct la_jitter jitter;
    la_jitter_init(&jitter, 0);
    for (int i = 0; i < 20; i++) {
        la_jitter_ran_dry(&jitter, 0);
    }
    assert_int_equal(jitter.depth_ms, LA_JITTER_MAX_MS);
    assert_int_equal(jitter.underruns, 20);
    assert_false(jitter.playing);
    la_ms now = 0;
    la_jitter_plays(&jitter, 1000, false, now);
    for (int i = 0; i < 100; i++) {
        now += LA_JITTER_CALM_MS;
        la_jitter_plays(&jitter, 1000, false, now);
    }
    assert_int_equal(jitter.depth_ms, LA_JITTER_MIN_MS);
    assert_int_equal(jitter.max_depth_ms, LA_JITTER_MAX_MS);
}

/* --- gain --------------------------------------------------------------------------------- */

static void gain_steps_sound_alike(void **state) {
    (void)state;
    struct la_gain gain;
    la_gain_init(&gain, 100);
    assert_int_equal(gain.target, LA_GAIN_UNITY);
    assert_int_equal(la_gain_set(&gain, 50), LA_OK); /* 50 x 0.4 dB = 20 dB: a tenth */
    assert_in_range(gain.target, LA_GAIN_UNITY / 10 - 40, LA_GAIN_UNITY / 10 + 40);
    assert_int_equal(la_gain_set(&gain, 0), LA_OK);
    assert_int_equal(gain.target, 0);
    assert_int_equal(la_gain_set(&gain, 101), LA_ERR_ARGUMENT);
    assert_int_equal(la_gain_set(&gain, -1), LA_ERR_ARGUMENT);
}

static void gain_fades_without_a_jump(void **state) {
    (void)state;
    struct la_gain gain;
    int16_t pcm[256];
    for (int i = 0; i < 256; i++) {
        pcm[i] = INT16_MIN;
    }
    la_gain_init(&gain, 100);
    la_gain_fade_in(&gain);
    la_gain_apply(&gain, pcm, 256);
    assert_in_range(-pcm[0], 0, 257);
    for (int i = 1; i < 256; i++) {
        assert_in_range(pcm[i - 1] - pcm[i], 0, 257);
    }
    assert_int_equal(pcm[255], INT16_MIN);
}

/* --- barge-in ----------------------------------------------------------------------------- */

static void fill(int16_t *pcm, size_t samples, int amplitude) {
    for (size_t i = 0; i < samples; i++) {
        pcm[i] = (int16_t)(i % 2 != 0 ? -amplitude : amplitude);
    }
}

/* Plays and hears one frame; whether that is suspicious. */
static bool frame(struct la_bargein *bargein, int played, int heard) {
    int16_t pcm[LA_MIC_FRAME_SAMPLES];
    fill(pcm, LA_MIC_FRAME_SAMPLES, played);
    la_bargein_played(bargein, pcm, LA_MIC_FRAME_SAMPLES, LA_MIC_RATE);
    fill(pcm, LA_MIC_FRAME_SAMPLES, heard);
    return la_bargein_heard(bargein, pcm, true);
}

static void energy_is_the_mean_square(void **state) {
    (void)state;
    int16_t pcm[4] = {INT16_MIN, INT16_MIN, INT16_MIN, INT16_MIN};
    assert_int_equal(la_energy(pcm, 4), 1U << 30);
    assert_int_equal(la_energy(pcm, 0), 0);
}

static void own_echo_is_not_suspicious(void **state) {
    (void)state;
    struct la_bargein bargein;
    la_bargein_init(&bargein, LA_ECHO_RAW);
    for (int i = 0; i < 3000; i++) { /* 48 s of syllables, echoed at -12 dB */
        int loud = i / 12 % 2 != 0 ? 8000 : 400;
        assert_false(frame(&bargein, loud, loud / 4));
    }
}

static void speech_over_the_echo_is_suspicious_within_three_frames(void **state) {
    (void)state;
    struct la_bargein bargein;
    la_bargein_init(&bargein, LA_ECHO_RAW);
    for (int i = 0; i < 300; i++) {
        assert_false(frame(&bargein, 4000, 200)); /* the echo is 26 dB down */
    }
    assert_false(frame(&bargein, 4000, 2000));
    assert_false(frame(&bargein, 4000, 2000));
    assert_true(frame(&bargein, 4000, 2000));
}

static void a_click_is_not_suspicious(void **state) {
    (void)state;
    struct la_bargein bargein;
    la_bargein_init(&bargein, LA_ECHO_CANCELLED);
    for (int i = 0; i < 200; i++) {
        assert_false(frame(&bargein, 4000, i % 20 < 2 ? 20000 : 20));
    }
}

static void steady_noise_becomes_the_floor(void **state) {
    (void)state;
    struct la_bargein bargein;
    la_bargein_init(&bargein, LA_ECHO_RAW);
    int16_t pcm[LA_MIC_FRAME_SAMPLES];
    fill(pcm, LA_MIC_FRAME_SAMPLES, 300); /* a fan at -41 dBFS, while nothing plays */
    bool last = true;
    for (int i = 0; i < 2000; i++) {
        last = la_bargein_heard(&bargein, pcm, false);
    }
    assert_false(last);
}

static void a_loudspeaker_moved_nearer_is_learned(void **state) {
    (void)state;
    struct la_bargein bargein;
    la_bargein_init(&bargein, LA_ECHO_CANCELLED);
    bool last = true;
    for (int i = 0; i < 2000; i++) { /* 32 s at -12 dB, where -30 dB was expected */
        last = frame(&bargein, 8000, 2000);
    }
    assert_false(last);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_gives_back_what_was_written),
        cmocka_unit_test(ring_is_full_before_it_overwrites_its_history),
        cmocka_unit_test(ring_plays_its_history_again),
        cmocka_unit_test(ring_refuses_a_history_without_room),
        cmocka_unit_test(jitter_waits_for_its_depth),
        cmocka_unit_test(jitter_does_not_wait_for_what_never_comes),
        cmocka_unit_test(jitter_grows_when_it_runs_dry_and_shrinks_in_calm),
        cmocka_unit_test(gain_steps_sound_alike),
        cmocka_unit_test(gain_fades_without_a_jump),
        cmocka_unit_test(energy_is_the_mean_square),
        cmocka_unit_test(own_echo_is_not_suspicious),
        cmocka_unit_test(speech_over_the_echo_is_suspicious_within_three_frames),
        cmocka_unit_test(a_click_is_not_suspicious),
        cmocka_unit_test(steady_noise_becomes_the_floor),
        cmocka_unit_test(a_loudspeaker_moved_nearer_is_learned),
    };
    return cmocka_run_group_tests_name("sound", tests, NULL, NULL);
}
