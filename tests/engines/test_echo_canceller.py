"""AEC3 takes our own voice out of a simulated room, and leaves the user's."""

from __future__ import annotations

import numpy as np
import pytest

from listenai.audio import FRAME_SAMPLES, SAMPLE_RATE
from listenai.engines.echo_canceller import WebrtcEchoCanceller, is_installed

pytestmark = pytest.mark.engines

SECONDS = 8


def voice(seed: int) -> np.ndarray:
    """Syllables of a buzz with a pitch that moves: AEC3 takes bare noise for noise."""
    random = np.random.default_rng(seed)
    samples = SECONDS * SAMPLE_RATE
    pitch = np.cumsum(np.interp(np.arange(samples), *_contour(random, samples, 90, 220)))
    buzz = sum(np.sin(2 * np.pi * n * pitch / SAMPLE_RATE) / n for n in range(1, 25))
    return (
        3000
        * buzz
        * np.clip(np.interp(np.arange(samples), *_contour(random, samples, -1, 1)), 0, 1)
    )


def _contour(
    random: np.random.Generator, samples: int, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    points = np.arange(0, samples, SAMPLE_RATE // 8)
    return points, random.uniform(low, high, len(points))


def echo_of(sound: np.ndarray, gain_db: float) -> np.ndarray:
    """It comes back 140 ms later, from many sides."""
    random = np.random.default_rng(5)
    length = SAMPLE_RATE // 5
    answer = random.standard_normal(length) * np.exp(-np.arange(length) / (length / 7)) * 0.15
    answer[0] = 1.0
    delayed = np.concatenate([np.zeros(round(0.14 * SAMPLE_RATE)), sound])
    return np.convolve(delayed, answer)[: len(sound)] * 10 ** (gain_db / 20)


def cancelled(heard: np.ndarray, played: np.ndarray, size: int = FRAME_SAMPLES) -> np.ndarray:
    """What is left, sample for sample, but for the last piece."""
    canceller, left = WebrtcEchoCanceller(), []
    for at in range(0, len(heard) - size + 1, size):
        pieces = (_pcm(sound[at : at + size]) for sound in (heard, played))
        left.append(np.frombuffer(canceller.process(*pieces), np.int16).astype(float))
        assert len(left[-1]) == size
    return np.concatenate(left)


def _pcm(sound: np.ndarray) -> bytes:
    return np.clip(np.rint(sound), -32768, 32767).astype(np.int16).tobytes()


def level(sound: np.ndarray, since: int = 2) -> float:
    """In dB, after so many seconds."""
    return 10 * np.log10(np.mean(sound[since * SAMPLE_RATE :] ** 2) + 1e-9)


def test_it_is_there():
    assert is_installed()


@pytest.mark.parametrize("gain_db", [-6, -20])
def test_an_echo_gets_quieter(gain_db: float):
    """By 10 dB at least, from the third second on."""
    played = voice(1)
    echo = echo_of(played, gain_db)
    reduced = level(echo) - level(cancelled(echo, played))
    print(f"an echo of {gain_db} dB is {reduced:.0f} dB quieter")
    assert reduced >= 10


def test_who_speaks_alone_is_heard():
    """A little later, but for the lowest frequencies the same."""
    spoken = voice(2)
    left = cancelled(spoken, np.zeros_like(spoken))
    assert level(left) == pytest.approx(level(spoken), abs=1)
    sharp, other = np.diff(left, 2), np.diff(spoken, 2)  # without the lowest
    alike = [
        np.corrcoef(sharp[late:], other[: len(sharp) - late])[0, 1]
        for late in range(SAMPLE_RATE // 40)
    ]
    print(f"heard {np.argmax(alike) / 16:.0f} ms later, {max(alike):.3f} alike")
    assert max(alike) > 0.9


@pytest.mark.parametrize("size", [1, 159, 160, 640])
def test_pieces_of_any_size_give_the_same(size: int):
    """As much comes out as goes in, and the same."""
    played = voice(1)[:SAMPLE_RATE]
    echo = echo_of(played, -6)
    whole = cancelled(echo, played)
    pieces = cancelled(echo, played, size)
    shorter = min(len(whole), len(pieces))
    assert (whole[:shorter] == pieces[:shorter]).all()


def test_unequal_pieces_are_refused():
    canceller = WebrtcEchoCanceller()
    with pytest.raises(ValueError, match="4 bytes were heard and 2 played"):
        canceller.process(bytes(4), bytes(2))
    with pytest.raises(ValueError, match="whole int16 samples"):
        canceller.process(bytes(3), bytes(3))
