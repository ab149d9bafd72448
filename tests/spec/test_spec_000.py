"""Spec 000: what is built completely, and the lists that it gives whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from spec_tables import read_spec

from listenai import events
from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from listenai.config import load
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.messages import CLIENT_MESSAGES
from listenai.dialects.reference import NOTICES
from listenai.errors import ErrorCode

HERE = Path(__file__).parent
# What is built completely: none of its lines may wait for something.
COMPLETE = (
    *("Session Management", "Protocol Layer", "Configuration Management"),
    *("Error Codes", "Error Handling Strategy", "Cloud Agent (WebSocket Server): Error Handling"),
    *("Server Configuration", "Backend Services", "MCP Configuration", "Audio Configuration"),
)
UNTOLD = {events.NothingUnderstood, events.VoiceNoticed, events.Answer}  # to other devices only
OUR_CODES = {"RATE_LIMITED", "UNAUTHORIZED"}


SPEC_000 = read_spec("000", "table.toml")
LINES = SPEC_000.lines


def test_the_specification_is_read() -> None:
    """Were nothing found in it, nothing would be missing from the table."""
    bullets = [
        line for line in SPEC_000.text.splitlines() if re.match(r"\s*(?:-|[0-9]+\.)\s", line)
    ]
    groups = [line for line in bullets if re.fullmatch(r"- \*\*[^*]+\*\*", line)]
    more = len(LINES["Error Codes"]) + 1  # and one line of Audio Configuration lost its bullet
    assert sum(map(len, LINES.values())) == len(bullets) - len(groups) + more
    assert len(groups) == 73
    assert len(LINES["Error Codes"]) == 8
    assert LINES["Protocol Layer: Client to Server"][-1] == "**ping**: Connection health check"


def test_nothing_waits_in_what_is_complete() -> None:
    """Sections that are built have a test for every line."""
    assert all(any(group.startswith(name) for group in LINES) for name in COMPLETE)
    waiting = [row for row, value in SPEC_000.rows.items() if value.startswith("later: ")]
    waiting += [(group, "") for group in SPEC_000.later]
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
    assert set(NOTICES) == set(get_args(events.Notice)) - UNTOLD


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
