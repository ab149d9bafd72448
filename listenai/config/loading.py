"""Finds the value of each setting, every problem, and whatever was given without effect.

A value is looked for under its own name in the options, the environment and `.env`, then
under the names that other systems give it (`others`).  All problems are found before any is
reported, and nothing that was given is passed over in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from listenai.config.checks import Check
from listenai.config.masking import masked, shown
from listenai.config.others import OTHER_VARIABLES, OtherVariable
from listenai.config.sources import Given, Source, Sources, read_env_file
from listenai.errors import ConfigurationError

# A variable that begins like ours and is none is a slip of the pen.
_PREFIXES = ("CLOUD_", "ASR_", "TTS_", "LLM_", "MCP_", "AUDIO_", "HOTPIN_", "STREAM_")
_ALIKE = 0.8  # of 1: two slips in twenty letters are told, CLOUD_SDK_VERSION is not


@attrs.frozen
class Setting:
    """One of our variables."""

    variable: str
    default: Any
    check: Check
    meaning: str  # with the unit
    idle: str = ""  # why it has no effect in this version; empty: it has


@attrs.frozen
class EffectiveSetting:
    """One setting and where its value comes from."""

    setting: Setting
    value: Any
    source: Source = Source.DEFAULT
    given_as: str = ""  # another system's name for it

    @property
    def origin(self) -> str:
        """The source, and the name where it is another system's."""
        return f"{self.source} {self.given_as}".rstrip()

    @property
    def shown_value(self) -> str:
        """The value, secrets masked."""
        return shown(self.setting.variable, self.value)


def read_settings(
    table: Sequence[Setting],
    options: Mapping[str, str],
    environment: Mapping[str, str],
    env_file: Path | None,
) -> tuple[tuple[EffectiveSetting, ...], tuple[str, ...]]:
    """The settings in the table's order, and warnings about what has no effect.

    options: by variable.  Raises ConfigurationError that names every problem.
    """
    problems: list[str] = []
    in_file = read_env_file(env_file, problems) if env_file else {}
    sources = Sources(options, environment, in_file)
    settings = tuple(_read(setting, sources, problems) for setting in table)
    by_variable = {row.setting.variable: row for row in settings}
    problems += _contradictions(by_variable)
    if problems:
        raise ConfigurationError(problems)
    return settings, tuple(_warnings(by_variable, sources))


def _read(setting: Setting, sources: Sources, problems: list[str]) -> EffectiveSetting:
    given = _find(setting.variable, sources)
    if given is None:
        return EffectiveSetting(setting, setting.default)
    other = given.variable if given.variable != setting.variable else ""
    try:
        value = setting.check.read(given.text)
    except ValueError:
        value = None  # nobody sees it: the problem is raised
        read_as = f" (read as {setting.variable})" if other else ""
        told = f"{given.variable}={masked(setting.variable, given.text)!r}{read_as}"
        where = " in .env" if given.source is Source.ENV_FILE else ""
        problems.append(f"{told}{where}: must be {setting.check.allowed}")
    return EffectiveSetting(setting, value, given.source, other)


def _find(variable: str, sources: Sources) -> Given | None:
    """Its own name goes before those of other systems, wherever they are given."""
    if given := sources.find(variable):
        return given
    others = (_usable(other, sources) for other in OTHER_VARIABLES if other.sets == variable)
    return next(filter(None, others), None)


def _usable(other: OtherVariable, sources: Sources) -> Given | None:
    given = sources.find(other.variable)
    if given is None or not given.text.strip():  # `NAME=` is how those systems leave it out
        return None
    if other.usable:
        try:
            other.usable.read(given.text)
        except ValueError:
            return None
    return given


def _contradictions(settings: Mapping[str, EffectiveSetting]) -> Iterator[str]:
    port, more = settings["CLOUD_PORT"].value, settings["CLOUD_EXTRA_PORTS"].value
    if port is not None and port in (more or ()):
        yield (
            f"CLOUD_EXTRA_PORTS={shown('CLOUD_EXTRA_PORTS', more)!r}: must be ports other than"
            f" CLOUD_PORT={port}, which is open anyway; leave it out"
        )


# --- what is said about what has no effect ---------------------------------------------------


def _warnings(taken: Mapping[str, EffectiveSetting], sources: Sources) -> Iterator[str]:
    for row in taken.values():
        if row.source is not Source.DEFAULT and row.setting.idle:
            name = row.setting.variable
            told = f"{row.given_as} (read as {name})" if row.given_as else name
            yield f"accepted, no effect yet: {told}: {row.setting.idle}"
    for other in OTHER_VARIABLES:
        given = sources.find(other.variable)
        if given is None or not given.text.strip():
            continue
        if other.reason:
            yield f"accepted, no effect: {other.variable}: {other.reason}"
        elif taken[other.sets].given_as != other.variable:
            yield f"not used: {other.variable}: {_why_not_used(other, taken[other.sets], sources)}"
    yield from _slips(taken, sources)


def _why_not_used(other: OtherVariable, row: EffectiveSetting, sources: Sources) -> str:
    if other.usable and _usable(other, sources) is None:
        return f"as {other.sets} it must be {other.usable.allowed}"
    return f"{other.sets} comes from {row.given_as or row.setting.variable} ({row.source})"


def _slips(known: Mapping[str, object], sources: Sources) -> Iterator[str]:
    """Names that begin like ours: in the environment there may be such of other programs."""
    names = [*known, *(other.variable for other in OTHER_VARIABLES)]
    for name in sources.names:
        if not name.upper().startswith(_PREFIXES) or name in names:
            continue
        if close := difflib.get_close_matches(name.upper(), names, n=1, cutoff=_ALIKE):
            yield f"unknown, no effect: {name}; did you mean {close[0]}?"
        elif name in sources.env_file:
            yield f"unknown, no effect: {name}"
