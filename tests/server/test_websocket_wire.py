"""WebSockets as wires: real sockets, an independent client, and raw frames where it is rude."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio
from loopback import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    QUICK,
    TEXT,
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

from listenai.server import websocket
from listenai.server.front_door import DoorDeadlines
from listenai.server.head import Head
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
    monkeypatch.setattr(websocket, "MAX_BYTES_BETWEEN_MESSAGES", 6000)
    async with serving() as server, raw_peer(server) as peer:
        for _ in range(20):
            await peer.send(BINARY, bytes(1000))
            await peer.receive()
        await peer.stream.send_all(frame(BINARY, final=False) + frame(0, final=False) * 1000)
        with pytest.raises((AssertionError, trio.BrokenResourceError)):
            await peer.receive()


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
    """It ends the connection at once instead of after the whole patience for goodbyes."""

    async def converse(wire: Wire, head: Head) -> None:
        pass

    async with (
        serving(converse, deadlines=DoorDeadlines(close=5.0)) as server,
        raw_peer(server) as peer,
    ):
        assert await peer.receive() == (CLOSE, struct.pack("!H", 1000))
        began = trio.current_time()
        await peer.send(PING, b"crossing")
        with pytest.raises((AssertionError, trio.BrokenResourceError)):
            await peer.receive()
        assert trio.current_time() - began < 1.0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


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


async def test_invalid_frames_end_the_connection_only() -> None:
    """Text that is no UTF-8 and unmasked frames end one connection; the next is served."""
    async with serving(echo) as server:
        for wrong in (frame(TEXT, b"\xff\xfe"), b"\x82\x02hi", frame(0xB, b"reserved")):
            async with raw_peer(server) as peer:
                await peer.stream.send_all(wrong)
                with pytest.raises((AssertionError, trio.BrokenResourceError)):
                    await peer.receive()
        async with raw_peer(server) as peer:
            await peer.send(TEXT, b"hi")
            assert await peer.receive() == (TEXT, b"hi")
