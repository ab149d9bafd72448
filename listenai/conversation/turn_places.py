"""Places for turns: so many run at a time, the others queue and are told so.

Theory.  A place that becomes free is handed to whoever waits longest, in the moment when it
is given back: nobody who comes in between can take it, so the queue is fair, and the number
of places in use is exact whoever is cancelled when.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import trio

from listenai.errors import ListenAIError

# A waiting turn is a sleeping task, so memory is no reason; but at a reply of five seconds
# fewer than these could be served by ten places within MAX_WAIT_SECONDS.
MAX_QUEUED = 100
MAX_WAIT_SECONDS = 30.0  # nobody stands before a silent loudspeaker for longer
RETRY_AFTER_SECONDS = 5.0  # a place is free when a turn ends, which nobody can foretell


class TurnsFull(ListenAIError):
    """No place for a turn; tell the device, and when to try again."""

    def __init__(self, message: str) -> None:
        self.retry_after_seconds = RETRY_AFTER_SECONDS
        super().__init__(f"{message}; try again in {RETRY_AFTER_SECONDS:g} s")


class TurnPlaces:
    """The turns that may run at a time, over all connections (CLOUD_MAX_CONCURRENT)."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.in_use = 0
        self.most_in_use = 0  # at any one time
        self.refused = 0  # since the start: TurnsFull was raised
        self._queue: OrderedDict[Hashable, trio.Event] = OrderedDict()  # by device

    @property
    def waiting(self) -> int:
        """How many turns wait for a place."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, device: Hashable, queued: Callable[[], None]) -> AsyncIterator[None]:
        """A place for as long as the block runs; waits where all are taken.

        device: whose turn it is; each has one place in the queue.
        queued: called once, before the wait, and only if there is one.
        Raises TurnsFull without waiting where MAX_QUEUED turns or this device's own wait
        already, and after MAX_WAIT_SECONDS in the queue.
        """
        await self._acquire(device, queued)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, device: Hashable, queued: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.in_use < self.places:  # then nobody waits: places are handed on
            self._occupy()
            return
        if device in self._queue:
            raise self._refuse("this device has a reply waiting for its turn already")
        if self.waiting >= MAX_QUEUED:
            raise self._refuse(f"the server is busy with {self.places} replies, {MAX_QUEUED} wait")
        queued()
        await self._wait(device)

    async def _wait(self, device: Hashable) -> None:
        granted = self._queue[device] = trio.Event()
        try:
            with trio.move_on_after(MAX_WAIT_SECONDS):
                await granted.wait()
        except BaseException:
            if granted.is_set():  # at the very moment of the cancellation
                self._release()
            raise
        finally:
            if self._queue.get(device) is granted:
                del self._queue[device]
        if not granted.is_set():
            raise self._refuse(
                f"the server is busy with {self.places} replies, and none ended within "
                f"{MAX_WAIT_SECONDS:g} s"
            )

    def _occupy(self) -> None:
        self.in_use += 1
        self.most_in_use = max(self.most_in_use, self.in_use)

    def _release(self) -> None:
        """The place goes to who waits longest, or is free."""
        if self._queue:
            _, first = self._queue.popitem(last=False)
            first.set()
        else:
            self.in_use -= 1

    def _refuse(self, message: str) -> TurnsFull:
        self.refused += 1
        return TurnsFull(message)
