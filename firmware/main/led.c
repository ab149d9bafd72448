#include "led.h"

#include <stdatomic.h>

#include "driver/gpio.h"
#include "esp_err.h"
#include "esp_timer.h"
#include "sdkconfig.h"

/* A pattern is 16 steps of 125 ms, lowest bit first, again and again. */
#define STEP_US (125ULL * 1000)
#define STEPS 16
#define OFF 0x0000
#define ON 0xFFFF
#define PROVISIONING 0x5555

static const uint16_t patterns[LA_STATE_COUNT] = {
    [LA_STATE_DISCONNECTED] = 0x0001, /* a flash every two seconds */
    [LA_STATE_CONNECTING] = 0x0101,   /* one a second */
    [LA_STATE_STARTING] = 0x1111,     /* two a second */
    [LA_STATE_IDLE] = OFF,
    [LA_STATE_LISTENING] = ON,
    [LA_STATE_HEARING] = 0xFEFE,      /* on, with a short gap */
    [LA_STATE_THINKING] = 0x3333,     /* fast */
    [LA_STATE_SPEAKING] = 0x0F0F,     /* slow */
    [LA_STATE_SUSPECTED] = ON,
    [LA_STATE_HELD] = ON,
};

static _Atomic uint16_t pattern;
static esp_timer_handle_t timer;

#if CONFIG_LISTENAI_LED >= 0

static void on_step(void *argument) {
    static unsigned step; /* only the timer's task comes here */
    (void)argument;
    (void)gpio_set_level(CONFIG_LISTENAI_LED, (atomic_load(&pattern) >> step) & 1U);
    step = (step + 1) % STEPS;
}

void led_open(void) {
    const gpio_config_t pin = {
        .pin_bit_mask = 1ULL << CONFIG_LISTENAI_LED,
        .mode = GPIO_MODE_OUTPUT,
    };
    const esp_timer_create_args_t blinking = {.callback = on_step, .name = "led"};
    ESP_ERROR_CHECK(gpio_config(&pin));
    ESP_ERROR_CHECK(esp_timer_create(&blinking, &timer));
}

static void show(uint16_t steps) {
    atomic_store(&pattern, steps);
    /* A timer would keep the board from sleeping for a light that does not change. */
    (void)esp_timer_stop(timer);
    if (steps == ON || steps == OFF) {
        (void)gpio_set_level(CONFIG_LISTENAI_LED, steps & 1U);
    } else {
        (void)esp_timer_start_periodic(timer, STEP_US);
    }
}

#else

void led_open(void) {
    (void)timer;
}

static void show(uint16_t steps) {
    atomic_store(&pattern, steps);
}

#endif

void led_show(void *context, enum la_state state) {
    (void)context;
    show(patterns[state]);
}

void led_show_provisioning(void) {
    show(PROVISIONING);
}

const struct la_port_led led_port = {.show = led_show};
