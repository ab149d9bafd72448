/* The Hotpin dialect: its messages, and the WAV file that is a reply. */
#ifndef LA_HOTPIN_H
#define LA_HOTPIN_H

#include "la_proto.h"
#include "la_types.h"

/* What a message of a Hotpin server says. */
enum la_hotpin_message {
    LA_HOTPIN_OTHER,
    LA_HOTPIN_CONNECTED,
    LA_HOTPIN_TRANSCRIPT, /* `text` is what the user said */
    LA_HOTPIN_RESPONSE,   /* `text` is the reply; its WAV follows */
    LA_HOTPIN_PROCESSING,
    LA_HOTPIN_COMPLETE,
    LA_HOTPIN_RESET,
    LA_HOTPIN_ERROR       /* `text` says what */
};

enum la_hotpin_message la_hotpin_classify(const struct la_message *message);

/* Writers: the length of the text, or LA_ERR_TOO_LONG.  api_key NULL: none. */
int la_hotpin_handshake(char *buffer, size_t size, const char *session_id, const char *api_key);
int la_hotpin_end_of_speech(char *buffer, size_t size);
int la_hotpin_reset(char *buffer, size_t size);

/* Reads a WAV file in pieces: 16-bit PCM, mono or stereo, of which the left channel is taken. */
struct la_hotpin {
    uint32_t sample_rate;
    uint16_t channels;
    uint8_t state;       /* enum in la_hotpin.c */
    uint8_t header_used;
    uint8_t header[24];  /* a chunk's head, and the part of `fmt ` that matters */
    uint32_t left;       /* bytes of the chunk still to come */
    uint32_t phase;      /* byte within a group of both channels' samples */
    uint64_t stream_id;  /* the streams are numbered by us */
};

enum la_wav_part {
    LA_WAV_NOTHING, /* more is needed */
    LA_WAV_STARTED, /* the format is known: sample_rate */
    LA_WAV_AUDIO,   /* mono PCM in `out` */
    LA_WAV_ENDED    /* the data chunk is over */
};

/* The next WAV begins. */
void la_hotpin_wav_begin(struct la_hotpin *hotpin);

/* Takes some of the bytes: how many, or LA_ERR_PROTOCOL for what is no such WAV.  Call again with
 * the rest.  part: what came out.  out: for at most out_size bytes of PCM; *out_length of them. */
int la_hotpin_wav_feed(struct la_hotpin *hotpin, const uint8_t *data, size_t length,
                       enum la_wav_part *part, uint8_t *out, size_t out_size, size_t *out_length);

#endif
