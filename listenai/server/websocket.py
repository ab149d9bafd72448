"""A WebSocket as a wire: `Frames` on a byte stream, with no task of its own.

Theory.  Whoever calls `receive` reads the stream, and what it reads wakes those
that wait for a pong.  Where nobody receives nothing is read, the kernel's buffer
fills, and the device has to wait.  The reader answers pings, but it never waits
for a device that does not read: a few answers are kept for the next occasion.

`aclose` carries the closing handshake through by itself.  It takes over reading
from a task that is still inside `receive` when that has read its next bytes, and
the stream's end, which comes after `close_seconds` at the latest, wakes everybody.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from listenai.server.frames import (
    GOING_AWAY,
    INTERNAL,
    MAX_MESSAGE_BYTES,
    NORMAL,
    Frames,
    Phase,
)
from listenai.server.head import Head
from listenai.server.streams import GONE, OrderedWriter, PeerStream, linger, receive_next
from listenai.wire import DeviceGone, Message, Wire

__all__ = ["MAX_MESSAGE_BYTES", "RECEIVE_BYTES", "WebSocketWire", "serve_websocket"]

_log = logging.getLogger(__name__)

RECEIVE_BYTES = 16 * 1024  # at a time: what may be read ahead of a conversation
# Understood at a time: the smallest frames would otherwise hold up everyone else for 10 ms,
# and become 2700 messages in memory.
PIECE_BYTES = 2 * 1024
PONG_RETRY_SECONDS = 0.1  # how soon a device that reads again gets the answers kept for it


class WebSocketWire:
    """A `listenai.wire.Wire` on an open WebSocket; made by `serve_websocket`.

    One task may receive at a time; several may send.  Messages leave in the order of the
    calls, each whole.
    """

    def __init__(
        self, stream: PeerStream, frames: Frames, read: bytes, close_seconds: float
    ) -> None:
        self._stream, self._frames = stream, frames
        self._writer = OrderedWriter(stream)
        self._begun: Message | None = None  # sent in part
        self._ahead: bytes | bytearray = read  # received, not understood yet
        self._reading = False  # a task is inside `receive`
        self._news = trio.Event()  # a pong, or the end: for those who ping
        self._close_seconds = close_seconds
        self._closing = False

    async def receive(self) -> Message:
        """The next whole message; raises DeviceGone after the last."""
        frames = self._frames
        if frames.messages:
            await trio.lowlevel.checkpoint()  # many small messages are not to starve the others
        if not frames.messages and frames.phase is not Phase.TALKING:
            raise DeviceGone(frames.why, frames.code)
        if self._reading:
            raise trio.BusyResourceError("another task is receiving")
        self._reading = True
        try:
            while not frames.messages:
                if frames.phase is not Phase.TALKING:
                    raise DeviceGone(frames.why, frames.code)
                await self._read_on()
            return frames.messages.popleft()
        finally:
            self._reading = False
            if self._closing:
                self._tell_news()

    async def send(self, message: Message) -> None:
        """Hands one message to the kernel; waits for as long as the device does not read.

        A send that is cancelled has sent nothing, or is completed before the next one.
        """
        self._check_talking()
        begun, self._begun = self._begun, None
        await self._write(b"" if begun is message else self._frames.message(message))

    def send_nowait(self, message: Message) -> bool:
        """Hands over what the kernel takes now; whatever is left, `send` hands over."""
        frames = self._frames
        if frames.phase is not Phase.TALKING or frames.pongs or not self._writer.is_free:
            return False
        frame = frames.message(message)
        sent = self._writer.write_nowait(frame)
        self._begun = message if 0 < sent < len(frame) else None
        return sent == len(frame)

    async def ping(self) -> None:
        """Returns when the device has answered; somebody has to receive meanwhile."""
        self._check_talking()
        number, frame = self._frames.ping()
        await self._write(frame)
        while self._frames.answered < number:
            self._check_talking()
            await self._news.wait()

    async def aclose(self, code: int = NORMAL, reason: str = "") -> None:
        """Says goodbye and closes, within `close_seconds` even where the device reads nothing.

        The first call decides the code; later ones return at once.  A reason longer than the
        123 bytes that a close frame holds is cut.
        """
        if self._closing:
            await trio.lowlevel.checkpoint()
            return
        self._closing = True
        try:
            farewell = self._frames.close(code, reason)
            self._tell_news()
            with (
                trio.move_on_after(self._close_seconds, shield=True),
                suppress(*GONE),
            ):
                await self._part(farewell)
        finally:
            self._frames.lose("the connection was closed")
            await trio.aclose_forcefully(self._stream)

    async def _part(self, farewell: bytes) -> None:
        """The closing handshake, until both sides have said and heard everything."""
        if not farewell:
            return
        await self._writer.write(farewell)
        while self._reading:
            await self._news.wait()
        while self._frames.phase is Phase.CLOSING:
            await self._read_on()
        # A device whose goodbye we have over TLS waits for us to close; any other one is
        # told by a half-close, or has to be heard out, lest a reset destroys our farewell.
        if isinstance(self._stream, trio.SocketStream) or not self._frames.said_goodbye:
            await linger(self._stream, self._close_seconds)

    # --- reading -------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        """Understands the next bytes, waiting for them where there are none."""
        if self._ahead:
            await trio.lowlevel.checkpoint()
        else:
            await self._receive_bytes()
        piece, self._ahead = self._ahead[:PIECE_BYTES], self._ahead[PIECE_BYTES:]
        frames, answered = self._frames, self._frames.answered
        frames.feed(piece)
        if frames.answered != answered or frames.phase is Phase.OVER:
            self._tell_news()
        # What is begun is about to be completed by `send`, and takes the answers along.
        if frames.pongs and self._begun is None and self._writer.is_ready():
            with suppress(DeviceGone):  # the next reading tells, after what was still received
                await self._write(b"")

    async def _receive_bytes(self) -> None:
        data: bytes | bytearray | None = None
        try:
            if self._frames.pongs:
                with trio.move_on_after(PONG_RETRY_SECONDS):
                    data = await receive_next(self._stream, RECEIVE_BYTES)
            else:
                data = await receive_next(self._stream, RECEIVE_BYTES)
        except GONE:
            data = b""
        if data:
            self._ahead = data
        elif data is not None:
            self._frames.lose("the connection was lost")
            await trio.aclose_forcefully(self._stream)  # wakes those who still send

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- writing -------------------------------------------------------------------------------

    def _check_talking(self) -> None:
        if self._frames.phase is not Phase.TALKING:
            raise DeviceGone(self._frames.why, self._frames.code)

    async def _write(self, frame: bytes) -> None:
        """Writes the answers to pings that wait, and a frame."""
        if pongs := self._frames.pongs:
            frame = b"".join((*pongs, frame))
            pongs.clear()
        try:
            await self._writer.write(frame)
        except GONE as error:
            why = self._frames.why or f"the connection was lost: {error}"
            raise DeviceGone(why, self._frames.code) from None


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
    Raises BadHead for a handshake that the WebSocket library refuses, and BrokenResourceError
    for a device that leaves before it is answered.
    """
    frames = Frames()
    answer = frames.shake_hands(head)
    with trio.move_on_at(handshake_deadline) as handshake:
        await stream.send_all(answer)
    if handshake.cancelled_caught:
        return
    wire = WebSocketWire(stream, frames, head.read[head.size :], close_seconds)
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
