"""A session: what outlives a connection."""

from __future__ import annotations

import attrs

from listenai.conversation.items import Item
from listenai.settings import EffectiveConfiguration, SessionStatistics

# Items kept of a session; the history sent to a chat model is shorter.
MAX_ITEMS = 200


@attrs.define
class Session:
    """Items, settings and counters of one user's conversation."""

    id: str
    created_at: float  # seconds since the epoch
    configuration: EffectiveConfiguration
    items: list[Item] = attrs.field(factory=list)
    volume: int = 100  # percent, of the server's gain on outgoing audio
    last_turn_id: int = 0
    last_stream_id: int = 0
    message_count: int = 0
    interaction_count: int = 0
    interaction_seconds: float = 0.0
    last_activity: float = attrs.field(
        default=attrs.Factory(lambda self: self.created_at, takes_self=True)
    )

    def add(self, item: Item) -> None:
        """Appends an item; the oldest beyond MAX_ITEMS are forgotten."""
        self.items.append(item)
        del self.items[:-MAX_ITEMS]
        self.message_count += 1
        self.last_activity = item.at

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
