"""What Hotpin devices say and are told, as JSON that fits into their 512 bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Annotated, Any, Final

import attrs

from listenai.dialects.fields import Id, MessageReader, one_of
from listenai.dialects.json_text import encode, invalid, parse_object
from listenai.errors import ErrorCode
from listenai.wire import Message

# The device's parser has 512 bytes (spec 002, 6.3.4 and 8.2) for the text and its tree.
MAX_JSON_BYTES = 400

# Spec 002, 7.1 and 3.4.5.
EMPTY_AUDIO = "Empty audio buffer"
NOT_UNDERSTOOD = "Could not understand audio"
UNAVAILABLE = "Service temporarily unavailable"
NO_SPEECH = "TTS synthesis failure"
BUSY, INTERRUPTED = "Busy", "Interrupted"
ERRORS: Final[Mapping[ErrorCode, str]] = {  # of others, their own message
    ErrorCode.LLM_ERROR: UNAVAILABLE,
    ErrorCode.TIMEOUT: UNAVAILABLE,
    ErrorCode.TTS_ERROR: NO_SPEECH,
}


# --- from the device -----------------------------------------------------------------------


@attrs.frozen
class _Handshake:
    """The first message; its `api_key` is looked at by whoever opens the connection."""

    session_id: Id


@attrs.frozen
class _Signal:
    """Every other text message."""

    signal: Annotated[str, one_of("EOS", "RESET")]


_READER: Final = MessageReader[Any]({}, unknown_fields=True)


def session_of(message: Message) -> str:
    """The session that a handshake asks for; raises ProtocolError."""
    if isinstance(message, bytes):
        raise invalid("audio came before the handshake")
    return _READER.read_as(_Handshake, parse_object(message), "handshake").session_id


def signal_of(message: str) -> str:
    """EOS or RESET; raises ProtocolError."""
    return _READER.read_as(_Signal, parse_object(message), "message").signal


# --- to the device -------------------------------------------------------------------------

COMPLETE = encode({"status": "complete"})
RESET = encode({"status": "reset"})
TRANSCRIBING = encode({"status": "processing", "stage": "transcription"})


def connected(session_id: str) -> Message:
    """The session is there."""
    return encode({"status": "connected", "session_id": session_id})


def thinking(transcript: str) -> Message:
    """What was understood."""
    return _fitting({"status": "processing", "stage": "llm"}, "transcript", transcript)


def speaking(response: str) -> Message:
    """What is answered; the device empties its buffer for the audio."""
    return _fitting({"status": "processing", "stage": "tts"}, "response", response)


def error(text: str) -> Message:
    """What went wrong."""
    return _fitting({"status": "error"}, "message", text)


def _fitting(fields: Mapping[str, str], name: str, text: str) -> Message:
    """A message with this text, of which as much is left out as the device has no room for."""
    text = text.encode(errors="replace").decode()  # half of a surrogate pair cannot be sent

    def message(kept: int) -> str:
        shown = text if kept == len(text) else f"{text[:kept].rstrip()}…"
        return encode({**fields, name: shown})

    def size(kept: int) -> int:
        return len(message(kept).encode())

    if size(len(text)) <= MAX_JSON_BYTES:
        return message(len(text))
    shorter = range(min(len(text), MAX_JSON_BYTES))
    return message(bisect_right(shorter, MAX_JSON_BYTES, key=size) - 1)
