"""WebRTC's voice activity detector: less exact than TEN VAD, and free of its conditions.

It says yes or no, in four degrees of strictness.  We ask all four: the share of those that say
yes is a probability, which a threshold can be set on.  It takes 20 ms at a time where a frame has
16, so a frame's answer may be a frame old.  A frame takes 14 µs, on the loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Self

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import EngineError

STRICTNESSES = (0, 1, 2, 3)  # WebRTC's "aggressiveness": 3 takes the least for speech
STEP_BYTES = SAMPLE_RATE * 20 // 1000 * SAMPLE_BYTES  # it takes 10, 20 or 30 ms


class WebRtcDetector:
    """Tells speech from silence for one device (engines.base.Detector); hears frames in order.

    Raises EngineError when the library is missing.
    """

    def __init__(self) -> None:
        library = _import()
        self._detectors = [library.Vad(strictness) for strictness in STRICTNESSES]
        self._rest = b""  # of frames, not yet a step
        self._probability = 0.0

    def process(self, frame: bytes) -> float:
        """The probability of speech in one frame of 512 bytes: 0, 1/4, 1/2, 3/4 or 1."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(
                f"a frame has {len(frame)} bytes; this detector takes {FRAME_BYTES} bytes "
                f"({FRAME_SAMPLES} samples of int16); cut the audio with listenai.audio.Framer"
            )
        data = self._rest + frame
        if len(data) >= STEP_BYTES:  # a frame fills one step at most
            step, data = data[:STEP_BYTES], data[STEP_BYTES:]
            votes = sum(each.is_speech(step, SAMPLE_RATE) for each in self._detectors)
            self._probability = votes / len(self._detectors)
        self._rest = data
        return self._probability

    def __enter__(self) -> Self:
        """Nothing is to be freed; a detector is opened by `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `__enter__`."""


def _import() -> Any:
    try:
        return import_module("webrtcvad")
    except (ImportError, OSError) as error:
        raise EngineError(
            f"WebRTC VAD cannot be loaded ({error}); install it with  "
            "pip install 'listenai[webrtcvad]',  or choose VAD_ENGINE=ten"
        ) from error
