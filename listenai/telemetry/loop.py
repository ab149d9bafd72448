"""How late Trio's loop is."""

from __future__ import annotations

from collections.abc import Callable

import trio

WATCH_SECONDS = 0.05  # short beside what a user notices, long beside what looking costs


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Tells, twenty times a second until cancelled, how many seconds late this task came to run.

    Something that holds the loop makes every conversation as late.
    """
    while True:
        due = trio.current_time() + WATCH_SECONDS
        await trio.sleep_until(due)
        observe(trio.current_time() - due)
