"""SANS-IO: what the ASR service and its clients say to each other (spec 000, "ASR Service").

Text messages are JSON objects, binary ones audio: int16 little-endian mono PCM at 16 kHz, of any
size.  The service speaks first: `ready`, or an `error` after which it hangs up.

    command       answered by    which comes
    ping          pong           at once
    reset         reset          when everything said and set in motion before it is forgotten;
                                 settings stay, frames and segments are counted from 1 again
    finish        finished       after the last result of the audio before it: what was being said
                                 ends here, however short it is
    configure     configured     when the audio before it was heard; in force from the next segment

A command that is not understood is answered by `error` INVALID_MESSAGE and changes nothing.
`vad` tells when speech starts and stops, `result` what was said: each segment once with
`is_final`, in order.  A segment without a text is told by `error` ASR_ERROR.

A threshold of 0 calls every frame speech: then nothing but `finish` and the longest utterance
that the service takes at once end a segment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NoReturn

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

from listenai.audio import FRAME_SAMPLES, SAMPLE_RATE
from listenai.errors import ListenAIError

MAX_TEXT_BYTES = 256 * 1024  # of one text message: a thousand times what is usual
MAX_AUDIO_BYTES = 1 << 20  # of one binary message: 32 s
MAX_NAME = 64  # characters of a language or a hotword
MAX_HOTWORDS = 100  # they go into every prompt of a model
MAX_SILENCE_FRAMES = 100  # 1.6 s
_SHOWN = 80  # characters of a bad value in an error
_SHOWN_PROBLEMS = 5  # of one message


class InvalidMessage(ListenAIError):
    """A message that is none of this protocol; says what is allowed."""


class ServiceErrorCode(StrEnum):
    """Codes of the service's errors."""

    INVALID_MESSAGE = "INVALID_MESSAGE"  # the client's fault; the connection goes on
    ASR_ERROR = "ASR_ERROR"  # no text for a segment
    BUSY = "BUSY"  # as many connections as it takes, or a client that reads too slowly
    MODEL_NOT_READY = "MODEL_NOT_READY"  # still loading: come back


# --- rules ---------------------------------------------------------------------------------


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _number(low: float, high: float) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """A validator: null, or within these bounds."""

    def check(_instance: object, field: attrs.Attribute[Any], value: float | None) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"field {field.name!r} must be from {low} to {high}, not {value!r}")

    return check


def _check_hop(_instance: object, field: attrs.Attribute[Any], value: int | None) -> None:
    if value not in (None, FRAME_SAMPLES):
        raise ValueError(
            f"field {field.name!r} must be {FRAME_SAMPLES}, the only hop size, not {value}"
        )


