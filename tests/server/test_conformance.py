"""RFC 6455 on a real socket: what a device may send, what it may not, and what it is told.

The peers are two independent libraries, and raw frames where a library refuses to misbehave.
Every test also asserts that the conversation ended as DeviceGone and that no task is left.
"""

from __future__ import annotations

import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import attrs
import pytest
import trio
from loopback import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    RawPeer,
    Server,
    frame,
    raw_peer,
    serving,
)
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from listenai.server import frames
from listenai.server.frames import MAX_MESSAGE_BYTES
from listenai.server.front_door import DoorDeadlines, Endpoint
from listenai.server.head import Head
from listenai.wire import DeviceGone, Message, Wire

pytestmark = pytest.mark.usefixtures("nothing_left")

CONTINUATION = 0
LENGTHS = (0, 1, 125, 126, 127, 65535, 65536)  # around each coding of the length
NOT_UTF8 = {
    "never a start": b"ab\xff",
    "cut short": "€".encode()[:2],
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


def closing(code: int, reason: bytes = b"") -> bytes:
    """The payload of a close frame."""
    return struct.pack("!H", code) + reason


# --- the server's side: an echo that is seen to end ----------------------------------------


@attrs.define
class Conversation:
    """What a conversation received, and that the device's leaving ended it."""

    received: list[Message] = attrs.field(factory=list)
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def echo(self, wire: Wire, head: Head) -> None:
        try:
            while True:
                self.received.append(await wire.receive())
                await wire.send(self.received[-1])
        except DeviceGone:
            self.ended.set()


@asynccontextmanager
async def conversing() -> AsyncIterator[tuple[Server, Conversation]]:
    """An echo server; when the block ends, its one conversation must have met DeviceGone."""
    conversation = Conversation()
    async with serving(conversation.echo) as server:
        yield server, conversation
        with trio.fail_after(2):
            await conversation.ended.wait()


@asynccontextmanager
async def raw_conversing() -> AsyncIterator[tuple[RawPeer, Conversation]]:
    async with conversing() as (server, conversation), raw_peer(server) as peer:
        yield peer, conversation


async def assert_told(peer: RawPeer, code: int) -> None:
    """The next frame says goodbye with this code; then TCP ends without a reset."""
    opcode, payload = await peer.receive()
    assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code), payload
    payload[2:].decode()  # a reason is UTF-8 too
    assert await peer.receive_end() == b""


# --- two libraries as peers -----------------------------------------------------------------


class Peer(Protocol):
    """What both libraries can do."""

    stream: trio.SocketStream

    async def send(self, opcode: int, payload: bytes, *, final: bool = True) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    async def receive(self) -> tuple[int, bytes]:
        """A whole message, a pong, or the server's goodbye, which the library answers."""


