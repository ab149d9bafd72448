"""Places for turns: so many, in order, and every one comes back."""

from __future__ import annotations

import math
import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from listenai.conversation.turn_places import (
    MAX_QUEUED,
    MAX_WAIT_SECONDS,
    RETRY_AFTER_SECONDS,
    TurnPlaces,
    TurnsFull,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


def nobody_waits() -> None:
    raise AssertionError("was told to wait")


async def talk(places: TurnPlaces, name: object, seconds: float, log: list[object]) -> None:
    """One turn that tells of everything that happens to it."""
    async with places.turn(name, lambda: log.append(("queued", name))):
        log.append(("began", name))
        await trio.sleep(seconds)


async def test_as_many_as_there_are_places_do_not_wait() -> None:
    """Nor are they told to."""
    places = TurnPlaces(2)
    async with places.turn("a", nobody_waits), places.turn("b", nobody_waits):
        assert (places.in_use, places.waiting, places.refused) == (2, 0, 0)
    assert (places.in_use, places.most_in_use) == (0, 2)


async def test_who_comes_first_is_served_first(autojump_clock: trio.testing.MockClock) -> None:
    """Each is told once that it waits; a place goes to the longest waiting, not to the next."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(talk, places, name, 3.0, log)
            await wait_all_tasks_blocked()
        assert (places.in_use, places.waiting) == (1, 3)
        await trio.sleep(3.0)
        await wait_all_tasks_blocked()
        nursery.start_soon(talk, places, "late", 0.0, log)
    assert [name for event, name in log if event == "began"] == [*"abcd", "late"]
    assert [name for event, name in log if event == "queued"] == [*"bcd", "late"]
    assert (places.in_use, places.waiting, places.most_in_use) == (0, 0, 1)


async def test_a_place_that_is_given_back_cannot_be_taken_by_a_newcomer() -> None:
    """Not even by one who asks in the same moment."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery:
        async with places.turn("a", nobody_waits):
            nursery.start_soon(talk, places, "b", 0.0, log)
            await wait_all_tasks_blocked()
        assert (places.in_use, places.waiting) == (1, 0)  # it is b's, who has not run yet
        await talk(places, "c", 0.0, log)
    assert log == [("queued", "b"), ("queued", "c"), ("began", "b"), ("began", "c")]


async def test_too_long_a_queue_refuses_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """With the time after which to come again; who waits is not touched."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery:
        for number in range(1 + MAX_QUEUED):
            nursery.start_soon(talk, places, number, MAX_WAIT_SECONDS / 1000, log)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(TurnsFull, match=f"busy with 1 replies, {MAX_QUEUED} wait") as full:
            async with places.turn("one too many", nobody_waits):
                pass
        assert trio.current_time() == began
        assert full.value.retry_after_seconds == RETRY_AFTER_SECONDS
        assert (places.waiting, places.refused) == (MAX_QUEUED, 1)
    assert sum(event == "began" for event, _ in log) == 1 + MAX_QUEUED


async def test_nobody_waits_longer_than_that(autojump_clock: trio.testing.MockClock) -> None:
    """Then it is refused, and leaves the queue."""
    places, log = TurnPlaces(1), list[object]()
    async with places.turn("a", nobody_waits):
        with pytest.raises(TurnsFull, match=f"none ended within {MAX_WAIT_SECONDS:g} s"):
            await talk(places, "b", 0.0, log)
        assert trio.current_time() == MAX_WAIT_SECONDS
        assert (places.in_use, places.waiting, places.refused) == (1, 0, 1)
    assert places.in_use == 0
    assert log == [("queued", "b")]


async def test_a_place_at_the_last_moment_is_one(autojump_clock: trio.testing.MockClock) -> None:
    """Given back when the wait is over, in whichever order the two are seen."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, places, "a", MAX_WAIT_SECONDS, log)
        await wait_all_tasks_blocked()
        try:
            await talk(places, "b", 0.0, log)
        except TurnsFull:
            assert places.refused == 1
        else:
            assert ("began", "b") in log
    assert (places.in_use, places.waiting) == (0, 0)


async def test_a_device_has_one_place_in_the_queue() -> None:
    """A second wait is refused at once and does not end the first; then it may wait again."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery, places.turn("a", nobody_waits):
        nursery.start_soon(talk, places, "b", 0.0, log)
        await wait_all_tasks_blocked()
        with pytest.raises(TurnsFull, match="waiting for its turn already"):
            await talk(places, "b", 0.0, log)
        assert places.waiting == 1
    await talk(places, "b", 0.0, log)
    assert log == [("queued", "b"), ("began", "b"), ("began", "b")]


async def test_who_is_cancelled_leaves_the_queue() -> None:
    """As when the user says something else meanwhile; the next in line moves up."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery, places.turn("a", nobody_waits):
        with trio.CancelScope() as first:
            nursery.start_soon(_queue_and_cancel, first, nursery, places, log)
            await talk(places, "b", 0.0, log)
        assert places.waiting == 1
    assert ("began", "b") not in log
    assert ("began", "c") in log
    assert (places.in_use, places.waiting, places.refused) == (0, 0, 0)


async def _queue_and_cancel(
    scope: trio.CancelScope, nursery: trio.Nursery, places: TurnPlaces, log: list[object]
) -> None:
    """Queues c behind the one who waits, and cancels that one."""
    await wait_all_tasks_blocked()
    nursery.start_soon(talk, places, "c", 0.0, log)
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_place_granted_to_who_is_cancelled_in_that_moment_goes_on() -> None:
    """It is neither lost nor counted twice."""
    places, log = TurnPlaces(1), list[object]()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as doomed, places.turn("a", nobody_waits):
                doomed.start_soon(talk, places, "b", math.inf, log)
                await wait_all_tasks_blocked()
                nursery.start_soon(talk, places, "c", 0.0, log)
                await wait_all_tasks_blocked()
                scope.cancel()  # b does not know it when it is granted the place
    assert log == [("queued", "b"), ("queued", "c"), ("began", "c")]
    assert (places.in_use, places.waiting) == (0, 0)


async def test_a_failure_while_telling_that_it_waits_leaves_no_trace() -> None:
    """A stalled device cannot even be told."""
    places = TurnPlaces(1)

    def stalled() -> None:
        raise BrokenPipeError

    async with places.turn("a", nobody_waits):
        with pytest.raises(BrokenPipeError):
            async with places.turn("b", stalled):
                pass
        assert (places.in_use, places.waiting) == (1, 0)


async def test_the_count_is_exact_under_load(
    autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """Turns of all lengths, many of them cancelled at any moment, under every order of tasks."""
    places, chance = TurnPlaces(3), random.Random(schedule)
    running = 0

    async def run(device: int) -> None:
        nonlocal running
        for _ in range(10):
            await trio.sleep(chance.choice((0.0, 1.0, 2.0)))
            with trio.move_on_after(chance.choice((0.0, 1.0, 2.0, 9.0))):
                async with places.turn(device, lambda: None):
                    running += 1
                    try:
                        assert running <= 3
                        await trio.sleep(chance.choice((0.0, 1.0, 2.0)))
                    finally:
                        running -= 1

    async with trio.open_nursery() as nursery:
        for device in range(20):
            nursery.start_soon(run, device)
    assert (places.in_use, places.waiting, places.most_in_use) == (0, 0, 3)
