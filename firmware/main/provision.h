/* Telling the board its network: it opens an access point of its own, and an app (or ESP-IDF's
 * esp_prov.py) gives it the network's name and password, encrypted.
 *
 * The endpoint "custom-data" of the same session takes the server's address, and on a second line
 * its API key. */
#ifndef PROVISION_H
#define PROVISION_H

#include <stdbool.h>

/* Makes this board's proof of possession at its very first start.  Before Wi-Fi and I2S are open:
 * true randomness needs the hardware for itself. */
void provision_prepare(void);

/* Whether the board knows no network, or was asked to be told another. */
bool provision_wanted(void);

/* Remembers that it was asked, and restarts. */
_Noreturn void provision_request(void);

/* Opens the access point, waits for a network that can be joined, and restarts.  After ten minutes
 * a board that knew a network before restarts too. */
_Noreturn void provision_run(void);

#endif
