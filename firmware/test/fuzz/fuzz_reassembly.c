/* A device is given pieces of frames that fit and pieces that do not, of both dialects.
 *
 * The input is a list of pieces, each a head of three bytes and data:
 *   opcode and fin (bit 7), length of the data, offset; bit 6 of the first: more of the frame comes.
 * Time passes between them.  Nothing may be read beyond a piece, and no count may be wrong. */
#include <stdlib.h>

#include "../fake_port.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct la_device *device, const struct la_ws_piece *piece, int taken) {
    uint64_t queued = 0;
    for (size_t i = 0; i < device->playback.count; i++) {
        queued += device->playback.streams[i].received - device->playback.streams[i].taken;
    }
    if (taken > (int)piece->length || queued != la_ring_queued(&device->playback.ring) ||
        device->reassembly.next_offset > device->reassembly.frame_length) {
        abort();
    }
}

static void run(struct la_config *config, const uint8_t *data, size_t size) {
    static struct la_device device;
    static struct fake_port fake;
    fake = (struct fake_port){.random = 1};
    struct la_port port = fake_port(&fake);
    if (la_device_init(&device, config, &port) != LA_OK) {
        abort();
    }
    la_device_tick(&device);
    la_device_on_ws_open(&device);
    for (size_t at = 0; at + 3 <= size;) {
        size_t length = data[at + 1] < size - at - 3 ? data[at + 1] : size - at - 3;
        struct la_ws_piece piece = {
            .opcode = data[at] & 15,
            .fin = (data[at] & 128) != 0,
            .data = data + at + 3,
            .length = length,
            .offset = data[at + 2],
            .frame_length = data[at + 2] + length + ((data[at] & 64) != 0 ? 100U : 0U),
        };
        int taken = la_device_on_ws_data(&device, &piece);
        check(&device, &piece, taken);
        fake_play(&fake, 160);
        fake.now += 10;
        la_device_tick(&device);
        if (la_device_state(&device) == LA_STATE_CONNECTING) {
            la_device_on_ws_open(&device);
        }
        at += 3 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int16_t memory[LA_PLAYBACK_SAMPLES_MIN];
    struct la_config config;
    if (size < 1) {
        return 0;
    }
    la_config_defaults(&config);
    config.playback_memory = memory;
    config.playback_samples = LA_PLAYBACK_SAMPLES_MIN;
    if ((data[0] & 1) != 0) {
        config.dialect = LA_DIALECT_HOTPIN;
        config.mode = LA_LISTEN_PUSH_TO_TALK;
    }
    run(&config, data + 1, size - 1);
    return 0;
}
