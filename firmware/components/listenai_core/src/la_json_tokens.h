/* Private to the JSON reader: what both of its halves know. */
#ifndef LA_JSON_TOKENS_H
#define LA_JSON_TOKENS_H

#include "la_json.h"

/* Inside of which token the reader is. */
enum lexes {
    LEXES_NOTHING,
    LEXES_STRING,
    LEXES_ESCAPE,
    LEXES_UNICODE,
    LEXES_LITERAL,
    LEXES_MINUS, /* the parts of a number */
    LEXES_ZERO,
    LEXES_DIGITS,
    LEXES_POINT,
    LEXES_FRACTION,
    LEXES_E,
    LEXES_SIGN,
    LEXES_EXPONENT
};

/* What a byte did to its token. */
enum token {
    TOKEN_BAD,
    TOKEN_GOES_ON,
    TOKEN_KEY_OVER,
    TOKEN_VALUE_OVER,
    TOKEN_NUMBER_OVER /* the byte itself comes after it */
};

enum token la_json_read_token(struct la_json_reader *reader, char byte);

/* Whether this is inside of a nested container, of which the text is kept as it came. */
bool la_json_keeps_raw(const struct la_json_reader *reader);

/* Keeps a byte of the member's name or value, if there is room. */
void la_json_keep(struct la_json_reader *reader, char byte);

#endif
