"""One connection's messages, whatever carries them."""

from __future__ import annotations

from typing import Protocol

Message = str | bytes  # a text or a binary message


class DeviceGone(Exception):
    """The device left.  Raised by wires alone; nobody's failure.

    code: of WebSockets: what it closed with, 1006 where it left without a word.
    """

    def __init__(self, why: str = "", code: int = 1006) -> None:
        super().__init__(why)
        self.code = code


class Wire(Protocol):
    """Messages to and from one device: a WebSocket, or memory in tests.

    Every method that waits, but `aclose`, raises DeviceGone once the device has left.
    """

    async def receive(self) -> Message:
        """The next whole message."""

    async def send(self, message: Message) -> None:
        """Hands one message to the device; may wait for as long as the device does not read."""

    def send_nowait(self, message: Message) -> bool:
        """Hands over what can be without waiting; True when that is all of the message.

        Otherwise, or once the device has left, `send` it, which goes on from there.
        """

    async def ping(self) -> None:
        """Returns when the device has answered."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Says goodbye; bounded in time, then forced.  Never raises DeviceGone."""


class PeekedWire:
    """A wire whose first message was looked at, and is received again.

    It is given out once and then forgotten: messages are large, connections long.
    """

    def __init__(self, wire: Wire, first: Message) -> None:
        self._wire = wire
        self._first: Message | None = first
        self.send, self.send_nowait = wire.send, wire.send_nowait
        self.ping, self.aclose = wire.ping, wire.aclose

    async def receive(self) -> Message:
        """The message that was looked at, then the wire's."""
        first, self._first = self._first, None
        return await self._wire.receive() if first is None else first
