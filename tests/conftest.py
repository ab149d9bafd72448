"""Fixtures for all tests: task schedules by seed, and nothing left behind."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from fakes import room_under


def pytest_configure() -> None:
    """Ctrl-C has its meaning in the processes that tests start, also where `nohup` took it away."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=3, help="task schedules per conversation test")
    parser.addoption("--seed", type=int, default=None, help="this one schedule only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "schedule" in metafunc.fixturenames:
        one = metafunc.config.getoption("--seed")
        seeds = range(metafunc.config.getoption("--seeds")) if one is None else [one]
        metafunc.parametrize("schedule", seeds, indirect=True, ids=lambda seed: f"seed{seed}")


class _Shuffle(trio.abc.Instrument):
    """Gives each runnable task a random key; Trio's deterministic mode sorts batches by it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        task._counter = self._chance.random()


# Both are plain fixtures that change how the test is run: an asynchronous one that is named
# by `usefixtures` alone would never be run by pytest-trio.

Run = Callable[..., None]  # as trio.run


def _run_through(node: Any, wrap: Callable[[Run], Run]) -> None:
    """pytest-trio runs the test by the first of its marks that says how."""
    if marks := [mark for mark in node.iter_markers("trio") if "run" in mark.kwargs]:
        assert not hasattr(node.obj, "hypothesis"), "pytest-trio runs these by `trio.run` itself"
        node.add_marker(pytest.mark.trio(run=wrap(marks[0].kwargs["run"])), append=False)


@pytest.fixture
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One order of tasks, decided by the seed.  Everything private in Trio is pinned here."""
    seed: int = request.param
    chance = random.Random(seed)
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr("trio._core._run._r", chance)
    monkeypatch.setattr("fakes.room", room_under(seed))

    def shuffled(run: Run) -> Run:
        def run_shuffled(main: Callable[[], Awaitable[None]], **options: Any) -> None:
            run(main, **(options | {"instruments": [_Shuffle(chance)]}))

        return run_shuffled

    _run_through(request.node, shuffled)
    return seed


@pytest.fixture
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Fails when the test leaves a task behind."""

    def counting(run: Run) -> Run:
        def run_and_count(main: Callable[[], Awaitable[None]], **options: Any) -> None:
            async def counted() -> None:
                before = trio.lowlevel.current_statistics().tasks_living
                await main()
                after = trio.lowlevel.current_statistics().tasks_living
                assert after == before, f"{after - before} tasks are left"

            run(counted, **options)

        return run_and_count

    _run_through(request.node, counting)
