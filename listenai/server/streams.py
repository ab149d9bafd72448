"""The byte streams of connections: tuned sockets, bytes given back, goodbyes that arrive."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress

import trio

# Bytes the kernel holds ahead of what it has sent (Linux, macOS): 120 ms of 16 kHz PCM.  More
# of them is audio that a barge-in cannot take back; Trio's own choice is 16 KiB.
NOTSENT_BYTES = 3840
# Bytes the kernel takes for us before the peer must wait (Linux doubles it): at most 4 s of
# PCM.  Left alone it grows to 6 MiB, three minutes of audio from before a pause.
RECEIVE_BUFFER_BYTES = 64 * 1024
_DISCARD_BYTES = 64 * 1024  # read at a time where the bytes are not wanted

PeerStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)  # what a lost stream raises


def _transport_of(stream: PeerStream) -> trio.SocketStream:
    return stream.transport_stream if isinstance(stream, trio.SSLStream) else stream


def peer_of(stream: PeerStream) -> tuple[str, int]:
    """The other end's address and port; raises BrokenResourceError if it has gone."""
    try:
        host, port = _transport_of(stream).socket.getpeername()[:2]
    except OSError as error:
        raise trio.BrokenResourceError(str(error)) from error
    return host, port


async def receive_next(stream: PeerStream, max_bytes: int) -> bytes | bytearray:
    """What the peer sends next, b"" at its end; raises what GONE names.

    A device's message is hardly ever there before it is waited for: asking the kernel first, as
    `receive_some` does, takes a fifth of the time that a message costs, for nothing.
    """
    if sys.platform == "win32" or not isinstance(stream, trio.SocketStream):
        return await stream.receive_some(max_bytes)
    try:
        while True:
            await trio.lowlevel.wait_readable(stream.socket)
            with suppress(BlockingIOError):  # the kernel was mistaken
                return os.read(stream.socket.fileno(), max_bytes)
    except (OSError, ValueError) as error:  # ValueError: we have closed it ourselves
        raise trio.BrokenResourceError(str(error)) from error


async def first_byte(stream: trio.SocketStream) -> int | None:
    """What the peer sends first, left to be read again; None if it sends nothing and leaves."""
    try:
        data = await stream.socket.recv(1, trio.socket.MSG_PEEK)
    except OSError as error:
        raise trio.BrokenResourceError(str(error)) from error
    return data[0] if data else None


def tune_socket(stream: PeerStream) -> None:
    """Makes an accepted connection send at once and buffer little.

    Raises BrokenResourceError if it has gone, which some systems notice here.
    """
    transport = _transport_of(stream)
    try:
        transport.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if lowat := getattr(trio.socket, "TCP_NOTSENT_LOWAT", None):
            transport.setsockopt(trio.socket.IPPROTO_TCP, lowat, NOTSENT_BYTES)
    except OSError as error:
        raise trio.BrokenResourceError(str(error)) from error


async def linger(stream: PeerStream, seconds: float) -> None:
    """Says that nothing more comes, then waits for the peer to close; raises nothing of its own.

    Closing with unread input resets the connection, and a reset can overtake the answer.
    What the peer still sends is read and thrown away, for at most so many seconds.
    """
    with trio.move_on_after(seconds), suppress(*GONE):
        if isinstance(stream, trio.SocketStream):  # TLS has no half-close
            await stream.send_eof()
        while await stream.receive_some(_DISCARD_BYTES):
            pass


class OrderedWriter:
    """Writes to a stream in the order of the calls.

    Where nobody else is writing and the transport takes bytes, there is no checkpoint between
    the call and the moment when they are handed over.  A write that is cancelled before its
    first byte has left is forgotten; the rest of any other goes before what is written next.
    """

    def __init__(self, stream: PeerStream) -> None:
        self._stream = stream
        self._socket = _transport_of(stream).socket
        self._turns = trio.StrictFIFOLock()
        self._rest = b""  # of what was written in part
        self._lost = False  # TLS cannot tell how much of it has left

    def is_ready(self) -> bool:
        """True when a small write would not have to wait."""
        if self._turns.locked() or self._socket.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    @property
    def is_free(self) -> bool:
        """True when `write_nowait` may be called."""
        plain = not isinstance(self._stream, trio.SSLStream) and sys.platform != "win32"
        return plain and not self._rest and not self._turns.locked()

    def write_nowait(self, data: bytes) -> int:
        """How many bytes the kernel takes now; the rest goes before what is written next.

        A connection that was lost takes none.
        """
        try:
            sent = os.write(self._socket.fileno(), data)
        except OSError:
            return 0
        self._rest = data[sent:] if sent else b""
        return sent

    async def write(self, data: bytes) -> None:
        """Hands all bytes to the kernel; raises what GONE names when that is not possible."""
        try:
            self._turns.acquire_nowait()
        except trio.WouldBlock:
            await self._turns.acquire()
        try:
            if isinstance(self._stream, trio.SSLStream):
                await self._write_tls(self._stream, data)
            else:
                await self._write_plain(data)
        finally:
            self._turns.release()

    async def _write_plain(self, data: bytes) -> None:
        before = len(self._rest)
        data = self._rest + data if before else data
        sent = 0
        try:
            sent = await self._send_at_once(data)
            while sent < len(data):
                sent += await self._socket.send(memoryview(data)[sent:])
        except OSError as error:
            raise trio.BrokenResourceError(f"cannot send: {error}") from error
        finally:
            self._rest = data[sent : before if sent <= before else len(data)]

    async def _send_at_once(self, data: bytes) -> int:
        """How many bytes the kernel takes now; nearly always all.

        Trio's own `send` lets everybody else go on afterwards, which costs as much as sending:
        who writes here waits for the next message anyway.
        """
        if sys.platform == "win32":
            return await self._socket.send(data)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def _write_tls(self, stream: trio.SSLStream[trio.SocketStream], data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._lost:
            raise trio.BrokenResourceError("a cancelled write has left half a TLS record")
        self._lost = True
        await stream.send_all(data)
        self._lost = False


class ReplayedStream(trio.abc.Stream):
    """A stream that first gives back what was already read from it.

    Not half-closeable on purpose: a half-close of an HTTP exchange is not passed on.
    """

    def __init__(self, stream: PeerStream, read: bytes) -> None:
        self.inner = stream
        self._read = read

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What was read before, then what comes from the peer."""
        if not self._read:
            return await self.inner.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        count = max_bytes or len(self._read)
        data, self._read = self._read[:count], self._read[count:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends to the peer."""
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the inner stream does."""
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Closes the inner stream."""
        await self.inner.aclose()
