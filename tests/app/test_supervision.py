"""Services that the server starts and watches, with real processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import trio

from listenai.app.supervision import ChildService, supervise
from listenai.errors import ConfigurationError

# Listens on the port it is given, says so, and ends with its standard input.
SERVICE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
print("loading", flush=True)
print(f"listening: ws://127.0.0.1:{listener.getsockname()[1]}/x", flush=True)
sys.stdin.read()
"""


def service(tmp_path: Path, program: str = SERVICE) -> ChildService:
    script = tmp_path / "service.py"
    script.write_text(program)
    return ChildService("asr", [], (sys.executable, str(script)))


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if each.status() != "zombie"]


async def test_it_runs_as_long_as_it_is_watched(tmp_path: Path):
    """Its URL is known when it listens; afterwards nothing of it is left."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(supervise, service(tmp_path))
        assert url.startswith("ws://127.0.0.1:")
        assert len(children()) == 1
        nursery.cancel_scope.cancel()
    assert not children()


async def test_one_that_dies_is_started_again_on_the_same_port(tmp_path: Path):
    """However it dies."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(supervise, service(tmp_path))
        port = int(url.split(":")[2].split("/")[0])
        [first] = children()
        os.kill(first.pid, signal.SIGKILL)
        with trio.fail_after(20):
            while True:
                await trio.sleep(0.05)
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    continue
                await stream.aclose()
                break
        [second] = children()
        assert second.pid != first.pid
        nursery.cancel_scope.cancel()


async def test_one_that_cannot_start_is_a_problem_to_be_told(tmp_path: Path):
    """Its name is in it."""
    broken = service(tmp_path, "raise SystemExit(3)")
    with pytest.RaisesGroup(ConfigurationError, match=None) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervise, broken)
    assert "the asr service did not start" in str(caught.value.exceptions[0])


async def test_one_that_does_not_end_by_itself_is_killed(tmp_path: Path, monkeypatch):
    """It ignores SIGTERM and the end of its input."""
    monkeypatch.setattr("listenai.app.supervision.STOP_SECONDS", 0.2)
    stubborn = SERVICE.replace("sys.stdin.read()", "import time\nwhile True: time.sleep(9)")
    ignoring = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + stubborn
    async with trio.open_nursery() as nursery:
        await nursery.start(supervise, service(tmp_path, ignoring))
        nursery.cancel_scope.cancel()
    assert not children()
