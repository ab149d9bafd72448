"""SANS-IO: the audio clock of one stream: what may be sent, what has been heard.

The device plays from the moment the first sample reaches it, at the stream's
rate, as long as it has something to play.  The clock is anchored anew whenever its
course changes: so much was played at that time.  (One origin, moved by pauses and
gaps, would let rounding take back a sample that was already counted as heard.)  The
*lead* is how much the device may hold ahead of its clock.  Where that is without bounds the
device plays when it likes, and nothing can stop it: what was sent counts as played.
"""

from __future__ import annotations

import math

import attrs


@attrs.define
class Playout:
    """Times in seconds of Trio's clock, audio in samples."""

    sample_rate: int
    lead_seconds: float
    sent: int = 0
    _anchored_at: float = 0.0
    _played_then: float = 0.0
    _paused: bool = False

    @property
    def started(self) -> bool:
        """Whether any sample was sent."""
        return self.sent > 0

    @property
    def paused(self) -> bool:
        """Whether the device's clock stands still."""
        return self._paused

    def due(self) -> float:
        """When the next sample may be sent without exceeding the lead; long ago at the start."""
        return self.ends_at() - self.lead_seconds

    def ends_at(self) -> float:
        """When all that was sent will have been played; long ago at the start."""
        if not self.started or self.lead_seconds == math.inf:
            return float("-inf")
        return self._anchored_at + (self.sent - self._played_then) / self.sample_rate

    def send(self, now: float, samples: int) -> None:
        """Samples went to the device."""
        self._anchor(now)  # the first, or after the device had run dry, it begins to play now
        self.sent += samples

    def pause(self, now: float) -> None:
        """The device stops playing and keeps what it has."""
        if not self._paused:
            self._anchor(now)
            self._paused = True

    def resume(self, now: float) -> None:
        """The device goes on where it stopped."""
        if self._paused:
            self._anchor(now)
            self._paused = False

    def played(self, now: float) -> int:
        """Samples that must have been played by now, at most what was sent."""
        return round(self._exactly_played(now))

    def _exactly_played(self, now: float) -> float:
        if self.lead_seconds == math.inf:
            return float(self.sent)
        if self._paused:
            return self._played_then
        played = self._played_then + (now - self._anchored_at) * self.sample_rate
        return min(float(self.sent), played)

    def _anchor(self, now: float) -> None:
        self._played_then, self._anchored_at = self._exactly_played(now), now
