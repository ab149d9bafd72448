"""The specifications' lines, and the tables that name the tests of each.

A line demands something: a bullet, a step, a row of codes.  Neither text nor table may have
one that the other lacks.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs

HERE = Path(__file__).parent / "spec"

# Headings that say nothing: what is below them belongs to the heading above.
PLAIN_HEADINGS = {"Functionality", "Key Features", "Overview", "Complete Data Flow"}
WITHOUT_A_TEST = ("later: ", "not ours: ")  # and then the reason


@attrs.frozen
class SpecTable:
    """A specification and its table."""

    text: str
    lines: Mapping[str, list[str]]  # by their group
    later: Mapping[str, str]  # groups of which nothing is built, and why
    rows: Mapping[tuple[str, str], str]  # (group, line) -> tests, or why there are none


def read_spec(number: str, table: str) -> SpecTable:
    """The specification of this number, and its table in this file."""
    text = (HERE / f"spec_{number}.txt").read_text("utf-8")
    groups = tomllib.loads((HERE / table).read_text("utf-8"))
    later = groups.pop("later", {})
    rows = {
        (group, line): value for group, lines in groups.items() for line, value in lines.items()
    }
    return SpecTable(text, lines_of(text), later, rows)


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


def known_tests() -> set[str]:
    """module::function of every test."""
    return {
        f"{path.stem}::{node.name}"
        for path in HERE.parent.rglob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    }
