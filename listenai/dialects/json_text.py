"""JSON in text messages, stricter than `json`: what every dialect reads and writes.

What passes can be encoded again, read by any other JSON reader in the same way, and
walked without reaching Python's recursion limit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from listenai.errors import ErrorCode, ProtocolError

MAX_MESSAGE_BYTES = 1 << 20  # 32 s of audio: more than anything a device has to say at once

_MAX_DIGITS = 32  # of an integer in JSON; Python takes minutes over some that fit in a message
_SHOWN_CHARACTERS = 40  # of a text in an error message; of a longer one only its length


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a text message; raises ProtocolError saying what is wrong."""
    try:
        check_size(len(text.encode()))
        value = _DECODE(text)
        if "\\u" in text:  # escapes can spell half of a surrogate pair, which is no text
            _ENCODE(value).encode()
    except UnicodeEncodeError:
        raise invalid("half of a surrogate pair; send text as UTF-8") from None
    except RecursionError:
        raise invalid("nested too deeply") from None
    except ValueError as error:
        raise invalid(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise invalid(f"must be a JSON object, not {shown(value)}")
    return value


def invalid(problem: str) -> ProtocolError:
    """The error for a message that is not as it must be."""
    return ProtocolError(ErrorCode.INVALID_MESSAGE, problem)


def check_size(size: int) -> None:
    """Raises ProtocolError for a message of more bytes than are taken."""
    if size > MAX_MESSAGE_BYTES:
        raise invalid(
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


def encode(fields: Mapping[str, Any]) -> str:
    """The shortest JSON text of an object; characters as they are, mappings of any kind."""
    return _ENCODE(fields)


def shown(value: object) -> str:
    """A JSON value as an error message shows it: short, whatever its size and depth."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"text of {len(value)} characters"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


_DECODE = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
).decode
_ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode
