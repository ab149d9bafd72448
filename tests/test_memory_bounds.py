"""What a connection costs a real server, against what admission reckons with."""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import psutil
import pytest
import trio
from trio_websocket import WebSocketConnection

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
import soak

from listenai.app import bounds_of
from listenai.audio import FRAME_BYTES, FRAME_SECONDS, SAMPLE_BYTES, SAMPLE_RATE
from listenai.client.connection import open_socket
from listenai.client.microphone import to_microphone
from listenai.device import DeviceProfile
from listenai.server.frames import MAX_MESSAGE_BYTES
from listenai.wav import read_wav

pytestmark = [pytest.mark.engines, pytest.mark.slow]

BOUNDS = bounds_of(DeviceProfile())
LISTENING = 50  # connections
HOSTILE = 20  # of each kind
KIB = 1 << 10
UTTERANCE_BYTES = 30 * SAMPLE_RATE * SAMPLE_BYTES
HALF_A_SECOND = SAMPLE_RATE * SAMPLE_BYTES // 2  # margins of a recording
SETTLE_SECONDS = 2.0  # real ones: the server is another process
WARM_CONNECTIONS = 2  # come and go first: what a first use loads belongs to no connection

Behave = Callable[[WebSocketConnection], Awaitable[None]]


@attrs.frozen
class Cost:
    """USS of a server, in bytes a connection."""

    held: float
    left: float  # after all of them had gone

    def __str__(self) -> str:
        bound = sum(BOUNDS.values()) / KIB
        return (
            f"{self.held / KIB:.0f} KiB a connection ({self.left / KIB:.0f} KiB when it has gone);"
            f" admission reckons with {bound:.0f} KiB"
        )


async def cost_of(behave: Behave, count: int) -> Cost:
    """Measures so many connections that behave like this."""
    with tempfile.TemporaryFile() as log:
        async with soak.serving(fake=True, fake_speech_ms=60_000, log=log) as (server, url):
            async with connections(url, listens, WARM_CONNECTIONS):
                await trio.sleep(SETTLE_SECONDS / 2)
            await trio.sleep(SETTLE_SECONDS)
            before = uss(server)
            async with connections(url, behave, count):
                await trio.sleep(SETTLE_SECONDS)
                held = uss(server)
            await trio.sleep(SETTLE_SECONDS)
            left = uss(server)
        log.seek(0)
        assert b" ERROR " not in log.read()
    return Cost((held - before) / count, (left - before) / count)


def uss(server: psutil.Process) -> int:
    return server.memory_full_info().uss


@asynccontextmanager
async def connections(url: str, behave: Behave, count: int) -> AsyncIterator[None]:
    """So many, all of which have done what is theirs to do once and go on with it."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            await nursery.start(keep, url, behave)
        yield
        nursery.cancel_scope.cancel()


async def keep(url: str, behave: Behave, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_socket(url, None, 10.0) as (socket, _):
        await behave(socket)
        task_status.started()
        if behave is speaks_on_and_on:  # the only one whose state a silence would end
            await goes_on_speaking(socket)
        await trio.sleep_forever()


# --- how connections behave ------------------------------------------------------------------


async def begin(socket: WebSocketConnection) -> None:
    await socket.send_message('{"type":"start_session"}')
    await socket.get_message()


async def listens(socket: WebSocketConnection) -> None:
    """A session, and a second of silence."""
    await begin(socket)
    for _ in range(round(1 / FRAME_SECONDS)):
        await socket.send_message(bytes(FRAME_BYTES))


async def does_not_read(socket: WebSocketConnection) -> None:
    """Asks, and takes nothing of a reply of a minute.  The library reads one message ahead."""
    tcp = socket._stream.socket
    tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    await begin(socket)
    await socket.send_message('{"type":"text","text":"tell me a story"}')


async def sends_large_messages(socket: WebSocketConnection) -> None:
    """The first, the last and the one under way are as large as the wire takes."""
    await socket.send_message(bytes(MAX_MESSAGE_BYTES))
    await socket.get_message()
    await socket.send_message("x" * MAX_MESSAGE_BYTES)
    await socket.get_message()
    header = b"\x82\xff" + struct.pack("!Q", MAX_MESSAGE_BYTES) + bytes(4)
    await socket._stream.send_all(header + bytes(MAX_MESSAGE_BYTES - 1))


async def speaks_on_and_on(socket: WebSocketConnection) -> None:
    """Two thirds of the longest utterance in one go, then more in real time."""
    speech = to_microphone(read_wav(soak.SPEECH / "tell_me_a_story.wav"))
    speech = speech[HALF_A_SECOND:-HALF_A_SECOND]
    await begin(socket)
    for _ in range(UTTERANCE_BYTES * 2 // 3 // len(speech)):
        await socket.send_message(speech)
    await socket.send_message('{"type":"ping"}')
    while '"pong"' not in str(await socket.get_message()):
        pass


async def goes_on_speaking(socket: WebSocketConnection) -> None:
    speech = to_microphone(read_wav(soak.SPEECH / "tell_me_a_story.wav"))
    while True:
        for start in range(HALF_A_SECOND, len(speech) - HALF_A_SECOND, FRAME_BYTES):
            await socket.send_message(speech[start : start + FRAME_BYTES])
            await trio.sleep(FRAME_SECONDS)


# --- what they cost --------------------------------------------------------------------------

# What every connection that has begun to talk takes, and what each kind takes beside it.
ALWAYS = ("tasks and objects", "voice detector", "one read", "request head, as read and parsed")
HOSTILITY: dict[Behave, tuple[tuple[str, ...], int]] = {  # at most these; at least so many bytes
    does_not_read: (("sentence being spoken", "notices"), 100 * KIB),
    sends_large_messages: (("messages",), 2 * MAX_MESSAGE_BYTES),
    speaks_on_and_on: (("utterance", "audio being listened to"), UTTERANCE_BYTES // 2),
}


async def test_listening_costs_less_than_a_megabyte() -> None:
    """Fifty devices that hear silence: tasks, buffers and detector, all within their bounds."""
    cost = await cost_of(listens, LISTENING)
    print(f"\n{LISTENING} that listen: {cost}")
    assert 100 * KIB <= cost.held <= bound(ALWAYS) <= 1100 * KIB


@pytest.mark.parametrize("behave", HOSTILITY, ids=lambda behave: behave.__name__)
async def test_hostile_devices_stay_within_the_bound(behave: Behave) -> None:
    """Twenty that do their worst cost what is reckoned with for it, and not nothing."""
    rows, least = HOSTILITY[behave]
    cost = await cost_of(behave, HOSTILE)
    print(f"\n{HOSTILE} that {behave.__name__}: {cost}")
    assert least <= cost.held <= bound(ALWAYS + rows)


def bound(rows: tuple[str, ...]) -> int:
    return sum(BOUNDS[row] for row in rows)
