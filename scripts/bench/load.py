"""Many devices in one process: paced sending, and a note of everything that comes back.

Theory.  The generator must cost much less than what it measures, and must know to
the microsecond when it really sent a message.  So it is one loop over an epoll and
a heap of due times, on plain sockets, with frames that were masked before the run.
Nothing is analysed while it runs.
"""

from __future__ import annotations

import heapq
import select
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import attrs

from listenai.audio import FRAME_SECONDS

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10  # RFC 6455, 5.2
HELLO = (
    '{"type":"start_session","capabilities":{"pause":true,"flush":true,"echo":"cancelled"}}',
    '{"type":"configure","end_of_turn_ms":0,"partial_results":false}',  # a turn as soon as heard
)
AUDIO = "audio"  # how binary messages are noted; text messages are noted by their `type`
START_SECONDS = 0.3  # from the last handshake to the first message
RETRY_SECONDS = 0.004  # a socket that took nothing is tried again after this
_MASK = b"\x5a\x13\xc7\x88"
_HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A whole WebSocket frame from a client, of less than 64 KiB."""
    length = len(payload)
    head = struct.pack("!BB", 0x80 | opcode, 0x80 | min(length, 126))
    if length >= 126:
        head += struct.pack("!H", length)
    body = bytes(byte ^ _MASK[at & 3] for at, byte in enumerate(payload))
    return head + _MASK + body


@attrs.define
class Diary:
    """What one device sent and heard; times in seconds of the monotonic clock."""

    sent: dict[int, float] = attrs.field(factory=dict)  # marked messages only, by number
    heard: dict[str, list[float]] = attrs.field(factory=lambda: defaultdict(list))
    gone: bool = False  # the server ended the connection


def connect(port: int) -> tuple[socket.socket, bytes]:
    """A connection whose handshake was accepted, and what came after that; else ConnectionError."""
    opened = socket.create_connection(("127.0.0.1", port), 10)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.sendall(_HANDSHAKE.format(port=port).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (data := opened.recv(4096)):
            raise ConnectionError(f"no handshake, only {answer[:200]!r}")
        answer += data
    head, _, unread = answer.partition(b"\r\n\r\n")
    if b" 101 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError(f"the server refused: {head[:200]!r}")
    return opened, unread


class Device:
    """One connection: handshake and hello when made, then frames out and a diary of frames in."""

    def __init__(self, port: int) -> None:
        """Connects; ConnectionError when the server does not accept."""
        self.diary = Diary()
        self.next_message = 0
        self.begins_at = 0.0
        self.socket, self._unread = connect(port)
        for text in HELLO:
            self.socket.sendall(masked_frame(TEXT, text.encode()))
        self.socket.setblocking(False)

    def read(self) -> None:
        """Notes what has come."""
        try:
            data = self.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.diary.gone = True
        now = time.monotonic()
        buffer = self._unread + data
        at = 0
        while frame := frame_at(buffer, at):
            opcode, start, at = frame
            self._note(opcode, buffer[start:at], now)
        self._unread = buffer[at:]

    def close(self, *, reset: bool = False) -> None:
        """Closes TCP without goodbye; `reset` sends a RST, as a device that lost power."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def _note(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode == BINARY:
            self.diary.heard[AUDIO].append(now)
        elif opcode == TEXT:
            self.diary.heard[type_of(payload)].append(now)
        elif opcode == PING:
            self.socket.send(masked_frame(PONG, payload))
        elif opcode == CLOSE:
            self.diary.gone = True


def type_of(payload: bytes) -> str:
    """The `type` of a JSON message, which every message of ours begins with."""
    start = payload.index(b'"type"') + 6
    quote = payload.index(b'"', start) + 1
    return payload[quote : payload.index(b'"', quote)].decode()


def frame_at(buffer: bytes, at: int) -> tuple[int, int, int] | None:
    """Opcode, payload start and end of a server's frame; None while it is not whole."""
    if len(buffer) - at < 2:
        return None
    length, start = buffer[at + 1], at + 2
    if length == 126:
        length, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
    elif length == 127:
        length, start = int.from_bytes(buffer[start : start + 8], "big"), start + 8
    end = start + length
    return (buffer[at] & 0x0F, start, end) if len(buffer) >= max(start, end) else None


@attrs.define
class Run:
    """One run of many devices."""

    port: int
    frames: Sequence[bytes]  # the loop, masked
    marks: Collection[int]  # numbers of the messages whose time of sending is noted
    message_seconds: float = FRAME_SECONDS  # how much audio each has
    lateness: list[float] = attrs.field(factory=list)  # of marked messages: sent - due, seconds

    def play(
        self,
        count: int,
        seconds: float,
        *,
        steady: Callable[[], None] = lambda: None,
        until: Callable[[Sequence[Diary]], bool] = lambda _: False,
        stagger: float | None = None,
    ) -> list[Device]:
        """Plays the loop on `count` devices, `seconds` long after the last one began.

        stagger: seconds between two beginnings; by default they are spread over the loop.
        steady: called once, a loop after the last one began.
        until: asked after each wake-up; True ends the run early.
        Returns the devices, still connected.
        """
        loop_seconds = len(self.frames) * self.message_seconds
        stagger = loop_seconds / count if stagger is None else stagger
        devices = [Device(self.port) for _ in range(count)]
        diaries = [device.diary for device in devices]
        began = time.monotonic() + START_SECONDS
        due = [(began + number * stagger, number) for number in range(count)]
        for begins_at, number in due:
            devices[number].begins_at = begins_at
        ends_at = began + count * stagger + seconds
        steady_at = began + count * stagger + loop_seconds
        with select.epoll() as poll:
            by_file = {device.socket.fileno(): device for device in devices}
            for file in by_file:
                poll.register(file, select.EPOLLIN)
            while due and (now := time.monotonic()) < ends_at and not until(diaries):
                if now >= steady_at:
                    steady()
                    steady_at = float("inf")
                self._send_due(devices, due, now)
                wait = min(due[0][0], ends_at) - time.monotonic() if due else 0.0
                for file, _ in poll.poll(max(0.0, wait)):
                    by_file[file].read()
                    if by_file[file].diary.gone:
                        poll.unregister(file)
        return devices

    def _send_due(
        self, devices: Sequence[Device], due: list[tuple[float, int]], now: float
    ) -> None:
        """Sends every message that is due, and puts each device's next into the heap."""
        while due and due[0][0] <= now:
            was_due, number = heapq.heappop(due)
            device = devices[number]
            if device.diary.gone:
                continue
            message = device.next_message
            sent_at = time.monotonic()
            try:
                device.socket.send(self.frames[message % len(self.frames)])
            except BlockingIOError:  # the server does not read: late, but nothing is left out
                heapq.heappush(due, (sent_at + RETRY_SECONDS, number))
                continue
            except OSError:
                device.diary.gone = True
                continue
            if message in self.marks:
                device.diary.sent[message] = sent_at
                self.lateness.append(sent_at - was_due)
            device.next_message = message + 1
            next_at = device.begins_at + (message + 1) * self.message_seconds
            heapq.heappush(due, (next_at, number))
