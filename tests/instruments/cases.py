"""Scenarios under faults: run one case, or all of a scenario's cases under one seed.

A case is a scenario, a seed, and a fault at one visit of one site.  Beside the
conversation that suffers it, a healthy one asks and is answered.

    cd tests && python -m instruments.cases --help

replays cases alone, for instance those that a failed test has named.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from typing import Any
from unittest import mock
from zlib import crc32

import attrs
import trio
from fakes import FakeSynthesizer, Talking, room_under
from instruments.laws import Broken, Kind, broken_laws
from instruments.scenarios import SCENARIOS, Scenario, Witness, watched
from instruments.sites import Abandoned, Site, Sites, Visit, fail_wait, run_repeatably, watch

from listenai.errors import ChatModelError, SynthesizerError, ToolError
from listenai.events import (
    AudioChunk,
    ErrorReported,
    InterruptPressed,
    PingReceived,
    SessionEnd,
    StreamEnded,
    TextDelta,
    TurnMetrics,
)

# Virtual seconds from a fault to the end of the connection.
CLOSE_SECONDS = 0.1  # nothing in these scenarios takes longer to leave
DRAIN_SECONDS = 4.0  # the longest reply, a hold and a stall included


class Fault(StrEnum):
    """What goes wrong, or is asked for, at a bad moment."""

    NONE = "none"
    CANCEL = "cancel"  # the server shuts down
    LEAVE_READING = "leave-reading"
    LEAVE_WRITING = "leave-writing"
    LEAVE = "leave"
    EAR = "ear"  # the next segment cannot be transcribed
    DRAIN = "drain"
    INTERRUPT = "interrupt"
    ENGINE = "engine"  # what waits for chat model, voice or tool here gets its error


ENDING = {Fault.CANCEL, Fault.LEAVE_READING, Fault.LEAVE_WRITING, Fault.LEAVE}
ANYWHERE = [fault for fault in Fault if fault not in (Fault.NONE, Fault.ENGINE)]

# Who waits for an engine in the package's code, and how that engine fails.
ENGINE_ERRORS = {
    "_stream_reply": ChatModelError,
    "_speak_sentence": SynthesizerError,
    "call_tool": ToolError,
}


@attrs.frozen
class Case:
    """A fault at a visit; `visit` None: the scenario as it is."""

    scenario: Scenario
    seed: int
    fault: Fault = Fault.NONE
    visit: Visit | None = None

    @property
    def command(self) -> str:
        """Replays this case alone."""
        command = f"python -m instruments.cases {self.scenario.name} --seed {self.seed}"
        if self.visit:
            where = f"--site '{self.visit.site}' --visit {self.visit.number}"
            command += f" {where} --fault {self.fault}"
        return f"(cd tests && {command})"


@attrs.frozen
class Failed:
    """A case, and a law that it broke."""

    case: Case
    broken: Broken

    def __str__(self) -> str:
        return f"{self.broken}\n    {self.case.command}"


# --- one case ----------------------------------------------------------------------------------


@attrs.define
class _Run:
    """One run of a scenario."""

    case: Case
    sites: Sites = attrs.field(init=False)
    witness: Witness = attrs.field(init=False)
    neighbour: Talking = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)
    faulted_at: float = float("nan")
    ended_at: float = float("inf")
    broken: list[Broken] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.sites = Sites(self.case.visit, self._reach)

    async def main(self) -> None:
        with mock.patch("fakes.room", room_under(self.case.seed)):
            await self._run()

    async def _run(self) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        self.witness = self.case.scenario.open()
        self.neighbour = _neighbour()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_be_neighbour, self.neighbour)
            nursery.start_soon(self._converse)
            await self._be_user()
            await self._see_it_end()
        # Trio ends what is left when its main task ends: all is looked at before.
        left = trio.lowlevel.current_statistics().tasks_living - before
        if left:
            self.broken.append(Broken(Kind.TASK, f"{left} tasks are left"))
        if self.sites.swallowing:
            message = f"cancelled, and stays: {self.sites.swallowing}"
            self.broken.append(Broken(Kind.CANCELLATION, message))
        self.broken += broken_laws(self.witness)
        self.broken += self._compare()

    # --- the conversation -----------------------------------------------------------------

    async def _converse(self) -> None:
        watch()
        try:
            with self.scope:
                await self.witness.talk.run()
            if self.scope.cancel_called and not self.scope.cancelled_caught:
                self.broken.append(Broken(Kind.CANCELLATION, "the connection went on to its end"))
        except (Exception, BaseExceptionGroup, Abandoned) as error:
            self.broken += [Broken(Kind.BUG, f"raised {bug!r}") for bug in _bugs(error)]
        self.ended_at = trio.current_time()
        self.over.set()

    async def _be_user(self) -> None:
        """Acts the scenario, as long as there is a connection."""
        async with trio.open_nursery() as nursery:

            async def act() -> None:
                await self.case.scenario.user(self.witness.talk)
                nursery.cancel_scope.cancel()

            nursery.start_soon(act)
            await self.over.wait()
            nursery.cancel_scope.cancel()

    async def _see_it_end(self) -> None:
        """Hangs up where nothing else ends the connection; insists on its end."""
        if not self.witness.talk.draining.is_set():
            self.witness.talk.device.say(SessionEnd())
        with trio.move_on_after(DRAIN_SECONDS if self.case.fault is Fault.DRAIN else CLOSE_SECONDS):
            await self.over.wait()
        if self.ended_at - self.faulted_at > self._bound() or not self.over.is_set():
            message = f"not over {self._bound():g} s after {self.case.fault}"
            self.broken.append(Broken(Kind.CLOSE, message))
        if not self.over.is_set():
            self.scope.cancel()
            with trio.move_on_after(CLOSE_SECONDS):
                await self.over.wait()
            while self.sites.living:
                self.sites.abandon()
                await trio.sleep(CLOSE_SECONDS)

    def _bound(self) -> float:
        if self.case.fault in ENDING:
            return CLOSE_SECONDS
        return DRAIN_SECONDS if self.case.fault is Fault.DRAIN else float("inf")

    def _compare(self) -> Iterator[Broken]:
        """Where nothing goes wrong, the history is known."""
        history = tuple(self.witness.talk.history)
        if self.case.fault is Fault.NONE and history != self.case.scenario.history:
            yield Broken(Kind.HISTORY, f"it is {history}")

    # --- the fault ------------------------------------------------------------------------

    def _reach(self, task: trio.lowlevel.Task) -> None:
        """Called by the instrument, at the visit."""
        assert self.case.visit
        self.faulted_at = trio.current_time()
        talk = self.witness.talk
        match self.case.fault:
            case Fault.CANCEL:
                self.scope.cancel()
            case Fault.LEAVE_READING:
                talk.device.leave(write_side=False)
            case Fault.LEAVE_WRITING:
                talk.device.leave(read_side=False)
                talk.device.say(PingReceived())  # noticed with the next thing there is to say
            case Fault.LEAVE:
                talk.device.leave()
            case Fault.EAR:
                talk.recognizers.fail_next = True
            case Fault.DRAIN:
                talk.draining.set()
            case Fault.INTERRUPT:
                talk.device.say(InterruptPressed())
            case Fault.ENGINE:
                engine = self.case.visit.site.calling
                fail_wait(task, ENGINE_ERRORS[engine](f"{engine} failed"))


def _bugs(error: BaseException) -> list[BaseException]:
    """What was raised, out of its groups, without what we threw in ourselves."""
    if isinstance(error, BaseExceptionGroup):
        return [bug for inner in error.exceptions for bug in _bugs(inner)]
    return [] if isinstance(error, Abandoned) else [error]


def run_case(case: Case) -> tuple[list[Visit], list[Failed]]:
    """The visits (of a scenario as it is) and every law that was broken."""
    run = _Run(case)
    try:
        run_repeatably(run.main, case.seed, run.sites)
    except trio.TrioInternalError as error:  # a task of ours outside of every nursery
        run.broken.append(Broken(Kind.TASK, f"a system task failed: {error.__cause__!r}"))
    if (account := _account(run.neighbour)) != _healthy_account():
        run.broken.append(Broken(Kind.NEIGHBOUR, f"it went {account}"))
    return run.sites.visits, [Failed(case, broken) for broken in run.broken]


# --- the healthy neighbour ---------------------------------------------------------------------


def _neighbour() -> Talking:
    """A slow voice: little work, for as long as most scenarios take."""
    return watched(voice=FakeSynthesizer(0.1, delay=0.1)).talk


async def _ask_and_leave(talk: Talking) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        await trio.sleep(0.05)
        talk.ask()
        await trio.sleep(1.4)
        talk.device.say(SessionEnd())


async def _be_neighbour(talk: Talking) -> None:
    try:
        await _ask_and_leave(talk)
    except* Abandoned:
        pass  # its account is not what it should be


def _account(talk: Talking) -> tuple[object, ...]:
    """All that must be the same however others fare."""
    kinds = (TextDelta, AudioChunk, StreamEnded, TurnMetrics, ErrorReported)
    heard = [
        (round(at, 3), type(event).__name__)
        for at, event in talk.device.got
        if isinstance(event, kinds)
    ]
    return tuple(sorted(heard)), tuple(talk.history), tuple(talk.device.loudspeaker.law_broken)


@cache
def _healthy_account() -> tuple[object, ...]:
    """The account of a healthy conversation that was alone."""

    async def main() -> Talking:
        talk = _neighbour()
        await _be_neighbour(talk)
        return talk

    return _account(run_repeatably(main, 0, Sites()))


# --- many cases --------------------------------------------------------------------------------


def faults_at(visit: Visit) -> list[Fault]:
    """What can go wrong there."""
    engine = visit.site.calling in ENGINE_ERRORS and not visit.site.passing
    return [*ANYWHERE, Fault.ENGINE] if engine else ANYWHERE


def choose(visits: Sequence[Visit], seed: int) -> Iterator[Visit]:
    """The first visit of each site, and a later one by the seed."""
    chance = random.Random(seed)
    by_site: dict[Site, list[Visit]] = {}
    for visit in visits:
        by_site.setdefault(visit.site, []).append(visit)
    for first, *later in by_site.values():
        yield first
        if later:
            yield chance.choice(later)


def cases_of(scenario: Scenario, seed: int, visits: Sequence[Visit], faults: int) -> list[Case]:
    """So many kinds of fault at each chosen visit; from seed to seed, the next kinds."""
    cases = []
    for visit in choose(visits, seed):
        possible = faults_at(visit)
        start = crc32(str(visit.site).encode()) + seed * faults  # all kinds at a site in turn
        if visit.number > 1:
            start += len(possible) // 2
        kinds = {possible[(start + n) % len(possible)] for n in range(faults)}
        cases += [Case(scenario, seed, fault, visit) for fault in sorted(kinds)]
    return cases


def explore(
    scenario: Scenario, seed: int, *, faults: int = 1, sample: int | None = None
) -> tuple[int, list[Failed]]:
    """The scenario as it is, then with faults; returns the number of cases and the failures.

    faults: kinds at each visit, the first and a later one of every site.
    sample: only so many of these cases, by the seed.
    """
    visits, failed = run_case(Case(scenario, seed))
    cases = cases_of(scenario, seed, visits, faults)
    if sample is not None:
        cases = random.Random(seed).sample(cases, min(sample, len(cases)))
    for case in cases:
        failed += run_case(case)[1]
    return 1 + len(cases), failed


def parametrize_seeds(metafunc: Any, full: int) -> None:
    """Gives a test its `seed`, few of them, or `all_seeds`, the full count.

    pytest's `--seed N` is that order of tasks alone, `--seeds N` so many of them.
    """
    one = metafunc.config.getoption("--seed")
    few = range(metafunc.config.getoption("--seeds"))
    if "seed" in metafunc.fixturenames:
        seeds = few if one is None else [one]
        metafunc.parametrize("seed", seeds, ids=lambda seed: f"seed{seed}")
    if "all_seeds" in metafunc.fixturenames:
        seeds = range(full) if one is None else [one]
        metafunc.parametrize("all_seeds", [seeds], ids=[f"{len(seeds)}seeds"])


# --- the command -------------------------------------------------------------------------------


def _visit(scenario: Scenario, seed: int, site: str, number: int) -> Visit:
    visits, _ = run_case(Case(scenario, seed))
    for visit in visits:
        if str(visit.site) == site and visit.number == number:
            return visit
    known = Counter(str(visit.site) for visit in visits)
    lines = "\n".join(f"  {known[each]:4} visits of {each}" for each in sorted(known))
    raise SystemExit(f"no visit {number} of {site!r} under seed {seed}; there are:\n{lines}")


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line asks for, prints what failed; 1 when something did."""
    parser = argparse.ArgumentParser(prog="python -m instruments.cases", description=main.__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=0, help="the order of tasks")
    parser.add_argument("--seeds", type=int, default=1, help="so many of them from --seed on")
    parser.add_argument("--faults", type=int, default=1, help="kinds of fault at each visit")
    parser.add_argument("--site", help="only here: a task and its lines, as a failure names them")
    parser.add_argument("--visit", type=int, default=1, help="of the site, from 1")
    parser.add_argument("--fault", type=Fault, default=Fault.NONE, choices=list(Fault))
    given = parser.parse_args(arguments)
    scenario = SCENARIOS[given.scenario]
    count, failed = 0, []
    for seed in range(given.seed, given.seed + given.seeds):
        if given.site:
            visit = _visit(scenario, seed, given.site, given.visit)
            cases, new = 1, run_case(Case(scenario, seed, given.fault, visit))[1]
        else:
            cases, new = explore(scenario, seed, faults=given.faults)
        count, failed = count + cases, failed + new
    for each in failed:
        print(each)
    print(f"{count} cases, {len(failed)} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
