"""SANS-IO: the messages of a TTS service and its clients as text, and back.

JSON text messages with a `type` both ways, and from the service binary ones: the audio of the
request that was started last, 16-bit little-endian mono PCM.  A service says `ready` first.
Each request goes `start`, audio and `words` in turn, and ends with one of `end`, `error` and
`cancelled`.  Every `cancel` is answered by `cancelled`, also of what is over or unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import islice
from operator import eq
from typing import Any, NoReturn, get_args

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_tagged_union

from listenai.engines.base import WordTiming
from listenai.errors import ListenAIError
from listenai.services.tts.messages import (
    REPLIES,
    REQUESTS,
    Mode,
    Reply,
    Request,
    TtsErrorCode,
    Word,
    is_id,
    shown,
)

_SHOWN_PROBLEMS = 5  # of one message
_LARGEST = 2**53  # up to which JSON, Python and JavaScript agree about numbers


class TtsProtocolError(ListenAIError):
    """A message that is none; says what is allowed, and of which request it is, if it tells."""

    def __init__(self, message: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


def decode_request(text: str) -> Request:
    """The client's message; raises TtsProtocolError."""
    request: Request = _decode(text, REQUESTS, _REQUEST)
    return request


def decode_reply(text: str) -> Reply:
    """The service's message; raises TtsProtocolError."""
    reply: Reply = _decode(text, REPLIES, _REPLY)
    return reply


def encode(message: Request | Reply) -> str:
    """The message as JSON; what is None is left out."""
    union = _REQUEST if isinstance(message, Request) else _REPLY
    fields = _CONVERTER.unstructure(message, unstructure_as=union)
    told = {name: value for name, value in fields.items() if value is not None}
    kind = told.pop("type")
    return json.dumps({"type": kind, **told}, ensure_ascii=False, separators=(",", ":"))


# --- words ---------------------------------------------------------------------------------


def words_of(text: str, timings: Sequence[WordTiming], sample_rate: int) -> tuple[Word, ...]:
    """Timings as they are sent, times to the microsecond: that is finer than a sample."""
    return tuple(
        Word(text[timing.start : timing.end], round(timing.from_sample * 1000 / sample_rate, 3))
        for timing in timings
    )


@attrs.define
class WordFinder:
    """Finds the words of one text in it again, in their order."""

    _text: str
    _at: int = attrs.field(default=0, init=False)

    def find(self, words: Sequence[Word], sample_rate: int) -> tuple[WordTiming, ...]:
        """Their timings; a word that the service has spelt otherwise is passed over."""
        timings = []
        for word in words:
            start = self._text.find(word.text, self._at)
            if word.text and start >= 0:
                self._at = start + len(word.text)
                sample = round(word.start_ms * sample_rate / 1000)
                timings.append(WordTiming(start, self._at, sample))
        return tuple(timings)


# --- text -> JSON object -------------------------------------------------------------------


def _decode(text: str, kinds: Mapping[str, type], union: Any) -> Any:
    fields = _object(text)
    request_id = fields["request_id"] if is_id(fields.get("request_id")) else None
    kind, known = fields.get("type"), ", ".join(kinds)
    if not isinstance(kind, str) or kind not in kinds:
        problem = f"must be one of {known}, not {shown(kind)}"
        raise TtsProtocolError(f"field 'type' {problem}", request_id)
    try:
        return _CONVERTER.structure(fields, union)
    except ClassValidationError as error:
        problems = "; ".join(islice(_problems(error, ""), _SHOWN_PROBLEMS))
        raise TtsProtocolError(f"{kind}: {problems}", request_id) from error


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:  # escapes can spell half of a surrogate pair, which is no text
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise TtsProtocolError("half of a surrogate pair; send text as UTF-8") from None
    except RecursionError:
        raise TtsProtocolError("nested too deeply") from None
    except ValueError as error:
        raise TtsProtocolError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise TtsProtocolError(
            f"must be a JSON object with a field 'type', not {shown(value)}; "
            "audio is binary, and comes from the service only"
        )
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# --- JSON object -> message ----------------------------------------------------------------


def _problems(error: BaseException, path: str) -> Iterator[str]:
    """What is wrong, field by field; a rule's own error says which field it is."""
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


def _strict(allowed: str, accept: Callable[[Any], bool]) -> Callable[[Any, Any], Any]:
    """A hook that converts nothing: 5 is no text, and "5" no number."""

    def read(value: Any, _type: Any) -> Any:
        if not accept(value):
            raise ValueError(f"must be {allowed}, not {shown(value)}")
        return value

    return read


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reader_of_enum(cls: type[StrEnum]) -> Callable[[Any, Any], Any]:
    known = ", ".join(cls)

    def read(value: Any, _type: Any) -> Any:
        if not isinstance(value, str) or value not in list(cls):
            raise ValueError(f"must be one of {known}, not {shown(value)}")
        return cls(value)

    return read


def _reader_of_object(cls: type) -> Callable[[Any, Any], Any]:
    """A hook for an attrs class, which cattrs would try to make of anything with keys."""
    structure: Any = make_dict_structure_fn(cls, _CONVERTER, _cattrs_forbid_extra_keys=True)

    def read(value: Any, _type: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, not {shown(value)}")  # noqa: TRY004
        return structure(value, cls)

    return read


def _read_voices(value: Any, _type: Any) -> Any:
    if not isinstance(value, dict) or not all(isinstance(told, str) for told in value.values()):
        raise ValueError(f"must be an object of voices, each with its text, not {shown(value)}")
    return value


def _read_words(value: Any, _type: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of words, not {shown(value)}")  # noqa: TRY004
    return tuple(_CONVERTER.structure(word, Word) for word in value)


_REQUEST: Any = Request  # cattrs takes a union, its signature does not say so
_REPLY: Any = Reply
_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
_CONVERTER.register_structure_hook(str, _strict("text", lambda value: isinstance(value, str)))
_CONVERTER.register_structure_hook(
    float, _strict("a number", lambda value: _is_number(value) and abs(value) <= _LARGEST)
)
_CONVERTER.register_structure_hook(
    int, _strict("a whole number", lambda value: _is_number(value) and isinstance(value, int))
)
for _enum in (Mode, TtsErrorCode):
    _CONVERTER.register_structure_hook(_enum, _reader_of_enum(_enum))
_CONVERTER.register_structure_hook_factory(attrs.has, _reader_of_object)
for _shape, _read in ((Mapping[str, str], _read_voices), (tuple[Word, ...], _read_words)):
    _CONVERTER.register_structure_hook_func(partial(eq, _shape), _read)
for _union, _kinds in ((_REQUEST, REQUESTS), (_REPLY, REPLIES)):
    configure_tagged_union(
        _union,
        _CONVERTER,
        tag_generator={cls: kind for kind, cls in _kinds.items()}.__getitem__,
        tag_name="type",
    )
assert set(get_args(_REQUEST)) == set(REQUESTS.values())
assert set(get_args(_REPLY)) == set(REPLIES.values())
