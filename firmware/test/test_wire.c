/* Reassembly, mailbox, backoff, the state machine's table, and Hotpin's WAV. */
#include <string.h>

#include "cmocka_all.h"
#include "la_backoff.h"
#include "la_fsm.h"
#include "la_hotpin.h"
#include "la_mailbox.h"
#include "la_reassembly.h"

/* --- reassembly --------------------------------------------------------------------------- */

static struct la_ws_piece piece(int opcode, bool fin, size_t offset, size_t length,
                                size_t frame_length) {
    static const uint8_t DATA[64];
    return (struct la_ws_piece){opcode, fin, DATA, length, offset, frame_length};
}

/* What a piece is, having been taken whole; -1 where it is refused. */
static int put(struct la_reassembly *reassembly, struct la_ws_piece one) {
    struct la_ws_part part;
    if (la_reassembly_check(reassembly, &one, &part) != LA_OK) {
        return -1;
    }
    la_reassembly_take(reassembly, &one, one.length);
    return part.opcode * 100 + (part.first ? 10 : 0) + (part.last ? 1 : 0);
}

static void pieces_of_frames_of_messages_belong_together(void **state) {
    (void)state;
    struct la_reassembly r;
    la_reassembly_init(&r);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 0, 5, 5)), 111);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, false, 0, 2, 5)), 110);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, false, 2, 3, 5)), 100);
    assert_int_equal(put(&r, piece(LA_OPCODE_CONTINUATION, false, 0, 4, 4)), 100);
    assert_int_equal(put(&r, piece(LA_OPCODE_CONTINUATION, true, 0, 1, 2)), 100);
    assert_int_equal(put(&r, piece(LA_OPCODE_CONTINUATION, true, 1, 1, 2)), 101);
    assert_int_equal(put(&r, piece(LA_OPCODE_BINARY, true, 0, 0, 0)), 211);
    assert_int_equal(put(&r, piece(LA_OPCODE_BINARY, false, 0, 0, 0)), 210);
    assert_int_equal(put(&r, piece(LA_OPCODE_CONTINUATION, true, 0, 0, 0)), 201);
}

static void pieces_that_do_not_fit_are_refused(void **state) {
    (void)state;
    struct la_reassembly r;
    la_reassembly_init(&r);
    assert_int_equal(put(&r, piece(LA_OPCODE_CONTINUATION, true, 0, 1, 1)), -1);
    assert_int_equal(put(&r, piece(9, true, 0, 1, 1)), -1);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 1, 1, 2)), -1); /* its begin is missing */
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 0, 3, 2)), -1); /* longer than its frame */
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 0, 1, 4)), 110);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 2, 1, 4)), -1); /* a gap */
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 0, 1, 4)), -1); /* again */
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 1, 1, 5)), -1); /* of another length */
    assert_int_equal(put(&r, piece(LA_OPCODE_BINARY, true, 1, 1, 4)), -1);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 1, SIZE_MAX, 4)), -1); /* overflow */
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 1, 3, 4)), 101); /* as if nothing was */
    assert_int_equal(put(&r, piece(LA_OPCODE_BINARY, false, 0, 1, 1)), 210);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 0, 1, 1)), -1); /* inside of another */
}

static void a_piece_may_be_taken_in_parts(void **state) {
    (void)state;
    struct la_reassembly r;
    struct la_ws_part part;
    la_reassembly_init(&r);
    struct la_ws_piece one = piece(LA_OPCODE_BINARY, true, 0, 8, 8);
    la_reassembly_take(&r, &one, 0); /* no room at all: nothing has begun */
    assert_int_equal(la_reassembly_check(&r, &one, &part), LA_OK);
    assert_true(part.first);
    la_reassembly_take(&r, &one, 5);
    struct la_ws_piece rest = piece(LA_OPCODE_BINARY, true, 5, 3, 8);
    assert_int_equal(la_reassembly_check(&r, &rest, &part), LA_OK);
    assert_true(!part.first && part.last);
    la_reassembly_take(&r, &rest, 3);
    assert_int_equal(put(&r, piece(LA_OPCODE_TEXT, true, 0, 1, 1)), 111);
}

/* --- mailbox ------------------------------------------------------------------------------ */

