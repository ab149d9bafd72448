#include "power.h"

#include "esp_err.h"
#include "esp_pm.h"
#include "la_device.h"
#include "microphone.h"
#include "sdkconfig.h"
#include "wifi.h"

enum {
    FAST_MHZ = 240,
    SLOW_MHZ = 80,      /* the least with which Wi-Fi works */
    AWAKE_MS = 30000,   /* after the last word; the microphone needs a while to wake up */
    ASLEEP_TICK_MS = 500
};

static enum la_state state = LA_STATE_DISCONNECTED;
static la_ms idle_since = LA_NEVER;

#if CONFIG_LISTENAI_LIGHT_SLEEP
#define SLEEPS true
#else
#define SLEEPS false
#endif

static bool is_idle(enum la_state doing) {
#if CONFIG_LISTENAI_LISTEN_PUSH_TO_TALK
    return doing == LA_STATE_IDLE;
#else
    return doing == LA_STATE_IDLE || doing == LA_STATE_LISTENING;
#endif
}

void power_open(void) {
#if CONFIG_PM_ENABLE
    const esp_pm_config_t power = {
        .max_freq_mhz = FAST_MHZ,
        .min_freq_mhz = SLOW_MHZ,
        .light_sleep_enable = SLEEPS,
    };
    ESP_ERROR_CHECK(esp_pm_configure(&power));
#endif
}

void power_follow(enum la_state now_doing, la_ms now) {
    bool idle = is_idle(now_doing);
    state = now_doing;
    idle_since = idle ? now : LA_NEVER;
    wifi_rest(idle ? WIFI_NAPS : WIFI_AWAKE);
    if (SLEEPS) {
        microphone_switch(MICROPHONE_ON);
    }
}

la_ms power_wait(la_ms now) {
    if (!SLEEPS || state != LA_STATE_IDLE || now - idle_since < AWAKE_MS) {
        return LA_TICK_MS;
    }
    microphone_switch(MICROPHONE_OFF);
    return ASLEEP_TICK_MS;
}
