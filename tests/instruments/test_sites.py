"""A fault at every place where a task of a connection waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

import pytest
from instruments.cases import (
    ENGINE_ERRORS,
    Case,
    Fault,
    cases_of,
    explore,
    parametrize_seeds,
    run_case,
)
from instruments.scenarios import SCENARIOS
from instruments.sites import Site, Visit

SEEDS = 20  # of the full count
SAMPLE = 5  # cases of a scenario and seed in the quick test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_seeds(metafunc, SEEDS)


WAITING_WRITER = 1  # a seed under which no message finds room at once


def visits_of(name: str, seed: int = 0) -> list[Visit]:
    visits, _ = run_case(Case(SCENARIOS[name], seed))
    return visits


# --- the instrument ------------------------------------------------------------------------------


def test_sites_are_where_the_tasks_of_the_connection_wait():
    """Each by task and lines; those of the healthy neighbour are not among them."""
    visits = visits_of("tools", WAITING_WRITER)
    sites = {(visit.site.task, visit.site.lines[-1].split(":")[0]) for visit in visits}
    assert {
        ("_read", "conversation.py"),  # waiting for the device
        ("write", "writer.py"),  # waiting for the wire
        ("_ping", "conversation.py"),
        ("_drain", "conversation.py"),
        ("_expire_floor", "dialogue.py"),
        ("run", "listening.py"),
        ("think", "thinking.py"),
        ("think", "reply_writer.py"),
        ("speak", "speaking.py"),
        ("speak", "outbox.py"),
        ("speak", "turn.py"),
    } <= sites
    assert sum(visit.site.task == "_ping" for visit in visits) == 1


def test_engines_are_told_from_channels():
    """Chat model, voice and tool are waited for from outside; a channel's `send` is not."""
    calling = {visit.site.calling for visit in visits_of("tools", WAITING_WRITER)}
    assert {"", *ENGINE_ERRORS, "_receive", "write"} <= calling  # and the wire
    thinking = [v.site for v in visits_of("plain") if v.site.task == "think"]
    ends = {(site.lines[-1].split(":")[0], site.calling) for site in thinking}
    assert {("thinking.py", "_stream_reply"), ("reply_writer.py", "")} <= ends


def test_a_run_repeats_exactly_and_a_seed_is_an_order_of_tasks():
    """Else no failure could be found again."""
    assert visits_of("three-in-a-row", 1) == visits_of("three-in-a-row", 1)
    assert len({str(visits_of("three-in-a-row", seed)) for seed in range(4)}) > 1


def test_every_fault_is_tried_at_every_site_under_some_seed():
    """The seeds take turns with the kinds of fault."""
    scenario = SCENARIOS["plain"]
    tried: set[tuple[Site, Fault]] = set()
    always = {visit.site for visit in visits_of("plain")}  # some depend on the order of tasks
    for seed in range(SEEDS):
        cases = cases_of(scenario, seed, visits_of("plain", seed), faults=1)
        tried |= {(case.visit.site, case.fault) for case in cases if case.visit}
        always &= {case.visit.site for case in cases if case.visit}
    anywhere = set(Fault) - {Fault.NONE, Fault.ENGINE}
    assert len(always) > 30
    assert {(site, fault) for site in always for fault in anywhere} <= tried
    assert any(fault is Fault.ENGINE for _, fault in tried)


# --- the conversation ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_faults_at_some_sites(name: str, seed: int):
    """A sample of the full count."""
    _, failed = explore(SCENARIOS[name], seed, sample=SAMPLE)
    assert not failed, "\n".join(map(str, failed))


def _explore(name: str, seed: int) -> tuple[int, list[str]]:
    count, failed = explore(SCENARIOS[name], seed)
    return count, [str(each) for each in failed]


def explore_all(all_seeds: range | list[int]) -> Iterator[tuple[int, list[str]]]:
    """Every scenario under every seed, on all cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in SCENARIOS:
            yield from pool.map(_explore, repeat(name), all_seeds)


@pytest.mark.slow
def test_faults_at_every_site(all_seeds: range | list[int]):
    """Every scenario, every site, its first visit and a later one, under every seed."""
    found = [failure for _, failed in explore_all(all_seeds) for failure in failed]
    assert not found, f"{len(found)} failures:\n" + "\n".join(found[:20])
