/* Stands for components/wifi_provisioning/include/wifi_provisioning/scheme_softap.h
 * (ESP-IDF 5.4). */
#pragma once
#include "wifi_provisioning/manager.h"

extern const wifi_prov_scheme_t wifi_prov_scheme_softap;
