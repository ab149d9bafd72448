"""What a TTS service and its clients say to each other: one class a message, and its rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, Literal

import attrs

PATH = "/tts"
MAX_TEXT = 2_000  # characters of one request: two minutes of speech
MAX_NAME = 64  # characters of a voice or language
MAX_STYLE = 200  # characters
MAX_WAITING = 8  # requests of one connection beside the one that is spoken
# The largest message of a client: MAX_TEXT characters as JSON escapes, and all the rest.
MAX_REQUEST_BYTES = 32 * 1024

_SHOWN_CHARACTERS = 40  # of a text in an error message


class TtsErrorCode(StrEnum):
    """What an `error` means."""

    INVALID_MESSAGE = "INVALID_MESSAGE"  # the same message fails always
    TTS_ERROR = "TTS_ERROR"  # the engine could not say it
    BUSY = "BUSY"  # too many requests wait
    MODEL_NOT_READY = "MODEL_NOT_READY"  # `ready` comes when it has loaded


class Mode(StrEnum):
    """When audio is sent."""

    STREAMING = "streaming"  # as it is made
    FULL = "full"  # all of it in one message, when it is whole


def shown(value: object) -> str:
    """A JSON value as an error message shows it: short, whatever its size."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"text of {len(value)} characters"
    words = {None: "null", True: "true", False: "false"}
    told = words[value] if value is None or isinstance(value, bool) else repr(value)
    return told if len(told) <= 2 * _SHOWN_CHARACTERS else "a very long number"


# --- rules of fields ---------------------------------------------------------------------

_Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _rule(allowed: str, accept: Callable[[Any], bool]) -> _Check:
    """An attrs validator; `allowed` completes "must be …", None is left to the field's type."""

    def check(_message: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not accept(value):
            raise ValueError(f"field {field.name!r} must be {allowed}, not {shown(value)}")

    return check


def _number(low: float, high: float) -> _Check:
    return _rule(f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


def _text(longest: int) -> _Check:
    return _rule(
        f"text of at most {longest} characters, not blank",
        lambda value: len(value) <= longest and bool(value.strip()),
    )


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # but tab and line ends
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_no_control = _rule(
    "text without control characters (but tabs and line ends)",
    lambda value: not _CONTROL.search(value),
)
_ID = re.compile(r"[\w.-]{1,64}")


def is_id(value: object) -> bool:
    """Whether this can name a request."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


_id = _rule("1 to 64 letters, digits, '_', '.' or '-'", is_id)


def sendable(text: str) -> str:
    """The text without what no request may hold, each such character a blank: places stay."""
    return _SURROGATE.sub(" ", _CONTROL.sub(" ", text))


# --- from the client ---------------------------------------------------------------------


@attrs.frozen
class Synthesize:
    """Say this; engines without such parameters do not look at the last three."""

    request_id: str = attrs.field(validator=_id)
    text: str = attrs.field(validator=[_text(MAX_TEXT), _no_control])
    voice_id: str = attrs.field(validator=_text(MAX_NAME))
    mode: Mode = Mode.STREAMING
    language: str = attrs.field(default="en", validator=_text(MAX_NAME))  # of a voice of several
    cfg_value: float | None = attrs.field(default=None, validator=_number(0, 10))
    inference_timesteps: int | None = attrs.field(default=None, validator=_number(1, 1000))
    style: str | None = attrs.field(default=None, validator=[_text(MAX_STYLE), _no_control])


@attrs.frozen
class Cancel:
    """Stop this request; no audio of it comes after `cancelled`."""

    request_id: str = attrs.field(validator=_id)


@attrs.frozen
class Voices:
    """Ask which voices there are."""


# --- from the service --------------------------------------------------------------------


@attrs.frozen
class Ready:
    """Requests can be made."""

    voices: Mapping[str, str]  # id → what it is
    sample_rate: int = attrs.field(validator=_number(8_000, 192_000))  # Hz


@attrs.frozen
class Start:
    """The request's turn has come: audio that follows is its."""

    request_id: str
    sample_rate: int
    channels: Literal[1] = 1
    format: Literal["pcm_s16le"] = "pcm_s16le"


@attrs.frozen
class Word:
    """One word as it stands in the text, and when it begins in the request's audio."""

    text: str
    start_ms: float


@attrs.frozen
class Words:
    """The next words; they begin in the audio that follows, or were not told before."""

    request_id: str
    words: tuple[Word, ...]


@attrs.frozen
class End:
    """All of it was said."""

    request_id: str
    duration_ms: float


@attrs.frozen
class Cancelled:
    """The request is over and the engine free."""

    request_id: str


@attrs.frozen
class VoicesListed:
    """The answer to `voices`."""

    voices: Mapping[str, str]


@attrs.frozen
class Failed:
    """What went wrong; with a request's id it is over."""

    code: TtsErrorCode
    message: str
    request_id: str | None = None


Request = Synthesize | Cancel | Voices
Reply = Ready | Start | Words | End | Cancelled | VoicesListed | Failed

REQUESTS: Final[Mapping[str, type[Request]]] = {
    "synthesize": Synthesize,
    "cancel": Cancel,
    "voices": Voices,
}
REPLIES: Final[Mapping[str, type[Reply]]] = {
    "ready": Ready,
    "start": Start,
    "words": Words,
    "end": End,
    "cancelled": Cancelled,
    "voices": VoicesListed,
    "error": Failed,
}
