"""SANS-IO: what a scripted device knows: every event with its time, turn by turn.

`DeviceLog.receive` takes each message of the server as it arrives and keeps it,
obeys what it says about the loudspeaker, and collects what belongs to a turn.  A
reply is over when its turns have their `turn_metrics`, the server is listening
again and the loudspeaker has nothing left.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs

from listenai.audio import SAMPLE_BYTES, dbfs
from listenai.client.speaker import Law, Speaker, Violation, loudness
from listenai.wire import Message

EVENTS_KEPT = 100_000  # more than an hour of audio messages; older ones are forgotten
TURNS_KEPT = 1_000  # a day of talking; older ones are forgotten
AUDIBLE_SECONDS = 0.5  # of loud windows make an answer that somebody can hear

JsonObject = Mapping[str, Any]


@attrs.frozen
class Arrived:
    """One message of the server; audio is type "audio" with `stream_id` and `samples`."""

    at: float  # Trio's time
    type: str
    message: JsonObject


@attrs.define
class ToolRun:
    """A tool that ran in a turn; `ok` is None until it returned."""

    call_id: str
    name: str
    arguments: JsonObject
    target: str  # "server" or "device"
    ok: bool | None = None
    outcome: Any = None  # its result, or its error
    duration_ms: float | None = None


@attrs.define(eq=False)
class Turn:
    """What has arrived of one turn so far."""

    id: int
    transcript: str | None = None  # final words of the user; None: none came
    text: str = ""
    tools: list[ToolRun] = attrs.field(factory=list)
    stream_ids: list[int] = attrs.field(factory=list)
    metrics: JsonObject | None = None  # the `_ms` fields of turn_metrics
    interrupted: JsonObject | None = None
    errors: list[JsonObject] = attrs.field(factory=list)
    events: list[Arrived] = attrs.field(factory=list)
    opened: bool = False  # the server has begun to answer

    @property
    def closed(self) -> bool:
        """Whether the server has said its last word about it."""
        return self.metrics is not None


@attrs.frozen(eq=False)
class Reply:
    """A question's answer as the device had it; times are Trio's."""

    turn_id: int
    transcript: str | None
    text: str
    tools: tuple[ToolRun, ...]
    audio: bytes  # int16 mono, what was heard, without the silence between
    sample_rate: int  # Hz
    speech_started_at: float | None  # first loud sample of the question sent; None: typed
    speech_ended_at: float | None  # last loud sample of the question sent
    first_sound_at: float | None  # first audible window at the loudspeaker
    silent_at: float | None  # last sample heard
    metrics: JsonObject
    interrupted: JsonObject | None
    errors: tuple[JsonObject, ...]
    events: tuple[Arrived, ...]

    @property
    def voice_to_voice_ms(self) -> float | None:
        """From the last speech sample sent to the first audible sample heard."""
        if self.speech_ended_at is None or self.first_sound_at is None:
            return None
        return (self.first_sound_at - self.speech_ended_at) * 1000

    @property
    def level_dbfs(self) -> float:
        """RMS of what was heard."""
        return dbfs(self.audio)

    @property
    def audible_seconds(self) -> float:
        """How much of it was loud."""
        window, loud = loudness(self.audio, self.sample_rate)
        return int(loud.sum()) * window / self.sample_rate

    @property
    def audible(self) -> bool:
        """Whether somebody could hear an answer."""
        return self.audible_seconds >= AUDIBLE_SECONDS


class _MalformedError(Exception):
    """A message of the server that breaks its own protocol."""


def _field(message: JsonObject, name: str, kind: type) -> Any:
    value = message.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _MalformedError(
            f"{message.get('type')}: field {name!r} must be {kind.__name__}, not {value!r}"
        )
    return value


class DeviceLog:
    """Everything that arrived, and the loudspeaker that obeyed it."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.events: deque[Arrived] = deque(maxlen=EVENTS_KEPT)
        self.turns: dict[int, Turn] = {}
        self.errors: list[Arrived] = []
        self.malformed: list[Violation] = []
        self.session_id: str | None = None
        self.state: str | None = None  # of the last `status`
        self.last_turn_id = 0  # the largest seen
        self._stream_id: int | None = None

    @property
    def violations(self) -> list[Violation]:
        """Every broken law, in the order of time."""
        return sorted([*self.speaker.violations, *self.malformed], key=lambda broken: broken.at)

    def receive(self, message: Message, now: float) -> Arrived | None:
        """Keeps and obeys one message; None for one that makes no sense (a violation)."""
        if isinstance(message, bytes):
            fields = {"stream_id": self._stream_id, "samples": len(message) // SAMPLE_BYTES}
            arrived = Arrived(now, "audio", fields)
            self.events.append(arrived)
            self.speaker.receive(message, now)
            return arrived
        try:
            content = json.loads(message)
            if not isinstance(content, dict):
                raise _MalformedError(f"not a JSON object: {message[:80]}")
            arrived = Arrived(now, _field(content, "type", str), content)
            self.events.append(arrived)
            self._understand(arrived)
        except (_MalformedError, json.JSONDecodeError) as error:
            self.malformed.append(Violation(now, Law.WELL_FORMED, str(error)))
            return None
        return arrived

    def is_over(self, after_turn: int, asked_at: float, *, spoken: bool) -> bool:
        """Whether the answer to what was asked then, later than that turn, is complete.

        A spoken question is answered by a turn with a transcript; one that the
        server failed to hear, by an error.
        """
        if self.state not in {"ready", "listening"} or not self.speaker.idle:
            return False
        turns = [turn for turn in self.turns_after(after_turn) if turn.opened]
        if not all(turn.closed or turn.errors for turn in turns):
            return False
        answered = any(turn.transcript is not None or not spoken for turn in turns)
        return answered or any(error.at >= asked_at for error in self.errors)

    def turns_after(self, turn_id: int) -> list[Turn]:
        """Turns later than this one, oldest first."""
        return [turn for number, turn in sorted(self.turns.items()) if number > turn_id]

    def turn(self, turn_id: int) -> Turn:
        """A turn, begun if it is new."""
        if turn_id not in self.turns:
            self.turns[turn_id] = Turn(turn_id)
            self.last_turn_id = max(self.last_turn_id, turn_id)
            if len(self.turns) > TURNS_KEPT:
                del self.turns[min(self.turns)]
        return self.turns[turn_id]

    def reply(
        self, turn: Turn, speech_started_at: float | None, speech_ended_at: float | None
    ) -> Reply:
        """The turn as it is now, with what was heard of it."""
        spans = self.speaker.heard(turn.stream_ids)
        rates = {span.sample_rate for span in spans}
        return Reply(
            turn_id=turn.id,
            transcript=turn.transcript,
            text=turn.text,
            tools=tuple(turn.tools),
            audio=b"".join(span.pcm for span in spans),
            sample_rate=max(rates, default=16_000),
            speech_started_at=speech_started_at,
            speech_ended_at=speech_ended_at,
            first_sound_at=self.speaker.first_sound_at(turn.stream_ids),
            silent_at=spans[-1].ended_at if spans else None,
            metrics=turn.metrics or {},
            interrupted=turn.interrupted,
            errors=tuple(turn.errors),
            events=tuple(turn.events),
        )

    # --- understanding --------------------------------------------------------------------

    def _understand(self, arrived: Arrived) -> None:
        message, now = arrived.message, arrived.at
        match arrived.type:
            case "tts_audio":
                self._audio_state(message, now)
            case "pause":
                self.speaker.pause(_field(message, "stream_id", int), now)
            case "resume":
                self.speaker.resume(_field(message, "stream_id", int), now)
            case "flush":
                self.speaker.flush(_field(message, "stream_id", int), now)
            case "status":
                self.state = _field(message, "state", str)
                self.session_id = message.get("session_id", self.session_id)
            case "error":
                self.errors.append(arrived)
        turn = self._turn_of(message)
        if turn is not None:
            turn.events.append(arrived)
            _tell(turn, arrived)

    def _audio_state(self, message: JsonObject, now: float) -> None:
        stream_id = _field(message, "stream_id", int)
        match message.get("state"):
            case "start":
                turn = self.turn(_field(message, "turn_id", int))
                self.speaker.start(stream_id, _field(message, "sample_rate", int), now)
                turn.stream_ids.append(stream_id)
                self._stream_id = stream_id
            case "sentence":
                _field(message, "text", str)
            case "end":
                self.speaker.end(stream_id, _field(message, "samples", int), now)
            case state:
                raise _MalformedError(f"tts_audio: unknown state {state!r}")

    def _turn_of(self, message: JsonObject) -> Turn | None:
        """The turn that a message is about, by its own number or its stream's."""
        if isinstance(turn_id := message.get("turn_id"), int):
            return self.turn(turn_id)
        stream_id = message.get("stream_id")
        owners = (turn for turn in self.turns.values() if stream_id in turn.stream_ids)
        return None if stream_id is None else next(owners, None)


def _tell(turn: Turn, arrived: Arrived) -> None:
    """Puts what a message says into its turn."""
    message = arrived.message
    turn.opened = turn.opened or arrived.type not in {"asr_result", "error"}
    match arrived.type:
        case "asr_result" if message.get("is_final"):
            turn.transcript = _field(message, "text", str) or turn.transcript
        case "llm_response" if message.get("done"):
            turn.text = _field(message, "text", str)
        case "llm_response":
            turn.text += _field(message, "text", str)
        case "tool_call":
            turn.tools.append(
                ToolRun(
                    _field(message, "call_id", str),
                    _field(message, "name", str),
                    _field(message, "arguments", dict),
                    _field(message, "target", str),
                )
            )
        case "tool_result":
            for run in turn.tools:
                if run.call_id == message.get("call_id"):
                    run.ok = _field(message, "ok", bool)
                    run.outcome = message.get("result" if run.ok else "error")
                    run.duration_ms = message.get("duration_ms")
        case "turn_metrics":
            turn.metrics = {key: ms for key, ms in message.items() if key.endswith("_ms")}
        case "interrupted":
            turn.interrupted = message
        case "error":
            turn.errors.append(message)
