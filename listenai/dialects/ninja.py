"""The Ninja dialect (spec 004): calls with a token, over WebSocket from a browser or a device.

JSON text messages in one envelope, both ways; binary messages of audio: from the device PCM or
WebM, to it whole WAV files.  Who is away for a short while gets its text messages later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, assert_never

import attrs

from listenai import events
from listenai.audio import SAMPLE_RATE, Encoding
from listenai.device import Capabilities, Conditioning, DeviceProfile, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.json_text import check_size, encode, invalid, parse_object, shown
from listenai.dialects.mailboxes import Mailboxes
from listenai.dialects.ninja_messages import (
    READER,
    AudioChunk,
    ClientMessage,
    Heartbeat,
    Metrics,
    Options,
    SessionEnd,
    SessionStart,
)
from listenai.dialects.ninja_stages import Pipeline, StageChanged
from listenai.errors import ErrorCode, ProtocolError
from listenai.settings import Configuration
from listenai.wav import wav_bytes
from listenai.wire import Message

PROFILE = DeviceProfile(
    utterance_seconds=180.0,  # spec 004: MAX_AUDIO_DURATION
    chunk_seconds=0.1,  # a browser decodes each by itself; spec 004 sends as long ones
    tell_voice=True,
    configuration=Configuration(vad_threshold=0.3),  # spec 004, "Audio Processing Options"
)
HEARTBEAT_SECONDS = 30.0  # spec 004, "Heartbeat Configuration"
SILENT_SECONDS = 60.0  # after which the device is taken to have left

WEBM_HEADER = bytes.fromhex("1A45DFA3")  # the beginning of an EBML document, RFC 8794, 11.2.1
_OPUS_RATE = 48_000  # Hz, of the Opus in WebM
_MIME_TYPES: Final = {
    "audio/webm": Encoding.WEBM_OPUS,
    "audio/webm;codecs=opus": Encoding.WEBM_OPUS,
    "audio/pcm": Encoding.PCM,
}

Fields = dict[str, Any]
RefuseToken = Callable[[str, str, str], str | None]  # token, user, call -> why it is not good


class Phase(Enum):
    """How far a connection has come."""

    NEW = auto()
    ASKED = auto()  # for its session
    TALKING = auto()
    OVER = auto()  # refused, or given up


@attrs.define
class Traffic:
    """What one connection has sent and got."""

    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    audio_chunks: int = 0
    reconnections: int = 0
    errors: int = 0  # that the device was told of


@attrs.define
class NinjaDialect:
    """One Ninja device's translator.

    refuse: why a token is not good for a user and a call; None: it is.  wall_clock: seconds since
    1970.  system: figures of the whole server, for `metrics`.
    """

    profile: DeviceProfile
    mailboxes: Mailboxes
    refuse: RefuseToken
    wall_clock: Callable[[], float]
    system: Callable[[], Mapping[str, float]]
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    silent_seconds: float = SILENT_SECONDS
    phase: Phase = Phase.NEW
    _options: Options = attrs.field(factory=Options)  # as the device asked
    _user_id: str = ""
    _call_id: str = ""
    _ended: bool = False  # by the device: it wants nothing of its call any more
    _silent_at: float = NEVER  # when too long nothing was heard
    _heartbeat_at: float = NEVER
    _encoding: Encoding = Encoding.PCM  # of audio from the device
    _stream_rate: int = SAMPLE_RATE  # Hz, of audio to it
    _pipeline: Pipeline = attrs.field(factory=Pipeline)
    _traffic: Traffic = attrs.field(factory=Traffic)

    # --- from the device ---------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:
        """The requests of one message; raises ProtocolError saying what is allowed."""
        if self.phase is Phase.NEW and self._heartbeat_at == NEVER:
            self._heartbeat_at = now + self.heartbeat_seconds
        if self.phase is not Phase.OVER:
            self._silent_at = now + self.silent_seconds
        self._traffic.messages_received += 1
        self._traffic.bytes_received += _size(message)
        if isinstance(message, str):
            return self._understand(READER.read(parse_object(message)))
        check_size(len(message))
        return self._audio(message)

    def _understand(self, message: ClientMessage) -> Sequence[events.Request]:
        if isinstance(message, SessionStart):
            return self._begin(message)
        self._check_call(message.callId)
        match message:
            case Heartbeat(data=data):
                # The answer to ours must not be answered: both sides would never stop.
                return () if data and data.pong else (events.PingReceived(),)
            case AudioChunk(data=data):
                if data.mimeType is not None:
                    self._encoding = _encoding_of(data.mimeType)
                return self._audio(data.audio)
            case SessionEnd():
                self._check_begun()
                self._ended = True
                return (events.SessionEnd(),)
            case Metrics():
                self._check_begun()
                return (events.StatisticsAsked(),)
            case _:
                assert_never(message)

    def _begin(self, start: SessionStart) -> Sequence[events.Request]:
        data = start.data
        if self.phase is not Phase.NEW:
            raise ProtocolError(
                ErrorCode.SESSION_ERROR,
                f"this connection has the call {self._call_id!r} already; open another one",
            )
        if start.callId not in ("", None, data.callId):
            raise invalid("session_start: 'callId' and 'data.callId' must be the same")
        if problem := self.refuse(data.authToken, data.userId, data.callId):
            raise ProtocolError(ErrorCode.UNAUTHORIZED, problem)
        self._user_id, self._call_id = data.userId, data.callId
        self.phase = Phase.ASKED
        return self._use(data.options or Options())

    def _use(self, options: Options) -> Sequence[events.Request]:
        self._options = options
        self.profile = attrs.evolve(
            self.profile,
            conditioning=Conditioning(
                noise_reduction=bool(options.enableDenoising),
                automatic_gain=bool(options.enableAGC),
            ),
        )
        echo = Echo.UNKNOWN if options.echoCancellation is False else Echo.CANCELLED
        start = events.SessionStart(self._call_id, Capabilities(echo=echo))
        if options.vadThreshold is None:
            return (start,)
        return (start, Configuration(vad_threshold=options.vadThreshold))

    def _check_call(self, call_id: str | None) -> None:
        if self._call_id and call_id not in ("", None, self._call_id):
            raise invalid(
                f"field 'callId' must be {self._call_id!r} or empty, not {shown(call_id)}"
            )

    def _check_begun(self) -> None:
        if self.phase in (Phase.NEW, Phase.OVER):
            raise ProtocolError(
                ErrorCode.SESSION_ERROR, "there is no session; send session_start first"
            )

    def _audio(self, data: bytes) -> Sequence[events.Request]:
        self._check_begun()
        self._traffic.audio_chunks += 1
        if data.startswith(WEBM_HEADER):
            self._encoding = Encoding.WEBM_OPUS
        if self._encoding is Encoding.WEBM_OPUS:
            return (events.EncodedAudio(data, self._encoding, _OPUS_RATE),)
        rate = self._options.sampleRate or SAMPLE_RATE
        if rate != SAMPLE_RATE:
            return (events.EncodedAudio(data, self._encoding, rate),)
        return (events.AudioReceived(data),)

    # --- to the device -----------------------------------------------------------------------

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:
        """The messages that tell the device this, or none."""
        told: list[Message] = [self._stage(each) for each in self._pipeline.follow(event, now)]
        if tell := _TOLD.get(type(event)):
            told += tell(self, event, now)
        return self._counted(told)

    def _ready(self, event: events.StatusChanged, now: float) -> Iterator[Message]:
        restored = bool(event.restored)
        self.phase = Phase.TALKING
        self._traffic.reconnections += restored
        data: Fields = {"status": "connected", "sessionId": event.session_id, "resumed": restored}
        if self._options.enableCompression:
            data["unsupported"] = ["enableCompression"]
        mail = self.mailboxes.take((self._user_id, self._call_id), now)
        if mail.messages or mail.dropped:
            data |= {"queuedMessages": len(mail.messages), "droppedMessages": mail.dropped}
        yield self._text("connection_status", data)
        yield from mail.messages

    def _status(self, event: events.StatusChanged, now: float) -> Iterator[Message]:
        if event.state is events.State.READY:
            yield from self._ready(event, now)
        elif event.state is events.State.CLOSING:
            data = {"status": "disconnected", "sessionId": event.session_id}
            yield self._text("connection_status", data)

    def _stage(self, change: StageChanged) -> str:
        data: Fields = {"stage": change.stage, "status": change.status}
        if change.latency_ms is not None:
            data["latencyMs"] = change.latency_ms
        if change.tool is not None:
            data["tool"] = change.tool
        return self._text("processing_status", data)

    def _transcript(self, event: events.UserTranscript, _now: float) -> Iterator[Message]:
        yield self._text("transcript", {"text": event.text, "isFinal": event.is_final})

    def _delta(self, event: events.TextDelta, _now: float) -> Iterator[Message]:
        yield self._response(event, done=False)

    def _done(self, event: events.TextDone, _now: float) -> Iterator[Message]:
        yield self._response(event, done=True)

    def _response(self, event: events.TextDelta | events.TextDone, *, done: bool) -> str:
        data = {"text": event.text, "turnId": event.turn_id, "done": done}
        return self._text("ai_response", data)

    def _stream_started(self, event: events.StreamStarted, _now: float) -> Iterator[Message]:
        self._stream_rate = event.sample_rate
        data = {"state": "start", "sampleRate": event.sample_rate, "encoding": "wav"}
        yield self._text("audio_response", data)

    def _chunk(self, event: events.AudioChunk, _now: float) -> Iterator[Message]:
        yield wav_bytes(event.pcm, self._stream_rate)

    def _stream_ended(self, _event: events.StreamEnded, _now: float) -> Iterator[Message]:
        yield self._text("audio_response", {"state": "end"})

    def _stream_flushed(self, _event: events.StreamFlushed, _now: float) -> Iterator[Message]:
        yield self._text("audio_response", {"state": "stop"})

    def _metrics(self, _event: events.Notice, _now: float) -> Iterator[Message]:
        traffic, latencies = self._traffic, self._pipeline.finished
        connection = {
            "messagesReceived": traffic.messages_received,
            "messagesSent": traffic.messages_sent,
            "bytesReceived": traffic.bytes_received,
            "bytesSent": traffic.bytes_sent,
            "reconnections": traffic.reconnections,
            "errors": traffic.errors,
        }
        data = {
            "connection": connection,
            "processing": {
                "audioChunksProcessed": traffic.audio_chunks,
                **{f"{name}LatencyMs": latency for name, latency in latencies.items()},
            },
            "system": self.system(),
        }
        yield self._text("metrics", data)

    def _error(self, event: events.ErrorReported, now: float) -> Iterator[Message]:
        self._traffic.errors += 1
        if self.phase is Phase.ASKED and event.code is ErrorCode.SESSION_ERROR:
            self.phase = Phase.OVER  # somebody else's call: there is nothing to talk about
            self._silent_at = now
        data: Fields = {"code": event.code, "message": event.message}
        if event.turn_id is not None:
            data["turnId"] = event.turn_id
        if event.retry_after_ms is not None:
            data["retryAfterMs"] = event.retry_after_ms
        yield self._text("error", data)

    def _pong(self, _event: events.PongSent, _now: float) -> Iterator[Message]:
        yield self._text("heartbeat", {"pong": True})

    def _text(self, kind: str, data: Mapping[str, Any]) -> str:
        timestamp = int(1000 * self.wall_clock())
        return encode({"type": kind, "callId": self._call_id, "timestamp": timestamp, "data": data})

    def _counted(self, messages: Sequence[Message]) -> Sequence[Message]:
        self._traffic.messages_sent += len(messages)
        self._traffic.bytes_sent += sum(map(_size, messages))
        return messages

    # --- deadlines, and the end ----------------------------------------------------------------

    def next_deadline(self) -> float:
        """The next heartbeat, or the moment at which the device was silent for too long."""
        return min(self._silent_at, self._heartbeat_at)

    def expire(self, now: float) -> Sequence[events.Request]:
        """A heartbeat, or the end of a connection from which nothing comes."""
        if now >= self._silent_at:
            self._silent_at = self._heartbeat_at = NEVER
            if self.phase is Phase.OVER:
                return (events.HangUp(1008, "no session"),)
            self.phase = Phase.OVER
            return (events.HangUp(1008, f"nothing heard for {self.silent_seconds:g} s"),)
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self.heartbeat_seconds
            heartbeat = self._text("heartbeat", {"ping": True})
            return (events.Answer(tuple(self._counted([heartbeat]))),)
        return ()

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """Keeps the text messages for a device that comes back to its call in time."""
        texts = [
            message
            for message in messages
            if isinstance(message, str) and not message.startswith(_OF_ONE_CONNECTION)
        ]
        if self._call_id and texts and not self._ended:
            self.mailboxes.put((self._user_id, self._call_id), texts, now)


# What is no news on another connection.
_OF_ONE_CONNECTION = ('{"type":"connection_status"', '{"type":"heartbeat"')


def _encoding_of(mime_type: str) -> Encoding:
    plain = mime_type.lower().replace(" ", "").replace('"', "")
    if plain not in _MIME_TYPES:
        allowed = ", ".join(_MIME_TYPES)
        raise invalid(
            f"audio_chunk: field 'data.mimeType' must be one of {allowed}, not {shown(mime_type)}"
        )
    return _MIME_TYPES[plain]


def _size(message: Message) -> int:
    return len(message.encode(errors="replace") if isinstance(message, str) else message)


# One row for each notice that has a message of its own; stages are told of others, too.
_Tell = Callable[[NinjaDialect, Any, float], Iterable[Message]]
_TOLD: Final[Mapping[type[events.Notice], _Tell]] = {
    events.StatusChanged: NinjaDialect._status,
    events.UserTranscript: NinjaDialect._transcript,
    events.TextDelta: NinjaDialect._delta,
    events.TextDone: NinjaDialect._done,
    events.StreamStarted: NinjaDialect._stream_started,
    events.AudioChunk: NinjaDialect._chunk,
    events.StreamEnded: NinjaDialect._stream_ended,
    events.StreamFlushed: NinjaDialect._stream_flushed,
    events.TurnMetrics: NinjaDialect._metrics,
    events.StatisticsSent: NinjaDialect._metrics,
    events.ErrorReported: NinjaDialect._error,
    events.PongSent: NinjaDialect._pong,
}
