"""How long a regular expression may take: `re` has no time limit, and holds the GIL."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

MAX_PATTERN_CHARACTERS = 256  # longer ones are not worth compiling

_TOKENS = re.compile(
    r"\\. | \[\^?\]?(?:\\.|[^\]\\])*\] | \(\?: | \(\? | [()|*+?]"
    r" | \{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\} | .",
    re.VERBOSE | re.DOTALL,
)
_QUANTIFIERS = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}


def most_ways(pattern: str, text: str) -> float:
    """In how many ways at most `re.search` tries to find the pattern in the text, and a step for
    each character; infinite for what cannot be told, or is no pattern of Python's.

    A backtracking search takes as many steps as there are ways to choose: where to begin, which
    alternative, how often to repeat.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS or not _compiles(pattern):
        return math.inf
    is_anchored = pattern.startswith("^") and "|" not in pattern
    beginnings = 1 if is_anchored else len(text) + 1
    return len(text) + beginnings * _ways(_TOKENS.finditer(pattern), len(text))


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):  # JavaScript's have more
        return False
    return True


def _ways(tokens: Iterator[re.Match[str]], length: int) -> float:
    """Ways to match the tokens up to a closing parenthesis, in a text of that length.

    Alternatives add up, what follows each other multiplies.
    """
    alternatives = 0.0
    together = last = 1.0
    for token in tokens:
        match token.group():
            case ")":
                break
            case "|":
                alternatives, together, last = alternatives + together, 1.0, 1.0
            case "(" | "(?:":
                last = _ways(tokens, length)
                together *= last
            case "(?":  # looks around, names, flags
                return math.inf
            case "*" | "+" | "?":
                repeated = _repeated(last, *_QUANTIFIERS[token.group()], length)
                together, last = together / last * repeated, repeated
            case _ if token["comma"] is not None:
                least = int(token["least"] or 0)
                most = float(token["most"] or math.inf) if token["comma"] else least
                repeated = _repeated(last, least, most, length)
                together, last = together / last * repeated, repeated
            case _:
                last = 1.0
        if math.isinf(together):  # and must not be divided again
            return math.inf
    return alternatives + together


def _repeated(ways: float, least: float, most: float, length: int) -> float:
    """Ways of a repetition of what has so many ways; repeated empty matches end after one."""
    least, most = min(least, length + 1), min(most, length + 1)
    try:
        return float(max(1.0, (most - least + 1) * ways**most))
    except OverflowError:
        return math.inf
