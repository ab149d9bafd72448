"""The one sender of a connection: notices from the outbox, as messages on the wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

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
    """Translates and sends; `told` is called with each notice once it is translated.

    It writes at once whenever the outbox has something (`write_now`), while the wire has room; the
    task (`write`) does the waiting where it has none.
    """

    _wire: Wire
    _dialect: Dialect
    _observer: ConnectionObserver
    _stall_seconds: float
    _told: Callable[[Notice], None]
    outbox: Outbox = attrs.field(init=False)
    _unsent: deque[Message] = attrs.field(factory=deque)  # of the notice that is being told
    _writing: bool = False  # inside `write_now`, which what is told may call again
    _stuck: trio.Event = attrs.field(factory=trio.Event)  # the task has something to do

    def __attrs_post_init__(self) -> None:
        self.outbox = Outbox(self.write_now)

    async def write(self) -> None:
        """Until the outbox is closed and empty; raises DeviceGone and DeviceStalled."""
        while self._unsent or not self.outbox.closed:
            await self._stuck.wait()
            self._stuck = trio.Event()
            while self._unsent:
                with trio.move_on_after(self._stall_seconds) as stall:
                    await self._wire.send(self._unsent[0])
                if stall.cancelled_caught:
                    raise DeviceStalled(f"no message taken for {self._stall_seconds:g} s")
                self._unsent.popleft()
            self.write_now()

    def write_now(self) -> None:
        """Takes and sends what may leave, until the wire would have to wait."""
        if self._writing or self._unsent:
            return  # it goes on by itself
        self._writing = True
        try:
            while not self._unsent and (event := self.outbox.take()):
                # What is taken cannot be held any more: no checkpoint from here to the wire, as
                # long as that has room.
                for message in self._translate(event):
                    self._observer.sent(message_bytes(message))
                    self._unsent.append(message)
                self._told(event)
                while self._unsent and self._wire.send_nowait(self._unsent[0]):
                    self._unsent.popleft()
        finally:
            self._writing = False
            if self._unsent or self.outbox.closed:
                self._stuck.set()

    def hand_back_unsent(self) -> None:
        """The device has left: its dialect may keep for it what still waits here.

        That the connection is over it knows by then.
        """
        for event in self.outbox.take_posted():
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
