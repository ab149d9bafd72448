"""How soon a fresh server accepts its first connection, and what it then takes: see README.md.

Starts `listenai serve` again and again, with bytecode of its own that the first start writes: what
is measured of the others is a start of an installed server, whatever Python was told before.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import click
from load import connect
from process import Server, started
from report import Row, table, write_json

SPEECH_MS = 600
POLL_SECONDS = 0.1
QUIET_CPU = 0.02  # of a core: nothing is loaded any more
MOST_SECONDS = 30.0  # for loading in the background
MOST_PACKAGES = 12
GOAL_READY_MS, GOAL_MIB = 1500, 200
HEADINGS = {
    "engines": "engines",
    "start": "start",
    "ready_ms": "ready ms",
    "cpu_ms": "CPU ms",
    "rss_mib": "RSS MiB",
    "pss_mib": "PSS MiB",
    "warm_ms": "warm ms",
    "warm_rss_mib": "warm RSS",
    "warm_pss_mib": "warm PSS",
    "waited": "waited",
    "package": "package",
    "modules": "modules",
    "import_ms": "import ms",
}
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")


def measure_start(engines: str, number: int, variables: Mapping[str, str]) -> Row:
    """From the process's start to its first accepted connection, then until it is quiet.

    The connection is a WebSocket whose handshake was answered; memory is read before it.
    """
    began = time.monotonic()
    name = "embedded" if engines == "embedded" else "listenai"
    with started(name, speech_ms=SPEECH_MS, core=None, variables=variables) as server:
        listening = server.usage()
        rss, pss = server.resident_kib()
        accepted, _ = connect(server.port)
        ready = time.monotonic() - began
        accepted.close()  # it has said nothing: no session, no ear
        row: Row = {
            "engines": engines,
            "start": number,
            "ready_ms": ready * 1e3,
            "cpu_ms": listening.cpu * 1e3,
            "rss_mib": rss / 1024,
            "pss_mib": pss / 1024,
            "waited": listening.waited / ready,
        }
        row["warm_ms"] = (_wait_quiet(server) - began) * 1e3
        rss, pss = server.resident_kib()
        return row | {"warm_rss_mib": rss / 1024, "warm_pss_mib": pss / 1024}


def measure_imports(variables: Mapping[str, str]) -> list[Row]:
    """What a server imports before it listens, by package; times of each one's own modules."""
    spent: dict[str, int] = defaultdict(int)
    modules: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryFile("w+") as told:
        command = [sys.executable, "-X", "importtime", "-m", "listenai", "serve"]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env={k: v for k, v in (os.environ | variables).items() if v},
        )
        with process:
            assert process.stdout
            for line in process.stdout:
                if "ws://" in line:
                    break
            process.terminate()
        told.seek(0)
        for microseconds, module in _IMPORT.findall(told.read()):
            package = module.partition(".")[0]
            spent[package] += int(microseconds)
            modules[package] += 1
    if not spent:
        raise click.ClickException("the server ended before it had imported anything")
    longest = sorted(spent, key=lambda package: -spent[package])[:MOST_PACKAGES]
    return [
        {"package": each, "modules": modules[each], "import_ms": spent[each] / 1e3}
        for each in longest
    ]


def _wait_quiet(server: Server) -> float:
    """When the process had stopped working; the time before the first quiet moment."""
    gives_up = time.monotonic() + MOST_SECONDS
    before = server.usage()
    while time.monotonic() < gives_up:
        time.sleep(POLL_SECONDS)
        usage = server.usage()
        if sum(usage.since(before)) < QUIET_CPU:
            return before.at
        before = usage
    raise click.ClickException(f"the server was busy for {MOST_SECONDS:g} s without a connection")


@click.command()
@click.option("--engines", type=click.Choice(["embedded", "timed"]), default="embedded")
@click.option("--starts", type=click.IntRange(1), default=5, help="After one that compiles.  [5]")
@click.option("--imports", is_flag=True, help="Show what was imported, by package.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(*, engines: str, starts: int, imports: bool, json_path: Path | None) -> None:
    """Milliseconds to the first accepted connection, and MiB before it and after loading."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        variables |= {"CLOUD_LOG_LEVEL": "WARNING"}
        rows = [measure_start(engines, number, variables) for number in range(starts + 1)]
        imported = measure_imports(variables) if imports else []
    click.echo(table(rows, HEADINGS))
    if imported:
        click.echo(table(imported, HEADINGS))
    best = min(row["ready_ms"] for row in rows[1:])
    most = max(row["warm_rss_mib"] for row in rows)
    click.echo(f"ready at best in {best:.0f} ms (goal {GOAL_READY_MS}); start 0 compiles")
    click.echo(f"at most {most:.0f} MiB without a connection (goal {GOAL_MIB})")
    if json_path:
        write_json(json_path, "start-up", [*rows, *imported])


if __name__ == "__main__":
    main()
