#include "options.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char HELP[] =
    "la_device: the firmware's core on this machine, with WAV files for its microphone and "
    "loudspeaker\n"
    "\n"
    "  la_device --url ws://HOST:PORT/ [options]\n"
    "\n"
    "What happens.  WHEN is milliseconds after the session is ready, or rN+MS: after the first\n"
    "sound of the N-th reply.\n"
    "  --say WAV@WHEN        speak a 16 kHz 16-bit mono file (up to 16 times)\n"
    "  --press MS@WHEN       hold the button down so long\n"
    "  --cut WHEN            break the connection, as a pulled cable does\n"
    "  --end WHEN            stop (default 10000)\n"
    "  --cycles N            do all of this N times, connecting anew (default 1)\n"
    "The device\n"
    "  --session ID          session id (default: a random one)\n"
    "  --key KEY             API key\n"
    "  --mode always|push-to-talk      when the microphone is sent (default always)\n"
    "  --dialect listenai|hotpin       the protocol (default listenai; hotpin is push-to-talk)\n"
    "  --barge-in local|server         who may pause first (default local)\n"
    "  --echo cancelled|raw|unknown    what the server is told (default unknown)\n"
    "  --tick 10|16          milliseconds between two ticks of the core (default 10)\n"
    "  --piece BYTES         messages reach the core in pieces of this size (default 1024)\n"
    "The room\n"
    "  --echo-path DELAY_MS,GAIN_DB[,TAP...]   the microphone hears the loudspeaker; taps of the\n"
    "                        FIR filter behind delay and gain, one sample apart (default: 1)\n"
    "  --noise DBFS          white noise in the microphone\n"
    "The network\n"
    "  --delay MS            of every message, both ways\n"
    "  --stall MS/EVERY_MS   nothing gets through for MS, every EVERY_MS\n"
    "Output\n"
    "  --speaker WAV         all that the loudspeaker played, from the program's start on\n"
    "  --report FILE         what happened, as JSON (default: standard output)\n"
    "  --tell                state changes on standard error\n"
    "  --seed N              of the random numbers (default: the process id)\n";

static int complain(const char *option, const char *value, const char *problem) {
    fprintf(stderr, "la_device: %s %s: %s (la_device --help says more)\n", option, value, problem);
    return 2;
}

/* --- values ------------------------------------------------------------------------------- */

static bool whole(const char *text, long low, long high, int *value) {
    char *end = NULL;
    long number = strtol(text, &end, 10);
    *value = (int)number;
    return end != text && *end == '\0' && number >= low && number <= high;
}

/* The position of a value in a list of names, or -1. */
static int named(const char *value, const char *const *names) {
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], value) == 0) {
            return i;
        }
    }
    return -1;
}

static bool parse_when(const char *text, struct event *event) {
    if (*text == 'r') {
        char *end = NULL;
        event->reply = (int)strtol(text + 1, &end, 10);
        if (end == text + 1 || *end != '+' || event->reply < 1) {
            return false;
        }
        text = end + 1;
    }
    return whole(text, 0, 3600000, &event->ms);
}

static struct event *new_event(struct options *options, enum event_kind kind) {
    if (options->event_count == EVENTS_MAX) {
        return NULL;
    }
    struct event *event = &options->events[options->event_count++];
    *event = (struct event){.kind = kind};
    return event;
}

static const char WHEN[] = "must be WHEN: milliseconds, or rN+MS";
static const char TOO_MANY[] = "is one event too many: at most 32, of them 16 to be said";

static int parse_say(struct options *options, char *value) {
    char *at = strrchr(value, '@');
    struct event *event = new_event(options, EVENT_SAY);
    if (event == NULL || options->utterance_count == SOUND_UTTERANCES_MAX) {
        return complain("--say", value, TOO_MANY);
    }
    if (at == NULL || !parse_when(at + 1, event)) {
        return complain("--say", value, "must be WAV@WHEN");
    }
    *at = '\0';
    event->utterance = options->utterance_count;
    struct wav *wav = &options->utterances[options->utterance_count].wav;
    const char *problem = wav_read(value, wav);
    if (problem == NULL && wav->sample_rate != SOUND_RATE) {
        problem = "must have 16000 samples a second";
    }
    if (problem != NULL) {
        return complain("--say", value, problem);
    }
    options->utterance_paths[options->utterance_count++] = value;
    return 0;
}

static int parse_press(struct options *options, char *value) {
    char *at = strchr(value, '@');
    struct event *event = new_event(options, EVENT_PRESS);
    if (event == NULL) {
        return complain("--press", value, TOO_MANY);
    }
    if (at != NULL) {
        *at = '\0';
        if (whole(value, 1, 60000, &event->press_ms) && parse_when(at + 1, event)) {
            return 0;
        }
    }
    return complain("--press", value, "must be MS@WHEN");
}

static int parse_moment(struct options *options, enum event_kind kind, const char *value) {
    struct event *event = new_event(options, kind);
    const char *option = kind == EVENT_CUT ? "--cut" : "--end";
    if (event == NULL) {
        return complain(option, value, TOO_MANY);
    }
    return parse_when(value, event) ? 0 : complain(option, value, WHEN);
}

