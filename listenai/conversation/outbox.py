"""Two lanes to the one writer.

`post` (pause, flush, transcripts, errors, pong) never waits and overtakes:
whoever listens must not depend on a device that does not read.  `send`
(everything of a turn, in order with its audio) waits until the writer takes it:
a rendezvous, nothing is buffered, and nothing of a turn whose gate is not open
is taken.  The sender's `taken` runs at the very moment of the writer's choice: what
was taken is what was sent, however soon the sender is cancelled.

A writer that has nothing to do takes at once, inside `post` and `send`, and no task
has to be woken on the way: `pause` leaves with the decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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


@attrs.define(eq=False)
class Outbox:
    """What waits for the writer of one connection; `changed` tells it that it may look again."""

    _changed: Callable[[], None]
    closed: bool = False
    _posted: deque[Notice] = attrs.field(factory=deque)
    _slot: _Slot | None = None
    _lane: trio.Lock = attrs.field(factory=trio.Lock)  # senders queue here, fairly

    def post(self, event: Notice) -> None:
        """Hands over a notice that overtakes; raises DeviceStalled when too many wait."""
        if len(self._posted) >= MAX_POSTED:
            raise DeviceStalled(f"{MAX_POSTED} messages wait for a device that does not read")
        self._posted.append(event)
        self._changed()

    async def send(self, sender: Sender, event: Notice) -> None:
        """Waits until the writer has taken the message; no checkpoint where it takes it at once."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._lane.acquire_nowait()
        except trio.WouldBlock:
            await self._lane.acquire()
        self._slot = slot = _Slot(sender, event)
        try:
            self._changed()
            if self._slot is slot:
                await slot.taken.wait()
        finally:
            if self._slot is slot:  # cancelled: withdraw it
                self._slot = None
            self._lane.release()

    def gate_changed(self) -> None:
        """Some sender's gate has opened."""
        self._changed()

    def close(self) -> None:
        """What was posted is still to be taken; then the writer's work is over."""
        self.closed = True
        self._changed()

    # --- the writer's side -------------------------------------------------------------------

    def take(self) -> Notice | None:
        """The next message; None while there is none that may leave."""
        if self._posted:
            return self._posted.popleft()
        slot = self._slot
        if slot and slot.sender.gate is Gate.OPEN:
            self._slot = None
            slot.sender.taken(slot.event, trio.current_time())
            slot.taken.set()
            return slot.event
        return None

    def take_posted(self) -> list[Notice]:
        """All posted notices at once; of the second lane, nothing."""
        posted, self._posted = [*self._posted], deque()
        return posted
