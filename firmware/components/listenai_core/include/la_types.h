/* Types that every part of the core shares: time, errors, sizes. */
#ifndef LA_TYPES_H
#define LA_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Milliseconds of a clock that never goes back. */
typedef int64_t la_ms;

#define LA_NEVER INT64_MAX

/* What went wrong; functions that return int give one of these, or a count that is not negative. */
enum la_error {
    LA_OK = 0,
    LA_ERR_ARGUMENT = -1,    /* a value that is not allowed: see the field's comment */
    LA_ERR_FULL = -2,        /* no room now; offer it again later */
    LA_ERR_TOO_LONG = -3,    /* does not fit in the buffer that was given */
    LA_ERR_PROTOCOL = -4,    /* the peer said something that the protocol does not allow */
    LA_ERR_NOT_FOUND = -5,   /* no such key, tool or stream */
    LA_ERR_CLOSED = -6,      /* no connection */
    LA_ERR_UNSUPPORTED = -7, /* this hardware cannot do that */
    LA_ERR_IO = -8           /* the hardware or the network failed */
};

enum {
    LA_MIC_RATE = 16000,        /* Hz, of the microphone */
    LA_MIC_FRAME_SAMPLES = 256, /* 16 ms: what a detector wants, 512 bytes on the wire */
    LA_ID_SIZE = 65,            /* bytes of an id with its final zero: the protocol allows 64 */
    LA_NAME_SIZE = 65,          /* the same for a tool's name */
    LA_TEXT_SIZE = 768,         /* of a text, or a tool's arguments; longer ones are cut */
    LA_SEND_SIZE = 2048         /* of a message that we send: tools take most of it */
};

/* What the microphone hears of the loudspeaker, as the server is told. */
enum la_echo { LA_ECHO_UNKNOWN, LA_ECHO_RAW, LA_ECHO_CANCELLED };

/* When the microphone is sent to the server. */
enum la_listen_mode {
    LA_LISTEN_ALWAYS,       /* the server finds the speech in it */
    LA_LISTEN_PUSH_TO_TALK, /* while the button is held */
    LA_LISTEN_WAKE_WORD     /* from the wake word on, until nothing was said for a while */
};

/* Which protocol is spoken. */
enum la_dialect { LA_DIALECT_LISTENAI, LA_DIALECT_HOTPIN };

#endif
