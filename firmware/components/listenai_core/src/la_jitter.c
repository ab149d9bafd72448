#include "la_jitter.h"

void la_jitter_init(struct la_jitter *jitter, la_ms now) {
    *jitter = (struct la_jitter){
        .depth_ms = LA_JITTER_START_MS,
        .max_depth_ms = LA_JITTER_START_MS,
        .filling_since = LA_NEVER,
        .calm_since = now,
    };
}

static void relax(struct la_jitter *jitter, la_ms now) {
    if (now - jitter->calm_since < LA_JITTER_CALM_MS) {
        return;
    }
    jitter->calm_since = now;
    jitter->depth_ms -= jitter->depth_ms / 8;
    if (jitter->depth_ms < LA_JITTER_MIN_MS) {
        jitter->depth_ms = LA_JITTER_MIN_MS;
    }
}

bool la_jitter_plays(struct la_jitter *jitter, uint32_t queued_ms, bool ended, la_ms now) {
    if (jitter->playing) {
        relax(jitter, now);
        return true;
    }
    if (queued_ms > 0 && jitter->filling_since == LA_NEVER) {
        jitter->filling_since = now;
    }
    bool waited_long = jitter->filling_since != LA_NEVER &&
                       now - jitter->filling_since >= 2 * (la_ms)jitter->depth_ms;
    jitter->playing = ended || queued_ms >= jitter->depth_ms || waited_long;
    return jitter->playing;
}

void la_jitter_ran_dry(struct la_jitter *jitter, la_ms now) {
    jitter->underruns++;
    jitter->calm_since = now;
    jitter->depth_ms += jitter->depth_ms / 2;
    if (jitter->depth_ms > LA_JITTER_MAX_MS) {
        jitter->depth_ms = LA_JITTER_MAX_MS;
    }
    if (jitter->depth_ms > jitter->max_depth_ms) {
        jitter->max_depth_ms = jitter->depth_ms;
    }
    la_jitter_restart(jitter);
}

void la_jitter_restart(struct la_jitter *jitter) {
    jitter->playing = false;
    jitter->filling_since = LA_NEVER;
}
