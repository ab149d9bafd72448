"""The tests of the conversation notice planted mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from instruments.mutants import MUTANTS, Mutant, is_caught


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_mistake_is_caught(mutant: Mutant, tmp_path: Path):
    """The test that is named for it fails on it."""
    assert is_caught(mutant, tmp_path, seeds=20)
