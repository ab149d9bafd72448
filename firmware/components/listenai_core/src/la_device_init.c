#include <string.h>

#include "la_device_parts.h"

static const char KEY_SESSION[] = "session_id";
static const char KEY_VOLUME[] = "volume";

void la_config_defaults(struct la_config *config) {
    *config = (struct la_config){
        .dialect = LA_DIALECT_LISTENAI,
        .mode = LA_LISTEN_ALWAYS,
        .echo = LA_ECHO_UNKNOWN,
        .local_barge_in = true,
        .speaker_rate = LA_MIC_RATE,
        .volume = 80,
    };
}

/* --- what is kept in the store ------------------------------------------------------------ */

void la_device_new_session_id(struct la_device *device) {
    static const char HEX[] = "0123456789abcdef";
    const struct la_port *port = &device->port;
    char *at = device->session_id;
    for (int word = 0; word < 4; word++) {
        uint32_t bits = port->random.bits(port->context);
        for (int digit = 0; digit < 8; digit++) {
            *at++ = HEX[bits & 15U];
            bits >>= 4;
        }
    }
    *at = '\0';
    if (port->store.set != NULL) {
        (void)port->store.set(port->context, KEY_SESSION, device->session_id);
    }
}

static void choose_session_id(struct la_device *device) {
    const struct la_port *port = &device->port;
    if (device->config.session_id != NULL) {
        strcpy(device->session_id, device->config.session_id); /* checked: it fits */
        return;
    }
    bool found = port->store.get != NULL &&
                 port->store.get(port->context, KEY_SESSION, device->session_id,
                                 sizeof device->session_id) >= 0;
    if (!found || !la_proto_is_id(device->session_id)) {
        la_device_new_session_id(device);
    }
}

void la_device_keep_volume(struct la_device *device) {
    const struct la_port *port = &device->port;
    if (port->store.set != NULL) {
        char text[4] = {0};
        size_t length = 0;
        for (int tens = device->volume >= 100 ? 100 : device->volume >= 10 ? 10 : 1; tens > 0;
             tens /= 10) {
            text[length++] = (char)('0' + device->volume / tens % 10);
        }
        (void)port->store.set(port->context, KEY_VOLUME, text);
    }
}

static int kept_volume(const struct la_device *device) {
    char text[4] = {0};
    const struct la_port *port = &device->port;
    if (port->store.get == NULL ||
        port->store.get(port->context, KEY_VOLUME, text, sizeof text) < 0) {
        return device->config.volume;
    }
    int volume = 0;
    for (const char *at = text; *at >= '0' && *at <= '9'; at++) {
        volume = volume * 10 + (*at - '0');
    }
    return text[0] != '\0' && volume <= 100 ? volume : device->config.volume;
}

/* --- the built-in tool -------------------------------------------------------------------- */

/* The level that the arguments ask for: `level`, or `change` added to the present one. */
static int wanted_volume(const struct la_device *device, const char *arguments, int32_t *volume) {
    int level = la_tools_integer(arguments, "level", 0, 100, volume);
    int32_t change = 0;
    int changed = la_tools_integer(arguments, "change", -100, 100, &change);
    if (level == LA_OK && changed == LA_ERR_NOT_FOUND) {
        return LA_OK;
    }
    if (changed != LA_OK || level != LA_ERR_NOT_FOUND) {
        return LA_ERR_ARGUMENT;
    }
    int32_t sum = device->volume + change;
    *volume = sum < 0 ? 0 : sum > 100 ? 100 : sum;
    return LA_OK;
}

static int run_set_volume(void *context, const char *arguments, char *answer, size_t size) {
    struct la_device *device = context;
    int previous = device->volume;
    int32_t volume = 0;
    int problem = wanted_volume(device, arguments, &volume);
    if (problem != LA_OK) {
        strncpy(answer, "set_volume needs either level (0 to 100) or change (-100 to 100)",
                size - 1);
        return problem;
    }
    (void)la_device_set_volume(device, volume);
    struct la_json_writer writer;
    la_json_open(&writer, answer, size);
    la_json_object(&writer, NULL);
    la_json_uint(&writer, "level", (uint64_t)volume);
    la_json_uint(&writer, "previous", (uint64_t)previous);
    la_json_object_end(&writer);
    return la_json_close(&writer);
}

