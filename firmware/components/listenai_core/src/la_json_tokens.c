/* Strings, literals and numbers of the JSON reader, byte by byte. */
#include "la_json_tokens.h"

#include <string.h>

bool la_json_keeps_raw(const struct la_json_reader *reader) {
    return reader->depth > 1;
}

void la_json_keep(struct la_json_reader *reader, char byte) {
    if (reader->is_key && reader->depth == 1) {
        if (reader->key_length < sizeof reader->key) {
            reader->key[reader->key_length] = byte;
        }
        reader->key_length++;
    } else if (reader->cut || reader->length + 1 >= sizeof reader->value) {
        reader->cut = true;
    } else {
        reader->value[reader->length++] = byte;
    }
}

static void keep_character(struct la_json_reader *reader, uint32_t code) {
    if (code < 0x80) {
        la_json_keep(reader, (char)code);
        return;
    }
    if (code < 0x800) {
        la_json_keep(reader, (char)(0xC0 | (code >> 6)));
    } else {
        if (code < 0x10000) {
            la_json_keep(reader, (char)(0xE0 | (code >> 12)));
        } else {
            la_json_keep(reader, (char)(0xF0 | (code >> 18)));
            la_json_keep(reader, (char)(0x80 | ((code >> 12) & 0x3F)));
        }
        la_json_keep(reader, (char)(0x80 | ((code >> 6) & 0x3F)));
    }
    la_json_keep(reader, (char)(0x80 | (code & 0x3F)));
}

static enum token goes_on(bool good) {
    return good ? TOKEN_GOES_ON : TOKEN_BAD;
}

/* --- strings ------------------------------------------------------------------------------ */

/* The lead byte of a character (RFC 3629): how many follow, and which the first of them may be. */
static bool begin_utf8(struct la_json_reader *reader, unsigned char byte) {
    if (byte < 0xC2 || byte > 0xF4) {
        return false;
    }
    reader->utf8_left = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
    reader->utf8_low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    reader->utf8_high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    return true;
}

static bool continue_utf8(struct la_json_reader *reader, unsigned char byte) {
    if (byte < reader->utf8_low || byte > reader->utf8_high) {
        return false;
    }
    reader->utf8_left--;
    reader->utf8_low = 0x80;
    reader->utf8_high = 0xBF;
    return true;
}

static enum token string_is_over(struct la_json_reader *reader) {
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, '"');
    }
    return reader->is_key ? TOKEN_KEY_OVER : TOKEN_VALUE_OVER;
}

static enum token in_string(struct la_json_reader *reader, char byte) {
    unsigned char code = (unsigned char)byte;
    if (reader->utf8_left > 0) {
        la_json_keep(reader, byte);
        return goes_on(continue_utf8(reader, code));
    }
    if (byte == '\\') {
        reader->lexes = LEXES_ESCAPE;
        if (la_json_keeps_raw(reader)) {
            la_json_keep(reader, byte);
        }
        return TOKEN_GOES_ON;
    }
    if (code < 0x20 || reader->surrogate) { /* half of a pair is no character */
        return TOKEN_BAD;
    }
    if (byte == '"') {
        return string_is_over(reader);
    }
    la_json_keep(reader, byte);
    return goes_on(code < 0x80 || begin_utf8(reader, code));
}

static bool in_escape(struct la_json_reader *reader, char byte) {
    static const char NAMES[] = "\"\\/bfnrt";
    static const char VALUES[] = "\"\\/\b\f\n\r\t";
    if (byte == 'u') {
        reader->escape = 4;
        reader->code_unit = 0;
        reader->lexes = LEXES_UNICODE;
        if (la_json_keeps_raw(reader)) {
            la_json_keep(reader, byte);
        }
        return true;
    }
    const char *name = byte != '\0' ? strchr(NAMES, byte) : NULL;
    if (name == NULL || reader->surrogate) {
        return false;
    }
    if (!la_json_keeps_raw(reader)) {
        byte = VALUES[name - NAMES];
    }
    la_json_keep(reader, byte);
    reader->lexes = LEXES_STRING;
    return true;
}

