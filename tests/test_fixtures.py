"""The fixtures of `conftest.py` do what they are named for when they are named alone."""

from __future__ import annotations

import pytest
import trio

ORDERS = {0: [4, 3, 5, 2, 1, 0], 1: [4, 5, 3, 2, 0, 1], 2: [1, 4, 3, 5, 2, 0]}


@pytest.mark.usefixtures("schedule")
async def test_a_seed_is_an_order_of_tasks(request: pytest.FixtureRequest) -> None:
    """One for each, and always the same."""
    order: list[int] = []

    async def step(number: int) -> None:
        await trio.lowlevel.checkpoint()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(step, number)
    seed = request.node.callspec.params["schedule"]
    if seed in ORDERS:  # the default ones; more seeds are only more of the same
        assert order == ORDERS[seed]


@pytest.mark.xfail(raises=AssertionError, strict=True)
@pytest.mark.usefixtures("nothing_left")
async def test_a_task_that_is_left_behind_is_noticed() -> None:
    """It belongs to nobody's nursery."""
    trio.lowlevel.spawn_system_task(trio.sleep_forever)
