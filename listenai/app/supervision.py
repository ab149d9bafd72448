"""A service that this server starts, watches, and starts again when it dies.

Whatever holds the GIL or imports torch runs in a process of its own.  It prints one line when
it listens, `listening: URL`; its port is the kernel's choice the first time and the same ever
after, so that whoever talks to it finds it again.  Its standard error is ours.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio

from listenai.errors import ConfigurationError

_log = logging.getLogger(__name__)

LISTENING = "listening: "
START_SECONDS = 300.0  # a large model is loaded from a slow disk
STOP_SECONDS = 5.0  # from SIGTERM to SIGKILL
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0  # before it is started again
STEADY_SECONDS = 60.0  # one that lived so long may be started again at once
LINE_BYTES = 4096  # of what it prints


@attrs.frozen
class ChildService:
    """How a service is started: `python -m listenai` and these arguments, and a port."""

    name: str
    arguments: Sequence[str]
    program: Sequence[str] = (sys.executable, "-m", "listenai")

    def command(self, port: int) -> list[str]:
        """What is run; port 0: any free one."""
        return [*self.program, *self.arguments, "--port", str(port), "--child"]


async def supervise(
    service: ChildService, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keeps the service running until cancelled; `task_status` reports its URL.

    Raises ConfigurationError when it does not come up the first time.
    """
    port, pause = 0, FIRST_PAUSE_SECONDS
    while True:
        began = trio.current_time()
        async with _running(service.command(port)) as process:
            url = await _listening_url(process)
            if not port:
                if url is None:
                    problem = f"the {service.name} service did not start: its own words are above"
                    raise ConfigurationError([problem])
                port = urlsplit(url).port or 0
                task_status.started(url)
            await _drain(process)
            status = await process.wait()
        _log.error("service_died: service=%s status=%d", service.name, status)
        if trio.current_time() - began > STEADY_SECONDS:
            pause = FIRST_PAUSE_SECONDS
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


@asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncIterator[trio.Process]:
    """The process, which has ended after the block.

    Its standard input is a pipe of ours: when we die, however suddenly, it reads the end of it
    and goes, too.
    """
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    async with process.stdin, process.stdout:
        try:
            yield process
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()
                with trio.move_on_after(STOP_SECONDS):
                    await process.wait()
                process.kill()
                await process.wait()


async def _listening_url(process: trio.Process) -> str | None:
    """What it says once it listens; None when it ends, or takes too long, without a word."""
    assert process.stdout
    printed = b""
    with trio.move_on_after(START_SECONDS):
        while data := await process.stdout.receive_some(LINE_BYTES):
            *lines, printed = (printed + data).split(b"\n")
            for line in lines:
                if line.startswith(LISTENING.encode()):
                    return line[len(LISTENING) :].decode().strip()
            printed = printed[:LINE_BYTES]
    return None


async def _drain(process: trio.Process) -> None:
    """Reads what else it prints, so that it is never stuck with it."""
    assert process.stdout
    while await process.stdout.receive_some(LINE_BYTES):
        pass
