"""SANS-IO: who may speak.

One plain object is told every event and answers with actions; it never waits,
so nothing can come between a decision and its effects.  Two machines run side
by side, the reply and the user (`floor_states`).

A hold ends in a release (false alarm) or an interruption, which is confirmed by
a word, by speech that still goes on after HOLD_SECONDS, or by the button.  A reply
that is not interruptible keeps the floor: what is said or typed meanwhile waits
here, so that at most one turn is alive, the latest; others are being left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from listenai.conversation.actions import (
    Action,
    BeginTurn,
    Cause,
    CommitUtterance,
    Show,
    Tell,
    ToolFinished,
    UserSaid,
    UserTyped,
)
from listenai.conversation.endpointing import Endpointer, is_backchannel
from listenai.conversation.floor_states import CHANGES, Change, Reply, User
from listenai.errors import ErrorCode
from listenai.events import (
    ErrorReported,
    InterruptPressed,
    NothingUnderstood,
    SpeechDiscarded,
    SpeechFinished,
    State,
    TextTyped,
    UserTranscript,
)
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    SpeechSuspected,
    TranscriptionDelayed,
    TranscriptionFailed,
)

HOLD_SECONDS = 1.5  # a held reply waits this long for confirmation
NEVER = float("inf")


@attrs.define
class _Draft:
    """What was understood of the utterance so far."""

    text: str = ""
    complete: bool | None = None
    segment_id: int = 0
    last_speech_at: float = 0.0
    ended_at: float = 0.0
    transcript_at: float = 0.0


@attrs.define
class Floor:
    """One conversation's floor.  Times are Trio's; every method is plain code."""

    last_turn_id: int = 0
    language: str = "en"
    interruptible: bool = True
    partial_results: bool = True
    draining: bool = False
    max_waiting_turns: int = 4  # begun and not left; the turns' channel is this long
    endpointer: Endpointer = attrs.field(factory=Endpointer)
    is_echo: Callable[[str], bool] = lambda _text: False
    reply: Reply = Reply.NONE
    user: User = User.SILENT
    _draft: _Draft = attrs.field(factory=_Draft)
    _suspected: bool = False
    _awaited_segment: int | None = None  # the last one whose text is not yet known
    _finish_now: bool = False  # push-to-talk was let go: no end-of-turn delay
    announcements: deque[ToolFinished] = attrs.field(factory=deque)  # until the floor is free
    _typed_waiting: deque[UserTyped] = attrs.field(factory=deque)
    _waiting_turns: int = 0
    _hold_deadline: float = NEVER
    _turn_deadline: float = NEVER
    _actions: list[Action] = attrs.field(factory=list)

    def handle(
        self,
        event: SpeechEvent | SpeechFinished | SpeechDiscarded | TextTyped | InterruptPressed,
        now: float,
    ) -> list[Action]:
        """What follows from this event."""
        match event:
            case SpeechStarted():
                self._speech_started()
            case SpeechSuspected():
                self._speech_suspected(now)
            case PartialTranscript():
                self._partial(event)
            case SpeechEnded():
                self._speech_ended(event, now)
            case FinalTranscript():
                self._final(event, now)
            case TranscriptionFailed():
                self._failed(event, now)
            case TranscriptionDelayed():
                self._delayed(event)
            case SpeechFinished():
                self._key_released(now)
            case SpeechDiscarded():
                self._discard()
            case TextTyped(text=text):
                self._typed(text, now)
            case InterruptPressed():
                self._change(Change.CONFIRM)
                self._begin_waiting(now)
        return self._decide(now)

    def announce(self, finished: ToolFinished, now: float) -> list[Action]:
        """The user is to be told of this as soon as nobody speaks."""
        self.announcements.append(finished)
        return self._decide(now)

    @property
    def busy(self) -> bool:
        """Whether a turn was begun and not yet left."""
        return self._waiting_turns > 0

    @property
    def quiet(self) -> bool:
        """Whether nobody speaks, or is about to."""
        return not self.busy and (self.user is User.SILENT or self._is_clicking())

    def set_interruptible(self, value: bool) -> list[Action]:
        """From now on speech may, or may not, take the floor from a reply."""
        self.interruptible = value
        if not value:
            self._change(Change.FALSE_ALARM)
        return self._take_actions()

    def turn_left(self, turn_id: int, now: float) -> list[Action]:
        """The turn's scope was left and its history committed."""
        self._waiting_turns -= 1
        if turn_id == self.last_turn_id:
            self._change(Change.LEAVE)
            self._actions.append(Show(State.HEARING if self._is_speaking() else State.LISTENING))
            self._begin_waiting(now)
        return self._decide(now)

    def next_deadline(self) -> float:
        """When `expire` wants to be called."""
        return min(self._hold_ends_at(), self._turn_ends_at())

    def expire(self, now: float) -> list[Action]:
        """What is due by now."""
        if now >= self._hold_ends_at():
            self._change(Change.CONFIRM if self._is_speaking() else Change.FALSE_ALARM)
        self._commit_if_due(now)
        return self._decide(now)

    def _hold_ends_at(self) -> float:
        """When speech that goes on, or silence, decides; a transcript on its way decides first."""
        transcript_decides = self._awaited_segment is not None and not self._is_speaking()
        return NEVER if transcript_decides else self._hold_deadline

    def _turn_ends_at(self) -> float:
        """When the end-of-turn delay is over, unless a reply keeps the floor or none begins."""
        waits = self.user is not User.PAUSING or self._reply_keeps_floor() or self.draining
        return NEVER if waits else self._turn_deadline

    # --- the user speaks -------------------------------------------------------------------

    def _speech_started(self) -> None:
        self.user = User.SPEAKING
        self._suspected = False

    def _speech_suspected(self, now: float) -> None:
        self._suspected = True
        self.endpointer.speech_started(now)
        self._suspect_reply(now)
        if self.reply is not Reply.RUNNING:  # one that goes on is still what happens
            self._actions.append(Show(State.HEARING))

    def _suspect_reply(self, now: float) -> None:
        if self.interruptible and self._change(Change.SUSPECT):
            self._hold_deadline = now + HOLD_SECONDS

    def _partial(self, event: PartialTranscript) -> None:
        if self.partial_results:
            self._tell_transcript(event.text, event.segment_id, is_final=False)
        if self.interruptible and self._takes_floor(event.text):
            self._change(Change.CONFIRM)

    def _speech_ended(self, event: SpeechEnded, now: float) -> None:
        if event.transcript_follows:
            self.user = User.AWAITED
            self._awaited_segment = event.segment_id
            self._draft.last_speech_at = event.last_speech_at
            self._draft.ended_at = now
        elif self._awaited_segment is not None:  # a click behind words that are on their way
            self.user = User.AWAITED
        else:  # a click, a cough: what was said before it still stands
            self._change(Change.FALSE_ALARM)
            self._pause_or_forget(now)

    def _final(self, event: FinalTranscript, now: float) -> None:
        if event.segment_id == self._awaited_segment:
            self._awaited_segment = None
        draft = self._draft
        draft.text, draft.complete = event.text, event.complete
        draft.segment_id, draft.transcript_at = event.segment_id, now
        if self._takes_floor(event.text):
            if self.interruptible:
                self._change(Change.CONFIRM)
        elif self._reply_lives() or self.is_echo(event.text):
            draft.text = ""  # "uh-huh" while we speak, our own voice, or nothing at all
        if self.user is not User.AWAITED or self._awaited_segment is not None:
            return  # the user went on meanwhile: the next segment's text covers this one
        if not draft.text:
            self._change(Change.FALSE_ALARM)
        self._pause_or_forget(now)

    def _failed(self, event: TranscriptionFailed, now: float) -> None:
        """The segment is lost; what was understood before it still stands."""
        error = ErrorReported(event.code, event.message, timed_out=event.timed_out)
        self._actions.append(Tell(error))
        self._final(FinalTranscript(event.segment_id, self._draft.text, self._draft.complete), now)

    def _delayed(self, event: TranscriptionDelayed) -> None:
        """Its words come later, if at all: a reply does not wait for them."""
        self._actions.append(Tell(ErrorReported(event.code, event.message)))
        if not self._is_speaking():
            self._change(Change.FALSE_ALARM)

    def _key_released(self, now: float) -> None:
        if self.user is User.PAUSING:
            self._turn_deadline = now
            self._commit_if_due(now)
        elif self.user is User.SILENT:
            self._actions.append(Tell(NothingUnderstood()))
        else:
            self._finish_now = True

    def _discard(self) -> None:
        """Nothing was said."""
        self._awaited_segment = None
        self._change(Change.FALSE_ALARM)
        self._forget()
        if self.reply is Reply.NONE:
            self._actions.append(Show(State.LISTENING))

    def _pause_or_forget(self, now: float) -> None:
        if self._draft.text:
            self.user = User.PAUSING
            delay = self.endpointer.delay(self._draft.text, self._draft.complete)
            self._turn_deadline = now if self._finish_now else self._draft.last_speech_at + delay
            if self.partial_results and self._turn_deadline > now:
                self._tell_transcript(self._draft.text, self._draft.segment_id, is_final=False)
            self._commit_if_due(now)
        else:
            if self._finish_now:
                self._actions.append(Tell(NothingUnderstood()))
            self._forget()
            if self.reply is Reply.NONE:
                self._actions.append(Show(State.LISTENING))

    def _is_speaking(self) -> bool:
        """Whether somebody speaks, rather than that something clicked."""
        return self.user is User.SPEAKING and self._suspected

    def _is_clicking(self) -> bool:
        """Whether what is heard may be nothing."""
        return self.user is User.SPEAKING and not self._suspected and not self._draft.text

    def _takes_floor(self, text: str) -> bool:
        return bool(text) and not is_backchannel(text, self.language) and not self.is_echo(text)

    # --- a turn begins ---------------------------------------------------------------------

    def _reply_lives(self) -> bool:
        return self.reply in (Reply.RUNNING, Reply.HELD)

    def _reply_keeps_floor(self) -> bool:
        return self._reply_lives() and not self.interruptible

    def _commit_if_due(self, now: float) -> None:
        if now < self._turn_ends_at():
            return
        if self._is_full():  # told before it is told as final: what is final stays in history
            self._forget()
            return
        draft = self._draft
        self._change(Change.CONFIRM)  # a reply that began meanwhile, to typed text, gives way
        self.endpointer.committed(now)
        self._tell_transcript(draft.text, draft.segment_id, is_final=True)
        self._forget()
        self._begin(
            UserSaid(draft.text, draft.last_speech_at, draft.ended_at, draft.transcript_at), now
        )

    def _forget(self) -> None:
        """What the recognizer has joined is no longer wanted."""
        self._actions.append(CommitUtterance())
        self._draft = _Draft()
        self._finish_now = False
        self.user = User.SILENT

    def _typed(self, text: str, now: float) -> None:
        if self.draining:
            self._refuse(ErrorCode.SESSION_ERROR, "the server is going away")
            return
        if self._is_full():
            return
        if self.interruptible:
            self._change(Change.CONFIRM)
        self._typed_waiting.append(UserTyped(text, now))
        self._begin_waiting(now)

    def _begin_waiting(self, now: float) -> None:
        """The reply has lost the floor: what was typed or said meanwhile is next."""
        typed = self._typed_waiting
        while typed and self.draining:
            typed.popleft()
            self._refuse(ErrorCode.SESSION_ERROR, "the server is going away")
        said_first = typed and self._draft.transcript_at <= typed[0].at
        if typed and not self._reply_lives() and not (said_first and now >= self._turn_ends_at()):
            self._begin(typed.popleft(), now)
        else:
            self._commit_if_due(now)

    def _is_full(self) -> bool:
        """Whether no turn can be begun or wait; tells the device so."""
        waiting = self._waiting_turns + len(self._typed_waiting)
        if waiting < self.max_waiting_turns:
            return False
        self._refuse(ErrorCode.RATE_LIMITED, f"{waiting} turns are waiting already")
        return True

    def _refuse(self, code: ErrorCode, reason: str) -> None:
        message = f"{reason}: this was not taken, please send it again later"
        self._actions.append(Tell(ErrorReported(code, message)))

    def _begin(self, cause: Cause, now: float) -> None:
        self._waiting_turns += 1
        self.last_turn_id += 1
        self._actions.append(BeginTurn(self.last_turn_id, cause))
        self._change(Change.BEGIN)
        if self._is_speaking():
            self._suspect_reply(now)

    # --- small parts -----------------------------------------------------------------------

    def _change(self, change: Change) -> bool:
        """Moves the reply along the table; False when nothing changes."""
        if (self.reply, change) not in CHANGES:
            return False
        self.reply, action = CHANGES[self.reply, change]
        self._hold_deadline = NEVER
        if action:
            self._actions.append(action)
        return True

    def _tell_transcript(self, text: str, segment_id: int, *, is_final: bool) -> None:
        speeching = self.user is User.SPEAKING
        turn_id = self.last_turn_id + 1
        self._actions.append(Tell(UserTranscript(text, is_final, speeching, segment_id, turn_id)))

    def _decide(self, now: float) -> list[Action]:
        """What is to be done; last, what was to be announced, if nobody has the floor."""
        if self.announcements and self.quiet and not self.draining:
            self._begin(self.announcements.popleft(), now)
        return self._take_actions()

    def _take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions
