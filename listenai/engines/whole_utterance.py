"""An utterance that is kept whole, for whatever takes recordings and no streams.

What is decoded is all that was said so far: once for a final transcript, and now and then anew
for a partial one, where that is cheap enough.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.base import Transcript
from listenai.errors import TranscriberError

# What is decoded at once, 1.9 MB.  A recognizer cuts what it hears long before.
MAX_SECONDS = 60.0
UNSPACED_LANGUAGES = ("zh", "ja", "yue", "th")
_MAX_BYTES = int(MAX_SECONDS * SAMPLE_RATE) * SAMPLE_BYTES
_FULL_SCALE = np.float32(32768)

Samples = npt.NDArray[np.float32]  # mono 16 kHz, from -1 to 1


class Decode(Protocol):
    """Understands a recording: int16 mono 16 kHz, whole samples.  Raises TranscriberError."""

    async def __call__(self, pcm: bytes, *, partial: bool) -> str | None:
        """The text; None, which is for partial ones alone: others wanted the model more."""


class WholeUtterance:
    """One utterance (engines.base.Utterance), understood by `decode`.

    min_samples: less is no speech, and not decoded.
    partial_seconds: new audio between two partial transcripts; infinite: there are none.
    joined_by: between the texts of an utterance of more than MAX_SECONDS, which is decoded in
        pieces; None: such a one is refused with TranscriberError.
    """

    def __init__(
        self,
        decode: Decode,
        *,
        min_samples: int,
        partial_seconds: float = math.inf,
        joined_by: str | None = None,
    ) -> None:
        self._decode = decode
        self._min_bytes = min_samples * SAMPLE_BYTES
        self._partial_step = partial_seconds * SAMPLE_RATE * SAMPLE_BYTES
        self._joined_by = joined_by
        self._audio = bytearray()
        self._texts: list[str] = []  # of pieces that are decoded and forgotten
        self._partial_text = ""
        self._partial_bytes = 0  # how much audio that text was made of

    async def accept(self, pcm: bytes) -> None:
        """Keeps audio of any length, int16 mono 16 kHz."""
        await trio.lowlevel.checkpoint()
        if self._joined_by is None and len(self._audio) + len(pcm) > _MAX_BYTES:
            raise TranscriberError(
                f"an utterance of more than {MAX_SECONDS:g} s cannot be transcribed; "
                "cut it into segments"
            )
        self._audio += pcm
        while len(self._audio) > _MAX_BYTES:
            self._texts.append(await self._text_of(_MAX_BYTES))
            del self._audio[:_MAX_BYTES]
            self._partial_text, self._partial_bytes = "", 0

    async def partial(self) -> str:
        """The words as of up to `partial_seconds` ago, or longer ago while others wait."""
        await trio.lowlevel.checkpoint()
        size = len(self._audio)
        if size - self._partial_bytes >= self._partial_step and size >= self._min_bytes:
            text = await self._decode(self._whole_samples(size), partial=True)
            if text is not None:
                self._partial_text, self._partial_bytes = text, size
        return self._joined(self._partial_text)

    async def finish(self) -> Transcript:
        """The words of everything accepted."""
        return Transcript(self._joined(await self._text_of(len(self._audio))))

    async def _text_of(self, size: int) -> str:
        if size < self._min_bytes:
            await trio.lowlevel.checkpoint()
            return ""
        return await self._decode(self._whole_samples(size), partial=False) or ""

    def _whole_samples(self, size: int) -> bytes:
        return bytes(self._audio[: size - size % SAMPLE_BYTES])

    def _joined(self, last: str) -> str:
        return (self._joined_by or "").join(filter(None, [*self._texts, last]))


def space_of(language: str) -> str:
    """What stands between two sentences: nothing in languages that are written without spaces."""
    primary = language.lower().replace("_", "-").split("-")[0]
    return "" if primary in UNSPACED_LANGUAGES else " "


def samples_of(pcm: bytes) -> Samples:
    """Audio as models take it."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / _FULL_SCALE
