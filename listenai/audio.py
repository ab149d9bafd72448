"""PCM: the one format inside, framing and levels.

Inside the server audio is `bytes` of 16-bit little-endian mono PCM.  From a
device it is 16 kHz and cut into VAD frames of 256 samples (spec 000: "512 bytes
for 16ms at 16kHz").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import numpy as np

SAMPLE_RATE = 16_000  # Hz, of audio from a device
SAMPLE_BYTES = 2
FRAME_SAMPLES = 256  # one VAD frame
FRAME_BYTES = FRAME_SAMPLES * SAMPLE_BYTES
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE
SILENCE_DBFS = -120.0  # what digital silence is called, instead of minus infinity


class Encoding(StrEnum):
    """How audio from a device may be encoded."""

    PCM = "pcm_s16le"  # mono, at any rate
    OPUS = "opus"  # one packet a message
    WEBM_OPUS = "webm_opus"  # what browsers' MediaRecorder makes, cut anywhere


class AudioStep(Protocol):
    """Changes one device's audio before anything listens to it; remembers what came before."""

    def process(self, frame: bytes) -> bytes:
        """One frame of FRAME_BYTES in, one out; cheap enough to run on the loop."""


class Framer:
    """Cuts messages of any size, odd ones too, into whole VAD frames.

    Nothing is lost between messages (spec 000, "Frame Buffering"): what does not
    fill a frame waits for the next message, at most FRAME_BYTES - 1 bytes.
    """

    def __init__(self) -> None:
        self._rest = b""

    def push(self, pcm: bytes) -> Iterator[bytes]:
        """Yields frames of FRAME_BYTES; must be exhausted before the next push."""
        if not self._rest and len(pcm) == FRAME_BYTES:  # the common case copies nothing
            yield pcm
            return
        data = self._rest + pcm
        whole = len(data) - len(data) % FRAME_BYTES
        self._rest = data[whole:]
        for start in range(0, whole, FRAME_BYTES):
            yield data[start : start + FRAME_BYTES]

    def reset(self) -> None:
        """Forgets the part of a frame that is waiting."""
        self._rest = b""


def dbfs(pcm: bytes) -> float:
    """The RMS level of int16 mono PCM in dB below full scale."""
    samples = np.frombuffer(pcm, np.int16).astype(np.float64)
    if not samples.size or not (power := float(np.mean(samples * samples))):
        return SILENCE_DBFS
    return max(SILENCE_DBFS, 10 * math.log10(power / 32768.0**2))


def seconds(pcm: bytes, sample_rate: int = SAMPLE_RATE) -> float:
    """How long int16 mono PCM plays."""
    return len(pcm) / SAMPLE_BYTES / sample_rate


def scaled(pcm: bytes, percent: int) -> bytes:
    """The same audio at this share of its loudness (amplitude)."""
    if percent == 100:  # the common case copies nothing
        return pcm
    samples = np.frombuffer(pcm, np.int16).astype(np.int32) * percent // 100
    return samples.clip(-32768, 32767).astype(np.int16).tobytes()
