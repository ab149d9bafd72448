"""WebSockets between our own processes, both ends: opened, watched and closed within bounds.

Theory.  trio-websocket reads in a task of its own.  Cancelling a connection must not reach that
task, or nobody hears the other side's goodbye: so the task lives in a nursery that is shielded
until the goodbye has had its time.  The stream is ours and not the library's, because the
library waits for the other side's close without a bound.  Whatever goes wrong with the other
side comes out as one of LOST, in a group, from whichever task it was noticed in.

A ping may cross our goodbye.  The library would answer it, which wsproto refuses
(LocalProtocolError), and its reader ends: so does the connection then, and nothing else.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)
from wsproto.utilities import LocalProtocolError

from listenai.services.pool import Unreachable, without_secrets

CLOSE_SECONDS = 2.0  # for the other side's goodbye
RECEIVE_BYTES = 16 * 1024  # at a time
NORMAL, GOING_AWAY, ABNORMAL, INTERNAL, TRY_AGAIN_LATER = 1000, 1001, 1006, 1011, 1013

# What the other side's going away raises.
LOST = (Unreachable, ConnectionClosed, HandshakeError, LocalProtocolError)

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@asynccontextmanager
async def open_socket(
    url: str, *, seconds: float, max_message_bytes: int
) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket to a service, closed at the end of the block; Unreachable when there is none.

    seconds: for the connection and the handshake together.  What is raised comes in a group.
    """
    deadline = trio.current_time() + seconds
    stream = await _connect(url, deadline)
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    async with _library(stream) as (library, goodbye):
        try:
            with trio.fail_at(deadline):
                socket = await wrap_client_stream(
                    library,
                    stream,
                    host,
                    resource,
                    max_message_size=max_message_bytes,
                    receive_buffer_size=RECEIVE_BYTES,
                )
        except trio.TooSlowError:
            raise Unreachable(f"{without_secrets(url)} did not shake hands in time") from None
        async with _closing(socket, goodbye):
            yield socket


@asynccontextmanager
async def accept_socket(
    stream: Stream, *, path: str, seconds: float, max_message_bytes: int
) -> AsyncIterator[WebSocketConnection]:
    """A client's WebSocket, closed at the end of the block; Unreachable when it asks amiss.

    path: the only one that there is.  seconds: for the handshake.  What is raised comes in a
    group.
    """
    async with _library(stream) as (library, goodbye):
        try:
            with trio.fail_after(seconds):
                request = await wrap_server_stream(
                    library,
                    stream,
                    max_message_size=max_message_bytes,
                    receive_buffer_size=RECEIVE_BYTES,
                )
                if urlsplit(request.path).path != path:
                    await request.reject(404, body=f"there is {path} here, and no more".encode())
                    raise Unreachable("the client asked for another path")
                socket = await request.accept()
        except trio.TooSlowError:
            raise Unreachable("the client did not shake hands in time") from None
        except ConnectionClosed as error:
            raise Unreachable("the client left") from error
        async with _closing(socket, goodbye):
            yield socket


def why_lost(error: BaseException) -> str:
    """How a connection ended, in words; of a group, the first that tells."""
    match error:
        case BaseExceptionGroup():
            return why_lost(error.exceptions[0])
        case ConnectionRejected(status_code=status):
            return f"the handshake was answered with {status}"
        case ConnectionClosed(reason=reason) if reason and reason.code != ABNORMAL:
            said = f": {reason.reason}" if reason.reason else ""
            return f"the connection was closed ({reason.code}{said})"
        case ConnectionClosed():
            return "the connection broke off"
        case LocalProtocolError():
            return "the connection is being closed"
    return str(error)


async def _connect(url: str, deadline: float) -> Stream:
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(host, port)
            if not secure:
                return tcp
            tls = trio.SSLStream(
                tcp, ssl.create_default_context(), server_hostname=host, https_compatible=True
            )
            try:
                await tls.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(tls)
                raise
            return tls
    except (OSError, trio.BrokenResourceError) as error:
        reason = why_lost(error.__cause__ or error)
        raise Unreachable(f"no connection to {without_secrets(url)}: {reason}") from error
    except trio.TooSlowError:
        raise Unreachable(f"no connection to {without_secrets(url)} in time") from None


@asynccontextmanager
async def _library(stream: Stream) -> AsyncIterator[tuple[trio.Nursery, trio.CancelScope]]:
    """A shielded nursery for the library's reader, the scope of our goodbye, the stream's end."""
    goodbye = trio.CancelScope(shield=True)
    try:
        async with trio.open_nursery() as nursery:
            # Shielded: a task that starts in a cancelled scope is not handed over, and this one
            # would sleep where nobody can wake it.
            with trio.CancelScope(shield=True):
                library: trio.Nursery = await nursery.start(_hold_nursery, goodbye)
            try:
                yield library, goodbye
            finally:
                library.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _hold_nursery(
    goodbye: trio.CancelScope, *, task_status: trio.TaskStatus[trio.Nursery]
) -> None:
    with trio.CancelScope(shield=True):
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
        except* LocalProtocolError:
            goodbye.cancel()  # nobody is left to hear it answered


@asynccontextmanager
async def _closing(socket: WebSocketConnection, goodbye: trio.CancelScope) -> AsyncIterator[None]:
    """Says goodbye: 1000, 1001 when cancelled, 1011 after an exception."""
    code = GOING_AWAY
    try:
        yield
        code = NORMAL
    except Exception:
        code = INTERNAL
        raise
    finally:
        goodbye.deadline = trio.current_time() + CLOSE_SECONDS
        with goodbye:
            await socket.aclose(code)
