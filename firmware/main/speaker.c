#include "speaker.h"

#include <stdatomic.h>
#include <string.h>

#include "driver/i2s_std.h"
#include "esp_attr.h"
#include "esp_err.h"
#include "freertos/FreeRTOS.h"
#include "freertos/stream_buffer.h"
#include "ledger.h"
#include "sdkconfig.h"

enum {
    GATHER_MS = 10,        /* less than the DMA holds is played when no more came for so long */
    REST_AFTER_MS = 1000,
    RATE_LEAST = 8000,
    RATE_MOST = 24000,     /* the DMA then lasts for 26 ms, two ticks and a little */
    PLAYED_BYTES = 16 * LEDGER_BLOCK_FRAMES * (int)sizeof(int16_t), /* 160 ms of reference */
#if CONFIG_LISTENAI_AFE_REFERENCE_PLAYED
    ALWAYS_RUNS = 1, /* silence too is a reference */
#else
    ALWAYS_RUNS = 0,
#endif
};

struct frame {
    int16_t left;
    int16_t right;
};

static i2s_chan_handle_t bus;
static uint32_t rate = LA_MIC_RATE;

/* While the bus stands still, frames are gathered here until the whole DMA can be filled; while
 * it runs, only until one of its blocks can. */
static enum { STOPPED, RUNNING } state = STOPPED;
static struct frame frames[LEDGER_BLOCKS * LEDGER_BLOCK_FRAMES];
static uint32_t filled;                    /* frames of these */
static la_ms gathering_since = LA_NEVER;
static la_ms busy_at;                      /* when something was last in the DMA */

static portMUX_TYPE lock = portMUX_INITIALIZER_UNLOCKED;
static struct ledger ledger; /* of the task and of the interrupt, under the lock */

static StreamBufferHandle_t reference; /* what was played, for the echo canceller */
static atomic_bool broken;             /* the reference has a gap: its distance is wrong */

/* The block that was just played, before the driver clears it. */
static BaseType_t IRAM_ATTR remember(const struct frame *played) {
    int16_t mono[LEDGER_BLOCK_FRAMES];
    BaseType_t woken = pdFALSE;
    for (int i = 0; i < LEDGER_BLOCK_FRAMES; i++) {
        mono[i] = played[i].left;
    }
    if (xStreamBufferSpacesAvailable(reference) < sizeof mono) {
        atomic_store(&broken, true);
    } else {
        (void)xStreamBufferSendFromISR(reference, mono, sizeof mono, &woken);
    }
    return woken;
}

/* In IRAM, as what it calls: a block that goes by while the flash is written counts too. */
static bool IRAM_ATTR on_sent(i2s_chan_handle_t handle, i2s_event_data_t *event, void *context) {
    (void)handle;
    (void)context;
    portENTER_CRITICAL_ISR(&lock);
    ledger_complete(&ledger);
    portEXIT_CRITICAL_ISR(&lock);
    return ALWAYS_RUNS && remember(event->dma_buf) == pdTRUE;
}

/* Fills the whole DMA, with silence behind what was gathered, and starts it. */
static void start(void) {
    uint32_t samples[LEDGER_BLOCKS];
    size_t bytes = 0;
    for (uint32_t block = 0; block < LEDGER_BLOCKS; block++) {
        uint32_t before = block * LEDGER_BLOCK_FRAMES;
        uint32_t in_it = filled > before ? filled - before : 0;
        samples[block] = in_it < LEDGER_BLOCK_FRAMES ? in_it : LEDGER_BLOCK_FRAMES;
    }
    memset(frames + filled, 0, sizeof frames - filled * sizeof frames[0]);
    ESP_ERROR_CHECK(i2s_channel_preload_data(bus, frames, sizeof frames, &bytes));
    portENTER_CRITICAL(&lock);
    ledger_start(&ledger, samples, LEDGER_BLOCKS);
    portEXIT_CRITICAL(&lock);
    ESP_ERROR_CHECK(i2s_channel_enable(bus));
    filled = 0;
    gathering_since = LA_NEVER;
    state = RUNNING;
}

/* Silence at once: the amplifier mutes when its clock stops. */
static void stop(void) {
    if (state == RUNNING) {
        ESP_ERROR_CHECK(i2s_channel_disable(bus));
    }
    portENTER_CRITICAL(&lock);
    ledger_stop(&ledger);
    portEXIT_CRITICAL(&lock);
    filled = 0;
    gathering_since = LA_NEVER;
    atomic_store(&broken, true);
    state = STOPPED;
}

/* Hands one block to the running DMA, with silence behind what was gathered.  False: no buffer is
 * free. */
static bool push(void) {
    const size_t size = LEDGER_BLOCK_FRAMES * sizeof frames[0];
    size_t bytes = 0;
    memset(frames + filled, 0, size - filled * sizeof frames[0]);
    /* Always a whole buffer, so that the driver takes all of it or nothing. */
    (void)i2s_channel_write(bus, frames, size, &bytes, 0);
    if (bytes == 0) {
        return false;
    }
    portENTER_CRITICAL(&lock);
    ledger_write(&ledger, filled);
    portEXIT_CRITICAL(&lock);
    filled = 0;
    return true;
}

static bool hand_over(void) {
    if (state == RUNNING) {
        return push();
    }
    start();
    return true;
}

static int write_samples(void *context, const int16_t *pcm, int samples) {
    int taken = 0;
    (void)context;
    for (;;) {
        uint32_t room = state == RUNNING ? LEDGER_BLOCK_FRAMES
                                         : LEDGER_BLOCKS * LEDGER_BLOCK_FRAMES;
        while (filled < room && taken < samples) {
            frames[filled].left = pcm[taken];
            frames[filled].right = pcm[taken];
            filled++;
            taken++;
        }
        if (filled < room || !hand_over()) {
            return taken;
        }
    }
}