class WsprotoPeer:
    """A client on wsproto."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.library = stream, WSConnection(ConnectionType.CLIENT)

    async def open(self) -> None:
        await self.stream.send_all(self.library.send(ws.Request("x", "/ws")))
        assert isinstance(await self._next(), ws.AcceptConnection)

    async def send(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        event: ws.Event
        if opcode == PING:
            event = ws.Ping(payload)
        elif opcode == PONG:
            event = ws.Pong(payload)
        elif opcode == TEXT:
            event = ws.TextMessage(payload.decode(), message_finished=final)
        else:
            event = ws.BytesMessage(payload, message_finished=final)
        await self.stream.send_all(self.library.send(event))

    async def close(self, code: int, reason: str) -> None:
        await self.stream.send_all(self.library.send(ws.CloseConnection(code, reason)))

    async def receive(self) -> tuple[int, bytes]:
        whole = b""
        while True:
            match await self._next():
                case ws.TextMessage(data=text, message_finished=final):
                    whole += text.encode()
                    if final:
                        return TEXT, whole
                case ws.BytesMessage(data=data, message_finished=final):
                    whole += data
                    if final:
                        return BINARY, whole
                case ws.Pong(payload=payload):
                    return PONG, bytes(payload)
                case ws.CloseConnection(code=code) as event:
                    if self.library.state.name == "REMOTE_CLOSING":
                        await self.stream.send_all(self.library.send(event.response()))
                    return CLOSE, closing(code)

    async def _next(self) -> ws.Event:
        while (event := next(self.library.events(), None)) is None:
            data = await self.stream.receive_some()
            assert data, "the server closed the connection"
            self.library.receive_data(data)
        return event


class WebsocketsPeer:
    """A client on the core of websockets."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.library = stream, ClientProtocol(parse_uri("ws://x/ws"), max_size=None)
        self._frames: list[object] = []
        self._in_message = False

    async def open(self) -> None:
        self.library.send_request(self.library.connect())
        await self._flush()
        await self._next()
        assert self.library.handshake_exc is None

    async def send(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        if opcode in (PING, PONG):
            send = self.library.send_ping if opcode == PING else self.library.send_pong
            send(payload)
        elif self._in_message:
            self.library.send_continuation(payload, final)
        elif opcode == TEXT:
            self.library.send_text(payload, final)
        else:
            self.library.send_binary(payload, final)
        self._in_message = self._in_message if opcode in (PING, PONG) else not final
        await self._flush()

    async def close(self, code: int, reason: str) -> None:
        self.library.send_close(code, reason)
        await self._flush()

    async def receive(self) -> tuple[int, bytes]:
        got = await self._next()
        assert isinstance(got, Frame)
        assert got.fin  # of the server, always
        return int(got.opcode), bytes(got.data)

    async def _next(self) -> object:
        while not self._frames:
            data = await self.stream.receive_some()
            assert data, "the server closed the connection"
            self.library.receive_data(data)
            self._frames += self.library.events_received()
            await self._flush()
        return self._frames.pop(0)

    async def _flush(self) -> None:
        for data in self.library.data_to_send():
            if data:
                await self.stream.send_all(data)


@pytest.fixture(params=[WsprotoPeer, WebsocketsPeer])
def library(
    request: pytest.FixtureRequest,
) -> Callable[[trio.SocketStream], WsprotoPeer | WebsocketsPeer]:
    return request.param


Library = Callable[[trio.SocketStream], WsprotoPeer | WebsocketsPeer]


@asynccontextmanager
async def peer_of(library: Library, server: Server) -> AsyncIterator[Peer]:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        peer = library(stream)
        await peer.open()
        yield peer


# --- messages -------------------------------------------------------------------------------


async def test_every_coding_of_a_length_passes_both_ways(library: Library) -> None:
    """Text and binary of the lengths around 125, 126, 65535 and 65536, really masked."""
    async with conversing() as (server, _), peer_of(library, server) as peer:
        for length in LENGTHS:
            for opcode in (TEXT, BINARY):
                payload = bytes(index % 128 for index in range(length))
                await peer.send(opcode, payload)
                assert await peer.receive() == (opcode, payload)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_fragments_are_joined_and_pings_between_them_answered(
    library: Library, opcode: int
) -> None:
    """Empty fragments count for nothing; the pongs come before the message."""
    async with conversing() as (server, _), peer_of(library, server) as peer:
        for index, part in enumerate([b"", b"one ", b"", b"two ", b"three"]):
            await peer.send(opcode, part, final=False)
            await peer.send(PING, b"%d" % index)
            assert await peer.receive() == (PONG, b"%d" % index)
        await peer.send(opcode, b"")
        assert await peer.receive() == (opcode, b"one two three")


async def test_pongs_nobody_asked_for_are_ignored(library: Library) -> None:
    """Neither an answer nor an error; also one that looks like an answer to our first ping."""
    async with conversing() as (server, conversation), peer_of(library, server) as peer:
        for payload in (b"", b"unasked", struct.pack("!Q", 1), bytes(125)):
            await peer.send(PONG, payload)
        await peer.send(TEXT, b"on")
        assert await peer.receive() == (TEXT, b"on")
    assert conversation.received == ["on"]


async def test_pings_of_every_size_are_answered_in_order() -> None:
    """Empty ones, full ones, and ten in one segment: each its own payload."""
    async with raw_conversing() as (peer, _):
        for payload in (b"", b"\x00\xff", bytes(125)):
            await peer.send(PING, payload)
            assert await peer.receive() == (PONG, payload)
        await peer.stream.send_all(b"".join(frame(PING, b"%d" % index) for index in range(10)))
        assert [await peer.receive() for _ in range(10)] == [
            (PONG, b"%d" % index) for index in range(10)
        ]


async def test_a_mask_is_taken_off() -> None:
    """The example of RFC 6455, 5.7: "Hello" as a masked frame, whole and in two fragments."""
    async with raw_conversing() as (peer, conversation):
        await peer.stream.send_all(bytes.fromhex("818537fa213d7f9f4d5158"))
        assert await peer.receive() == (TEXT, b"Hello")
        await peer.stream.send_all(frame(TEXT, b"Hel", final=False) + frame(CONTINUATION, b"lo"))
        assert await peer.receive() == (TEXT, b"Hello")
    assert conversation.received == ["Hello", "Hello"]


async def test_a_character_may_be_split_anywhere() -> None:
    """Each byte of the text in a fragment of its own."""
    text = "a ü 你 🎤"
    first, *middle = (bytes([byte]) for byte in text.encode())
    async with raw_conversing() as (peer, conversation):
        await peer.send(TEXT, first, final=False)
        for byte in middle:
            await peer.send(CONTINUATION, byte, final=False)
        await peer.send(CONTINUATION)
        assert await peer.receive() == (TEXT, text.encode())
    assert conversation.received == [text]


async def test_bytes_may_come_one_at_a_time() -> None:
    """The whole of a connection: handshake, text in fragments, ping, binary, close."""
    talk = (
        UPGRADE
        + frame(TEXT, b"gr", final=False)
        + frame(PING, b"?")
        + frame(CONTINUATION, "üß".encode())
        + frame(BINARY, bytes(130))
        + frame(CLOSE, closing(1000))
    )
    async with conversing() as (server, conversation), raw_peer(server, upgraded=False) as peer:
        peer.stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        for byte in talk:
            await peer.stream.send_all(bytes([byte]))
        _, _, answers = (await peer.receive_end()).partition(b"\r\n\r\n")
    assert answers == (
        b"\x8a\x01?"
        + b"\x81\x06"
        + "grüß".encode()
        + (b"\x82\x7e\x00\x82" + bytes(130))
        + (b"\x88\x02" + closing(1000))
    )
    assert conversation.received == ["grüß", bytes(130)]


async def test_frames_that_come_with_the_handshake_are_served() -> None:
    """All of them at once, without another byte being needed."""
    async with conversing() as (server, _), raw_peer(server, upgraded=False) as peer:
        await peer.upgrade(frame(TEXT, b"one") + frame(PING, b"two") + frame(BINARY, b"three"))
        got = sorted([await peer.receive() for _ in range(3)])
        assert got == [(TEXT, b"one"), (BINARY, b"three"), (PONG, b"two")]


# --- what breaks the protocol ------------------------------------------------------------------

START = frame(BINARY, b"begun", final=False)
VIOLATIONS = {
    "an unmasked frame": (b"\x82\x02hi", 1002),
    "an unmasked ping": (b"\x89\x00", 1002),
    "RSV1, as compression has it": (frame(TEXT | 0x40, b"hi"), 1002),
    "RSV2": (frame(BINARY | 0x20), 1002),
    "RSV3 on a ping": (frame(PING | 0x10), 1002),
    "RSV1 on a continuation": (START + frame(CONTINUATION | 0x40), 1002),
    **{f"opcode {code}": (frame(code, b"hi"), 1002) for code in (3, 7, 11, 15)},
    "a fragmented ping": (frame(PING, b"hi", final=False), 1002),
    "a fragmented pong": (frame(PONG, final=False), 1002),
    "a fragmented close": (frame(CLOSE, closing(1000), final=False), 1002),
    "a ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "a pong of 65536 bytes": (frame(PONG, bytes(65536)), 1002),
    "a close of 126 bytes": (frame(CLOSE, closing(1000, bytes(124))), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"hi"), 1002),
    "an unfinished continuation of nothing": (frame(CONTINUATION, final=False), 1002),
    "a continuation of a finished message": (START + 2 * frame(CONTINUATION), 1002),
    "text inside a message": (START + frame(TEXT, b"hi"), 1002),
    "a second start": (START + START, 1002),
    "a close inside a message": (START + frame(CLOSE, closing(1000)), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a reason that is no UTF-8": (frame(CLOSE, closing(1000, b"\xff")), 1007),
    **{f"text {kind}": (frame(TEXT, wrong), 1007) for kind, wrong in NOT_UTF8.items()},
    "text that begins inside a character": (
        frame(TEXT, b"", final=False) + frame(CONTINUATION, "€".encode()[1:]),
        1007,
    ),
    "text spoilt in its second fragment": (
        frame(TEXT, b"fine", final=False) + frame(CONTINUATION, b"\xc3("),
        1007,
    ),
    "a length over the limit": (b"\x82\xff" + struct.pack("!Q", MAX_MESSAGE_BYTES + 1), 1009),
    "a length of 2**63": (b"\x82\xff" + struct.pack("!Q", 1 << 63), 1009),
    "fragments over the limit": (
        frame(BINARY, bytes(3 << 20), final=False) + frame(CONTINUATION, bytes((1 << 20) + 1)),
        1009,
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_is_told_by_its_code(name: str) -> None:
    """A close frame with the code, then an end of TCP; the message itself never arrives."""
    wrong, code = VIOLATIONS[name]
    async with raw_conversing() as (peer, conversation):
        await peer.send(TEXT, b"fine")
        assert await peer.receive() == (TEXT, b"fine")
        await peer.stream.send_all(wrong)
        await assert_told(peer, code)
    begun = ["fine", b"begun"] if name == "a continuation of a finished message" else ["fine"]
    assert conversation.received == begun


async def test_what_came_before_a_violation_is_received() -> None:
    """Whole messages count, although the violation came in the same segment."""
    async with raw_conversing() as (peer, conversation):
        await peer.stream.send_all(frame(TEXT, b"one") + frame(BINARY, b"two") + frame(0xF))
        assert (await peer.receive())[0] == CLOSE
    assert conversation.received[0] == "one"  # its echo ended the conversation


async def test_a_violation_is_told_although_a_goodbye_follows_it() -> None:
    """The code is that of the first problem, not the echo of the close behind it."""
    async with raw_conversing() as (peer, _):
        await peer.stream.send_all(frame(TEXT, b"\xff") + frame(CLOSE, closing(1000)))
        await assert_told(peer, 1007)


async def test_a_message_in_too_many_fragments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as allowed pass, however many messages; one more is told by 1008."""
    monkeypatch.setattr(frames, "MAX_FRAGMENTS", 10)
    start, more = frame(BINARY, b"a", final=False), frame(CONTINUATION, b"b", final=False)
    async with raw_conversing() as (peer, _):
        for _ in range(3):
            await peer.stream.send_all(start + more * 8 + frame(CONTINUATION, b"c"))
            assert await peer.receive() == (BINARY, b"abbbbbbbbc")
        await peer.stream.send_all(start + more * 9)
        await assert_told(peer, 1008)


# --- goodbyes --------------------------------------------------------------------------------

ALLOWED_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
FORBIDDEN_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", ALLOWED_CODES)
async def test_an_allowed_code_is_echoed(code: int) -> None:
    """With its reason; then TCP ends."""
    async with raw_conversing() as (peer, _):
        await peer.send(CLOSE, closing(code, "tschüß".encode()))
        await assert_told(peer, code)


@pytest.mark.parametrize("code", FORBIDDEN_CODES)
async def test_a_forbidden_code_breaks_the_protocol(code: int) -> None:
    """Codes that no endpoint may send are answered 1002."""
    async with raw_conversing() as (peer, _):
        await peer.send(CLOSE, closing(code))
        await assert_told(peer, 1002)


@pytest.mark.parametrize("payload", [b"", closing(1000, b"a" * 123)], ids=["empty", "longest"])
async def test_the_shortest_and_the_longest_goodbye_are_echoed(payload: bytes) -> None:
    """A close frame without a code, and one of 125 bytes."""
    async with raw_conversing() as (peer, _):
        await peer.send(CLOSE, payload)
        assert await peer.receive() == (CLOSE, payload)
        assert await peer.receive_end() == b""


async def test_the_device_may_say_goodbye(library: Library) -> None:
    """Both libraries call the handshake complete."""
    async with conversing() as (server, _), peer_of(library, server) as peer:
        await peer.close(4321, "enough")
        opcode, payload = await peer.receive()
        assert (opcode, payload[:2]) == (CLOSE, closing(4321))


async def test_the_server_may_say_goodbye(library: Library) -> None:
    """The library answers by itself, and the server ends TCP when it has."""
    closed = trio.Event()

    async def converse(wire: Wire, head: Head) -> None:
        await wire.aclose(4001, "another connection took over")
        closed.set()

    patience = DoorDeadlines(close=5.0)
    async with serving(converse, deadlines=patience) as server, peer_of(library, server) as peer:
        opcode, payload = await peer.receive()
        assert (opcode, payload[:2]) == (CLOSE, closing(4001))
        assert await peer.stream.receive_some() == b""
        await peer.stream.aclose()
        with trio.fail_after(1):  # well before the patience is used up
            await closed.wait()


async def test_what_comes_after_a_goodbye_is_ignored() -> None:
    """Messages, pings and nonsense behind a close frame change nothing and are not received."""
    after = frame(TEXT, b"too late") + frame(PING) + b"\xff" * 5000
    async with raw_conversing() as (peer, conversation):
        await peer.stream.send_all(frame(CLOSE, closing(1000)) + after)
        await assert_told(peer, 1000)
    assert conversation.received == []


async def test_what_crosses_our_goodbye_is_not_received() -> None:
    """Messages and pings on their way are thrown away; the device's goodbye is waited for."""
    late: list[Message] = []

    async def converse(wire: Wire, head: Head) -> None:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                with pytest.raises(DeviceGone):
                    late.append(await wire.receive())

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            await wire.aclose(1000)

    async with serving(converse) as server, raw_peer(server) as peer:
        assert await peer.receive() == (CLOSE, closing(1000))
        await peer.stream.send_all(frame(TEXT, b"crossing") + frame(PING, b"crossing"))
        with trio.move_on_after(0.05) as waiting:
            await peer.stream.receive_some()
        assert waiting.cancelled_caught  # TCP does not end before both have said goodbye
        await peer.send(CLOSE, closing(1000))
        assert await peer.receive_end() == b""
    assert late == []


async def test_both_may_say_goodbye_at_once() -> None:
    """Ours crosses theirs: one close frame each, then the end."""

    async def converse(wire: Wire, head: Head) -> None:
        await wire.receive()
        await wire.aclose(4002)

    async with serving(converse) as server, raw_peer(server) as peer:
        await peer.stream.send_all(frame(TEXT, b"go") + frame(CLOSE, closing(4003)))
        opcode, payload = await peer.receive()
        assert opcode == CLOSE
        assert payload in (closing(4002), closing(4003))
        assert await peer.receive_end() == b""


# --- TCP that ends too early ---------------------------------------------------------------------

CUT_OFF = {
    "between messages": b"",
    "in a header": b"\x82",
    "in a length": b"\x82\xfe\x01",
    "in a mask": b"\x82\x85ab",
    "in a payload": frame(BINARY, bytes(1000))[:500],
    "inside a message": START,
}


@pytest.mark.parametrize("place", CUT_OFF)
async def test_a_half_close_without_a_goodbye_ends_the_conversation(place: str) -> None:
    """No close frame is owed to a device that has hung up; TCP ends on our side too."""
    async with raw_conversing() as (peer, conversation):
        await peer.stream.send_all(CUT_OFF[place])
        await peer.stream.send_eof()
        assert await peer.receive_end() == b""
    assert conversation.received == []


@pytest.mark.parametrize("place", CUT_OFF)
async def test_a_reset_ends_the_conversation(place: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a frame as well as between; nothing is logged as a failure."""
    async with raw_conversing() as (peer, conversation):
        await peer.stream.send_all(CUT_OFF[place])
        await trio.testing.wait_all_tasks_blocked(0.01)
        reset = struct.pack("ii", 1, 0)
        peer.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, reset)
        await peer.stream.aclose()
    assert conversation.received == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# --- over TLS, which has no half-close --------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server with a throwaway certificate, and for a client that trusts it."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    names = "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command = f"openssl req {options} {names} -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(f"{path}.crt", path)
    return ours, ssl.create_default_context(cafile=f"{path}.crt")


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@asynccontextmanager
async def tls_peer(server: Server, contexts: Contexts) -> AsyncIterator[RawPeer]:
    stream = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", server.port, ssl_context=contexts[1], https_compatible=True
    )
    async with stream:
        peer = RawPeer(stream)
        assert (await peer.upgrade()).startswith(b"HTTP/1.1 101 ")
        yield peer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(CLOSE, closing(1000)), 1000),
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, bytes(5 << 20)), 1009),
    ],
    ids=["goodbye", "no UTF-8", "too big"],
)
async def test_endings_over_tls_are_told_and_bounded(
    contexts: Contexts, data: bytes, code: int
) -> None:
    """The code arrives, and a device that waits for us to close does not wait in vain."""
    conversation = Conversation()
    endpoint = Endpoint(tls=contexts[0])
    async with serving(conversation.echo, endpoints=[endpoint]) as server:
        async with tls_peer(server, contexts) as peer:
            await peer.stream.send_all(data)
            opcode, payload = await peer.receive()
            assert (opcode, payload[:2]) == (CLOSE, closing(code))
            with trio.fail_after(1), suppress(trio.BrokenResourceError):
                assert await peer.receive_end() == b""
        await conversation.ended.wait()


async def test_going_away_is_told_over_tls_unless_a_record_was_cut(contexts: Contexts) -> None:
    """1001 for a device that reads; one that is in the middle of a message is cut off in time."""

    async def converse(wire: Wire, head: Head) -> None:
        await wire.send(bytes((8 << 20) if await wire.receive() == "much" else 1))
        await trio.sleep_forever()

    async with (
        serving(converse, endpoints=[Endpoint(tls=contexts[0])]) as server,
        tls_peer(server, contexts) as reads,
        tls_peer(server, contexts) as deaf,
    ):
        await deaf.send(TEXT, b"much")
        await reads.send(TEXT, b"little")
        assert await reads.receive() == (BINARY, b"\0")
        await trio.testing.wait_all_tasks_blocked(0.05)
        began = trio.current_time()
        server.scope.cancel()
        assert await reads.receive() == (CLOSE, closing(1001))
        await reads.send(CLOSE, closing(1001))
        await server.stopped.wait()
        assert trio.current_time() - began < 1.0
