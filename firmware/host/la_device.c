/* The firmware's core on Linux, in real time: see `la_device --help`. */
#include "la_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "network.h"
#include "options.h"
#include "report.h"
#include "sound.h"

enum { STORE_SLOTS = 4 };

/* The machine: everything that a board would have. */
struct machine {
    struct options options;
    struct network *network;
    struct sound sound;
    struct la_device device;
    struct la_tool set_led;
    int16_t playback[LA_PLAYBACK_SAMPLES_MIN];
    int64_t ready_at;      /* sample of the clock; -1: not in this cycle */
    uint32_t replies_before; /* when this cycle began */
    uint32_t replies;        /* of this cycle, begun so far */
    int64_t begun_at;        /* the last of them: its stream was opened */
    int64_t onset_at[EVENTS_MAX]; /* their first sounds; -1: not yet */
    int64_t button_until;  /* sample of the clock */
    int cycles;
    uint32_t random;
    char keys[STORE_SLOTS][16];
    char values[STORE_SLOTS][LA_ID_SIZE];
};

/* --- the port ----------------------------------------------------------------------------- */

static int ws_open(void *context) {
    struct machine *machine = context;
    return network_open(machine->network);
}

static int ws_send_text(void *context, const char *text, size_t length) {
    struct machine *machine = context;
    return network_send(machine->network, LA_OPCODE_TEXT, text, length);
}

static int ws_send_binary(void *context, const void *data, size_t length) {
    struct machine *machine = context;
    return network_send(machine->network, LA_OPCODE_BINARY, data, length);
}

static void ws_close(void *context) {
    struct machine *machine = context;
    network_close(machine->network);
}

static int mic_read(void *context, int16_t *pcm, int samples) {
    struct machine *machine = context;
    return sound_read(&machine->sound, pcm, samples);
}

static int speaker_set_rate(void *context, uint32_t sample_rate) {
    (void)context;
    return sample_rate == SOUND_RATE ? LA_OK : LA_ERR_UNSUPPORTED;
}

static int speaker_write(void *context, const int16_t *pcm, int samples) {
    struct machine *machine = context;
    return sound_write(&machine->sound, pcm, samples);
}

static void speaker_flush(void *context) {
    struct machine *machine = context;
    sound_flush(&machine->sound);
}

static uint64_t speaker_played(void *context) {
    const struct machine *machine = context;
    return machine->sound.played;
}

static la_ms clock_now(void *context) {
    (void)context;
    return network_now();
}

static void led_show(void *context, enum la_state state) {
    const struct machine *machine = context;
    if (machine->options.tells) {
        fprintf(stderr, "%9.3f %s\n", (double)machine->sound.now / SOUND_RATE,
                la_state_name(state));
    }
}

static bool button_pressed(void *context) {
    const struct machine *machine = context;
    return machine->sound.now < machine->button_until;
}

static int store_get(void *context, const char *key, char *value, size_t size) {
    const struct machine *machine = context;
    for (int i = 0; i < STORE_SLOTS; i++) {
        if (strcmp(machine->keys[i], key) == 0) {
            if (strlen(machine->values[i]) >= size) {
                return LA_ERR_TOO_LONG;
            }
            strcpy(value, machine->values[i]);
            return LA_OK;
        }
    }
    return LA_ERR_NOT_FOUND;
}

static int store_set(void *context, const char *key, const char *value) {
    struct machine *machine = context;
    for (int i = 0; i < STORE_SLOTS; i++) {
        if (machine->keys[i][0] == '\0' || strcmp(machine->keys[i], key) == 0) {
            snprintf(machine->keys[i], sizeof machine->keys[i], "%s", key);
            snprintf(machine->values[i], sizeof machine->values[i], "%s", value);
            return LA_OK;
        }
    }
    return LA_ERR_FULL;
}

static uint32_t random_bits(void *context) {
    struct machine *machine = context;
    machine->random ^= machine->random << 13; /* xorshift32 (Marsaglia, 2003) */
    machine->random ^= machine->random >> 17;
    machine->random ^= machine->random << 5;
    return machine->random;
}

static struct la_port port_of(struct machine *machine) {
    return (struct la_port){
        .context = machine,
        .ws = {ws_open, ws_send_text, ws_send_binary, ws_close},
        .mic = {mic_read},
        .speaker = {speaker_set_rate, speaker_write, speaker_flush, speaker_played},
        .clock = {clock_now},
        .led = {led_show},
        .button = {button_pressed},
        .store = {store_get, store_set},
        .random = {random_bits},
    };
}

static int run_set_led(void *context, const char *arguments, char *answer, size_t size) {
    const struct machine *machine = context;
    char color[16];
    if (la_tools_text(arguments, "color", color, sizeof color) != LA_OK) {
        snprintf(answer, size, "color must be a text of at most 15 characters");
        return LA_ERR_ARGUMENT;
    }
    if (machine->options.tells) {
        fprintf(stderr, "%9.3f the light is %s\n", (double)machine->sound.now / SOUND_RATE, color);
    }
    snprintf(answer, size, "true");
    return LA_OK;
}

/* --- what happens when -------------------------------------------------------------------- */

/* The sample of the clock that an event is due at, or -1 while that is not known. */
static int64_t due(const struct machine *machine, const struct event *event) {
    int64_t from = event->reply == 0 ? machine->ready_at : machine->onset_at[event->reply - 1];
    return from < 0 ? -1 : from + (int64_t)event->ms * SOUND_PER_MS;
}

