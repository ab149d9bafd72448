"""The ListenAI dialect (spec 000, "Protocol Layer"; served at `/docs/protocol`).

JSON text messages with a `type`, binary messages of audio, both ways.  What a
device may say stands in `messages`; here it is checked and turned into requests,
and notices are turned into messages by a table with one function per notice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NoReturn, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_tagged_union

from listenai import events, settings
from listenai.device import DeviceProfile
from listenai.dialects.base import NEVER
from listenai.dialects.messages import (
    CLIENT_MESSAGES,
    PLAIN_RULES,
    ClientMessage,
    rule_of,
    shown,
)
from listenai.errors import ErrorCode, ProtocolError
from listenai.wire import Message

MAX_MESSAGE_BYTES = 1 << 20  # 32 s of audio: more than anything a device has to say at once

_MAX_DIGITS = 32  # of an integer in JSON; Python takes minutes over some that fit in a message
_SHOWN_PROBLEMS = 5  # of one message in an error; also how many unknown fields are named


@attrs.define
class ListenAIDialect:
    """One ListenAI device's translator; keeps nothing between messages, so `now` is not used."""

    profile: DeviceProfile = attrs.field(factory=DeviceProfile)

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """The request that one message is; raises ProtocolError saying what is allowed."""
        if isinstance(message, str):
            return (_structure(_parse(message)).request(),)
        if len(message) > MAX_MESSAGE_BYTES:
            _refuse_size(len(message))
        return (events.AudioReceived(message),)

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:  # noqa: ARG002
        """The one message that tells the device this."""
        if type(event) is events.AudioChunk:
            return (event.pcm,)
        return (_ENCODE(_FIELDS[type(event)](event)),)

    def next_deadline(self) -> float:
        """NEVER: this dialect has no heartbeat of its own."""
        return NEVER

    def expire(self, now: float) -> Sequence[Message]:  # noqa: ARG002
        """Nothing is ever due."""
        return ()


# --- from the device: text -> JSON object ------------------------------------------------


