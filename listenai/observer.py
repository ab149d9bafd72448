"""What can be seen of connections, and who wants to see it: metrics, logs, traces, recordings.

A conversation tells its observer every fact, in the order things happen, as plain calls that
never wait; an observer that raises is a bug.  Facts are the requests, speech events, floor
actions and notices that the conversation lives by, and those below, which no device is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import attrs

from listenai.conversation.actions import Action
from listenai.events import Notice, Request
from listenai.speech import SpeechEvent


@attrs.frozen
class SessionOpened:
    """The connection has its session."""

    session_id: str
    restored: bool


class TurnOutcome(StrEnum):
    """How a turn ended."""

    PLAYED = "played"  # to its end
    INTERRUPTED = "interrupted"
    FAILED = "failed"  # the device was told why
    CUT_OFF = "cut_off"  # with its connection


@attrs.frozen
class TurnLeft:
    """A turn was committed; nothing of it will happen any more.  Told in the task that ran it."""

    turn_id: int
    outcome: TurnOutcome
    prompt_tokens: int | None = None  # where the chat model tells; of all its replies together
    completion_tokens: int | None = None


@attrs.frozen
class TurnWaited:
    """A turn may run: it had to wait so long for its place.  Told in the task that runs it."""

    turn_id: int
    waited_seconds: float


Fact = Request | SpeechEvent | Action | Notice | SessionOpened | TurnLeft | TurnWaited


class ConnectionObserver(Protocol):
    """Sees one connection.  Times are Trio's, in seconds."""

    def observe(self, fact: Fact, now: float) -> None:
        """This happens now: a request was understood, speech heard, a decision made, or a
        notice given to the wire."""

    def received(self, size: int) -> None:
        """A message of so many bytes came in."""

    def sent(self, size: int) -> None:
        """A message of so many bytes is to be sent; the device may leave before it is."""

    def closed(self, code: int, reason: str) -> None:
        """The connection is over; 1006 where the device left without a goodbye."""


class Observer(Protocol):
    """Sees every connection of a server."""

    def open_connection(self, connection_id: str, dialect: str, peer: str) -> ConnectionObserver:
        """A connection has chosen its dialect; what is bound here holds in its tasks."""


class _Several:
    """Several observers of one connection, told in order."""

    def __init__(self, observers: Sequence[ConnectionObserver]) -> None:
        # Every audio message comes this way: nothing is looked up twice.
        self._observe = tuple(each.observe for each in observers)
        self._received = tuple(each.received for each in observers)
        self._sent = tuple(each.sent for each in observers)
        self._closed = tuple(each.closed for each in observers)

    def observe(self, fact: Fact, now: float) -> None:
        for observe in self._observe:
            observe(fact, now)

    def received(self, size: int) -> None:
        for received in self._received:
            received(size)

    def sent(self, size: int) -> None:
        for sent in self._sent:
            sent(size)

    def closed(self, code: int, reason: str) -> None:
        for closed in self._closed:
            closed(code, reason)


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def open_connection(self, connection_id: str, dialect: str, peer: str) -> ConnectionObserver:
        """One that tells all."""
        return _Several(
            [each.open_connection(connection_id, dialect, peer) for each in self._observers]
        )


NOBODY: ConnectionObserver = _Several(())
