"""Secrets are not shown: not in tables, not in problems, not in a repr.

What is secret follows from the variable's name, so that a new one cannot be forgotten; URLs
may hold secrets too, before the `@` and after the `?`.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "********"

_SECRET = re.compile(r"(KEYS?|SECRET|TOKEN|PASSWORD)$", re.IGNORECASE)
_URL = re.compile(r"(URL|ENDPOINT)$", re.IGNORECASE)
# A password may hold an @ itself: everything up to the last one goes.
_PARTS = re.compile(r"(?P<scheme>[a-z]{1,9}://)?(?P<user>.*@)?(?P<rest>.*)", re.I | re.DOTALL)
_QUERY = re.compile(r"[?#].+", re.DOTALL)


def masked(variable: str, text: str) -> str:
    """The value of a variable as it may be shown; empty is not secret."""
    if _SECRET.search(variable):
        return MASK if text else ""
    if "://" not in text and not _URL.search(variable):
        return text
    parts = _PARTS.fullmatch(text)
    assert parts  # it matches everything
    user = f"{MASK}@" if parts["user"] else ""
    return f"{parts['scheme'] or ''}{user}{_QUERY.sub(f'?{MASK}', parts['rest'])}"


def shown(variable: str, value: Any) -> str:
    """A value as one would write it into `.env`; secrets are masked."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case tuple():
            return ",".join(masked(variable, str(part)) for part in value)
    return masked(variable, str(value))
