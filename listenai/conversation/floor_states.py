"""SANS-IO: the floor's two machines: what the reply and the user are doing.

The *reply*: none, running, held (the user may be speaking: nothing of it is sent),
leaving (interrupted: nothing of it is ever sent again).  The *user*: silent, speaking,
awaited (the segment is over, its text is not yet known), pausing (the text is known, the
end-of-turn delay runs).
"""

from __future__ import annotations

from enum import Enum, auto

from listenai.conversation.actions import Action, HoldTurn, InterruptTurn, ReleaseTurn


class Reply(Enum):
    """What the latest turn is doing with the floor."""

    NONE = auto()
    RUNNING = auto()
    HELD = auto()
    LEAVING = auto()


class User(Enum):
    """What the user is doing."""

    SILENT = auto()
    SPEAKING = auto()
    AWAITED = auto()
    PAUSING = auto()


class Change(Enum):
    """What happens to a reply."""

    BEGIN = auto()
    SUSPECT = auto()
    FALSE_ALARM = auto()
    CONFIRM = auto()
    LEAVE = auto()


# What is not in the table changes nothing.
CHANGES: dict[tuple[Reply, Change], tuple[Reply, Action | None]] = {
    (Reply.NONE, Change.BEGIN): (Reply.RUNNING, None),
    (Reply.LEAVING, Change.BEGIN): (Reply.RUNNING, None),  # queued behind one being left
    (Reply.RUNNING, Change.SUSPECT): (Reply.HELD, HoldTurn()),
    (Reply.RUNNING, Change.CONFIRM): (Reply.LEAVING, InterruptTurn()),
    (Reply.HELD, Change.FALSE_ALARM): (Reply.RUNNING, ReleaseTurn()),
    (Reply.HELD, Change.CONFIRM): (Reply.LEAVING, InterruptTurn()),
    (Reply.RUNNING, Change.LEAVE): (Reply.NONE, None),
    (Reply.HELD, Change.LEAVE): (Reply.NONE, None),
    (Reply.LEAVING, Change.LEAVE): (Reply.NONE, None),
}
