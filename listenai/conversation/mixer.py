"""SANS-IO: speech over music: gains that ramp, a buffer that rewinds, and their sum.

PCM is int16 little-endian mono.  Nothing here may click: a gain never jumps while
something sounds, and a sum that is too loud saturates and does not wrap.  Audio that
needs no change is handed on as the same object.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from listenai.audio import SAMPLE_BYTES

RAMP_SECONDS = 0.03  # of a change of volume: at once to the ear, and no click
DUCK_SECONDS = 0.15  # music makes way before the first word is over
UNDUCK_SECONDS = 0.4  # and comes back without startling anyone
DUCK_DB = 18.0  # music under speech; a recognizer needs about 15 dB, a tired listener more

AHEAD_SECONDS = 2.0  # less than this decoded, and more is wanted: outlasts a busy disk
BEHIND_SECONDS = 1.0  # kept of what was taken: the longest lead a device may give back
LONGEST_READ_SECONDS = 2.0  # a read gives about one second, at a track's end a little more
# Held at most: what was given back lies ahead once more.
MOST_SECONDS = AHEAD_SECONDS + LONGEST_READ_SECONDS + 2 * BEHIND_SECONDS

_DUCKED = 10 ** (-DUCK_DB / 20)
_LOWEST, _HIGHEST = -32768, 32767

Levels = npt.NDArray[np.float32]


class Gain:
    """A factor of the amplitude, 1.0 leaving audio as it is, that moves in straight ramps.

    Raises ValueError for a level below 0.
    """

    def __init__(self, sample_rate: int, level: float = 1.0) -> None:
        self._sample_rate = sample_rate  # Hz
        self._level = self._target = _checked(level)
        self._step = 0.0  # added to the level from sample to sample of a ramp
        self._left = 0  # samples until the ramp is over

    @property
    def level(self) -> float:
        """The gain of the last sample."""
        return self._level

    def ramp_to(self, level: float, seconds: float = RAMP_SECONDS) -> None:
        """Moves to the level from where it is now; on its way there already, it goes on."""
        if level != self._target:
            self._target = _checked(level)
            self._left = max(1, round(seconds * self._sample_rate))
            self._step = (level - self._level) / self._left

    def jump_to(self, level: float) -> None:
        """Is at the level: for when nothing sounds."""
        self._level = self._target = _checked(level)
        self._left = 0

    def apply(self, pcm: bytes) -> bytes:
        """The same audio, louder or quieter; a steady 1.0 returns the very object."""
        if not self._left and self._level == 1.0:
            return pcm
        samples = np.frombuffer(pcm, np.int16)
        return _to_pcm(samples * self.levels(len(samples)))

    def levels(self, samples: int) -> Levels | np.float32:
        """The gains of the next samples: one for each on a ramp, else one for all."""
        if not self._left:
            return np.float32(self._level)
        ramp = min(samples, self._left)
        levels = np.full(samples, self._target, np.float32)
        levels[:ramp] = self._level + self._step * np.arange(1, ramp + 1, dtype=np.float32)
        self._left -= ramp
        self._level = self._level + self._step * ramp if self._left else self._target
        return levels


class MusicBuffer:
    """Decoded music: some ahead of what was taken, and a little behind that can be given back.

    Holds at most MOST_SECONDS: more is added only while `wanted` is above 0.
    """

    def __init__(self, sample_rate: int) -> None:
        self._ahead = round(AHEAD_SECONDS * sample_rate)
        self._behind = round(BEHIND_SECONDS * sample_rate) * SAMPLE_BYTES
        most = AHEAD_SECONDS + LONGEST_READ_SECONDS + BEHIND_SECONDS
        self._most_ahead = round(most * sample_rate) * SAMPLE_BYTES
        self._audio = bytearray()
        self._taken = 0  # bytes at the front that were taken
        self._complete = False

    @property
    def ahead(self) -> int:
        """Samples that can be taken."""
        return (len(self._audio) - self._taken) // SAMPLE_BYTES

    @property
    def behind(self) -> int:
        """Samples that can be given back."""
        return self._taken // SAMPLE_BYTES

    @property
    def wanted(self) -> int:
        """Samples to fill it up; 0 when it is full, or nothing follows."""
        return 0 if self._complete else max(0, self._ahead - self.ahead)

    @property
    def ended(self) -> bool:
        """Whether all was taken and nothing follows."""
        return self._complete and not self.ahead

    def append(self, pcm: bytes) -> None:
        """Adds what was read when more was wanted.

        ValueError for half a sample, for more than is ever wanted, and after `complete`.
        """
        if len(pcm) % SAMPLE_BYTES:
            raise ValueError(f"{len(pcm)} bytes of music are not whole {SAMPLE_BYTES}-byte samples")
        if self._complete:
            raise ValueError("music was added after it was said to be complete; clear() it first")
        if len(self._audio) - self._taken + len(pcm) > self._most_ahead:
            raise ValueError(
                f"{len(pcm)} bytes of music were added with {self.ahead} samples ahead; "
                f"add at most {LONGEST_READ_SECONDS} s, and only while some are wanted"
            )
        self._audio += pcm

    def complete(self) -> None:
        """Nothing follows what was added."""
        self._complete = True

    def take(self, samples: int) -> bytes:
        """The next samples; fewer when there are fewer, which the caller makes up for."""
        end = min(len(self._audio), self._taken + samples * SAMPLE_BYTES)
        pcm = bytes(self._audio[self._taken : end])
        forgotten = max(0, end - self._behind)
        del self._audio[:forgotten]
        self._taken = end - forgotten
        return pcm

    def give_back(self, samples: int) -> None:
        """The last samples taken were not played: they come again.

        ValueError for more than `behind`: what was taken since the start or `clear`, at most
        BEHIND_SECONDS.
        """
        if not 0 <= samples * SAMPLE_BYTES <= self._taken:
            raise ValueError(
                f"{samples} samples of music were given back; the last "
                f"{self.behind} can be: the lead of a device is at most "
                f"{BEHIND_SECONDS} s"
            )
        self._taken -= samples * SAMPLE_BYTES

    def clear(self) -> None:
        """Forgets all of it: other music follows."""
        self._audio.clear()
        self._taken = 0
        self._complete = False


class Mixer:
    """Speech over music, which is DUCK_DB quieter as long as there is speech.

    Silent PCM is speech too: given between sentences, it keeps the music down.
    """

    def __init__(self, sample_rate: int) -> None:
        self._duck = Gain(sample_rate)

    def mix(self, speech: bytes, music: bytes) -> bytes:
        """Their sum, as long as the longer of the two; without music the very `speech`."""
        if not music:
            if speech:
                self.cut()
            return speech
        if not speech:
            self._duck.ramp_to(1.0, UNDUCK_SECONDS)
            return self._duck.apply(music)
        self._duck.ramp_to(_DUCKED, DUCK_SECONDS)
        below, above = np.frombuffer(music, np.int16), np.frombuffer(speech, np.int16)
        mixed = np.zeros(max(len(below), len(above)), np.float32)
        np.multiply(below, self._duck.levels(len(below)), out=mixed[: len(below)])
        mixed[: len(above)] += above
        return _to_pcm(mixed)

    def cut(self) -> None:
        """The music has fallen silent: when it comes back, it begins quiet, and alone fades in."""
        self._duck.jump_to(_DUCKED)


def _checked(level: float) -> float:
    if not 0 <= level < float("inf"):
        raise ValueError(f"a gain is 0 or more, and finite, not {level}")
    return level


def _to_pcm(samples: Levels) -> bytes:
    """Rounds in place, and saturates."""
    np.rint(samples, out=samples)
    np.maximum(samples, _LOWEST, out=samples)
    np.minimum(samples, _HIGHEST, out=samples)
    return samples.astype(np.int16).tobytes()
