"""The vocabulary of a conversation: tiny frozen facts and requests, counted in stream samples."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from listenai.audio import Encoding
from listenai.device import Capabilities, Duplex
from listenai.errors import ErrorCode
from listenai.settings import Configuration, EffectiveConfiguration, Offer, SessionStatistics
from listenai.wire import Message

JsonObject = Mapping[str, Any]


@attrs.frozen
class ToolSchema:
    """A tool as a chat model sees it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: JsonObject


# --- what a device asks (dialect → conversation) -----------------------------------------


@attrs.frozen
class AudioReceived:
    """Audio from the microphone, any number of bytes."""

    pcm: bytes  # int16 little-endian mono 16 kHz


@attrs.frozen
class EncodedAudio:
    """Audio from the microphone that has yet to be decoded, cut anywhere."""

    data: bytes
    encoding: Encoding
    sample_rate: int  # Hz


@attrs.frozen
class SessionStart:
    """Begin, or take up again, a session."""

    session_id: str | None = None
    capabilities: Capabilities = attrs.field(factory=Capabilities)
    device_tools: tuple[ToolSchema, ...] = ()


@attrs.frozen
class TextTyped:
    """A turn without speech."""

    text: str


@attrs.frozen
class SpeechFinished:
    """Push-to-talk was let go: the utterance ends now."""


@attrs.frozen
class SpeechDiscarded:
    """What is being said was not meant: forget the utterance so far."""


@attrs.frozen
class InterruptPressed:
    """The button: stop the reply."""


@attrs.frozen
class PlaybackReported:
    """What the device's loudspeaker has really played of a stream."""

    stream_id: int
    played_samples: int
    output_latency_ms: float = 0.0


@attrs.frozen
class DeviceToolReturned:
    """The device's answer to a tool call that it was asked to run."""

    call_id: str
    ok: bool
    result: Any


@attrs.frozen
class SessionEnd:
    """Erase the session and close."""


@attrs.frozen
class HistoryForgotten:
    """Begin the conversation anew, in the same session."""


@attrs.frozen
class HangUp:
    """Close the connection, and keep the session."""

    code: int
    reason: str


@attrs.frozen
class StatisticsAsked:
    """Please send the session's statistics."""


@attrs.frozen
class PingReceived:
    """The device asks whether we live."""

    id: str | int | None = None


@attrs.frozen
class Answer:
    """Messages of the dialect's own, to be sent when they have their turn."""

    messages: tuple[Message, ...]


Command = (
    SessionStart
    | Configuration
    | TextTyped
    | SpeechFinished
    | SpeechDiscarded
    | InterruptPressed
    | PlaybackReported
    | DeviceToolReturned
    | HistoryForgotten
    | SessionEnd
    | HangUp
    | StatisticsAsked
    | PingReceived
    | Answer
)
Request = AudioReceived | EncodedAudio | Command


# --- what the device is told (conversation → dialect) ------------------------------------


class State(StrEnum):
    """What the assistant is doing, for a light or a label."""

    READY = "ready"
    LISTENING = "listening"
    HEARING = "hearing"
    THINKING = "thinking"
    SPEAKING = "speaking"
    QUEUED = "queued"
    CLOSING = "closing"


class Certainty(StrEnum):
    """How the heard text is known."""

    REPORTED = "reported"  # from the device's playback report and the engine's word timings
    ESTIMATED = "estimated"


class Target(StrEnum):
    """Who runs a tool."""

    SERVER = "server"
    DEVICE = "device"


@attrs.frozen
class StatusChanged:
    """The assistant's state; more of it when that is news."""

    state: State
    session_id: str
    restored: bool | None = None
    configuration: EffectiveConfiguration | None = None
    offer: Offer | None = None
    statistics: SessionStatistics | None = None
    duplex: Duplex | None = None  # when ready, and whenever it is found to be another


