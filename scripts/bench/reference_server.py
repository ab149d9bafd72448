"""The smallest server that takes the same turns: what no server of this kind can be faster than.

Not a product: no closing handshake, no limits, no sentences, no reply from a model.  It has
ListenAI's detector, segmenter and delays on bare Trio sockets, so that a run beside it
shows how much of an overhead is the machine, the detector and the timers.

Usage: reference_server.py SPEECH_MS
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys

import attrs
import numpy as np
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE, Framer
from listenai.engines import timed
from listenai.engines.segmenter import Change, Segmenter
from listenai.engines.ten_vad import TenVadDetector

CHUNK_SECONDS = 0.06
LEAD_SECONDS = 0.5
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_TEXT, _BINARY = 1, 2


def server_frame(opcode: int, payload: bytes) -> bytes:
    """A whole WebSocket frame from a server, of less than 64 KiB."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, length) + payload
    return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload


def unmasked(body: bytes, mask: bytes) -> bytes:
    """What a client's frame says."""
    key = np.frombuffer(mask * (len(body) // 4 + 1), np.uint8)[: len(body)]
    return (np.frombuffer(body, np.uint8) ^ key).tobytes()


@attrs.define(eq=False)
class Connection:
    """One device: its ear, and the scope of its reply."""

    stream: trio.SocketStream
    nursery: trio.Nursery
    detector: TenVadDetector
    speech_ms: int
    framer: Framer = attrs.field(factory=Framer)
    segmenter: Segmenter = attrs.field(factory=lambda: Segmenter(suspicion=(3, 4)))
    reply: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    speaking: bool = False
    lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def send(self, opcode: int, payload: bytes) -> None:
        """Sends one message."""
        async with self.lock:
            await self.stream.send_all(server_frame(opcode, payload))

    async def hear(self, pcm: bytes) -> None:
        """Takes audio; begins and interrupts replies."""
        for frame in self.framer.push(pcm):
            change = self.segmenter.push(self.detector.process(frame))
            if Change.SUSPECTED in change and self.speaking:
                self.speaking = False
                self.reply.cancel()
                await self.send(_TEXT, b'{"type":"pause"}')
            if Change.ENDED in change:
                self.reply = trio.CancelScope()
                self.nursery.start_soon(self.answer, self.reply)

    async def answer(self, scope: trio.CancelScope) -> None:
        """One reply, with the delays of the timed engines and one message for each token."""
        with scope:
            await trio.sleep(timed.TRANSCRIPT_SECONDS)
            await self.send(_TEXT, b'{"type":"flush"}')
            due = trio.current_time() + timed.FIRST_TOKEN_SECONDS
            for number, token in enumerate(timed.REPLY_TOKENS):
                await trio.sleep_until(due + number * timed.TOKEN_SECONDS)
                await self.send(_TEXT, json.dumps({"type": "llm_response", "text": token}).encode())
            await trio.sleep(timed.FIRST_CHUNK_SECONDS)
            self.speaking = True
            began = trio.current_time()
            chunk = bytes(round(CHUNK_SECONDS * SAMPLE_RATE) * SAMPLE_BYTES)
            for number in range(round(self.speech_ms / 1e3 / CHUNK_SECONDS)):
                await trio.sleep_until(began + number * CHUNK_SECONDS - LEAD_SECONDS)
                await self.send(_BINARY, chunk)

    async def shake_hands(self) -> bytes:
        """Answers the request; returns what came after it."""
        read = b""
        while b"\r\n\r\n" not in read:
            read += await self.stream.receive_some()
        head, _, rest = read.partition(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        digest = hashlib.sha1(lines[b"Sec-WebSocket-Key"] + _GUID, usedforsecurity=False).digest()
        await self.stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        return rest

    async def serve(self) -> None:
        """Until the device leaves."""
        buffer = await self.shake_hands()
        while data := await self.stream.receive_some():
            buffer += data
            at = 0
            while len(buffer) - at >= 8:
                length, start = buffer[at + 1] & 0x7F, at + 2
                if length == 126:
                    length, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
                end = start + 4 + length
                if len(buffer) < end:
                    break
                if buffer[at] & 0x0F == _BINARY:
                    await self.hear(unmasked(buffer[start + 4 : end], buffer[start : start + 4]))
                at = end
            buffer = buffer[at:]


async def main(speech_ms: int) -> None:
    """Serves until killed, on a port that the system chooses."""

    async def welcome(stream: trio.SocketStream) -> None:
        try:
            with TenVadDetector() as detector:
                async with trio.open_nursery() as nursery:
                    await Connection(stream, nursery, detector, speech_ms).serve()
                    nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError):
            pass  # a device that reset its connection

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/", flush=True)
    await trio.serve_listeners(welcome, listeners)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
