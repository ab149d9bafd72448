"""What several observers need: the same words for the same things, and the tools that run."""

from __future__ import annotations

import re

import attrs

from listenai.conversation.actions import Cause, ToolFinished
from listenai.events import Target, ToolCalled, ToolReturned


def cause_name(cause: Cause) -> str:
    """A turn's cause in one word: "user_said"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(cause).__name__).lower()


def cause_characters(cause: Cause) -> int:
    """How long the text is that the turn answers."""
    return len(cause.content if isinstance(cause, ToolFinished) else cause.text)


@attrs.frozen
class ToolRun:
    """A tool that was called and has not returned."""

    name: str
    target: Target
    began_at: float  # Trio's time


class ToolRuns:
    """The tools that were called for the turns of one connection, until those are left.

    A chat model may call tools by names of its own making: those never run, so that every name
    found here is one that server or device has declared.  A tool in the background returns twice,
    when its turn no longer waits for it and when it is done: what counts is the first time.
    """

    def __init__(self) -> None:
        # By turn and call; None: it has returned.
        self._runs: dict[int, dict[str, ToolRun | None]] = {}

    def begin(self, fact: ToolCalled, now: float) -> None:
        """The tool runs from now on."""
        run = ToolRun(fact.name, fact.target, now)
        self._runs.setdefault(fact.turn_id, {})[fact.call_id] = run

    def end(self, fact: ToolReturned) -> ToolRun | None:
        """What returns for the first time; None where it never ran, or its turn was left."""
        if not self.was_called(fact):
            return None
        calls = self._runs[fact.turn_id]
        run, calls[fact.call_id] = calls[fact.call_id], None
        return run

    def was_called(self, fact: ToolReturned) -> bool:
        """Whether the tool ever ran, for a turn that was not left."""
        return fact.call_id in self._runs.get(fact.turn_id, {})

    def leave(self, turn_id: int) -> list[ToolRun]:
        """What nobody waits for any more, now that the turn was left."""
        return [run for run in self._runs.pop(turn_id, {}).values() if run]
