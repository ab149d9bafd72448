"""How a server's process ends: replies are finished, everybody is told, nothing is left."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio
from served import SECONDS, Peer, ServerProcess, begun, server_process
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

MCP_SERVER = Path(__file__).parents[1] / "devices" / "mcp_stdio_server.py"
CLOSE_SECONDS = 2.0  # of a goodbye that nobody answers
ENDING_SECONDS = 3.0  # of a process with nothing left to do, on a busy machine
TINY_BUFFER = 4096  # bytes that the kernel takes for a device that reads nothing


@asynccontextmanager
async def deaf_device(server: ServerProcess) -> AsyncIterator[trio.SocketStream]:
    """One that asks for a reply and never reads a byte of it."""
    raw = trio.socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BUFFER)
    await raw.connect(("127.0.0.1", server.port))
    async with trio.SocketStream(raw) as stream:
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        text = json.dumps({"type": "text", "text": "hello"}).encode()
        await stream.send_all(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
        yield stream


async def says_ready(server: ServerProcess) -> int:
    return (await server.ask("/health/ready")).status_code


async def is_told_goodbye(peer: Peer) -> None:
    """Statistics, then 1001."""
    assert await peer.close_code() == 1001
    assert peer.got[-1]["type"] == "status"
    assert peer.got[-1]["state"] == "closing"
    assert set(peer.got[-1]["statistics"]) == {
        *("message_count", "interaction_count", "last_activity"),
        *("session_duration_seconds", "average_interaction_seconds"),
    }


def nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# --- one signal ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_signal_lets_replies_end_and_then_the_process(tmp_path: Path):
    """One device hears its whole reply, one is idle, one reads nothing; 503 meanwhile; status 0."""
    servers = {"house": {"command": sys.executable, "args": [str(MCP_SERVER), "modern"]}}
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": servers}))
    async with (
        server_process(
            *("--fake-engines", "--fake-speech-ms", "2500"),
            directory=tmp_path,
            MCP_SERVERS_FILE="servers.json",
        ) as server,
        begun(server.ws) as talking,
        begun(server.ws) as idle,
        deaf_device(server),
    ):
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) == 1  # the MCP server
        assert await says_ready(server) == 200
        await talking.send("text", text="hello")
        await talking.until("tts_audio", state="start")
        began = trio.current_time()
        server.process.send_signal(signal.SIGTERM)
        await is_told_goodbye(idle)
        assert await says_ready(server) == 503
        health = await server.ask("/health")
        assert (health.status_code, health.json()["status"]) == (200, "draining")
        refused = await server.ask("/", headers=HANDSHAKE)
        assert refused.status_code == 503
        assert "going away" in refused.text
        await talking.send("text", text="and another thing")
        await is_told_goodbye(talking)
        assert len(talking.pcm) == 2.5 * 32_000
        [end] = talking.all("tts_audio", state="end")
        assert end["samples"] * 2 == len(talking.pcm)
        assert talking.got[-1]["statistics"]["interaction_count"] >= 1
        assert len(talking.all("tts_audio", state="start")) == 1
        assert await server.wait_ended() == 0
        print(f"SIGTERM to exit with a reply of 2.5 s: {trio.current_time() - began:.2f} s")
        assert b"Traceback" not in server.logged
        closed = [line["code"] for line in server.log if line["event"] == "connection_closed"]
        assert sorted(closed)[:2] == [1001, 1001]
        assert len(closed) == 3
        assert nobody_listens(server.port)
        assert not [child for child in children if child.is_running()]


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def leave_when_told(url: str, begun: Callable[[], object]) -> int:
    """A device that hangs up after the server's goodbye, as the standard has it; the code."""
    with connect(url) as link:
        link.send('{"type":"start_session"}')
        link.recv(timeout=SECONDS)
        begun()
        with suppress(ConnectionClosed):
            while True:
                link.recv(timeout=SECONDS)
        return link.close_code or 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_where_nobody_talks_ends_at_once(tmp_path: Path, number: int):
    """An idle device is told 1001; both signals are the same."""
    has_begun = trio.Event()
    async with server_process("--fake-engines", directory=tmp_path) as server:
        async with trio.open_nursery() as nursery:

            async def idle() -> None:
                begin = partial(trio.from_thread.run_sync, has_begun.set)
                assert await trio.to_thread.run_sync(leave_when_told, server.ws, begin) == 1001

            nursery.start_soon(idle)
            await has_begun.wait()
            seconds = await server.end(number)
        print(f"signal to exit, one idle device: {seconds:.2f} s")
        assert server.process.returncode == 0
        assert seconds < 2.0


async def test_a_drain_has_its_time(tmp_path: Path):
    """CLOUD_DRAIN_TIMEOUT: a reply of a minute is cut off, also for who reads nothing; status 0."""
    async with (
        server_process(
            *("--fake-engines", "--fake-speech-ms", "60000"),
            directory=tmp_path,
            CLOUD_DRAIN_TIMEOUT="0.5",
        ) as server,
        begun(server.ws) as peer,
        deaf_device(server),
    ):
        await peer.send("text", text="hello")
        await peer.until("tts_audio", state="start")
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                assert await peer.close_code() == 1001

            nursery.start_soon(listen)
            seconds = await server.end()
        print(f"SIGTERM to exit with CLOUD_DRAIN_TIMEOUT=0.5: {seconds:.2f} s")
        assert server.process.returncode == 0
        assert 0.5 <= seconds < 0.5 + CLOSE_SECONDS + ENDING_SECONDS
        assert b"Traceback" not in server.logged


# --- a second signal -------------------------------------------------------------------------


async def test_a_second_signal_does_not_wait(tmp_path: Path):
    """Ctrl-C twice: the reply is cut off with 1001, the status is 0."""
    async with (
        server_process(
            *("--fake-engines", "--fake-speech-ms", "60000"), directory=tmp_path
        ) as server,
        begun(server.ws) as peer,
    ):
        await peer.send("text", text="hello")
        await peer.until("tts_audio", state="start")
        server.process.send_signal(signal.SIGINT)
        with trio.fail_after(SECONDS):
            while await says_ready(server) != 503:
                pass
        assert await peer.answers()  # it goes on talking
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                assert await peer.close_code() == 1001

            nursery.start_soon(listen)
            seconds = await server.end(signal.SIGINT)
        print(f"second signal to exit: {seconds:.2f} s")
        assert server.process.returncode == 0
        assert seconds < ENDING_SECONDS
        assert b"Traceback" not in server.logged
