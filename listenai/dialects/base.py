"""What every dialect is: wire messages in, requests out; notices in, wire messages out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from listenai.device import DeviceProfile
from listenai.events import Notice, Request
from listenai.wire import Message

NEVER = math.inf  # a deadline that does not come


class Dialect(Protocol):
    """One connection's translator.  Plain code: no clock, no waiting, no randomness."""

    profile: DeviceProfile

    def receive(self, message: Message, now: float) -> Sequence[Request]:
        """Understands one wire message; raises ProtocolError, and nothing else."""

    def send(self, event: Notice, now: float) -> Sequence[Message]:
        """The wire messages (none, one, several) that tell the device this event.

        An Answer is sent as it is, whatever this returns: the dialect is shown when.
        """

    def next_deadline(self) -> float:
        """When `expire` wants to be called, in Trio's time; NEVER if it does not."""

    def expire(self, now: float) -> Sequence[Request]:
        """What is due at its own deadline, a heartbeat for example.

        Before a session was begun: only an Answer or a HangUp.
        """

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """The device has left, and these could not be sent: to be kept for it, or forgotten."""
