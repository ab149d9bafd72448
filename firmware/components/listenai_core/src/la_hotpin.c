#include "la_hotpin.h"

#include <string.h>

/* --- messages ----------------------------------------------------------------------------- */

static const struct {
    const char *status;
    const char *stage; /* NULL: any */
    enum la_hotpin_message message;
} MESSAGES[] = {
    {"connected", NULL, LA_HOTPIN_CONNECTED},       {"processing", "llm", LA_HOTPIN_TRANSCRIPT},
    {"processing", "tts", LA_HOTPIN_RESPONSE},      {"processing", NULL, LA_HOTPIN_PROCESSING},
    {"complete", NULL, LA_HOTPIN_COMPLETE},         {"reset", NULL, LA_HOTPIN_RESET},
    {"error", NULL, LA_HOTPIN_ERROR},
};

enum la_hotpin_message la_hotpin_classify(const struct la_message *message) {
    for (size_t i = 0; i < sizeof MESSAGES / sizeof *MESSAGES; i++) {
        if (strcmp(MESSAGES[i].status, message->state) == 0 &&
            (MESSAGES[i].stage == NULL || strcmp(MESSAGES[i].stage, message->stage) == 0)) {
            return MESSAGES[i].message;
        }
    }
    return LA_HOTPIN_OTHER;
}

int la_hotpin_handshake(char *buffer, size_t size, const char *session_id, const char *api_key) {
    struct la_json_writer writer;
    la_json_open(&writer, buffer, size);
    la_json_object(&writer, NULL);
    la_json_text(&writer, "session_id", session_id);
    if (api_key != NULL) {
        la_json_text(&writer, "api_key", api_key);
    }
    la_json_object_end(&writer);
    return la_json_close(&writer);
}

static int signal(char *buffer, size_t size, const char *name) {
    struct la_json_writer writer;
    la_json_open(&writer, buffer, size);
    la_json_object(&writer, NULL);
    la_json_text(&writer, "signal", name);
    la_json_object_end(&writer);
    return la_json_close(&writer);
}

int la_hotpin_end_of_speech(char *buffer, size_t size) {
    return signal(buffer, size, "EOS");
}

int la_hotpin_reset(char *buffer, size_t size) {
    return signal(buffer, size, "RESET");
}

/* --- WAV ---------------------------------------------------------------------------------- */

enum wav_state { WAV_RIFF, WAV_CHUNK, WAV_FORMAT, WAV_SKIPS, WAV_AUDIO, WAV_OVER };

enum {
    RIFF_BYTES = 12,
    CHUNK_BYTES = 8,
    FORMAT_BYTES = 16,
    PCM = 1,
    SAMPLE_BYTES = 2
};

