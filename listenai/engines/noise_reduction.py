"""Noise reduction before anything listens (spec 004: enableDenoising), with WebRTC's suppressor.

The library (package pywebrtc-audio, Apache-2.0, 0.9 MiB) works in steps of 10 ms, frames last
16 ms: what does not fill a step waits for the next frame, and everything comes out 8 ms later.
With the suppressor's own overlap sound is 14 ms late.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import EngineError

# 0 to 3 are 6, 12, 18 and 21 dB.  Measured with the embedded transcriber: the most is best.
_LEVEL = 3

# After digital silence the suppressor takes 4 dB off the speech that follows, as if all of it
# were noise; after a hiss of one bit (-92 dBFS) nothing.
_SILENCE = bytes(FRAME_BYTES)
_HISS = np.random.default_rng(0).integers(-1, 2, FRAME_SAMPLES).astype(np.int16).tobytes()

_STEP_BYTES = SAMPLE_RATE // 100 * SAMPLE_BYTES
_LONGEST_REST_BYTES = 128 * SAMPLE_BYTES  # of 256 samples, and 256 again, in steps of 160


class NoiseReduction:
    """Takes steady noise out of one device's audio (AudioStep); speech passes.

    Other people's speech and music stay: they are no noise to it.  Raises EngineError when the
    library is missing.
    """

    def __init__(self) -> None:
        try:
            library = import_module("pywebrtc_audio")
        except ImportError as error:
            raise EngineError(
                "noise cannot be reduced: the package pywebrtc-audio cannot be loaded "
                f"({error}); install it with: pip install 'listenai[denoising]', or leave noise "
                "reduction off"
            ) from error
        self._suppressor = library.NoiseSuppressor(SAMPLE_RATE, level=_LEVEL)
        self._rest = b""
        self._ready = bytes(_LONGEST_REST_BYTES)

    def process(self, frame: bytes) -> bytes:
        """One frame of 512 bytes (int16 mono 16 kHz) in, one out."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(
                f"a frame has {len(frame)} bytes; noise reduction takes {FRAME_BYTES} bytes; cut "
                "the audio with listenai.audio.Framer"
            )
        data = self._rest + (_HISS if frame == _SILENCE else frame)
        whole = len(data) - len(data) % _STEP_BYTES
        self._rest = data[whole:]
        clean = self._suppressor.process(np.frombuffer(data[:whole], np.int16)).tobytes()
        ready = self._ready + clean
        self._ready = ready[FRAME_BYTES:]
        return bytes(ready[:FRAME_BYTES])