static void note_replies(struct machine *machine) {
    uint32_t count = machine->device.stats.replies - machine->replies_before;
    if (count > machine->replies) {
        machine->replies = count;
        machine->begun_at = machine->sound.now;
    }
    if (count > 0 && count <= EVENTS_MAX && machine->onset_at[count - 1] < 0 &&
        machine->sound.last_sound >= machine->begun_at) {
        machine->onset_at[count - 1] = machine->sound.last_sound;
    }
    if (machine->ready_at < 0 && la_device_ready(&machine->device)) {
        machine->ready_at = machine->sound.now;
    }
}

static void begin_cycle(struct machine *machine) {
    struct sound *sound = &machine->sound;
    machine->ready_at = -1;
    machine->replies_before = machine->device.stats.replies;
    machine->replies = 0;
    for (int i = 0; i < EVENTS_MAX; i++) {
        machine->onset_at[i] = -1;
        machine->options.events[i].done = false;
    }
    for (int i = 0; i < sound->utterance_count; i++) {
        struct sound_utterance *utterance = &sound->utterances[i];
        utterance->start = utterance->loud_at = utterance->silent_at = -1;
        utterance->over_reply = false;
    }
}

/* The device is switched off and on again. */
static void end_cycle(struct machine *machine) {
    machine->cycles++;
    if (machine->cycles < machine->options.cycles) {
        network_close(machine->network);
        la_backoff_reset(&machine->device.backoff); /* it lives in RAM */
        la_device_on_ws_closed(&machine->device, 0);
        begin_cycle(machine);
    }
}

static void do_events(struct machine *machine) {
    note_replies(machine);
    for (int i = 0; i < machine->options.event_count; i++) {
        struct event *event = &machine->options.events[i];
        int64_t at = due(machine, event);
        if (event->done || at < 0 || machine->sound.now < at) {
            continue;
        }
        event->done = true;
        switch (event->kind) {
        case EVENT_SAY:
            machine->sound.utterances[event->utterance].start = machine->sound.now;
            break;
        case EVENT_PRESS:
            machine->button_until = machine->sound.now + (int64_t)event->press_ms * SOUND_PER_MS;
            break;
        case EVENT_CUT:
            network_cut(machine->network);
            break;
        case EVENT_END:
            end_cycle(machine);
            return; /* the events are those of the next cycle now */
        }
    }
}

static void sleep_until(la_ms then) {
    struct timespec moment = {.tv_sec = then / 1000, .tv_nsec = then % 1000 * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL) == EINTR) {
    }
}

static int run(struct machine *machine) {
    la_ms started = network_now();
    begin_cycle(machine);
    for (la_ms tick = started; machine->cycles < machine->options.cycles;
         tick += machine->options.tick_ms) {
        sleep_until(tick);
        int64_t until = (network_now() - started) * SOUND_PER_MS;
        if (sound_advance(&machine->sound, until) < 0) {
            fprintf(stderr, "la_device: %s: %s\n", machine->options.speaker_path, strerror(errno));
            return 1;
        }
        do_events(machine);
        network_deliver(machine->network, &machine->device, machine->options.piece_bytes);
        la_device_tick(&machine->device);
    }
    return 0;
}

/* --- start and end ------------------------------------------------------------------------ */

static int open_machine(struct machine *machine) {
    struct options *options = &machine->options;
    struct sound *sound = &machine->sound;
    memcpy(sound->utterances, options->utterances, sizeof sound->utterances);
    sound->utterance_count = options->utterance_count;
    sound->echo = options->echo;
    sound->noise = options->noise;
    sound->last_sound = -1;
    machine->random = options->seed * 2654435761U | 1U; /* spreads small seeds */
    if (options->speaker_path != NULL) {
        sound->output = wav_create(options->speaker_path, SOUND_RATE);
        if (sound->output == NULL) {
            fprintf(stderr, "la_device: --speaker %s: %s\n", options->speaker_path,
                    strerror(errno));
            return 1;
        }
    }
    machine->set_led = (struct la_tool){
        .name = "set_led",
        .description = "Set the colour of the device's light.",
        .parameters = "{\"type\":\"object\",\"properties\":{\"color\":{\"type\":\"string\"}},"
                      "\"required\":[\"color\"]}",
        .run = run_set_led,
        .context = machine,
    };
    options->config.tools = &machine->set_led;
    options->config.tool_count = 1;
    options->config.playback_memory = machine->playback;
    options->config.playback_samples = LA_PLAYBACK_SAMPLES_MIN;
    struct la_port port = port_of(machine);
    int problem = la_device_init(&machine->device, &options->config, &port);
    if (problem != LA_OK) {
        fprintf(stderr, "la_device: la_device_init: error %d\n", problem);
        return 1;
    }
    machine->network = network_start(&options->url, options->key, options->faults);
    if (machine->network == NULL) {
        fputs("la_device: the network's thread cannot be started\n", stderr);
        return 1;
    }
    return 0;
}

static int close_machine(struct machine *machine) {
    int status = 0;
    if (machine->network != NULL) {
        if (report_write(&machine->options, &machine->device, &machine->sound, machine->network,
                         machine->cycles) < 0) {
            fprintf(stderr, "la_device: the report cannot be written: %s\n", strerror(errno));
            status = 1;
        }
        network_stop(machine->network);
    }
    if (machine->sound.output != NULL && wav_finish(machine->sound.output) < 0) {
        fprintf(stderr, "la_device: %s: %s\n", machine->options.speaker_path, strerror(errno));
        status = 1;
    }
    return status;
}

int main(int argc, char **argv) {
    static struct machine machine;
    int status = options_parse(&machine.options, argc, argv);
    if (status == 0) {
        status = open_machine(&machine);
        if (status == 0) {
            status = run(&machine);
        }
        int end = close_machine(&machine);
        status = status != 0 ? status : end;
    }
    options_free(&machine.options);
    return status < 0 ? 0 : status;
}
