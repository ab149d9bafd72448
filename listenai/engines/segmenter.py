"""SANS-IO: from the probability of speech of each frame to segments of speech.

Spec 000, "Speech State Detection": "Immediate transition to speech on first
speech frame.  Delayed transition to silence (requires consecutive silence
frames)."  To that we add suspicion: enough speech among the last frames to think
that somebody really speaks, well before the segment is over.
"""

from __future__ import annotations

from enum import Flag, auto

THRESHOLD = 0.5  # spec 000: "Speech probability threshold (default 0.5)"
SILENCE_FRAMES = 5  # spec 000: "consecutive silence frames to exit speech (default 5)"


class Change(Flag):
    """What one frame changed; several at once where suspicion needs a single frame."""

    NOTHING = 0
    STARTED = auto()
    SUSPECTED = auto()
    ENDED = auto()


_NOTHING, _STARTED, _SUSPECTED, _ENDED = (
    Change.NOTHING,
    Change.STARTED,
    Change.SUSPECTED,
    Change.ENDED,
)
_STARTED_AND_SUSPECTED = _STARTED | _SUSPECTED


class Segmenter:
    """One device's speech, cut into segments.

    suspicion: SUSPECTED, once a segment, when this many of its last so many
    frames are speech, like (3, 4).  ValueError when a setting cannot work.
    """

    def __init__(
        self,
        *,
        suspicion: tuple[int, int],
        threshold: float = THRESHOLD,
        silence_frames: int = SILENCE_FRAMES,
    ) -> None:
        self.suspect_after(suspicion)
        _check(threshold, silence_frames)
        self.speeching = False
        self.silent_frames = 0  # consecutive, at the end of the segment
        self.frames = 0  # processed in total
        self._recent = 0  # one bit a frame of this segment, 1 = speech, the newest lowest
        self._suspected = False
        self._threshold, self._silence_frames = threshold, silence_frames
        self._next_settings = threshold, silence_frames

    def push(self, probability: float) -> Change:
        """Takes the next frame's probability of speech, 0 to 1."""
        self.frames += 1
        speech = probability >= self._threshold
        if not self.speeching:
            return self._start() if speech else _NOTHING
        if speech:
            self.silent_frames = 0
        else:
            self.silent_frames += 1
            if self.silent_frames >= self._silence_frames:
                self.end()
                return _ENDED
        if self._suspected:
            return _NOTHING
        self._recent = (self._recent << 1 | speech) & self._window
        self._suspected = self._recent.bit_count() >= self._needed
        return _SUSPECTED if self._suspected else _NOTHING

    def end(self) -> None:
        """The segment is over, whatever the frames say; the next speech frame starts another."""
        self.speeching = False
        self.silent_frames = 0
        self._threshold, self._silence_frames = self._next_settings

    def configure(self, *, threshold: float, silence_frames: int) -> None:
        """Settings from the next segment on; ValueError when they cannot work."""
        _check(threshold, silence_frames)
        self._next_settings = threshold, silence_frames
        if not self.speeching:
            self._threshold, self._silence_frames = self._next_settings

    def suspect_after(self, suspicion: tuple[int, int]) -> None:
        """Another suspicion from the next frame on; ValueError when it cannot be reached."""
        needed, window = suspicion
        if not 1 <= needed <= window:
            raise ValueError(
                f"suspicion {suspicion} cannot be reached; allowed is (needed, window) with "
                "1 <= needed <= window, in frames, like (3, 4)"
            )
        self._needed = needed
        self._window = (1 << window) - 1

    def _start(self) -> Change:
        self.speeching = True
        self.silent_frames = 0
        self._recent = 1
        self._suspected = self._needed == 1
        return _STARTED_AND_SUSPECTED if self._suspected else _STARTED


def _check(threshold: float, silence_frames: int) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"the speech threshold {threshold} is not a probability; allowed is 0 to 1 "
            f"(default {THRESHOLD})"
        )
    if silence_frames < 1:
        raise ValueError(
            f"{silence_frames} silence frames cannot end a segment; allowed is 1 or more "
            f"(default {SILENCE_FRAMES})"
        )
