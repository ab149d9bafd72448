"""Rows of figures as a table."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

Row = dict[str, Any]

_HEADINGS: Mapping[str, str] = {  # of a row's figures, in the order of the columns
    "server": "server",
    "devices": "N",
    "turns": "turns",
    "missed": "missed",
    "silent": "silent",
    "stale_audio": "stale",
    "errors": "errors",
    "gone": "gone",
    "overhead_p50_ms": "p50 ms",
    "overhead_p90_ms": "p90 ms",
    "overhead_p99_ms": "p99 ms",
    "overhead_p100_ms": "max ms",
    "pause_p50_ms": "pause p50",
    "pause_p99_ms": "p99 ms",
    "flush_p50_ms": "flush p50",
    "flush_p99_ms": "p99 ms",
    "cpu_per_device": "CPU/device",
    "cpu": "CPU",
    "memory_per_device_kib": "KiB/device",
    "memory_series_kib": "KiB after each batch",
    "memory_per_batch_kib": "KiB/batch",
    "threads": "threads",
    "threads_after": "then",
    "files": "files",
    "files_after": "then",
    "waited": "waited",
    "generator_cpu": "gen. CPU",
    "generator_waited": "gen. waited",
    "late_p99_ms": "late p99",
    "load": "load",
}


def table(rows: Sequence[Row], headings: Mapping[str, str] = _HEADINGS) -> str:
    """One line a row, with a column for each figure with a heading that some row has."""
    columns = [name for name in headings if any(name in row for row in rows)]
    cells = [[headings[name] for name in columns]]
    cells += [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


@contextmanager
def failing_plainly() -> Iterator[None]:
    """What a nursery made a group of comes out alone, so that click shows its message."""
    try:
        yield
    except BaseExceptionGroup as group:
        if isinstance(failure := first_of(group), click.ClickException):
            raise failure from group
        raise


def first_of(error: BaseException) -> BaseException:
    """The first exception of a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def write_json(path: Path, bench: str, rows: Sequence[Row]) -> None:
    """The rows with what they were measured by, and on."""
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    document = {"bench": bench, "command": sys.argv[1:], "machine": machine, "rows": rows}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"
    return "-" if value is None else str(value)