static int parse_echo_path(struct options *options, const char *value) {
    struct sound_echo *echo = &options->echo;
    char *end = NULL;
    double delay_ms = strtod(value, &end);
    bool good = end != value && *end == ',' && delay_ms >= 0 &&
                (int)(delay_ms * SOUND_RATE / 1000) < SOUND_ECHO_DELAY_MAX;
    const char *at = end + (good ? 1 : 0);
    double gain_db = good ? strtod(at, &end) : 0;
    good = good && end != at;
    while (good && *end == ',' && echo->taps < SOUND_FIR_MAX) {
        at = end + 1;
        echo->fir[echo->taps++] = strtod(at, &end);
        good = end != at;
    }
    if (!good || *end != '\0') {
        return complain("--echo-path", value,
                        "must be DELAY_MS,GAIN_DB[,TAP...]: below 500 ms, at most 64 taps");
    }
    if (echo->taps == 0) {
        echo->fir[echo->taps++] = 1;
    }
    for (int tap = 0; tap < echo->taps; tap++) {
        echo->fir[tap] *= pow(10, gain_db / 20);
    }
    echo->delay_samples = (int)(delay_ms * SOUND_RATE / 1000);
    return 0;
}

static int parse_stall(struct options *options, char *value) {
    char *slash = strchr(value, '/');
    if (slash != NULL) {
        *slash = '\0';
        if (whole(value, 1, 60000, &options->faults.stall_ms) &&
            whole(slash + 1, options->faults.stall_ms + 1, 600000,
                  &options->faults.stall_every_ms)) {
            return 0;
        }
    }
    return complain("--stall", value, "must be MS/EVERY_MS, the second one larger");
}

/* --- options ------------------------------------------------------------------------------ */

enum option_value {
    OPTION_URL = 256, OPTION_SAY, OPTION_PRESS, OPTION_CUT, OPTION_END, OPTION_CYCLES,
    OPTION_SESSION, OPTION_KEY, OPTION_MODE, OPTION_DIALECT, OPTION_BARGE_IN, OPTION_ECHO,
    OPTION_TICK, OPTION_PIECE, OPTION_ECHO_PATH, OPTION_NOISE, OPTION_DELAY, OPTION_STALL,
    OPTION_SPEAKER, OPTION_REPORT, OPTION_TELL, OPTION_SEED, OPTION_HELP
};

