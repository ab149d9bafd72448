"""How many devices a server carries, and what it adds to every turn: see README.md.

Runs a server of its own with engines that only take time, plays speech to it from
many devices, and prints a row for each number of devices.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import click
from load import BINARY, Device, Diary, Run, masked_frame
from process import Server, Usage, started, usage_of
from report import Row, table
from speech import (
    Segment,
    UnusableSpeech,
    consult,
    make_loop,
    read_clip,
    regroup,
    speak,
)
from turns import interruptions, overheads, percentile

from listenai.audio import FRAME_SECONDS, SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.ten_vad import TenVadDetector
from listenai.wav import WavError

SPEECH_MS = {"latency": 600, "barge": 4000, "abrupt": 4000, "idle": 600}  # of a reply
BATCH = 20  # devices that lose power together
SPEAKING_SECONDS = 0.3  # into the reply they lose it
SETTLE_SECONDS = 1.0  # for what a server does when devices leave
WATCH_SECONDS = 5.0  # over which idle connections' CPU is measured
FRAME_MS = round(FRAME_SECONDS * 1000)
LISTENED_BYTES = SAMPLE_RATE  # half a second of silence: the detector has touched its memory


@attrs.frozen
class Bench:
    """One server under one kind of load."""

    server: Server
    messages: Sequence[bytes]  # what a device plays again and again
    segments: Sequence[Segment]
    seconds: float
    message_seconds: float
    # Memory before the first device.  What a device has used is often not given back to the
    # system when it leaves, so that before a later run is no measure of what that run takes.
    fresh_kib: int = attrs.field(init=False)

    @fresh_kib.default
    def _fresh_kib(self) -> int:
        return self.server.memory_kib()

    @property
    def loop_seconds(self) -> float:
        """How long one round takes."""
        return len(self.messages) * self.message_seconds

    def latency(self, count: int) -> Row:
        """What the server adds to each turn."""
        row, diaries = self._play(count)
        found = overheads(diaries, self.segments)
        row |= {"turns": len(found.milliseconds), "missed": found.missed}
        return row | _percentiles("overhead", found.milliseconds)

    def barge(self, count: int) -> Row:
        """How soon speech over a reply stops it."""
        row, diaries = self._play(count)
        found = interruptions(diaries, self.segments)
        row |= {"turns": len(found.pause_ms), "missed": found.missed}
        row |= {"silent": found.silent, "stale_audio": found.stale_audio}
        return row | _percentiles("pause", found.pause_ms) | _percentiles("flush", found.flush_ms)

    def abrupt(self, count: int) -> Row:
        """What is left of devices that reset their connections in the middle of a reply."""
        row = self._row(count)
        series = [row["memory_kib"]]
        for killed in range(0, count, BATCH):
            devices = self._run().play(
                min(BATCH, count - killed), self.loop_seconds * 2, until=_all_hear, stagger=0.01
            )
            _close(devices, reset=True)
            series.append(self.server.memory_kib())
        grown = (series[-1] - series[1]) / (len(series) - 2) if len(series) > 2 else None
        return row | {
            "memory_series_kib": series,
            "memory_per_batch_kib": grown,  # the first batch warms caches, and does not count
            "threads_after": self.server.threads(),
            "files_after": self.server.files(),
        }

    def idle(self, count: int) -> Row:
        """What a connection costs that listens to nobody."""
        row = self._row(count)
        silence = masked_frame(BINARY, bytes(LISTENED_BYTES))
        devices = []
        for _ in range(count):
            device = Device(self.server.port)
            device.socket.send(silence)
            devices.append(device)
        time.sleep(SETTLE_SECONDS * 2)
        row["memory_per_device_kib"] = (self.server.memory_kib() - self.fresh_kib) / count
        before = self.server.usage()
        time.sleep(WATCH_SECONDS)
        row["cpu"], row["waited"] = self.server.usage().since(before)
        row["cpu_per_device"] = row["cpu"] / count
        _close(devices)
        return row

    def warm_up(self) -> None:
        """One turn that does not count: imports, caches.  ClickException when it fails."""
        devices = self._run().play(1, self.loop_seconds * 1.5)
        heard = {kind: len(times) for kind, times in devices[0].diary.heard.items()}
        _close(devices)
        if "audio" not in heard or "error" in heard:
            raise click.ClickException(f"the server gave no answer to a sentence, only: {heard}")

    def _play(self, count: int) -> tuple[Row, list[Diary]]:
        """The row's common figures, and what the devices noted."""
        row = self._row(count)
        steady: list[tuple[Usage, Usage]] = []
        run = self._run()
        devices = run.play(count, self.seconds, steady=lambda: steady.append(self._usages()))
        [(server_before, own_before)] = steady
        server, own = self._usages()
        row["cpu"], row["waited"] = server.since(server_before)
        row["generator_cpu"], row["generator_waited"] = own.since(own_before)
        row["cpu_per_device"] = row["cpu"] / count
        row["memory_per_device_kib"] = (self.server.memory_kib() - self.fresh_kib) / count
        row["late_p99_ms"] = (percentile(run.lateness, 99) or 0.0) * 1e3
        diaries = [device.diary for device in devices]
        row["gone"] = sum(diary.gone for diary in diaries)
        row["errors"] = sum(len(diary.heard["error"]) for diary in diaries)
        _close(devices)
        return row, diaries

    def _usages(self) -> tuple[Usage, Usage]:
        return self.server.usage(), usage_of(os.getpid())

    def _row(self, count: int) -> Row:
        return {
            "server": self.server.name,
            "devices": count,
            "seconds": self.seconds,
            "message_ms": round(self.message_seconds * 1000),
            "load": os.getloadavg()[0],
            "memory_kib": self.server.memory_kib(),
            "threads": self.server.threads(),
            "files": self.server.files(),
        }

    def _run(self) -> Run:
        frames = [masked_frame(BINARY, message) for message in self.messages]
        marks = {at for segment in self.segments for at in (segment.suspected, segment.ended)}
        return Run(self.server.port, frames, marks, self.message_seconds)


