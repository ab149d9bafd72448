"""SANS-IO: the audio clock of one stream: what may be sent, what has been heard.

The device plays from the moment the first sample reaches it, at the stream's
rate, as long as it has something to play.  `origin` is the time at which sample
0 was (or would have been) heard; a pause or a gap moves it.  The *lead* is how
much the device may hold ahead of its clock.
"""

from __future__ import annotations

import attrs

# Of a sample: float times must not make the last one of a stream unheard.
_ROUNDING = 0.01


@attrs.define
class Playout:
    """Times in seconds of Trio's clock, audio in samples."""

    sample_rate: int
    lead_seconds: float
    sent: int = 0
    _origin: float | None = None
    _paused_at: float | None = None

    @property
    def started(self) -> bool:
        """Whether any sample was sent."""
        return self._origin is not None

    @property
    def paused(self) -> bool:
        """Whether the device's clock stands still."""
        return self._paused_at is not None

    def due(self) -> float:
        """When the next sample may be sent without exceeding the lead; long ago at the start."""
        return self.ends_at() - self.lead_seconds

    def ends_at(self) -> float:
        """When all that was sent will have been played; long ago at the start."""
        return (
            float("-inf") if self._origin is None else self._origin + self.sent / self.sample_rate
        )

    def send(self, now: float, samples: int) -> None:
        """Samples went to the device."""
        if now > self.ends_at():  # the first, or the device had run dry: it begins to play now
            self._origin = now - self.sent / self.sample_rate
        self.sent += samples

    def pause(self, now: float) -> None:
        """The device stops playing and keeps what it has."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """The device goes on where it stopped."""
        if self._paused_at is None:
            return
        if self._origin is not None and self.ends_at() > self._paused_at:  # else it had run dry
            self._origin += now - self._paused_at
        self._paused_at = None

    def played(self, now: float) -> int:
        """Samples that must have been played by now, at most what was sent."""
        if self._origin is None:
            return 0
        at = now if self._paused_at is None else self._paused_at
        return max(0, min(self.sent, int((at - self._origin) * self.sample_rate + _ROUNDING)))
