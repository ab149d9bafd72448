#include <string.h>

#include "la_json.h"

static void put(struct la_json_writer *writer, const char *text, size_t length) {
    if (writer->overflow || length >= writer->size - writer->length) {
        writer->overflow = true;
        return;
    }
    memcpy(writer->text + writer->length, text, length);
    writer->length += length;
    writer->text[writer->length] = '\0';
}

static void put_byte(struct la_json_writer *writer, char byte) {
    put(writer, &byte, 1);
}

static void put_string(struct la_json_writer *writer, const char *value) {
    static const char HEX[] = "0123456789abcdef";
    put_byte(writer, '"');
    for (const char *at = value; *at != '\0'; at++) {
        unsigned char code = (unsigned char)*at;
        if (code < 0x20) {
            char escape[] = {'\\', 'u', '0', '0', HEX[code >> 4], HEX[code & 15]};
            put(writer, escape, sizeof escape);
        } else {
            if (*at == '"' || *at == '\\') {
                put_byte(writer, '\\');
            }
            put_byte(writer, *at);
        }
    }
    put_byte(writer, '"');
}

/* What comes before a value: a comma where there was one already, and the member's name. */
static void begin(struct la_json_writer *writer, const char *key) {
    if (writer->comma) {
        put_byte(writer, ',');
    }
    if (key != NULL) {
        put_string(writer, key);
        put_byte(writer, ':');
    }
    writer->comma = true;
}

void la_json_open(struct la_json_writer *writer, char *text, size_t size) {
    *writer = (struct la_json_writer){.text = text, .size = size, .overflow = size == 0};
    if (size > 0) {
        text[0] = '\0';
    }
}

void la_json_object(struct la_json_writer *writer, const char *key) {
    begin(writer, key);
    put_byte(writer, '{');
    writer->comma = false;
}

void la_json_object_end(struct la_json_writer *writer) {
    put_byte(writer, '}');
    writer->comma = true;
}

void la_json_array(struct la_json_writer *writer, const char *key) {
    begin(writer, key);
    put_byte(writer, '[');
    writer->comma = false;
}

void la_json_array_end(struct la_json_writer *writer) {
    put_byte(writer, ']');
    writer->comma = true;
}

void la_json_text(struct la_json_writer *writer, const char *key, const char *value) {
    begin(writer, key);
    put_string(writer, value);
}

void la_json_uint(struct la_json_writer *writer, const char *key, uint64_t value) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        at--;
        digits[at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    begin(writer, key);
    put(writer, digits + at, sizeof digits - at);
}

void la_json_bool(struct la_json_writer *writer, const char *key, bool value) {
    la_json_raw(writer, key, value ? "true" : "false");
}

void la_json_raw(struct la_json_writer *writer, const char *key, const char *json) {
    begin(writer, key);
    put(writer, json, strlen(json));
}

int la_json_close(struct la_json_writer *writer) {
    return writer->overflow ? LA_ERR_TOO_LONG : (int)writer->length;
}

int la_json_to_uint(const struct la_json_member *member, uint64_t *value) {
    static const uint64_t LARGEST = (UINT64_C(1) << 53) - 1;
    if (member->type != LA_JSON_NUMBER || member->cut) {
        return LA_ERR_ARGUMENT;
    }
    uint64_t number = 0;
    for (size_t i = 0; i < member->length; i++) {
        char byte = member->value[i];
        if (byte < '0' || byte > '9') {
            return LA_ERR_ARGUMENT;
        }
        number = number * 10 + (uint64_t)(byte - '0');
        if (number > LARGEST) {
            return LA_ERR_ARGUMENT;
        }
    }
    *value = number;
    return LA_OK;
}