static uint32_t little_endian(const uint8_t *bytes, int count) {
    uint32_t value = 0;
    for (int i = count - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

void la_hotpin_wav_begin(struct la_hotpin *hotpin) {
    uint64_t stream_id = hotpin->stream_id;
    *hotpin = (struct la_hotpin){.stream_id = stream_id, .state = WAV_RIFF};
}

/* Chunks have even lengths in the file; the pad byte is not counted in theirs. */
static uint32_t padded(uint32_t length) {
    return length < UINT32_MAX ? length + (length & 1) : length;
}

static int read_chunk_head(struct la_hotpin *hotpin) {
    uint32_t length = little_endian(hotpin->header + 4, 4);
    if (memcmp(hotpin->header, "data", 4) == 0) {
        if (hotpin->sample_rate == 0) {
            return LA_ERR_PROTOCOL; /* data before its format */
        }
        hotpin->left = length; /* 0xFFFFFFFF from a server that streams: until `complete` */
        hotpin->state = WAV_AUDIO;
    } else if (memcmp(hotpin->header, "fmt ", 4) == 0 && length >= FORMAT_BYTES) {
        hotpin->left = padded(length) - FORMAT_BYTES;
        hotpin->state = WAV_FORMAT;
    } else {
        hotpin->left = padded(length);
        hotpin->state = hotpin->left > 0 ? WAV_SKIPS : WAV_CHUNK;
    }
    return LA_OK;
}

static int read_format(struct la_hotpin *hotpin) {
    uint32_t format = little_endian(hotpin->header, 2);
    uint32_t channels = little_endian(hotpin->header + 2, 2);
    uint32_t rate = little_endian(hotpin->header + 4, 4);
    uint32_t bits = little_endian(hotpin->header + 14, 2);
    if (format != PCM || bits != 8 * SAMPLE_BYTES || channels < 1 || channels > 2 || rate == 0) {
        return LA_ERR_PROTOCOL;
    }
    hotpin->channels = (uint16_t)channels;
    hotpin->sample_rate = rate;
    hotpin->state = hotpin->left > 0 ? WAV_SKIPS : WAV_CHUNK;
    return LA_OK;
}

static int read_header(struct la_hotpin *hotpin, enum la_wav_part *part) {
    hotpin->header_used = 0;
    switch ((enum wav_state)hotpin->state) {
    case WAV_RIFF:
        if (memcmp(hotpin->header, "RIFF", 4) != 0 || memcmp(hotpin->header + 8, "WAVE", 4) != 0) {
            return LA_ERR_PROTOCOL;
        }
        hotpin->state = WAV_CHUNK;
        return LA_OK;
    case WAV_FORMAT:
        return read_format(hotpin);
    default: {
        int problem = read_chunk_head(hotpin);
        *part = hotpin->state == WAV_AUDIO ? LA_WAV_STARTED : LA_WAV_NOTHING;
        return problem;
    }
    }
}

static size_t header_bytes(const struct la_hotpin *hotpin) {
    switch ((enum wav_state)hotpin->state) {
    case WAV_RIFF:
        return RIFF_BYTES;
    case WAV_FORMAT:
        return FORMAT_BYTES;
    default:
        return CHUNK_BYTES;
    }
}

/* Copies the left channel's bytes; how many of the input were used. */
static size_t copy_left(struct la_hotpin *hotpin, const uint8_t *data, size_t length, uint8_t *out,
                        size_t out_size, size_t *out_length) {
    size_t used = 0;
    uint32_t group = (uint32_t)hotpin->channels * SAMPLE_BYTES;
    while (used < length && used < hotpin->left) {
        if (hotpin->phase < SAMPLE_BYTES) {
            if (*out_length == out_size) {
                break;
            }
            out[(*out_length)++] = data[used];
        }
        hotpin->phase = (hotpin->phase + 1) % group;
        used++;
    }
    if (hotpin->left != UINT32_MAX) {
        hotpin->left -= (uint32_t)used;
    }
    return used;
}

int la_hotpin_wav_feed(struct la_hotpin *hotpin, const uint8_t *data, size_t length,
                       enum la_wav_part *part, uint8_t *out, size_t out_size,
                       size_t *out_length) {
    *part = LA_WAV_NOTHING;
    *out_length = 0;
    if (hotpin->state == WAV_OVER) {
        return (int)length; /* chunks behind the sound: tags */
    }
    if (hotpin->state == WAV_AUDIO) {
        if (hotpin->left == 0) {
            hotpin->state = WAV_OVER;
            *part = LA_WAV_ENDED;
            return 0;
        }
        *part = LA_WAV_AUDIO;
        return (int)copy_left(hotpin, data, length, out, out_size, out_length);
    }
    if (hotpin->state == WAV_SKIPS) {
        size_t used = length < hotpin->left ? length : hotpin->left;
        hotpin->left -= (uint32_t)used;
        if (hotpin->left == 0) {
            hotpin->state = WAV_CHUNK;
        }
        return (int)used;
    }
    size_t used = 0;
    while (used < length && hotpin->header_used < header_bytes(hotpin)) {
        hotpin->header[hotpin->header_used++] = data[used++];
    }
    if (hotpin->header_used == header_bytes(hotpin)) {
        int problem = read_header(hotpin, part);
        if (problem != LA_OK) {
            return problem;
        }
    }
    return (int)used;
}
