"""Opus packets and PCM, with libopus through opuslib-next.

A packet of 20 ms takes some 20 µs to decode and 250 µs to encode: work for the loop.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import EngineError

ENCODER_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
FRAMES_MS = (5, 10, 20, 40, 60)

LONGEST_PACKET_SAMPLES = 120 * SAMPLE_RATE // 1000  # RFC 6716, section 3.1: at most 120 ms


@cache
def load_library() -> Any:
    """The package opuslib_next with its native library; EngineError says what to install.

    The first call looks for the library for some 20 ms.
    """
    try:
        return import_module("opuslib_next")
    except ImportError as error:
        raise EngineError(
            "Opus cannot be spoken or understood: the package opuslib-next is not installed; "
            "install it with: pip install 'listenai[opus]'"
        ) from error
    except Exception as error:  # the package has no exception of its own for this
        raise EngineError(
            f"Opus cannot be spoken or understood: its native library cannot be loaded ({error}); "
            "install libopus (Debian and Ubuntu: apt-get install libopus0; macOS: brew install "
            "opus) and start again"
        ) from error


class OpusDecoder:
    """Decodes one stream of Opus packets; what is stereo is mixed down."""

    def __init__(self) -> None:
        """Raises EngineError where libopus is missing."""
        self._library = load_library()
        self._decoder = self._library.Decoder(SAMPLE_RATE, 1)

    def push(self, packet: bytes) -> bytes:
        """One packet as int16 mono 16 kHz PCM; ValueError for what is no packet, which is lost."""
        if not packet:  # libopus would make up sound in its place
            raise ValueError("an empty message is no Opus packet; send one whole packet a message")
        try:
            return bytes(self._decoder.decode(packet, LONGEST_PACKET_SAMPLES))
        except self._library.OpusError as error:
            raise ValueError(
                f"{len(packet)} bytes are no Opus packet ({error}); send one whole packet a "
                "message, without Ogg or WebM around it"
            ) from error


class OpusEncoder:
    """Encodes one stream of int16 mono PCM, for speech."""

    def __init__(self, sample_rate: int = SAMPLE_RATE, frame_ms: int = 20) -> None:
        """Raises ValueError for what Opus does not have, EngineError where libopus is missing."""
        if sample_rate not in ENCODER_RATES or frame_ms not in FRAMES_MS:
            raise ValueError(
                f"Opus has no frames of {frame_ms} ms at {sample_rate} Hz; allowed are "
                f"{', '.join(map(str, FRAMES_MS))} ms at {', '.join(map(str, ENCODER_RATES))} Hz"
            )
        library = load_library()
        self._encoder = library.Encoder(sample_rate, 1, library.APPLICATION_VOIP)
        self._frame_samples = sample_rate * frame_ms // 1000
        self._rest = b""

    def push(self, pcm: bytes) -> list[bytes]:
        """Takes audio of any length; gives the packets that it completes, one a frame."""
        data = self._rest + pcm
        size = self._frame_samples * SAMPLE_BYTES
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        return [self._encode(data[at : at + size]) for at in range(0, whole, size)]

    def flush(self) -> list[bytes]:
        """Gives what waits for the rest of its frame, filled up with silence."""
        missing = self._frame_samples * SAMPLE_BYTES - len(self._rest)
        return self.push(bytes(missing)) if self._rest else []

    def _encode(self, frame: bytes) -> bytes:
        return bytes(self._encoder.encode(frame, self._frame_samples))
