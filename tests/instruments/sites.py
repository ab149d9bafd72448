"""Where the tasks of one connection wait, and a hand that reaches in exactly there.

Every time a watched task lets others run is a *visit* of a *site*: the task's
name, the lines of the package in which it is suspended, outermost first, and
whether it really waits.
Runs repeat exactly (virtual time, and an order of tasks that one seed decides),
so that the visits of one run can be found again in the next by their numbers.

Tasks are watched when they, or whoever started them, called `watch`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import CodeType, CoroutineType
from typing import Any, NoReturn

import attrs
import outcome
import trio
import trio._core._run
import trio.testing

import listenai

PACKAGE = Path(listenai.__file__).parent
TRIO = Path(trio.__file__).parent
# A cancelled task may still take a few steps (shielded ones, one for each scope
# it leaves); one that takes so many does not want to end.
MOST_STEPS_CANCELLED = 50

_watched: ContextVar[bool] = ContextVar("_watched")


def watch() -> None:
    """From here on this task is watched, and so are those that it starts."""
    _watched.set(True)


class Abandoned(BaseException):
    """Thrown into tasks that will not end, so that the next run can begin."""


# --- everything private in Trio --------------------------------------------------------------


@contextmanager
def _order_of_tasks(seed: int) -> Iterator[None]:
    """Inside, Trio sorts each batch of runnable tasks by age, then shuffles it by the seed."""
    run = trio._core._run
    before = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r
    run._ALLOW_DETERMINISTIC_SCHEDULING, run._r = True, random.Random(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING, run._r = before


def _can_raise_in(task: trio.lowlevel.Task) -> bool:
    """Whether the task waits for something that may fail."""
    return task._abort_func is not None


def _raise_in(task: trio.lowlevel.Task, error: BaseException) -> None:
    """What the task waits for fails, by the way on which it would be cancelled."""

    def fail() -> NoReturn:
        raise error

    task._attempt_abort(fail)


def _raise_at_next_step(task: trio.lowlevel.Task, error: BaseException) -> None:
    """Whatever a task that is about to run was to be told, it is told this."""
    if task._next_send_fn is not None:  # else it waits for its children
        task._next_send = outcome.Error(error)


def _is_cancelled(task: trio.lowlevel.Task) -> bool:
    """Whether its next wait, unless it is over at once, raises Cancelled."""
    return task._cancel_status.effectively_cancelled


# --- sites -----------------------------------------------------------------------------------


@attrs.frozen
class Site:
    """Where a task is suspended."""

    task: str
    lines: tuple[str, ...]  # "module.py:line" inside the package, outermost first
    calling: str = ""  # the function of the package that waits for an engine or the wire here
    passing: bool = False  # only lets others run, would not wait: nothing can fail here

    def __str__(self) -> str:
        return f"{self.task} {'>'.join(self.lines)}{' passing' if self.passing else ''}"


def _suspended_in(coroutine: Any) -> Iterator[tuple[CodeType | None, int]]:
    """The code and line of every frame of a suspended coroutine; None for what cannot be seen."""
    while coroutine is not None:
        if isinstance(coroutine, CoroutineType):
            frame = coroutine.cr_frame
            yield coroutine.cr_code, frame.f_lineno if frame else 0
            coroutine = coroutine.cr_await
        elif hasattr(coroutine, "gi_yieldfrom"):  # Trio's bare yields are generators
            yield coroutine.gi_code, 0
            coroutine = coroutine.gi_yieldfrom
        else:  # the next item of an asynchronous generator
            yield None, 0
            return


@cache
def _home(code: CodeType | None) -> str:
    """The module of the package that the code is in, "trio", or "" for anything else."""
    path = Path(code.co_filename) if code else Path()
    if path.is_relative_to(PACKAGE):
        return path.name
    return "trio" if path.is_relative_to(TRIO) else ""


def _site_of(task: trio.lowlevel.Task) -> Site:
    lines: list[str] = []
    function = beneath = ""  # the innermost of the package, and where that waits
    for code, line in _suspended_in(task.coro):
        home = _home(code)
        if home.endswith(".py"):
            lines.append(f"{home}:{line}")
            function, beneath = code.co_name if code else "", ""
        else:
            beneath = beneath or home or "outside"
    name = task.name.rpartition(".")[2]
    calling = function if beneath == "outside" else ""
    return Site(name, tuple(lines), calling, passing=not _can_raise_in(task))


@attrs.frozen
class Visit:
    """One visit of a site."""

    site: Site
    number: int  # of this visit among those of the site, from 1
    step: int  # among all steps of watched tasks


Reach = Callable[[trio.lowlevel.Task], None]


class Sites(trio.abc.Instrument):
    """Notes the visits of watched tasks, or lets `reach` act at one of them.

    reach: called with the suspended task, from the run loop: it must not wait.
    """

    def __init__(self, at: Visit | None = None, reach: Reach = lambda _task: None) -> None:
        self.visits: list[Visit] = []  # only where nothing is to be reached
        self.reached = False
        self.living: dict[trio.lowlevel.Task, None] = {}  # watched tasks, oldest first
        self.swallowing: Site | None = None  # where a task stayed although it was cancelled
        self.failure: BaseException | None = None  # ours: Trio would only log it
        self._at, self._reach = at, reach
        self._steps = 0
        self._numbers: Counter[Site] = Counter()
        self._steps_cancelled: Counter[trio.lowlevel.Task] = Counter()

    @property
    def missed(self) -> Site | None:
        """Where it should have reached in, and did not."""
        return self._at.site if self._at and not self.reached else None

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.living.pop(task, None)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not task.coro.cr_frame:  # that was its last
            return
        try:
            if _watched in task.context:
                self._step(task)
            if _is_cancelled(task):
                self._step_cancelled(task)
            else:  # it has left the scope that was cancelled
                self._steps_cancelled.pop(task, None)
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _step(self, task: trio.lowlevel.Task) -> None:
        self.living[task] = None
        self._steps += 1
        if self._at is None:
            self._note(task)
        elif self._at.step == self._steps:
            if (site := _site_of(task)) != self._at.site:
                raise RuntimeError(f"the run does not repeat: {site} instead of {self._at.site}")
            self.reached = True
            self._reach(task)

    def _step_cancelled(self, task: trio.lowlevel.Task) -> None:
        self._steps_cancelled[task] += 1
        if self._steps_cancelled[task] > MOST_STEPS_CANCELLED:
            self.swallowing = _site_of(task)
            _raise_at_next_step(task, Abandoned())  # the Cancelled that waits for it is no use

    def _note(self, task: trio.lowlevel.Task) -> None:
        site = _site_of(task)
        self._numbers[site] += 1
        self.visits.append(Visit(site, self._numbers[site], self._steps))

    def abandon(self) -> None:
        """Ends watched tasks that still live, shielded or not; may have to be called again."""
        for task in list(self.living):
            if _can_raise_in(task):
                _raise_in(task, Abandoned())


def fail_wait(task: trio.lowlevel.Task, error: Exception) -> None:
    """What the task waits for fails with this error; not where it is only `passing`."""
    _raise_in(task, error)


def run_repeatably(main: Callable[[], Awaitable[Any]], seed: int, instrument: Sites) -> Any:
    """Runs `main` in virtual time under the seed's order of tasks; returns what it returns."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    with _order_of_tasks(seed):
        result = trio.run(main, clock=clock, instruments=[instrument])
    if instrument.failure:
        raise instrument.failure
    if instrument.missed:
        raise RuntimeError(f"the run does not repeat: {instrument.missed} was not reached")
    return result
