#include "la_fsm.h"

#define ALWAYS (1U << LA_LISTEN_ALWAYS)
#define PUSH (1U << LA_LISTEN_PUSH_TO_TALK)
#define WAKE (1U << LA_LISTEN_WAKE_WORD)
#define OPEN (ALWAYS | WAKE) /* the microphone stays open during a conversation */
#define ANY (OPEN | PUSH)

/* What silences the loudspeaker for good and tells the server where. */
#define STOP (LA_ACTION_FLUSH | LA_ACTION_REPORT)

struct transition {
    enum la_state state;
    enum la_event event;
    uint32_t modes;
    enum la_state next;
    uint32_t actions;
};

#define S(name) LA_STATE_##name
#define E(name) LA_EVENT_##name
#define DO(name) LA_ACTION_##name

static const struct transition TRANSITIONS[] = {
    /* the connection */
    {S(DISCONNECTED), E(TIMEOUT), ANY, S(CONNECTING), DO(OPEN_WS)},
    {S(CONNECTING), E(WS_OPENED), ANY, S(STARTING), DO(START_SESSION)},
    {S(CONNECTING), E(TIMEOUT), ANY, S(DISCONNECTED), DO(CLOSE_WS)},
    {S(STARTING), E(TIMEOUT), ANY, S(DISCONNECTED), DO(CLOSE_WS)},
    {S(STARTING), E(READY), ALWAYS, S(LISTENING), 0},
    {S(STARTING), E(READY), PUSH | WAKE, S(IDLE), 0},

    /* the user's turn */
    {S(IDLE), E(BUTTON_DOWN), PUSH, S(HEARING), 0},
    {S(IDLE), E(BUTTON_DOWN), WAKE, S(LISTENING), 0},
    {S(IDLE), E(WAKE_WORD), WAKE, S(LISTENING), 0},
    {S(IDLE), E(THINKING), ANY, S(THINKING), 0},
    {S(IDLE), E(STREAM_STARTED), ANY, S(SPEAKING), 0},
    {S(LISTENING), E(HEARING), OPEN, S(HEARING), 0},
    {S(LISTENING), E(THINKING), OPEN, S(THINKING), 0},
    {S(LISTENING), E(STREAM_STARTED), OPEN, S(SPEAKING), 0},
    {S(LISTENING), E(TIMEOUT), WAKE, S(IDLE), 0},
    {S(HEARING), E(LISTENING), OPEN, S(LISTENING), 0},
    {S(HEARING), E(THINKING), OPEN, S(THINKING), 0},
    {S(HEARING), E(STREAM_STARTED), OPEN, S(SPEAKING), 0},
    {S(HEARING), E(STREAM_STARTED), PUSH, S(HEARING), STOP | DO(INTERRUPT)}, /* a late reply */
    {S(HEARING), E(BUTTON_UP), PUSH, S(THINKING), DO(END_OF_SPEECH)},

    /* the reply is on its way */
    {S(THINKING), E(STREAM_STARTED), ANY, S(SPEAKING), 0},
    {S(THINKING), E(HEARING), OPEN, S(HEARING), 0},
    {S(THINKING), E(LISTENING), OPEN, S(LISTENING), 0},
    {S(THINKING), E(LISTENING), PUSH, S(IDLE), 0},
    {S(THINKING), E(FAILED), OPEN, S(LISTENING), 0},
    {S(THINKING), E(FAILED), PUSH, S(IDLE), 0},
    {S(THINKING), E(TIMEOUT), OPEN, S(LISTENING), 0},
    {S(THINKING), E(TIMEOUT), PUSH, S(IDLE), 0},
    {S(THINKING), E(BUTTON_DOWN), OPEN, S(LISTENING), DO(INTERRUPT)},
    {S(THINKING), E(BUTTON_DOWN), PUSH, S(HEARING), DO(INTERRUPT)},

    /* the reply is played */
    {S(SPEAKING), E(STREAM_PLAYED), OPEN, S(LISTENING), 0},
    {S(SPEAKING), E(STREAM_PLAYED), PUSH, S(IDLE), 0},
    {S(SPEAKING), E(SUSPICION), OPEN, S(SUSPECTED), DO(PAUSE) | DO(REPORT)},
    {S(SPEAKING), E(PAUSE), ANY, S(HELD), DO(PAUSE)},
    {S(SPEAKING), E(FLUSH), OPEN, S(LISTENING), DO(FLUSH)},
    {S(SPEAKING), E(FLUSH), PUSH, S(IDLE), DO(FLUSH)},
    {S(SPEAKING), E(BUTTON_DOWN), OPEN, S(LISTENING), STOP | DO(INTERRUPT)},
    {S(SPEAKING), E(BUTTON_DOWN), PUSH, S(HEARING), STOP | DO(INTERRUPT)},

    /* it is silent, and may go on */
    {S(SUSPECTED), E(PAUSE), ANY, S(HELD), 0},
    {S(SUSPECTED), E(RESUME), ANY, S(SPEAKING), DO(RESUME)},
    {S(SUSPECTED), E(TIMEOUT), ANY, S(SPEAKING), DO(RESUME)},
    {S(SUSPECTED), E(STREAM_STARTED), ANY, S(SPEAKING), DO(RESUME)},
    {S(SUSPECTED), E(STREAM_PLAYED), OPEN, S(LISTENING), DO(RESUME)},
    {S(SUSPECTED), E(FLUSH), OPEN, S(LISTENING), DO(FLUSH)},
    {S(SUSPECTED), E(BUTTON_DOWN), OPEN, S(LISTENING), STOP | DO(INTERRUPT)},
    {S(HELD), E(RESUME), ANY, S(SPEAKING), DO(RESUME)},
    {S(HELD), E(TIMEOUT), ANY, S(SPEAKING), DO(RESUME)},
    {S(HELD), E(STREAM_STARTED), ANY, S(SPEAKING), DO(RESUME)},
    {S(HELD), E(STREAM_PLAYED), OPEN, S(LISTENING), DO(RESUME)}, /* its end came after the pause */
    {S(HELD), E(STREAM_PLAYED), PUSH, S(IDLE), DO(RESUME)},
    {S(HELD), E(FLUSH), OPEN, S(LISTENING), DO(FLUSH)},
    {S(HELD), E(FLUSH), PUSH, S(IDLE), DO(FLUSH)},
    {S(HELD), E(BUTTON_DOWN), OPEN, S(LISTENING), STOP | DO(INTERRUPT)},
    {S(HELD), E(BUTTON_DOWN), PUSH, S(HEARING), STOP | DO(INTERRUPT)},
};