static void mailbox_keeps_order_and_bounds(void **state) {
    (void)state;
    uint8_t memory[256];
    uint8_t data[300] = {0};
    struct la_mailbox box;
    struct la_mail mail = {.kind = 1, .length = sizeof data};
    assert_int_equal(la_mailbox_init(&box, memory, 200), LA_ERR_ARGUMENT);
    assert_int_equal(la_mailbox_init(&box, memory, 256), LA_OK);
    assert_int_equal(la_mailbox_put(&box, &mail, data), LA_ERR_TOO_LONG);
    uint32_t put = 0;
    uint32_t taken = 0;
    for (int round = 0; round < 200; round++) {
        mail.length = put % 90;
        mail.number = put;
        memset(data, (int)(put & 0xFF), mail.length);
        while (la_mailbox_put(&box, &mail, data) == LA_OK) {
            put++;
            mail.length = put % 90;
            mail.number = put;
            memset(data, (int)(put & 0xFF), mail.length);
        }
        assert_false(la_mailbox_has_room(&box, mail.length));
        struct la_mail got;
        assert_true(la_mailbox_peek(&box, &got));
        assert_int_equal(got.number, taken);
        assert_int_equal(got.length, taken % 90);
        uint8_t copy[90] = {0};
        assert_int_equal(la_mailbox_copy(&box, 0, copy, sizeof copy), got.length);
        for (uint32_t i = 0; i < got.length; i++) {
            assert_int_equal(copy[i], taken & 0xFF);
        }
        assert_int_equal(la_mailbox_copy(&box, got.length, copy, 1), 0);
        la_mailbox_drop(&box);
        taken++;
    }
    while (taken < put) {
        la_mailbox_drop(&box);
        taken++;
    }
    struct la_mail none;
    assert_false(la_mailbox_peek(&box, &none));
    la_mailbox_drop(&box); /* of nothing */
    assert_in_range(atomic_load(&box.high_water), 100, 256);
}

/* --- backoff ------------------------------------------------------------------------------ */

static void backoff_doubles_to_its_longest(void **state) {
    (void)state;
    struct la_backoff backoff;
    la_backoff_init(&backoff);
    uint32_t ceiling = LA_BACKOFF_FIRST_MS;
    for (int i = 0; i < 12; i++) {
        uint32_t wait = la_backoff_next(&backoff, 0x9E3779B9U * (uint32_t)i, 0);
        assert_in_range(wait, ceiling / 2, ceiling);
        ceiling = ceiling * 2 > LA_BACKOFF_LONGEST_MS ? LA_BACKOFF_LONGEST_MS : ceiling * 2;
    }
    assert_int_equal(la_backoff_next(&backoff, 0, 60000), 60000); /* the server knows better */
    la_backoff_reset(&backoff);
    assert_in_range(la_backoff_next(&backoff, 1, 0), 250, 500);
    la_backoff_slow(&backoff);
    assert_in_range(la_backoff_next(&backoff, 1, 0), 15000, 30000);
}

/* --- state machine ------------------------------------------------------------------------ */

struct step {
    enum la_event event;
    enum la_state state;
    uint32_t actions;
};

static void walk(enum la_listen_mode mode, const struct step *steps, size_t count) {
    struct la_fsm fsm;
    la_fsm_init(&fsm, mode, 0);
    for (size_t i = 0; i < count; i++) {
        uint32_t actions = la_fsm_step(&fsm, steps[i].event, (la_ms)i);
        if (fsm.state != steps[i].state || actions != steps[i].actions) {
            fail_msg("step %zu, %s: in %s with actions %x", i, la_event_name(steps[i].event),
                     la_state_name(fsm.state), actions);
        }
    }
}

#define WALK(mode, steps) walk(mode, steps, sizeof(steps) / sizeof *(steps))

static const struct step CONNECT[] = {
    {LA_EVENT_TIMEOUT, LA_STATE_CONNECTING, LA_ACTION_OPEN_WS},
    {LA_EVENT_WS_OPENED, LA_STATE_STARTING, LA_ACTION_START_SESSION},
};

