"""Streams at another rate: the right length, the right tone, whatever the pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.audio import dbfs
from listenai.codecs.resampling import StreamResampler

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)


def tone(hertz: float, rate: int, samples: int) -> bytes:
    phase = np.arange(samples) * (2 * np.pi * hertz / rate)
    return (np.sin(phase) * 16_000).astype("<i2").tobytes()


def convert(resampler: StreamResampler, pcm: bytes, piece_bytes: int) -> bytes:
    pieces = [pcm[at : at + piece_bytes] for at in range(0, len(pcm), piece_bytes)]
    return b"".join(map(resampler.push, pieces)) + resampler.flush()


@settings(max_examples=60, deadline=None)
@given(
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from(RATES),
    samples=st.integers(0, 20_000),
    piece=st.integers(1, 5_000),
    low_delay=st.booleans(),
)
def test_pieces_do_not_matter(
    from_rate: int, to_rate: int, samples: int, piece: int, low_delay: bool
) -> None:
    """Length is exact within two samples, and in pieces comes what comes at once."""
    pcm = tone(440, from_rate, samples)
    resampler = StreamResampler(from_rate, to_rate, low_delay=low_delay)
    once = resampler.push(pcm) + resampler.flush()
    assert abs(len(once) / 2 - samples * to_rate / from_rate) <= 2
    again = convert(resampler, pcm, 2 * piece)  # flush has made it new
    assert len(again) == len(once)
    difference = np.frombuffer(again, np.int16).astype(int) - np.frombuffer(once, np.int16)
    assert not difference.size or np.abs(difference).max() <= 2  # libsoxr dithers


@pytest.mark.parametrize("low_delay", [False, True])
@pytest.mark.parametrize("from_rate", [22_050, 48_000])
def test_speech_passes_and_aliases_do_not(from_rate: int, low_delay: bool) -> None:
    """A tone of 3 kHz keeps its level; one of 9 kHz does not fold into 16 kHz audio."""
    resampler = StreamResampler(from_rate, 16_000, low_delay=low_delay)
    passed = tone(3_000, from_rate, from_rate)
    assert dbfs(convert(resampler, passed, 2_048)) == pytest.approx(dbfs(passed), abs=0.2)
    middle = convert(resampler, tone(9_000, from_rate, from_rate), 2_048)[8_000:-8_000]
    assert dbfs(middle) < -75


@pytest.mark.parametrize(("low_delay", "bound_ms"), [(False, 45), (True, 25)])
def test_what_is_kept_back_is_bounded(low_delay: bool, bound_ms: float) -> None:
    """A microphone at 48 kHz, 10 ms at a time."""
    resampler = StreamResampler(48_000, 16_000, low_delay=low_delay)
    given_ms = got_ms = worst_ms = 0.0
    for _ in range(100):
        given_ms += 10
        got_ms += len(resampler.push(tone(440, 48_000, 480))) / 2 / 16
        worst_ms = max(worst_ms, given_ms - got_ms)
    assert worst_ms <= bound_ms


def test_equal_rates_change_nothing() -> None:
    """Not even the object."""
    resampler = StreamResampler(16_000, 16_000)
    pcm = tone(440, 16_000, 100)
    assert resampler.push(pcm) is pcm
    assert resampler.flush() == b""


def test_half_a_sample_is_refused() -> None:
    """It would shift every sample after it by a byte."""
    with pytest.raises(ValueError, match="3 bytes are not a whole number"):
        StreamResampler(22_050, 16_000).push(b"abc")


def test_a_rate_of_nothing_is_refused() -> None:
    """With both rates in the message."""
    with pytest.raises(ValueError, match="from 0 to 16000 Hz"):
        StreamResampler(0, 16_000)
