/* main/speaker.c and main/ledger.c on a simulated I2S driver and DMA.
 *
 * Every sample that is written has a number, silence is zero; so the line out shows what was
 * played, in which order, and played_samples can be compared with it at every step. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "glue_dma.h"
#include "ledger.h"
#include "speaker.h"

enum { BLOCKS = LEDGER_BLOCKS, FRAMES = LEDGER_BLOCK_FRAMES, TICK_FRAMES = 160, RUNS = 300 };

/* --- the line out ---------------------------------------------------------------------------- */

static long heard;     /* samples that are not silence */
static int last_heard; /* the number of the last one */
static int least;      /* numbers below it were flushed */
static long silent;    /* frames of silence since reset */

_Noreturn void fail(const char *what) {
    fprintf(stderr, "glue_speaker: %s (heard %ld, last %d)\n", what, heard, last_heard);
    abort();
}

void dma_line_out(struct dma_frame out) {
    if (out.left != out.right) {
        fail("the slots differ");
    }
    if (out.left == 0) {
        silent++;
        return;
    }
    heard++;
    if (out.left < least) {
        fail("flushed sound was played");
    }
    if (out.left != last_heard + 1 && last_heard + 1 >= least) {
        fail("a sample is missing or was played twice");
    }
    last_heard = out.left;
}

/* --- the tests ------------------------------------------------------------------------------- */

static la_ms now;
static int next_number; /* of the next sample to be written */

static long told(void) {
    return (long)speaker_port.played_samples(NULL);
}

static int write(int samples) {
    static int16_t pcm[4096];
    for (int i = 0; i < samples; i++) {
        pcm[i] = (int16_t)(next_number + i);
    }
    int taken = speaker_port.write(NULL, pcm, samples);
    next_number += taken;
    return taken;
}

static void tick(int frames) {
    dma_play(frames);
    now += 10;
    speaker_tick(now);
}

static void flush(void) {
    speaker_port.flush(NULL);
    least = next_number;
    heard = told(); /* a block that was cut counts as not heard */
}

/* Plays all that was written. */
static void drain(void) {
    do {
        tick(TICK_FRAMES);
        tick(TICK_FRAMES);
    } while (dma_running());
}

/* Starts from silence, with the numbers from 1 on. */
static void reset(void) {
    drain();
    heard = told();
    next_number = 1;
    last_heard = 0;
    least = 1;
    silent = 0;
}

/* Told is never more than heard, and never much less: a block that is being played, and one where
 * an interrupt fell into a write. */
static void compare(long before) {
    if (told() > heard) {
        fail("told as played before it was");
    }
    if (heard - told() > 2 * FRAMES) {
        fail("told more than 20 ms late");
    }
    assert(told() >= before);
}

static void test_short_sound_is_played_whole(void) {
    reset();
    long before = told();
    assert(write(100) == 100);
    for (int i = 0; i < 10; i++) {
        tick(TICK_FRAMES);
    }
    assert(told() - before == 100 && heard == told());
}

static void test_takes_what_the_dma_holds_and_one_block(void) {
    reset();
    assert(write(4096) == (BLOCKS + 1) * FRAMES);
    assert(dma_running()); /* and begins at once */
    assert(write(1) == 0);
    dma_play(FRAMES);
    assert(write(4096) == FRAMES);
}

static void test_flush_is_silent_at_once_and_counts_nothing(void) {
    reset();
    long before = told();
    (void)write(4096);
    dma_play(FRAMES + 50);
    assert(told() - before == FRAMES);
    flush();
    assert(!dma_running());
    (void)write(4096);
    dma_play(FRAMES * BLOCKS);
    assert(told() - before == FRAMES + FRAMES * BLOCKS);
}

static void test_rests_when_nothing_was_played_for_a_second(void) {
    reset();
    (void)write(640);
    for (int i = 0; i < 100; i++) {
        tick(TICK_FRAMES);
    }
    assert(dma_running());
    for (int i = 0; i < 10; i++) {
        tick(TICK_FRAMES);
    }
    assert(!dma_running());
}

static void test_rates(void) {
    reset();
    assert(speaker_port.set_rate(NULL, 22050) == LA_OK);
    assert(speaker_port.set_rate(NULL, 48000) == LA_ERR_UNSUPPORTED);
    assert(speaker_port.set_rate(NULL, LA_MIC_RATE) == LA_OK);
}

/* As the core writes: blocks, and never more than 40 ms ahead of what is told as played. */
static void test_ticks_of_20_ms_leave_no_gap(unsigned seed) {
    srand(seed);
    reset();
    long start = told();
    dma_interrupt_writes(rand() % 3);
    while (next_number < 15000) {
        while (next_number - 1 - (told() - start) <= (BLOCKS - 1) * FRAMES) {
            if (write(FRAMES) == 0) {
                break;
            }
        }
        tick(rand() % (2 * TICK_FRAMES));
    }
    dma_interrupt_writes(0);
    if (silent > 0) {
        fail("a gap");
    }
}

/* Any order of writes, ticks, flushes, and interrupts in the middle of a write. */
static void test_any_order(unsigned seed) {
    srand(seed);
    reset();
    for (int step = 0; step < 400 && next_number < 20000; step++) {
        long before = told();
        dma_interrupt_writes(rand() % 4 == 0 ? rand() % FRAMES : 0);
        switch (rand() % 8) {
        case 0:
        case 1:
        case 2:
            (void)write(1 + rand() % 700);
            break;
        case 3:
            tick(rand() % 2000); /* the task was away */
            break;
        case 4:
            if (rand() % 8 == 0) {
                flush();
            }
            break;
        default:
            tick(TICK_FRAMES);
        }
        compare(before);
    }
    dma_interrupt_writes(0);
    long written = next_number - least;
    drain();
    if (told() != heard) {
        fail("not all that was played is told");
    }
    if (written > 0 && last_heard != next_number - 1) {
        fail("the end was not played");
    }
}

int main(void) {
    speaker_open();
    test_short_sound_is_played_whole();
    test_takes_what_the_dma_holds_and_one_block();
    test_flush_is_silent_at_once_and_counts_nothing();
    test_rests_when_nothing_was_played_for_a_second();
    test_rates();
    for (unsigned seed = 1; seed <= RUNS; seed++) {
        test_ticks_of_20_ms_leave_no_gap(seed);
        test_any_order(seed);
    }
    printf("glue: loudspeaker on a simulated DMA: %d runs\n", RUNS);
    return 0;
}
