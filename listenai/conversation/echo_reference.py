"""SANS-IO: what a device plays when: the reference for cancelling its echo.

An echo canceller finds a delay that hardly changes, so what it is given must follow on without
a jump: it is read on, sample by sample, until the clocks of both sides are far apart.
"""

from __future__ import annotations

import attrs

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE

BEHIND_SECONDS = 2.0  # kept of what was played: audio from the microphone may come late
AHEAD_SECONDS = 2.0  # more than the lead of any device that is paced
APART_SECONDS = 0.06  # before the reading place is moved


@attrs.define
class EchoReference:
    """int16 mono 16 kHz on one clock, in seconds; silence where nothing is played.

    Bounded: what is played later than AHEAD_SECONDS after what was read is not kept.
    """

    _audio: bytearray = attrs.field(factory=bytearray)
    _begins: int = 0  # the sample, since the clock's zero, at which it begins
    _read: int = 0  # the sample that is read next
    _paused: bytes = b""  # what was cut off by a pause
    jumped: bool = False  # what was read last does not follow on what was read before

    def play(self, pcm: bytes, starts_at: float) -> None:
        """The device plays this then, instead of what it would have played."""
        first = round(starts_at * SAMPLE_RATE)
        if not self._audio:
            self._begins = first
        at = (first - self._begins) * SAMPLE_BYTES
        most = round((BEHIND_SECONDS + AHEAD_SECONDS) * SAMPLE_RATE) * SAMPLE_BYTES
        if at + len(pcm) > most:
            self._forget_before(first - round(BEHIND_SECONDS * SAMPLE_RATE))
            at = (first - self._begins) * SAMPLE_BYTES
        if 0 <= at <= most - len(pcm):
            self._audio += bytes(max(0, at - len(self._audio)))
            self._audio[at : at + len(pcm)] = pcm

    def pause(self, now: float) -> None:
        """Nothing is played until `resume`."""
        self._paused = self._cut(now)

    def resume(self, now: float) -> None:
        """What was to be played when it was paused is played from now on."""
        rest, self._paused = self._paused, b""
        if rest:
            self.play(rest, now)

    def forget_after(self, now: float) -> None:
        """What was to be played after now never will be."""
        self._cut(now)
        self._paused = b""

    def read(self, starts_at: float, samples: int) -> bytes:
        """What was played while so many samples, from then on, were heard."""
        wanted = round(starts_at * SAMPLE_RATE)
        self.jumped = abs(wanted - self._read) > APART_SECONDS * SAMPLE_RATE
        if self.jumped:
            self._read = wanted
        at = (self._read - self._begins) * SAMPLE_BYTES
        end = at + samples * SAMPLE_BYTES
        self._read += samples
        silence = bytes(min(max(0, -at), end - at))
        played = bytes(self._audio[max(0, at) : max(0, end)])
        return (silence + played).ljust(samples * SAMPLE_BYTES, b"\0")

    def _cut(self, since: float) -> bytes:
        at = max(0, (round(since * SAMPLE_RATE) - self._begins) * SAMPLE_BYTES)
        rest = bytes(self._audio[at:])
        del self._audio[at:]
        return rest

    def _forget_before(self, sample: int) -> None:
        del self._audio[: max(0, sample - self._begins) * SAMPLE_BYTES]
        self._begins = max(self._begins, sample)
