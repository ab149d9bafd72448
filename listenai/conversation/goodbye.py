"""How a connection is closed, and how it was."""

from __future__ import annotations

import attrs

from listenai.wire import DeviceGone


@attrs.frozen
class Goodbye:
    """What the wire is closed with."""

    code: int = 1000
    reason: str = ""


TAKEN_OVER = Goodbye(4001, "taken over by a newer connection")
GOING_AWAY = Goodbye(1001, "the server is going away")
STALLED = Goodbye(1008, "the device does not read")
BROKEN = Goodbye(1011, "internal error")


def goodbye_of(gone: BaseExceptionGroup[DeviceGone]) -> Goodbye:
    """The device's own; several tasks may have noticed."""
    first = gone.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return goodbye_of(first)
    return Goodbye(first.code, "the device left")
