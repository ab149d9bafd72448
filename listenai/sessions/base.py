"""A session, what outlives a connection; and how a connection comes to hold it.

A session has one holder at a time.  Who claims it is given a *lease* with an
epoch, which is higher with each claim.  A newer claim asks the holder to let go;
if that takes too long the claim is granted all the same and the older lease is
*fenced*: whatever it still writes is refused.  So two servers on one store can
never mix what they know of a session.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from listenai.conversation.items import AssistantItem, Item, UserItem
from listenai.errors import ListenAIError
from listenai.settings import EffectiveConfiguration, SessionStatistics

# Items kept of a session; the history sent to a chat model is shorter.
MAX_ITEMS = 200
# Interactions kept: each has a user item, and mostly one of the assistant.
MAX_INTERACTIONS = MAX_ITEMS // 2
# Sessions that a server keeps, claimed or not: an hour of visitors.  One takes 1 KiB, and as
# much for each question with its answer: 20 MiB after twenty in each.
MAX_SESSIONS = 1000


@attrs.frozen
class Interaction:
    """What the user wanted and what came of it (spec 000, "Interaction Tracking")."""

    turn_id: int
    at: float  # seconds since the epoch, when the turn began
    duration_seconds: float  # from the user's last sound, or the text, to the reply's end
    item_ids: tuple[str, ...]  # what was said and done, the user's words first
    tools: tuple[str, ...] = ()  # names of those that ran, the first to end first


@attrs.define
class Session:
    """Items, settings and counters of one user's conversation."""

    id: str
    created_at: float  # seconds since the epoch
    configuration: EffectiveConfiguration
    items: list[Item] = attrs.field(factory=list)
    interactions: list[Interaction] = attrs.field(factory=list)
    volume: int = 100  # percent, of the server's gain on outgoing audio
    last_turn_id: int = 0
    last_stream_id: int = 0
    last_segment_id: int = 0
    message_count: int = 0  # of user and assistant, forgotten ones too
    interaction_count: int = 0  # forgotten ones too
    interaction_seconds: float = 0.0
    last_activity: float = attrs.field(
        default=attrs.Factory(lambda self: self.created_at, takes_self=True)
    )

    def add(self, item: Item) -> None:
        """Appends an item; the oldest beyond MAX_ITEMS are forgotten."""
        self.items.append(item)
        del self.items[:-MAX_ITEMS]
        if isinstance(item, UserItem | AssistantItem):
            self.message_count += 1
        self.last_activity = item.at

    def record(self, interaction: Interaction) -> None:
        """Appends an interaction; the oldest beyond MAX_INTERACTIONS are only counted."""
        self.interactions.append(interaction)
        del self.interactions[:-MAX_INTERACTIONS]
        self.interaction_count += 1
        self.interaction_seconds += interaction.duration_seconds

    def copy(self) -> Session:
        """The same session, which does not change when this one does."""
        return attrs.evolve(self, items=[*self.items], interactions=[*self.interactions])

    def statistics(self, wall_time: float) -> SessionStatistics:
        """Spec 000, "Session Statistics", at this time (seconds since the epoch)."""
        count = self.interaction_count
        return SessionStatistics(
            message_count=self.message_count,
            interaction_count=count,
            duration_seconds=wall_time - self.created_at,
            average_interaction_seconds=self.interaction_seconds / count if count else None,
            last_activity=self.last_activity,
        )


class LeaseLost(ListenAIError):
    """The lease is not, or no longer, the one that counts; nothing was written."""


class Lease(Protocol):
    """One holder's right to a session, until it is released, erased or fenced."""

    @property
    def session(self) -> Session:
        """The holder's own copy."""

    @property
    def restored(self) -> bool:
        """Whether there was such a session before."""

    @property
    def epoch(self) -> int:
        """Higher than that of every earlier lease of the session."""

    async def save(self) -> None:
        """Keeps the session as it is now; raises LeaseLost."""

    async def release(self) -> None:
        """Lets go of what was last saved: anyone may claim it; raises LeaseLost."""

    async def erase(self) -> None:
        """Forgets the session and lets go; raises LeaseLost."""

    async def wait_lost(self) -> None:
        """Returns when someone else claims the session: save and release it at once."""


class SessionStore(Protocol):
    """Where sessions are kept."""

    async def claim(self, session_id: str | None, owner: str) -> Lease:
        """A lease on that session, or on a new one of that id, or of an id chosen here.

        Waits until an older holder has let go, for a bounded time; then fences it.
        owner: who may claim the session again; anyone where it is empty.
        Raises ProtocolError (SESSION_ERROR) for another owner's session and when the store
        is full, and LeaseLost when a still newer claim overtakes this one.
        """
