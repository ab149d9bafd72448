#include "ledger.h"

#include "esp_attr.h"

enum { FREE_MOST = LEDGER_BLOCKS - 1 }; /* free buffers that the driver remembers */

static void append(struct ledger *ledger, uint32_t block, uint32_t samples) {
    const uint32_t size = sizeof ledger->written / sizeof ledger->written[0];
    uint32_t place = (ledger->head + ledger->count) % size;
    if (ledger->count == size) { /* cannot be: the DMA has half as many */
        return;
    }
    ledger->written[place].block = block;
    ledger->written[place].samples = samples;
    ledger->count++;
}

void ledger_start(struct ledger *ledger, const uint32_t *samples, uint32_t blocks) {
    ledger_stop(ledger);
    for (uint32_t block = 0; block < blocks; block++) {
        append(ledger, block, samples[block]);
    }
}

void ledger_stop(struct ledger *ledger) {
    ledger->completed = 0;
    ledger->next_free = 0;
    ledger->head = 0;
    ledger->count = 0;
}

void ledger_write(struct ledger *ledger, uint32_t samples) {
    uint32_t oldest = ledger->completed > FREE_MOST ? ledger->completed - FREE_MOST : 0;
    uint32_t free = ledger->next_free > oldest ? ledger->next_free : oldest;
    ledger->next_free = free + 1;
    append(ledger, free + LEDGER_BLOCKS, samples);
}

void IRAM_ATTR ledger_complete(struct ledger *ledger) {
    const uint32_t size = sizeof ledger->written / sizeof ledger->written[0];
    ledger->completed++;
    while (ledger->count > 0 && ledger->written[ledger->head].block < ledger->completed) {
        ledger->played += ledger->written[ledger->head].samples;
        ledger->head = (ledger->head + 1) % size;
        ledger->count--;
    }
}
