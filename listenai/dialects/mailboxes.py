"""SANS-IO: text messages kept for devices that are away for a short while.

A device that comes back in time gets what it missed, in order; what was too much for its box
is gone, oldest first, and counted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

import attrs

KEPT_SECONDS = 60.0  # spec 004, "WebSocket Options": reconnectTimeout
MAX_MESSAGES = 256  # of one box: far more than a conversation leaves unsent
MAX_BYTES = 1 << 20  # of one box, in UTF-8
MAX_BOXES = 128  # a whole full server that loses its network; 128 MiB in UTF-8

Address = tuple[str, str]  # user, call


@attrs.frozen
class Mail:
    """What waited for a device."""

    messages: tuple[str, ...] = ()
    dropped: int = 0  # older ones, for which there was no room


@attrs.define
class _Box:
    expires_at: float
    messages: deque[tuple[str, int]] = attrs.field(factory=deque)  # with their bytes
    size: int = 0  # bytes of all
    dropped: int = 0

    def put(self, message: str, max_messages: int, max_bytes: int) -> None:
        """Keeps a message; drops the oldest ones where they are too many."""
        size = len(message.encode())
        self.messages.append((message, size))
        self.size += size
        while len(self.messages) > max_messages or self.size > max_bytes:
            self.size -= self.messages.popleft()[1]
            self.dropped += 1


@attrs.define
class Mailboxes:
    """Every box, the one that expires first in front; times in seconds, never running back."""

    kept_seconds: float = KEPT_SECONDS
    max_messages: int = MAX_MESSAGES
    max_bytes: int = MAX_BYTES
    max_boxes: int = MAX_BOXES
    lost: int = 0  # messages that nobody will get, since the start
    _boxes: OrderedDict[Address, _Box] = attrs.field(factory=OrderedDict)

    def put(self, address: Address, messages: Iterable[str], now: float) -> None:
        """Keeps these behind what is there already; the time of all begins anew."""
        self._expire(now)
        box = self._boxes.setdefault(address, _Box(now))
        self._boxes.move_to_end(address)
        box.expires_at = now + self.kept_seconds
        dropped = box.dropped
        for message in messages:
            box.put(message, self.max_messages, self.max_bytes)
        self.lost += box.dropped - dropped
        while len(self._boxes) > self.max_boxes:
            self._forget_first()

    def take(self, address: Address, now: float) -> Mail:
        """Gives what waits there, oldest first, and closes the box."""
        self._expire(now)
        box = self._boxes.pop(address, None)
        return Mail(tuple(message for message, _ in box.messages), box.dropped) if box else Mail()

    def __len__(self) -> int:
        """How many boxes there are."""
        return len(self._boxes)

    def _expire(self, now: float) -> None:
        while self._boxes and next(iter(self._boxes.values())).expires_at <= now:
            self._forget_first()

    def _forget_first(self) -> None:
        self.lost += len(self._boxes.popitem(last=False)[1].messages)