static const struct option LONG_OPTIONS[] = {
    {"url", required_argument, NULL, OPTION_URL},
    {"say", required_argument, NULL, OPTION_SAY},
    {"press", required_argument, NULL, OPTION_PRESS},
    {"cut", required_argument, NULL, OPTION_CUT},
    {"end", required_argument, NULL, OPTION_END},
    {"cycles", required_argument, NULL, OPTION_CYCLES},
    {"session", required_argument, NULL, OPTION_SESSION},
    {"key", required_argument, NULL, OPTION_KEY},
    {"mode", required_argument, NULL, OPTION_MODE},
    {"dialect", required_argument, NULL, OPTION_DIALECT},
    {"barge-in", required_argument, NULL, OPTION_BARGE_IN},
    {"echo", required_argument, NULL, OPTION_ECHO},
    {"tick", required_argument, NULL, OPTION_TICK},
    {"piece", required_argument, NULL, OPTION_PIECE},
    {"echo-path", required_argument, NULL, OPTION_ECHO_PATH},
    {"noise", required_argument, NULL, OPTION_NOISE},
    {"delay", required_argument, NULL, OPTION_DELAY},
    {"stall", required_argument, NULL, OPTION_STALL},
    {"speaker", required_argument, NULL, OPTION_SPEAKER},
    {"report", required_argument, NULL, OPTION_REPORT},
    {"tell", no_argument, NULL, OPTION_TELL},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_choice(struct options *options, int option, const char *value) {
    static const char *const MODES[] = {"always", "push-to-talk", NULL};
    static const char *const DIALECTS[] = {"listenai", "hotpin", NULL};
    static const char *const BARGE_INS[] = {"server", "local", NULL};
    static const char *const ECHOES[] = {"unknown", "raw", "cancelled", NULL};
    struct la_config *config = &options->config;
    int choice = -1;
    switch (option) {
    case OPTION_MODE:
        choice = named(value, MODES);
        config->mode = choice == 1 ? LA_LISTEN_PUSH_TO_TALK : LA_LISTEN_ALWAYS;
        return choice >= 0 ? 0 : complain("--mode", value, "must be always or push-to-talk");
    case OPTION_DIALECT:
        choice = named(value, DIALECTS);
        config->dialect = choice == 1 ? LA_DIALECT_HOTPIN : LA_DIALECT_LISTENAI;
        return choice >= 0 ? 0 : complain("--dialect", value, "must be listenai or hotpin");
    case OPTION_BARGE_IN:
        choice = named(value, BARGE_INS);
        config->local_barge_in = choice == 1;
        return choice >= 0 ? 0 : complain("--barge-in", value, "must be local or server");
    default:
        choice = named(value, ECHOES);
        config->echo = choice == 1   ? LA_ECHO_RAW
                       : choice == 2 ? LA_ECHO_CANCELLED
                                     : LA_ECHO_UNKNOWN;
        return choice >= 0 ? 0 : complain("--echo", value, "must be cancelled, raw or unknown");
    }
}

static int parse_number(struct options *options, int option, const char *value) {
    int number = 0;
    switch (option) {
    case OPTION_CYCLES:
        return whole(value, 1, 100000, &options->cycles)
                   ? 0
                   : complain("--cycles", value, "must be a whole number from 1 to 100000");
    case OPTION_TICK:
        return whole(value, 1, 20, &options->tick_ms)
                   ? 0
                   : complain("--tick", value, "must be a whole number from 1 to 20");
    case OPTION_PIECE:
        if (!whole(value, 1, 4096, &number)) {
            return complain("--piece", value, "must be a whole number from 1 to 4096");
        }
        options->piece_bytes = (size_t)number;
        return 0;
    case OPTION_DELAY:
        return whole(value, 0, 10000, &options->faults.delay_ms)
                   ? 0
                   : complain("--delay", value, "must be a whole number from 0 to 10000");
    case OPTION_NOISE:
        if (!whole(value, -120, 0, &number)) {
            return complain("--noise", value, "must be a whole number from -120 to 0");
        }
        options->noise = 32768 * pow(10, number / 20.0) * sqrt(3); /* uniform, of this power */
        return 0;
    default:
        if (!whole(value, 1, 1000000000, &number)) {
            return complain("--seed", value, "must be a whole number from 1 to 1000000000");
        }
        options->seed = (uint32_t)number;
        return 0;
    }
}

static int parse_one(struct options *options, int option, char *value, bool *has_url) {
    const char *problem = NULL;
    switch (option) {
    case OPTION_URL:
        problem = network_parse_url(value, &options->url);
        *has_url = true;
        return problem == NULL ? 0 : complain("--url", value, problem);
    case OPTION_SAY:
        return parse_say(options, value);
    case OPTION_PRESS:
        return parse_press(options, value);
    case OPTION_CUT:
        return parse_moment(options, EVENT_CUT, value);
    case OPTION_END:
        return parse_moment(options, EVENT_END, value);
    case OPTION_ECHO_PATH:
        return parse_echo_path(options, value);
    case OPTION_STALL:
        return parse_stall(options, value);
    case OPTION_SESSION:
        options->config.session_id = value;
        return la_proto_is_id(value)
                   ? 0
                   : complain("--session", value,
                              "must be 1 to 64 letters, digits, '_', '.' or '-'");
    case OPTION_KEY:
        options->key = value;
        return strlen(value) < 256 ? 0 : complain("--key", "(hidden)", "is longer than 255");
    case OPTION_SPEAKER:
        options->speaker_path = value;
        return 0;
    case OPTION_REPORT:
        options->report_path = value;
        return 0;
    case OPTION_TELL:
        options->tells = true;
        return 0;
    case OPTION_MODE:
    case OPTION_DIALECT:
    case OPTION_BARGE_IN:
    case OPTION_ECHO:
        return parse_choice(options, option, value);
    case OPTION_HELP:
        fputs(HELP, stdout);
        return -1;
    case '?':
        return 2; /* getopt has said it */
    default:
        return parse_number(options, option, value);
    }
}

static bool ends(const struct options *options) {
    for (int i = 0; i < options->event_count; i++) {
        if (options->events[i].kind == EVENT_END) {
            return true;
        }
    }
    return false;
}

int options_parse(struct options *options, int argc, char **argv) {
    memset(options, 0, sizeof *options);
    la_config_defaults(&options->config);
    options->tick_ms = LA_TICK_MS;
    options->piece_bytes = 1024; /* as esp_websocket_client's buffer */
    options->cycles = 1;
    options->seed = (uint32_t)getpid(); /* two devices must not share a session id */
    bool has_url = false;
    int option = 0;
    while ((option = getopt_long(argc, argv, "", LONG_OPTIONS, NULL)) != -1) {
        int status = parse_one(options, option, optarg, &has_url);
        if (status != 0) {
            return status;
        }
    }
    if (!has_url || optind < argc) {
        fputs("la_device: --url is needed, and nothing but options (la_device --help)\n", stderr);
        return 2;
    }
    if (options->config.dialect == LA_DIALECT_HOTPIN) {
        options->config.mode = LA_LISTEN_PUSH_TO_TALK;
        options->config.api_key = options->key;
        options->key = NULL; /* it is in the handshake's message */
    }
    if (!ends(options)) {
        struct event *end = new_event(options, EVENT_END);
        if (end == NULL) {
            return complain("--end", "10000", TOO_MANY);
        }
        end->ms = 10000;
    }
    return 0;
}

void options_free(struct options *options) {
    for (int i = 0; i < options->utterance_count; i++) {
        free(options->utterances[i].wav.pcm);
    }
}
