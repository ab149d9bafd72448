"""SANS-IO: does what a device was sent come back through its microphone?

Theory.  An echo has the envelope of what was played, later by the way there and back.  So the
levels (dB) of both sides, in ticks of 20 ms, are correlated at every delay up to a second;
the best delay counts.  Measured with synthetic voices, rooms and noise: wherever the detector
takes an echo for speech, the correlation is .5 or more, down to -50 dB; noise alone stays below
.2, and another speaker below .5 once the start, where both begin, is left out.

That nothing correlates proves nothing while somebody talks into the microphone, or while what
is played is too quiet to be heard.  So an echo counts as cancelled only when, in addition, the
microphone was about as quiet as it ever was through most of what was loud.  Between the two nothing
is known yet, and more is collected.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.device import Echo

TICK_SECONDS = 0.02
LONGEST_DELAY_SECONDS = 1.0  # network, jitter buffer and loudspeaker; more after a stall
BATCH_SECONDS = 0.5  # the finding is looked for so often
KEPT_SECONDS = 8.0  # of the microphone; the conditions of long ago are no longer these

FLOOR_DBFS = -90.0  # one bit of noise; digital silence is called this too
LOUD_DBFS = -40.0  # of what is sent: an echo of it would be heard, if there were one
LOUD_SECONDS = 2.0  # needed for any finding
VARIED_DB = 5.0  # standard deviation of what is sent: speech has 10 and more
RAW_CORRELATION, RAW_SECONDS = 0.6, 4.0
CANCELLED_CORRELATION = 0.35
QUIET_DB = 8.0  # above the quietest that the microphone was
QUIET_SHARE = 0.8  # of the loud ticks

# In ticks; some before 0: a device that reports late seems to play later than it does.
_LAGS = np.arange(-10, round(LONGEST_DELAY_SECONDS / TICK_SECONDS) + 1)
_BATCH_BYTES = round(BATCH_SECONDS * SAMPLE_RATE) * SAMPLE_BYTES
_KEPT_TICKS = round(KEPT_SECONDS / TICK_SECONDS)
_SENT_TICKS = 2 * _KEPT_TICKS  # with what is ahead; what is sent beyond is not looked at

Levels = npt.NDArray[np.float64]


@attrs.frozen
class Finding:
    """What became of our sound at the device, and how much later it was heard."""

    echo: Echo  # RAW or CANCELLED
    delay_seconds: float = 0.0


def levels(pcm: bytes, sample_rate: int) -> Levels:
    """The level of each tick of int16 mono PCM, in dBFS; the last tick may be shorter."""
    window = max(1, round(sample_rate * TICK_SECONDS))
    samples = np.frombuffer(pcm, np.int16).astype(np.float64) / 32768
    starts = np.arange(0, len(samples), window)
    if not len(starts):
        return np.zeros(0)
    power = np.add.reduceat(samples * samples, starts)
    power /= np.minimum(window, len(samples) - starts)
    level: Levels = np.maximum(FLOOR_DBFS, 10 * np.log10(power + 1e-12))
    return level


@attrs.define
class EchoEvidence:
    """Envelopes of both sides on one clock, in seconds; bounded by KEPT_SECONDS.

    seconds, quiet_share: how much is needed, and how much of what is loud must be quiet at the
    microphone, before the echo counts as cancelled.
    """

    seconds: float = LOUD_SECONDS
    quiet_share: float = QUIET_SHARE
    _sent: dict[int, float] = attrs.field(factory=dict)  # tick → dBFS
    _heard: dict[int, float] = attrs.field(factory=dict)
    _batch: bytearray = attrs.field(factory=bytearray)  # of the microphone, not yet levels
    _batch_at: float = 0.0

    def sent(self, pcm: bytes, sample_rate: int, starts_at: float) -> None:
        """The device plays this then: int16 mono PCM."""
        if len(self._sent) < _SENT_TICKS:
            first = round(starts_at / TICK_SECONDS)
            self._sent.update(enumerate(levels(pcm, sample_rate).tolist(), first))

    def shift(self, since: float, seconds: float) -> None:
        """What was to be played after `since` is played so much later."""
        first, by = round(since / TICK_SECONDS), round(seconds / TICK_SECONDS)
        self._sent = {tick + by * (tick >= first): level for tick, level in self._sent.items()}

    def forget_after(self, now: float) -> None:
        """What was to be played after now never will be."""
        first = round(now / TICK_SECONDS)
        self._sent = {tick: level for tick, level in self._sent.items() if tick < first}

    def heard(self, pcm: bytes, starts_at: float) -> Finding | None:
        """The microphone's audio (int16 mono 16 kHz) from then on; a finding as soon as there
        is one."""
        if not self._batch:
            self._batch_at = starts_at
        self._batch += pcm
        if len(self._batch) < _BATCH_BYTES:
            return None
        self.end_batch()
        return self._finding()

    def end_batch(self) -> None:
        """What is heard next does not follow on what was heard last."""
        if not self._batch:
            return
        first = round(self._batch_at / TICK_SECONDS)
        self._heard.update(enumerate(levels(bytes(self._batch), SAMPLE_RATE).tolist(), first))
        self._batch.clear()
        for tick in list(self._heard)[:-_KEPT_TICKS]:
            del self._heard[tick]
        oldest = min(self._heard) - int(_LAGS[-1])
        self._sent = {tick: level for tick, level in self._sent.items() if tick >= oldest}

    def _finding(self) -> Finding | None:
        heard = np.array(list(self._heard.values()))
        played = self._played()
        alike = _correlations(played, heard)
        best = int(np.argmax(alike))
        sent, correlation = played[best], alike[best]
        loud = sent > LOUD_DBFS
        if loud.sum() * TICK_SECONDS < LOUD_SECONDS or sent.std() < VARIED_DB:
            return None
        seconds = len(heard) * TICK_SECONDS
        if correlation >= RAW_CORRELATION and seconds >= RAW_SECONDS:
            return Finding(Echo.RAW, max(0.0, float(_LAGS[best]) * TICK_SECONDS))
        quiet = heard <= heard.min() + QUIET_DB
        unlike = correlation <= CANCELLED_CORRELATION and seconds >= self.seconds
        if unlike and quiet[loud].mean() >= self.quiet_share:
            return Finding(Echo.CANCELLED)
        return None

    def _played(self) -> Levels:
        """For each lag a row: what was played so long before each tick of the microphone."""
        sent = sorted(self._sent.items())
        ticks = np.array([tick for tick, _ in sent] + [np.iinfo(np.int64).max])
        level = np.array([level for _, level in sent] + [FLOOR_DBFS])
        wanted = np.array(list(self._heard))[np.newaxis, :] - _LAGS[:, np.newaxis]
        at = np.searchsorted(ticks, wanted)
        return np.where(ticks[at] == wanted, level[at], FLOOR_DBFS)


def _correlations(played: Levels, heard: Levels) -> Levels:
    """Of each row with what was heard, -1 to 1; 0 where one of them never changes."""
    played = played - played.mean(axis=1, keepdims=True)
    heard = heard - heard.mean()
    spread = np.sqrt((played**2).sum(axis=1) * (heard**2).sum())
    alike: Levels = np.where(spread > 1e-6, played @ heard / np.maximum(spread, 1e-6), 0.0)
    return alike