def _check_name(_instance: object, field: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not (value.strip() and len(value) <= MAX_NAME):
        raise ValueError(
            f"field {field.name!r} must be 1 to {MAX_NAME} characters, not {_shown(value)}"
        )


def _check_hotwords(
    _instance: object, field: attrs.Attribute[Any], value: tuple[str, ...] | None
) -> None:
    words = value or ()
    if len(words) > MAX_HOTWORDS or not all(0 < len(word) <= MAX_NAME for word in words):
        raise ValueError(
            f"field {field.name!r} must be at most {MAX_HOTWORDS} words of at most {MAX_NAME} "
            "characters"
        )


# --- from client to service ----------------------------------------------------------------


@attrs.frozen
class Ping:
    """Are you there?"""


@attrs.frozen
class Reset:
    """Forget what was said so far, and all that was learned of the speaker."""


@attrs.frozen
class Finish:
    """What is being said ends here; tell all of it."""


@attrs.frozen
class Configure:
    """Settings from the next segment on; what is left out stays as it is."""

    language: str | None = attrs.field(default=None, validator=_check_name)
    hotwords: tuple[str, ...] | None = attrs.field(default=None, validator=_check_hotwords)
    threshold: float | None = attrs.field(default=None, validator=_number(0, 1))
    silence_frames: int | None = attrs.field(default=None, validator=_number(1, MAX_SILENCE_FRAMES))
    hop_size: int | None = attrs.field(default=None, validator=_check_hop)


Command = Ping | Reset | Finish | Configure


# --- from service to client ----------------------------------------------------------------


@attrs.frozen
class Ready:
    """The model is loaded: speak."""

    sample_rate: int = SAMPLE_RATE  # Hz of the audio that is taken
    languages: tuple[str, ...] = ()
    partials: bool = True  # whether results come that are not final


@attrs.frozen
class Vad:
    """Speech started or stopped."""

    speeching: bool
    frame: int  # the frame that decided it, from 1
    probability: float  # of speech in this frame


@attrs.frozen
class Result:
    """The words of a segment: so far, or all of them."""

    text: str
    is_final: bool
    speeching: bool  # whether somebody speaks now
    segment_id: int  # from 1
    start_ms: float  # of the audio since the connection began or was reset
    end_ms: float
    complete: bool | None = None  # a whole sentence?  left out: cannot tell


@attrs.frozen
class Error:
    """Something could not be done."""

    code: ServiceErrorCode
    message: str


@attrs.frozen
class Pong:
    """Yes."""


@attrs.frozen
class WasReset:
    """Everything before `reset` is forgotten; nothing of it comes any more."""


@attrs.frozen
class Finished:
    """Everything before `finish` has been told."""


@attrs.frozen
class Configured:
    """The settings that are in force."""

    language: str = "en"
    hotwords: tuple[str, ...] = ()
    threshold: float = 0.5  # spec 000, "VAD Module": the defaults
    silence_frames: int = 5
    hop_size: int = FRAME_SAMPLES

    def changed(self, wanted: Configure) -> Configured:
        """These settings with what is wanted."""
        given = attrs.asdict(wanted, filter=lambda _, value: value is not None)
        return attrs.evolve(self, **given)


ServiceMessage = Ready | Vad | Result | Error | Pong | WasReset | Finished | Configured

COMMANDS: Final[Mapping[str, type[Command]]] = {
    "ping": Ping,
    "reset": Reset,
    "finish": Finish,
    "configure": Configure,
}
MESSAGES: Final[Mapping[str, type[ServiceMessage]]] = {
    "ready": Ready,
    "vad": Vad,
    "result": Result,
    "error": Error,
    "pong": Pong,
    "reset": WasReset,
    "finished": Finished,
    "configured": Configured,
}
_TAGS: Final[Mapping[type[Any], tuple[str, str]]] = {
    cls: (field, tag)
    for field, table in (("command", COMMANDS), ("type", MESSAGES))
    for tag, cls in table.items()
}


# --- JSON -> message -----------------------------------------------------------------------


def read_command(text: str) -> Command:
    """The command that a client's text message is; raises InvalidMessage."""
    command: Command = _read(text, "command", COMMANDS)
    return command


def read_message(text: str) -> ServiceMessage:
    """What a service's text message says; raises InvalidMessage."""
    message: ServiceMessage = _read(text, "type", MESSAGES)
    return message


def write(message: Command | ServiceMessage) -> str:
    """The text message that says this; what is None is left out."""
    field, tag = _TAGS[type(message)]
    values = _CONVERTER.unstructure(message).items()
    return _ENCODE({field: tag} | {name: value for name, value in values if value is not None})


def _read(text: str, tag_name: str, table: Mapping[str, type[Any]]) -> Any:
    fields = _parse(text)
    known = ", ".join(table)
    tag = fields.pop(tag_name, None)
    if not isinstance(tag, str) or tag not in table:
        raise InvalidMessage(
            f"field {tag_name!r} must be one of {known}, not {_shown(tag)}: see the protocol"
        )
    try:
        return _CONVERTER.structure(fields, table[tag])
    except ClassValidationError as error:
        raise InvalidMessage(
            f"{tag}: {'; '.join(islice(_problems(error), _SHOWN_PROBLEMS))}"
        ) from error


def _parse(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidMessage(
            f"a text message of {len(text)} characters; at most {MAX_TEXT_BYTES} are allowed"
        )
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"a text message must be JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidMessage(f"a text message must be a JSON object, not {_shown(fields)}")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _problems(error: BaseException) -> Iterator[str]:
    """What is wrong, field by field."""
    if isinstance(error, ClassValidationError):
        fields, others = error.group_exceptions()
        for cause, field in fields:
            missing = isinstance(cause, KeyError)
            yield f"field {field.name!r} {'is missing' if missing else cause}"
        for other in others:
            yield from _problems(other)
    elif isinstance(error, ForbiddenExtraKeysError):
        unknown = ", ".join(map(_shown, sorted(error.extra_fields)[:_SHOWN_PROBLEMS]))
        allowed = ", ".join(field.name for field in attrs.fields(error.cl)) or "none"
        yield f"unknown field {unknown}; allowed: {allowed}"
    else:
        yield str(error)


# cattrs would make the wanted type of what is none: numbers of text, lists of text, text of
# anything.  A field has to be what it is said to be.


def _read_text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair; send text as UTF-8") from None
    return value


def _read_code(value: Any, _: Any) -> ServiceErrorCode:
    try:
        return ServiceErrorCode(value)
    except ValueError:
        known = ", ".join(ServiceErrorCode)
        raise ValueError(f"must be one of {known}, not {_shown(value)}") from None


def _read_bool(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, not {_shown(value)}")
    return value


def _read_integer(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"must be a whole number, not {_shown(value)}")
    return value


def _read_number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a number that fits into 64 bits")
    return number


def _read_texts(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"must be a list of texts, not {_shown(value)}")
    return tuple(_read_text(item, str) for item in value)


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
_CONVERTER.register_structure_hook(str, _read_text)
_CONVERTER.register_structure_hook(ServiceErrorCode, _read_code)
_CONVERTER.register_structure_hook(bool, _read_bool)
_CONVERTER.register_structure_hook(int, _read_integer)
_CONVERTER.register_structure_hook(float, _read_number)
_CONVERTER.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _read_texts)
