"""WebSocket frames without I/O: bytes in, messages out, and what has to be answered.

Theory.  The `websockets` library's core checks frames and their order and writes
frames; joining fragments, decoding text and bounding what a device can make us
keep are here.  Three phases: TALKING until either side says goodbye or breaks the
protocol, CLOSING from our goodbye until the device's, OVER when nothing that it
sends counts any more.  `farewell` is then the last frame that it is owed.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from enum import Enum, auto
from http import HTTPStatus

from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from listenai.server.head import BadHead, Head
from listenai.wire import Message

MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # four of the largest messages a dialect takes
# A fragment may be empty, so the bytes of a message bound neither their number nor the time.
# 4 MiB in fragments of 256 bytes, smaller than any device's buffer, still fit.
MAX_FRAGMENTS = 16 * 1024
# Answers to pings that wait for a device which does not read; RFC 6455, 5.5.3, allows to
# answer the latest alone.
MAX_PONGS = 16
_REASON_BYTES = 123  # a control frame has 125, two of them are the close code

_NEVER_SENT = (1005, 1006, 1015)  # RFC 6455, 7.4.1: of what was not said
NORMAL, GOING_AWAY, INVALID_TEXT, POLICY, INTERNAL = 1000, 1001, 1007, 1008, 1011  # RFC 6455, 7.4.1

_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.WARNING)  # below that it logs contents


class Phase(Enum):
    """How far a connection has come."""

    TALKING = auto()
    CLOSING = auto()  # we have said goodbye, the device not yet
    OVER = auto()


class Frames:
    """One connection's frames, from the handshake to the last."""

    def __init__(self) -> None:
        self.phase = Phase.TALKING
        self.messages: deque[Message] = deque()  # whole ones, to be taken by the reader
        self.pongs: deque[bytes] = deque(maxlen=MAX_PONGS)  # frames, to be sent and removed
        self.answered = 0  # the number of the latest of our pings that was answered
        self.farewell = b""  # the close frame to send; b"": there is nobody to send it to
        self.why = ""  # the phase is no longer TALKING
        self.code = 1006  # what the device closed with, or we because of it; 1006: neither
        self.said_goodbye = False  # the device has, in a proper close frame
        self._core = ServerProtocol(max_size=MAX_MESSAGE_BYTES, logger=_library_log)
        self._pinged = 0
        self._is_text = False
        self._fragments = 0
        self._partial = bytearray()

    def shake_hands(self, head: Head) -> bytes:
        """The answer to a handshake that `check_upgrade` accepts.

        Extensions and subprotocols are not agreed to, which RFC 6455 lets the device decide
        about.  Raises BadHead for what the library refuses.
        """
        self._core.receive_data(head.read[: head.size])
        request = next(iter(self._core.events_received()), None)
        if not isinstance(request, Request):
            failure = self._core.handshake_exc
            problem = failure.__cause__ or failure if failure else "no request"
            raise BadHead(HTTPStatus.BAD_REQUEST, f"the handshake was not understood: {problem}")
        answer = self._core.accept(request)
        if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            message = bytes(answer.body or b"").decode().strip()
            raise BadHead(HTTPStatus(answer.status_code), message)
        self._core.send_response(answer)
        return b"".join(self._core.data_to_send())

    # --- what is sent: each returns the bytes of a frame -------------------------------------

    def message(self, message: Message) -> bytes:
        """A whole message in one frame."""
        if isinstance(message, str):
            self._core.send_text(message.encode())
        else:
            self._core.send_binary(message)
        return b"".join(self._core.data_to_send())

    def ping(self) -> tuple[int, bytes]:
        """A ping and its number: `answered` reaches it when this or a later one is answered."""
        self._pinged += 1
        self._core.send_ping(struct.pack("!Q", self._pinged))
        return self._pinged, b"".join(self._core.data_to_send())

    def close(self, code: int, reason: str) -> bytes:
        """The last frame: our goodbye, or what a device is owed that was first to end it.

        A reason longer than a close frame holds is cut.  Messages not taken yet are dropped.
        The codes of a connection that was lost are in no frame: then it is a normal goodbye.
        """
        code = NORMAL if code in _NEVER_SENT else code
        self.messages.clear()
        self.pongs.clear()
        if self.phase is Phase.TALKING:
            self._core.send_close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self.farewell = b"".join(self._core.data_to_send())
            self.phase, self.why = Phase.CLOSING, "the connection was closed"
        return self.farewell

    # --- what is received ----------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """The byte stream has ended: nothing can be read or said any more."""
        self.farewell = b""
        self._end(why)

    def feed(self, data: bytes | bytearray) -> None:
        """Takes bytes from the device, in pieces of any size; ignores them once it is OVER."""
        if self.phase is Phase.OVER:
            return
        self._core.receive_data(data)
        for event in self._core.events_received():
            if self.phase is Phase.TALKING and isinstance(event, Frame):
                self._take(event)
        for frame in self._core.data_to_send():
            if not frame:  # the library's sign for the end of what it sends
                self._end_by_device()
            elif self.phase is Phase.TALKING:
                if frame[0] & 0x0F == Opcode.CLOSE:
                    self.farewell = frame
                else:
                    self.pongs.append(frame)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._take_pong(frame.data)
        elif frame.opcode in (Opcode.PING, Opcode.CLOSE):
            pass  # the library has answered
        elif frame.fin and not self._fragments:
            self._deliver(frame.data, is_text=frame.opcode is Opcode.TEXT)
        else:
            self._join(frame)

    def _join(self, fragment: Frame) -> None:
        if not self._fragments:
            self._is_text = fragment.opcode is Opcode.TEXT
        self._fragments += 1
        self._partial += fragment.data
        if fragment.fin:
            whole, self._partial, self._fragments = self._partial, bytearray(), 0
            self._deliver(whole, is_text=self._is_text)
        elif self._fragments >= MAX_FRAGMENTS:
            self._fail(POLICY, f"a message may have {MAX_FRAGMENTS} fragments; send larger ones")

    def _deliver(self, data: bytes | bytearray | memoryview, *, is_text: bool) -> None:
        try:
            self.messages.append(str(data, "utf-8") if is_text else bytes(data))
        except UnicodeDecodeError as error:
            self._fail(INVALID_TEXT, f"a text message must be UTF-8; byte {error.start} is not")

    def _take_pong(self, payload: bytes | bytearray | memoryview) -> None:
        number = int.from_bytes(payload, "big") if len(payload) == 8 else 0
        if self.answered < number <= self._pinged:  # else nobody asked for it
            self.answered = number

    def _fail(self, code: int, reason: str) -> None:
        self.farewell = Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)
        self.code = code
        self._end(f"the device broke the protocol: {reason}")

    def _end_by_device(self) -> None:
        if closed := self._core.close_rcvd:
            self.said_goodbye = not self._core.parser_exc
            self.code = closed.code
            self._end(f"the device closed with {closed.code}")
        else:
            self._end(f"the device broke the protocol: {self._core.parser_exc}")

    def _end(self, why: str) -> None:
        if self.phase is not Phase.OVER:
            self.phase, self.why = Phase.OVER, why
            self.pongs.clear()
            self._partial = bytearray()
