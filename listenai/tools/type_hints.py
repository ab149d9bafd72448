"""Type hints of a tool's function: their JSON Schemas, and values between JSON and Python."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, time
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from cattrs import Converter, transform_error
from cattrs.v import format_exception

SUPPORTED = (
    "str, int, float, bool, None, list[…], dict[str, …], Literal, Enum, unions of them,"
    " attrs classes and Annotated[…, 'description']"
)
_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def schema_of(hint: Any, where: str, inside: tuple[type, ...] = ()) -> dict[str, Any]:
    """The JSON Schema of a hint; raises TypeError, naming `where`, for one that has none.

    inside: the attrs classes around it, which must not lead back to themselves.
    """
    match get_origin(hint), get_args(hint):
        case origin, (kind, *notes) if origin is Annotated:
            description = " ".join(note for note in notes if isinstance(note, str))
            schema = schema_of(kind, where, inside)
            schema |= {"description": description} if description else {}
        case origin, choices if origin is Union or origin is types.UnionType:
            schema = {"anyOf": [schema_of(choice, where, inside) for choice in choices]}
        case origin, choices if origin is Literal:
            schema = _choices(choices)
        case origin, (item,) if origin is list:
            schema = {"type": "array", "items": schema_of(item, where, inside)}
        case origin, (key, value) if origin is dict and key is str:
            schema = {"type": "object", "additionalProperties": schema_of(value, where, inside)}
        case None, _ if isinstance(hint, type):
            schema = _schema_of_class(hint, where, inside)
        case _:
            raise _unsupported(hint, where)
    return schema


def _schema_of_class(hint: type, where: str, inside: tuple[type, ...]) -> dict[str, Any]:
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if issubclass(hint, Enum) and len(hint):
        return _choices([member.value for member in hint])
    if not attrs.has(hint) or hint in inside:
        raise _unsupported(hint, where)
    hints = get_type_hints(hint, include_extras=True)
    fields = [field for field in attrs.fields(hint) if field.init]
    properties = {
        field.name: schema_of(hints[field.name], f"{where}.{field.name}", (*inside, hint))
        for field in fields
    }
    return object_schema(
        properties, [field.name for field in fields if field.default is attrs.NOTHING]
    )


def _unsupported(hint: Any, where: str) -> TypeError:
    return TypeError(f"{where} is {name_of(hint)}, which has no JSON Schema; there are {SUPPORTED}")


def _choices(values: Sequence[Any]) -> dict[str, Any]:
    kinds = list(dict.fromkeys(_PLAIN.get(type(value), "") for value in values))
    if "" in kinds:
        raise TypeError(f"the choices {values!r} are not all text, numbers, true, false or None")
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(values)}


def object_schema(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """An object of these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def name_of(hint: Any) -> str:
    """A hint as it is written."""
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


# --- from JSON, and to it ------------------------------------------------------------------


def read(value: Any, hint: Any, where: str) -> Any:
    """JSON data as the hint wants it: enumerations, attrs classes; nothing is coerced.

    Raises ValueError that says where which value is wrong.
    """
    try:
        return _converter.structure(value, hint)
    except Exception as error:  # cattrs, and validators of attrs classes, raise many kinds
        raise ValueError(". ".join(_complaints(error, where))) from error


def write(value: Any) -> Any:
    """A value as JSON data, as far as there is any for it: attrs classes, enumerations, times."""
    return _converter.unstructure(value)


def _complaints(error: Exception, where: str) -> list[str]:
    """What cattrs found, with the path first."""
    found = (text.rpartition(" @ ") for text in transform_error(error, where, _complaint))
    return [f"{path}: {problem}" for problem, _, path in found]


def _read_str(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("it must be a string")


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("it must be true or false")


def _read_none(value: Any) -> None:
    if value is not None:
        raise ValueError("it must be null")


def _read_int(value: Any) -> int:
    """An integer, also as 50.0: JSON does not tell them apart."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("it must be an integer")


def _read_float(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError("it must be a number")


def _read_list(value: Any, hint: Any) -> list[Any]:
    if isinstance(value, list):  # cattrs would take a string apart
        return [_converter.structure(item, get_args(hint)[0]) for item in value]
    raise ValueError("it must be an array")


def _read_union(value: Any, hint: Any) -> Any:
    """As the first of the hints that takes it."""
    for choice in get_args(hint):
        with suppress(Exception):  # cattrs raises many kinds
            return _converter.structure(value, choice)
    raise ValueError(f"it must be one of {', '.join(map(name_of, get_args(hint)))}")


def _read_plain(kind: type, reader: Callable[[Any], Any], value: Any, hint: Any) -> Any:
    """cattrs asks for subclasses too: an enumeration of texts, or of numbers."""
    return reader(value) if hint is kind else hint(value)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in {Union, types.UnionType}


def _is_list(hint: Any) -> bool:
    return bool(get_origin(hint) is list)


_READERS: Mapping[type, Callable[[Any], Any]] = {
    str: _read_str,
    bool: _read_bool,
    type(None): _read_none,
    int: _read_int,
    float: _read_float,
}


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind, reader in _READERS.items():
        converter.register_structure_hook(kind, partial(_read_plain, kind, reader))
    converter.register_structure_hook_func(_is_list, _read_list)
    converter.register_structure_hook_func(_is_union, _read_union)
    converter.register_unstructure_hook_func(_is_moment, lambda moment: moment.isoformat())
    return converter


def _is_moment(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, date | time)  # a datetime is a date


_converter = _make_converter()


def _complaint(error: BaseException, hint: type | None) -> str:
    if type(error) is ValueError:
        return str(error)
    return format_exception(error, hint)
