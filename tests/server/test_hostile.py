"""Hostile devices: whatever they do costs a bounded amount, and a device beside them is served."""

from __future__ import annotations

import gc
import os
import struct
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
import trio
from loopback import (
    CLOSE,
    PONG,
    TEXT,
    UPGRADE,
    RawPeer,
    Server,
    echo,
    flood,
    frame,
    raw_peer,
    serving,
    talk,
)

from listenai.server.frames import MAX_FRAGMENTS, MAX_PONGS, Frames
from listenai.server.front_door import DoorDeadlines
from listenai.server.head import Head, parse_head
from listenai.wire import DeviceGone, Message, Wire

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20
PATIENT = DoorDeadlines(head=5.0, close=0.3, idle=5.0)
SERVED_SECONDS = 1.0  # a round trip beside any mischief, on a slow machine that is busy too


# --- what is measured ------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def at_most(allowed_bytes: int) -> Iterator[None]:
    """Fails when the memory of Python's objects, ours and the test's, grew by more than that."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < allowed_bytes, f"{peak} bytes"


@asynccontextmanager
async def served_beside(server: Server, rounds: int = 20) -> AsyncIterator[None]:
    """A device that behaves, from before the mischief until after: each echo comes in time."""
    slowest = 0.0

    async def round_trips(peer: RawPeer, count: int) -> None:
        nonlocal slowest
        for index in range(count):
            began = trio.current_time()
            await peer.send(TEXT, b"%d" % index)
            assert await peer.receive() == (TEXT, b"%d" % index)
            slowest = max(slowest, trio.current_time() - began)
            await trio.lowlevel.checkpoint()

    async with raw_peer(server) as peer, trio.open_nursery() as nursery:
        await round_trips(peer, 1)
        nursery.start_soon(round_trips, peer, rounds)
        yield
        while nursery.child_tasks:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await round_trips(peer, 1)
    assert slowest < SERVED_SECONDS


@asynccontextmanager
async def everything_given_back() -> AsyncIterator[None]:
    """Fails when a descriptor or a task is left of what the block did to a running server."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    tasks, open_before = trio.lowlevel.current_statistics().tasks_living, descriptors()
    yield
    with trio.move_on_after(3):
        while (
            trio.lowlevel.current_statistics().tasks_living > tasks or descriptors() > open_before
        ):
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert (trio.lowlevel.current_statistics().tasks_living, descriptors()) == (tasks, open_before)


def reset(stream: trio.SocketStream) -> None:
    """Lets closing the stream reset the connection."""
    linger = struct.pack("ii", 1, 0)
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)


async def pour(peer: RawPeer, data: bytes, seconds: float) -> int:
    """Sends the same bytes again and again; returns how often they left."""
    times = 0
    with trio.move_on_after(seconds), suppress(trio.BrokenResourceError):
        while True:
            await peer.stream.send_all(data)
            times += 1
    return times


async def misbehaving(wire: Wire, head: Head) -> None:
    """Floods a device that asks for it by its path, answers any other."""
    await (flood if "flood" in head.query else echo)(wire, head)


# --- devices that do not read --------------------------------------------------------------


async def test_devices_that_never_read_are_flooded_in_bounded_memory() -> None:
    """Ten of them hold a frame each, and nobody else up."""
    async with serving(misbehaving, deadlines=PATIENT) as server, everything_given_back():
        with at_most(4 * MIB):
            async with served_beside(server), trio.open_nursery() as nursery:
                for _ in range(10):
                    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                    nursery.start_soon(_hold, stream, 0.2)
                    await stream.send_all(UPGRADE.replace(b"model=a", b"flood"))


async def _hold(stream: trio.SocketStream, seconds: float) -> None:
    async with stream:
        await trio.sleep(seconds)


