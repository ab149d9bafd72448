"""A Hotpin device as its specification has it: hotpin.py URL HANDSHAKE STEP…

HANDSHAKE is the JSON it begins with.  Steps: `record FILE` (raw PCM, button held), `eos`, `wait`
(until it is idle again), `talk FILE` (all three), `reset`, `read STATUS [STAGE]`, `send TEXT`.
Prints as one JSON object what it was told, what it played, and what a real one, with its small
buffers and its ten seconds, would have failed at.  Knows nothing of the server's code."""

import json
import struct
import sys
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

MAX_WAV_SIZE = 512000
JSON_SIZE = 512
FRAME_SIZE = 16 * 1024
RECORD_CHUNK = 1024
TIMEOUT = 10.0
HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
FIELDS = (
    "riff file_size wave fmt fmt_size audio_format channels"
    " sample_rate byte_rate block_align bits data data_size"
).split()


class Device:
    def __init__(self, link):
        self.link = link
        self.state = "IDLE"
        self.wav, self.chunks = bytearray(), []
        self.asked_at = 0.0
        self.told, self.played, self.faults = [], [], []

    # --- what it does ----------------------------------------------------------------------

    def record(self, name):
        self.state = "RECORDING"
        pcm = Path(name).read_bytes()
        for start in range(0, len(pcm), RECORD_CHUNK):
            self.link.send(pcm[start : start + RECORD_CHUNK])

    def eos(self):
        self.link.send('{"signal":"EOS"}')
        self.state, self.asked_at = "PROCESSING", time.monotonic()

    def wait(self):
        while self.state == "PROCESSING":
            left = self.asked_at + TIMEOUT - time.monotonic()
            try:
                self.handle(self.link.recv(timeout=max(0.0, left)))
            except TimeoutError:
                self.faults.append("server timeout")
                self.state = "IDLE"

    def talk(self, name):
        self.record(name)
        self.eos()
        self.wait()

    def reset(self):
        self.link.send('{"signal":"RESET"}')
        self.read("reset")

    def read(self, status, stage=None):
        while True:
            self.handle(message := self.link.recv(timeout=TIMEOUT))
            if isinstance(message, str):
                document = json.loads(message)
                if document["status"] == status and stage in (None, document.get("stage")):
                    return

    def send(self, text):
        self.link.send(text)

    # --- what it is told -------------------------------------------------------------------

    def handle(self, message):
        if len(message if isinstance(message, bytes) else message.encode()) > FRAME_SIZE:
            self.faults.append("frame buffer overflow")
        if isinstance(message, bytes):
            self.handle_audio(message)
        else:
            self.handle_text(message)

    def handle_audio(self, chunk):
        if len(self.wav) + len(chunk) < MAX_WAV_SIZE:
            self.wav += chunk
            self.chunks.append(len(chunk))
        else:
            self.faults.append("WAV buffer overflow")

    def handle_text(self, text):
        if len(text.encode()) > JSON_SIZE:
            self.faults.append("JSON buffer overflow")
        document = json.loads(text)
        self.told.append(document)
        if document["status"] == "processing" and document["stage"] == "tts":
            self.wav.clear()
            self.chunks.clear()
        elif document["status"] == "complete":
            self.play()
            self.state = "IDLE"
        elif document["status"] == "error":
            self.state = "IDLE"

    def play(self):
        if len(self.wav) < HEADER.size:
            self.faults.append("no WAV header")
            return
        header = dict(zip(FIELDS, HEADER.unpack_from(self.wav), strict=True))
        pcm = memoryview(self.wav)[HEADER.size :]
        marks = (header.pop("riff"), header.pop("wave"), header.pop("fmt"), header.pop("data"))
        if marks != (b"RIFF", b"WAVE", b"fmt ", b"data"):
            self.faults.append("no WAV header")
        if header["data_size"] > len(pcm):  # i2s_write would read beyond the buffer
            self.faults.append("data_size is more than came")
        samples = struct.unpack(f"<{len(pcm) // 2}h", pcm[: len(pcm) // 2 * 2])
        header["size"], header["chunks"] = len(self.wav), self.chunks[:]
        header["peak"] = max(map(abs, samples), default=0)
        header["seconds_after_eos"] = time.monotonic() - self.asked_at
        self.played.append(header)


def main(url, handshake, *steps):
    close_code, device = None, None
    with connect(url, max_size=None) as link:
        device = Device(link)
        try:
            device.send(handshake)
            device.read("connected")
            for step in steps:
                name, *arguments = step.split(" ", 1 if step.startswith("send") else -1)
                getattr(device, name)(*arguments)
        except ConnectionClosed as closed:
            close_code = closed.rcvd.code if closed.rcvd else 1006
    told, played, faults = device.told, device.played, device.faults
    print(json.dumps({"told": told, "played": played, "faults": faults, "close_code": close_code}))


main(*sys.argv[1:])
