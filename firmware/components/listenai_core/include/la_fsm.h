/* What the device is doing: one table of (state, event) -> (next state, actions).
 *
 * The machine decides, and does nothing itself: the caller performs the actions.  A pair that is
 * not in the table changes nothing.  States with a limit of time ask for LA_EVENT_TIMEOUT. */
#ifndef LA_FSM_H
#define LA_FSM_H

#include "la_types.h"

enum la_state {
    LA_STATE_DISCONNECTED, /* waits before it connects (again) */
    LA_STATE_CONNECTING,   /* the WebSocket is being opened */
    LA_STATE_STARTING,     /* the session was asked for */
    LA_STATE_IDLE,         /* ready; the microphone is not sent */
    LA_STATE_LISTENING,    /* the microphone is sent */
    LA_STATE_HEARING,      /* the user speaks */
    LA_STATE_THINKING,     /* a reply is on its way */
    LA_STATE_SPEAKING,     /* a reply is played */
    LA_STATE_SUSPECTED,    /* paused: we believe that the user speaks; the server has not said so */
    LA_STATE_HELD,         /* paused by the server, which is finding out */
    LA_STATE_COUNT
};

enum la_event {
    LA_EVENT_WS_OPENED,
    LA_EVENT_WS_CLOSED,
    LA_EVENT_READY,          /* the server has the session */
    LA_EVENT_LISTENING,      /* the server says: listening */
    LA_EVENT_HEARING,        /* the server says: the user speaks */
    LA_EVENT_THINKING,       /* the server says: a reply is on its way */
    LA_EVENT_STREAM_STARTED, /* audio follows */
    LA_EVENT_STREAM_PLAYED,  /* the last stream is over: la_playback_pump */
    LA_EVENT_PAUSE,          /* of the stream that is open, as the next two */
    LA_EVENT_RESUME,
    LA_EVENT_FLUSH,
    LA_EVENT_SUSPICION,      /* the microphone is louder than our echo */
    LA_EVENT_BUTTON_DOWN,
    LA_EVENT_BUTTON_UP,
    LA_EVENT_WAKE_WORD,
    LA_EVENT_FAILED,         /* the server could not do this turn */
    LA_EVENT_TIMEOUT,
    LA_EVENT_COUNT
};

enum la_action {
    LA_ACTION_OPEN_WS = 1 << 0,
    LA_ACTION_CLOSE_WS = 1 << 1,
    LA_ACTION_START_SESSION = 1 << 2,
    LA_ACTION_END_OF_SPEECH = 1 << 3, /* tell the server that the utterance ends here */
    LA_ACTION_INTERRUPT = 1 << 4,     /* tell the server to stop the reply */
    LA_ACTION_PAUSE = 1 << 5,         /* the loudspeaker: silent, keeping the queue */
    LA_ACTION_RESUME = 1 << 6,
    LA_ACTION_FLUSH = 1 << 7,         /* the loudspeaker: silent, forgetting the queue */
    LA_ACTION_REPORT = 1 << 8         /* tell the server what was played */
};

struct la_fsm {
    enum la_state state;
    enum la_listen_mode mode;
    la_ms deadline; /* when LA_EVENT_TIMEOUT is due, or LA_NEVER */
};

/* Starts in LA_STATE_DISCONNECTED; the first connection is due at once. */
void la_fsm_init(struct la_fsm *fsm, enum la_listen_mode mode, la_ms now);

/* What is to be done about an event: `enum la_action`s, or-ed. */
uint32_t la_fsm_step(struct la_fsm *fsm, enum la_event event, la_ms now);

/* Puts the deadline of LA_STATE_DISCONNECTED, which only the backoff knows. */
void la_fsm_wait(struct la_fsm *fsm, la_ms until);

/* Whether the microphone goes to the server in this state. */
bool la_fsm_sends_mic(const struct la_fsm *fsm);

/* The state's or event's name in lower case, for a log line. */
const char *la_state_name(enum la_state state);
const char *la_event_name(enum la_event event);

#endif
