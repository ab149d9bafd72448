"""Every specification, line by line: each line has its tests, or says why it has none."""

from __future__ import annotations

import pytest
from spec_tables import WITHOUT_A_TEST, SpecTable, known_tests, read_spec

TABLES = {
    "000": "table.toml",
    "001": "table_001.toml",
    "002": "table_002.toml",
    "003": "table_003.toml",
    "004": "table_004.toml",
}


@pytest.fixture(params=TABLES)
def spec(request: pytest.FixtureRequest) -> SpecTable:
    return read_spec(request.param, TABLES[request.param])


def test_every_line_is_in_the_table_once(spec: SpecTable) -> None:
    """As it is written; TOML refuses what is there twice."""
    groups = {group: lines for group, lines in spec.lines.items() if group not in spec.later}
    wanted = {(group, line) for group, lines in groups.items() for line in lines}
    assert len(wanted) + sum(map(len, (spec.lines[group] for group in spec.later))) > 70
    missing, strange = wanted - set(spec.rows), set(spec.rows) - wanted
    assert not missing, f"lines without a row: {sorted(missing)}"
    assert not strange, f"rows that are no lines, or waited for in [later]: {sorted(strange)}"
    assert set(spec.later) <= set(spec.lines)


def test_every_row_names_tests_that_there_are_or_says_why_there_are_none(spec: SpecTable) -> None:
    known = known_tests()
    assert "test_spec_tables::test_every_line_is_in_the_table_once" in known
    reasons = list(spec.later.values())
    for row, value in spec.rows.items():
        if value.startswith(WITHOUT_A_TEST):
            reasons.append(value.partition(": ")[2])
            continue
        assert value, row
        unknown = [name for name in value.split() if name not in known]
        assert not unknown, f"{row}: there is no {unknown}"
    assert all(len(reason) > 5 for reason in reasons)
