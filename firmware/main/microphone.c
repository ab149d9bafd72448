#include "microphone.h"

#include "driver/i2s_std.h"
#include "esp_err.h"
#include "sdkconfig.h"

enum {
    DMA_BLOCKS = 8,
    DMA_FRAMES = 128,       /* 8 ms; 64 ms in all: as long as a write to the flash may take */
    WAIT_MS = 1000,
    /* 24 bits are the upper ones of 32; without gain, the upper 16 of them are the sample. */
    SHIFT = 16 - CONFIG_LISTENAI_MIC_GAIN,
#if CONFIG_LISTENAI_AFE_REFERENCE_RIGHT_SLOT
    SLOTS = 2,
#else
    SLOTS = 1,
#endif
};

static i2s_chan_handle_t bus;
static enum microphone_clock state = MICROPHONE_OFF;

static int16_t sample(int32_t slot) {
    int32_t louder = slot >> SHIFT;
    if (louder > INT16_MAX) {
        return INT16_MAX;
    }
    if (louder < INT16_MIN) {
        return INT16_MIN;
    }
    return (int16_t)louder;
}

void microphone_open(void) {
    i2s_chan_config_t channel = I2S_CHANNEL_DEFAULT_CONFIG(I2S_NUM_0, I2S_ROLE_MASTER);
    i2s_std_config_t format = {
        .clk_cfg = I2S_STD_CLK_DEFAULT_CONFIG(LA_MIC_RATE),
        .slot_cfg = I2S_STD_PHILIPS_SLOT_DEFAULT_CONFIG(
            I2S_DATA_BIT_WIDTH_32BIT, SLOTS == 2 ? I2S_SLOT_MODE_STEREO : I2S_SLOT_MODE_MONO),
        .gpio_cfg = {
            .mclk = I2S_GPIO_UNUSED,
            .bclk = (gpio_num_t)CONFIG_LISTENAI_MIC_SCK,
            .ws = (gpio_num_t)CONFIG_LISTENAI_MIC_WS,
            .dout = I2S_GPIO_UNUSED,
            .din = (gpio_num_t)CONFIG_LISTENAI_MIC_SD,
        },
    };
    /* Its L/R pin is on ground: the left slot.  The chips' own defaults differ. */
    format.slot_cfg.slot_mask = SLOTS == 2 ? I2S_STD_SLOT_BOTH : I2S_STD_SLOT_LEFT;
    channel.dma_desc_num = DMA_BLOCKS;
    channel.dma_frame_num = DMA_FRAMES;
    ESP_ERROR_CHECK(i2s_new_channel(&channel, NULL, &bus));
    ESP_ERROR_CHECK(i2s_channel_init_std_mode(bus, &format));
    microphone_switch(MICROPHONE_ON);
}

void microphone_switch(enum microphone_clock to) {
    if (to == state) {
        return;
    }
    ESP_ERROR_CHECK(to == MICROPHONE_ON ? i2s_channel_enable(bus)
                                              : i2s_channel_disable(bus));
    state = to;
}

#if CONFIG_LISTENAI_AFE

bool microphone_read_pairs(struct sound_pair *pairs, int count) {
    static int32_t slots[LA_MIC_FRAME_SAMPLES][SLOTS];
    while (count > 0) {
        int wanted = count < LA_MIC_FRAME_SAMPLES ? count : LA_MIC_FRAME_SAMPLES;
        size_t bytes = 0;
        if (i2s_channel_read(bus, slots, (size_t)wanted * sizeof slots[0], &bytes, WAIT_MS) !=
            ESP_OK) {
            return false;
        }
        for (int i = 0; i < wanted; i++) {
            pairs[i].microphone = sample(slots[i][0]);
            pairs[i].reference = 0;
            if (SLOTS == 2) { /* the reference has a level of its own: no gain */
                pairs[i].reference = (int16_t)(slots[i][SLOTS - 1] >> 16);
            }
        }
        pairs += wanted;
        count -= wanted;
    }
    return true;
}

#else

/* A frame is gathered over several calls: the port must not wait. */
static int read_frame(void *context, int16_t *pcm, int samples) {
    static int32_t slots[LA_MIC_FRAME_SAMPLES];
    static size_t filled; /* bytes */
    const size_t whole = sizeof slots;
    size_t bytes = 0;
    (void)context;
    if (state == MICROPHONE_OFF || samples != LA_MIC_FRAME_SAMPLES) {
        filled = 0;
        return 0;
    }
    /* A timeout is what happens when there is less than that; `bytes` says how much. */
    (void)i2s_channel_read(bus, (uint8_t *)slots + filled, whole - filled, &bytes, 0);
    filled += bytes;
    if (filled < whole) {
        return 0;
    }
    filled = 0;
    for (int i = 0; i < samples; i++) {
        pcm[i] = sample(slots[i]);
    }
    return samples;
}

const struct la_port_mic microphone_port = {.read = read_frame};

#endif
