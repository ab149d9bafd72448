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
from served import Served, serving_engines

from listenai.app import open_engines
from listenai.app.choices import Choice
from listenai.client.turns import Reply
from listenai.config import Config
from listenai.conversation.dialogue import Engines

TESTS = Path(__file__).parent
START_SECONDS = 20.0


def spoken_text(reply: Reply) -> str:
    """What was said aloud, as the server tells it sentence by sentence."""
    told = [event.message for event in reply.events if event.type == "tts_audio"]
    return " ".join(m["text"].strip() for m in told if m.get("state") == "sentence")


@asynccontextmanager
async def open_assistant(
    change: Callable[[Engines], Engines] = lambda engines: engines,
    *,
    fake: bool = False,
    tell: Callable[[Choice], None] = lambda _: None,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A server in this process, with the engines of its configuration.

    settings: fields of Config.  change: may swap engines.  tell: is told which were chosen.
    """
    config = Config(**{"host": "127.0.0.1", "port": 0, **settings})
    async with (
        open_engines(config, fake=fake, tell=tell) as engines,
        serving_engines(config, change(engines)) as server,
    ):
        yield server


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


async def start_assistant(
    processes: trio.Nursery, log: Path, **variables: str
) -> tuple[Served, str]:
    """`python -m listenai serve` with these environment variables, and what it has printed."""
    command = ["-m", "listenai", "serve", "--host", "127.0.0.1", "--port", "0"]
    server = await start(processes, command, r"ws://\S+/ ", log, **variables)
    [port] = re.findall(r"http://localhost:(\d+)/", server.printed)
    return Served(int(port)), server.printed


async def start_model(
    processes: trio.Nursery, log: Path, *options: str
) -> tuple[trio.Process, str]:
    """The stand-in for a language model's server as a process, and its URL."""
    command = [str(TESTS / "openai_server.py"), *options]
    model = await start(processes, command, r"http://\S+\n", log)
    return model.process, model.printed.strip()
