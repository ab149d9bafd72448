/* JSON on fixed memory: a reader that is fed pieces of any size, and a writer into a buffer.
 *
 * The reader checks the whole text against RFC 8259 and tells each member of the outermost object
 * as it is complete, so that a message may be far longer than our memory; only what a member holds
 * beyond the buffer is cut. */
#ifndef LA_JSON_H
#define LA_JSON_H

#include "la_types.h"

enum {
    LA_JSON_DEPTH = 32, /* as deep as the server lets anything be */
    LA_JSON_KEY_SIZE = 32 /* longer names are none of ours: they are told as "" */
};

enum la_json_type {
    LA_JSON_STRING,
    LA_JSON_NUMBER,
    LA_JSON_TRUE,
    LA_JSON_FALSE,
    LA_JSON_NULL,
    LA_JSON_OBJECT,
    LA_JSON_ARRAY
};

/* A member of the outermost object.  value: the decoded string in UTF-8, or the text of any other
 * value; terminated by a zero. */
struct la_json_member {
    const char *key;
    enum la_json_type type;
    const char *value;
    size_t length;
    bool cut; /* the value is longer than the buffer; this is its beginning */
};

typedef void (*la_json_sink)(void *context, const struct la_json_member *member);

struct la_json_reader {
    la_json_sink sink;
    void *context;
    uint32_t arrays;   /* bit n: the container at depth n is an array */
    uint8_t depth;
    uint8_t expects;   /* what may come next: enum in la_json.c */
    uint8_t lexes;     /* inside of which token */
    uint8_t escape;    /* digits of \uXXXX still to come */
    uint8_t utf8_left; /* continuation bytes still to come */
    uint8_t utf8_low;  /* the next one's range */
    uint8_t utf8_high;
    uint8_t literal_at;
    bool is_key;       /* the string is a member's name */
    bool surrogate;    /* a high surrogate waits for its low one */
    bool failed;
    bool cut;
    enum la_json_type type;
    uint32_t code_unit;
    uint32_t high_surrogate;
    const char *literal;
    size_t key_length;
    size_t length;
    char key[LA_JSON_KEY_SIZE];
    char value[LA_TEXT_SIZE];
};

void la_json_begin(struct la_json_reader *reader, la_json_sink sink, void *context);

/* The next bytes of the text.  LA_ERR_PROTOCOL: it is not JSON, or no object. */
int la_json_feed(struct la_json_reader *reader, const char *text, size_t length);

/* The text is over.  LA_ERR_PROTOCOL: it is not whole. */
int la_json_end(struct la_json_reader *reader);

/* Whole numbers only: LA_ERR_ARGUMENT for others and for those outside of 0 to 2^53 - 1. */
int la_json_to_uint(const struct la_json_member *member, uint64_t *value);

/* A text that is being written; after an overflow the rest is ignored. */
struct la_json_writer {
    char *text;
    size_t size;
    size_t length;
    bool overflow;
    bool comma;
};

void la_json_open(struct la_json_writer *writer, char *text, size_t size);
void la_json_object(struct la_json_writer *writer, const char *key); /* key NULL: none */
void la_json_object_end(struct la_json_writer *writer);
void la_json_array(struct la_json_writer *writer, const char *key);
void la_json_array_end(struct la_json_writer *writer);
void la_json_text(struct la_json_writer *writer, const char *key, const char *value);
void la_json_uint(struct la_json_writer *writer, const char *key, uint64_t value);
void la_json_bool(struct la_json_writer *writer, const char *key, bool value);
void la_json_raw(struct la_json_writer *writer, const char *key, const char *json);

/* The text's length, or LA_ERR_TOO_LONG. */
int la_json_close(struct la_json_writer *writer);

#endif
