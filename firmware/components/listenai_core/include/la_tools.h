/* Tools that the server may ask the device to run: a table of names and functions. */
#ifndef LA_TOOLS_H
#define LA_TOOLS_H

#include "la_types.h"

struct la_tool {
    const char *name;        /* 1 to 64 of a-z A-Z 0-9 _ - */
    const char *description; /* for the language model */
    const char *parameters;  /* a JSON Schema object as text */
    /* Runs the tool within a few milliseconds, in the core's task.  `arguments` is a JSON object
     * as text.  0: `answer` holds the result as JSON text.  Negative: `answer` holds what went
     * wrong, in words for the language model. */
    int (*run)(void *context, const char *arguments, char *answer, size_t size);
    void *context;
};

/* The tool of this name, or NULL. */
const struct la_tool *la_tools_find(const struct la_tool *tools, size_t count, const char *name);

/* The whole number that a JSON object has in this member; LA_ERR_NOT_FOUND without one,
 * LA_ERR_ARGUMENT where it is not from `low` to `high`. */
int la_tools_integer(const char *arguments, const char *name, int32_t low, int32_t high,
                     int32_t *value);

/* The text that a JSON object has in this member; LA_ERR_NOT_FOUND, LA_ERR_TOO_LONG. */
int la_tools_text(const char *arguments, const char *name, char *value, size_t size);

#endif
