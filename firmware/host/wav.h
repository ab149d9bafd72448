/* WAV files of 16-bit mono PCM: read whole, written as they grow. */
#ifndef WAV_H
#define WAV_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct wav {
    int16_t *pcm; /* malloc'ed */
    size_t samples;
    uint32_t sample_rate;
};

/* NULL, or what is wrong with the file, in words. */
const char *wav_read(const char *path, struct wav *wav);

/* A file with room for its header; NULL when it cannot be written (errno says why). */
FILE *wav_create(const char *path, uint32_t sample_rate);

/* Adds samples; 0, or -1 (errno says why). */
int wav_append(FILE *file, const int16_t *pcm, size_t samples);

/* Puts the lengths into the header and closes; 0, or -1. */
int wav_finish(FILE *file);

#endif
