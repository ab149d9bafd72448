"""Servers as devices meet them, in this process or as one of their own, and a device that obeys.

The device sends what a test says, and keeps everything that goes either way.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
from end_to_end_server import recording
from fakes import FakeChatModel, FakeSynthesizer
from trio_websocket import ConnectionClosed, WebSocketConnection

from listenai.app import open_engines, serve
from listenai.audio import FRAME_BYTES
from listenai.client.connection import open_socket
from listenai.config import Config
from listenai.conversation.dialogue import Engines

SECONDS = 15.0  # for any one answer
SILENCE = bytes(FRAME_BYTES * 60)  # 0.96 s: ends every segment
DEVICE = {"pause": True, "flush": True, "playback_reports": True, "echo": "cancelled"}


# --- a device ------------------------------------------------------------------------------


@attrs.define
class Peer:
    """One connection, and everything that went over it."""

    socket: WebSocketConnection
    got: list[dict[str, Any]] = attrs.field(factory=list)  # audio as type "audio"
    # Wire messages and their bytes, of each direction.
    sent_messages: int = 0
    sent_bytes: int = 0
    got_bytes: int = 0

    async def send(self, kind: str, **fields: Any) -> None:
        await self.send_raw(json.dumps({"type": kind, **fields}, ensure_ascii=False))

    async def send_raw(self, message: str | bytes) -> None:
        self.sent_messages += 1
        self.sent_bytes += size_of(message)
        await self.socket.send_message(message)

    async def speak(self, name: str, *, silence: bytes = SILENCE) -> None:
        """A recording and the silence after it, as fast as the server takes them."""
        pcm = recording(name) + silence
        for start in range(0, len(pcm), 8192):
            await self.send_raw(pcm[start : start + 8192])

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of this type with these values."""
        with trio.fail_after(SECONDS):
            while True:
                last = await self._receive()
                if last["type"] == kind and fields.items() <= last.items():
                    return last

    async def _receive(self) -> dict[str, Any]:
        message = await self.socket.get_message()
        self.got_bytes += size_of(message)
        audio = isinstance(message, bytes)
        self.got.append({"type": "audio", "pcm": message} if audio else json.loads(message))
        return self.got[-1]

    async def answers(self) -> bool:
        """Whether the connection goes on."""
        await self.send("ping", id="still there")
        return (await self.until("pong"))["id"] == "still there"

    async def turn(self, text: str = "hello", turn_id: int | None = None) -> dict[str, Any]:
        """Types this; the whole reply's text message, once the turn was played and measured."""
        await self.send("text", text=text)
        which = {} if turn_id is None else {"turn_id": turn_id}
        await self.until("turn_metrics", **which)
        return next(m for m in reversed(self.got) if m["type"] == "llm_response" and "done" in m)

    async def close_code(self) -> int:
        """What the server closes with, after everything that it still says."""
        with suppress(ConnectionClosed):
            await self.until("no such message")
        assert self.socket.closed
        return self.socket.closed.code

    def all(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return [m for m in self.got if m["type"] == kind and fields.items() <= m.items()]

    @property
    def pcm(self) -> bytes:
        return b"".join(message["pcm"] for message in self.all("audio"))

    @property
    def states(self) -> list[str]:
        return [message["state"] for message in self.all("status")]


def size_of(message: str | bytes) -> int:
    """Its bytes on the wire, without the frame's."""
    return len(message.encode() if isinstance(message, str) else message)


@asynccontextmanager
async def connected(url: str, api_key: str | None = None) -> AsyncIterator[Peer]:
    """A peer that has said nothing."""
    async with open_socket(url, api_key, SECONDS) as (socket, _):
        yield Peer(socket)


@asynccontextmanager
async def begun(url: str, api_key: str | None = None, **start: Any) -> AsyncIterator[Peer]:
    """A peer with a session."""
    async with connected(url, api_key) as peer:
        await peer.send("start_session", **{"capabilities": DEVICE, **start})
        await peer.until("status", state="ready")
        yield peer


# --- a server in this process --------------------------------------------------------------


@attrs.define
class Served:
    """Where a server is."""

    port: int
    scheme: str = "http"  # or https

    @property
    def http(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return self.http.replace("http", "ws", 1) + "/"

    async def ask(
        self, path: str, method: str = "GET", tls: ssl.SSLContext | None = None, **options: Any
    ) -> httpx.Response:
        """One request, over a connection of its own."""
        async with httpx.AsyncClient(verify=tls or False, trust_env=False) as client:
            return await client.request(method, self.http + path, **options)

    async def metrics(self, **options: Any) -> dict[str, float]:
        """Every sample by its name, as Prometheus would see it."""
        answer = await self.ask("/metrics", **options)
        assert answer.status_code == 200, answer.text
        lines = (line for line in answer.text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@asynccontextmanager
async def served(
    *,
    engines: Mapping[str, Any] | None = None,
    draining: trio.Event | None = None,
    first_message_seconds: float = 10.0,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A server with engines that take no time, but for those given; settings are Config's."""
    config = Config(host="127.0.0.1", port=0, **{"memory_budget_mb": 4000, **settings})
    given = {"chat_model": FakeChatModel("One two three."), "synthesizer": FakeSynthesizer(0.3)}
    async with open_engines(fake=True) as fake:
        chosen = attrs.evolve(fake, **{**given, **(engines or {})})
        async with serving_engines(
            config, chosen, draining=draining, first_message_seconds=first_message_seconds
        ) as server:
            yield server


@asynccontextmanager
async def serving_engines(
    config: Config, engines: Engines, **options: Any
) -> AsyncIterator[Served]:
    """A server with these engines."""
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve, config, engines, **options))
        yield Served(address.port, "https" if address.secure else "http")
        nursery.cancel_scope.cancel()


# --- a server as a process -----------------------------------------------------------------


@attrs.define
class ServerProcess(Served):
    """`python -m listenai serve`, and what it has logged."""

    process: trio.Process = attrs.field(kw_only=True)
    logged: bytearray = attrs.field(factory=bytearray, kw_only=True)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its JSON log, as far as they are whole."""
        return [json.loads(line) for line in bytes(self.logged).split(b"\n")[:-1]]

    async def wait_logged(self, event: str) -> dict[str, Any]:
        """The first line whose event begins so."""
        with trio.fail_after(SECONDS):
            while True:
                for line in self.log:
                    if line["event"].startswith(event):
                        return line
                await self._news.wait()

    async def read_log(self) -> None:
        """Takes what it logs, to its end."""
        assert self.process.stderr
        async for data in self.process.stderr:
            self.logged += data
            self._news.set()
            self._news = trio.Event()

    async def end(self, number: int = signal.SIGTERM) -> float:
        """Signals, waits for the end; how many seconds that took."""
        began = trio.current_time()
        self.process.send_signal(number)
        await self.wait_ended()
        return trio.current_time() - began

    async def wait_ended(self) -> int:
        with trio.fail_after(30):
            return await self.process.wait()


@asynccontextmanager
async def server_process(
    *options: str,
    directory: Path,
    reads_log: bool = True,
    **environment: str,
) -> AsyncIterator[ServerProcess]:
    """One that has printed its URL; killed if it still runs at the end.

    directory: where it runs: no `.env` of ours is there.  environment: its variables, beside PATH.
    """
    command = [sys.executable, "-m", "listenai", "serve", "--host", "127.0.0.1", "--port", "0"]
    passed = {
        name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
    }
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            cwd=directory,
            env=passed | environment,
            deliver_cancel=_kill,
        )
        process: trio.Process = await nursery.start(run)
        scheme, port = await _printed_address(process)
        server = ServerProcess(port, scheme, process=process)
        if reads_log:
            nursery.start_soon(server.read_log)
        yield server
        nursery.cancel_scope.cancel()


async def _printed_address(process: trio.Process) -> tuple[str, int]:
    assert process.stdout
    printed = b""
    with trio.fail_after(30):
        while not (found := re.search(rb"(https?)://[^:\s]+:(\d+)/\n", printed)):
            data = await process.stdout.receive_some()
            assert data, (printed, process.stderr and await process.stderr.receive_some())
            printed += data
    return found[1].decode(), int(found[2])


async def _kill(process: trio.Process) -> None:
    process.kill()


def words_in(text: str, words: Sequence[str]) -> list[str]:
    """Which of the words are there, whatever their case."""
    return [word for word in words if word.lower() in text.lower()]
