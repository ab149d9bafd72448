"""The one sender of a connection: notices from the outbox, as messages on the wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs
import trio

from listenai.conversation.outbox import Outbox
from listenai.dialects.base import Dialect
from listenai.errors import DeviceStalled
from listenai.events import Answer, Notice, State, StatusChanged
from listenai.observer import ConnectionObserver
from listenai.wire import Message, Wire


@attrs.define(eq=False)
class Writer:
    """Translates and sends; `told` is called with each notice once it is translated."""

    _wire: Wire
    _dialect: Dialect
    _outbox: Outbox
    _observer: ConnectionObserver
    _stall_seconds: float
    _told: Callable[[Notice], None]
    _unsent: deque[Message] = attrs.field(factory=deque)  # of the notice that is being told

    async def write(self) -> None:
        """Until the outbox is closed and empty; raises DeviceGone and DeviceStalled."""
        with suppress(trio.EndOfChannel):
            while True:
                event = await self._outbox.take()
                # No checkpoint from here to `wire.send`: a hold cannot come between.
                self._unsent.extend(self._translate(event))
                self._told(event)
                while self._unsent:
                    self._observer.sent(message_bytes(self._unsent[0]))
                    with trio.move_on_after(self._stall_seconds) as stall:
                        await self._wire.send(self._unsent[0])
                    if stall.cancelled_caught:
                        raise DeviceStalled(f"no message taken for {self._stall_seconds:g} s")
                    self._unsent.popleft()

    def hand_back_unsent(self) -> None:
        """The device has left: its dialect may keep for it what still waits here.

        That the connection is over it knows by then.
        """
        for event in self._outbox.take_posted():
            if not (isinstance(event, StatusChanged) and event.state is State.CLOSING):
                self._unsent.extend(self._translate(event))
        self._dialect.undelivered(tuple(self._unsent), trio.current_time())
        self._unsent.clear()

    def _translate(self, event: Notice) -> Sequence[Message]:
        now = trio.current_time()
        self._observer.observe(event, now)
        messages = self._dialect.send(event, now)
        return event.messages if isinstance(event, Answer) else messages


def message_bytes(message: Message) -> int:
    """Bytes on the wire, without its framing."""
    return len(message.encode() if isinstance(message, str) else message)
