"""What is wrong with a value, and what its schema allows, in words for a chat model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from jsonschema.exceptions import ValidationError

MAX_TOLD = 4  # complaints at once: enough to put it right
MAX_TOLD_CHARACTERS = 60  # of a value or name
MAX_TOLD_CHOICES = 300  # characters of all that is allowed

_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_BEYOND = {
    "minimum": "less than the minimum of",
    "maximum": "more than the maximum of",
    "exclusiveMinimum": "not more than",
    "exclusiveMaximum": "not less than",
}
_LIMITS = {
    "minimum": "of at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "of at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "with at least {} characters",
    "maxLength": "with at most {} characters",
    "minItems": "with at least {} items",
    "maxItems": "with at most {} items",
}
_IN_WORDS = {"type", "enum", "const", "anyOf", "oneOf", *_LIMITS}  # what `_allowed` tells of


def tell(error: ValidationError) -> str:
    """One wrong argument: its path, what is wrong with it, and what is allowed."""
    where = path(error)
    inside = f"{where}." if where else ""
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    match error.validator:
        case "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return ". ".join(
                f"{inside}{_name(name)}: it is missing; {_must(known.get(name))}"
                for name in missing[:MAX_TOLD]
            )
        case "additionalProperties":
            unknown = (inside + _name(name) for name in error.instance if name not in known)
            names = ", ".join(islice(unknown, MAX_TOLD))
            there_are = _cut(", ".join(map(_name, known)) or "none", MAX_TOLD_CHOICES)
            return f"{names}: there is no such argument; there are: {there_are}"
    return f"{where or 'the arguments'}: {complaint(error)}"


def complaint(error: ValidationError) -> str:
    """What is wrong with a value, and what is allowed, without its path."""
    if error.validator is None:  # the schema `false`
        return f"{brief(error.instance)} is never allowed"
    value, limit = brief(error.instance), brief(error.validator_value)
    if error.validator in _BEYOND:
        return f"{value} is {_BEYOND[error.validator]} {limit}; {_must(error.schema)}"
    if error.validator in _IN_WORDS and _allowed(error.schema):
        return f"{value} is not allowed; {_must(error.schema)}"
    return f'{value} is not allowed by "{error.validator}": {limit}'


def path(error: ValidationError) -> str:
    """Where the value is, like `songs[2].title`; empty for the whole."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in error.path)
    return "".join(parts).removeprefix(".")


def brief(value: Any) -> str:
    """A value as JSON, on one line, cut where it is long."""
    return _cut(json.dumps(value, ensure_ascii=False, default=str), MAX_TOLD_CHARACTERS)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _name(name: str) -> str:
    return name if name.isidentifier() and len(name) <= MAX_TOLD_CHARACTERS else brief(name)


def _must(schema: Any) -> str:
    return f"it must be {_cut(_allowed(schema), MAX_TOLD_CHOICES) or 'given'}"


def _allowed(schema: Any) -> str:
    """What a schema allows, in words; empty when they fail us."""
    match schema:
        case {"const": value}:
            return brief(value)
        case {"enum": [*values]}:
            return "one of " + ", ".join(map(brief, values))
        case {"anyOf": [*choices]} | {"oneOf": [*choices]}:
            return " or ".join(dict.fromkeys(filter(None, map(_allowed, choices))))
        case {"$ref": str(reference)}:
            return f"a {brief(reference.rpartition('/')[2])}"
        case {"type": str() | [*_] as kinds}:
            names = [kinds] if isinstance(kinds, str) else kinds
            types = " or ".join(_TYPES.get(name, brief(name)) for name in names)
            return " ".join([types, *_limits(schema)])
    return ""


def _limits(schema: Mapping[str, Any]) -> list[str]:
    match schema:
        case {"minimum": least, "maximum": most}:
            return [f"from {brief(least)} to {brief(most)}"]
    return [said.format(brief(schema[key])) for key, said in _LIMITS.items() if key in schema]
