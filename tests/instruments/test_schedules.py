"""The scenarios as they are, under many orders of tasks."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import pytest
from instruments.cases import Case, parametrize_seeds, run_case
from instruments.scenarios import SCENARIOS

SEEDS = 200  # of the full count


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_seeds(metafunc, SEEDS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_keeps_the_laws(name: str, seed: int):
    """And leaves exactly the history that it should."""
    _, failed = run_case(Case(SCENARIOS[name], seed))
    assert not failed, "\n".join(map(str, failed))


def _run(case: tuple[str, int]) -> list[str]:
    name, seed = case
    return [str(each) for each in run_case(Case(SCENARIOS[name], seed))[1]]


@pytest.mark.slow
def test_every_scenario_under_every_order_of_tasks(all_seeds: range | list[int]):
    """The full count."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        lists = pool.map(_run, product(SCENARIOS, all_seeds), chunksize=50)
        found = [failure for failed in lists for failure in failed]
    assert not found, f"{len(found)} failures:\n" + "\n".join(found[:20])
