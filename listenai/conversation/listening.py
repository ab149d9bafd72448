"""Frames → recognizer → speech events, for one connection.

Two things arrive here in order: audio, and what the device says about it.
The recognizer never waits, so neither does listening: a device that does not
read, or a transcriber that is busy, cannot make us deaf.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from listenai.device import Conditioning
from listenai.engines.base import Recognizer, RecognizerFactory
from listenai.events import SpeechDiscarded, SpeechFinished
from listenai.settings import EffectiveConfiguration
from listenai.speech import SpeechEvent

# Messages between reader and listening: about half a second of 16 ms messages,
# or 256 KiB of the largest pieces.  Full means TCP backpressure.
MAX_WAITING_PIECES = 32
# 16 VAD frames are about a millisecond of work; longer messages are cut, so that
# one of them cannot hold up the loop.
MAX_PIECE_BYTES = 16 * 512


Mark = SpeechFinished | SpeechDiscarded  # what is meant is the audio before it
Piece = bytes | Mark


@attrs.define(eq=False)
class Listening:
    """One connection's ear."""

    recognizers: RecognizerFactory
    hear: Callable[[SpeechEvent], None]
    marked: Callable[[Mark], None]  # called when a mark has its turn
    _configuration: EffectiveConfiguration = attrs.field(factory=EffectiveConfiguration)
    _recognizer: Recognizer | None = None
    _pieces_in: trio.MemorySendChannel[Piece] = attrs.field(init=False)
    _pieces: trio.MemoryReceiveChannel[Piece] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pieces_in, self._pieces = trio.open_memory_channel[Piece](MAX_WAITING_PIECES)

    async def put(self, pcm: bytes) -> None:
        """Hands over audio; waits while too much of it waits."""
        for start in range(0, len(pcm), MAX_PIECE_BYTES):
            await self._pieces_in.send(pcm[start : start + MAX_PIECE_BYTES])

    async def put_mark(self, mark: Mark) -> None:
        """Hands over that the utterance ends here."""
        await self._pieces_in.send(mark)

    async def run(
        self, *, suspicion: tuple[int, int], cap_seconds: float, conditioning: Conditioning
    ) -> None:
        """Listens until cancelled."""
        async with self.recognizers.open(
            self.hear, suspicion=suspicion, cap_seconds=cap_seconds, conditioning=conditioning
        ) as recognizer:
            self._recognizer = recognizer
            self.configure(self._configuration)
            async for piece in self._pieces:
                if isinstance(piece, bytes):
                    recognizer.accept(piece)
                else:
                    recognizer.end_speech()
                    self.marked(piece)

    def suspect_after(self, suspicion: tuple[int, int]) -> None:
        """So many speech frames, of the last so many, from the next frame on."""
        if self._recognizer:
            self._recognizer.suspect_after(suspicion)

    def configure(self, configuration: EffectiveConfiguration) -> None:
        """New settings, from the next segment on."""
        self._configuration = configuration
        if self._recognizer:
            self._recognizer.configure(
                language=configuration.language,
                threshold=configuration.vad_threshold,
                silence_frames=configuration.vad_silence_frames,
            )

    def commit(self) -> None:
        """The utterance was taken, or forgotten."""
        if self._recognizer:
            self._recognizer.commit()
