"""The configuration as text, JSON, and the tables of the README."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence

from listenai.config.loading import EffectiveSetting
from listenai.config.others import OTHER_VARIABLES, OtherVariable
from listenai.config.variables import Loaded, defaults

NO_EFFECT = "no effect yet"


def as_text(loaded: Loaded) -> str:
    """A line for each setting: variable, value, where it comes from."""
    rows = [("VARIABLE", "VALUE", "FROM", ""), *map(_row, loaded.settings)]
    widths = [max(_width(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*map(_pad, row[:3], widths), row[3]]).rstrip() for row in rows)


def _width(text: str) -> int:
    """In columns of a terminal: Chinese characters take two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _row(effective: EffectiveSetting) -> tuple[str, str, str, str]:
    value = effective.shown_value
    return (
        effective.setting.variable,
        value if value.isprintable() else repr(value),  # a line break would break the table
        effective.origin,
        NO_EFFECT if effective.setting.idle else "",
    )


def as_json(loaded: Loaded) -> str:
    """{"settings": [{"variable", "value", "from", "effect", "note"}], "warnings": [str]}.

    Values are as in `.env`, secrets masked; `effect` says whether this version uses it and
    `note` why not.
    """
    settings = [
        {
            "variable": effective.setting.variable,
            "value": effective.shown_value,
            "from": effective.origin,
            "effect": not effective.setting.idle,
            "note": effective.setting.idle,
        }
        for effective in loaded.settings
    ]
    return json.dumps(
        {"settings": settings, "warnings": loaded.warnings}, ensure_ascii=False, indent=2
    )


def as_markdown() -> str:
    """The README's tables: our variables, and those of other systems."""
    ours = _table(("variable", "default", "meaning", "allowed"), map(_our_cells, defaults()))
    others = _table(("variable", "spec", "effect"), map(_other_cells, OTHER_VARIABLES))
    return (
        f"{ours}\n\nVariables of the systems of specs 001, 002 and 004 are understood where they"
        f" mean the same,\nand named in a warning where they have no effect:\n\n{others}"
    )


def _our_cells(effective: EffectiveSetting) -> Sequence[str]:
    setting, default = effective.setting, effective.shown_value
    note = f"; **{NO_EFFECT}**: {setting.idle}" if setting.idle else ""
    return (
        f"`{setting.variable}`",
        f"`{default}`" if default else "",
        setting.meaning + note,
        setting.check.allowed,
    )


def _other_cells(other: OtherVariable) -> Sequence[str]:
    only_if = f", if it is {other.usable.allowed}" if other.usable else ""
    effect = f"sets `{other.sets}`{only_if}" if other.sets else f"none: {other.reason}"
    return f"`{other.variable}`", other.spec, effect


def _table(titles: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
