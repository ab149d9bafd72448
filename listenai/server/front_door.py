"""One port: WebSocket handshakes become wires, any other HTTP goes to the ASGI application.

A connection's first request decides.  Whatever goes wrong inside a connection stays
inside it: nothing but a cancellation comes out.

While the server drains, the port goes on answering HTTP, so that a load balancer can read
in the health that it should send nobody here any more; new WebSockets are refused.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus

import attrs
import trio
from starlette.types import ASGIApp

from listenai.errors import ConfigurationError
from listenai.server.addresses import TrustedProxies
from listenai.server.head import (
    MAX_HEAD_BYTES,
    BadHead,
    Head,
    Refusal,
    answer,
    check_upgrade,
    parse_head,
)
from listenai.server.splice import BackendUnreachable, HttpBackend, serve_backend
from listenai.server.streams import (
    GONE,
    PeerStream,
    first_byte,
    linger,
    peer_of,
    tune_socket,
)
from listenai.server.websocket import serve_websocket
from listenai.wire import Wire

_log = logging.getLogger(__name__)

Converse = Callable[[Wire, Head], Awaitable[None]]  # one conversation, to its end
Refuse = Callable[[Head], Refusal | None]  # why what is well-formed is not accepted
_TLS_HANDSHAKE = 0x16  # first byte of a TLS connection: RFC 8446, 5.1
_RETRY_AFTER_SECONDS = 5  # by then another server answers at this address, or this one again
_Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]


@attrs.frozen
class Endpoint:
    """Where to listen."""

    port: int = 0  # 0: one that the kernel chooses
    host: str | None = "127.0.0.1"  # None: every interface
    tls: ssl.SSLContext | None = None  # None: ws:// and http://


@attrs.frozen
class Address:
    """Where a server listens."""

    host: str
    port: int
    secure: bool

    def url(self, scheme: str = "http") -> str:
        """The address as a URL of a scheme ("http" or "ws"), with an "s" where it is secure."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}{'s' if self.secure else ''}://{host}:{self.port}"


@attrs.frozen
class DoorDeadlines:
    """How long the front door waits, in seconds."""

    head: float = 10.0  # TLS handshake, head and WebSocket handshake together
    close: float = 2.0  # a goodbye: a peer that does not read cannot hold a shutdown longer
    idle: float = 60.0  # no byte of an HTTP exchange in either direction


def _refuse_nothing(_head: Head) -> Refusal | None:
    return None


