"""HTTP behind the front door: a Hypercorn on a private loopback port, and the splice to it.

What was learned by trying: Hypercorn takes a client's half-close for its leaving and
drops the answer, so a half-close is not passed on; a pooled proxy connection may
carry a WebSocket handshake after a request, which Hypercorn would refuse, so every
answer says `Connection: close`; Hypercorn cuts such an answer short when anything
follows the request, so nothing that does is passed on; and below ASGI 2.4
Starlette's FileResponse races a disconnect that Hypercorn sends from inside the
last `send`, and hangs if it loses.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from functools import partial
from typing import Any, cast

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from listenai.server.head import Head
from listenai.server.streams import GONE, PeerStream, ReplayedStream, linger

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_CHUNK_BYTES = 64 * 1024  # one read of either side; two of them are all a splice buffers
_ASGI_VERSION = "2.4"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class BackendUnreachable(Exception):
    """No connection to the HTTP application could be made; the machine is out of something."""


@attrs.define
class _Watch:
    """Ends a splice through which nothing has passed for a while."""

    scope: trio.CancelScope
    idle_seconds: float

    def moved(self) -> None:
        self.scope.deadline = trio.current_time() + self.idle_seconds


@attrs.frozen
class HttpBackend:
    """The HTTP application on its private port."""

    port: int
    heads: dict[tuple[str, int], Head]  # by the splice's own address: who is really asking

    async def splice(
        self, stream: PeerStream, head: Head, *, idle_seconds: float, linger_seconds: float
    ) -> None:
        """Lets the application answer a connection; ends when it has, or when nothing moves.

        Raises BackendUnreachable.  Leaves closing the stream to the caller.
        """
        try:
            backend = await trio.open_tcp_stream(_LOOPBACK, self.port)
        except OSError as error:
            raise BackendUnreachable(str(error)) from error
        head = _without_upgrade(head)
        splice: tuple[str, int] = backend.socket.getsockname()
        self.heads[splice] = head
        answered = False
        try:
            async with backend, trio.open_nursery() as nursery:
                watch = _Watch(nursery.cancel_scope, idle_seconds)
                request = ReplayedStream(stream, head.read)
                nursery.start_soon(_upload, request, backend, watch, head.request_bytes)
                await _pump(backend, stream, watch)
                answered = True
                nursery.cancel_scope.cancel()
        except* GONE:  # either side left, which is how connections end
            pass
        finally:
            del self.heads[splice]
        if answered:
            await linger(stream, linger_seconds)


def _without_upgrade(head: Head) -> Head:
    """The head without an offer to speak something else, which may be ignored (RFC 9110, 7.8).

    Hypercorn would go over to HTTP/2, of whose requests the front door knows nothing.
    """
    if not head.values("upgrade"):
        return head
    kept, rest = head.read[: head.size], head.read[head.size :]
    return attrs.evolve(head, read=_UPGRADE.sub(b"\r\nX-Upgrade:", kept) + rest)


async def _upload(
    source: trio.abc.Stream, backend: trio.SocketStream, watch: _Watch, limit: int | None
) -> None:
    """The request, and nothing after it; its end is not passed on.

    A backend may answer and close before it has read everything; the answer still counts.
    """
    with suppress(*GONE):
        await _pump(source, backend, watch, limit)


async def _pump(
    source: trio.abc.Stream, sink: trio.abc.Stream, watch: _Watch, limit: int | None = None
) -> None:
    """Passes bytes on until the source ends or the limit is reached."""
    passed = 0
    while limit is None or passed < limit:
        room = _CHUNK_BYTES if limit is None else min(_CHUNK_BYTES, limit - passed)
        data = await source.receive_some(room)
        if not data:
            return
        watch.moved()
        await sink.send_all(data)
        watch.moved()
        passed += len(data)


async def serve_backend(
    app: ASGIApp,
    *,
    stop: trio.Event,
    graceful_seconds: float,
    task_status: trio.TaskStatus[HttpBackend] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves the application on a port of the kernel's choice until `stop` is set."""
    config = Config()
    config.bind = [f"{_LOOPBACK}:0"]
    config.accesslog = None
    config.errorlog = _error_log()
    config.graceful_timeout = graceful_seconds
    config.include_server_header = False
    heads: dict[tuple[str, int], Head] = {}
    serve = partial(
        hypercorn.trio.serve,
        cast(Any, _as_asked(app, heads)),  # Hypercorn and Starlette name the same thing twice
        config,
        shutdown_trigger=stop.wait,
    )
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(serve)
        task_status.started(HttpBackend(int(binds[0].rpartition(":")[2]), heads))


def _error_log() -> logging.Logger:
    """Hypercorn's own; it announces the private port at a level that nobody should see."""
    log = logging.getLogger(f"{__name__}.hypercorn")
    log.setLevel(logging.WARNING)
    return log


def _as_asked(app: ASGIApp, heads: dict[tuple[str, int], Head]) -> ASGIApp:
    """Puts back the peer and scheme that the splice hides; makes each answer the last one.

    The private port can be reached by every program on this machine.  Who does not come through
    a splice was not asked for a key by the front door, and is sent there.
    """

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                kept = [pair for pair in given if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
            await send(message)

        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] == "http" and (head := heads.get(tuple(scope["client"]))):
            asgi = {**scope["asgi"], "spec_version": _ASGI_VERSION}
            scheme = "https" if head.secure else "http"
            asked_as = {**scope, "asgi": asgi, "client": head.peer, "scheme": scheme}
            await app(asked_as, receive, send_last)
        else:
            refuse = PlainTextResponse("connect to the server's own port\n", status_code=403)
            await refuse(scope, receive, send_last)

    return asked
