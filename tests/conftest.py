"""Fixtures for all tests: task schedules by seed, and nothing left behind."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator

import pytest
import trio


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


@pytest.fixture
async def schedule(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[int]:
    """One order of tasks, decided by the seed.  Everything private in Trio is pinned here."""
    chance = random.Random(request.param)
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr("trio._core._run._r", chance)
    shuffle = _Shuffle(chance)
    trio.lowlevel.add_instrument(shuffle)
    yield request.param
    trio.lowlevel.remove_instrument(shuffle)


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Fails when the test leaves a task behind."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    after = trio.lowlevel.current_statistics().tasks_living
    assert after == before, f"{after - before} tasks are left"