async def serve_front_door(
    app: ASGIApp,
    converse: Converse,
    refuse: Refuse,
    *,
    endpoints: Sequence[Endpoint],
    refuse_http: Refuse = _refuse_nothing,
    proxies: TrustedProxies | None = None,
    draining: trio.Event | None = None,
    deadlines: DoorDeadlines | None = None,
    task_status: trio.TaskStatus[Sequence[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled, or until `draining` is set and every conversation has ended.

    app: gets all HTTP that is no WebSocket handshake, with the peer's address and scheme.
    converse: gets a wire and the head it came with; returning closes 1000, an exception is
        logged as `connection_failed` and closes 1011, cancelling closes 1001.
    refuse: why a WebSocket handshake is not accepted.  refuse_http: why another request is not.
    proxies: those that may tell for whom they ask.
    draining: no conversation begins any more, HTTP is answered until the last has ended; the
        caller bounds how long that may take.
    task_status: reports the addresses once connections are accepted, in endpoints' order.

    Raises ConfigurationError for an endpoint that cannot be listened on.
    """
    deadlines = deadlines or DoorDeadlines()
    stop = trio.Event()
    async with trio.open_nursery() as outer:
        start = partial(serve_backend, app, stop=stop, graceful_seconds=deadlines.close)
        backend = await outer.start(start)
        door = _FrontDoor(
            converse,
            refuse,
            refuse_http,
            backend,
            deadlines,
            proxies or TrustedProxies(),
            trio.Event() if draining is None else draining,
        )
        listeners = await _open_listeners(endpoints)
        async with trio.open_nursery() as connections:
            # Survives running out of file descriptors: Trio logs it and tries again.
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept, door.welcome, listeners)
                task_status.started([_address(listener) for listener in listeners])
                await door.wait_drained()
                accepting.cancel_scope.cancel()
            # Requests in progress may end, but not hold the shutdown.
            connections.cancel_scope.deadline = trio.current_time() + deadlines.close
        stop.set()  # only now: the connections' requests are answered


@attrs.define
class _FrontDoor:
    """What every connection is met with."""

    converse: Converse
    refuse: Refuse
    refuse_http: Refuse
    backend: HttpBackend
    deadlines: DoorDeadlines
    proxies: TrustedProxies
    draining: trio.Event
    conversations: int = 0
    _ended: trio.Event = attrs.field(factory=trio.Event)  # a conversation, since it was replaced

    async def wait_drained(self) -> None:
        """Until the server drains and nobody talks any more."""
        await self.draining.wait()
        while self.conversations:
            self._ended = trio.Event()
            await self._ended.wait()

    async def welcome(self, stream: PeerStream) -> None:
        """Serves one connection and closes it; raises nothing but Cancelled."""
        try:
            tune_socket(stream)
            await self._serve(stream)
        except* GONE:
            _log.debug("peer_left")
        except* Exception as failure:
            _log.error("connection_failed", exc_info=failure)
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: PeerStream) -> None:
        deadline = trio.current_time() + self.deadlines.head
        try:
            if isinstance(stream, trio.SSLStream):
                with trio.move_on_at(deadline) as handshake:
                    if not await self._shake_hands(stream):
                        return
                if handshake.cancelled_caught:
                    return  # without TLS there is no way to say so
            with trio.fail_at(deadline):
                head = await _read_head(stream)
            if head is None:
                return
            head = self.proxies.original(head)
            if head.is_upgrade:
                await self._upgrade(stream, head, deadline)
            elif refusal := self.refuse_http(head):
                await self._say(stream, refusal)
            else:
                await self.backend.splice(
                    stream,
                    head,
                    idle_seconds=self.deadlines.idle,
                    linger_seconds=self.deadlines.close,
                )
        except BadHead as error:
            await self._say(stream, error.refusal)
        except BackendUnreachable:
            _log.exception("http_unreachable")
            message = "the server cannot take more requests now; try again"
            await self._say(stream, Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message))
        except trio.TooSlowError:
            message = f"the request head took longer than {self.deadlines.head:g} s"
            await self._say(stream, Refusal(HTTPStatus.REQUEST_TIMEOUT, message))

    async def _shake_hands(self, stream: trio.SSLStream[trio.SocketStream]) -> bool:
        """Begins TLS; False for a peer that has left, or was told that it does not speak it."""
        first = await first_byte(stream.transport_stream)
        if first is None:
            return False
        if first == _TLS_HANDSHAKE:
            await stream.do_handshake()
            return True
        message = "this port speaks TLS only: use https:// or wss://"
        await self._say(stream.transport_stream, Refusal(HTTPStatus.BAD_REQUEST, message))
        return False

    async def _upgrade(self, stream: PeerStream, head: Head, deadline: float) -> None:
        check_upgrade(head)
        if refusal := self._refuse_draining() or self.refuse(head):
            await self._say(stream, refusal)
            return
        self.conversations += 1
        try:
            await serve_websocket(
                stream,
                head,
                lambda wire: self.converse(wire, head),
                handshake_deadline=deadline,
                close_seconds=self.deadlines.close,
            )
        finally:
            self.conversations -= 1
            self._ended.set()

    def _refuse_draining(self) -> Refusal | None:
        if not self.draining.is_set():
            return None
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"the server is going away; try again in {_RETRY_AFTER_SECONDS} s",
            (("Retry-After", str(_RETRY_AFTER_SECONDS)),),
        )

    async def _say(self, stream: PeerStream, refusal: Refusal) -> None:
        with trio.move_on_after(self.deadlines.close):
            await stream.send_all(answer(refusal))
            await linger(stream, self.deadlines.close)


async def _read_head(stream: PeerStream) -> Head | None:
    """The head of a connection; None if the peer sent nothing whole."""
    read = b""
    while (head := parse_head(read)) is None:
        data = await stream.receive_some(MAX_HEAD_BYTES - len(read))
        if not data:
            return None
        read += data
    return attrs.evolve(head, peer=peer_of(stream), secure=isinstance(stream, trio.SSLStream))


async def _open_listeners(endpoints: Sequence[Endpoint]) -> list[_Listener]:
    """All of them or none; raises ConfigurationError with every problem."""
    listeners: list[_Listener] = []
    problems: list[str] = []
    for endpoint in endpoints:
        try:
            opened = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
        except OSError as error:
            place = f"{endpoint.host or 'every interface'}, port {endpoint.port}"
            problems.append(
                f"cannot listen on {place}: {error.strerror}; choose another port or host, "
                "or stop the program that listens there"
            )
            continue
        if endpoint.tls:
            endpoint.tls.set_alpn_protocols(["http/1.1"])
            tls = endpoint.tls
            listeners += [trio.SSLListener(tcp, tls, https_compatible=True) for tcp in opened]
        else:
            listeners += opened
    if problems:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise ConfigurationError(problems)
    return listeners


def _address(listener: _Listener) -> Address:
    secure = isinstance(listener, trio.SSLListener)
    transport = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    assert isinstance(transport, trio.SocketListener)
    host, port = transport.socket.getsockname()[:2]
    return Address(host, port, secure)
