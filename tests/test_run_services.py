"""`scripts/run.sh`: it installs what is missing and serves; `--services`: as four processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import psutil
import pytest
import trio
import trio.testing
from served import Served

from listenai.client.connection import ConnectionLost
from listenai.client.device import Device

pytestmark = [pytest.mark.engines, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
SECONDS = 40.0  # for any one thing that is waited for
STAGES = {"asr", "tts", "llm", "serve"}
AS_SERVICES = ("--services", "--host", "127.0.0.1")
PIP_LOG = "pip.log"
# This Python, for which everything is installed: it only notes what pip was to install.
PYTHON = """#!/bin/sh
case "$*" in
*"-m pip install"*) printf '%s\\n' "$*" >>"{log}" ;;
*) exec "{python}" "$@" ;;
esac
"""


def extras() -> str:
    """Those that `run.sh` wants, as it says itself."""
    [wanted] = re.findall(r"^extras=(\S+)$", (ROOT / "scripts/run.sh").read_text("utf-8"), re.M)
    return wanted


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts where everything is installed: this Python is that of its `.venv`."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    for name in ("scripts/run.sh", "scripts/environment.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(PYTHON.format(python=sys.executable, log=tmp_path / PIP_LOG), "utf-8")
    python.chmod(0o755)
    remember = f"source scripts/environment.sh; remember_installed {extras()}"
    subprocess.run(["bash", "-c", remember], cwd=tmp_path, check=True)
    return tmp_path


@attrs.define
class Script:
    """It and what it has started."""

    process: trio.Process
    checkout: Path
    printed: bytearray = attrs.field(factory=bytearray)
    stages: dict[str, psutil.Process] = attrs.field(factory=dict)

    async def wait_printed(self, pattern: bytes) -> str:
        """The first group of what it matches in what is printed."""
        with trio.fail_after(SECONDS):
            while not (found := re.search(pattern, self.printed)):
                part = await self.process.stdout.receive_some()
                assert part, self.printed
                self.printed += part
        return found[1].decode()

    def find_stages(self) -> None:
        """Which processes of ours it has."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # some live for a moment only
                command = child.cmdline()
                if "listenai" in command:
                    self.stages[command[command.index("listenai") + 1]] = child

    async def wait_end(self) -> int:
        """Its status, once it has ended; nothing of it is left, neither process nor file."""
        with trio.fail_after(SECONDS):
            async for part in self.process.stdout:  # until no process holds it
                self.printed += part
            status = await self.process.wait()
        assert [name for name, stage in self.stages.items() if stage.is_running()] == []
        assert list((self.checkout / "tmp").iterdir()) == []
        assert b"Traceback" not in self.printed
        return status


@asynccontextmanager
async def started(checkout: Path, *options: str) -> AsyncIterator[Script]:
    """`run.sh` with these options, as a terminal's own job; killed with all of its own at last."""
    command = ["bash", "scripts/run.sh", *options]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(checkout),
        "TMPDIR": str(checkout / "tmp"),
        "http_proxy": "http://127.0.0.1:9",  # not for our own services
    }
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            command,
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
        )
        script = Script(await nursery.start(run), checkout)
        try:
            yield script
        finally:
            for stage in script.stages.values():
                if stage.is_running():
                    stage.kill()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def ready(checkout: Path) -> AsyncIterator[tuple[Script, Served]]:
    """One whose server listens."""
    async with started(checkout, *AS_SERVICES, "--port", "0") as script:
        port = await script.wait_printed(rb"Devices connect to ws://localhost:(\d+)/ ")
        script.find_stages()
        assert script.stages.keys() == STAGES
        yield script, Served(int(port))


async def test_ctrl_c_ends_all_four_after_the_reply(checkout: Path):
    """Every stage is a service; what is being said when Ctrl-C is typed is said to its end."""
    async with ready(checkout) as (script, server):
        for stage in (rb"recognition", rb"synthesis"):
            await script.wait_printed(stage + rb": the service at (ws://127.0.0.1:\d+)")
        await script.wait_printed(rb"model: .* at (http://127.0.0.1:\d+/v1) ")
        async with Device.connect(server.ws) as device:
            await device.type_text("Turn on the kitchen light.")  # answered with two sentences
            turn, _ = await device.wait_sound(SECONDS)
            os.killpg(script.process.pid, signal.SIGINT)  # what a terminal does
            with trio.fail_after(SECONDS), suppress(ConnectionLost):
                await device.wait_until(lambda: False)  # it is the server that closes
        assert (turn.errors, turn.interrupted) == ([], None)
        told = [event.message for event in turn.events if event.type == "tts_audio"]
        assert " ".join(m["text"].strip() for m in told if m["state"] == "sentence") == turn.text
        assert told[-1]["state"] == "end"
        assert await script.wait_end() == 0


@pytest.mark.parametrize("stage", ["tts", "serve"])
async def test_when_one_ends_all_end(checkout: Path, stage: str):
    """It says which, and its status is an error."""
    async with ready(checkout) as (script, _):
        script.stages[stage].kill()
        assert await script.wait_end() == 128 + signal.SIGKILL
        said = b"the tts service ended (status 137): everything ends"
        assert (said in script.printed) == (stage == "tts")


async def test_ctrl_c_before_the_server_has_started(checkout: Path):
    """The services that are being started end, too."""
    async with started(checkout, *AS_SERVICES, "--port", "0") as script:
        with trio.fail_after(SECONDS):
            while len(script.stages) < 3:
                script.find_stages()
                await trio.testing.wait_all_tasks_blocked(0.01)
        os.killpg(script.process.pid, signal.SIGINT)
        assert await script.wait_end() == 130


async def test_a_server_that_cannot_start_ends_the_services(checkout: Path):
    """With its own words and status."""
    async with started(checkout, *AS_SERVICES, "--port", "many") as script:
        await script.wait_printed(rb"(CLOUD_PORT='many')")
        assert await script.wait_end() == 2


async def test_one_command_serves_devices_and_the_page(checkout: Path):
    """Nothing is installed where everything is; it says where the page and devices go."""
    async with started(checkout, "--host", "127.0.0.1", "--port", "0") as script:
        port = await script.wait_printed(rb"Devices connect to ws://localhost:(\d+)/ ")
        server = Served(int(port))
        page = await server.ask("/")
        assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
        async with Device.connect(server.ws) as device:
            await device.type_text("What is twelve times seven?")
            reply = await device.wait_reply(SECONDS)
        assert "84" in reply.text
        assert reply.audible
        script.process.send_signal(signal.SIGTERM)  # the script has become the server
        assert await script.wait_end() == 0
    assert not (checkout / PIP_LOG).exists()


async def test_what_is_missing_is_installed_once(checkout: Path):
    """With the pins of the lock file; again when the packages that are needed have changed."""
    (checkout / ".venv" / "installed").unlink()

    async def start_and_end() -> list[str]:
        log = checkout / PIP_LOG
        log.unlink(missing_ok=True)
        async with started(checkout, "--help") as script:
            await script.wait_printed(rb"(Usage): ")
            assert await script.wait_end() == 0
        return log.read_text("utf-8").splitlines() if log.exists() else []

    [installed] = await start_and_end()
    assert "-c requirements.lock" in installed
    assert installed.endswith(f"-e .[{extras()}]")
    assert await start_and_end() == []
    with (checkout / "requirements.lock").open("a", encoding="utf-8") as lock:
        lock.write("# another pin\n")
    assert await start_and_end() == [installed]
