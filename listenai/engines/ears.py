"""Ears for devices: a detector each, conditioned as its profile wants, and one transcriber."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager

import trio

from listenai.device import UNCONDITIONED, Conditioning
from listenai.engines.base import Detector, Transcriber
from listenai.engines.conditioning import make_steps
from listenai.engines.noise_floor import AdaptiveDetector, NoiseFloor
from listenai.engines.recognizer import SegmentingRecognizer
from listenai.speech import SpeechEvent


class SegmentingRecognizerFactory:
    """Makes ears of detectors, one each, and a shared transcriber (engines.base.RecognizerFactory).

    open_detector: makes a detector to be closed by `with`, like TenVadDetector.
    cut_takes: of all ears that were closed.
    """

    def __init__(
        self,
        open_detector: Callable[[], AbstractContextManager[Detector]],
        transcriber: Transcriber,
    ) -> None:
        self.cut_takes = 0
        self._open_detector, self._transcriber = open_detector, transcriber

    @property
    def languages(self) -> Sequence[str]:
        """What the transcriber understands now: a service says so once it is reached."""
        return self._transcriber.languages

    @asynccontextmanager
    async def open(
        self,
        hear: Callable[[SpeechEvent], None],
        *,
        suspicion: tuple[int, int],
        cap_seconds: float,
        conditioning: Conditioning = UNCONDITIONED,
    ) -> AsyncIterator[SegmentingRecognizer]:
        """An ear, alive inside the `async with`; ValueError for settings that cannot work.

        suspicion: (needed, window), frames; cap_seconds: 1 or more; conditioning: what is done
        to the sound, for detector and transcriber alike.
        """
        with self._open_detector() as detector:
            floor = NoiseFloor() if conditioning.adaptive_threshold else None
            recognizer = SegmentingRecognizer(
                AdaptiveDetector(detector, floor) if floor else detector,
                self._transcriber,
                hear,
                suspicion=suspicion,
                cap_seconds=cap_seconds,
                steps=make_steps(conditioning),
                loudness_threshold=lambda: floor.threshold if floor else None,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(recognizer.serve_transcripts)
                nursery.start_soon(recognizer.serve_audio_stops)
                try:
                    yield recognizer
                finally:
                    self.cut_takes += recognizer.cut_takes
                    nursery.cancel_scope.cancel()
