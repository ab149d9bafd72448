"""A tune of our own, made of numbers: what is played where there are no music files.

Twelve bars in C, broken chords with a bell above and a bass below, all of them sums of a
few sines that die away.  Every note begins and ends at zero, so nothing clicks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

TITLE, ARTIST, GENRE = "The ListenAI Tune", "ListenAI", "calm instrumental"

PEAK_DBFS = -8.0  # room for speech above it
_BEAT_SECONDS = 60 / 96
_BEATS_OF_A_BAR = 4
_TAIL_SECONDS = 2.5  # the last notes and their echo die away
_ECHO_BEATS, _ECHO = 0.75, 0.28
_ATTACK_SECONDS, _RELEASE_SECONDS = 0.008, 0.05
_CONCERT_PITCH = 440.0  # Hz, of MIDI note 69

Samples = npt.NDArray[np.float32]

# A bar each: the notes of its broken chord, and the root below.
_C, _E_MINOR, _F = (60, 64, 67, 72), (59, 64, 67, 71), (60, 65, 69, 72)
_G, _A_MINOR = (59, 62, 67, 71), (57, 64, 69, 72)
_CHORDS = (_C, _A_MINOR, _F, _G, _C, _E_MINOR, _F, _G, _A_MINOR, _F, _G, _C)
_ROOTS = (48, 45, 53, 43, 48, 52, 53, 43, 45, 53, 43, 48)
_BROKEN = (0, 1, 2, 3, 2, 1, 2, 1)  # an eighth each

# (MIDI note, beats); 0 is a rest.  A line for four bars.
_MELODY = (
    *((76, 1.5), (74, 0.5), (72, 1), (67, 1), (69, 1.5), (72, 0.5), (76, 2)),
    *((77, 1.5), (76, 0.5), (74, 1), (72, 1), (74, 3), (0, 1)),
    *((76, 1.5), (79, 0.5), (79, 1), (76, 1), (71, 1.5), (74, 0.5), (79, 2)),
    *((81, 1.5), (79, 0.5), (77, 1), (76, 1), (74, 2), (71, 1), (74, 1)),
    *((72, 1.5), (74, 0.5), (76, 2), (77, 1), (76, 1), (74, 1), (69, 1)),
    *((71, 1.5), (72, 0.5), (74, 2), (72, 4)),
)

# No harmonic of the melody is above 3520 Hz: a rate of 8 kHz carries them all.
# (loudness of each harmonic from the fundamental on, how fast it dies away per second)
_BELL = ((1.0, 1.6), (0.32, 2.8), (0.10, 4.5), (0.05, 7.0))
_PLUCKED = ((0.40, 3.5), (0.14, 5.0), (0.05, 8.0))
_BASS = ((0.55, 1.2), (0.22, 2.0), (0.08, 3.0))

_Timbre = tuple[tuple[float, float], ...]


def tune_seconds() -> float:
    """How long the tune plays."""
    return len(_CHORDS) * _BEATS_OF_A_BAR * _BEAT_SECONDS + _TAIL_SECONDS


@functools.lru_cache(maxsize=2)  # 2 MiB each: devices want one rate, seldom two
def compose(rate: int) -> bytes:
    """The whole tune as int16 mono PCM of `rate` Hz, always the same; computes for a while."""
    samples = np.zeros(round(tune_seconds() * rate), np.float32)
    voices: dict[tuple[_Timbre, int, float], Samples] = {}
    for timbre, note, at_beat, beats in _score():
        if (voice := voices.get((timbre, note, beats))) is None:
            voice = voices[timbre, note, beats] = _voice(timbre, note, beats, rate)
        start = round(at_beat * _BEAT_SECONDS * rate)
        samples[start : start + len(voice)] += voice
    late = round(_ECHO_BEATS * _BEAT_SECONDS * rate)
    samples[late:] += _ECHO * samples[:-late].copy()
    samples *= 32768 * 10 ** (PEAK_DBFS / 20) / np.abs(samples).max()
    return np.rint(samples).astype(np.int16).tobytes()


def _score() -> Iterator[tuple[_Timbre, int, float, float]]:
    """Every note: timbre, MIDI note, beat it begins at, beats it sounds."""
    at = 0.0
    for note, beats in _MELODY:
        if note:
            yield _BELL, note, at, beats + 1
        at += beats
    for bar, (chord, root) in enumerate(zip(_CHORDS, _ROOTS, strict=True)):
        start = float(bar * _BEATS_OF_A_BAR)
        yield _BASS, root, start, _BEATS_OF_A_BAR
        for eighth, index in enumerate(_BROKEN):
            yield _PLUCKED, chord[index], start + eighth / 2, 1.5


def _voice(timbre: _Timbre, note: int, beats: float, rate: int) -> Samples:
    """One note with its envelope."""
    seconds = beats * _BEAT_SECONDS
    time = np.arange(round(seconds * rate), dtype=np.float32) / np.float32(rate)
    frequency = _CONCERT_PITCH * 2 ** ((note - 69) / 12)
    voice = np.zeros_like(time)
    for harmonic, (loudness, decay) in enumerate(timbre, start=1):
        wave = np.sin(np.float32(2 * np.pi * harmonic * frequency) * time)
        voice += np.float32(loudness) * wave * np.exp(np.float32(-decay) * time)
    voice *= np.minimum(1, time / np.float32(_ATTACK_SECONDS))
    voice *= np.minimum(1, (np.float32(seconds) - time) / np.float32(_RELEASE_SECONDS))
    return voice
