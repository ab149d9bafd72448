"""WebRTC's noise suppressor on real speech in noise."""

from __future__ import annotations

import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from listenai.audio import FRAME_BYTES, Framer
from listenai.engines.noise_reduction import NoiseReduction
from listenai.errors import EngineError

pytestmark = pytest.mark.engines

DELAY = 224  # samples, 14 ms: 8 of cutting into other steps, 6 of the library


def speech() -> np.ndarray:
    with wave.open(str(Path(__file__).parents[1] / "data" / "dog_and_house.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)


def reduced(samples: np.ndarray) -> np.ndarray:
    step = NoiseReduction()
    out = [step.process(frame) for frame in Framer().push(samples.astype("<i2").tobytes())]
    assert {len(frame) for frame in out} == {FRAME_BYTES}
    return np.frombuffer(b"".join(out), "<i2").astype(float)


def power_db(samples: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(samples**2)))


def test_noise_becomes_quieter_and_speech_does_not() -> None:
    """A steady hiss, learned in a second: 15 dB less; the sentence in it keeps its level."""
    said = speech()
    hiss = np.random.default_rng(1).normal(0, 200, 16_000 + said.size)
    sound = hiss.copy()
    sound[16_000:] += said
    clean = reduced(sound)
    assert power_db(clean[9_600:16_000]) < power_db(hiss) - 15
    spoken = clean[16_000 + DELAY : 16_000 + said.size]
    assert power_db(spoken) == pytest.approx(power_db(said), abs=1.5)
    assert np.corrcoef(spoken, said[: spoken.size])[0, 1] > 0.97


def test_speech_after_digital_silence_passes_late_by_14_ms() -> None:
    """Where it is, and how it is."""
    said = np.concatenate([np.zeros(16_000), speech()])
    clean = reduced(said)
    size = 1 << 17
    match = np.fft.irfft(np.fft.rfft(clean, size) * np.fft.rfft(said, size).conj())
    assert int(match.argmax()) == DELAY
    assert np.corrcoef(clean[DELAY:], said[: clean.size - DELAY])[0, 1] > 0.999
    assert power_db(clean) == pytest.approx(power_db(said), abs=0.2)


def test_a_frame_of_the_wrong_size_is_refused() -> None:
    """The message says which size is right."""
    with pytest.raises(ValueError, match="takes 512 bytes"):
        NoiseReduction().process(bytes(320))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in `sys.modules` is how Python says: not installed."""
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(EngineError, match=r"pip install 'listenai\[denoising\]'"):
        NoiseReduction()


def test_a_frame_costs_a_fraction_of_its_length(
    record_property: Callable[[str, object], None],
) -> None:
    """The median stays under 0.5 ms (measured: 18 µs)."""
    step, durations = NoiseReduction(), []
    for frame in Framer().push(speech().astype("<i2").tobytes()):
        began = time.perf_counter()
        step.process(frame)
        durations.append(time.perf_counter() - began)
    median = sorted(durations)[len(durations) // 2]
    record_property("median_us", round(median * 1e6))
    assert median < 0.5e-3, f"{median * 1e6:.0f} µs a frame"
