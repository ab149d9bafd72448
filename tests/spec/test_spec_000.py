"""Spec 000, line by line: every line has its tests, or says what has to be built first.

The lines are read from the specification's text, the rows from `table.toml`; neither may have
one that the other lacks.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from listenai import events
from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from listenai.config import load
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.messages import CLIENT_MESSAGES
from listenai.dialects.reference import NOTICES
from listenai.errors import ErrorCode

HERE = Path(__file__).parent
SPEC = (HERE / "spec_000.txt").read_text("utf-8")

# Headings that say nothing: what is below them belongs to the heading above.
PLAIN_HEADINGS = {"Functionality", "Key Features", "Overview", "Complete Data Flow"}
# What is built completely: none of its lines may wait for something.
COMPLETE = (
    *("Session Management", "Protocol Layer", "Configuration Management"),
    *("Error Codes", "Error Handling Strategy", "Cloud Agent (WebSocket Server): Error Handling"),
    *("Server Configuration", "Backend Services", "MCP Configuration", "Audio Configuration"),
)
OUR_CODES = {"RATE_LIMITED", "UNAUTHORIZED"}


# --- reading -------------------------------------------------------------------------------


def lines_of(text: str) -> dict[str, list[str]]:
    """The lines that demand something, by their group: bullets, steps, rows of codes."""
    groups: dict[str, list[str]] = {}
    heading = group = ""
    in_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        elif in_code:
            continue
        elif found := re.fullmatch(r"#+ (.+)", line):
            heading = heading if found[1] in PLAIN_HEADINGS else found[1]
            group = ""
        elif found := re.fullmatch(r"- \*\*([^*]+)\*\*|\*{0,2}([A-Z][\w ]+)\*{0,2}:", line):
            group = found[1] or found[2]
        elif found := re.fullmatch(
            r"\s*(?:[\s-]*-|[0-9]+\.)\s+(.+)|\s{2,}(\S.+)|\| ([A-Z_]+) \|.*", line
        ):
            name = f"{heading}: {group}" if group else heading
            groups.setdefault(name, []).append(found[1] or found[2] or found[3])
    return groups


LINES = lines_of(SPEC)
TABLE: Mapping[str, Mapping[str, str]] = tomllib.loads((HERE / "table.toml").read_text("utf-8"))
LATER = TABLE["later"]
ROWS = {
    (group, line): value
    for group, rows in TABLE.items()
    if group != "later"
    for line, value in rows.items()
}


def known_tests() -> set[str]:
    """module::function of every test."""
    return {
        f"{path.stem}::{node.name}"
        for path in HERE.parent.rglob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    }


# --- the table -----------------------------------------------------------------------------


def test_the_specification_is_read() -> None:
    """Were nothing found in it, nothing would be missing from the table."""
    bullets = [line for line in SPEC.splitlines() if re.match(r"\s*(?:-|[0-9]+\.)\s", line)]
    groups = [line for line in bullets if re.fullmatch(r"- \*\*[^*]+\*\*", line)]
    more = len(LINES["Error Codes"]) + 1  # and one line of Audio Configuration lost its bullet
    assert sum(map(len, LINES.values())) == len(bullets) - len(groups) + more
    assert len(groups) == 73
    assert len(LINES["Error Codes"]) == 8
    assert LINES["Protocol Layer: Client to Server"][-1] == "**ping**: Connection health check"


def test_every_line_is_in_the_table_once() -> None:
    """As it is written; TOML refuses what is there twice."""
    groups = {group: lines for group, lines in LINES.items() if group not in LATER}
    wanted = [(group, line) for group, lines in groups.items() for line in lines]
    assert len(set(wanted)) == len(wanted)
    missing, strange = set(wanted) - set(ROWS), set(ROWS) - set(wanted)
    assert not missing, f"lines without a row: {sorted(missing)}"
    assert not strange, f"rows that are no lines, or waited for in [later]: {sorted(strange)}"
    assert set(LATER) <= set(LINES)


def test_every_row_names_tests_that_there_are_or_says_what_comes_first() -> None:
    known = known_tests()
    assert "test_spec_000::test_the_specification_is_read" in known
    for row, value in ROWS.items():
        if not value.startswith("later: "):
            assert value, row
            unknown = [name for name in value.split() if name not in known]
            assert not unknown, f"{row}: there is no {unknown}"
    reasons = [*LATER.values(), *(v[7:] for v in ROWS.values() if v.startswith("later: "))]
    assert all(len(reason) > 5 for reason in reasons)


def test_nothing_waits_in_what_is_complete() -> None:
    """Sections that are built have a test for every line."""
    assert all(any(group.startswith(name) for group in LINES) for name in COMPLETE)
    waiting = [row for row, value in ROWS.items() if value.startswith("later: ")]
    waiting += [(group, "") for group in LATER]
    assert not [row for row in waiting if row[0].startswith(COMPLETE)]


# --- lists that the specification gives whole ----------------------------------------------


def names_in(line: str) -> set[str]:
    """What is listed in a line's brackets."""
    return set(line.partition("(")[2].rstrip(")").split(", "))


def test_the_message_types_are_those_of_the_specification() -> None:
    """Ours are more, none is missing."""
    from_device, to_device, _ = LINES["Protocol Layer: Message Type Definitions"]
    assert names_in(from_device) <= set(CLIENT_MESSAGES)
    dialect = ListenAIDialect()
    sent = [dialect.send(example, 0.0)[0] for row in NOTICES.values() for example in row.examples]
    types = {found[1] for text in sent if (found := re.match(r'{"type":"(\w+)"', str(text)))}
    assert names_in(to_device) <= types
    assert set(NOTICES) == set(get_args(events.Notice))


def test_the_error_codes_are_those_of_the_specification() -> None:
    """And the two of ours."""
    assert set(LINES["Error Codes"]) | OUR_CODES == set(ErrorCode)


def test_the_variables_are_those_of_the_specification() -> None:
    """The list that the configuration is tested by is this one."""
    groups = ("Server Configuration", "Backend Services", "MCP Configuration")
    lines = [line for group in (*groups, "Audio Configuration") for line in LINES[group]]
    listed = (HERE / "spec_000_environment.txt").read_text("utf-8").splitlines()
    assert [line[2:] for line in listed if line.startswith("- ")] == lines
    known = {row.setting.variable for row in load({}).settings}
    assert {line.partition(":")[0] for line in lines} <= known


def test_audio_is_what_the_specification_says() -> None:
    """The frame of 512 bytes lasts 16 ms at 16 kHz; the settings allow nothing else."""
    settings = {row.setting.variable: row.value for row in load({}).settings}
    assert settings["AUDIO_SAMPLE_RATE"] == SAMPLE_RATE == 16_000
    assert settings["AUDIO_BITS_PER_SAMPLE"] == SAMPLE_BYTES * 8 == 16
    assert settings["AUDIO_CHANNELS"] == 1
    assert settings["AUDIO_FRAME_SIZE"] == FRAME_BYTES == 512
    assert FRAME_SAMPLES / SAMPLE_RATE == 0.016
