"""SANS-IO: where a turn is in the pipeline, for `processing_status` and `metrics` of spec 004.

Theory.  Spec 004 has four stages, and notices tell when each begins and ends:

stt     speech is suspected → its words are final; its latency counts from the end of speech
intent  the turn begins → it is known which tool, if any, the chat model wants
ai      that is known → the whole text is there
tts     the first audio → the last; its latency is that of the first, from the first text on

A stage that ends without its result is cancelled: the user said nothing, or took the floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import attrs

from listenai import events


class Stage(StrEnum):
    """A part of the pipeline."""

    STT = "stt"
    INTENT = "intent"
    AI = "ai"
    TTS = "tts"


class Status(StrEnum):
    """What becomes of a stage."""

    STARTED = "started"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@attrs.frozen
class StageChanged:
    """A stage began or ended."""

    stage: Stage
    status: Status
    latency_ms: float | None = None
    tool: str | None = None  # of intent: the tool that the chat model chose


Changes = Iterator[StageChanged]


@attrs.define
class Pipeline:
    """One connection's stages.

    finished: latencies of the turn that ended last, in ms; `total`, from the last speech to the
    first sound, too.
    """

    finished: dict[str, float | None] = attrs.field(factory=dict)
    _latencies: dict[Stage, float] = attrs.field(factory=dict)  # of the turn that began last
    _open: dict[Stage, float] = attrs.field(factory=dict)  # since when
    _turn_id: int = 0  # the newest turn that was heard of, or the one that is expected
    _undecided: bool = True  # it is not known whether that one calls a tool
    _has_words: bool = False  # something was understood of the utterance
    _voice_ended_at: float | None = None
    _text_at: float | None = None  # when the reply's text began

    def follow(self, notice: events.Notice, now: float) -> Changes:
        """What changes with this notice; the iterator has to be exhausted."""
        match notice:
            case events.VoiceNoticed(speaking=speaking):
                self._voice_ended_at = None if speaking else now
            case events.StatusChanged(state=state):
                yield from self._state(state, now)
            case events.UserTranscript(is_final=False, text=text):
                self._has_words = bool(text)
            case events.UserTranscript(turn_id=turn_id):
                yield from self._understood(turn_id, now)
            case events.ToolCalled(turn_id=turn_id, name=name):
                yield from self._decided(turn_id, now, name)
            case events.TextDelta(turn_id=turn_id):
                yield from self._decided(turn_id, now)
            case events.TextDone(turn_id=turn_id):
                yield from self._decided(turn_id, now)
                yield from self._complete(Stage.AI, now)
            case events.StreamStarted(source=events.Source.SPEECH):
                yield from self._speech_started(now)
            case events.StreamEnded():
                yield from self._speech_ended()
            case events.StreamFlushed():
                yield from self._cancel(Stage.TTS)
            case events.TurnMetrics(turn_id=turn_id) if turn_id >= self._turn_id:
                self._finish(notice)
                yield from self._begin_turn(turn_id + 1)

    def _state(self, state: events.State, now: float) -> Changes:
        match state:
            case events.State.HEARING:
                yield from self._start(Stage.STT, now)
            case events.State.LISTENING if not self._has_words:
                yield from self._cancel(Stage.STT)
            case events.State.THINKING if self._undecided:
                yield from self._start(Stage.INTENT, now)

    def _understood(self, turn_id: int, now: float) -> Changes:
        """These words open a turn: what was going on has lost the floor."""
        yield from self._begin_turn(turn_id)
        yield from self._start(Stage.STT, now)
        yield from self._complete(Stage.STT, now, self._voice_ended_at)
        self._has_words = False

    def _begin_turn(self, turn_id: int) -> Changes:
        yield from self._cancel(Stage.INTENT, Stage.AI, Stage.TTS)
        self._latencies = {}
        self._turn_id, self._undecided, self._text_at = turn_id, True, None

    def _decided(self, turn_id: int, now: float, tool: str | None = None) -> Changes:
        if turn_id > self._turn_id:  # nobody asked for it: the result of a tool, for example
            yield from self._begin_turn(turn_id)
        if tool is None and self._text_at is None:
            self._text_at = now
        if self._undecided:
            self._undecided = False
            yield from self._start(Stage.INTENT, now)
            yield from self._complete(Stage.INTENT, now, tool=tool)
            yield from self._start(Stage.AI, now)

    def _speech_started(self, now: float) -> Changes:
        if self._text_at is not None:
            self._latencies[Stage.TTS] = _ms(now - self._text_at)
        yield from self._start(Stage.TTS, now)

    def _speech_ended(self) -> Changes:
        if self._open.pop(Stage.TTS, None) is not None:
            yield StageChanged(Stage.TTS, Status.COMPLETED, self._latencies.get(Stage.TTS))

    def _finish(self, metrics: events.TurnMetrics) -> None:
        total = metrics.first_audio_ms
        self.finished = {str(stage): self._latencies.get(stage) for stage in Stage}
        self.finished["total"] = None if total is None else round(total, 1)

    # --- any stage ---------------------------------------------------------------------------

    def _start(self, stage: Stage, now: float) -> Changes:
        if stage not in self._open:
            self._open[stage] = now
            yield StageChanged(stage, Status.STARTED)

    def _complete(
        self, stage: Stage, now: float, since: float | None = None, tool: str | None = None
    ) -> Changes:
        began_at = self._open.pop(stage, None)
        if began_at is not None:
            self._latencies[stage] = _ms(now - (began_at if since is None else since))
            yield StageChanged(stage, Status.COMPLETED, self._latencies[stage], tool)

    def _cancel(self, *stages: Stage) -> Changes:
        for stage in stages:
            if self._open.pop(stage, None) is not None:
                yield StageChanged(stage, Status.CANCELLED)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