static int hex_digit(char byte) {
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    if (byte >= 'a' && byte <= 'f') {
        return byte - 'a' + 10;
    }
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

static bool finish_code_unit(struct la_json_reader *reader) {
    uint32_t unit = reader->code_unit;
    bool low = unit >= 0xDC00 && unit <= 0xDFFF;
    reader->lexes = LEXES_STRING;
    if (low != reader->surrogate) { /* a low half without its high one, or the other way round */
        return false;
    }
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        reader->surrogate = true;
        reader->high_surrogate = unit;
        return true;
    }
    if (low) {
        unit = 0x10000 + ((reader->high_surrogate - 0xD800) << 10) + (unit - 0xDC00);
        reader->surrogate = false;
    }
    if (!la_json_keeps_raw(reader)) {
        keep_character(reader, unit == 0 ? 0xFFFD : unit); /* our texts end with a zero */
    }
    return true;
}

static bool in_unicode(struct la_json_reader *reader, char byte) {
    int digit = hex_digit(byte);
    if (digit < 0) {
        return false;
    }
    if (la_json_keeps_raw(reader)) {
        la_json_keep(reader, byte);
    }
    reader->code_unit = reader->code_unit << 4 | (uint32_t)digit;
    reader->escape--;
    return reader->escape > 0 || finish_code_unit(reader);
}

/* --- literals and numbers ----------------------------------------------------------------- */

static enum token in_literal(struct la_json_reader *reader, char byte) {
    if (byte != reader->literal[reader->literal_at]) {
        return TOKEN_BAD;
    }
    la_json_keep(reader, byte);
    reader->literal_at++;
    return reader->literal[reader->literal_at] == '\0' ? TOKEN_VALUE_OVER : TOKEN_GOES_ON;
}

/* The part of a number that this byte leads to, or LEXES_NOTHING. */
static enum lexes number_goes_on(enum lexes part, char byte) {
    bool digit = byte >= '0' && byte <= '9';
    bool e = byte == 'e' || byte == 'E';
    switch (part) {
    case LEXES_MINUS:
        return byte == '0' ? LEXES_ZERO : digit ? LEXES_DIGITS : LEXES_NOTHING;
    case LEXES_ZERO:
    case LEXES_DIGITS:
        if (digit && part == LEXES_DIGITS) {
            return LEXES_DIGITS;
        }
        return byte == '.' ? LEXES_POINT : e ? LEXES_E : LEXES_NOTHING;
    case LEXES_POINT:
    case LEXES_FRACTION:
        if (digit) {
            return LEXES_FRACTION;
        }
        return e && part == LEXES_FRACTION ? LEXES_E : LEXES_NOTHING;
    case LEXES_E:
        if (byte == '+' || byte == '-') {
            return LEXES_SIGN;
        }
        return digit ? LEXES_EXPONENT : LEXES_NOTHING;
    default:
        return digit ? LEXES_EXPONENT : LEXES_NOTHING;
    }
}

static enum token in_number(struct la_json_reader *reader, char byte) {
    enum lexes part = (enum lexes)reader->lexes;
    enum lexes next = number_goes_on(part, byte);
    if (next != LEXES_NOTHING) {
        la_json_keep(reader, byte);
        reader->lexes = (uint8_t)next;
        return TOKEN_GOES_ON;
    }
    bool whole = part == LEXES_ZERO || part == LEXES_DIGITS || part == LEXES_FRACTION ||
                 part == LEXES_EXPONENT;
    return whole ? TOKEN_NUMBER_OVER : TOKEN_BAD;
}

enum token la_json_read_token(struct la_json_reader *reader, char byte) {
    switch ((enum lexes)reader->lexes) {
    case LEXES_STRING:
        return in_string(reader, byte);
    case LEXES_ESCAPE:
        return goes_on(in_escape(reader, byte));
    case LEXES_UNICODE:
        return goes_on(in_unicode(reader, byte));
    case LEXES_LITERAL:
        return in_literal(reader, byte);
    default:
        return in_number(reader, byte);
    }
}
