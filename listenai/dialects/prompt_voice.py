"""The Prompt Voice dialect (spec 001, "API Reference").

A device starts a capture, streams PCM, and stops or cancels it; what was said in between is
found by the detector, or ends with the capture.  A capture that starts during a reply stops it:
pages have a button for talking.  The device is told transcripts, tokens and speech in numbered
WAV chunks.  Whatever becomes of a reply, it ends with one `llm_token` that is done, one
`tts_complete` and one `metrics`, in this order; a reply that was interrupted says so between
the first two, or after `tts_complete` where all of it was sent already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

import attrs

from listenai import events
from listenai.audio import SAMPLE_RATE, Encoding, seconds
from listenai.device import Capabilities, DeviceProfile, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.json_text import check_size, encode, parse_object
from listenai.dialects.prompt_voice_messages import (
    READER,
    STATES,
    Info,
    Start,
    Stop,
    chunk_fields,
    error_fields,
)
from listenai.dialects.prompt_voice_times import Hearing, Times
from listenai.settings import Configuration
from listenai.wire import Message

# Spec 001: "STREAM_VAD_SILENCE_MS=700", "OPENAI_MAX_TOKENS=150".
# Pages record with the browser's MediaDevices, which take the loudspeaker's sound out.
CAPABILITIES = Capabilities(echo=Echo.CANCELLED)
PROFILE = DeviceProfile(
    max_tokens=150,
    token_seconds=5,
    reply_seconds=30,
    chunk_seconds=0.2,
    tell_voice=True,  # for the `metrics`
    configuration=Configuration(end_of_turn_ms=700),
)


# --- state -------------------------------------------------------------------------------


class _Capture(Enum):
    """What becomes of audio."""

    FRESH = auto()  # nothing was started yet: it starts a capture
    RUNNING = auto()  # it is heard
    OVER = auto()  # it is ignored, and the device is told
    IGNORING = auto()  # it is ignored, and the device was told


class _End(Enum):
    """What a reply still has to be ended with."""

    TEXT = auto()
    SPEECH = auto()


@attrs.define
class _Reply:
    """A turn that the device knows of, until its metrics."""

    times: Times = attrs.field(factory=Times)
    owed: set[_End] = attrs.field(factory=lambda: set(_End))


@attrs.define
class _Stream:
    """The audio that is being sent: a reply's, or music, which is nobody's."""

    id: int
    sample_rate: int
    reply: _Reply
    chunks: int = 0
    told_phrases: int = 0  # chunks of the phrases that the device knows to be complete


@attrs.define
class PromptVoiceDialect:
    """One Prompt Voice device's translator.

    new_id: makes a UUID.  wall_clock: seconds since the epoch.
    partial_seconds: the shortest time between two partial transcripts.
    """

    new_id: Callable[[], str]
    wall_clock: Callable[[], float]
    profile: DeviceProfile = PROFILE
    partial_seconds: float = 1.0
    _capture: _Capture = attrs.field(default=_Capture.FRESH, init=False)
    _sample_rate: int = attrs.field(default=SAMPLE_RATE, init=False)  # Hz, of the capture
    _hearing: Hearing = attrs.field(factory=Hearing, init=False)
    _partial_told: float = attrs.field(default=-math.inf, init=False)
    _replies: dict[int, _Reply] = attrs.field(factory=dict, init=False)  # by turn
    _stream: _Stream | None = attrs.field(default=None, init=False)

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """The requests that one message is; raises ProtocolError saying what is allowed."""
        if isinstance(message, bytes):
            check_size(len(message))
            return self._audio(message)
        match READER.read(parse_object(message)):
            case Start(sample_rate=sample_rate):
                return self._start(sample_rate or SAMPLE_RATE)
            case Stop():
                return self._stop()
            case _:
                return self._cancel()

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:
        """The messages that tell the device this, or none."""
        tell = _TOLD.get(type(event))
        return [encode(fields) for fields in tell(self, event, now)] if tell else ()

    def next_deadline(self) -> float:
        """NEVER: this dialect has no heartbeat of its own."""
        return NEVER

    def expire(self, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """Nothing is ever due."""
        return ()

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """Nothing is kept: who comes back begins anew."""

    # --- from the device -------------------------------------------------------------------

    def _start(self, sample_rate: int) -> Sequence[events.Request]:
        fresh = self._capture is _Capture.FRESH
        self._capture, self._sample_rate = _Capture.RUNNING, sample_rate
        if fresh:
            return (events.SessionStart(capabilities=CAPABILITIES),)
        if any(_End.SPEECH in reply.owed for reply in self._replies.values()):
            return events.InterruptPressed(), _answer(Info.READY)  # the user wants to speak
        return (_answer(Info.READY),)

    def _stop(self) -> Sequence[events.Request]:
        if self._capture is not _Capture.RUNNING:
            return (_answer(Info.NOTHING_STARTED),)
        self._capture = _Capture.OVER
        return (events.SpeechFinished(),)

    def _cancel(self) -> Sequence[events.Request]:
        if self._capture is _Capture.FRESH:
            return (_answer(Info.CANCELLED),)
        if self._capture is _Capture.RUNNING:
            self._capture = _Capture.OVER
        self._hearing.forget()
        return events.InterruptPressed(), events.SpeechDiscarded(), _answer(Info.CANCELLED)

    def _audio(self, data: bytes) -> Sequence[events.Request]:
        match self._capture:
            case _Capture.FRESH:
                return *self._start(SAMPLE_RATE), *self._audio(data)
            case _Capture.OVER:
                self._capture = _Capture.IGNORING
                return (_answer(Info.IGNORED),)
            case _Capture.IGNORING:
                return ()
        self._hearing.received(seconds(data, self._sample_rate))
        if self._sample_rate == SAMPLE_RATE:
            return (events.AudioReceived(data),)
        return (events.EncodedAudio(data, Encoding.PCM, self._sample_rate),)

    # --- to the device: what was heard -------------------------------------------------------

    def _voice(self, event: events.VoiceNoticed, now: float) -> Iterator[events.JsonObject]:
        self._hearing.voice(now, speaking=event.speaking)
        yield from ()

    def _transcript(self, event: events.UserTranscript, now: float) -> Iterator[events.JsonObject]:
        if event.is_final:
            transcript_id = self.new_id()
            self._reply(event.turn_id).times = self._hearing.final(transcript_id, now)
            self._partial_told = -math.inf
            yield {"type": "final_transcript", "text": event.text, "id": transcript_id}
            return
        self._hearing.partial(now)
        if now - self._partial_told >= self.partial_seconds:  # the next one has these words too
            self._partial_told = now
            yield {"type": "partial_transcript", "text": event.text}

    def _not_understood(
        self, _event: events.NothingUnderstood, _now: float
    ) -> Iterator[events.JsonObject]:
        self._hearing.forget()
        yield Info.NOTHING_UNDERSTOOD.fields

    # --- to the device: the reply's text -----------------------------------------------------

    def _reply(self, turn_id: int) -> _Reply:
        return self._replies.setdefault(turn_id, _Reply())

    def _delta(self, event: events.TextDelta, now: float) -> Iterator[events.JsonObject]:
        self._reply(event.turn_id).times.reach("first_token", now)
        yield {"type": "llm_token", "text": event.text, "done": False}

    def _text_done(self, event: events.TextDone, _now: float) -> Iterator[events.JsonObject]:
        yield from _end(self._reply(event.turn_id), _End.TEXT)

    # --- to the device: speech ---------------------------------------------------------------

    def _stream_started(
        self, event: events.StreamStarted, _now: float
    ) -> Iterator[events.JsonObject]:
        spoken = event.source is events.Source.SPEECH
        reply = self._reply(event.turn_id) if spoken else _Reply(owed={_End.SPEECH})
        self._stream = _Stream(event.stream_id, event.sample_rate, reply)
        yield from ()

    def _chunk(self, event: events.AudioChunk, now: float) -> Iterator[events.JsonObject]:
        stream = self._stream_of(event)
        if stream is None:
            return
        stream.chunks += 1
        stream.reply.times.reach("first_audio", now)
        yield chunk_fields(stream.chunks, event.pcm, stream.sample_rate)

    def _phrase_done(
        self, event: events.SentenceStarted | events.StreamEnded, _now: float
    ) -> Iterator[events.JsonObject]:
        """The next phrase begins, or none does: the one before it is complete."""
        stream = self._stream_of(event)
        if stream and stream.chunks > stream.told_phrases:
            stream.told_phrases = stream.chunks
            yield {"type": "tts_phrase_done", "seq": stream.chunks}

    def _stream_ended(self, event: events.StreamEnded, now: float) -> Iterator[events.JsonObject]:
        yield from self._phrase_done(event, now)
        if stream := self._stream_of(event):
            yield from _end(stream.reply, _End.TEXT, _End.SPEECH)

    def _flushed(self, event: events.StreamFlushed, _now: float) -> Iterator[events.JsonObject]:
        if stream := self._stream_of(event):
            self._stream = None  # no chunk of it follows
            yield from _interrupt(stream.reply)

    def _stream_of(
        self,
        event: events.AudioChunk
        | events.SentenceStarted
        | events.StreamEnded
        | events.StreamFlushed,
    ) -> _Stream | None:
        stream = self._stream
        return stream if stream and stream.id == event.stream_id else None

    # --- to the device: how it ended ---------------------------------------------------------

    def _interrupted(
        self, event: events.TurnInterrupted, _now: float
    ) -> Iterator[events.JsonObject]:
        reply = self._reply(event.turn_id)
        if _End.SPEECH in reply.owed:  # else its stream's end or flush has told it
            yield from _interrupt(reply)

    def _metrics(self, event: events.TurnMetrics, now: float) -> Iterator[events.JsonObject]:
        reply = self._replies.pop(event.turn_id, None) or _Reply()
        yield from _end(reply, _End.TEXT, _End.SPEECH)
        yield reply.times.metrics(event, self.wall_clock() - now)

    def _status(self, event: events.StatusChanged, _now: float) -> Iterator[events.JsonObject]:
        if event.state in STATES:
            yield STATES[event.state].fields

    def _error(self, event: events.ErrorReported, _now: float) -> Iterator[events.JsonObject]:
        yield error_fields(event)


def _answer(info: Info) -> events.Answer:
    return events.Answer((encode(info.fields),))


def _end(reply: _Reply, *ends: _End) -> Iterator[events.JsonObject]:
    """What the reply still owes of these."""
    for end in ends:
        if end in reply.owed:
            reply.owed.discard(end)
            yield (
                {"type": "llm_token", "text": "", "done": True}
                if end is _End.TEXT
                else {"type": "tts_complete"}
            )


def _interrupt(reply: _Reply) -> Iterator[events.JsonObject]:
    yield from _end(reply, _End.TEXT)
    yield Info.INTERRUPTED.fields
    yield from _end(reply, _End.SPEECH)


# One row per notice that is told; tools, pauses and statistics have no message here.
_TOLD: Final[
    Mapping[
        type[events.Notice],
        Callable[[PromptVoiceDialect, Any, float], Iterator[events.JsonObject]],
    ]
] = {
    events.StatusChanged: PromptVoiceDialect._status,
    events.VoiceNoticed: PromptVoiceDialect._voice,
    events.UserTranscript: PromptVoiceDialect._transcript,
    events.NothingUnderstood: PromptVoiceDialect._not_understood,
    events.TextDelta: PromptVoiceDialect._delta,
    events.TextDone: PromptVoiceDialect._text_done,
    events.StreamStarted: PromptVoiceDialect._stream_started,
    events.SentenceStarted: PromptVoiceDialect._phrase_done,
    events.AudioChunk: PromptVoiceDialect._chunk,
    events.StreamEnded: PromptVoiceDialect._stream_ended,
    events.StreamFlushed: PromptVoiceDialect._flushed,
    events.TurnInterrupted: PromptVoiceDialect._interrupted,
    events.TurnMetrics: PromptVoiceDialect._metrics,
    events.ErrorReported: PromptVoiceDialect._error,
}
