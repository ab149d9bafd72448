"""What the text of a variable may be, and the value it is read as."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_Number = TypeVar("_Number", int, float)


@attrs.frozen
class Check:
    """What is allowed, in words that follow "must be", and how the text is read."""

    allowed: str
    read: Callable[[str], Any]  # raises ValueError for what is not allowed


def number(lowest: float, highest: float) -> Check:
    """A float within bounds, both included; NaN is in no bounds."""
    return Check(
        f"a number from {lowest:.10g} to {highest:.10g}",
        lambda text: _within(float(_plain(text)), lowest, highest),
    )


def whole(lowest: int, highest: int) -> Check:
    """An int within bounds, both included."""
    return Check(
        f"a whole number from {lowest} to {highest}",
        lambda text: _within(int(_plain(text)), lowest, highest),
    )


def ports() -> Check:
    """Different ports; "" is none."""

    def read(text: str) -> tuple[int, ...]:
        found = tuple(_within(int(_plain(part)), 1, 65535) for part in text.split(",") if text)
        if len(set(found)) < len(found):
            raise ValueError("a port is named twice")
        return found

    return Check("different ports from 1 to 65535 with commas between them, or empty: none", read)


def switch() -> Check:
    """A bool."""

    def read(text: str) -> bool:
        word = text.strip().lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("neither true nor false")
        return word in _TRUE

    return Check("true or false (also yes, no, on, off, 1, 0)", read)


def choice(*values: str) -> Check:
    """One of these words, in any case; read as it is written here."""

    def read(text: str) -> str:
        word = text.strip().lower()
        for value in values:
            if word == value.lower():
                return value
        raise ValueError("none of them")

    return Check(f"one of {', '.join(values)}", read)


def only(value: int, why: str) -> Check:
    """The one number that works; `why` follows it."""
    return Check(f"{value} ({why})", lambda text: _within(int(_plain(text)), value, value))


def text(*, or_empty: str = "") -> Check:
    """Text in UTF-8, with the blanks around it taken off.

    or_empty: what an empty one means, where it may be empty.
    """

    def read(given: str) -> str:
        given.encode()  # bytes that are not UTF-8 came in as half characters: a ValueError
        stripped = given.strip()
        if not stripped and not or_empty:
            raise ValueError("empty")
        return stripped

    return Check(f"text, or empty: {or_empty}" if or_empty else "text that is not empty", read)


def date() -> Check:
    """A day as text, which is how MCP numbers its protocol's versions."""

    def read(given: str) -> str:
        if not _DATE.fullmatch(given.strip()):
            raise ValueError("not a date")
        return given.strip()

    return Check("a date like 2024-11-05", read)


def url(*schemes: str, or_empty: str) -> Check:
    """A URL with a host, in one of these schemes; or_empty: what an empty one means."""
    starts = " or ".join(f"{scheme}://" for scheme in schemes)

    def read(given: str) -> str:
        given = given.strip()
        parts = urlsplit(given)
        wrong_port = parts.port == 0  # asking raises ValueError for one that is no number
        if given and (parts.scheme not in schemes or not parts.hostname or wrong_port):
            raise ValueError("not such a URL")
        if not given.isprintable() or " " in given:
            raise ValueError("blanks")
        return given

    return Check(f"a URL that begins with {starts}, or empty: {or_empty}", read)


def urls(*schemes: str, or_empty: str) -> Check:
    """Several URLs as in `url`, with commas between them; "" is none."""
    one = url(*schemes, or_empty=or_empty)

    def read(given: str) -> tuple[str, ...]:
        return tuple(one.read(part) for part in given.split(",") if part.strip())

    return Check(f"{one.allowed}; several with commas between them", read)


def words(meaning: str, *, or_empty: str) -> Check:
    """Texts with commas between them; "" is none."""

    def read(given: str) -> tuple[str, ...]:
        given.encode()  # as in `text`
        return tuple(part.strip() for part in given.split(",") if part.strip())

    return Check(f"{meaning} with commas between them, or empty: {or_empty}", read)


def address() -> Check:
    """An IP address."""
    return Check("an IP address", lambda given: str(ipaddress.ip_address(given.strip())))


def _plain(given: str) -> str:
    """The text, unless it is a number only to Python: 1_000, or digits of other scripts."""
    if "_" in given or not given.isascii():
        raise ValueError("not a plain number")
    return given


def _within(value: _Number, lowest: float, highest: float) -> _Number:
    if not lowest <= value <= highest:
        raise ValueError("out of bounds")
    return value
