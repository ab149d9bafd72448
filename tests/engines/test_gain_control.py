"""Quiet voices become louder, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from listenai.audio import FRAME_BYTES, Framer, dbfs
from listenai.engines.gain_control import (
    LOUDEST_NOISE_DBFS,
    MOST_GAIN_DB,
    TARGET_DBFS,
    GainControl,
)
from listenai.engines.noise_floor import NoiseFloor

QUIET = -82.0  # dBFS


def sound(level: float, seconds: float, seed: int = 1) -> list[bytes]:
    """Frames of noise."""
    scale = 32_768 * 10 ** (level / 20)
    samples = np.random.default_rng(seed).normal(0, scale, round(seconds * 16_000))
    return list(Framer().push(samples.clip(-32_768, 32_767).astype("<i2").tobytes()))


def speech(level: float, seconds: float) -> list[bytes]:
    """Syllables of 160 ms, with gaps of 80 ms."""
    loud, quiet = sound(level, seconds), sound(QUIET, seconds)
    return [loud[at] if at % 15 < 10 else quiet[at] for at in range(len(loud))]


def levels(control: GainControl, frames: list[bytes]) -> list[float]:
    return [dbfs(control.process(frame)) for frame in frames]


def loud(found: list[float]) -> float:
    """The level of loud syllables in the last second."""
    return sorted(found[-62:])[-20]


@pytest.mark.parametrize("level", [-50, -40, -24, -15])
def test_speech_comes_to_one_loudness(level: float) -> None:
    """Within two seconds, from a whisper to a shout."""
    control = GainControl(NoiseFloor())
    levels(control, sound(QUIET, 1))
    assert loud(levels(control, speech(level, 3))) == pytest.approx(TARGET_DBFS, abs=1.5)


def test_the_gain_is_bounded() -> None:
    """Very quiet speech stays quieter than others'."""
    control = GainControl(NoiseFloor())
    levels(control, sound(-90, 4))
    found = loud(levels(control, speech(-62, 4)))
    assert found == pytest.approx(-62 + MOST_GAIN_DB, abs=1.5)
    assert control.gain_db == pytest.approx(MOST_GAIN_DB)


def test_noise_is_left_alone_and_the_gain_kept_in_pauses() -> None:
    """A room without speech stays as it is, to the byte; after speech no gain creeps up."""
    control = GainControl(NoiseFloor())
    room = sound(QUIET, 5)
    assert [control.process(frame) for frame in room] == room
    levels(control, speech(-40, 3))
    gain = control.gain_db
    levels(control, sound(QUIET, 5, seed=2))
    assert control.gain_db == pytest.approx(gain, abs=0.5)


def test_noise_is_not_made_loud() -> None:
    """Quiet speech in a noisy room is raised only as far as the noise allows."""
    control = GainControl(NoiseFloor())
    levels(control, sound(-58, 4))
    noisy = speech(-45, 4)
    mixed = [frame if dbfs(frame) > -60 else sound(-58, 0.016)[0] for frame in noisy]
    levels(control, mixed)
    assert control.gain_db == pytest.approx(LOUDEST_NOISE_DBFS - -58, abs=2.5)


def test_soft_syllables_stay_softer_than_loud_ones() -> None:
    """The gain does not follow each of them."""
    control = GainControl(NoiseFloor())
    levels(control, sound(QUIET, 1))
    gains = []
    for first, second in zip(speech(-30, 4), speech(-45, 4), strict=True):
        control.process(first if len(gains) % 30 < 15 else second)
        gains.append(control.gain_db)
    assert max(gains[-62:]) - min(gains[-62:]) < 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 32_767), st.integers(1, 40)), min_size=1, max_size=12))
@example([(60.0, 80), (32_767.0, 5)])
def test_it_never_wraps_around(parts: list[tuple[float, int]]) -> None:
    """Whatever follows what: samples keep their sign, and frames their length."""
    control = GainControl(NoiseFloor())
    for amplitude, count in parts:
        frame = (np.sin(np.arange(256) * 0.7) * amplitude).astype("<i2")
        for _ in range(count):
            out = control.process(frame.tobytes())
            assert len(out) == FRAME_BYTES
            samples = np.frombuffer(out, "<i2").astype(int)
            assert (samples * frame.astype(int) >= 0).all()
            assert np.abs(samples).max() <= 32_767
