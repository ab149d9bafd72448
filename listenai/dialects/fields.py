"""Rules for the fields of messages, and the reader that makes attrs objects of JSON by them.

A message is an attrs class whose fields are annotated with their rules.  In a field that
may be left out, null means left out.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Final, Generic, TypeVar, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn

from listenai.dialects.json_text import invalid, shown
from listenai.errors import ErrorCode, ProtocolError

MAX_NAME = 64  # characters of an id, language or voice: what a label or a log line can show
MAX_COUNT = 2**53 - 1  # the largest integer that JavaScript and JSON agree about

_SHOWN_PROBLEMS = 5  # of one message in an error; also how many unknown fields are named


# --- rules -------------------------------------------------------------------------------


@attrs.frozen
class Rule:
    """What a field may hold: what `accept` is true of and `convert` makes ours."""

    allowed: str  # completes "must be …"
    accept: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value  # ValueError: not allowed either

    def read(self, value: object) -> Any:
        """The value in our type; raises ValueError saying what is allowed."""
        try:
            if self.accept(value):
                return self.convert(value)
        except ValueError:
            pass
        raise ValueError(f"must be {self.allowed}, not {shown(value)}")


def is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(low: float, high: float) -> Rule:
    return Rule(
        f"a number from {low} to {high}",
        lambda value: _is_number(value) and low <= value <= high,
        float,
    )


def whole(low: int, high: int) -> Rule:
    return Rule(
        f"a whole number from {low} to {high}",
        lambda value: _is_number(value) and low <= value <= high and value == int(value),
        int,
    )


def one_of(*values: Any) -> Rule:
    """One of these, compared by value: 16000.0 is 16000, and "raw" is Echo.RAW."""
    return Rule(
        f"one of {', '.join(map(str, values))}",
        lambda value: not isinstance(value, bool) and value in values,
        lambda value: values[values.index(value)],
    )


def matching(pattern: str, words: str) -> Rule:
    matches = re.compile(pattern).fullmatch
    return Rule(words, lambda value: isinstance(value, str) and matches(value) is not None)


def text(longest: int, *, blank: bool = False) -> Rule:
    return Rule(
        f"text of at most {longest} characters{'' if blank else ', not blank'}",
        lambda value: (
            isinstance(value, str) and len(value) <= longest and (blank or bool(value.strip()))
        ),
    )


def _decode_base64(text: str) -> bytes:
    data = binascii.a2b_base64(text, strict_mode=True)
    if len(text) != (len(data) + 2) // 3 * 4:  # strict mode lets a second padding pass
        raise ValueError("padded twice")
    return data


PLAIN_RULES: Final[Mapping[Any, Rule]] = {  # types that are their own rule
    bool: Rule("true or false", lambda value: isinstance(value, bool)),
}
Id = Annotated[
    str,
    matching(rf"[\w.-]{{1,{MAX_NAME}}}", f"1 to {MAX_NAME} letters, digits, '_', '.' or '-'"),
]
Name = Annotated[str, text(MAX_NAME)]
Audio = Annotated[bytes, Rule("audio in base64", is_text, _decode_base64)]


def rule_of(annotation: Any, plain: Mapping[Any, Rule] = PLAIN_RULES) -> Rule | None:
    """The rule of a field's annotation, or None; plain: of types that are their own rule."""
    if get_origin(annotation) is not Annotated:
        return plain.get(annotation)
    return next((mark for mark in get_args(annotation)[1:] if isinstance(mark, Rule)), None)


# --- reading -----------------------------------------------------------------------------

MessageT = TypeVar("MessageT")
T = TypeVar("T")


class MessageReader(Generic[MessageT]):
    """Makes messages of JSON objects by their field `type`; a class for each type.

    plain: the rules of types that are their own.  unknown_fields: whether a message may have
    fields that its class does not know.
    """

    def __init__(
        self,
        messages: Mapping[str, type[MessageT]],
        *,
        plain: Mapping[Any, Rule] = PLAIN_RULES,
        unknown_fields: bool = False,
    ) -> None:
        self._messages, self._plain, self._unknown_fields = messages, plain, unknown_fields
        self._converter = converter = Converter(detailed_validation=True)
        converter.register_structure_hook_factory(attrs.has, self._reader_of_object)
        converter.register_structure_hook_factory(
            lambda annotation: rule_of(annotation, plain) is not None, self._reader_of_field
        )
        for own in plain:  # cattrs would ask its own hooks for these before any factory
            converter.register_structure_hook(own, self._reader_of_field(own))

    def read(self, fields: Mapping[str, Any]) -> MessageT:
        """The message that an object is; raises ProtocolError naming each bad field."""
        kind, known = fields.get("type"), ", ".join(self._messages)
        if not isinstance(kind, str):
            problem = f"must be text, not {shown(kind)}" if "type" in fields else "is missing"
            raise invalid(f"field 'type' {problem}; known types: {known}")
        if kind not in self._messages:
            problem = f"unknown type {shown(kind)}; known types: {known}"
            raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, problem)
        others = {name: value for name, value in fields.items() if name != "type"}
        return self.read_as(self._messages[kind], others, kind)

    def read_as(self, cls: type[T], fields: Mapping[str, Any], called: str) -> T:
        """An object of a class; `called`: what the error calls it.  Raises ProtocolError."""
        try:
            return self._converter.structure(dict(fields), cls)
        except ClassValidationError as error:
            problems = "; ".join(islice(_problems(error, ""), _SHOWN_PROBLEMS))
            raise invalid(f"{called}: {problems}") from error

    def _reader_of_field(self, annotation: Any) -> Callable[[Any, Any], Any]:
        """A hook that reads a field by its rule; what is in a list is structured after that."""
        rule = rule_of(annotation, self._plain)
        assert rule is not None
        if annotation in self._plain or get_origin(inner := get_args(annotation)[0]) is not tuple:
            return lambda value, _: rule.read(value)
        structure: Any = self._converter.get_structure_hook(inner)
        return lambda value, _: structure(rule.read(value), inner)

    def _reader_of_object(self, cls: type) -> Callable[[Any, Any], Any]:
        """A hook for an attrs class, which cattrs would try to make of anything with keys."""
        structure: Any = make_dict_structure_fn(
            cls, self._converter, _cattrs_forbid_extra_keys=not self._unknown_fields
        )

        def read(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise ValueError(f"must be an object, not {shown(value)}")  # noqa: TRY004 - see Rule
            return structure(value, cls)

        return read


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
