/* What survives a restart: texts in NVS, the flash's key-value store. */
#ifndef STORE_H
#define STORE_H

#include "la_port.h"

/* Of the settings with their final zero; longer ones are refused while provisioning. */
enum { STORE_SERVER_SIZE = 160, STORE_KEY_SIZE = 129 };

/* Opens the namespace "listenai"; a store of another layout or without free pages is erased.
 * Stops the board where even that fails. */
void store_open(void);

/* Reads a text with its final zero into `value`.
 * LA_ERR_NOT_FOUND, LA_ERR_TOO_LONG (nothing is read), LA_ERR_IO. */
int store_get(void *context, const char *key, char *value, size_t size);

/* Writes a text; it is in the flash when this returns.  LA_ERR_IO. */
int store_set(void *context, const char *key, const char *value);

/* Forgets a text, if there is one. */
void store_erase(const char *key);

/* Reads a setting: what was stored, else the default (from menuconfig), cut where too long.  What
 * is stored and cannot be read is logged. */
void store_setting(const char *key, const char *otherwise, char *value, size_t size);

extern const struct la_port_store store_port;

#endif
