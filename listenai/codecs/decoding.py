"""What devices send, whatever its encoding, as the one format inside.

A decoder belongs to one connection.  Bad input costs that input alone: the decoder is as good
as before for what comes next.  How a stream is cut into messages does not matter.
"""

from __future__ import annotations

from typing import Protocol

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE, Encoding
from listenai.codecs.opus import OpusDecoder
from listenai.codecs.resampling import StreamResampler
from listenai.codecs.webm import OpusStream, WebmDemuxer

LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000  # Hz

# Packets of a few bytes may hold 120 ms each: a message of 1 MiB could become hours.  A minute
# is what a browser sends at once that records without a timeslice: 1.9 MiB of PCM.
MOST_SECONDS = 60
_MOST_BYTES = MOST_SECONDS * SAMPLE_RATE * SAMPLE_BYTES

_OPUS_RATE = 48_000  # in which Opus counts samples, whatever it is decoded to


class Decoder(Protocol):
    """Turns what one device sends into PCM."""

    def push(self, data: bytes) -> bytes:
        """Gives what is ready as int16 little-endian mono 16 kHz PCM, in whole samples.

        Raises ValueError, saying what is wrong and what is allowed; the data is then lost.
        """


def make_decoder(encoding: Encoding, sample_rate: int) -> Decoder:
    """A decoder for one device.

    sample_rate: Hz, of PCM; the others know their own.  Raises ValueError for a rate that is not
    allowed, EngineError where the library of an encoding is missing.
    """
    match encoding:
        case Encoding.PCM:
            return PcmDecoder(sample_rate)
        case Encoding.OPUS:
            return OpusDecoder()
        case Encoding.WEBM_OPUS:
            return WebmOpusDecoder()


class PcmDecoder:
    """int16 little-endian mono PCM of any rate; half a sample waits for the next push."""

    def __init__(self, sample_rate: int) -> None:
        if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
            raise ValueError(
                f"the sample rate {sample_rate} Hz is not allowed; allowed is {LOWEST_RATE} to "
                f"{HIGHEST_RATE} Hz, best {SAMPLE_RATE}"
            )
        self._resampler = StreamResampler(sample_rate, SAMPLE_RATE, low_delay=True)
        self._half = b""

    def push(self, data: bytes) -> bytes:
        """Any bytes are PCM: nothing is refused."""
        data = self._half + data
        whole = len(data) - len(data) % SAMPLE_BYTES
        self._half = data[whole:]
        return self._resampler.push(data[:whole])


class WebmOpusDecoder:
    """WebM with Opus, one recording after the other."""

    def __init__(self) -> None:
        self._demuxer = WebmDemuxer()
        self._opus = OpusDecoder()
        self._skip_bytes = 0  # of PCM, at the beginning of a recording

    def push(self, data: bytes) -> bytes:
        """Takes WebM that is cut anywhere (Decoder.push)."""
        pcm = bytearray()
        for found in self._demuxer.push(data):
            if isinstance(found, OpusStream):
                self._opus = OpusDecoder()
                self._skip_bytes = found.pre_skip * SAMPLE_RATE // _OPUS_RATE * SAMPLE_BYTES
                continue
            decoded = self._opus.push(found)
            pcm += decoded[self._skip_bytes :]
            self._skip_bytes = max(0, self._skip_bytes - len(decoded))
            if len(pcm) > _MOST_BYTES:
                raise ValueError(
                    f"{len(data)} bytes hold more than {MOST_SECONDS} s of sound, which is "
                    "what is allowed at once; send a recording in pieces, as it is made"
                )
        return bytes(pcm)
