"""SANS-IO: which of several servers of one service is asked, and when again.

The least loaded one is asked first.  One that fails rests, so that it costs nobody else a
timeout: each failure in a row doubles the rest, and chance shortens it, lest all clients come
back to a restarted server in the same moment.  Rests are short, because a server that was
restarted should be used as soon as it has loaded its model, and asking costs little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from urllib.parse import urlsplit

import attrs

from listenai.errors import ConfigurationError, ListenAIError

FIRST_REST_SECONDS = 0.25
LONGEST_REST_SECONDS = 4.0


class Unreachable(ListenAIError):
    """There is no connection to a server, or none any more."""


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without user, password and query."""
    before, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    return f"{before}{separator}{host}{slash}{path}".partition("?")[0].partition("#")[0]


def _check_url(_instance: object, _field: object, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in url):
        raise ConfigurationError(
            [
                f"{without_secrets(url)!r} is not the URL of a service: it must be like "
                "ws://127.0.0.1:9200 or wss://host/path"
            ]
        )


@attrs.define(eq=False)
class Upstream:
    """One server, and what was learned of it.  Raises ConfigurationError for a bad URL."""

    url: str = attrs.field(validator=_check_url)
    load: int = attrs.field(default=0, init=False)  # what it is working on for us
    failures: int = attrs.field(default=0, init=False)  # in a row
    rests_until: float = attrs.field(default=-math.inf, init=False)
    problem: str = attrs.field(default="", init=False)  # the last one, for people

    @property
    def name(self) -> str:
        """The URL as it may be shown to anyone."""
        return without_secrets(self.url)

    def failed(self, now: float, problem: str, chance: float) -> None:
        """It could not be reached, or broke off; chance: from 0 to 1.

        What fails while it rests was begun before, and says nothing new.
        """
        self.problem = problem
        if now < self.rests_until:
            return
        rest = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2.0 ** min(self.failures, 9))
        self.failures += 1
        self.rests_until = now + rest * (0.5 + chance / 2)

    def answered(self) -> None:
        """It did what it was asked."""
        self.failures, self.rests_until, self.problem = 0, -math.inf, ""


def awake(upstreams: Sequence[Upstream], now: float) -> list[Upstream]:
    """Those that may be asked now, the least loaded first."""
    return sorted((each for each in upstreams if each.rests_until <= now), key=lambda it: it.load)


def next_awake_at(upstreams: Sequence[Upstream]) -> float:
    """When the first of those that rest may be asked again; minus infinity where one may now."""
    return min(each.rests_until for each in upstreams)


def problems_of(upstreams: Sequence[Upstream]) -> str:
    """Why nobody answers, in words."""
    known = [each.problem for each in upstreams if each.problem]
    return "; ".join(known) or "no connection yet"
