"""Spoken turns through the real FunASR and the real VoxCPM, each in a process of its own.

The checkpoints are tiny ones made here: whatever is said, Fun-ASR-Nano hears the words wired into
it, and VoxCPM says noise whose length is that of its text.  `serve` starts both processes itself.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import psutil
import pytest
import trio
from end_to_end_server import recording
from openai_server import OpenAIServer, open_openai_server, saying
from served import ServerProcess

from listenai.client.device import Device
from listenai.client.turns import Reply
from listenai.telemetry.loop import watch_loop

pytestmark = [
    pytest.mark.models,
    pytest.mark.engines,
    pytest.mark.slow,
    # The packages warn about themselves and each other while the checkpoints are built.
    *(
        pytest.mark.filterwarnings(f"ignore::{category}")
        for category in ("DeprecationWarning", "FutureWarning", "UserWarning", "SyntaxWarning")
    ),
]

WORDS = (" what", " time", " is", " it")
HEARD = "what time is it"
ANSWER = "Noon."
# VoxCPM's bound for a text of so many tokens, here letters and a blank before them.
ANSWER_SECONDS = (6 * len("_" + ANSWER) + 10) * 0.08
KEPT = ("PATH", "HOME", "PYTHONPATH")  # of our environment
COMMAND = [sys.executable, "-m", "listenai", "serve", "--host", "127.0.0.1", "--port", "0"]
QUESTION = "stop.wav"  # other words than are heard: nothing but the model can have heard them
LOAD_SECONDS = 120.0  # for torch twice, on a busy machine
RETURN_SECONDS = 90.0  # in which a process that died has been started again and has loaded
END_SECONDS = 20.0
LATE_SECONDS = 0.02
LOOKS = "listenai_loop_lag_seconds"  # how late the server's loop was, each time somebody looked
# Where one look in a hundred of this process is later than this, the machine is too busy for
# lateness to say anything about the server.
IDLE_SECONDS = 0.01


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for MODELS_DIR with both checkpoints, by our names for the models."""
    for package in ("torch", "funasr", "kaldi_native_fbank", "soxr", "einops"):
        pytest.importorskip(package, reason=f"{package} is missing: see scripts/test.sh")
    from listenai.engines.voxcpm_model import _provide_torchaudio

    _provide_torchaudio()  # which importing the package needs
    pytest.importorskip("voxcpm", reason="voxcpm is missing: see scripts/test.sh")
    from engines.tiny_models import tiny_funasr, tiny_voxcpm

    folder = tmp_path_factory.mktemp("models")
    tiny_funasr.build_nano(folder / "fun-asr-nano", WORDS)
    tiny_voxcpm.build_voxcpm(folder / "voxcpm-0.5b")
    return folder


@attrs.frozen
class Assistant:
    """A server with its two models, and the language model that it asks."""

    server: ServerProcess
    chat_model: OpenAIServer

    def services(self) -> Mapping[str, psutil.Process]:
        """The processes that the server has started, by their stage."""
        children = psutil.Process(self.server.process.pid).children()
        return {child.cmdline()[3]: child for child in children if is_alive(child)}

    async def ask(self, device: Device, timeout: float = 60.0) -> Reply:
        """A spoken question's answer: the words come from one model, the sound from the other."""
        await device.speak(recording(QUESTION))
        reply = await device.wait_reply(timeout)
        assert reply.transcript == HEARD == self.chat_model.requests[-1].last_text
        assert reply.text == ANSWER
        assert len(reply.audio) == pytest.approx(ANSWER_SECONDS * reply.sample_rate * 2, rel=0.01)
        assert reply.level_dbfs > -80  # noise, not silence
        assert not device.log.violations
        return reply


@asynccontextmanager
async def assistant(models: Path, directory: Path) -> AsyncIterator[Assistant]:
    """Both models are loaded; the server is killed at the end if it still runs."""
    async with (
        open_openai_server(usual=saying(ANSWER)) as chat_model,
        trio.open_nursery() as nursery,
    ):
        kept = {name: value for name, value in os.environ.items() if name in KEPT}
        settings = {
            "MODELS_DIR": str(models),
            "ASR_ENGINE": "funasr",
            "TTS_ENGINE": "voxcpm",
            "TTS_INFERENCE_TIMESTEPS": "1",
            "OMP_NUM_THREADS": "1",  # threads that spin for each other take turns on few cores
            "LLM_BASE_URL": chat_model.url,
        }
        run = partial(
            trio.run_process,
            COMMAND,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            cwd=directory,
            env=kept | settings,
            deliver_cancel=_kill,
        )
        process: trio.Process = await nursery.start(run)
        server = ServerProcess(0, process=process)
        nursery.start_soon(server.read_log)
        with trio.fail_after(LOAD_SECONDS):
            server.port = await _printed_port(process)
            while b"asr_service_ready" not in server.logged:  # noqa: ASYNC110 - not ours
                await trio.sleep(0.05)
        yield Assistant(server, chat_model)
        nursery.cancel_scope.cancel()


