#!/usr/bin/env python
"""Many devices live on one server for a while, well and badly behaved; does it stay healthy?

    scripts/soak.py --minutes 10 --devices 20

Starts a server as a child process.  Its devices speak about 30 % of the time: they ask,
listen, interrupt, press the button, type, leave or crash in mid reply, come back, stop
reading for a while, and send garbage; what they do depends on the seed alone, when it
happens on the machine too.  Every 10 s a line says how the server is.  Ctrl-C ends the run
early, with all its figures.

Exit status 1: the server died or logged a failure, a law of audio was broken, somebody was
told INTERNAL_ERROR, memory grew, or threads or files were left behind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import psutil
import trio
from soak_devices import Tally, VirtualDevice, percentiles

from listenai.client.microphone import to_microphone
from listenai.wav import read_wav

SPEECH = Path(__file__).parents[1] / "tests" / "data"
FAKE_SPEECH_MS = 4000  # of the engines that only take time: long enough to be interrupted

LINE_SECONDS = 10.0
SAMPLE_SECONDS = 0.5
WARM_SECONDS = 60.0  # or WARM_SHARE of the run where that is less
WARM_SHARE = 0.25
WINDOW_SECONDS = 30.0  # memory is the median over this long, or WARM_SHARE of the run
ALLOWED_GROWTH = 0.05
SETTLE_SECONDS = 15.0  # after the devices have left; Trio keeps idle threads for 10 s
START_SECONDS = 30.0
STOP_SECONDS = 5.0
MOST_MINUTES, MOST_DEVICES = 24 * 60, 90  # a server takes 100 connections unless told otherwise
MIB = 1 << 20

# --- what is counted -------------------------------------------------------------------------


@attrs.frozen
class Sample:
    """The server at one moment; memory in bytes."""

    at: float  # seconds since the devices began
    rss: int
    uss: int  # what the machine would get back
    threads: int
    files: int
    cpu_seconds: float


def take_sample(server: psutil.Process, at: float) -> Sample:
    """Raises psutil.NoSuchProcess when it has died."""
    memory, cpu = server.memory_full_info(), server.cpu_times()
    files, threads = server.num_fds(), server.num_threads()
    return Sample(at, memory.rss, memory.uss, threads, files, cpu.user + cpu.system)


def grown_memory(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """USS after the warm-up and at the end, in bytes; None: too few samples."""
    if not samples or (end := samples[-1].at) <= 0:
        return None
    window = min(WINDOW_SECONDS, WARM_SHARE * end)
    warm = min(WARM_SECONDS, WARM_SHARE * end)
    early = [sample.uss for sample in samples if warm <= sample.at <= warm + window]
    late = [sample.uss for sample in samples if sample.at >= end - window]
    return (statistics.median(early), statistics.median(late)) if early and late else None


@attrs.frozen
class Outcome:
    """A whole run."""

    tally: Tally
    samples: Sequence[Sample]  # while the devices lived
    before: Sample  # the first device came
    after: Sample | None  # the last one had left; None: the server had died
    log: Sequence[str]  # the server's lines at ERROR

    def problems(self) -> list[str]:
        """Why the server is not healthy."""
        found = [f"a law of audio was broken: {broken}" for broken in self.tally.violations[:10]]
        if count := self.tally.errors["INTERNAL_ERROR"]:
            found.append(f"INTERNAL_ERROR was told {count} times")
        found += [f"the server logged: {line}" for line in self.log[:10]]
        memory = grown_memory(self.samples)
        if memory and memory[1] > memory[0] * (1 + ALLOWED_GROWTH):
            early, late = (size / MIB for size in memory)
            found.append(f"memory grew from {early:.1f} to {late:.1f} MiB")
        if self.after is None:
            return [*found, "the server died"]
        for name in ("threads", "files"):
            had, has = getattr(self.before, name), getattr(self.after, name)
            if has > had:
                found.append(f"{name}: {has} when all devices had left, {had} before they came")
        return found

    def figures(self) -> dict[str, Any]:
        """Everything as JSON."""
        memory = grown_memory(self.samples)
        return {
            **self.tally.figures(),
            "seconds": self.samples[-1].at if self.samples else 0.0,
            "uss_mib_warm_and_end": [round(size / MIB, 1) for size in memory or ()],
            "before": attrs.asdict(self.before),
            "after": self.after and attrs.asdict(self.after),
            "samples": [attrs.asdict(sample) for sample in self.samples],
            "problems": self.problems(),
        }


def line_of(sample: Sample, before: Sample, tally: Tally) -> str:
    """How things are, in one line."""
    cpu = (sample.cpu_seconds - before.cpu_seconds) / max(sample.at, 0.1)
    voice, pause = percentiles(tally.voice_to_voice_ms), percentiles(tally.pause_ms)
    errors = " ".join(f"{code} {count}" for code, count in sorted(tally.errors.items()))
    return (
        f"{sample.at:6.0f} s  rss {sample.rss / MIB:.1f} uss {sample.uss / MIB:.1f} MiB"
        f"  cpu {cpu:.0%}  threads {sample.threads}  files {sample.files}"
        f"  turns {tally.turns} ({tally.interrupted} interrupted)"
        f"  unanswered {tally.unanswered.total()}"
        f"  voice-to-voice {voice.get('p50')}/{voice.get('p99')} ms"
        f"  pause {pause.get('p50')}/{pause.get('p99')} ms"
        f"  errors {errors or 'none'}  violations {len(tally.violations)}"
    )


# --- a run -----------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    *, fake: bool, log: BinaryIO, fake_speech_ms: int = FAKE_SPEECH_MS
) -> AsyncIterator[tuple[psutil.Process, str]]:
    """The server as a child process, and its URL; ended, by its own id, with the block."""
    command = [sys.executable, "-m", "listenai", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--fake-engines", "--fake-speech-ms", str(fake_speech_ms)] if fake else []
    # A session of its own: Ctrl-C is for us, and we end the server when the devices have left.
    child = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    )
    try:
        assert child.stdout
        printed = b""
        with trio.fail_after(START_SECONDS):
            while not (url := re.search(rb"ws://\S+", printed)):
                more = await child.stdout.receive_some()
                if not more:
                    raise RuntimeError("the server ended before it listened")
                printed += more
        yield psutil.Process(child.pid), url[0].decode()
    finally:
        with trio.move_on_after(STOP_SECONDS, shield=True):
            child.terminate()
            await child.wait()
        child.kill()


async def soak(
    *, seconds: float, devices: int, seed: int, fake: bool, show: Callable[[str], None]
) -> Outcome:
    """A run of so many devices; `show` gets a line every 10 s.  Ends early on Ctrl-C."""
    speech = {path.stem: to_microphone(read_wav(path)) for path in sorted(SPEECH.glob("*.wav"))}
    tally, samples = Tally(), []
    with tempfile.TemporaryFile() as log:
        async with serving(fake=fake, log=log) as (server, url):
            before, began = take_sample(server, 0.0), trio.current_time()
            with suppress(psutil.Error):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_on_ctrl_c, nursery.cancel_scope)
                    nursery.cancel_scope.deadline = began + seconds
                    for number in range(devices):
                        name = f"soak-{seed}-{number}"
                        device = VirtualDevice(name, url, random.Random(name), speech, tally)
                        nursery.start_soon(device.live)
                    await watch(server, samples, lambda s: show(line_of(s, before, tally)))
            after = await settle(server, before, began)
        log.seek(0)
        failures = [line for line in log.read().decode().splitlines() if is_failure(line)]
    return Outcome(tally, samples, before, after, failures)


async def watch(
    server: psutil.Process, samples: list[Sample], show: Callable[[Sample], None]
) -> None:
    """Takes samples until cancelled; raises psutil.Error when the server has died."""
    began = trio.current_time()
    for number in itertools.count(1):
        await trio.sleep_until(began + number * SAMPLE_SECONDS)
        samples.append(take_sample(server, trio.current_time() - began))
        if number % round(LINE_SECONDS / SAMPLE_SECONDS) == 0:
            show(samples[-1])


async def settle(server: psutil.Process, before: Sample, began: float) -> Sample | None:
    """The server after the last device has left it; None: it has died."""
    with trio.move_on_after(SETTLE_SECONDS), suppress(psutil.Error):
        while True:
            after = take_sample(server, trio.current_time() - began)
            if after.threads <= before.threads and after.files <= before.files:
                return after
            await trio.sleep(SAMPLE_SECONDS)
    with suppress(psutil.Error):
        return take_sample(server, trio.current_time() - began)
    return None


async def cancel_on_ctrl_c(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        scope.cancel()


def is_failure(line: str) -> bool:
    """Whether a line of the server's log tells of a bug."""
    return '"level": "ERROR"' in line or " ERROR " in line or line.startswith("Traceback")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long  [1]")
    parser.add_argument("--devices", type=int, default=4, help="how many  [4]")
    parser.add_argument("--seed", type=int, default=1, help="decides what they do  [1]")
    parser.add_argument("--fake-engines", action="store_true", help="that only take time")
    parser.add_argument("--json", action="store_true", help="print all figures at the end")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes <= MOST_MINUTES or not 1 <= given.devices <= MOST_DEVICES:
        parser.error(f"allowed are up to {MOST_MINUTES} minutes and {MOST_DEVICES} devices")
    outcome = trio.run(
        partial(
            soak,
            seconds=given.minutes * 60,
            devices=given.devices,
            seed=given.seed,
            fake=given.fake_engines,
            show=partial(print, file=sys.stderr if given.json else sys.stdout, flush=True),
        )
    )
    problems = outcome.problems()
    if given.json:
        print(json.dumps(outcome.figures(), indent=1))
    else:
        for name in ("done", "lost", "unanswered"):
            print(f"{name}:")
            for what, count in getattr(outcome.tally, name).most_common(20):
                print(f"  {count:5} {what}")
        print("after:", outcome.after)
    for problem in problems:
        print(f"soak: {problem}", file=sys.stderr)
    print("soak: failed" if problems else "soak: healthy", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