/* As the server's own tool of this name, which it stands in for. */
static const struct la_tool SET_VOLUME = {
    .name = "set_volume",
    .description = "Set the volume of the device: to a level, or louder or quieter by a change.",
    .parameters = "{\"type\":\"object\",\"properties\":{\"level\":{\"type\":\"integer\","
                  "\"minimum\":0,\"maximum\":100},\"change\":{\"type\":\"integer\","
                  "\"minimum\":-100,\"maximum\":100}}}",
    .run = run_set_volume,
};

/* --- init --------------------------------------------------------------------------------- */

static bool port_is_whole(const struct la_port *port, const struct la_config *config) {
    bool sockets = port->ws.open != NULL && port->ws.send_text != NULL &&
                   port->ws.send_binary != NULL && port->ws.close != NULL;
    bool sound = port->mic.read != NULL && port->speaker.set_rate != NULL &&
                 port->speaker.write != NULL && port->speaker.flush != NULL &&
                 port->speaker.played_samples != NULL;
    bool rest = port->clock.now_ms != NULL && port->random.bits != NULL;
    bool wake = config->mode != LA_LISTEN_WAKE_WORD || port->wake_word.heard != NULL;
    bool push = config->mode != LA_LISTEN_PUSH_TO_TALK || port->button.pressed != NULL;
    return sockets && sound && rest && wake && push;
}

static bool config_is_right(const struct la_config *config) {
    bool id = config->session_id == NULL || la_proto_is_id(config->session_id);
    bool memory =
        config->playback_memory != NULL && config->playback_samples >= LA_PLAYBACK_SAMPLES_MIN;
    bool hotpin = config->dialect != LA_DIALECT_HOTPIN || config->mode == LA_LISTEN_PUSH_TO_TALK;
    bool tools = config->tool_count <= LA_TOOLS_MAX &&
                 (config->tools != NULL || config->tool_count == 0);
    bool volume = config->volume >= 0 && config->volume <= 100;
    bool rate = config->speaker_rate >= LA_RATE_MIN && config->speaker_rate <= LA_RATE_MAX;
    return id && memory && hotpin && tools && volume && rate;
}

static int write_start(struct la_device *device) {
    char *buffer = device->send_buffer;
    if (device->config.dialect == LA_DIALECT_HOTPIN) {
        return la_hotpin_handshake(buffer, sizeof device->send_buffer, device->session_id,
                                   device->config.api_key);
    }
    struct la_capabilities capabilities = {device->port.display.show != NULL,
                                           device->config.echo};
    return la_proto_start_session(buffer, sizeof device->send_buffer, device->session_id,
                                  capabilities, device->tools, device->tool_count);
}

void la_device_start_session(struct la_device *device) {
    la_device_send(device, write_start(device));
    if (device->config.dialect == LA_DIALECT_LISTENAI) {
        la_device_send(device, la_proto_configure(device->send_buffer, sizeof device->send_buffer,
                                                  device->config.speaker_rate));
    }
}

int la_device_init(struct la_device *device, const struct la_config *config,
                   const struct la_port *port) {
    if (!config_is_right(config) || !port_is_whole(port, config)) {
        return LA_ERR_ARGUMENT;
    }
    memset(device, 0, sizeof *device);
    device->config = *config;
    device->port = *port;
    for (size_t i = 0; i < config->tool_count; i++) {
        device->tools[device->tool_count++] = config->tools[i];
    }
    device->config.tools = device->tools;
    device->tools[device->tool_count] = SET_VOLUME;
    device->tools[device->tool_count++].context = device;
    choose_session_id(device);
    device->volume = kept_volume(device);
    la_ms now = la_device_now(device);
    device->pinged_at = LA_NEVER;
    device->ready_at = LA_NEVER;
    la_fsm_init(&device->fsm, config->mode, now);
    la_backoff_init(&device->backoff);
    la_bargein_init(&device->bargein, config->echo);
    la_reassembly_init(&device->reassembly);
    int problem = la_playback_init(&device->playback, &device->port, &device->bargein,
                                   config->playback_memory, config->playback_samples,
                                   device->volume, now);
    int length = write_start(device);
    device->shown = LA_STATE_COUNT; /* the first tick shows the first state */
    return problem != LA_OK ? problem : length < 0 ? length : LA_OK;
}
