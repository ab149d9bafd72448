"""Tool calls that may outlive their turn: they run in the conversation's nursery.

A turn waits for such a call as long as its patience lasts.  While it waits, the outcome is
the turn's, also when the turn is cancelled in the same instant; from then on it is ours: the
device is told, and the call with its result becomes part of the history, by a turn of its own
where it is to be announced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from listenai.conversation.actions import ToolFinished
from listenai.conversation.items import ToolCallItem, ToolResultItem
from listenai.conversation.outbox import Outbox
from listenai.conversation.tool_outcomes import INTERRUPTED, Outcome, attempt
from listenai.effects import Effects
from listenai.engines.base import ToolCall
from listenai.events import ToolReturned
from listenai.sessions.base import Session
from listenai.tools.base import ToolTraits


@attrs.define(eq=False)
class BackgroundCall:
    """A call under way.  `outcome` is there when it is over."""

    turn_id: int
    call: ToolCall
    traits: ToolTraits
    began_at: float
    outcome: Outcome | None = None
    _awaited: bool = True
    _over: trio.Event = attrs.field(factory=trio.Event)

    async def wait(self) -> Outcome | None:
        """The outcome; None when patience is over, from when on it is no longer the turn's."""
        try:
            with trio.move_on_after(self.traits.patience_seconds):
                await self._over.wait()
        finally:
            self._awaited = False
        return self.outcome

    def finish(self, outcome: Outcome) -> bool:
        """It is over; whether the turn takes the outcome."""
        self.outcome = outcome
        self._over.set()
        return self._awaited


class BackgroundTools:
    """One conversation's background calls; `run` is their nursery."""

    def __init__(
        self,
        outbox: Outbox,
        session: Session,
        effects: Effects,
        finished: Callable[[ToolFinished, bool], None],
    ) -> None:
        """finished: is told of a call that no turn waits for, and whether to announce it."""
        self._outbox, self._session, self._effects = outbox, session, effects
        self._finished = finished
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, which ends every call."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def start(
        self, turn_id: int, call: ToolCall, traits: ToolTraits, run: Callable[[], Awaitable[Any]]
    ) -> BackgroundCall:
        """Begins a call."""
        begun = BackgroundCall(turn_id, call, traits, trio.current_time())
        self._nursery.start_soon(self._run, begun, run)
        return begun

    async def _run(self, begun: BackgroundCall, run: Callable[[], Awaitable[Any]]) -> None:
        try:
            outcome = await attempt(begun.call.name, begun.traits.timeout_seconds, run)
        except trio.Cancelled:  # the conversation is over
            if not begun.finish(INTERRUPTED):
                self._finished(self._late(begun, INTERRUPTED), False)
            raise
        if begun.finish(outcome):
            return
        duration_ms = round((trio.current_time() - begun.began_at) * 1000, 1)
        call = begun.call
        self._outbox.post(
            ToolReturned(
                begun.turn_id, call.call_id, call.name, outcome.ok, outcome.result, duration_ms
            )
        )
        self._finished(self._late(begun, outcome), begun.traits.announce)

    def _late(self, begun: BackgroundCall, outcome: Outcome) -> ToolFinished:
        # The history may hold the call already, as one that still runs: ids are unique in it.
        call = attrs.evolve(begun.call, call_id=self._effects.new_id())
        return ToolFinished(call, outcome.ok, outcome.content, trio.current_time())

    def keep(self, finished: ToolFinished) -> None:
        """The call and its result become part of the history, without a word."""
        for item in items_of(finished, self._effects):
            self._session.add(item)


def items_of(finished: ToolFinished, effects: Effects) -> tuple[ToolCallItem, ToolResultItem]:
    """The call and its result."""
    at = effects.wall_clock()
    return (
        ToolCallItem(effects.new_id(), at, finished.call),
        ToolResultItem(effects.new_id(), at, finished.call.call_id, finished.ok, finished.content),
    )