static const struct {
    const char *name;
    uint32_t limit_modes; /* where the limit holds */
    uint32_t limit_ms;    /* 0: may last for ever */
} STATES[LA_STATE_COUNT] = {
    [S(DISCONNECTED)] = {"disconnected", 0, 0}, /* la_fsm_wait */
    [S(CONNECTING)] = {"connecting", ANY, 10000},
    [S(STARTING)] = {"starting", ANY, 10000},
    [S(IDLE)] = {"idle", 0, 0},
    [S(LISTENING)] = {"listening", WAKE, 8000}, /* then the wake word is needed again */
    [S(HEARING)] = {"hearing", 0, 0},
    [S(THINKING)] = {"thinking", ANY, 10000}, /* spec 002, section 6.3; a late reply still plays */
    [S(SPEAKING)] = {"speaking", 0, 0},
    [S(SUSPECTED)] = {"suspected", ANY, 600}, /* the server hears it 0.1 s after us, or never */
    [S(HELD)] = {"held", ANY, 5000},          /* the server decides within 1.5 s */
};

static const char *const EVENT_NAMES[LA_EVENT_COUNT] = {
    [E(WS_OPENED)] = "ws_opened",
    [E(WS_CLOSED)] = "ws_closed",
    [E(READY)] = "ready",
    [E(LISTENING)] = "listening",
    [E(HEARING)] = "hearing",
    [E(THINKING)] = "thinking",
    [E(STREAM_STARTED)] = "stream_started",
    [E(STREAM_PLAYED)] = "stream_played",
    [E(PAUSE)] = "pause",
    [E(RESUME)] = "resume",
    [E(FLUSH)] = "flush",
    [E(SUSPICION)] = "suspicion",
    [E(BUTTON_DOWN)] = "button_down",
    [E(BUTTON_UP)] = "button_up",
    [E(WAKE_WORD)] = "wake_word",
    [E(FAILED)] = "failed",
    [E(TIMEOUT)] = "timeout",
};

static void enter(struct la_fsm *fsm, enum la_state state, la_ms now) {
    if (fsm->state == state) {
        return;
    }
    bool limited = (STATES[state].limit_modes & (1U << fsm->mode)) != 0;
    fsm->state = state;
    fsm->deadline = limited ? now + STATES[state].limit_ms : LA_NEVER;
}

void la_fsm_init(struct la_fsm *fsm, enum la_listen_mode mode, la_ms now) {
    *fsm = (struct la_fsm){.state = S(DISCONNECTED), .mode = mode, .deadline = now};
}

uint32_t la_fsm_step(struct la_fsm *fsm, enum la_event event, la_ms now) {
    if (event == E(WS_CLOSED)) { /* the one event that every state answers in the same way */
        bool was_connected = fsm->state != S(DISCONNECTED);
        enter(fsm, S(DISCONNECTED), now);
        return was_connected ? DO(FLUSH) : 0;
    }
    for (size_t i = 0; i < sizeof TRANSITIONS / sizeof *TRANSITIONS; i++) {
        const struct transition *row = &TRANSITIONS[i];
        if (row->state == fsm->state && row->event == event &&
            (row->modes & (1U << fsm->mode)) != 0) {
            enter(fsm, row->next, now);
            return row->actions;
        }
    }
    return 0;
}

void la_fsm_wait(struct la_fsm *fsm, la_ms until) {
    if (fsm->state == S(DISCONNECTED)) {
        fsm->deadline = until;
    }
}

bool la_fsm_sends_mic(const struct la_fsm *fsm) {
    if (fsm->mode == LA_LISTEN_PUSH_TO_TALK) {
        return fsm->state == S(HEARING);
    }
    return fsm->state >= S(LISTENING);
}

const char *la_state_name(enum la_state state) {
    return state < LA_STATE_COUNT ? STATES[state].name : "unknown";
}

const char *la_event_name(enum la_event event) {
    return event < LA_EVENT_COUNT ? EVENT_NAMES[event] : "unknown";
}
