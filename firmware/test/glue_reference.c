/* The echo canceller's reference, main/speaker.c with LISTENAI_AFE_REFERENCE_PLAYED, on a simulated
 * DMA: what it gives is what was played, without a gap, at one distance from what is heard now. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "glue_dma.h"
#include "ledger.h"
#include "speaker.h"

enum {
    CHUNK = 512,          /* what the front end is fed with */
    LONGEST = 1 << 20,    /* frames of a run */
    BLOCK = LEDGER_BLOCK_FRAMES,
    FARTHEST = 2 * BLOCK, /* from what is heard now to the newest sample of the reference */
    RUNS = 50
};

static int16_t line[LONGEST];
static long length;

void dma_line_out(struct dma_frame frame) {
    assert(length < LONGEST);
    line[length++] = frame.left;
}

_Noreturn void fail(const char *what) {
    fprintf(stderr, "glue_reference: %s\n", what);
    abort();
}

/* Whether the chunk was played from `from` on. */
static bool was_played_from(const struct sound_pair *chunk, long from) {
    for (int i = 0; i < CHUNK; i++) {
        if (from < 0 || from + i >= length || chunk[i].reference != line[from + i]) {
            return false;
        }
    }
    return true;
}

/* How many frames before now the chunk's end was played. */
static long distance(const struct sound_pair *chunk) {
    for (long behind = 0; behind <= FARTHEST; behind++) {
        if (was_played_from(chunk, length - behind - CHUNK)) {
            return behind;
        }
    }
    fail("the reference is not what was played just now");
}

static void speak(int samples) {
    int16_t pcm[700];
    for (int i = 0; i < samples; i++) {
        pcm[i] = (int16_t)(rand() % 65536 - 32768);
    }
    (void)speaker_port.write(NULL, pcm, samples);
}

/* Ten seconds: the microphone's chunks come every 32 ms, the device's ticks about every 10. */
static void run(unsigned seed) {
    struct sound_pair chunk[CHUNK] = {{0}};
    la_ms now = 0;
    long kept = -1; /* the distance, once it is known */
    long last = -1;
    srand(seed);
    for (int tick = 0; tick < 1000; tick++) {
        for (int frames = BLOCK / 2 + rand() % BLOCK; frames > 0; frames--) {
            dma_play(1);
            if (length % CHUNK == 0) {
                speaker_read_played(chunk, CHUNK);
                /* Noise on both sides of it, so that no two places look alike. */
                if (tick % 100 > 20 && tick % 100 < 60 && tick % 250 > 40) {
                    long found = distance(chunk);
                    if (kept >= 0 && found != kept) {
                        fail("the distance changed");
                    }
                    kept = found;
                    last = found;
                }
            }
        }
        now += 10;
        speaker_tick(now);
        if (tick % 100 < 60) {
            speak(1 + rand() % 700);
        }
        if (tick % 250 == 249) {
            speaker_port.flush(NULL);
            kept = -1;
        }
    }
    speaker_port.flush(NULL);
    assert(last >= BLOCK && last <= 2 * BLOCK);
    length = 0;
}

int main(void) {
    speaker_open();
    assert(dma_running()); /* silence too is a reference */
    assert(speaker_port.set_rate(NULL, 22050) == LA_ERR_UNSUPPORTED);
    for (unsigned seed = 1; seed <= RUNS; seed++) {
        run(seed);
    }
    printf("glue: reference of the echo canceller: %d runs\n", RUNS);
    return 0;
}