@attrs.frozen
class UserTranscript:
    """What the user said; `turn_id` is the turn it will open."""

    text: str
    is_final: bool
    speeching: bool
    segment_id: int
    turn_id: int


@attrs.frozen
class NothingUnderstood:
    """The device said that the utterance is over, and there were no words in it."""


@attrs.frozen
class VoiceNoticed:
    """Somebody began, or ceased, to speak: what the detector says."""

    speaking: bool
    threshold: float | None = None  # dBFS: softer sound is noise; None: loudness does not count


@attrs.frozen
class TextDelta:
    """An increment of the reply's text."""

    turn_id: int
    text: str


@attrs.frozen
class TextDone:
    """The whole text of the reply."""

    turn_id: int
    text: str
    tool_calls: tuple[JsonObject, ...] = ()


@attrs.frozen
class ToolCalled:
    """A tool runs; where the target is the device: please run it and answer."""

    turn_id: int
    call_id: str
    name: str
    arguments: JsonObject
    target: Target


@attrs.frozen
class ToolReturned:
    """A tool's result, or why it failed."""

    turn_id: int
    call_id: str
    name: str
    ok: bool
    result: Any
    duration_ms: float


class Source(StrEnum):
    """What a stream of audio is."""

    SPEECH = "speech"  # with music below it, where music plays
    MUSIC = "music"


@attrs.frozen
class StreamStarted:
    """Audio follows, until the stream ends or is flushed."""

    turn_id: int  # of music, the turn that began last
    stream_id: int
    sample_rate: int  # Hz
    source: Source = Source.SPEECH


@attrs.frozen
class SentenceStarted:
    """From this sample on the stream says this."""

    stream_id: int
    text: str
    from_sample: int


@attrs.frozen
class AudioChunk:
    """Audio to be played."""

    stream_id: int
    pcm: bytes  # int16 little-endian mono at the stream's rate


@attrs.frozen
class StreamEnded:
    """The stream is complete."""

    stream_id: int
    samples: int


@attrs.frozen
class StreamPaused:
    """Stop playing at once, keep what is queued."""

    stream_id: int


@attrs.frozen
class StreamResumed:
    """Go on where the pause stopped."""

    stream_id: int


@attrs.frozen
class StreamFlushed:
    """Forget what is queued; what follows is another stream's."""

    stream_id: int


@attrs.frozen
class TurnInterrupted:
    """The user took the floor."""

    turn_id: int
    heard_text: str
    unheard_text: str
    played_ms: float
    certainty: Certainty


@attrs.frozen
class TurnMetrics:
    """When what happened, in ms after the last speech sample (typed: after the text came)."""

    turn_id: int
    end_of_speech_ms: float | None = None  # the detector said: over
    transcript_ms: float | None = None
    turn_started_ms: float | None = None
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    first_audio_ms: float | None = None  # handed to the wire
    text_done_ms: float | None = None
    audio_done_ms: float | None = None
    ended_ms: float | None = None
    certainty: Certainty | None = None  # how the heard text is known


@attrs.frozen
class StatisticsSent:
    """The session's statistics, as asked for."""

    session_id: str
    statistics: SessionStatistics


@attrs.frozen
class ErrorReported:
    """Something went wrong; the connection goes on unless it is closed next."""

    code: ErrorCode
    message: str
    turn_id: int | None = None
    retry_after_ms: int | None = None
    timed_out: bool = False  # whether the time was over, rather than something broke


@attrs.frozen
class PongSent:
    """Answer to a ping."""

    id: str | int | None = None


Notice = (
    StatusChanged
    | UserTranscript
    | NothingUnderstood
    | VoiceNoticed
    | TextDelta
    | TextDone
    | ToolCalled
    | ToolReturned
    | StreamStarted
    | SentenceStarted
    | AudioChunk
    | StreamEnded
    | StreamPaused
    | StreamResumed
    | StreamFlushed
    | TurnInterrupted
    | TurnMetrics
    | StatisticsSent
    | ErrorReported
    | PongSent
    | Answer
)
