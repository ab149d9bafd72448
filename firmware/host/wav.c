#include "wav.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 44, SAMPLE_BYTES = 2 };

static uint32_t get(const uint8_t *bytes, int count) {
    uint32_t value = 0;
    for (int i = count - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static void put(uint8_t *bytes, uint32_t value, int count) {
    for (int i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

static const char *read_samples(FILE *file, uint32_t length, struct wav *wav) {
    wav->samples = length / SAMPLE_BYTES;
    wav->pcm = calloc(wav->samples + 1, SAMPLE_BYTES);
    if (wav->pcm == NULL) {
        return "is too large for this machine's memory";
    }
    wav->samples = fread(wav->pcm, SAMPLE_BYTES, wav->samples, file); /* maybe cut short */
    return NULL;
}

static const char *read_chunks(FILE *file, struct wav *wav) {
    uint8_t head[8];
    uint8_t format[16];
    while (fread(head, sizeof head, 1, file) == 1) {
        uint32_t length = get(head + 4, 4);
        if (memcmp(head, "data", 4) == 0) {
            return wav->sample_rate > 0 ? read_samples(file, length, wav)
                                        : "has its data before its format";
        }
        uint32_t rest = length + (length & 1);
        if (memcmp(head, "fmt ", 4) == 0 && length >= sizeof format &&
            fread(format, sizeof format, 1, file) == 1) {
            if (get(format, 2) != 1 || get(format + 2, 2) != 1 || get(format + 14, 2) != 16) {
                return "must be 16-bit mono PCM; convert it, with `sox IN -b 16 -c 1 OUT` say";
            }
            wav->sample_rate = get(format + 4, 4);
            rest -= (uint32_t)sizeof format;
        }
        if (fseek(file, (long)rest, SEEK_CUR) != 0) {
            break;
        }
    }
    return "has no data";
}

const char *wav_read(const char *path, struct wav *wav) {
    uint8_t riff[12];
    *wav = (struct wav){0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return "cannot be opened";
    }
    const char *problem = "is no WAV file";
    if (fread(riff, sizeof riff, 1, file) == 1 && memcmp(riff, "RIFF", 4) == 0 &&
        memcmp(riff + 8, "WAVE", 4) == 0) {
        problem = read_chunks(file, wav);
    }
    fclose(file);
    return problem;
}

static void fill_header(uint8_t *header, uint32_t sample_rate, uint32_t bytes) {
    memcpy(header, "RIFF", 4);
    put(header + 4, HEADER_BYTES - 8 + bytes, 4);
    memcpy(header + 8, "WAVEfmt ", 8);
    put(header + 16, 16, 4);
    put(header + 20, 1, 2); /* PCM */
    put(header + 22, 1, 2); /* mono */
    put(header + 24, sample_rate, 4);
    put(header + 28, sample_rate * SAMPLE_BYTES, 4);
    put(header + 32, SAMPLE_BYTES, 2);
    put(header + 34, 8 * SAMPLE_BYTES, 2);
    memcpy(header + 36, "data", 4);
    put(header + 40, bytes, 4);
}

FILE *wav_create(const char *path, uint32_t sample_rate) {
    uint8_t header[HEADER_BYTES];
    FILE *file = fopen(path, "w+b");
    fill_header(header, sample_rate, 0);
    if (file != NULL && fwrite(header, sizeof header, 1, file) != 1) {
        fclose(file);
        return NULL;
    }
    return file;
}

int wav_append(FILE *file, const int16_t *pcm, size_t samples) {
    return fwrite(pcm, SAMPLE_BYTES, samples, file) == samples ? 0 : -1;
}

int wav_finish(FILE *file) {
    uint8_t header[HEADER_BYTES];
    long size = ftell(file);
    int result = -1;
    if (size >= HEADER_BYTES && fseek(file, 0, SEEK_SET) == 0 &&
        fread(header, sizeof header, 1, file) == 1) {
        fill_header(header, get(header + 24, 4), (uint32_t)size - HEADER_BYTES);
        if (fseek(file, 0, SEEK_SET) == 0 && fwrite(header, sizeof header, 1, file) == 1) {
            result = 0;
        }
    }
    return fclose(file) == 0 ? result : -1;
}
