"""One connection's messages, whatever carries them."""

from __future__ import annotations

from typing import Protocol

Message = str | bytes  # a text or a binary message


class DeviceGone(Exception):
    """The device left.  Raised by wires alone; nobody's failure."""


class Wire(Protocol):
    """Messages to and from one device: a WebSocket, or memory in tests.

    Every method but `aclose` raises DeviceGone once the device has left.
    """

    async def receive(self) -> Message:
        """The next whole message."""

    async def send(self, message: Message) -> None:
        """Hands one message to the device; may wait for as long as the device does not read."""

    async def ping(self) -> None:
        """Returns when the device has answered."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Says goodbye; bounded in time, then forced.  Never raises DeviceGone."""
