#include "la_tools.h"

#include <string.h>

#include "la_json.h"

const struct la_tool *la_tools_find(const struct la_tool *tools, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(tools[i].name, name) == 0) {
            return &tools[i];
        }
    }
    return NULL;
}

/* The member that is looked for, and what became of it. */
struct wanted {
    const char *name;
    enum la_json_type type;
    char *value;
    size_t size;
    int result;
};

static void take_wanted(void *context, const struct la_json_member *member) {
    struct wanted *wanted = context;
    if (strcmp(wanted->name, member->key) != 0) {
        return;
    }
    if (member->type != wanted->type) {
        wanted->result = LA_ERR_ARGUMENT;
    } else if (member->cut || member->length >= wanted->size) {
        wanted->result = LA_ERR_TOO_LONG;
    } else {
        memcpy(wanted->value, member->value, member->length + 1);
        wanted->result = LA_OK;
    }
}

static int find(const char *arguments, struct wanted *wanted) {
    struct la_json_reader reader;
    wanted->result = LA_ERR_NOT_FOUND;
    la_json_begin(&reader, take_wanted, wanted);
    int problem = la_json_feed(&reader, arguments, strlen(arguments));
    if (problem != LA_OK || la_json_end(&reader) != LA_OK) {
        return LA_ERR_ARGUMENT;
    }
    return wanted->result;
}

int la_tools_text(const char *arguments, const char *name, char *value, size_t size) {
    struct wanted wanted = {name, LA_JSON_STRING, value, size, LA_OK};
    return find(arguments, &wanted);
}

int la_tools_integer(const char *arguments, const char *name, int32_t low, int32_t high,
                     int32_t *value) {
    char digits[12];
    struct wanted wanted = {name, LA_JSON_NUMBER, digits, sizeof digits, LA_OK};
    int problem = find(arguments, &wanted);
    if (problem != LA_OK) {
        return problem == LA_ERR_TOO_LONG ? LA_ERR_ARGUMENT : problem;
    }
    int64_t number = 0;
    const char *at = digits[0] == '-' ? digits + 1 : digits;
    for (; *at >= '0' && *at <= '9'; at++) {
        number = number * 10 + (*at - '0');
    }
    if (*at == '.') { /* language models write 50.0 for 50 */
        for (at++; *at == '0'; at++) {
        }
    }
    number = digits[0] == '-' ? -number : number;
    if (*at != '\0' || number < low || number > high) {
        return LA_ERR_ARGUMENT;
    }
    *value = (int32_t)number;
    return LA_OK;
}
