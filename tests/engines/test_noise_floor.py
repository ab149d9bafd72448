"""What is noise and what stands out of it: quiet rooms, fans, long speech."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.audio import FRAME_SECONDS, SILENCE_DBFS, Framer, dbfs
from listenai.engines.noise_floor import (
    HIGHEST_DBFS,
    LOWEST_DBFS,
    MARGIN_DB,
    WINDOW_SECONDS,
    AdaptiveDetector,
    NoiseFloor,
)

DATA = Path(__file__).parents[1] / "data"
QUIET, FAN = -75.0, -42.0  # dBFS


class Credulous:
    """A detector that takes everything for speech."""

    def __init__(self) -> None:
        self.frames = 0

    def process(self, frame: bytes) -> float:
        self.frames += 1
        return 0.9


def noise(level: float, seconds: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 32_768 * 10 ** (level / 20), round(seconds * 16_000))


def speech() -> np.ndarray:
    """Half a minute of sentences, without a pause between them."""
    sentences = []
    for path in sorted(DATA.glob("*.wav")) * 2:
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
        loud = np.flatnonzero(np.abs(samples) > 300)
        sentences.append(samples[loud[0] : loud[-1]])
    return np.concatenate(sentences)


def frames(*parts: np.ndarray) -> list[bytes]:
    pcm = np.concatenate(parts).clip(-32_768, 32_767).astype("<i2").tobytes()
    return list(Framer().push(pcm))


def follow(floor: NoiseFloor, sound: list[bytes]) -> list[float]:
    """The threshold after each frame."""
    thresholds = []
    for frame in sound:
        floor.push(dbfs(frame))
        thresholds.append(floor.threshold)
    return thresholds


def in_frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def test_a_quiet_room_has_the_lowest_threshold() -> None:
    """From the first frame on, and in digital silence too."""
    assert set(follow(NoiseFloor(), frames(noise(QUIET, 5)))) == {LOWEST_DBFS}
    assert set(follow(NoiseFloor(), frames(np.zeros(50_000)))) == {LOWEST_DBFS}


def test_a_fan_is_learned_when_a_window_has_passed_and_forgotten_at_once() -> None:
    """On after 2 s, off after 8 s: 4 s to learn, 0.05 s to forget."""
    floor = NoiseFloor()
    sound = frames(noise(QUIET, 2), noise(FAN, 6), noise(QUIET, 2))
    thresholds = follow(floor, sound)
    learned = [at for at, threshold in enumerate(thresholds) if threshold > FAN]
    on, off = in_frames(2), in_frames(8)
    assert in_frames(WINDOW_SECONDS - 0.5) < learned[0] - on < in_frames(WINDOW_SECONDS + 0.5)
    assert learned[-1] - off < in_frames(0.05)
    assert thresholds[off - 1] == pytest.approx(FAN + MARGIN_DB, abs=2.5)


def test_a_lost_frame_is_not_the_floor() -> None:
    """What was lost is often filled with silence."""
    floor = NoiseFloor()
    *_, before = follow(floor, frames(noise(FAN, 7)))
    assert follow(floor, [bytes(512), *frames(noise(FAN, 1))])[-1] == pytest.approx(before, abs=3)


def test_what_is_very_loud_is_never_noise() -> None:
    """However long it lasts: a shout into the microphone is heard above it."""
    assert follow(NoiseFloor(), frames(noise(-20, 7)))[-1] == HIGHEST_DBFS


@pytest.mark.parametrize("room", [QUIET, FAN])
def test_long_speech_is_not_taken_for_noise(room: float) -> None:
    """Half a minute without a pause: its gaps show the noise below it."""
    said = speech()
    detector = AdaptiveDetector(Credulous(), floor := NoiseFloor())
    for frame in frames(noise(room, 5)):
        detector.process(frame)
    sound = frames(said + noise(room, 60)[: said.size])
    heard = []
    for frame in sound:
        heard.append(detector.process(frame) > 0)
        assert floor.threshold < -31  # its loud frames are at -20
    loud = [was_heard for frame, was_heard in zip(sound, heard, strict=True) if dbfs(frame) > -30]
    assert len(loud) > 600
    assert all(loud)


def test_speech_in_noise_is_heard_and_noise_is_not() -> None:
    """By a detector that cannot tell them apart."""
    said = speech()[:48_000]
    detector = AdaptiveDetector(asked := Credulous(), NoiseFloor())
    lead = frames(noise(FAN, 7))
    quiet = [detector.process(frame) for frame in lead]
    assert set(quiet[in_frames(5) :]) == {0.0}
    spoken = [detector.process(frame) for frame in frames(said + noise(FAN, 3))]
    assert sum(probability == 0.9 for probability in spoken) > 0.85 * len(spoken)
    assert asked.frames == len(lead) + len(spoken)  # it hears all, to follow the sound


def test_who_begins_with_speech_is_heard() -> None:
    """Nothing was known of the room yet."""
    detector = AdaptiveDetector(Credulous(), NoiseFloor())
    heard = [detector.process(frame) for frame in frames(speech()[:16_000])]
    assert all(heard)


@given(st.lists(st.floats(-200, 0), max_size=400), st.floats(0, 40))
def test_the_threshold_is_bounded(levels: list[float], margin: float) -> None:
    """Whatever is heard; and the floor is never above what was heard last."""
    floor = NoiseFloor(margin)
    for level in levels:
        floor.push(level)
        assert LOWEST_DBFS <= floor.threshold <= HIGHEST_DBFS
        assert floor.floor >= SILENCE_DBFS


def test_a_negative_margin_is_refused() -> None:
    """It would call noise speech."""
    with pytest.raises(ValueError, match=r"-1 dB would call noise speech; allowed is 0 or more"):
        NoiseFloor(-1)
