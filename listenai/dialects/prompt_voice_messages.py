"""What Prompt Voice devices may say, and the words they are told (spec 001, "API Reference")."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

import attrs

from listenai import events
from listenai.dialects.fields import MessageReader, whole
from listenai.errors import ErrorCode
from listenai.wav import wav_bytes

LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000  # Hz, of a device's microphone


# --- from the device ---------------------------------------------------------------------


@attrs.frozen
class Start:
    """A capture begins, and a reply stops; audio that follows is int16 mono PCM at this rate."""

    sample_rate: Annotated[int, whole(LOWEST_RATE, HIGHEST_RATE)] | None = None  # Hz; 16000


@attrs.frozen
class Stop:
    """The capture is over: what was said is the whole utterance."""


@attrs.frozen
class Cancel:
    """The capture is over, what was said does not count, and a reply stops."""


ClientMessage = Start | Stop | Cancel

CLIENT_MESSAGES: Final[Mapping[str, type[ClientMessage]]] = {
    "start": Start,
    "stop": Stop,
    "cancel": Cancel,
}
READER = MessageReader(CLIENT_MESSAGES, unknown_fields=True)  # pages may send more of their own


def claims(opening: events.JsonObject) -> bool:
    """Whether a first message is of this dialect, on a path that it shares."""
    return opening.get("type") == "start"


# --- to the device -----------------------------------------------------------------------


class Info(StrEnum):
    """The messages of `info`."""

    READY = "ready"  # the answer to `start`
    CANCELLED = "cancelled"  # the answer to `cancel`
    INTERRUPTED = "interrupted"
    NOTHING_UNDERSTOOD = "nothing was understood"
    NOTHING_STARTED = "nothing was started: `start` comes before `stop`"
    IGNORED = "audio after `stop` or `cancel` is ignored until the next `start`"
    QUEUED = "many replies are being made; this one waits for its place"
    CLOSING = "the server is shutting down"

    @property
    def fields(self) -> events.JsonObject:
        """The message that says it."""
        return {"type": "info", "message": self}


# States that have words of their own here; the others are seen from what else is told.
STATES: Final[Mapping[events.State, Info]] = {
    events.State.READY: Info.READY,
    events.State.QUEUED: Info.QUEUED,
    events.State.CLOSING: Info.CLOSING,
}

# Codes of the spec for what broke and for what took too long; others keep their names.
_CODES: Final[Mapping[ErrorCode, tuple[str, str]]] = {
    ErrorCode.UNKNOWN_MESSAGE_TYPE: ("INVALID_MESSAGE", "INVALID_MESSAGE"),
    ErrorCode.ASR_ERROR: ("ASR_ERROR", "ASR_TIMEOUT"),
    ErrorCode.LLM_ERROR: ("LLM_ERROR", "LLM_TIMEOUT"),
    ErrorCode.TTS_ERROR: ("TTS_ERROR", "TTS_TIMEOUT"),
    ErrorCode.TIMEOUT: ("LLM_TIMEOUT", "LLM_TIMEOUT"),  # the reply as a whole
}
# After these the connection is closed.
_LAST_WORDS = {ErrorCode.INTERNAL_ERROR, ErrorCode.SESSION_ERROR, ErrorCode.UNAUTHORIZED}


def error_fields(event: events.ErrorReported) -> events.JsonObject:
    """What went wrong; `recoverable`: the connection goes on."""
    broke, timed_out = _CODES.get(event.code, (event.code, event.code))
    return {
        "type": "error",
        "code": timed_out if event.timed_out else broke,
        "message": event.message,
        "recoverable": event.code not in _LAST_WORDS,
    }


def chunk_fields(seq: int, pcm: bytes, sample_rate: int) -> events.JsonObject:
    """A piece of audio, a WAV file of its own; pcm: int16 mono, sample_rate in Hz."""
    audio = base64.b64encode(wav_bytes(pcm, sample_rate)).decode()
    return {"type": "tts_chunk", "seq": seq, "audio_b64": audio, "mime": "audio/wav"}