async def _printed_port(process: trio.Process) -> int:
    assert process.stdout
    printed = b""
    while not (found := re.search(rb"http://localhost:(\d+)/", printed)):
        data = await process.stdout.receive_some()
        assert data, f"it ended with {await process.wait()}: {printed!r}"
        printed += data
    return int(found[1])


async def _kill(process: trio.Process) -> None:
    process.kill()


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def wait_gone(processes: Mapping[str, psutil.Process]) -> None:
    """Until none of them runs any more."""
    with trio.fail_after(END_SECONDS):
        while any(map(is_alive, processes.values())):  # noqa: ASYNC110 - not ours
            await trio.sleep(0.02)


@attrs.frozen
class Lateness:
    """How late a loop was: the looks at it that found it at most so many seconds late."""

    within: Mapping[float, float]  # seconds, infinity last -> looks

    @classmethod
    def between(cls, before: Mapping[str, float], after: Mapping[str, float]) -> Lateness:
        """Of a server, from two readings of its metrics."""
        bound = re.compile(rf'{LOOKS}_bucket{{le="(.+)"}}')
        found = ((bound.fullmatch(name), name) for name in after)
        counts = {float(m[1]): after[name] - before[name] for m, name in found if m}
        return cls(dict(sorted(counts.items())))

    @property
    def looks(self) -> float:
        return self.within[math.inf]

    @property
    def late(self) -> float:
        """Of the looks, how many found it more than LATE_SECONDS late; 0 to 1."""
        return 1 - self.within[LATE_SECONDS] / self.looks

    def quantile(self, share: float) -> float:
        """This share of the looks found it at most so late: seconds, the bound of a bucket."""
        return next(bound for bound, count in self.within.items() if count >= share * self.looks)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def test_a_spoken_turn_through_models_that_do_not_hold_up_the_server(
    models: Path, tmp_path: Path
) -> None:
    """Its loop is not 20 ms late once in a hundred times; they end when it is told to.

    On a machine too busy to tell, it is late no more than a hundredth oftener than ours.
    """
    lags: list[float] = []  # of this process: on a busy machine whoever waits is late
    async with (
        assistant(models, tmp_path) as running,
        Device.connect(running.server.ws) as device,
        trio.open_nursery() as watching,
    ):
        services = running.services()
        assert set(services) == {"asr", "tts"}
        watching.start_soon(watch_loop, lags.append)
        worked = {name: cpu_seconds(process) for name, process in services.items()}
        before = await running.server.metrics()
        for _ in range(3):
            reply = await running.ask(device)
            assert not reply.errors
        after = await running.server.metrics()
        for name, process in services.items():
            assert cpu_seconds(process) > worked[name] + 0.05, f"{name} did nothing"
        lateness = Lateness.between(before, after)
        here = sorted(lags)[int(len(lags) * 0.99)]
        print(
            f"the server's loop was late by p50 <= {lateness.quantile(0.5) * 1000:g} ms,"
            f" p99 <= {lateness.quantile(0.99) * 1000:g} ms in {lateness.looks:g} looks;"
            f" this process's by p99 {here * 1000:.1f} ms in {len(lags)}"
        )
        assert lateness.looks > 100
        late_here = sum(lag > LATE_SECONDS for lag in lags) / len(lags)
        assert lateness.late < 0.01 + late_here, lateness
        if here < IDLE_SECONDS:
            assert lateness.quantile(0.99) <= LATE_SECONDS, lateness
        watching.cancel_scope.cancel()
        await running.server.end(signal.SIGTERM)
        assert running.server.process.returncode == 0
        await wait_gone(services)


async def test_a_model_that_dies_is_started_again_and_the_next_turn_works(
    models: Path, tmp_path: Path
) -> None:
    """What is said meanwhile is answered; and when the server itself is killed, they end, too."""
    async with assistant(models, tmp_path) as running, Device.connect(running.server.ws) as device:
        first = running.services()
        await running.ask(device)
        for process in first.values():
            os.kill(process.pid, signal.SIGKILL)
        await running.ask(device, RETURN_SECONDS)
        second = running.services()
        assert set(second) == {"asr", "tts"}
        assert all(second[name].pid != first[name].pid for name in first)
        reply = await running.ask(device)
        assert not reply.errors
        await running.server.end(signal.SIGKILL)
        await wait_gone(second)
