#include "la_backoff.h"

void la_backoff_init(struct la_backoff *backoff) {
    backoff->ceiling_ms = LA_BACKOFF_FIRST_MS;
}

uint32_t la_backoff_next(struct la_backoff *backoff, uint32_t random_bits, uint32_t at_least_ms) {
    uint32_t half = backoff->ceiling_ms / 2;
    uint32_t wait_ms = half + random_bits % (half + 1);
    if (backoff->ceiling_ms < LA_BACKOFF_LONGEST_MS) {
        backoff->ceiling_ms *= 2;
        if (backoff->ceiling_ms > LA_BACKOFF_LONGEST_MS) {
            backoff->ceiling_ms = LA_BACKOFF_LONGEST_MS;
        }
    }
    return wait_ms > at_least_ms ? wait_ms : at_least_ms;
}

void la_backoff_reset(struct la_backoff *backoff) {
    backoff->ceiling_ms = LA_BACKOFF_FIRST_MS;
}

void la_backoff_slow(struct la_backoff *backoff) {
    backoff->ceiling_ms = LA_BACKOFF_LONGEST_MS;
}
