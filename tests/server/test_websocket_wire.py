"""WebSockets as wires: real sockets, an independent client, and raw frames where it is rude."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import pytest
import trio
from loopback import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    QUICK,
    TEXT,
    UPGRADE,
    RawPeer,
    echo,
    flood,
    frame,
    raw_peer,
    serving,
    until_gone,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from listenai.server import frames
from listenai.server.frames import Frames
from listenai.server.front_door import DoorDeadlines
from listenai.server.head import Head, parse_head
from listenai.server.websocket import WebSocketWire
from listenai.wire import DeviceGone, Wire

pytestmark = pytest.mark.usefixtures("nothing_left")


@contextmanager
def client(url: str, compression: str | None = "deflate") -> Iterator[ClientConnection]:
    with connect(url, compression=compression, proxy=None, max_size=None) as connection:
        yield connection


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_another_library_gets_its_messages_back(compression: str | None) -> None:
    """Text and binary of every length coding; compression is offered but not agreed to."""
    messages = ["", "grüß 你好 🎤", b"", bytes(125), bytes(126), bytes(1 << 16), b"\xff" * 300_000]

    def talk(url: str) -> tuple[list[str | bytes], str | None]:
        with client(url, compression) as connection:
            answers = []
            for message in messages:
                connection.send(message)
                answers.append(connection.recv(timeout=5))
            assert connection.response
            return answers, connection.response.headers.get("Sec-WebSocket-Extensions")

    async with serving() as server:
        answers, extensions = await trio.to_thread.run_sync(talk, server.url)
    assert answers == messages
    assert extensions is None


async def test_a_fragmented_message_arrives_whole() -> None:
    """Fragments are joined, also with a ping between them."""
    async with serving() as server, raw_peer(server) as peer:
        await peer.send(TEXT, "gr\u00fc".encode()[:3], final=False)
        await peer.send(PING, b"between")
        await peer.send(0, "gr\u00fc\u00df".encode()[3:], final=False)
        await peer.send(0)
        assert await peer.receive() == (PONG, b"between")
        assert await peer.receive() == (TEXT, "gr\u00fc\u00df".encode())


async def test_a_message_over_4_mib_is_answered_1009_and_4_mib_passes() -> None:
    """The close code arrives although the rest of the message was still on its way."""

    def talk(url: str) -> tuple[int, int | None]:
        with client(url) as connection:
            connection.send(bytes(4 << 20))
            size = len(connection.recv(timeout=5))
            with suppress(ConnectionClosed):  # it may come while we are still sending
                connection.send(bytes(5 << 20))
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(timeout=5)
            assert closed.value.rcvd
            return size, closed.value.rcvd.code

    async with serving() as server:
        assert await trio.to_thread.run_sync(talk, server.url) == (4 << 20, 1009)


async def test_the_rest_of_a_message_too_long_is_taken_and_thrown_away() -> None:
    """A device that is still sending is not reset before it can read why."""
    async with serving() as server, raw_peer(server) as peer:
        await peer.send(BINARY, bytes(6 << 20))
        opcode, payload = await peer.receive()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 1009))
        assert await peer.receive_end() == b""


async def test_fragments_without_contents_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of endless empty fragments ends the connection; many whole messages do not."""
    monkeypatch.setattr(frames, "MAX_FRAGMENTS", 1000)
    async with serving() as server, raw_peer(server) as peer:
        for _ in range(20):
            await peer.send(BINARY, bytes(1000))
            await peer.receive()
        await peer.stream.send_all(frame(BINARY, final=False) + frame(0, final=False) * 2000)
        assert (await peer.receive())[1][:2] == struct.pack("!H", 1008)


async def test_ping_returns_when_the_pong_came_and_not_before() -> None:
    """The wire's ping is a real ping, answered by the device alone."""
    answered = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone, wire)
            await wire.ping()
            answered.set()

    async with serving(converse) as server, raw_peer(server) as peer:
        opcode, payload = await peer.receive()
        assert opcode == PING
        for stray in (b"", b"stray", (int.from_bytes(payload, "big") + 1).to_bytes(8, "big")):
            await peer.send(PONG, stray)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not answered.is_set()
        await peer.send(PONG, payload)
        await answered.wait()


async def test_every_method_tells_that_the_device_has_gone() -> None:
    """Receive, send, and a ping whose pong can no longer come."""
    told: list[str] = []
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        async def expect(name: str) -> None:
            with pytest.raises(DeviceGone):
                await {"receive": wire.receive, "ping": wire.ping}[name]()
            told.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, "receive")
            nursery.start_soon(expect, "ping")
        for message in ("text", b"binary"):
            with pytest.raises(DeviceGone):
                await wire.send(message)
        with pytest.raises(DeviceGone):
            await wire.ping()
        over.set()

    async with serving(converse) as server:
        async with raw_peer(server) as peer:
            assert (await peer.receive())[0] == PING  # waits now, and leaves without a word
        await over.wait()
    assert sorted(told) == ["ping", "receive"]


