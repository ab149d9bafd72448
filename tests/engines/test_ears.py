"""Ears are conditioned as a profile wants: steps before everything, and a threshold that adapts."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext

import attrs
import numpy as np
import pytest
import trio

from listenai.audio import FRAME_SAMPLES
from listenai.device import Conditioning
from listenai.engines.conditioning import make_steps
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.gain_control import GainControl
from listenai.engines.noise_reduction import NoiseReduction
from listenai.engines.timed import TimedTranscriber
from listenai.speech import SpeechEvent, SpeechStarted

LOUD = (np.sin(np.arange(FRAME_SAMPLES)) * 8000).astype("<i2").tobytes()
SOFT = (np.sin(np.arange(FRAME_SAMPLES)) * 30).astype("<i2").tobytes()  # -64 dBFS


@attrs.define
class CertainDetector:
    """Takes everything for speech; keeps what it heard."""

    heard: list[bytes] = attrs.field(factory=list)

    def process(self, frame: bytes) -> float:
        self.heard.append(frame)
        return 1.0


async def hear(
    conditioning: Conditioning, *frames: bytes
) -> tuple[CertainDetector, list[SpeechEvent]]:
    detector, events = CertainDetector(), list[SpeechEvent]()
    factory = SegmentingRecognizerFactory(lambda: nullcontext(detector), TimedTranscriber())
    async with factory.open(
        events.append, suspicion=(3, 4), cap_seconds=30, conditioning=conditioning
    ) as ear:
        for frame in frames:
            ear.accept(frame)
        await trio.lowlevel.checkpoint()
    return detector, events


async def test_nothing_is_done_unless_it_is_wanted(autojump_clock):
    detector, events = await hear(Conditioning(), LOUD, LOUD)
    assert detector.heard == [LOUD, LOUD]
    assert events[0] == SpeechStarted(1, None)


async def test_what_is_too_soft_is_no_speech(autojump_clock):
    """And the threshold is told with the beginning of speech."""
    _, events = await hear(Conditioning(adaptive_threshold=True), SOFT, SOFT, SOFT)
    assert events == []
    _, events = await hear(Conditioning(adaptive_threshold=True), SOFT, LOUD)
    [started] = events
    assert isinstance(started, SpeechStarted)
    assert started.loudness_threshold == -60.0


async def test_steps_come_before_the_detector(autojump_clock):
    detector, _ = await hear(Conditioning(automatic_gain=True), *[SOFT] * 3, *[LOUD] * 30)
    assert len(detector.heard) == 33
    assert detector.heard[-1] != LOUD


def test_noise_goes_before_the_gain_could_raise_it():
    steps = make_steps(Conditioning(noise_reduction=True, automatic_gain=True))
    assert [type(step) for step in steps] == [NoiseReduction, GainControl]


def test_what_is_not_installed_is_left_out_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A device asked for it, and is served without."""
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    caplog.set_level(logging.WARNING)
    assert make_steps(Conditioning(noise_reduction=True)) == []
    assert "pip install 'listenai[denoising]'" in caplog.text
