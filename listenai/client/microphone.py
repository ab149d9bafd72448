"""What the scripted device's microphone hears: silence, and what it is told to say."""

from __future__ import annotations

from typing import Protocol

import attrs
import numpy as np
import soxr
import trio

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_RATE
from listenai.client.speaker import loudness
from listenai.wav import Recording


class Microphone(Protocol):
    """What the room sounds like."""

    async def frame(self) -> bytes:
        """Waits for the next frame of FRAME_BYTES."""


class SilentRoom:
    """Digital silence in real time.

    It never drifts: frame n is complete n * 16 ms after the first call.
    """

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._frames = 0

    async def frame(self) -> bytes:
        """The next frame, when its time has come; at once if that is past."""
        if self._began_at is None:
            self._began_at = trio.current_time()
        self._frames += 1
        await trio.sleep_until(self._began_at + self._frames * FRAME_SECONDS)
        return bytes(FRAME_BYTES)


@attrs.define(eq=False)
class Utterance:
    """Something to be said; speech is from its first to its last loud window."""

    pcm: bytes  # int16 mono 16 kHz
    sent: trio.Event = attrs.field(factory=trio.Event)
    sent_at: list[float] = attrs.field(factory=list)  # of each frame, Trio's time
    first_frame: int = -1  # its number among all frames of the device

    @property
    def started_at(self) -> float | None:
        """When the first speech sample was sent."""
        return self._at(self._speech_bounds()[0])

    @property
    def ended_at(self) -> float | None:
        """When the last speech sample was sent."""
        return self._at(self._speech_bounds()[1])

    def next_frame(self) -> bytes:
        """The next frame to send; the last one is filled up with silence."""
        begin = len(self.sent_at) * FRAME_BYTES
        return self.pcm[begin : begin + FRAME_BYTES].ljust(FRAME_BYTES, b"\0")

    def frame_sent(self, now: float) -> None:
        """The frame is on its way."""
        self.sent_at.append(now)
        if len(self.sent_at) * FRAME_BYTES >= len(self.pcm):
            self.sent.set()

    def _at(self, sample: int) -> float | None:
        frame = sample // FRAME_SAMPLES
        return self.sent_at[frame] if frame < len(self.sent_at) else None

    def _speech_bounds(self) -> tuple[int, int]:
        """The first and the last sample of speech; of everything where nothing is loud."""
        samples = len(self.pcm) // 2
        window, loud = loudness(self.pcm, SAMPLE_RATE)
        where = np.flatnonzero(loud)
        if not len(where):
            return 0, samples - 1
        return int(where[0]) * window, min(samples, (int(where[-1]) + 1) * window) - 1


def to_microphone(recording: Recording) -> bytes:
    """A recording as the microphone has it: int16 mono 16 kHz."""
    mono = recording.samples.mean(axis=1, dtype=np.float32)
    if recording.sample_rate != SAMPLE_RATE:
        mono = soxr.resample(mono, recording.sample_rate, SAMPLE_RATE)
    return bytes(np.clip(np.rint(mono), -32768, 32767).astype(np.int16))