@pytest.mark.parametrize("leaves", ["politely", "half-closed", "reset"])
async def test_a_device_that_leaves_ends_its_conversation(
    leaves: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However it leaves, the conversation hears of it and nothing is logged as a failure."""
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        await until_gone(wire)
        over.set()
        await wire.receive()  # DeviceGone may also escape

    async with serving(converse) as server, raw_peer(server) as peer:
        if leaves == "politely":
            await peer.send(CLOSE, struct.pack("!H", 1000))
            assert await peer.receive() == (CLOSE, struct.pack("!H", 1000))
        elif leaves == "half-closed":
            await peer.stream.send_eof()
        else:
            linger_zero = struct.pack("ii", 1, 0)
            peer.stream.socket.setsockopt(
                trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger_zero
            )
            await peer.stream.aclose()
        await over.wait()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_the_conversation_chooses_code_and_reason_once() -> None:
    """A later goodbye is none; a reason is cut to what a close frame holds, at a character."""

    async def converse(wire: Wire, head: Head) -> None:
        await wire.aclose(4001, "ü" * 100)
        with pytest.raises(DeviceGone):
            await wire.send("too late")
        with pytest.raises(DeviceGone):
            await wire.receive()
        await wire.aclose(1000, "again")

    async with serving(converse) as server, raw_peer(server) as peer:
        opcode, payload = await peer.receive()
        assert (opcode, payload[:2], payload[2:].decode()) == (CLOSE, b"\x0f\xa1", "ü" * 61)
        await peer.send(CLOSE, payload[:2])
        assert await peer.receive_end() == b""


async def test_a_ping_that_crosses_the_goodbye_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is not answered any more, and the device's own goodbye still ends it at once."""

    async def converse(wire: Wire, head: Head) -> None:
        pass

    async with (
        serving(converse, deadlines=DoorDeadlines(close=5.0)) as server,
        raw_peer(server) as peer,
    ):
        assert await peer.receive() == (CLOSE, struct.pack("!H", 1000))
        began = trio.current_time()
        await peer.send(PING, b"crossing")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.send(CLOSE, struct.pack("!H", 1000))
        assert await peer.receive_end() == b""
        assert trio.current_time() - began < 1.0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("receiving", [True, False])
async def test_a_goodbye_wakes_everybody_and_is_bounded(receiving: bool) -> None:
    """Tasks inside receive, send and ping meet DeviceGone although the device does nothing."""
    woken: list[str] = []
    over = trio.Event()
    took = 0.0

    async def converse(wire: Wire, head: Head) -> None:
        nonlocal took

        async def repeat(name: str, act: Callable[[], Awaitable[object]]) -> None:
            try:
                while True:
                    await act()
            except DeviceGone:
                woken.append(name)

        async with trio.open_nursery() as nursery:
            if receiving:
                nursery.start_soon(repeat, "receive", wire.receive)
            nursery.start_soon(repeat, "ping", wire.ping)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(2):
                nursery.start_soon(repeat, "send", partial(wire.send, bytes(1 << 16)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            began = trio.current_time()
            await wire.aclose(1008, "you do not read")
            took = trio.current_time() - began
        over.set()

    async with serving(converse) as server, raw_peer(server):
        await over.wait()
    assert sorted(woken) == ["ping", *["receive"] * receiving, "send", "send"]
    assert QUICK.close - 0.01 < took < QUICK.close + 0.3


async def test_a_cancelled_send_has_sent_nothing_or_is_completed() -> None:
    """The frame after one that was cut in two is understood; one that never began is not sent."""
    size = 2 << 20

    async def converse(wire: Wire, head: Head) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, bytes(size))
            await trio.testing.wait_all_tasks_blocked(0.01)  # stuck in the middle
            nursery.start_soon(wire.send, "still waiting for its turn")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await wire.send("after")
        await wire.aclose(4004)

    async with serving(converse) as server, raw_peer(server) as peer:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await peer.receive() == (BINARY, bytes(size))
        assert await peer.receive() == (TEXT, b"after")
        assert await peer.receive() == (CLOSE, struct.pack("!H", 4004))


async def test_a_later_message_does_not_overtake_one_that_waits() -> None:
    """A message of another task comes after the whole of the one whose send came first."""
    size = 2 << 20

    async def converse(wire: Wire, head: Head) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, bytes(size))
            await trio.testing.wait_all_tasks_blocked(0.01)  # it is stuck in the middle now
            nursery.start_soon(wire.send, "pause")
            await trio.testing.wait_all_tasks_blocked()
        await until_gone(wire)

    async with serving(converse) as server, raw_peer(server) as peer:
        assert await peer.receive() == (BINARY, bytes(size))
        assert await peer.receive() == (TEXT, b"pause")


async def test_the_bytes_are_ordered_by_the_call_to_send() -> None:
    """No checkpoint between the call and the place in the queue lets another message in."""

    async def converse(wire: Wire, head: Head) -> None:
        async def chime() -> None:
            await wire.send("second")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(chime)  # runs at the first checkpoint of the send below
            await wire.send("first")
        await until_gone(wire)

    async with serving(converse) as server, raw_peer(server) as peer:
        assert [await peer.receive() for _ in range(2)] == [(TEXT, b"first"), (TEXT, b"second")]


@asynccontextmanager
async def wire_on_a_pair(read: bytes = b"") -> AsyncIterator[tuple[WebSocketWire, socket.socket]]:
    """A wire that has read some bytes, and the plain non-blocking socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    head = parse_head(UPGRADE)
    assert head
    upgraded = Frames()
    upgraded.shake_hands(head)
    with theirs:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            yield WebSocketWire(stream, upgraded, read, 1.0), theirs


async def test_a_message_is_handed_over_before_any_other_task_runs() -> None:
    """No checkpoint lies between the call to send and its bytes."""
    async with wire_on_a_pair() as (wire, theirs), trio.open_nursery() as nursery:
        seen: list[bytes] = []

        async def look() -> None:
            seen.append(theirs.recv(100))  # fails where nothing is there

        nursery.start_soon(look)
        await wire.send("now")
    assert seen == [b"\x81\x03now"]


async def test_what_has_room_is_sent_without_waiting() -> None:
    """Whole, and only while it would not overtake anybody."""
    async with wire_on_a_pair() as (wire, theirs):
        assert wire.send_nowait("now")
        assert theirs.recv(100) == b"\x81\x03now"
        wire._frames.pongs.append(b"\x8a\x00")
        assert not wire.send_nowait("after the pong")
        await wire.send("after the pong")
        assert theirs.recv(100) == b"\x8a\x00\x81\x0eafter the pong"


async def test_what_is_begun_without_waiting_is_completed() -> None:
    """`send` goes on where the kernel had no more room, in the middle of a frame."""
    size = 1 << 20
    async with wire_on_a_pair() as (wire, theirs):
        got = b""
        message = bytes(size)
        assert not wire.send_nowait(message)
        assert not wire.send_nowait("the kernel is full")
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await wire.send(message)
                await wire.send("after")

            nursery.start_soon(send)
            while not got.endswith(b"\x81\x05after"):
                await trio.lowlevel.checkpoint()
                with suppress(BlockingIOError):
                    got += theirs.recv(1 << 20)
    assert got == struct.pack("!BBQ", 0x82, 127, size) + message + b"\x81\x05after"


async def test_nothing_is_sent_at_once_while_another_task_sends() -> None:
    """It would come in the middle of a frame."""
    async with wire_on_a_pair() as (wire, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(wire.send, bytes(1 << 20))
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.recv(1 << 20)
        assert not wire.send_nowait("overtakes")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("closed", ["by us", "by the device"])
async def test_nothing_is_sent_at_once_on_a_dead_connection(closed: str) -> None:
    """Whoever has to know is told by `send`."""
    async with wire_on_a_pair() as (wire, theirs):
        if closed == "by us":
            await wire.aclose()
        else:
            theirs.close()
        assert not wire.send_nowait("too late")
        with pytest.raises(DeviceGone):
            await wire.send("too late")


@pytest.mark.parametrize(
    ("read", "messages", "least"),
    [(frame(TEXT, b"a") * 10, 10, 9), (frame(PONG) * 2700 + frame(TEXT, b"a"), 1, 7)],
    ids=["messages", "control frames"],
)
async def test_other_tasks_run_between_frames_that_came_together(
    read: bytes, messages: int, least: int
) -> None:
    """A device that sends many small frames does not keep the processor."""
    async with wire_on_a_pair(read) as (wire, _):
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            for _ in range(messages):
                assert await wire.receive() == "a"
            nursery.cancel_scope.cancel()
    assert ticks >= least


async def test_a_send_that_was_cancelled_while_nothing_could_leave_is_forgotten() -> None:
    """Audio that a barge-in took back does not come after all."""
    async with wire_on_a_pair() as (wire, theirs):
        sent, got = 0, b""
        with trio.move_on_after(0.05):
            while True:
                await wire.send(b"a" * 120)
                sent += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, "after")
            while not got.endswith(b"\x81\x05after"):
                await trio.lowlevel.checkpoint()
                with suppress(BlockingIOError):
                    got += theirs.recv(1 << 20)
    assert got == (b"\x82\x78" + b"a" * 120) * sent + b"\x81\x05after"


async def test_messages_not_taken_are_dropped_by_our_goodbye() -> None:
    """Whoever has closed receives nothing any more, not even what had come before."""
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        assert await wire.receive() == "one"
        await wire.aclose()
        with pytest.raises(DeviceGone):
            await wire.receive()
        over.set()

    async with serving(converse) as server, raw_peer(server) as peer:
        await peer.stream.send_all(frame(TEXT, b"one") + frame(TEXT, b"two"))
        await peer.stream.send_eof()
        await over.wait()


async def test_a_stuck_send_ends_when_the_device_hangs_up() -> None:
    """The task that receives sees the end, and the one that sends is not left waiting."""
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        async def fill() -> None:
            with suppress(DeviceGone):
                await flood(wire, head)
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await until_gone(wire)

    async with serving(converse) as server, raw_peer(server) as peer:
        await trio.testing.wait_all_tasks_blocked(0.05)
        await peer.stream.send_eof()
        with trio.fail_after(1):
            await over.wait()


async def test_a_conversation_that_does_not_receive_makes_the_device_wait() -> None:
    """Messages wait in the kernel, in bounded space; they all arrive once asked for."""
    go, over, sent, received = trio.Event(), trio.Event(), 0, 0

    async def converse(wire: Wire, head: Head) -> None:
        nonlocal received
        await go.wait()
        with suppress(DeviceGone):
            while True:
                received += len(await wire.receive())
        over.set()

    async with serving(converse) as server, raw_peer(server) as peer:
        peer.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 1 << 16)
        with trio.move_on_after(0.3) as waiting:
            while True:
                await peer.send(BINARY, bytes(1920))
                sent += 1920
        assert waiting.cancelled_caught
        assert sent < 512 << 10  # kernel buffers of both sides; without a bound 6 MiB and more
        go.set()
        await peer.stream.send_eof()
        await over.wait()
    assert received == sent  # the cancellation tore one message, which never counted


async def test_a_device_that_does_not_read_gets_little_ahead_and_a_bounded_goodbye() -> None:
    """What is sent ahead of a deaf device is bounded, and it cannot hold a close."""
    ahead, took = 0, 0.0
    over = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        nonlocal ahead, took
        with trio.move_on_after(0.3):
            while True:
                await wire.send(bytes(1920))
                ahead += 1920
        began = trio.current_time()
        await wire.aclose(1008, "you do not read")
        took = trio.current_time() - began
        over.set()

    async with serving(converse) as server:
        with trio.socket.socket() as small:
            small.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 2048)
            await small.connect(("127.0.0.1", server.port))
            await RawPeer(trio.SocketStream(small)).upgrade()
            await over.wait()
    assert ahead < 12_000  # a third of a second of PCM; 17 KiB with Trio's own socket options
    assert took < QUICK.close + 0.3


async def test_a_device_that_reads_nothing_does_not_hold_the_shutdown() -> None:
    """The server is gone within the patience for goodbyes."""
    async with serving(flood) as server, raw_peer(server):
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await server.stop() < QUICK.close + 0.4


async def test_the_server_going_away_is_said() -> None:
    """A cancelled conversation closes 1001 and waits for the device's half of the handshake."""
    conversing = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        conversing.set()
        await trio.sleep_forever()

    async with serving(converse) as server, raw_peer(server) as peer:
        await conversing.wait()
        server.scope.cancel()
        assert await peer.receive() == (CLOSE, struct.pack("!H", 1001))
        assert not server.stopped.is_set()
        await peer.send(CLOSE, struct.pack("!H", 1001))
        assert await peer.receive_end() == b""
        await server.stopped.wait()


@pytest.mark.parametrize("code", [1005, 1006, 1015])
async def test_what_no_frame_may_say_is_not_said(code: int) -> None:
    """A loss that only a send has shown: if the device is there after all, it hears a goodbye."""

    async def converse(wire: Wire, head: Head) -> None:
        await wire.aclose(code, "the device left")

    async with serving(converse) as server, raw_peer(server) as peer:
        assert await peer.receive() == (CLOSE, struct.pack("!H", 1000) + b"the device left")


async def test_invalid_frames_end_the_connection_only() -> None:
    """Text that is no UTF-8 and unmasked frames end one connection; the next is served."""
    wrongs = [(frame(TEXT, b"\xff\xfe"), 1007), (b"\x82\x02hi", 1002), (frame(0xB), 1002)]
    async with serving(echo) as server:
        for wrong, code in wrongs:
            async with raw_peer(server) as peer:
                await peer.stream.send_all(wrong)
                opcode, payload = await peer.receive()
                assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", code))
        async with raw_peer(server) as peer:
            await peer.send(TEXT, b"hi")
            assert await peer.receive() == (TEXT, b"hi")
