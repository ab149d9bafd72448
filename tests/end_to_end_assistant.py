"""The whole server as a configuration makes it: in this process, or as one of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from listenai.app import open_engines, serve
from listenai.config import Config
from listenai.conversation.dialogue import Engines

TESTS = Path(__file__).parent
START_SECONDS = 20.0


@attrs.frozen
class Assistant:
    """A running server."""

    url: str  # for devices
    http: str  # without a slash at the end
    told: Sequence[str] = ()  # which engines were chosen, and why


@asynccontextmanager
async def open_assistant(
    change: Callable[[Engines], Engines] = lambda engines: engines,
    *,
    fake: bool = False,
    **settings: Any,
) -> AsyncIterator[Assistant]:
    """A server in this process; `settings` are fields of Config, `change` may swap engines."""
    config = Config(**{"host": "127.0.0.1", "port": 0, **settings})
    told: list[str] = []
    opening = open_engines(config, fake=fake, tell=lambda choice: told.append(str(choice)))
    async with opening as engines, open_server(config, change(engines)) as server:
        yield attrs.evolve(server, told=told)


@asynccontextmanager
async def open_server(config: Config, engines: Engines) -> AsyncIterator[Assistant]:
    """A server with engines that others may use too."""
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve, config, engines)
        yield Assistant(address.url("ws") + "/", address.url("http"))
        nursery.cancel_scope.cancel()


# --- as processes --------------------------------------------------------------------------


@attrs.frozen
class Running:
    """A process that has printed what was waited for."""

    process: trio.Process
    printed: str


@asynccontextmanager
async def open_processes() -> AsyncIterator[trio.Nursery]:
    """A nursery for processes; they are killed at the end."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def start(
    processes: trio.Nursery, arguments: Sequence[str], ready: str, log: Path, **variables: str
) -> Running:
    """Python with these arguments, once its output matches `ready`.

    It runs beside `log`, which gets its standard error, with no other settings of ours.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), **variables}
    with log.open("ab") as errors:
        run = partial(
            trio.run_process,
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
            env=environment,
            cwd=log.parent,
            deliver_cancel=_kill,
        )
        process = await processes.start(run)
    with trio.fail_after(START_SECONDS):
        printed = ""
        while not re.search(ready, printed):
            part = await process.stdout.receive_some()
            assert part, f"ended with {await process.wait()}: see {log}"
            printed += part.decode()
    return Running(process, printed)


async def _kill(process: trio.Process) -> None:
    process.kill()


async def start_assistant(processes: trio.Nursery, log: Path, **variables: str) -> Assistant:
    """`python -m listenai serve` with these environment variables."""
    command = ["-m", "listenai", "serve", "--host", "127.0.0.1", "--port", "0"]
    printed = (await start(processes, command, r"ws://\S+/ ", log, **variables)).printed
    [url] = re.findall(r"ws://\S+", printed)
    [http] = re.findall(r"http://localhost:\d+(?=/\n)", printed)
    return Assistant(url, http, printed.splitlines())


async def start_model(
    processes: trio.Nursery, log: Path, *options: str
) -> tuple[trio.Process, str]:
    """The stand-in for a language model's server as a process, and its URL."""
    command = [str(TESTS / "openai_server.py"), *options]
    model = await start(processes, command, r"http://\S+\n", log)
    return model.process, model.printed.strip()
