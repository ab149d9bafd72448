"""SANS-IO: which of several servers is asked, and when again.

Each server has a circuit breaker, so that a dead one costs nobody's turn a timeout: after a few
failures in a row it rests, then one request (the probe) finds out whether it is back.  A reply
goes its `Route`: every server once, in the order given; then, after a pause that grows and
jitters, those again that failed in a way that passes.

    breaker      a failure             a sign of life    the rest is over    the probe is abandoned
    CLOSED       OPEN, if the last     CLOSED
                 of so many in a row
    OPEN                               CLOSED            HALF_OPEN
    HALF_OPEN    OPEN, if the probe's  CLOSED                                OPEN, rest over

An answer that begins is a sign of life, so that a probe is as short as can be; the row of
failures ends only with an answer that has not broken off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from enum import Enum
from urllib.parse import urlsplit

import attrs

from listenai.errors import ConfigurationError

FAILURES_TO_OPEN = 3  # in a row: one lost connection says little
REST_SECONDS = 1.0  # the first; each probe that fails doubles it: what is back soon is asked soon
LONGEST_REST_SECONDS = 15.0  # about a restart of a server
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 4.0
MAX_WAIT_SECONDS = 10.0  # nobody waits longer for a spoken answer: say that it failed
MAX_LIMITED_SECONDS = 300.0  # a longer Retry-After is tried again after this


class BreakerState(Enum):
    """Whether a server is asked."""

    CLOSED = "closed"  # yes
    OPEN = "open"  # no, until its rest is over
    HALF_OPEN = "half_open"  # one request is finding out


class Outcome(Enum):
    """What an attempt tells about its server."""

    BEGUN = "begun"  # an answer is coming: a probe that gets so far is over
    ANSWERED = "answered"  # as far as anybody wanted it
    BROKEN = "broken"  # no connection, a cut, an error of its own; may pass at once
    SILENT = "silent"  # out of time: another server is asked, this one not again
    LIMITED = "limited"  # too many requests: it is well, and says when to come back
    REFUSED = "refused"  # it is well, and will not do this however often it is asked
    ABANDONED = "abandoned"  # nobody wanted to know any more


_FAILURES = {Outcome.BROKEN, Outcome.SILENT}
_FINAL = {Outcome.SILENT, Outcome.REFUSED}  # for this reply


def _check_url(_instance: object, _field: object, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in url):
        raise ConfigurationError(
            [
                f"{_without_secrets(url)!r} is not the base URL of an OpenAI-compatible server:"
                " it must be like http://127.0.0.1:11434/v1 or https://host/v1"
            ]
        )


def _without_secrets(url: str) -> str:
    """A URL as it may be shown: without user, password and query."""
    before, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    return f"{before}{separator}{host}{slash}{path}".partition("?")[0].partition("#")[0]


@attrs.define(eq=False)
class Upstream:
    """One server, and what was learned of it; shared by all replies.

    Raises ConfigurationError for a base URL that is none.
    """

    base_url: str = attrs.field(validator=_check_url)
    failures_to_open: int = FAILURES_TO_OPEN
    rest_seconds: float = REST_SECONDS
    refused_fields: set[str] = attrs.field(factory=set, init=False)  # of requests: leave them out
    state: BreakerState = attrs.field(default=BreakerState.CLOSED, init=False)
    _failures: int = attrs.field(default=0, init=False)  # in a row
    _next_rest: float = attrs.field(init=False)
    _rests_until: float = attrs.field(default=-math.inf, init=False)
    _limited_until: float = attrs.field(default=-math.inf, init=False)
    _problem: str = attrs.field(default="", init=False)  # the last one

    def __attrs_post_init__(self) -> None:
        self._next_rest = self.rest_seconds

    @property
    def name(self) -> str:
        """The base URL as it may be shown to anyone."""
        return _without_secrets(self.base_url)

    def begin(self, now: float) -> Attempt | None:
        """A request may be made; None while the server rests, is probed, or limits us."""
        if now < self._limited_until:
            return None
        if self.state is BreakerState.CLOSED:
            return Attempt(self)
        if self.state is BreakerState.OPEN and now >= self._rests_until:
            self.state = BreakerState.HALF_OPEN
            return Attempt(self, probes=True)
        return None

    def ready_at(self) -> float:
        """When a reply that has time may ask again; infinite where it should not wait."""
        return self._limited_until if self.state is BreakerState.CLOSED else math.inf

    def problem(self, now: float) -> str:
        """Why there is no answer, and when there may be one; "" where none is known."""
        wait = max(self._limited_until, self._rests_until) - now
        resting = self.state is BreakerState.OPEN or now < self._limited_until
        if self._problem and resting and wait > 0:
            return f"{self._problem}; it is asked again in {math.ceil(wait)} s"
        return self._problem

    def _learn(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        if outcome is Outcome.ABANDONED:
            if attempt.probes:
                self.state = BreakerState.OPEN
        elif outcome is Outcome.BEGUN:  # it may still break off: the row of failures goes on
            self.state, self._next_rest = BreakerState.CLOSED, self.rest_seconds
        elif outcome not in _FAILURES:
            self.state, self._failures = BreakerState.CLOSED, 0
            self._next_rest = self.rest_seconds
        else:
            self._failures += 1
            last_straw = (
                self.state is BreakerState.CLOSED and self._failures >= self.failures_to_open
            )
            if attempt.probes or last_straw:
                self.state, self._rests_until = BreakerState.OPEN, now + self._next_rest
                self._next_rest = min(2 * self._next_rest, LONGEST_REST_SECONDS)

    def _limit(self, until: float) -> None:
        self._limited_until = until


@attrs.define(eq=False)
class Attempt:
    """One request to one server; whoever began it reports at least once."""

    upstream: Upstream
    probes: bool = False  # until the first report
    outcome: Outcome | None = None  # the last one reported

    def report(
        self, outcome: Outcome, now: float, *, problem: str = "", retry_after: float | None = None
    ) -> None:
        """This came of it; what has BEGUN is reported again.

        problem: a clause that names the server, for people.
        retry_after: seconds for which a server that is LIMITED should be left alone.
        """
        if outcome is Outcome.ABANDONED and self.outcome is not None:
            return
        self.upstream._learn(self, outcome, now)
        self.probes, self.outcome = False, outcome
        if outcome is not Outcome.ABANDONED:
            self.upstream._problem = problem
        if outcome is Outcome.LIMITED and retry_after is not None:
            self.upstream._limit(now + min(retry_after, MAX_LIMITED_SECONDS))


@attrs.frozen
class Pause:
    """Nobody is asked before this time."""

    until: float


@attrs.define(eq=False)
class Route:
    """One reply's way through the servers; `chance` gives numbers from 0 to 1."""

    upstreams: Sequence[Upstream]
    retries: int  # of each server, after the first round
    chance: Callable[[], float]
    _round: int = attrs.field(default=0, init=False)
    _waiting: list[Upstream] = attrs.field(init=False)  # for their turn in this round
    _attempts: list[Attempt] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._waiting = list(self.upstreams)

    def next(self, now: float) -> Attempt | Pause | None:
        """Whom to ask now, or when to ask this again, or None: there is nobody left to ask."""
        while self._waiting:
            if attempt := self._waiting.pop(0).begin(now):
                self._attempts.append(attempt)
                return attempt
        done = {attempt.upstream for attempt in self._attempts if attempt.outcome in _FINAL}
        left = [upstream for upstream in self.upstreams if upstream not in done]
        ready = min((upstream.ready_at() for upstream in left), default=math.inf)
        until = max(ready, now + backoff_seconds(self._round, self.chance()))
        if self._round >= self.retries or until - now > MAX_WAIT_SECONDS:
            return None
        self._round, self._waiting = self._round + 1, left
        return Pause(until)

    @property
    def timed_out(self) -> bool:
        """Whether the last server that was asked answered too late."""
        return bool(self._attempts) and self._attempts[-1].outcome is Outcome.SILENT

    def problem(self, now: float) -> str:
        """Why there is no answer: of each server that was asked, rests, or limits us."""
        problems = [upstream.problem(now) for upstream in self.upstreams]
        return "; ".join(problem for problem in problems if problem) or "nobody could be asked"


def backoff_seconds(number: int, chance: float) -> float:
    """The pause after round `number` (from 0): doubling, and between half and all of that."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(number, 9)) * (
        0.5 + chance / 2
    )


def read_retry_after(value: str | None, date: str | None) -> float | None:
    """The seconds that a Retry-After header asks for; None where it cannot be read.

    value: seconds, or an HTTP date, which is compared with `date`, the server's own clock.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            due, sent = parsedate_to_datetime(value), parsedate_to_datetime(date or "")
            seconds = (due - sent).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