async def test_answers_to_pings_do_not_pile_up_nor_make_us_deaf() -> None:
    """A device that reads nothing and pings for ever is still heard; it gets the last pongs."""
    heard: list[Message] = []
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                with suppress(DeviceGone):
                    for _ in range(100):
                        await wire.send(bytes(1 << 16))

            nursery.start_soon(play)
            with suppress(DeviceGone):
                while True:
                    heard.append(await wire.receive())
        over.set()

    pings = b"".join(frame(9, b"%125d" % index) for index in range(400))
    async with serving(converse, deadlines=PATIENT) as server, raw_peer(server) as peer:
        await trio.testing.wait_all_tasks_blocked(0.05)  # the music is stuck by now
        with at_most(2 * MIB):
            for _ in range(10):
                await peer.stream.send_all(pings)
            await peer.send(TEXT, b"stop!")
            with trio.fail_after(2):
                while not heard:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        assert heard == ["stop!"]
        pongs = []
        while len(pongs) < MAX_PONGS:
            opcode, payload = await peer.receive()
            if opcode == PONG:
                pongs.append(int(payload))
        assert pongs == list(range(400 - MAX_PONGS, 400))
        await peer.stream.aclose()
        await over.wait()


async def test_a_lone_pong_reaches_a_device_that_reads_again() -> None:
    """Nothing else is sent or received that could remind us of it."""
    held = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        async def fill() -> None:
            with trio.move_on_after(0.1):
                while True:
                    await wire.send(bytes(1900))
            held.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            with suppress(DeviceGone):
                await wire.receive()

    async with serving(converse, deadlines=PATIENT) as server, raw_peer(server) as peer:
        await held.wait()  # the transport takes no more, and nobody is sending
        await peer.stream.send_all(frame(9, b"lone"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(2):
            while (await peer.receive()) != (PONG, b"lone"):
                pass


# --- devices that send too much ------------------------------------------------------------

FLOODS = {
    "messages of one byte": frame(2, b"x") * 2000,
    "messages of none": frame(2) * 2000,
    "pings": frame(9) * 2000,
    "pongs": frame(10, b"x") * 2000,
    "fragments of one byte": frame(2, b"x", final=False) + frame(0, b"x", final=False) * 2000,
    "large messages": frame(2, bytes(MIB)),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_does_not_drown_the_device_beside_it(kind: str) -> None:
    """Three send as fast as they can: round trips stay short, and one costs little memory."""

    async def converse(wire: Wire, head: Head) -> None:
        while True:
            message = await wire.receive()
            if isinstance(message, str):
                await wire.send(message)

    async with serving(converse, deadlines=PATIENT) as server, everything_given_back():
        async with served_beside(server, rounds=10), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_flood_from, server, FLOODS[kind])
        with at_most(10 * MIB if kind == "large messages" else MIB):  # which slows everything down
            await _flood_from(server, FLOODS[kind])


async def _flood_from(server: Server, data: bytes) -> None:
    async with raw_peer(server) as peer:
        # Otherwise the kernel keeps megabytes, which the server has to work through afterwards.
        peer.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 1 << 15)
        assert await pour(peer, data, 0.2) >= 1


async def test_endless_fragments_end_in_bounded_memory() -> None:
    """A message that never ends is refused behind its last allowed fragment, an empty one too."""
    frames, head = Frames(), parse_head(UPGRADE)
    assert head
    frames.shake_hands(head)
    frames.feed(frame(2, final=False))
    more = frame(0, final=False)
    with at_most(64_000):
        for _ in range(MAX_FRAGMENTS - 2):
            frames.feed(more)
    assert not frames.farewell
    frames.feed(more)
    assert frames.farewell[2:4] == struct.pack("!H", 1008)


# --- handshakes --------------------------------------------------------------------------------


async def test_slow_handshakes_are_cut_off() -> None:
    """Fifty that send a byte now and then each get 408 at the deadline, not later."""
    deadlines = DoorDeadlines(head=0.3, close=0.2)
    answers: list[bytes] = []

    async def dribble(server: Server) -> None:
        async with raw_peer(server, upgraded=False) as peer:
            with suppress(trio.BrokenResourceError):
                for byte in UPGRADE[:12]:
                    await peer.stream.send_all(bytes([byte]))
                    await trio.sleep(0.05)
            answers.append(await peer.receive_end())

    async with serving(deadlines=deadlines) as server, everything_given_back():
        with trio.fail_after(3):
            async with served_beside(server), trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(dribble, server)
    assert len(answers) == 50
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)


