"""What comes of a tool call, whatever the tool does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from listenai.errors import ToolError

# A longer result would push everything else out of a chat model's context.
MAX_RESULT_CHARACTERS = 10_000


@attrs.frozen
class Outcome:
    """What came of a call: JSON-compatible data, or in words why it failed."""

    ok: bool
    result: Any

    @property
    def content(self) -> str:
        """The result as a chat model reads it."""
        content = self.result if self.ok else {"error": self.result}
        return json.dumps(content, ensure_ascii=False, allow_nan=False)


INTERRUPTED = Outcome(ok=False, result="interrupted")
STILL_RUNNING = Outcome(
    ok=True, result={"status": "running", "note": "the result is not known yet and comes later"}
)


async def attempt(name: str, seconds: float, run: Callable[[], Awaitable[Any]]) -> Outcome:
    """Runs a tool for so long at most; whatever it raises or returns becomes an outcome."""
    try:
        with trio.fail_after(seconds):
            result = await run()
    except ToolError as error:
        return Outcome(False, str(error))
    except trio.TooSlowError:
        return Outcome(False, f"{name} took longer than {seconds:g} seconds")
    outcome = Outcome(True, result)
    try:
        size = len(outcome.content)
    except (TypeError, ValueError, RecursionError):
        return Outcome(False, f"{name} returned something that is not JSON")
    if size > MAX_RESULT_CHARACTERS:
        return Outcome(False, f"{name} returned {size} characters; {MAX_RESULT_CHARACTERS} fit")
    return outcome
