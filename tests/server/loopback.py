"""A served door on a port of the kernel's choice, and a peer that speaks raw frames."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from listenai.server.addresses import TrustedProxies
from listenai.server.front_door import (
    Address,
    DoorDeadlines,
    Endpoint,
    Refuse,
    serve_front_door,
)
from listenai.server.head import Head, Refusal
from listenai.wire import DeviceGone, Wire

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = (
    b"GET /ws?model=a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"  # as Firefox
    b"Upgrade: websocket\r\n" + KEY + b"\r\n"
)
GET = b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n"
BIG_BYTES = 8 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
QUICK = DoorDeadlines(head=5.0, close=0.3, idle=5.0)

Converse = Callable[[Wire, Head], Awaitable[None]]


async def echo(wire: Wire, head: Head) -> None:
    """Sends back what comes until the device leaves."""
    while True:
        await wire.send(await wire.receive())


async def silence(wire: Wire, head: Head) -> None:
    """Neither receives nor sends."""
    await trio.sleep_forever()


async def flood(wire: Wire, head: Head) -> None:
    """Sends for ever."""
    while True:
        await wire.send(bytes(1 << 16))


def known_path(head: Head) -> Refusal | None:
    """Refuses all but /ws, as a negotiator does."""
    return None if head.path == "/ws" else Refusal(HTTPStatus.NOT_FOUND, "known paths: /ws")


async def _who(request: Request) -> JSONResponse:
    assert request.client
    client = [request.client.host, request.client.port]
    version = request.scope["asgi"]["spec_version"]
    return JSONResponse({"client": client, "scheme": request.url.scheme, "asgi": version})


async def _count(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


async def _refuse(request: Request) -> JSONResponse:
    return JSONResponse({"answered": "before the body was read"}, status_code=403)


async def _big(request: Request) -> Response:
    return Response(bytes(BIG_BYTES))


async def _break(request: Request) -> JSONResponse:
    raise RuntimeError("a bug of the application")


HTTP_APP = Starlette(
    routes=[
        Route("/who", _who),
        Route("/count", _count, methods=["POST"]),
        Route("/refuse", _refuse, methods=["POST"]),
        Route("/big", _big),
        Route("/break", _break),
    ]
)


@attrs.frozen
class Server:
    """A running front door; leaving `serving` cancels it."""

    addresses: Sequence[Address]
    scope: trio.CancelScope
    stopped: trio.Event

    @property
    def port(self) -> int:
        return self.addresses[0].port

    @property
    def url(self) -> str:
        return self.addresses[0].url("ws") + "/ws"

    async def stop(self) -> float:
        """Cancels the server; the seconds until nothing of it was left."""
        began = trio.current_time()
        self.scope.cancel()
        await self.stopped.wait()
        return trio.current_time() - began


@asynccontextmanager
async def serving(
    converse: Converse = echo,
    *,
    app: ASGIApp = HTTP_APP,
    refuse: Refuse = known_path,
    refuse_http: Refuse = lambda _head: None,
    proxies: TrustedProxies | None = None,
    endpoints: Sequence[Endpoint] = (Endpoint(),),
    deadlines: DoorDeadlines = QUICK,
    draining: trio.Event | None = None,
) -> AsyncIterator[Server]:
    """Runs a front door around a block; a test that hangs fails after 10 s."""
    scope, stopped = trio.CancelScope(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[Sequence[Address]]) -> None:
        serve = partial(
            serve_front_door,
            app,
            converse,
            refuse,
            refuse_http=refuse_http,
            proxies=proxies,
            endpoints=endpoints,
            deadlines=deadlines,
            draining=draining,
        )
        with scope:
            await serve(task_status=task_status)
        stopped.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            addresses: Sequence[Address] = await nursery.start(run)
            try:
                yield Server(addresses, scope, stopped)
            finally:
                scope.cancel()


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A frame as a client sends it, with a mask of zeros."""
    size = len(payload)
    first = bytes([opcode | (0x80 if final else 0)])
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    return first + length + bytes(4) + payload


class RawPeer:
    """A device that sends and reads exactly what a test says."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._read = b""

    async def upgrade(self, more: bytes = b"") -> bytes:
        """Shakes hands, sending more with the request; returns the head of the answer."""
        await self.stream.send_all(UPGRADE + more)
        while b"\r\n\r\n" not in self._read:
            await self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return head

    async def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        await self.stream.send_all(frame(opcode, payload, final=final))

    async def receive(self) -> tuple[int, bytes]:
        """The opcode and payload of the next frame of the server."""
        await self._need(2)
        opcode, size, start = self._read[0] & 0x0F, self._read[1], 2
        if size >= 126:
            start, kind = (4, "!H") if size == 126 else (10, "!Q")
            await self._need(start)
            (size,) = struct.unpack(kind, self._read[2:start])
        await self._need(start + size)
        payload = self._read[start : start + size]
        self._read = self._read[start + size :]
        return opcode, payload

    async def receive_end(self) -> bytes:
        """What still comes until the server closes."""
        rest = [self._read]
        while data := await self.stream.receive_some():
            rest.append(data)
        return b"".join(rest)

    async def _need(self, size: int) -> None:
        while len(self._read) < size:
            await self._more()

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        assert data, "the server closed the connection"
        self._read += data


@asynccontextmanager
async def raw_peer(server: Server, *, upgraded: bool = True) -> AsyncIterator[RawPeer]:
    """A connection of a raw peer, with the handshake done."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        peer = RawPeer(stream)
        if upgraded:
            assert (await peer.upgrade()).startswith(b"HTTP/1.1 101 ")
        yield peer


async def talk(port: int, data: bytes, *, half_close: bool = False) -> bytes:
    """Sends bytes; returns everything that comes until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        if half_close:
            await stream.send_eof()
        return await RawPeer(stream).receive_end()


async def until_gone(wire: Wire) -> None:
    """Receives until the device has left."""
    try:
        while True:
            await wire.receive()
    except DeviceGone:
        return
