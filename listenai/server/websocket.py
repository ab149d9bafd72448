"""A WebSocket as a wire, on trio-websocket.

Theory.  The library reads in a task of its own, and it is that task which sees
the peer's half of the closing handshake.  A cancellation from outside would
reach it before our goodbye is said, so from the moment a connection stands it is
shielded, and `WebSocketWire.aclose`, which is bounded, is what ends it.

Nothing is buffered between the reader and `receive`: a message not asked for
stops the reader, the kernel's buffer fills, and the device has to wait.

Two frames never mix and never overtake: the library serialises a message the
moment `send` is called, then takes a first-come-first-served lock.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from listenai.server.head import Head
from listenai.server.streams import PeerStream, ReplayedStream, linger
from listenai.wire import DeviceGone, Message, Wire

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # PROTOCOLS.md; of text, characters
# The library counts the contents of a message only.  Empty fragments have none, and each costs
# memory, so what may come in between two messages is bounded too: headers add a quarter.
MAX_BYTES_BETWEEN_MESSAGES = MAX_MESSAGE_BYTES * 5 // 4
QUEUED_MESSAGES = 0  # a rendezvous with the reader: one message of 4 MiB in memory, not two
RECEIVE_BYTES = 16 * 1024  # at a time; a third of the CPU of the library's 4 KiB is saved

NORMAL, GOING_AWAY, TOO_BIG, INTERNAL = 1000, 1001, 1009, 1011  # close codes: RFC 6455, 7.4.1


class _LibraryStream(ReplayedStream):
    """What the library reads from: the request, and the rest when it can understand it.

    The library notices frames that came before its own answer only when others follow them.
    """

    def __init__(self, stream: PeerStream, head: Head) -> None:
        super().__init__(stream, head.read[head.size :])
        self.accepted = trio.Event()  # set when the rest may be read
        self.closed = trio.Event()  # the library has called `aclose`
        self.allowance = MAX_BYTES_BETWEEN_MESSAGES  # bytes it may still receive
        self._request = ReplayedStream(stream, head.read[: head.size])
        self._request_bytes = head.size

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Raises BrokenResourceError once the allowance is used up."""
        if self._request_bytes:
            data = await self._request.receive_some(max_bytes)
            self._request_bytes -= len(data)
            return data
        await self.accepted.wait()
        data = await super().receive_some(max_bytes)
        self.allowance -= len(data)
        if self.allowance < 0:
            _log.warning("message_never_ends: too many bytes since the last whole message")
            raise trio.BrokenResourceError("too many bytes for one message")
        return data

    async def aclose(self) -> None:
        """Closes the connection."""
        self.closed.set()
        await super().aclose()


class WebSocketWire:
    """A `listenai.wire.Wire` on an open WebSocket; made by `serve_websocket`.

    One task may receive at a time; several may send.  Sends of one task arrive in order.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        stream: _LibraryStream,
        library: trio.CancelScope,
        close_seconds: float,
    ) -> None:
        self.library = library  # around the library's reader
        self._connection, self._stream = connection, stream
        self._close_seconds = close_seconds
        self._reader_ended = trio.Event()
        self._goodbye = trio.CancelScope()  # around the closing handshake: it needs the reader
        self._closing = False

    async def receive(self) -> Message:
        """The next whole message; raises DeviceGone after the last."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as closed:
            raise DeviceGone(str(closed)) from None
        self._stream.allowance = MAX_BYTES_BETWEEN_MESSAGES
        return message

    async def send(self, message: Message) -> None:
        """Hands one message to the kernel; waits for as long as the device does not read.

        A send that is cancelled may have left half a message behind: close after it.
        """
        try:
            await self._connection.send_message(message)
        except ConnectionClosed as closed:
            raise DeviceGone(str(closed)) from None

    async def ping(self) -> None:
        """Returns when the device has answered, with this pong or with a later one."""
        answered = False
        try:
            async with trio.open_nursery() as nursery:
                # The library would wait for a pong for ever, device or no device.
                nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope)
                await self._connection.ping()
                answered = True
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass
        if not answered:
            raise DeviceGone("the connection ended before the pong came")

    async def aclose(self, code: int = NORMAL, reason: str = "") -> None:
        """Says goodbye and closes, within `close_seconds` even where the device reads nothing.

        The first call decides the code; later ones return at once.  A reason longer than the
        123 bytes that a close frame holds is cut.
        """
        if self._closing:
            await trio.lowlevel.checkpoint()
            return
        self._closing = True
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self._close_seconds):
                closed = self._connection.closed
                with self._goodbye:
                    await self._connection.aclose(code, reason)
                self.library.cancel()
                if closed and closed.code == TOO_BIG:  # the rest of that message is on its way
                    await self._reader_ended.wait()
                    await linger(self._stream.inner, self._close_seconds)
            self.library.cancel()
            await trio.aclose_forcefully(self._stream)

    def reader_ended(self) -> None:
        """The library hears nothing more; called by whoever runs it."""
        self._reader_ended.set()
        self._goodbye.cancel()

    async def _cancel_when_gone(self, scope: trio.CancelScope) -> None:
        await self._reader_ended.wait()
        scope.cancel()


