"""How much one owner may ask for, and one connection may send.

Theory.  "60 requests a minute" is kept to the letter by a sliding window: a user may make all
of them at once, and no 60 seconds ever hold more.  (A token bucket of the same size would let
119 through in its first minute.)  Who talks never comes near it; who runs into it is told how
long to wait.  The window belongs to the owner, so that neither a second connection nor a new
one begins with a fresh minute; without API keys nobody is known, and every connection is an
owner of its own.

What a device sends while it talks is no request and has a ceiling of its own, far above what
honest devices need: token buckets, which allow bursts.  They belong to the connection, since
a fleet behind one key streams as many microphones as it has devices.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from enum import StrEnum

import attrs

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import ErrorCode
from listenai.events import (
    Answer,
    Command,
    DeviceToolReturned,
    ErrorReported,
    HangUp,
    HistoryForgotten,
    InterruptPressed,
    PingReceived,
    PlaybackReported,
    SessionEnd,
    SpeechDiscarded,
    SpeechFinished,
)

WINDOW_SECONDS = 60.0
# Requests that come within this time are forgotten together, when the last of them is old
# enough: so a window takes 61 entries at most, however many requests are allowed.
_SLOT_SECONDS = 1.0
# Owners whose windows are kept: keys are configured and few, users of tokens need not be.
MAX_OWNERS = 4096


class Kind(StrEnum):
    """What is counted together."""

    REQUEST = "request"  # a turn, typed or spoken, and whatever changes or asks for something
    AUDIO = "audio"  # in bytes
    PLAYBACK = "playback"
    PING = "ping"
    TOOL_RESULT = "tool_result"
    SIGNAL = "signal"  # ends something: "stop" is heard also when the minute is used up


# (at once, a second) on one connection.
CEILINGS: Mapping[Kind, tuple[float, float]] = {
    # Ten times real time for ever; and at once the largest message a wire takes, so that a
    # recording may come as fast as the network brings it.
    Kind.AUDIO: (4 << 20, 10.0 * SAMPLE_RATE * SAMPLE_BYTES),
    Kind.PLAYBACK: (200, 40.0),  # one for each frame of 60 ms would be 17
    Kind.PING: (60, 5.0),
    Kind.TOOL_RESULT: (100, 10.0),
    Kind.SIGNAL: (60, 5.0),
}


SIGNALS = (InterruptPressed, SpeechFinished, SpeechDiscarded, HistoryForgotten, SessionEnd)


def kind_of(command: Command) -> Kind:
    """What a device's command counts as.

    A spoken turn is no message: whoever begins it counts one REQUEST.
    """
    match command:
        case PlaybackReported():
            return Kind.PLAYBACK
        case PingReceived():
            return Kind.PING
        case DeviceToolReturned():
            return Kind.TOOL_RESULT
        case _ if isinstance(command, SIGNALS):
            return Kind.SIGNAL
    return Kind.REQUEST


@attrs.define
class _Slot:
    """Requests that came within a second of the first one."""

    first: float
    last: float
    count: int


@attrs.define
class RequestWindow:
    """So many requests in any 60 seconds; times in seconds, never running back."""

    limit: int
    last: float = -math.inf  # when the latest request was allowed
    _used: int = 0
    _slots: deque[_Slot] = attrs.field(factory=deque)

    def take(self, now: float) -> float | None:
        """Counts a request; or counts nothing and returns the seconds until one is allowed."""
        while self._slots and self._slots[0].last + WINDOW_SECONDS <= now:
            self._used -= self._slots.popleft().count
        if self._used >= self.limit:
            # Not longer than the window, which a sum of large times may be by its last bit.
            return min(WINDOW_SECONDS, self._slots[0].last + WINDOW_SECONDS - now)
        self._used += 1
        self.last = now
        if self._slots and now - self._slots[-1].first < _SLOT_SECONDS:
            self._slots[-1].last = now
            self._slots[-1].count += 1
        else:
            self._slots.append(_Slot(now, now, 1))
        return None


@attrs.define
class TokenBucket:
    """An amount at once, refilled at a rate; times in seconds."""

    capacity: float
    per_second: float
    _missing: float = 0.0  # of a full bucket
    _at: float = 0.0

    def take(self, amount: float, now: float) -> float | None:
        """Takes an amount; or takes nothing and returns the seconds until it is there.

        More than the capacity counts as the capacity: it has to be possible some day.
        """
        amount = min(amount, self.capacity)
        missing = max(0.0, self._missing - max(0.0, now - self._at) * self.per_second)
        if missing + amount > self.capacity:
            return (missing + amount - self.capacity) / self.per_second
        self._missing, self._at = missing + amount, now
        return None


@attrs.frozen
class RateLimit:
    """What one connection may still ask for and send; made by `RateLimits`."""

    _requests: RequestWindow | None  # its owner's
    _ceilings: Mapping[Kind, TokenBucket]
    _refused: Counter[Kind]

    def take(self, kind: Kind, now: float, amount: int = 1) -> float | None:
        """Counts what is allowed; otherwise counts nothing and returns the seconds until it is.

        amount: bytes of AUDIO, a number of anything else but REQUEST, which are taken singly.
        Refused audio need not be lost: who reads on only after that time makes the device wait.
        """
        if kind is Kind.REQUEST:
            wait = self._requests.take(now) if self._requests else None
        else:
            bucket = self._ceilings.get(kind)
            wait = bucket.take(amount, now) if bucket else None
        if wait is not None:
            self._refused[kind] += 1
        return wait

    def refuse(self, command: Command, now: float) -> ErrorReported | None:
        """Counts a device's command; or counts nothing and returns what the device is told."""
        if isinstance(command, Answer | HangUp):
            return None  # the dialect's own, whatever the device asked for
        kind = kind_of(command)
        seconds = self.take(kind, now)
        return None if seconds is None else self.error(kind, seconds)

    def error(self, kind: Kind, seconds: float) -> ErrorReported:
        """What a device is told whose `take` was answered with so many seconds."""
        if kind is Kind.REQUEST:
            assert self._requests  # it has refused
            allowed = f"{self._requests.limit} requests a minute (CLOUD_RATE_LIMIT_PER_MINUTE)"
        else:
            allowed = f"{CEILINGS[kind][1]:.0f} a second of {kind}"
        return ErrorReported(
            ErrorCode.RATE_LIMITED,
            f"too much at once: {allowed} are allowed; try again in {max(seconds, 0.1):.1f} s",
            retry_after_ms=math.ceil(seconds * 1000),
        )


class RateLimits:
    """Every owner's limit.

    per_minute: requests of one owner; None: nothing is limited (CLOUD_RATE_LIMIT_ENABLED=false).
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._owners: dict[str, RequestWindow] = {}
        self.refused: Counter[Kind] = Counter()  # since the start

    def open(self, owner: str) -> RateLimit:
        """The limit of a new connection; the nameless owner is another one each time."""
        if self._per_minute is None:
            return RateLimit(None, {}, self.refused)
        buckets = {kind: TokenBucket(*ceiling) for kind, ceiling in CEILINGS.items()}
        requests = self._window(owner, self._per_minute) if owner else None
        return RateLimit(requests or RequestWindow(self._per_minute), buckets, self.refused)

    def _window(self, owner: str, per_minute: int) -> RequestWindow:
        if owner not in self._owners:
            if len(self._owners) >= MAX_OWNERS:  # whose minute is over first, or soonest
                del self._owners[min(self._owners, key=lambda name: self._owners[name].last)]
            self._owners[owner] = RequestWindow(per_minute)
        return self._owners[owner]

    @property
    def owners(self) -> int:
        """How many owners are remembered."""
        return len(self._owners)
