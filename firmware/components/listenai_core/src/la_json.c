/* The reader is one state for the grammar (`expects`) and one for the token that is being read
 * (`lexes`); containers are a depth and a bit each.  At depth 1 a key and its value are kept. */
#include "la_json_tokens.h"

#include <string.h>

enum expects {
    EXPECTS_OBJECT,       /* the outermost one */
    EXPECTS_KEY_OR_END,   /* after '{' */
    EXPECTS_KEY,          /* after ',' in an object */
    EXPECTS_COLON,
    EXPECTS_VALUE,        /* after ':', or ',' in an array */
    EXPECTS_VALUE_OR_END, /* after '[' */
    EXPECTS_COMMA_OR_END,
    EXPECTS_NOTHING       /* the outermost object is closed */
};

static bool in_array(const struct la_json_reader *reader) {
    return ((reader->arrays >> (reader->depth - 1)) & 1U) != 0;
}

/* --- keeping what was read ---------------------------------------------------------------- */

/* A text that was cut must not end inside of a character. */
static void trim_character(struct la_json_reader *reader) {
    size_t end = reader->length;
    size_t start = end;
    while (start > 0 && ((unsigned char)reader->value[start - 1] & 0xC0) == 0x80) {
        start--;
    }
    if (start == 0) {
        return;
    }
    unsigned char head = (unsigned char)reader->value[start - 1];
    size_t needs = head >= 0xF0 ? 4 : head >= 0xE0 ? 3 : head >= 0xC0 ? 2 : 1;
    if (end - (start - 1) < needs) {
        reader->length = start - 1;
    }
}

static void tell(struct la_json_reader *reader) {
    if (reader->cut) {
        trim_character(reader);
    }
    reader->value[reader->length] = '\0';
    if (reader->key_length >= sizeof reader->key) {
        reader->key_length = 0;
    }
    reader->key[reader->key_length] = '\0';
    struct la_json_member member = {reader->key, reader->type, reader->value, reader->length,
                                    reader->cut};
    reader->sink(reader->context, &member);
}

/* --- the grammar -------------------------------------------------------------------------- */

static void value_is_over(struct la_json_reader *reader) {
    reader->lexes = LEXES_NOTHING;
    reader->expects = EXPECTS_COMMA_OR_END;
    if (reader->depth == 1) {
        tell(reader);
    }
}

static void value_begins(struct la_json_reader *reader, enum la_json_type type) {
    if (reader->depth == 1) {
        reader->type = type;
        reader->length = 0;
        reader->cut = false;
    }
    reader->is_key = false;
}

static bool open_container(struct la_json_reader *reader, char byte) {
    bool array = byte == '[';
    if (reader->depth > 0) {
        value_begins(reader, array ? LA_JSON_ARRAY : LA_JSON_OBJECT);
    }
    if (reader->depth == LA_JSON_DEPTH) {
        return false;
    }
    uint32_t bit = 1U << reader->depth;
    reader->arrays = array ? reader->arrays | bit : reader->arrays & ~bit;
    reader->depth++;
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, byte);
    }
    reader->expects = array ? EXPECTS_VALUE_OR_END : EXPECTS_KEY_OR_END;
    return true;
}

static bool close_container(struct la_json_reader *reader, char byte) {
    if (in_array(reader) != (byte == ']')) {
        return false;
    }
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, byte);
    }
    reader->depth--;
    if (reader->depth == 0) {
        reader->expects = EXPECTS_NOTHING;
    } else {
        value_is_over(reader);
    }
    return true;
}

static void begin_string(struct la_json_reader *reader, bool is_key) {
    if (is_key) {
        reader->is_key = true;
        if (reader->depth == 1) {
            reader->key_length = 0;
        }
    } else {
        value_begins(reader, LA_JSON_STRING);
    }
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, '"');
    }
    reader->surrogate = false;
    reader->utf8_left = 0;
    reader->lexes = LEXES_STRING;
}

static bool begin_literal(struct la_json_reader *reader, const char *literal,
                          enum la_json_type type) {
    value_begins(reader, type);
    la_json_keep(reader, literal[0]);
    reader->literal = literal;
    reader->literal_at = 1;
    reader->lexes = LEXES_LITERAL;
    return true;
}

static bool begin_value(struct la_json_reader *reader, char byte) {
    switch (byte) {
    case '{':
    case '[':
        return open_container(reader, byte);
    case '"':
        begin_string(reader, false);
        return true;
    case 't':
        return begin_literal(reader, "true", LA_JSON_TRUE);
    case 'f':
        return begin_literal(reader, "false", LA_JSON_FALSE);
    case 'n':
        return begin_literal(reader, "null", LA_JSON_NULL);
    default:
        break;
    }
    if (byte != '-' && (byte < '0' || byte > '9')) {
        return false;
    }
    value_begins(reader, LA_JSON_NUMBER);
    la_json_keep(reader, byte);
    reader->lexes = byte == '-' ? LEXES_MINUS : byte == '0' ? LEXES_ZERO : LEXES_DIGITS;
    return true;
}

static bool comma(struct la_json_reader *reader) {
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, ',');
    }
    reader->expects = in_array(reader) ? EXPECTS_VALUE : EXPECTS_KEY;
    return true;
}

static bool colon(struct la_json_reader *reader) {
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, ':');
    }
    reader->expects = EXPECTS_VALUE;
    return true;
}

static bool between_tokens(struct la_json_reader *reader, char byte) {
    if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r') {
        return true;
    }
    switch ((enum expects)reader->expects) {
    case EXPECTS_OBJECT:
        return byte == '{' && open_container(reader, byte);
    case EXPECTS_KEY_OR_END:
        if (byte == '}') {
            return close_container(reader, byte);
        }
        goto key;
    case EXPECTS_KEY:
    key:
        if (byte != '"') {
            return false;
        }
        begin_string(reader, true);
        return true;
    case EXPECTS_COLON:
        return byte == ':' && colon(reader);
    case EXPECTS_VALUE_OR_END:
        if (byte == ']') {
            return close_container(reader, byte);
        }
        return begin_value(reader, byte);
    case EXPECTS_VALUE:
        return begin_value(reader, byte);
    case EXPECTS_COMMA_OR_END:
        return byte == ',' ? comma(reader) : close_container(reader, byte);
    case EXPECTS_NOTHING:
        break;
    }
    return false;
}

/* --- reading ------------------------------------------------------------------------------ */

static bool read_byte(struct la_json_reader *reader, char byte) {
    if (reader->lexes == LEXES_NOTHING) {
        return between_tokens(reader, byte);
    }
    switch (la_json_read_token(reader, byte)) {
    case TOKEN_GOES_ON:
        return true;
    case TOKEN_KEY_OVER:
        reader->is_key = false;
        reader->lexes = LEXES_NOTHING;
        reader->expects = EXPECTS_COLON;
        return true;
    case TOKEN_VALUE_OVER:
        value_is_over(reader);
        return true;
    case TOKEN_NUMBER_OVER: /* which is seen by the byte after it */
        value_is_over(reader);
        return between_tokens(reader, byte);
    case TOKEN_BAD:
        break;
    }
    return false;
}

void la_json_begin(struct la_json_reader *reader, la_json_sink sink, void *context) {
    memset(reader, 0, sizeof *reader);
    reader->sink = sink;
    reader->context = context;
}

int la_json_feed(struct la_json_reader *reader, const char *text, size_t length) {
    for (size_t i = 0; i < length && !reader->failed; i++) {
        reader->failed = !read_byte(reader, text[i]);
    }
    return reader->failed ? LA_ERR_PROTOCOL : LA_OK;
}

int la_json_end(struct la_json_reader *reader) {
    return !reader->failed && reader->expects == EXPECTS_NOTHING ? LA_OK : LA_ERR_PROTOCOL;
}
