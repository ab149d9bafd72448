"""SANS-IO: how loud it is where nobody speaks, and how loud speech must be there.

Spec 003, "Voice Activity Detection": "Calculate Threshold", "Manage Silence".  The floor is the
quietest moment of the last seconds (minimum statistics: R. Martin, "Noise power spectral density
estimation based on optimal smoothing and minimum statistics", 2001).  It falls at once and
rises when a window has passed; speech, which has gaps between its words, does not lift it.
"""

from __future__ import annotations

from collections import deque

from listenai.audio import FRAME_SECONDS, SILENCE_DBFS, dbfs
from listenai.engines.base import Detector

# Longer than anybody speaks without a gap; a fan that is switched on is known after it.
WINDOW_SECONDS = 4.0
# Speech that is understood is louder than that above the noise.
MARGIN_DB = 6.0
# The softest speech at a good microphone, and speech from close by.  What is above the highest
# threshold is never taken for noise.
LOWEST_DBFS, HIGHEST_DBFS = -60.0, -30.0
DECAY_DB = 3.0  # of the level that counts, a frame: 20 dB in 100 ms

_BLOCKS = 8  # the window moves on by an eighth of it
_BLOCK_FRAMES = round(WINDOW_SECONDS / FRAME_SECONDS / _BLOCKS)
_SMOOTHED_FRAMES = 3  # the middle one counts: a lost frame, which is silent, makes no floor


class NoiseFloor:
    """Follows one device's noise; told the level of each frame, in order.

    Until a window has passed it believes in a quiet room, so that a device which begins with
    speech is heard.
    """

    def __init__(self, margin_db: float = MARGIN_DB) -> None:
        """margin_db: how far above the floor speech begins; ValueError where that is below 0."""
        if margin_db < 0:
            raise ValueError(
                f"a margin of {margin_db} dB would call noise speech; allowed is 0 or more "
                f"(default {MARGIN_DB})"
            )
        self._margin_db = margin_db
        quiet_room = LOWEST_DBFS - margin_db
        self._quietest = deque([quiet_room] * _BLOCKS, maxlen=_BLOCKS)  # dBFS, of each block
        self._latest = deque([quiet_room] * _SMOOTHED_FRAMES, maxlen=_SMOOTHED_FRAMES)
        self._frames = 0
        self._floor = quiet_room

    def push(self, level: float) -> None:
        """Takes the RMS level of the next frame, in dBFS."""
        self._latest.append(max(level, SILENCE_DBFS))
        smoothed = sorted(self._latest)[_SMOOTHED_FRAMES // 2]
        if self._frames % _BLOCK_FRAMES == 0:
            self._quietest.append(smoothed)
        else:
            self._quietest[-1] = min(smoothed, self._quietest[-1])
        self._frames += 1
        self._floor = min(self._quietest)

    @property
    def floor(self) -> float:
        """The level of the noise, in dBFS."""
        return self._floor

    @property
    def threshold(self) -> float:
        """The level from which on a frame may be speech: LOWEST_DBFS to HIGHEST_DBFS."""
        return min(max(self._floor + self._margin_db, LOWEST_DBFS), HIGHEST_DBFS)


class AdaptiveDetector:
    """A detector that takes nothing for speech which does not stand out of the noise.

    A loud frame lets softer ones after it pass, which are the consonants of a word.
    """

    def __init__(self, detector: Detector, floor: NoiseFloor) -> None:
        self._detector, self._floor = detector, floor
        self._envelope = SILENCE_DBFS

    def process(self, frame: bytes) -> float:
        """The probability of speech in one frame (Detector.process); 0 where it is too quiet."""
        level = dbfs(frame)
        self._floor.push(level)
        self._envelope = max(level, self._envelope - DECAY_DB)
        probability = self._detector.process(frame)  # in any case: it follows the sound
        return probability if self._envelope >= self._floor.threshold else 0.0