static void a_device_that_always_listens(void **state) {
    (void)state;
    const struct step steps[] = {
        CONNECT[0],
        CONNECT[1],
        {LA_EVENT_READY, LA_STATE_LISTENING, 0},
        {LA_EVENT_HEARING, LA_STATE_HEARING, 0},
        {LA_EVENT_THINKING, LA_STATE_THINKING, 0},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_LISTENING, LA_STATE_SPEAKING, 0}, /* the server's clock is ahead of ours */
        {LA_EVENT_SUSPICION, LA_STATE_SUSPECTED, LA_ACTION_PAUSE | LA_ACTION_REPORT},
        {LA_EVENT_PAUSE, LA_STATE_HELD, 0},
        {LA_EVENT_SUSPICION, LA_STATE_HELD, 0},
        {LA_EVENT_RESUME, LA_STATE_SPEAKING, LA_ACTION_RESUME},
        {LA_EVENT_SUSPICION, LA_STATE_SUSPECTED, LA_ACTION_PAUSE | LA_ACTION_REPORT},
        {LA_EVENT_TIMEOUT, LA_STATE_SPEAKING, LA_ACTION_RESUME},
        {LA_EVENT_PAUSE, LA_STATE_HELD, LA_ACTION_PAUSE},
        {LA_EVENT_FLUSH, LA_STATE_LISTENING, LA_ACTION_FLUSH},
        {LA_EVENT_FLUSH, LA_STATE_LISTENING, 0},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_BUTTON_DOWN, LA_STATE_LISTENING,
         LA_ACTION_FLUSH | LA_ACTION_REPORT | LA_ACTION_INTERRUPT},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_STREAM_PLAYED, LA_STATE_LISTENING, 0},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_PAUSE, LA_STATE_HELD, LA_ACTION_PAUSE},
        {LA_EVENT_STREAM_PLAYED, LA_STATE_LISTENING, LA_ACTION_RESUME}, /* nothing was left */
        {LA_EVENT_HEARING, LA_STATE_HEARING, 0},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_SUSPICION, LA_STATE_SUSPECTED, LA_ACTION_PAUSE | LA_ACTION_REPORT},
        {LA_EVENT_STREAM_PLAYED, LA_STATE_LISTENING, LA_ACTION_RESUME},
        {LA_EVENT_WS_CLOSED, LA_STATE_DISCONNECTED, LA_ACTION_FLUSH},
        {LA_EVENT_WS_CLOSED, LA_STATE_DISCONNECTED, 0},
    };
    WALK(LA_LISTEN_ALWAYS, steps);
}

static void a_device_with_push_to_talk(void **state) {
    (void)state;
    const struct step steps[] = {
        CONNECT[0],
        CONNECT[1],
        {LA_EVENT_READY, LA_STATE_IDLE, 0},
        {LA_EVENT_BUTTON_DOWN, LA_STATE_HEARING, 0},
        {LA_EVENT_STREAM_STARTED, LA_STATE_HEARING, /* who holds the button has the floor */
         LA_ACTION_FLUSH | LA_ACTION_REPORT | LA_ACTION_INTERRUPT},
        {LA_EVENT_BUTTON_UP, LA_STATE_THINKING, LA_ACTION_END_OF_SPEECH},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_SUSPICION, LA_STATE_SPEAKING, 0}, /* the button says it all */
        {LA_EVENT_PAUSE, LA_STATE_HELD, LA_ACTION_PAUSE},
        {LA_EVENT_STREAM_PLAYED, LA_STATE_IDLE, LA_ACTION_RESUME},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_BUTTON_DOWN, LA_STATE_HEARING,
         LA_ACTION_FLUSH | LA_ACTION_REPORT | LA_ACTION_INTERRUPT},
        {LA_EVENT_BUTTON_UP, LA_STATE_THINKING, LA_ACTION_END_OF_SPEECH},
        {LA_EVENT_FAILED, LA_STATE_IDLE, 0},
        {LA_EVENT_WAKE_WORD, LA_STATE_IDLE, 0},
    };
    WALK(LA_LISTEN_PUSH_TO_TALK, steps);
}

static void a_device_with_a_wake_word(void **state) {
    (void)state;
    const struct step steps[] = {
        CONNECT[0],
        CONNECT[1],
        {LA_EVENT_READY, LA_STATE_IDLE, 0},
        {LA_EVENT_WAKE_WORD, LA_STATE_LISTENING, 0},
        {LA_EVENT_TIMEOUT, LA_STATE_IDLE, 0}, /* nobody said anything */
        {LA_EVENT_BUTTON_DOWN, LA_STATE_LISTENING, 0},
        {LA_EVENT_HEARING, LA_STATE_HEARING, 0},
        {LA_EVENT_THINKING, LA_STATE_THINKING, 0},
        {LA_EVENT_TIMEOUT, LA_STATE_LISTENING, 0},
        {LA_EVENT_STREAM_STARTED, LA_STATE_SPEAKING, 0},
        {LA_EVENT_PAUSE, LA_STATE_HELD, LA_ACTION_PAUSE},
        {LA_EVENT_STREAM_PLAYED, LA_STATE_LISTENING, LA_ACTION_RESUME},
        {LA_EVENT_TIMEOUT, LA_STATE_IDLE, 0},
    };
    WALK(LA_LISTEN_WAKE_WORD, steps);
}

