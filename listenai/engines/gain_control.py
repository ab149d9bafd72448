"""Automatic gain before anything listens (spec 004: enableAGC): quiet voices become louder.

A small step of our own: those of WebRTC and of Speex were tried and made speech of ordinary
loudness worse (the first begins 15 dB too loud for it).  Here the gain begins at nothing, is
learned from what stands out of the noise, and moves slowly enough not to be heard.
"""

from __future__ import annotations

import numpy as np

from listenai.audio import FRAME_SECONDS, SILENCE_DBFS, dbfs
from listenai.engines.noise_floor import MARGIN_DB, NoiseFloor

TARGET_DBFS = -24.0  # of loud syllables: room for 24 dB of peaks
MOST_GAIN_DB, LEAST_GAIN_DB = 30.0, -12.0
LOUDEST_NOISE_DBFS = -50.0  # noise is not made louder than that
RISE_DB_PER_SECOND, FALL_DB_PER_SECOND = 30.0, 100.0

_FORGET_DB_PER_SECOND = 1.0  # so fast a speaker may turn away, and become quiet
_FULL_SCALE = 32_767


class GainControl:
    """Brings one device's speech to one loudness (AudioStep); never clips, adds no delay."""

    def __init__(self, floor: NoiseFloor) -> None:
        """floor: of this device, for this step alone."""
        self._floor = floor
        self._speech = SILENCE_DBFS  # the level of loud syllables; SILENCE_DBFS: none yet
        self._gain_db = 0.0

    @property
    def gain_db(self) -> float:
        """What is added to the level now."""
        return self._gain_db

    def process(self, frame: bytes) -> bytes:
        """One frame (int16 mono 16 kHz) in, one of the same length out."""
        self._learn(dbfs(frame))
        before, after = 10 ** (self._gain_db / 20), 10 ** (self._next_gain_db() / 20)
        samples = np.frombuffer(frame, np.int16).astype(np.float32)
        peak = float(np.abs(samples).max(initial=0.0))
        highest = _FULL_SCALE / max(peak, 1.0)
        before, after = min(before, highest), min(after, highest)
        self._gain_db = 20 * float(np.log10(after))
        if before == after == 1.0:
            return frame
        ramp = np.linspace(before, after, samples.size, dtype=np.float32)
        return bytes(np.rint(samples * ramp).astype(np.int16).tobytes())

    def _learn(self, level: float) -> None:
        self._floor.push(level)
        if level < self._floor.floor + MARGIN_DB:
            return
        known = self._speech > SILENCE_DBFS
        fallen = self._speech - _FORGET_DB_PER_SECOND * FRAME_SECONDS
        self._speech = max(level, fallen) if known else level

    def _next_gain_db(self) -> float:
        """One frame's step towards the gain that is wanted."""
        wanted = 0.0
        if self._speech > SILENCE_DBFS:
            quiet_noise = max(0.0, LOUDEST_NOISE_DBFS - self._floor.floor)
            most = min(MOST_GAIN_DB, quiet_noise)
            wanted = min(max(TARGET_DBFS - self._speech, LEAST_GAIN_DB), most)
        rise = RISE_DB_PER_SECOND * FRAME_SECONDS
        fall = FALL_DB_PER_SECOND * FRAME_SECONDS
        return min(max(wanted, self._gain_db - fall), self._gain_db + rise)
