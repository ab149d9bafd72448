"""Encoded audio of one device, made plain in steps that hold nobody up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE, Encoding
from listenai.errors import EngineError, ErrorCode, ProtocolError
from listenai.events import EncodedAudio

STEP_BYTES = 8 << 10  # a few milliseconds of work: the loop has others to serve
# Of one message, decoded: a minute, and the largest message of 8 kHz PCM.  Silence is encoded so
# well that a message could become hours of it.
MAX_DECODED_BYTES = 66 * SAMPLE_RATE * SAMPLE_BYTES


class Decoder(Protocol):
    """Encoded audio of one device in, plain audio out."""

    def push(self, data: bytes) -> bytes:
        """int16 mono 16 kHz, as much as is complete; ValueError for what is no such audio."""


MakeDecoder = Callable[[Encoding, int], Decoder]  # of an encoding at a rate, Hz


@attrs.define(eq=False)
class Decoding:
    """One connection's decoder, which lives until another encoding comes."""

    _make: MakeDecoder
    _decoder: tuple[tuple[Encoding, int], Decoder] | None = None

    def end(self) -> None:
        """What comes next does not follow on what came last."""
        self._decoder = None

    async def decode(self, audio: EncodedAudio) -> bytes:
        """int16 mono 16 kHz; raises ProtocolError for what is none, or too much at once."""
        try:
            return await self._decode(audio)
        except ValueError as error:
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"audio: {error}") from error
        except EngineError as error:
            raise ProtocolError(error.code, f"audio: {error}") from error

    async def _decode(self, audio: EncodedAudio) -> bytes:
        made_for = audio.encoding, audio.sample_rate
        if self._decoder is None or self._decoder[0] != made_for:
            self._decoder = made_for, self._make(*made_for)
        pcm = bytearray()
        for start in range(0, len(audio.data), STEP_BYTES):
            pcm += self._decoder[1].push(audio.data[start : start + STEP_BYTES])
            if len(pcm) > MAX_DECODED_BYTES:
                raise ValueError("more than a minute of sound at once; send it as it is made")
            await trio.lowlevel.checkpoint()
        return bytes(pcm)
