#include "button.h"

#include "driver/gpio.h"
#include "esp_err.h"
#include "esp_sleep.h"
#include "sdkconfig.h"

static TaskHandle_t task;
static la_ms down_since = LA_NEVER;

/* Light sleep knows levels only, no edges.  A level would interrupt for as long as the button is
 * down, so one interrupt is taken, and the next allowed whenever the button is seen up: after a
 * bounce it may never have been seen down. */
static void on_level(void *argument) {
    BaseType_t woken = pdFALSE;
    (void)argument;
    (void)gpio_intr_disable(CONFIG_LISTENAI_BUTTON);
    vTaskNotifyGiveFromISR(task, &woken);
    portYIELD_FROM_ISR(woken);
}

void button_open(TaskHandle_t woken) {
    const gpio_config_t pin = {
        .pin_bit_mask = 1ULL << CONFIG_LISTENAI_BUTTON,
        .mode = GPIO_MODE_INPUT,
        .pull_up_en = GPIO_PULLUP_ENABLE,
        .intr_type = GPIO_INTR_LOW_LEVEL,
    };
    task = woken;
    ESP_ERROR_CHECK(gpio_config(&pin));
    ESP_ERROR_CHECK(gpio_install_isr_service(0));
    ESP_ERROR_CHECK(gpio_isr_handler_add(CONFIG_LISTENAI_BUTTON, on_level, NULL));
    ESP_ERROR_CHECK(gpio_sleep_sel_dis(CONFIG_LISTENAI_BUTTON)); /* keeps its pull-up asleep */
    ESP_ERROR_CHECK(gpio_wakeup_enable(CONFIG_LISTENAI_BUTTON, GPIO_INTR_LOW_LEVEL));
    ESP_ERROR_CHECK(esp_sleep_enable_gpio_wakeup());
}

bool button_pressed(void *context) {
    (void)context;
    return gpio_get_level(CONFIG_LISTENAI_BUTTON) == 0;
}

la_ms button_held_ms(la_ms now) {
    if (!button_pressed(NULL)) {
        down_since = LA_NEVER;
        (void)gpio_intr_enable(CONFIG_LISTENAI_BUTTON);
        return 0;
    }
    if (down_since == LA_NEVER) {
        down_since = now;
    }
    return now - down_since;
}

const struct la_port_button button_port = {.pressed = button_pressed};
