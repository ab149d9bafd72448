"""What the floor decides: turns with their causes, and what is to be done about them."""

from __future__ import annotations

import attrs

from listenai.engines.base import ToolCall
from listenai.events import Notice, State


@attrs.frozen
class UserSaid:
    """A turn's cause: an utterance.  Times are Trio's."""

    text: str
    last_speech_at: float
    ended_at: float  # the detector said so
    transcript_at: float


@attrs.frozen
class UserTyped:
    """A turn's cause: typed text."""

    text: str
    at: float


@attrs.frozen
class ToolFinished:
    """A turn's cause: a background tool is done, and the user is to be told."""

    call: ToolCall
    ok: bool
    content: str  # JSON
    at: float


Cause = UserSaid | UserTyped | ToolFinished


@attrs.frozen
class BeginTurn:
    """Make this turn and queue it."""

    turn_id: int
    cause: Cause


@attrs.frozen
class HoldTurn:
    """Send nothing more of the latest turn, for now."""


@attrs.frozen
class ReleaseTurn:
    """It was nothing: the latest turn goes on."""


@attrs.frozen
class InterruptTurn:
    """The latest turn is over: flush and cancel."""


@attrs.frozen
class CommitUtterance:
    """What the recognizer has joined is taken, or forgotten: the next speech is a new utterance."""


@attrs.frozen
class Tell:
    """Post this notice."""

    notice: Notice


@attrs.frozen
class Show:
    """The user's side of the state changed."""

    state: State


Action = BeginTurn | HoldTurn | ReleaseTurn | InterruptTurn | CommitUtterance | Tell | Show