def _parse(text: str) -> dict[str, Any]:
    """The JSON object in a text message.

    Stricter than `json`: what passes can be encoded again, read by any other JSON
    reader in the same way, and walked without reaching Python's recursion limit.
    """
    try:
        size = len(text.encode())
        if size > MAX_MESSAGE_BYTES:
            _refuse_size(size)
        value = _DECODE(text)
        if "\\u" in text:  # escapes can spell half of a surrogate pair, which is no text
            _ENCODE(value).encode()
    except UnicodeEncodeError:
        raise _invalid("half of a surrogate pair; send text as UTF-8") from None
    except RecursionError:
        raise _invalid("nested too deeply") from None
    except ValueError as error:
        raise _invalid(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _invalid(f"must be a JSON object with a field 'type', not {shown(value)}")
    return value


def _invalid(problem: str) -> ProtocolError:
    return ProtocolError(ErrorCode.INVALID_MESSAGE, problem)


def _refuse_size(size: int) -> NoReturn:
    raise _invalid(
        f"message of {size} bytes; at most {MAX_MESSAGE_BYTES} are allowed: send smaller ones"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = names.most_common(1)[0][0]
        raise ValueError(f"field {shown(twice)} is there twice; give it once")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; at most {_MAX_DIGITS} are allowed")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError("a number too large for a 64-bit float")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number; use null or leave the field out")


def _plain(value: object) -> object:
    """Mappings of any kind as objects, for the encoder."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


_DECODE = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
).decode
_ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


# --- from the device: JSON object -> message ---------------------------------------------


def _structure(fields: dict[str, Any]) -> ClientMessage:
    """The message that an object is; raises ProtocolError naming each bad field."""
    kind, known = fields.get("type"), ", ".join(CLIENT_MESSAGES)
    if not isinstance(kind, str):
        problem = f"must be text, not {shown(kind)}" if "type" in fields else "is missing"
        raise _invalid(f"field 'type' {problem}; known types: {known}")
    if kind not in CLIENT_MESSAGES:
        problem = f"unknown type {shown(kind)}; known types: {known}"
        raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, problem)
    try:
        message: ClientMessage = _CONVERTER.structure(fields, _ANY_MESSAGE)
    except ClassValidationError as error:
        problems = "; ".join(islice(_problems(error, ""), _SHOWN_PROBLEMS))
        raise _invalid(f"{kind}: {problems}") from error
    return message


def _problems(error: BaseException, path: str) -> Iterator[str]:
    """What is wrong, field by field; an error without a field says itself where it was."""
    if isinstance(error, ClassValidationError):
        fields, others = error.group_exceptions()
        for cause, field in fields:
            yield from _problems(cause, f"{path}.{field.name}" if path else field.name)
        for cause in others:
            yield from _problems(cause, path)
    elif isinstance(error, IterableValidationError):
        for cause, item in error.group_exceptions()[0]:
            yield from _problems(cause, f"{path}[{item.index}]")
    elif isinstance(error, ForbiddenExtraKeysError):
        unknown = ", ".join(map(shown, sorted(error.extra_fields)[:_SHOWN_PROBLEMS]))
        allowed = ", ".join(field.name for field in attrs.fields(error.cl)) or "none but 'type'"
        yield f"unknown field {unknown}{f' in {path!r}' if path else ''}; allowed: {allowed}"
    elif isinstance(error, KeyError):
        yield f"field {path!r} is missing"
    else:
        yield f"field {path!r} {error}" if path else str(error)


def _reader_of_field(annotation: Any) -> Callable[[Any, Any], Any]:
    """A hook that reads a field by its rule; what is in a list is structured after that."""
    rule = rule_of(annotation)
    assert rule is not None
    if annotation in PLAIN_RULES or get_origin(inner := get_args(annotation)[0]) is not tuple:
        return lambda value, _: rule.read(value)
    structure: Any = _CONVERTER.get_structure_hook(inner)
    return lambda value, _: structure(rule.read(value), inner)


def _reader_of_object(cls: type) -> Callable[[Any, Any], Any]:
    """A hook for an attrs class, which cattrs would try to make of anything with keys."""
    structure: Any = make_dict_structure_fn(cls, _CONVERTER, _cattrs_forbid_extra_keys=True)

    def read(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {shown(value)}")  # noqa: TRY004 - see Rule
        return structure(value, cls)

    return read


_ANY_MESSAGE: Any = ClientMessage  # cattrs takes a union, its signature does not say so
_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
_CONVERTER.register_structure_hook_factory(attrs.has, _reader_of_object)
_CONVERTER.register_structure_hook_factory(
    lambda annotation: rule_of(annotation) is not None, _reader_of_field
)
for _type in PLAIN_RULES:  # cattrs would ask its own hooks for these before any factory
    _CONVERTER.register_structure_hook(_type, _reader_of_field(_type))
configure_tagged_union(
    _ANY_MESSAGE,
    _CONVERTER,
    tag_generator={cls: kind for kind, cls in CLIENT_MESSAGES.items()}.__getitem__,
    tag_name="type",
)


# --- to the device: notice -> JSON object ------------------------------------------------

Fields = dict[str, Any]


def _rounded(value: Any) -> Any:
    """Milliseconds to the microsecond, which is more than anybody can measure."""
    return round(value, 3) if isinstance(value, float) else value


def _as(kind: str, **more: Any) -> Callable[[Any], Fields]:
    """A row for a notice whose fields are those of the wire; None is left out."""

    def fields(event: Any) -> Fields:
        values = attrs.asdict(event, recurse=False)
        known = {name: _rounded(value) for name, value in values.items() if value is not None}
        return {"type": kind, **more, **known}

    return fields


def _status(event: events.StatusChanged) -> Fields:
    fields: Fields = {"type": "status", "state": event.state, "session_id": event.session_id}
    if event.restored is not None:
        fields["restored"] = event.restored
    if event.configuration is not None:
        fields["configuration"] = attrs.asdict(event.configuration)
    if event.offer is not None:
        fields["capabilities"] = attrs.asdict(event.offer)
    if event.statistics is not None:
        fields["statistics"] = _statistics(event.statistics)
    return fields


def _statistics(statistics: settings.SessionStatistics) -> Fields:
    return {
        "message_count": statistics.message_count,
        "interaction_count": statistics.interaction_count,
        "session_duration_seconds": statistics.duration_seconds,
        "average_interaction_seconds": statistics.average_interaction_seconds,
        "last_activity": statistics.last_activity,
    }


def _session_stats(event: events.StatisticsSent) -> Fields:
    head = {"type": "session_stats", "session_id": event.session_id}
    return head | _statistics(event.statistics)


def _delta(event: events.TextDelta) -> Fields:
    return {"type": "llm_response", "turn_id": event.turn_id, "delta": True, "text": event.text}


def _done(event: events.TextDone) -> Fields:
    head = {"type": "llm_response", "turn_id": event.turn_id, "done": True, "text": event.text}
    return head | ({"tool_calls": event.tool_calls} if event.tool_calls else {})


def _tool_result(event: events.ToolReturned) -> Fields:
    return {
        "type": "tool_result",
        "turn_id": event.turn_id,
        "call_id": event.call_id,
        "name": event.name,
        "ok": event.ok,
        "result" if event.ok else "error": event.result,
        "duration_ms": _rounded(event.duration_ms),
    }


def _turn_metrics(event: events.TurnMetrics) -> Fields:
    times = attrs.asdict(event, recurse=False)  # None too: "unknown is null"
    certainty = times.pop("certainty")
    rounded = {name: _rounded(value) for name, value in times.items()}
    return {"type": "turn_metrics", **rounded, "certainty": certainty}


# One row per notice; AudioChunk is binary and has none.
_FIELDS: Final[Mapping[type[events.Notice], Callable[[Any], Fields]]] = {
    events.StatusChanged: _status,
    events.UserTranscript: _as("asr_result"),
    events.TextDelta: _delta,
    events.TextDone: _done,
    events.ToolCalled: _as("tool_call"),
    events.ToolReturned: _tool_result,
    events.StreamStarted: _as("tts_audio", state="start"),
    events.SentenceStarted: _as("tts_audio", state="sentence"),
    events.StreamEnded: _as("tts_audio", state="end"),
    events.StreamPaused: _as("pause"),
    events.StreamResumed: _as("resume"),
    events.StreamFlushed: _as("flush"),
    events.TurnInterrupted: _as("interrupted"),
    events.TurnMetrics: _turn_metrics,
    events.StatisticsSent: _session_stats,
    events.ErrorReported: _as("error"),
    events.PongSent: _as("pong"),
}
