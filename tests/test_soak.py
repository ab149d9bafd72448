"""The soak's own judgement, on figures made up for it; and a short run of it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from soak import MIB, Outcome, Sample, grown_memory, is_failure
from soak_devices import Tally, onset_frame, percentiles

from listenai.audio import FRAME_SAMPLES
from listenai.telemetry.logs import JsonFormatter

SCRIPTS = Path(__file__).parents[1] / "scripts"
BEFORE = Sample(0.0, 70 * MIB, 50 * MIB, threads=3, files=10, cpu_seconds=1.0)


def course(*uss_mib: float, seconds: float = 600.0) -> list[Sample]:
    """Samples at even distances until the end, with so much memory."""
    step = seconds / len(uss_mib)
    return [
        attrs.evolve(BEFORE, at=(number + 1) * step, uss=int(size * MIB))
        for number, size in enumerate(uss_mib)
    ]


def outcome(
    tally: Tally | None = None,
    samples: Sequence[Sample] = (),
    after: Sample | None = BEFORE,
    log: Sequence[str] = (),
) -> Outcome:
    return Outcome(tally or Tally(), samples, BEFORE, after, log)


def test_a_healthy_run_has_no_problems() -> None:
    """Errors that garbage earns are none, nor is memory taken while the server warms up."""
    tally = Tally(turns=100)
    tally.errors["INVALID_MESSAGE"] = 17
    samples = course(*[50] * 20, *[100] * 180)  # warm after a minute
    assert outcome(tally, samples).problems() == []


def internal_error() -> Tally:
    tally = Tally()
    tally.errors["INTERNAL_ERROR"] = 2
    return tally


PROBLEMS = {
    "violation": (outcome(Tally(violations=["no audio after flush: 9 samples"])), "audio after fl"),
    "bug told": (outcome(internal_error()), "INTERNAL_ERROR was told 2 times"),
    "bug logged": (outcome(log=["2026 ERROR connection_failed"]), "connection_failed"),
    "leak": (outcome(samples=course(*[100 + n / 10 for n in range(200)])), "memory grew from 10"),
    "threads": (outcome(after=attrs.evolve(BEFORE, threads=4)), "threads: 4 when all devices"),
    "files": (outcome(after=attrs.evolve(BEFORE, files=11)), "files: 11 when all devices"),
    "death": (outcome(after=None), "the server died"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_wrong_is_told(name: str) -> None:
    """Each of the things a soak is for, and that alone."""
    run, told = PROBLEMS[name]
    [problem] = run.problems()
    assert told in problem
    assert run.figures()["problems"] == [problem]


def test_memory_is_compared_after_the_warm_up() -> None:
    """A minute of a long run, a quarter of a short one; medians, not single moments."""
    assert grown_memory(course(*[10] * 19, *[100] * 81, *[110] * 100)) == (100 * MIB, 110 * MIB)
    short = course(*[10] * 4, *[100] * 5, 400, *[100] * 10, seconds=20)
    assert grown_memory(short) == (100 * MIB, 100 * MIB)
    assert grown_memory([]) is None


def _as_json(level: int) -> str:
    """A line as the server really logs it."""
    return JsonFormatter().format(logging.LogRecord("x", level, "", 1, "failed", None, None))


@pytest.mark.parametrize(
    ("line", "failed"),
    [
        ("2026-01-01 10:00:00,000 ERROR listenai.server.front_door connection_failed", True),
        (_as_json(logging.ERROR), True),
        (_as_json(logging.WARNING), False),
        ("Traceback (most recent call last):", True),
        ("2026-01-01 10:00:00,000 WARNING listenai.conversation device_stalled", False),
    ],
)
def test_bugs_in_the_log_are_noticed(line: str, failed: bool) -> None:
    """Warnings are about devices."""
    assert is_failure(line) is failed


def test_percentiles_are_of_all_values() -> None:
    """And none of nothing."""
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {"p50": 51, "p99": 100, "n": 100}
    assert percentiles([]) == {"n": 0}


def test_speech_begins_after_the_silent_margin() -> None:
    """In the frame of the first sample that is more than silence."""
    samples = [0] * FRAME_SAMPLES + [20] * FRAME_SAMPLES + [0, -500]
    pcm = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
    assert onset_frame(pcm) == 2


@pytest.mark.slow
@pytest.mark.engines
def test_four_devices_leave_a_server_healthy() -> None:
    """A quarter of a minute: turns are taken, garbage is refused, nothing is left."""
    command = [sys.executable, str(SCRIPTS / "soak.py"), "--minutes", "0.25", "--devices", "4"]
    command += ["--fake-engines", "--json", "--seed", "5"]  # one of those with garbage at once
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    figures = json.loads(done.stdout)
    assert figures["problems"] == []
    assert {"ask", "interrupt", "send_garbage"} <= figures["done"].keys()
    assert figures["turns"] >= 3
    assert figures["interrupted"] >= 1
    assert figures["errors"]["INVALID_MESSAGE"] >= 1
    assert figures["voice_to_voice_ms"]["n"] >= 1
    assert figures["after"]["files"] <= figures["before"]["files"]
    assert 14 <= figures["seconds"] <= 16


@pytest.mark.slow
@pytest.mark.engines
def test_ctrl_c_ends_a_run_with_its_figures() -> None:
    """Early, and no server is left behind."""
    command = [sys.executable, str(SCRIPTS / "soak.py"), "--minutes", "5", "--devices", "1"]
    with subprocess.Popen(
        [*command, "--fake-engines", "--json", "--seed", "3"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stderr
        assert " s  rss " in run.stderr.readline()  # ten seconds
        run.send_signal(signal.SIGINT)
        printed, said = run.communicate(timeout=30)
    assert run.returncode == 0, said
    assert "Traceback" not in said
    figures = json.loads(printed)
    assert 9 <= figures["seconds"] <= 12
