"""The Configurator dialect (spec 003, "Communication Flow"): `/chat` is text, `/voice` both.

The document names parts and no messages; these are ours.  Both ways a run of binary PCM stands
between `audio_start` and `audio_end`.  Speech over a reply ends its sound with `stop_audio` in
place of `audio_end`: what the device has not played is to be thrown away, and no sound of that
reply follows.  Whatever becomes of a turn, it ends with one `response`, whose text is what was
told of it.  A session is the same at both places, by its id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, StrEnum, auto
from typing import Annotated, Any, Final

import attrs

from listenai import events
from listenai.audio import SAMPLE_RATE, Encoding
from listenai.device import Capabilities, Conditioning, DeviceProfile, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.fields import Id, MessageReader, text, whole
from listenai.dialects.json_text import check_size, encode, invalid, parse_object
from listenai.errors import ErrorCode
from listenai.wire import Message

MAX_TEXT = 10_000  # characters of one typed message: about 15 min of speech
LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000  # Hz, of a device's microphone


class Channel(StrEnum):
    """Where a device is connected, by its path."""

    CHAT = "/chat"
    VOICE = "/voice"


# Nobody listens at `/chat`, so nothing is held back there; at `/voice` what is ahead of the
# loudspeaker stays short, for pages that only stop when they have played what they hold.
PROFILES: Final[Mapping[Channel, DeviceProfile]] = {
    Channel.CHAT: DeviceProfile(paced=False, speaks=False),
    Channel.VOICE: DeviceProfile(
        lead_seconds=0.16,
        tell_voice=True,
        conditioning=Conditioning(adaptive_threshold=True),
    ),
}
# Pages flush when they get `stop_audio`.  They record with the browser's MediaDevices (spec 003,
# "Client Initialization"), which takes the loudspeaker's sound out of the microphone's.
_CAPABILITIES: Final[Mapping[Channel, Capabilities]] = {
    Channel.CHAT: Capabilities(display_text=True),
    Channel.VOICE: Capabilities(flush=True, echo=Echo.CANCELLED),
}


# --- what a device may say ---------------------------------------------------------------


@attrs.frozen
class Session:
    """Begin a session, or take one up again by its id."""

    session_id: Id | None = None


@attrs.frozen
class Typed:
    """A turn without speech."""

    text: Annotated[str, text(MAX_TEXT)]


@attrs.frozen
class AudioStart:
    """The microphone is open: binary messages are int16 little-endian mono PCM at this rate."""

    sample_rate: Annotated[int, whole(LOWEST_RATE, HIGHEST_RATE)]  # Hz


@attrs.frozen
class AudioEnd:
    """The microphone is closed: what was said is the whole utterance."""


@attrs.frozen
class Analytics:
    """Ask for what is counted of the session and of this connection."""


ClientMessage = Session | Typed | AudioStart | AudioEnd | Analytics

_TYPED: Final[Mapping[str, type[ClientMessage]]] = {
    "session": Session,
    "message": Typed,
    "analytics": Analytics,
}
_SPOKEN: Final[Mapping[str, type[ClientMessage]]] = {
    "audio_start": AudioStart,
    "audio_end": AudioEnd,
}
CLIENT_MESSAGES: Final[Mapping[Channel, Mapping[str, type[ClientMessage]]]] = {
    Channel.CHAT: _TYPED,
    Channel.VOICE: {**_TYPED, **_SPOKEN},
}
_READERS = {  # pages may send more of their own
    channel: MessageReader(messages, unknown_fields=True)
    for channel, messages in CLIENT_MESSAGES.items()
}


# --- state -------------------------------------------------------------------------------


class _Phase(Enum):
    """How far the session has come."""

    NEW = auto()
    ASKED = auto()
    BEGUN = auto()


class _Microphone(Enum):
    """What becomes of audio from the device."""

    CLOSED = auto()  # it is refused, and the device is told
    REFUSED = auto()  # it is refused, and the device was told
    OPEN = auto()


@attrs.define
class _Seen:
    """What this connection has seen."""

    turns: int = 0
    interruptions: int = 0
    errors: int = 0
    latency_ms: float = 0.0  # of all measured replies
    measured: int = 0

    @property
    def fields(self) -> events.JsonObject:
        """As `analytics` tells it."""
        mean = round(self.latency_ms / self.measured, 3) if self.measured else None
        return {
            "turns": self.turns,
            "interruptions": self.interruptions,
            "errors": self.errors,
            "mean_latency_ms": mean,
        }


@attrs.define
class ConfiguratorDialect:
    """One Configurator device's translator at one of its two places."""

    channel: Channel
    profile: DeviceProfile
    _phase: _Phase = attrs.field(default=_Phase.NEW, init=False)
    _microphone: _Microphone = attrs.field(default=_Microphone.CLOSED, init=False)
    _sample_rate: int = attrs.field(default=SAMPLE_RATE, init=False)  # Hz, of the microphone
    _words_came: bool = attrs.field(default=False, init=False)  # since it was opened
    _threshold: float | None = attrs.field(default=None, init=False)  # dBFS, the last one told
    _stream_id: int | None = attrs.field(default=None, init=False)  # of sound being sent
    _said: str = attrs.field(default="", init=False)  # of a reply that has not ended
    _ended_turn: int = attrs.field(default=0, init=False)  # the last one with its `response`
    _seen: _Seen = attrs.field(factory=_Seen, init=False)

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """The requests that one message is; raises ProtocolError saying what is allowed."""
        if isinstance(message, bytes):
            check_size(len(message))
            return self._audio(message)
        match _READERS[self.channel].read(parse_object(message)):
            case Session(session_id=session_id):
                if self._phase is _Phase.NEW:
                    self._phase = _Phase.ASKED
                return (events.SessionStart(session_id, _CAPABILITIES[self.channel]),)
            case Typed(text=typed):
                return (*self._begun(), events.TextTyped(typed))
            case AudioStart(sample_rate=sample_rate):
                self._microphone, self._sample_rate = _Microphone.OPEN, sample_rate
                self._words_came = False
                return self._begun()
            case AudioEnd():
                return self._close_microphone()
            case _:
                return (*self._begun(), events.StatisticsAsked())

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:  # noqa: ARG002
        """The messages that tell the device this, or none."""
        tell = _TOLD[self.channel].get(type(event))
        if tell is None:
            return ()
        told = tell(self, event)
        return [each if isinstance(each, bytes) else encode(each) for each in told]

    def next_deadline(self) -> float:
        """NEVER: this dialect has no heartbeat of its own."""
        return NEVER

    def expire(self, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """Nothing is ever due."""
        return ()

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """Nothing is kept: the session is there for who comes back, and what was heard is in it."""

    # --- from the device -------------------------------------------------------------------

    def _begun(self) -> Sequence[events.Request]:
        """What begins a session, where the device did not ask for one."""
        if self._phase is not _Phase.NEW:
            return ()
        self._phase = _Phase.ASKED
        return (events.SessionStart(None, _CAPABILITIES[self.channel]),)

    def _close_microphone(self) -> Sequence[events.Request]:
        if self._microphone is not _Microphone.OPEN:
            raise invalid("audio_end: nothing was begun; send audio_start first")
        self._microphone = _Microphone.CLOSED
        return (events.SpeechFinished(),)

    def _audio(self, data: bytes) -> Sequence[events.Request]:
        if self._microphone is _Microphone.REFUSED:
            return ()
        if self._microphone is _Microphone.CLOSED:
            self._microphone = _Microphone.REFUSED
            raise invalid(_REFUSED_AUDIO[self.channel])
        if self._sample_rate == SAMPLE_RATE:
            return (events.AudioReceived(data),)
        return (events.EncodedAudio(data, Encoding.PCM, self._sample_rate),)

    # --- to the device: sessions and text --------------------------------------------------

    def _status(self, event: events.StatusChanged) -> Iterator[events.JsonObject]:
        if event.state is events.State.READY:
            self._phase = _Phase.BEGUN
            resumed = bool(event.restored)
            yield {"type": "session", "session_id": event.session_id, "resumed": resumed}

    def _delta(self, event: events.TextDelta) -> Iterator[events.JsonObject]:
        self._said += event.text
        yield {"type": "response_delta", "text": event.text}

    def _text_done(self, event: events.TextDone) -> Iterator[events.JsonObject]:
        return self._end_text(event.turn_id, event.text)

    def _end_text(self, turn_id: int, text: str) -> Iterator[events.JsonObject]:
        if turn_id != self._ended_turn:
            self._ended_turn, self._said = turn_id, ""
            yield {"type": "response", "text": text}

    def _interrupted(self, event: events.TurnInterrupted) -> Iterator[events.JsonObject]:
        if self.channel is Channel.VOICE or event.turn_id != self._ended_turn:
            self._seen.interruptions += 1  # else only a sound that nobody hears was cut
        return self._end_text(event.turn_id, self._said)

    def _metrics(self, event: events.TurnMetrics) -> Iterator[events.JsonObject]:
        self._seen.turns += 1
        voice = self.channel is Channel.VOICE
        latency_ms = event.first_audio_ms if voice else event.first_token_ms
        if latency_ms is not None and math.isfinite(latency_ms):
            self._seen.latency_ms += latency_ms
            self._seen.measured += 1
        return self._end_text(event.turn_id, self._said)

    def _analytics(self, event: events.StatisticsSent) -> Iterator[events.JsonObject]:
        statistics = event.statistics
        session = {
            "messages": statistics.message_count,
            "interactions": statistics.interaction_count,
            "duration_seconds": _rounded(statistics.duration_seconds),
            "mean_interaction_seconds": _rounded(statistics.average_interaction_seconds),
            "last_activity": _rounded(statistics.last_activity),
        }
        yield {
            "type": "analytics",
            "session_id": event.session_id,
            "session": session,
            "connection": self._seen.fields,
        }

    def _error(self, event: events.ErrorReported) -> Iterator[events.JsonObject]:
        if self._phase is _Phase.ASKED and event.code is ErrorCode.SESSION_ERROR:
            self._phase = _Phase.NEW  # that one cannot be had: another one may be asked for
        if self.channel is Channel.CHAT and event.code is ErrorCode.TTS_ERROR:
            return  # the text is all there
        self._seen.errors += 1
        yield {"type": "error", "code": event.code, "message": event.message}

    # --- to the device: what was heard, and sound --------------------------------------------

    def _transcript(self, event: events.UserTranscript) -> Iterator[events.JsonObject]:
        self._words_came |= event.is_final
        yield {"type": "transcript", "text": event.text, "final": event.is_final}

    def _nothing_understood(self, _event: events.NothingUnderstood) -> Iterator[events.JsonObject]:
        if not self._words_came:  # else all that was said was understood before `audio_end`
            yield {"type": "transcript", "text": "", "final": True}

    def _voice(self, event: events.VoiceNoticed) -> Iterator[events.JsonObject]:
        if event.threshold is not None:
            self._threshold = round(event.threshold, 1)
        yield {"type": "vad", "speaking": event.speaking, "threshold": self._threshold}

    def _stream_started(self, event: events.StreamStarted) -> Iterator[events.JsonObject]:
        self._stream_id = event.stream_id
        yield {"type": "audio_start", "sample_rate": event.sample_rate}

    def _chunk(self, event: events.AudioChunk) -> Iterator[bytes]:
        if event.stream_id == self._stream_id:
            yield event.pcm

    def _stream_ended(self, event: events.StreamEnded) -> Iterator[events.JsonObject]:
        if event.stream_id == self._stream_id:
            yield {"type": "audio_end"}

    def _flushed(self, event: events.StreamFlushed) -> Iterator[events.JsonObject]:
        if event.stream_id == self._stream_id:  # it may have ended, and still be playing
            self._stream_id = None
            yield {"type": "stop_audio"}


_REFUSED_AUDIO: Final[Mapping[Channel, str]] = {
    Channel.CHAT: f"audio is taken at {Channel.VOICE} only; connect there with this session's id",
    Channel.VOICE: "audio stands between audio_start and audio_end; send audio_start first",
}


def _rounded(number: float | None) -> float | None:
    """Seconds to the millisecond."""
    return None if number is None else round(number, 3)


# One row per notice that is told; tools, pauses and pongs have no message here.
_Tell = Callable[[ConfiguratorDialect, Any], Iterator[events.JsonObject | bytes]]
_TEXT_TOLD: Final[Mapping[type[events.Notice], _Tell]] = {
    events.StatusChanged: ConfiguratorDialect._status,
    events.TextDelta: ConfiguratorDialect._delta,
    events.TextDone: ConfiguratorDialect._text_done,
    events.TurnInterrupted: ConfiguratorDialect._interrupted,
    events.TurnMetrics: ConfiguratorDialect._metrics,
    events.StatisticsSent: ConfiguratorDialect._analytics,
    events.ErrorReported: ConfiguratorDialect._error,
}
_SOUND_TOLD: Final[Mapping[type[events.Notice], _Tell]] = {
    events.UserTranscript: ConfiguratorDialect._transcript,
    events.NothingUnderstood: ConfiguratorDialect._nothing_understood,
    events.VoiceNoticed: ConfiguratorDialect._voice,
    events.StreamStarted: ConfiguratorDialect._stream_started,
    events.AudioChunk: ConfiguratorDialect._chunk,
    events.StreamEnded: ConfiguratorDialect._stream_ended,
    events.StreamFlushed: ConfiguratorDialect._flushed,
}
_TOLD: Final[Mapping[Channel, Mapping[type[events.Notice], _Tell]]] = {
    Channel.CHAT: _TEXT_TOLD,
    Channel.VOICE: {**_TEXT_TOLD, **_SOUND_TOLD},
}
