"""One turn: what caused it, and what has become of it so far.

The scope exists from the decision on, before the turn runs: `cancel` works at
any time.  What was sent is written down at the moment the writer takes it, so
that the ledger never knows more or less than the device was given.
"""

from __future__ import annotations

import attrs
import trio

from listenai.conversation.actions import Cause, UserSaid
from listenai.conversation.items import Item
from listenai.conversation.outbox import Gate
from listenai.conversation.stream import Stream
from listenai.engines.base import ReplyUsage
from listenai.events import AudioChunk, Certainty, Notice, State, TextDelta, TurnMetrics
from listenai.observer import TurnOutcome


@attrs.define
class Marks:
    """When what happened first, in Trio's time."""

    started: float | None = None
    first_token: float | None = None
    first_sentence: float | None = None
    first_audio: float | None = None
    text_done: float | None = None
    audio_done: float | None = None
    ended: float | None = None

    def reach(self, name: str) -> None:
        """This happens now, unless it has happened before."""
        if getattr(self, name) is None:
            setattr(self, name, trio.current_time())


@attrs.frozen
class ToolRound:
    """Tools called after this much of the reply's text, and what came of them."""

    text_length: int
    items: list[Item]


@attrs.define(eq=False)
class Turn:
    """One reply and its cause."""

    id: int
    cause: Cause
    began_at: float  # seconds since the epoch
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gate: Gate = Gate.OPEN
    stream: Stream | None = None
    text: str = ""  # everything the chat model wrote
    shown_text: str = ""  # what of it was sent to the device
    rounds: list[ToolRound] = attrs.field(factory=list)
    outcome: TurnOutcome = TurnOutcome.CUT_OFF  # until it is known better
    voiceless: bool = False  # the device was told that the voice has failed
    asked_for_patience: bool = False  # while its tools were silent
    usage: ReplyUsage | None = None  # of all the chat model's answers, where it tells
    marks: Marks = attrs.field(factory=Marks)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def taken(self, event: Notice, now: float) -> None:
        """The writer has this message."""
        match event:
            case TextDelta(text=text):
                self.shown_text += text
            case AudioChunk():
                self.marks.reach("first_audio")
        if self.stream:
            self.stream.taken(event, now)

    def count_tokens(self, usage: ReplyUsage) -> None:
        """The chat model says what an answer cost."""
        before = self.usage or ReplyUsage(0, 0)
        self.usage = ReplyUsage(
            before.prompt_tokens + usage.prompt_tokens,
            before.completion_tokens + usage.completion_tokens,
        )

    def set_gate(self, gate: Gate) -> None:
        """Holds, opens or (for ever) shuts the turn; whoever waits for it looks again."""
        self.gate = gate
        self.changed()

    def changed(self) -> None:
        """Wakes those in `wait_changed`."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Until the gate, the clock or a report has changed."""
        await self._changed.wait()

    @property
    def state(self) -> State:
        """What the assistant is doing."""
        return State.SPEAKING if self.stream and self.stream.opened else State.THINKING

    def metrics(self, certainty: Certainty) -> TurnMetrics:
        """The marks, in ms after the last speech sample (or after the text came)."""
        cause, marks = self.cause, self.marks
        said = cause if isinstance(cause, UserSaid) else None
        zero = cause.last_speech_at if isinstance(cause, UserSaid) else cause.at

        def after(at: float | None) -> float | None:
            return None if at is None else round((at - zero) * 1000, 1)

        return TurnMetrics(
            self.id,
            end_of_speech_ms=after(said.ended_at) if said else None,
            transcript_ms=after(said.transcript_at) if said else None,
            turn_started_ms=after(marks.started),
            first_token_ms=after(marks.first_token),
            first_sentence_ms=after(marks.first_sentence),
            first_audio_ms=after(marks.first_audio),
            text_done_ms=after(marks.text_done),
            audio_done_ms=after(marks.audio_done),
            ended_ms=after(marks.ended),
            certainty=certainty,
        )