static void states_have_limits_of_time(void **state) {
    (void)state;
    struct la_fsm fsm;
    la_fsm_init(&fsm, LA_LISTEN_ALWAYS, 1000);
    assert_int_equal(fsm.deadline, 1000); /* connects at once */
    la_fsm_step(&fsm, LA_EVENT_TIMEOUT, 1000);
    assert_int_equal(fsm.deadline, 11000);
    assert_int_equal(la_fsm_step(&fsm, LA_EVENT_TIMEOUT, 11000), LA_ACTION_CLOSE_WS);
    la_fsm_wait(&fsm, 12345);
    assert_int_equal(fsm.deadline, 12345);
    la_fsm_step(&fsm, LA_EVENT_TIMEOUT, 12345);
    la_fsm_wait(&fsm, 1); /* not in this state */
    assert_int_equal(fsm.deadline, 22345);
    la_fsm_step(&fsm, LA_EVENT_WS_OPENED, 13000);
    la_fsm_step(&fsm, LA_EVENT_READY, 13000);
    assert_true(fsm.deadline == LA_NEVER);
}

static void the_microphone_is_sent_when_the_mode_says_so(void **state) {
    (void)state;
    static const struct {
        enum la_listen_mode mode;
        enum la_state state;
        bool sends;
    } CASES[] = {
        {LA_LISTEN_ALWAYS, LA_STATE_STARTING, false}, {LA_LISTEN_ALWAYS, LA_STATE_LISTENING, true},
        {LA_LISTEN_ALWAYS, LA_STATE_SPEAKING, true},  {LA_LISTEN_ALWAYS, LA_STATE_HELD, true},
        {LA_LISTEN_PUSH_TO_TALK, LA_STATE_IDLE, false},
        {LA_LISTEN_PUSH_TO_TALK, LA_STATE_HEARING, true},
        {LA_LISTEN_PUSH_TO_TALK, LA_STATE_SPEAKING, false},
        {LA_LISTEN_WAKE_WORD, LA_STATE_IDLE, false},  {LA_LISTEN_WAKE_WORD, LA_STATE_HELD, true},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct la_fsm fsm = {.state = CASES[i].state, .mode = CASES[i].mode};
        assert_int_equal(la_fsm_sends_mic(&fsm), CASES[i].sends);
    }
}

static void no_state_is_a_dead_end(void **state) {
    (void)state;
    for (int mode = 0; mode <= LA_LISTEN_WAKE_WORD; mode++) {
        bool reached[LA_STATE_COUNT] = {[LA_STATE_DISCONNECTED] = true};
        for (int round = 0; round < LA_STATE_COUNT; round++) {
            for (int from = 0; from < LA_STATE_COUNT; from++) {
                for (int event = 0; reached[from] && event < LA_EVENT_COUNT; event++) {
                    struct la_fsm fsm = {.state = (enum la_state)from,
                                         .mode = (enum la_listen_mode)mode};
                    la_fsm_step(&fsm, (enum la_event)event, 0);
                    reached[fsm.state] = true;
                }
            }
        }
        for (int from = 0; from < LA_STATE_COUNT; from++) {
            bool unused = (mode == LA_LISTEN_ALWAYS && from == LA_STATE_IDLE) ||
                          (mode == LA_LISTEN_PUSH_TO_TALK &&
                           (from == LA_STATE_LISTENING || from == LA_STATE_SUSPECTED));
            assert_int_equal(reached[from], !unused);
        }
    }
}

/* --- Hotpin's WAV ------------------------------------------------------------------------- */

static size_t make_wav(uint8_t *wav, uint16_t channels, uint32_t data_bytes) {
    static const uint8_t HEAD[] = "RIFF\0\0\0\0WAVELIST\3\0\0\0abc\0fmt \20\0\0\0\1\0";
    size_t at = sizeof HEAD - 1;
    memcpy(wav, HEAD, at);
    wav[at++] = (uint8_t)channels;
    wav[at++] = 0;
    const uint8_t rest[] = {0x22, 0x56, 0, 0, 0, 0, 0, 0, (uint8_t)(2 * channels), 0, 16, 0};
    memcpy(wav + at, rest, sizeof rest);
    at += sizeof rest;
    memcpy(wav + at, "data", 4);
    at += 4;
    for (int i = 0; i < 4; i++) {
        wav[at++] = (uint8_t)(data_bytes >> (8 * i));
    }
    return at;
}

/* Reads a WAV in pieces; the bytes of audio that came out, or -1. */
static int read_wav(struct la_hotpin *hotpin, const uint8_t *wav, size_t length, size_t size,
                    uint8_t *audio) {
    int total = 0;
    for (size_t at = 0; at < length;) {
        enum la_wav_part part;
        size_t out = 0;
        size_t offered = length - at < size ? length - at : size;
        int taken =
            la_hotpin_wav_feed(hotpin, wav + at, offered, &part, audio + total, 64, &out);
        if (taken < 0) {
            return -1;
        }
        at += (size_t)taken;
        total += (int)out;
    }
    return total;
}

static void wav_is_read_in_any_pieces(void **state) {
    (void)state;
    uint8_t wav[128];
    for (uint16_t channels = 1; channels <= 2; channels++) {
        size_t head = make_wav(wav, channels, 24);
        for (uint8_t i = 0; i < 28; i++) {
            wav[head + i] = i; /* four bytes of a tag behind the sound */
        }
        for (size_t size = 1; size < head + 28; size++) {
            struct la_hotpin hotpin = {0};
            uint8_t audio[128];
            la_hotpin_wav_begin(&hotpin);
            assert_int_equal(read_wav(&hotpin, wav, head + 28, size, audio), 24 / channels);
            assert_int_equal(hotpin.sample_rate, 22050);
            assert_int_equal(audio[2], channels == 1 ? 2 : 4); /* the left one */
        }
    }
}

static void a_wav_without_a_length_goes_on(void **state) {
    (void)state;
    uint8_t wav[128] = {0};
    uint8_t audio[128];
    struct la_hotpin hotpin = {0};
    la_hotpin_wav_begin(&hotpin);
    size_t head = make_wav(wav, 1, UINT32_MAX);
    assert_int_equal(read_wav(&hotpin, wav, head + 40, 7, audio), 40);
    assert_true(hotpin.left == UINT32_MAX);
}

static void what_is_no_wav_is_refused(void **state) {
    (void)state;
    uint8_t wav[128] = {0};
    uint8_t audio[128];
    size_t head = make_wav(wav, 1, 4);
    static const size_t SPOILT[] = {0, 9, 32, 34, 46}; /* RIFF, WAVE, format, channels, bits */
    for (size_t i = 0; i < sizeof SPOILT / sizeof *SPOILT; i++) {
        struct la_hotpin hotpin = {0};
        la_hotpin_wav_begin(&hotpin);
        wav[SPOILT[i]] ^= 0x7F;
        assert_int_equal(read_wav(&hotpin, wav, head, 16, audio), -1);
        wav[SPOILT[i]] ^= 0x7F;
    }
    static const uint8_t EARLY[] = "RIFF\0\0\0\0WAVEdata\4\0\0\0";
    struct la_hotpin hotpin = {0};
    assert_int_equal(read_wav(&hotpin, EARLY, sizeof EARLY - 1, 64, audio), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_frames_of_messages_belong_together),
        cmocka_unit_test(pieces_that_do_not_fit_are_refused),
        cmocka_unit_test(a_piece_may_be_taken_in_parts),
        cmocka_unit_test(mailbox_keeps_order_and_bounds),
        cmocka_unit_test(backoff_doubles_to_its_longest),
        cmocka_unit_test(a_device_that_always_listens),
        cmocka_unit_test(a_device_with_push_to_talk),
        cmocka_unit_test(a_device_with_a_wake_word),
        cmocka_unit_test(states_have_limits_of_time),
        cmocka_unit_test(the_microphone_is_sent_when_the_mode_says_so),
        cmocka_unit_test(no_state_is_a_dead_end),
        cmocka_unit_test(wav_is_read_in_any_pieces),
        cmocka_unit_test(a_wav_without_a_length_goes_on),
        cmocka_unit_test(what_is_no_wav_is_refused),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
