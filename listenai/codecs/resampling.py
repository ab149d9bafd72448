"""Another sample rate for a stream of PCM, with libsoxr."""

from __future__ import annotations

import numpy as np
import soxr

from listenai.audio import SAMPLE_BYTES

# libsoxr computes in blocks: HQ keeps about 38 ms back until more audio comes and is flat
# to 7.5 kHz at 16 kHz; LQ keeps 20 ms back and is flat to 6 kHz.  Both are 88 dB down
# where aliases would begin.  Twice as much where it raises the rate from 8 kHz.
_QUALITY, _LOW_DELAY_QUALITY = "HQ", "LQ"


class StreamResampler:
    """Converts int16 mono PCM of one rate (Hz) to another, piece by piece.

    `low_delay` halves what is kept back, and takes the brightest sibilants with it: for a
    microphone whose user may interrupt.  Equal rates pass audio through untouched.
    """

    def __init__(self, from_rate: int, to_rate: int, *, low_delay: bool = False) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(
                f"cannot resample from {from_rate} to {to_rate} Hz; rates must be above 0"
            )
        self._stream: soxr.ResampleStream | None = None
        if from_rate != to_rate:
            quality = _LOW_DELAY_QUALITY if low_delay else _QUALITY
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, "int16", quality)

    def push(self, pcm: bytes) -> bytes:
        """Takes whole samples; gives what is ready of them.  ValueError for half a sample."""
        if len(pcm) % SAMPLE_BYTES:
            raise ValueError(
                f"{len(pcm)} bytes are not a whole number of {SAMPLE_BYTES}-byte samples"
            )
        return self._convert(pcm, last=False) if self._stream else pcm

    def flush(self) -> bytes:
        """Gives what was kept back: the stream is over; the next push begins a new one."""
        if not self._stream:
            return b""
        rest = self._convert(b"", last=True)
        self._stream.clear()
        return rest

    def _convert(self, pcm: bytes, *, last: bool) -> bytes:
        assert self._stream
        converted = self._stream.resample_chunk(np.frombuffer(pcm, np.int16), last=last)
        return bytes(converted.tobytes())
