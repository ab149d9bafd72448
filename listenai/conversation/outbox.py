"""Two lanes to the one writer.

`post` (pause, flush, transcripts, errors, pong) never waits and overtakes:
whoever listens must not depend on a device that does not read.  `send`
(everything of a turn, in order with its audio) waits until the writer takes it:
a rendezvous, nothing is buffered, and nothing of a turn whose gate is not open
is taken.  No checkpoint lies between the writer's choice and the return of
`take`, and the sender's `taken` runs at that very moment: what was taken is
what was sent, however soon the sender is cancelled.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Protocol

import attrs
import trio

from listenai.errors import DeviceStalled
from listenai.events import Notice

# A device that lets this many notices wait does not read (about 16 KiB of JSON).
MAX_POSTED = 64


class Gate(Enum):
    """Whether a turn's messages may leave."""

    OPEN = auto()
    HELD = auto()
    SHUT = auto()  # for ever


class Sender(Protocol):
    """Whose messages wait in the second lane: a turn."""

    gate: Gate

    def taken(self, event: Notice, now: float) -> None:
        """The writer has this message."""


@attrs.define(eq=False)
class _Slot:
    sender: Sender
    event: Notice
    taken: trio.Event = attrs.field(factory=trio.Event)


class Outbox:
    """What waits for the writer of one connection."""

    def __init__(self) -> None:
        self._posted: deque[Notice] = deque()
        self._slot: _Slot | None = None
        self._lane = trio.Lock()  # senders queue here, fairly
        self._wake = trio.Event()
        self._closed = False

    def post(self, event: Notice) -> None:
        """Hands over a notice that overtakes; raises DeviceStalled when too many wait."""
        if len(self._posted) >= MAX_POSTED:
            raise DeviceStalled(f"{MAX_POSTED} messages wait for a device that does not read")
        self._posted.append(event)
        self._wake.set()

    async def send(self, sender: Sender, event: Notice) -> None:
        """Waits until the writer has taken the message."""
        try:
            self._lane.acquire_nowait()  # `acquire` would let others run; so does the wait below
        except trio.WouldBlock:
            await self._lane.acquire()
        self._slot = slot = _Slot(sender, event)
        self._wake.set()
        try:
            await slot.taken.wait()
        finally:
            if self._slot is slot:  # cancelled: withdraw it
                self._slot = None
            self._lane.release()

    def gate_changed(self) -> None:
        """Some sender's gate has opened."""
        self._wake.set()

    def take_posted(self) -> list[Notice]:
        """All posted notices at once; of the second lane, nothing."""
        posted, self._posted = [*self._posted], deque()
        return posted

    def close(self) -> None:
        """What was posted is still given out; then `take` ends."""
        self._closed = True
        self._wake.set()

    async def take(self) -> Notice:
        """The next message; raises trio.EndOfChannel when closed and empty."""
        while True:
            if self._posted:
                return self._posted.popleft()
            slot = self._slot
            if slot and slot.sender.gate is Gate.OPEN:
                self._slot = None
                slot.sender.taken(slot.event, trio.current_time())
                slot.taken.set()
                return slot.event
            if self._closed:
                raise trio.EndOfChannel
            self._wake = trio.Event()
            await self._wake.wait()