static void flush(void *context) {
    (void)context;
    stop();
    if (ALWAYS_RUNS) {
        start();
    }
}

static uint64_t played_samples(void *context) {
    (void)context;
    portENTER_CRITICAL(&lock);
    uint64_t played = ledger.played;
    portEXIT_CRITICAL(&lock);
    return played;
}

static int set_rate(void *context, uint32_t sample_rate) {
    const i2s_std_clk_config_t clock = I2S_STD_CLK_DEFAULT_CONFIG(sample_rate);
    (void)context;
    if (sample_rate == rate) {
        return LA_OK;
    }
    if (ALWAYS_RUNS || sample_rate < RATE_LEAST || sample_rate > RATE_MOST) {
        return LA_ERR_UNSUPPORTED; /* a reference has the microphone's rate */
    }
    stop();
    if (i2s_channel_reconfig_std_clock(bus, &clock) != ESP_OK) {
        return LA_ERR_UNSUPPORTED;
    }
    rate = sample_rate;
    return LA_OK;
}

void speaker_tick(la_ms now) {
    portENTER_CRITICAL(&lock);
    bool busy = ledger_busy(&ledger);
    portEXIT_CRITICAL(&lock);
    if (state == STOPPED) {
        if (filled == 0) {
            return;
        }
        if (gathering_since == LA_NEVER) {
            gathering_since = now;
        } else if (now - gathering_since >= GATHER_MS) {
            start();
            busy_at = now;
        }
    } else if (busy) {
        busy_at = now;
    } else if (filled > 0) {
        (void)push();
    } else if (!ALWAYS_RUNS && now - busy_at >= REST_AFTER_MS) {
        stop();
    }
}

/* Forgets all but the newest samples. */
static void trim_reference(size_t kept_bytes) {
    int16_t old[LEDGER_BLOCK_FRAMES];
    size_t bytes = xStreamBufferBytesAvailable(reference);
    while (bytes > kept_bytes) {
        size_t more = bytes - kept_bytes;
        (void)xStreamBufferReceive(reference, old, more < sizeof old ? more : sizeof old, 0);
        bytes = xStreamBufferBytesAvailable(reference);
    }
}

/* Both buses hang on one clock, so that once the distance is right, it stays so.  It is a block
 * more than the least, because chunks and blocks end at different times. */
void speaker_read_played(struct sound_pair *pairs, int count) {
    static bool aligned;
    int16_t mono[LEDGER_BLOCK_FRAMES];
    const size_t wanted = (size_t)count * sizeof mono[0];
    if (atomic_exchange(&broken, false)) {
        aligned = false;
    }
    const size_t needed = aligned ? wanted : wanted + sizeof mono;
    bool use = ALWAYS_RUNS && xStreamBufferBytesAvailable(reference) >= needed;
    if (use && !aligned) {
        trim_reference(needed);
    }
    aligned = use;
    for (int done = 0; done < count; done += LEDGER_BLOCK_FRAMES) {
        int now = count - done < LEDGER_BLOCK_FRAMES ? count - done : LEDGER_BLOCK_FRAMES;
        memset(mono, 0, sizeof mono);
        if (use) {
            (void)xStreamBufferReceive(reference, mono, (size_t)now * sizeof mono[0], 0);
        }
        for (int i = 0; i < now; i++) {
            pairs[done + i].reference = mono[i];
        }
    }
}

void speaker_open(void) {
    const i2s_event_callbacks_t callbacks = {.on_sent = on_sent};
    i2s_chan_config_t channel = I2S_CHANNEL_DEFAULT_CONFIG(I2S_NUM_1, I2S_ROLE_MASTER);
    const i2s_std_config_t format = {
        .clk_cfg = I2S_STD_CLK_DEFAULT_CONFIG(LA_MIC_RATE),
        /* Stereo, because mono is laid out differently on the two chips. */
        .slot_cfg = I2S_STD_PHILIPS_SLOT_DEFAULT_CONFIG(I2S_DATA_BIT_WIDTH_16BIT,
                                                        I2S_SLOT_MODE_STEREO),
        .gpio_cfg = {
            .mclk = I2S_GPIO_UNUSED,
            .bclk = (gpio_num_t)CONFIG_LISTENAI_SPK_SCK,
            .ws = (gpio_num_t)CONFIG_LISTENAI_SPK_WS,
            .dout = (gpio_num_t)CONFIG_LISTENAI_SPK_SD,
            .din = I2S_GPIO_UNUSED,
        },
    };
    channel.dma_desc_num = LEDGER_BLOCKS;
    channel.dma_frame_num = LEDGER_BLOCK_FRAMES;
    channel.auto_clear = true;
    ESP_ERROR_CHECK(i2s_new_channel(&channel, &bus, NULL));
    ESP_ERROR_CHECK(i2s_channel_init_std_mode(bus, &format));
    ESP_ERROR_CHECK(i2s_channel_register_event_callback(bus, &callbacks, NULL));
    if (ALWAYS_RUNS) {
        reference = xStreamBufferCreate(PLAYED_BYTES, 1);
        ESP_ERROR_CHECK(reference == NULL ? ESP_ERR_NO_MEM : ESP_OK);
        start();
    }
}

const struct la_port_speaker speaker_port = {
    .set_rate = set_rate,
    .write = write_samples,
    .flush = flush,
    .played_samples = played_samples,
};