def _percentiles(name: str, values: Sequence[float]) -> Row:
    return {f"{name}_p{percent}_ms": percentile(values, percent) for percent in (50, 90, 99, 100)}


def _all_hear(diaries: Sequence[Diary]) -> bool:
    """Whether every device that is left has heard its reply for a while."""
    now = time.monotonic()
    return all(
        diary.gone or (diary.heard["audio"] and now - diary.heard["audio"][0] > SPEAKING_SECONDS)
        for diary in diaries
    )


def _close(devices: Sequence[Device], *, reset: bool = False) -> None:
    for device in devices:
        device.close(reset=reset)
    time.sleep(SETTLE_SECONDS)


def _hold_generator(core: int | None) -> None:
    """Keeps the generator off the server's core, where there is another."""
    others = os.sched_getaffinity(0) - {core}
    if core is not None and others:
        os.sched_setaffinity(0, others)


def _be_nice(nice: int) -> None:
    """The priority of this process and of the server, which inherits it."""
    os.nice(nice)
    # Where Linux groups processes by session, priorities count inside a group only.
    autogroup = Path("/proc/self/autogroup")
    if nice and autogroup.exists():
        autogroup.write_text(str(nice))


def _numbers(_context: Any, _parameter: Any, value: str) -> list[int]:
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{value!r}: numbers of 1 or more, like 1,10,100")
    return numbers


@click.command(help=__doc__)
@click.option("--mode", default="latency", type=click.Choice(list(SPEECH_MS)), show_default=True)
@click.option("--n", "counts", default="1,10,25", callback=_numbers, show_default=True)
@click.option("--secs", default=20.0, help="Length of each run.", show_default=True)
@click.option(
    "--message-ms",
    default=16,
    type=click.IntRange(1, 1000),
    help="Of audio in a message.",
    show_default=True,
)
@click.option("--core", type=int, help="Hold the server to this core, the generator to others.")
@click.option("--nice", default=0, help="Priority of both; below 0 needs root.", show_default=True)
@click.option("--repeat", default=1, help="Do everything so often.", show_default=True)
@click.option("--reference", is_flag=True, help="Measure the smallest server beside it.")
@click.option("--speech", type=click.Path(path_type=Path), help="A sentence; mono 16 kHz WAV.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(
    *,
    mode: str,
    counts: list[int],
    secs: float,
    message_ms: int,
    core: int | None,
    nice: int,
    repeat: int,
    reference: bool,
    speech: Path | None,
    json_path: Path | None,
) -> None:
    try:
        # The loop has whole frames of the detector and whole messages.
        whole = math.lcm(message_ms, FRAME_MS) // FRAME_MS
        loop = make_loop(read_clip(speech) if speech else speak(), whole=whole)
        with TenVadDetector() as detector:
            segments = consult(detector, loop, secs + 4 * loop.seconds)
    except (UnusableSpeech, WavError) as error:
        raise click.ClickException(str(error)) from error
    messages, segments = regroup(loop, segments, message_ms * SAMPLE_RATE // 1000 * SAMPLE_BYTES)
    _be_nice(nice)
    _hold_generator(core)
    rows: list[Row] = []
    for _ in range(repeat):
        for name in ("reference", "listenai") if reference else ("listenai",):
            with started(name, speech_ms=SPEECH_MS[mode], core=core) as server:
                click.echo(f"{name}: pid {server.pid}, port {server.port}", err=True)
                bench = Bench(server, messages, segments, secs, message_ms / 1000)
                bench.warm_up()
                measure: Callable[[int], Row] = getattr(bench, mode)
                for count in counts:
                    rows.append(measure(count))
                    click.echo(f"{name}: {count} devices measured", err=True)
    click.echo(table(rows))
    if json_path:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        document = {"mode": mode, "command": sys.argv[1:], "machine": machine, "rows": rows}
        json_path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
