#include "glue_dma.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "driver/i2s_std.h"
#include "freertos/FreeRTOS.h"
#include "freertos/stream_buffer.h"
#include "ledger.h"

enum { BLOCKS = LEDGER_BLOCKS, FRAMES = LEDGER_BLOCK_FRAMES };

static struct dma_frame memory[BLOCKS][FRAMES];
static int queue[BLOCKS - 1]; /* free buffers, oldest first */
static int queued;
static int current = -1;      /* the buffer that is being written, and how far */
static size_t position;
static bool running;
static int playing;           /* the buffer that is being played, and how far */
static int played_frames;
static i2s_event_callbacks_t callbacks;
static int interrupt_in_write; /* frames that are played while a write is under way */

static int take_oldest(void) {
    int buffer = queue[0];
    queued--;
    memmove(queue, queue + 1, (size_t)queued * sizeof queue[0]);
    return buffer;
}

static void complete(void) {
    i2s_event_data_t event = {.dma_buf = memory[playing], .size = sizeof memory[playing]};
    (void)callbacks.on_sent(NULL, &event, NULL);
    if (queued == BLOCKS - 1) {
        (void)take_oldest();
    }
    memset(memory[playing], 0, sizeof memory[playing]);
    queue[queued++] = playing;
    playing = (playing + 1) % BLOCKS;
    played_frames = 0;
}

bool dma_running(void) {
    return running;
}

void dma_interrupt_writes(int frames) {
    interrupt_in_write = frames;
}

void dma_play(int frames) {
    for (; running && frames > 0; frames--) {
        dma_line_out(memory[playing][played_frames++]);
        if (played_frames == FRAMES) {
            complete();
        }
    }
}

esp_err_t i2s_new_channel(const i2s_chan_config_t *config, i2s_chan_handle_t *tx,
                          i2s_chan_handle_t *rx) {
    assert(config->dma_desc_num == BLOCKS && config->dma_frame_num == FRAMES);
    assert(config->auto_clear && rx == NULL);
    *tx = NULL;
    return ESP_OK;
}

esp_err_t i2s_channel_init_std_mode(i2s_chan_handle_t handle, const i2s_std_config_t *config) {
    (void)handle;
    return config->slot_cfg.slot_mode == I2S_SLOT_MODE_STEREO ? ESP_OK : ESP_FAIL;
}

esp_err_t i2s_channel_register_event_callback(i2s_chan_handle_t handle,
                                              const i2s_event_callbacks_t *given, void *user) {
    (void)handle;
    (void)user;
    callbacks = *given;
    return ESP_OK;
}

esp_err_t i2s_channel_reconfig_std_clock(i2s_chan_handle_t handle,
                                         const i2s_std_clk_config_t *clock) {
    (void)handle;
    (void)clock;
    return running ? ESP_ERR_INVALID_STATE : ESP_OK;
}

esp_err_t i2s_channel_enable(i2s_chan_handle_t handle) {
    (void)handle;
    if (running) {
        return ESP_ERR_INVALID_STATE;
    }
    running = true;
    playing = 0;
    played_frames = 0;
    return ESP_OK;
}

esp_err_t i2s_channel_disable(i2s_chan_handle_t handle) {
    (void)handle;
    if (!running) {
        return ESP_ERR_INVALID_STATE;
    }
    running = false;
    current = -1;
    position = 0;
    queued = 0;
    return ESP_OK;
}

esp_err_t i2s_channel_preload_data(i2s_chan_handle_t handle, const void *source, size_t size,
                                   size_t *loaded) {
    (void)handle;
    if (running) {
        return ESP_ERR_INVALID_STATE;
    }
    if (current != -1 || size != sizeof memory) {
        fail("preloaded twice, or not the whole DMA: old sound would be played");
    }
    memcpy(memory, source, size);
    current = BLOCKS - 1;
    position = sizeof memory[0];
    *loaded = size;
    return ESP_OK;
}

esp_err_t i2s_channel_write(i2s_chan_handle_t handle, const void *source, size_t size,
                            size_t *written, uint32_t timeout_ms) {
    (void)handle;
    *written = 0;
    if (!running || timeout_ms != 0) {
        fail("written to a stopped bus, or waits");
    }
    while (size > 0) {
        if (current == -1 || position == sizeof memory[0] || queued >= BLOCKS - 2) {
            if (queued == 0) {
                return 0x107; /* ESP_ERR_TIMEOUT */
            }
            current = take_oldest();
            position = 0;
        }
        size_t now = sizeof memory[0] - position < size ? sizeof memory[0] - position : size;
        memcpy((char *)memory[current] + position, source, now);
        source = (const char *)source + now;
        position += now;
        size -= now;
        *written += now;
    }
    dma_play(interrupt_in_write);
    return ESP_OK;
}

void stub_critical(portMUX_TYPE *mux) {
    (void)mux;
}

_Noreturn void stub_error_check_failed(esp_err_t error) {
    (void)error;
    fail("ESP_ERROR_CHECK");
}

/* --- a stream buffer, for one task: bytes in a row ---------------------------------------- */

struct StreamBufferDef_t {
    size_t size, used;
    char bytes[];
};

StreamBufferHandle_t xStreamBufferCreate(size_t size, size_t trigger) {
    StreamBufferHandle_t buffer = calloc(1, sizeof *buffer + size);
    (void)trigger;
    buffer->size = size;
    return buffer;
}

size_t xStreamBufferSendFromISR(StreamBufferHandle_t buffer, const void *data, size_t size,
                                BaseType_t *const woken) {
    (void)woken;
    assert(size <= buffer->size - buffer->used);
    memcpy(buffer->bytes + buffer->used, data, size);
    buffer->used += size;
    return size;
}

size_t xStreamBufferReceive(StreamBufferHandle_t buffer, void *data, size_t size, TickType_t wait) {
    size_t taken = size < buffer->used ? size : buffer->used;
    (void)wait;
    memcpy(data, buffer->bytes, taken);
    buffer->used -= taken;
    memmove(buffer->bytes, buffer->bytes + taken, buffer->used);
    return taken;
}

size_t xStreamBufferBytesAvailable(StreamBufferHandle_t buffer) {
    return buffer->used;
}

size_t xStreamBufferSpacesAvailable(StreamBufferHandle_t buffer) {
    return buffer->size - buffer->used;
}