def with_header(header: bytes) -> bytes:
    return UPGRADE.replace(b"Host: x\r\n", b"Host: x\r\n" + header + b"\r\n")


REFUSED_HEADS = {
    "over 16 KiB": (with_header(b"X: " + b"a" * 17_000), 431, "longer than 16384 bytes"),
    "without an end": (b"GET /ws HTTP/1.1\r\n" + b"X: a\r\n" * 50_000, 431, "fewer headers"),
    "a line over 8 KiB": (with_header(b"X: " + b"a" * 9_000), 400, "not understood"),
    "200 headers": (with_header(b"\r\n".join([b"X: a"] * 200)), 400, "not understood"),
    "a broken list of subprotocols": (
        with_header(b"Sec-WebSocket-Protocol: a b,,;"),
        400,
        "Sec-WebSocket-Protocol",
    ),
}


@pytest.mark.parametrize("name", REFUSED_HEADS)
async def test_a_head_that_is_too_much_is_refused_with_a_reason(name: str) -> None:
    """It never converses, keeps little memory, and the next one is served."""
    request, status, reason = REFUSED_HEADS[name]
    async with serving(deadlines=PATIENT) as server, everything_given_back(), served_beside(server):
        with at_most(2 * MIB):
            answer = await talk(server.port, request)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert reason in answer.partition(b"\r\n\r\n")[2].decode()


async def read_head(peer: RawPeer) -> str:
    """An answer that ends with its head, byte by byte: what follows is the peer's to read."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await peer.stream.receive_some(1)
        assert byte, "the server closed the connection"
        head += byte
    return head.decode()


@pytest.mark.parametrize(
    "offer",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b"Sec-WebSocket-Extensions: ;;,nonsense=",
        b"Sec-WebSocket-Protocol: chat, superchat",
    ],
)
async def test_nothing_that_is_offered_is_agreed_to(offer: bytes) -> None:
    """No extension, no subprotocol; a device that compresses all the same is told 1002."""
    async with serving() as server, raw_peer(server, upgraded=False) as peer:
        await peer.stream.send_all(with_header(offer))
        head = await read_head(peer)
        assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
        assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455, 1.3
        assert "Sec-WebSocket-Extensions" not in head
        assert "Sec-WebSocket-Protocol" not in head
        await peer.send(TEXT, b"plain")
        assert await peer.receive() == (TEXT, b"plain")
        await peer.stream.send_all(frame(TEXT | 0x40, bytes.fromhex("f248cdc9c90700")))
        assert (await peer.receive())[1][:2] == struct.pack("!H", 1002)


# --- devices that come and go --------------------------------------------------------------


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_quick_connects_and_resets_leave_nothing(count: int) -> None:
    """Before the head, in it, after the handshake, in a frame: no task, no descriptor."""
    stages = [b"", UPGRADE[:50], UPGRADE, UPGRADE + frame(TEXT, b"hi"), UPGRADE + b"\x82\x85ab"]

    async def come_and_go(server: Server, stage: bytes) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(stage)
            reset(stream)

    async with serving(deadlines=PATIENT) as server, everything_given_back(), served_beside(server):
        for _ in range(count // 25):
            async with trio.open_nursery() as nursery:
                for stage in stages * 5:
                    nursery.start_soon(come_and_go, server, stage)


async def test_half_closed_connections_do_not_stay() -> None:
    """Devices that hang up on one side only, in every state, are gone at once."""
    stages = [UPGRADE, UPGRADE + b"\x82", UPGRADE + frame(2, final=False), UPGRADE + frame(9)]
    async with serving(deadlines=PATIENT) as server, everything_given_back(), served_beside(server):
        for stage in stages * 5:
            answer = await talk(server.port, stage, half_close=True)
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert bytes([0x80 | CLOSE]) not in answer.partition(b"\r\n\r\n")[2]
