"""TEN VAD's real library on synthetic speech."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from listenai.audio import FRAME_BYTES, FRAME_SECONDS, SAMPLE_RATE, Framer, dbfs
from listenai.engines.ten_vad import TenVadDetector, load_library
from listenai.errors import EngineError

pytestmark = pytest.mark.engines
SILENCE = bytes(FRAME_BYTES)
SECOND = int(1 / FRAME_SECONDS)  # frames


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Frames of a sentence, without the silence around it."""
    assert shutil.which("flite"), "these tests speak with flite: apt-get install flite"
    path = tmp_path_factory.mktemp("speech") / "sentence.wav"
    sentence = "please turn on the light in the kitchen"
    subprocess.run(["flite", "-voice", "slt", "-t", sentence, "-o", path], check=True)
    with wave.open(str(path)) as recording:
        assert recording.getframerate() == SAMPLE_RATE
        pcm = recording.readframes(recording.getnframes())
    frames = list(Framer().push(pcm))
    loud = [at for at, frame in enumerate(frames) if dbfs(frame) > -50]
    return frames[loud[0] : loud[-1] + 1]


def probabilities(detector: TenVadDetector, frames: list[bytes]) -> list[float]:
    return [detector.process(frame) for frame in frames]


def share_of_speech(detector: TenVadDetector, frames: list[bytes]) -> float:
    return sum(p >= 0.5 for p in probabilities(detector, frames)) / len(frames)


def test_speech_is_told_from_silence_and_noise(speech: list[bytes]) -> None:
    """Digital silence and faint noise are silence; a sentence is speech, then silence again."""
    randomness = random.Random(1)
    noise = [
        b"".join(randomness.randint(-60, 60).to_bytes(2, "little", signed=True) for _ in range(256))
        for _ in range(SECOND)
    ]
    with TenVadDetector() as detector:
        assert share_of_speech(detector, [SILENCE] * SECOND) == 0
        assert share_of_speech(detector, noise) < 0.05
        assert share_of_speech(detector, speech) > 0.85
        assert share_of_speech(detector, [SILENCE] * SECOND) < 0.15  # the offset lag: some frames


def test_instances_are_independent(speech: list[bytes]) -> None:
    """Two detectors fed in turns say what each says alone."""
    quiet = [SILENCE] * len(speech)
    with TenVadDetector() as alone:
        expected = probabilities(alone, speech)
    with TenVadDetector() as first, TenVadDetector() as second:
        mixed = [(first.process(a), second.process(b)) for a, b in zip(speech, quiet, strict=True)]
    assert [heard for heard, _ in mixed] == expected
    assert max(silence for _, silence in mixed) < 0.5
    assert any(a != b for a, b in pairwise(expected))


def test_a_frame_of_the_wrong_size_is_refused() -> None:
    """The message says which size is right, and how to get there."""
    with TenVadDetector() as detector, pytest.raises(ValueError, match="takes 512 bytes"):
        detector.process(SILENCE[:-2])


def test_a_closed_detector_says_so() -> None:
    """Closing twice is harmless; processing afterwards is an error and no crash."""
    detector = TenVadDetector()
    detector.close()
    detector.close()
    with pytest.raises(EngineError, match="closed"):
        detector.process(SILENCE)


def test_a_library_that_cannot_load_says_what_to_install(tmp_path: Path) -> None:
    """A file that is no library stands for one whose libc++ is missing."""
    broken = tmp_path / "libten_vad.so"
    broken.write_bytes(b"not a library")
    with pytest.raises(EngineError, match=r"apt-get install libc\+\+1"):
        load_library(broken)


def test_closing_frees_the_native_memory() -> None:
    """A thousand detectors, one after the other, do not add up (each is 620 KiB)."""
    process = psutil.Process()
    for _ in range(20):  # warm up the allocator
        TenVadDetector().close()
    before = process.memory_info().rss
    for _ in range(1000):
        with TenVadDetector() as detector:
            detector.process(SILENCE)
    assert process.memory_info().rss - before < 60 * 1024 * 1024


def test_a_frame_costs_a_fraction_of_its_length(
    speech: list[bytes], record_property: Callable[[str, object], None]
) -> None:
    """The median frame stays under 1 ms, a sixteenth of what it lasts (measured: 62 µs)."""
    durations = []
    with TenVadDetector() as detector:
        for frame in speech:
            began = time.perf_counter()
            detector.process(frame)
            durations.append(time.perf_counter() - began)
    median = sorted(durations)[len(durations) // 2]
    record_property("median_us", round(median * 1e6))
    assert median < 1e-3, f"{median * 1e6:.0f} µs a frame"
