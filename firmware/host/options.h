/* The command line of the virtual device. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "network.h"
#include "sound.h"

enum { EVENTS_MAX = 32 };

enum event_kind { EVENT_SAY, EVENT_PRESS, EVENT_CUT, EVENT_END };

/* Something that happens at a time. */
struct event {
    enum event_kind kind;
    int reply;      /* 0: counted from when the session was ready; n: from the n-th reply's sound */
    int ms;
    int utterance;  /* of EVENT_SAY */
    int press_ms;   /* of EVENT_PRESS */
    bool done;
};

struct options {
    struct network_url url;
    struct network_faults faults;
    struct la_config config;
    struct event events[EVENTS_MAX];
    int event_count;
    struct sound_utterance utterances[SOUND_UTTERANCES_MAX];
    const char *utterance_paths[SOUND_UTTERANCES_MAX];
    int utterance_count;
    struct sound_echo echo;
    double noise;
    const char *key;
    const char *speaker_path;
    const char *report_path; /* NULL: standard output */
    size_t piece_bytes;
    int tick_ms;
    int cycles;
    uint32_t seed;
    bool tells;              /* state changes on standard error */
};

/* 0, or an exit status after having said what is wrong, or the help, that was asked for. */
int options_parse(struct options *options, int argc, char **argv);
void options_free(struct options *options);

#endif