async def serve_websocket(
    stream: PeerStream,
    head: Head,
    converse: Callable[[Wire], Awaitable[None]],
    *,
    handshake_deadline: float,
    close_seconds: float,
) -> None:
    """Shakes hands, converses and closes; the head's bytes were read from the stream before.

    handshake_deadline: in Trio's time.  close_seconds: how long a goodbye may take.
    The close code is 1000 after `converse`, 1001 when cancelled, and 1011 after an exception,
    which is logged as `connection_failed` and goes no further.
    """
    async with trio.open_nursery() as nursery:
        wire: WebSocketWire | None = await nursery.start(
            _run_library, _LibraryStream(stream, head), handshake_deadline, close_seconds
        )
        if wire is None:
            return
        # From here only `aclose` ends the reader.  Not earlier: a cancelled `start` would wait
        # for a shielded task for ever.
        wire.library.shield = True
        code = GOING_AWAY
        try:
            try:
                await converse(wire)
                code = NORMAL
            except* DeviceGone:
                code = NORMAL
            except* Exception as failure:
                code = INTERNAL
                _log.error("connection_failed", exc_info=failure)
        finally:
            await wire.aclose(code)


async def _run_library(
    stream: _LibraryStream,
    handshake_deadline: float,
    close_seconds: float,
    *,
    task_status: trio.TaskStatus[WebSocketWire | None],
) -> None:
    """Shakes hands, reports the wire (None: no handshake), and runs the library's reader."""
    connection: WebSocketConnection | None = None
    wire: WebSocketWire | None = None
    library = trio.CancelScope()
    try:
        with library:
            async with trio.open_nursery() as nursery:
                with trio.move_on_at(handshake_deadline):
                    connection = await _shake_hands(nursery, stream)
                if connection is None:
                    nursery.cancel_scope.cancel()
                else:
                    wire = WebSocketWire(connection, stream, library, close_seconds)
                    task_status.started(wire)
    except* LocalProtocolError:
        # A ping that crosses our goodbye: the library answers it, which is no longer allowed.
        _log.debug("ping_after_close")
    finally:
        if wire:
            wire.reader_ended()
    if wire is None:
        task_status.started(None)


async def _shake_hands(nursery: trio.Nursery, stream: _LibraryStream) -> WebSocketConnection | None:
    """The open connection; None if the library refused the request and closed the stream."""

    async def cancel_when_closed(scope: trio.CancelScope) -> None:
        await stream.closed.wait()
        scope.cancel()

    connection: WebSocketConnection | None = None
    async with trio.open_nursery() as handshake:
        handshake.start_soon(cancel_when_closed, handshake.cancel_scope)
        request = await wrap_server_stream(
            nursery,
            stream,
            message_queue_size=QUEUED_MESSAGES,
            max_message_size=MAX_MESSAGE_BYTES,
            receive_buffer_size=RECEIVE_BYTES,
        )
        with suppress(ConnectionClosed):
            connection = await request.accept()  # names no extensions: never compressed
            stream.accepted.set()
        handshake.cancel_scope.cancel()
    return connection
