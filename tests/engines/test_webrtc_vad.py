"""WebRTC's detector on what people and machines sound like."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from listenai.audio import FRAME_BYTES, FRAME_SECONDS, Framer, dbfs
from listenai.engines.webrtc_vad import WebRtcDetector
from listenai.errors import EngineError
from listenai.wav import read_wav

pytestmark = pytest.mark.engines
SPOKEN = sorted((Path(__file__).parents[1] / "data").glob("*.wav"))
SILENCE = bytes(FRAME_BYTES)
SECOND = int(1 / FRAME_SECONDS)  # frames


@pytest.fixture(autouse=True)
def _library() -> None:
    pytest.importorskip("webrtcvad", reason="WebRTC VAD is missing: pip install '.[webrtcvad]'")


def frames_of(path: Path) -> list[bytes]:
    return list(Framer().push(read_wav(path).samples.tobytes()))


def is_speech(detector: WebRtcDetector, frames: list[bytes]) -> list[bool]:
    """At the usual threshold."""
    return [detector.process(frame) >= 0.5 for frame in frames]


@pytest.mark.parametrize("path", SPOKEN, ids=lambda path: path.stem)
def test_speech_is_told_from_silence(path: Path) -> None:
    """Of the sentences of all fixtures: found within 64 ms, over within a quarter second."""
    frames = frames_of(path)
    speech = is_speech(WebRtcDetector(), frames)
    audible = [at for at, frame in enumerate(frames) if dbfs(frame) > -80]
    loud = [at for at, frame in enumerate(frames) if dbfs(frame) > -50]
    inside = speech[loud[0] : loud[-1] + 1]
    assert sum(inside) / len(inside) > 0.85
    assert audible[0] <= speech.index(True) <= loud[0] + 4
    assert not any(speech[audible[-1] + SECOND // 4 :])


def test_faint_noise_and_silence_are_no_speech() -> None:
    """Once it knows the noise."""
    chance = random.Random(1)
    noise = [
        b"".join(chance.randint(-60, 60).to_bytes(2, "little", signed=True) for _ in range(256))
        for _ in range(2 * SECOND)
    ]
    assert not any(is_speech(WebRtcDetector(), [SILENCE] * SECOND))
    assert not any(is_speech(WebRtcDetector(), noise)[SECOND // 2 :])


def test_a_probability_has_degrees() -> None:
    """Thresholds other than the usual one mean something."""
    detector = WebRtcDetector()
    frames = [frame for path in SPOKEN for frame in frames_of(path)]
    found = {detector.process(frame) for frame in frames}
    assert {0.0, 1.0} < found <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_instances_are_independent() -> None:
    """Two detectors fed in turns say what each says alone."""
    frames = frames_of(SPOKEN[0])
    alone = is_speech(WebRtcDetector(), frames)
    first, second = WebRtcDetector(), WebRtcDetector()
    mixed = [(first.process(frame) >= 0.5, second.process(SILENCE) >= 0.5) for frame in frames]
    assert [heard for heard, _ in mixed] == alone
    assert not any(silence for _, silence in mixed)


def test_a_frame_of_the_wrong_size_is_refused() -> None:
    """The message says which size is right, and how to get there."""
    with WebRtcDetector() as detector, pytest.raises(ValueError, match="takes 512 bytes"):
        detector.process(SILENCE[:-2])


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in its place is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(EngineError, match=r"pip install 'listenai\[webrtcvad\]'"):
        WebRtcDetector()
