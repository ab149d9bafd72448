"""The tune of our own, measured: at any rate pleasant to a loudspeaker."""

from __future__ import annotations

import numpy as np
import pytest

from listenai.codecs.tune import compose, tune_seconds

RATES = (8_000, 16_000, 22_050, 24_000, 48_000)


def samples_of(rate: int) -> np.ndarray:
    return np.frombuffer(compose(rate), "<i2") / 32768


@pytest.mark.parametrize("rate", RATES)
def test_it_is_as_long_as_it_says(rate: int):
    """Half a minute, at every rate."""
    assert 30 <= tune_seconds() <= 40
    assert len(samples_of(rate)) == round(tune_seconds() * rate)


@pytest.mark.parametrize("rate", RATES)
def test_it_leaves_room_for_speech(rate: int):
    """Its peak is below -6 dBFS, it is no whisper, and it has no DC."""
    samples = samples_of(rate)
    assert 0.3 < np.abs(samples).max() < 0.5
    assert -30 < 10 * np.log10(np.mean(samples**2)) < -15
    assert abs(samples.mean()) < 1e-4


@pytest.mark.parametrize("rate", RATES)
def test_it_begins_and_ends_in_silence(rate: int):
    """No click where it is put beside something else."""
    samples = samples_of(rate)
    assert samples[0] == samples[-1] == 0
    assert np.abs(samples[: rate // 1000]).max() < 0.05
    assert np.abs(samples[-rate // 10 :]).max() < 0.001


def test_no_note_clicks():
    """A note cut off stands out of the fourth difference, which leaves little of its tones."""
    assert np.abs(np.diff(samples_of(48_000), n=4)).max() < 0.005


def test_there_is_music_all_the_time():
    """No silence but the tail."""
    samples = samples_of(16_000)[: 30 * 16_000]
    blocks = samples.reshape(-1, 8_000)
    assert np.sqrt((blocks**2).mean(axis=1)).min() > 0.01


def test_it_is_in_tune_whatever_the_rate():
    """The first bar's strongest tone is a note of its chord of C."""
    for rate in RATES:
        bar = samples_of(rate)[: round(2.5 * rate)]
        strongest = np.abs(np.fft.rfft(bar)).argmax() / 2.5
        note = round(69 + 12 * np.log2(strongest / 440))
        assert abs(strongest - 440 * 2 ** ((note - 69) / 12)) < 0.6
        assert note % 12 in {0, 4, 7}


def test_it_is_always_the_same():
    """Made anew, it is equal."""
    first = compose(8_000)
    compose.cache_clear()
    assert compose(8_000) == first
