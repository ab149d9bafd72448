"""How late the loop is."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from listenai.telemetry.loop import WATCH_SECONDS, watch_loop


async def test_what_holds_the_loop_is_seen(autojump_clock):
    """Every look tells how late it came: not at all, until something took a fifth of a second."""
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop, late.append)
        await trio.sleep(2.5 * WATCH_SECONDS)
        assert late == pytest.approx([0, 0])
        autojump_clock.jump(0.2)  # half of a look's time is over: it comes so much later
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert late == pytest.approx([0, 0, 0.2 - 0.5 * WATCH_SECONDS])
