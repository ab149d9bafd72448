/* Which samples have left the loudspeaker's DMA?
 *
 * The DMA plays its four blocks in a circle for ever, silence where nobody wrote.  Blocks are
 * numbered from the start of the DMA on: block n lies in buffer n mod 4, and is free to be written
 * again, as block n + 4, when it was played.  The driver hands out the oldest free buffer and
 * keeps three of them at most.  From that follows which number a written block gets, and from the
 * count of played blocks which of the written samples were heard.  Where an interrupt falls
 * between two looks at the count, the later number is taken: samples are told late by a block,
 * never early.
 *
 * No lock in here: the caller keeps the interrupt out. */
#ifndef LEDGER_H
#define LEDGER_H

#include "la_types.h"

enum {
    LEDGER_BLOCKS = 4,        /* in the DMA */
    LEDGER_BLOCK_FRAMES = 160 /* of each: 10 ms at 16 kHz */
};

struct ledger {
    uint32_t completed; /* blocks played since the start, silence too */
    uint32_t next_free; /* the first block whose buffer was not yet written again */
    struct {
        uint32_t block;
        uint32_t samples;
    } written[2 * LEDGER_BLOCKS]; /* not yet played, oldest first, a ring */
    uint32_t head;
    uint32_t count;
    uint64_t played; /* samples, for ever */
};

/* The DMA starts with these preloaded blocks (0 to LEDGER_BLOCKS) of so many samples each. */
void ledger_start(struct ledger *ledger, const uint32_t *samples, uint32_t blocks);

/* The DMA was stopped: what was not played never will be. */
void ledger_stop(struct ledger *ledger);

/* A block with so many samples was written; completed: the count after that. */
void ledger_write(struct ledger *ledger, uint32_t samples);

/* The DMA has played one more block.  In IRAM: for the interrupt. */
void ledger_complete(struct ledger *ledger);

/* Whether samples are in the DMA. */
static inline bool ledger_busy(const struct ledger *ledger) {
    return ledger->count > 0;
}

#endif
