"""The scripted device's WebSocket: opened, closed and explained, every wait bounded.

The stream is ours and not the library's: it leaves the stream open, and waits for it
without a bound, where the server was the first to say goodbye.
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
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError

from listenai.errors import ListenAIError

CLOSE_SECONDS = 2.0  # for the server's goodbye
SAID_OF_REFUSAL = 200  # bytes of the server's answer that are shown

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class ServerUnreachable(ListenAIError):
    """No session: nobody there, no WebSocket, or refused."""


class ConnectionLost(ListenAIError):
    """The server closed the connection."""


def why_closed(error: ConnectionClosed) -> str:
    """How a connection ended, in words."""
    if error.reason is None:
        return "the connection broke off"
    said = f": {error.reason.reason}" if error.reason.reason else ""
    return f"the server closed the connection ({error.reason.code}{said})"


@asynccontextmanager
async def open_socket(
    url: str, api_key: str | None, seconds: float
) -> AsyncIterator[tuple[WebSocketConnection, trio.Nursery]]:
    """A WebSocket, and a nursery whose tasks end with the block; `seconds` to connect.

    What the block raises comes out as it is, without a group.  Raises ServerUnreachable,
    and ConnectionLost when the server does not answer the goodbye.
    """
    headers = [] if api_key is None else [(b"Authorization", f"Bearer {api_key}".encode())]
    raised: Exception | None = None
    deadline = trio.current_time() + seconds
    stream = await _open_stream(url, deadline)
    try:
        async with trio.open_nursery() as nursery:
            socket = await _shake_hands(nursery, stream, url, headers, deadline)
            try:
                yield socket, nursery
            except Exception as error:
                raised = error
            with trio.move_on_after(CLOSE_SECONDS) as goodbye:
                await socket.aclose()
            nursery.cancel_scope.cancel()
            if goodbye.cancelled_caught and raised is None:
                raised = ConnectionLost(
                    f"the server did not answer our goodbye within {CLOSE_SECONDS:g} s"
                )
    except BaseExceptionGroup as group:
        # A ping may cross our goodbye: the library would answer it, which wsproto refuses.
        _, rest = group.split(LocalProtocolError)
        if rest is not None:
            raise _flat(rest, url) from None
    finally:
        await trio.aclose_forcefully(stream)
    if raised is not None:
        raise raised


async def _open_stream(url: str, deadline: float) -> Stream:
    try:
        parts = urlsplit(url)
        host, secure = parts.hostname, parts.scheme == "wss"
        port = parts.port or (443 if secure else 80)
    except ValueError as error:
        raise ServerUnreachable(f"no session at {url}: {error}") from None
    if host is None:
        raise ServerUnreachable(f"no session at {url}: an address is like ws://127.0.0.1:9400/")
    try:
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(host, port)
            if not secure:
                return tcp
            context = ssl.create_default_context()
            tls = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
            try:
                await tls.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(tls)
                raise
            return tls
    except (OSError, trio.BrokenResourceError) as error:
        reason = error.__cause__ or error
        raise ServerUnreachable(
            f"no session at {url}: {reason}; is the server running there?"
        ) from error
    except trio.TooSlowError:
        raise ServerUnreachable(f"no session at {url}: no connection in time") from None


async def _shake_hands(
    nursery: trio.Nursery,
    stream: Stream,
    url: str,
    headers: list[tuple[bytes, bytes]],
    deadline: float,
) -> WebSocketConnection:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with trio.fail_at(deadline):
            return await wrap_client_stream(nursery, stream, host, resource, extra_headers=headers)
    except trio.TooSlowError:
        raise ServerUnreachable(
            f"no session at {url}: no answer to the WebSocket handshake in time; "
            "is this a ListenAI server?"
        ) from None


def _flat(group: BaseExceptionGroup[BaseException], url: str) -> BaseException:
    """What the caller should see of what went wrong in the nursery."""
    if len(group.exceptions) > 1:
        return group
    match group.exceptions[0]:
        case ConnectionRejected(status_code=status, body=body):
            said = (body or b"")[:SAID_OF_REFUSAL].decode(errors="replace")
            return ServerUnreachable(
                f"no session at {url}: the server answered {status} {said}".rstrip()
            )
        case (ServerUnreachable() | KeyboardInterrupt()) as alone:
            return alone
    return group
