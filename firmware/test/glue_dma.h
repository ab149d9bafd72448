/* A simulated I2S driver and DMA, as far as a loudspeaker with four buffers needs them.
 *
 * It does what ESP-IDF's driver does: the DMA plays the buffers in a circle, a played one is
 * cleared and queued, the queue keeps the three newest, a write takes the oldest. */
#ifndef GLUE_DMA_H
#define GLUE_DMA_H

#include <stdbool.h>
#include <stdint.h>

struct dma_frame {
    int16_t left;
    int16_t right;
};

/* Whether the bus has its clock. */
bool dma_running(void);

/* Lets time pass: so many frames leave the DMA, each by dma_line_out. */
void dma_play(int frames);

/* So many frames are played while each write is under way. */
void dma_interrupt_writes(int frames);

/* The test's: what is heard. */
void dma_line_out(struct dma_frame frame);

/* The test's: the code under test did what it must not. */
_Noreturn void fail(const char *what);

#endif
