"""Audio → recognizer → speech events, for one connection.

The recognizer is plain code and never waits: whoever has audio gives it to it at once, without
a queue or a task between, and in pieces, so that a long message cannot hold up the loop.
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

MAX_PIECE_BYTES = 16 * 512  # 16 VAD frames are about a millisecond of work, and 256 ms

Mark = SpeechFinished | SpeechDiscarded  # what is meant is the audio before it


@attrs.define(eq=False)
class Listening:
    """One connection's ear."""

    recognizers: RecognizerFactory
    hear: Callable[[SpeechEvent], None]
    marked: Callable[[Mark], None]  # called once the audio before the mark was heard
    _configuration: EffectiveConfiguration = attrs.field(factory=EffectiveConfiguration)
    _recognizer: Recognizer | None = None
    _opened: trio.Event = attrs.field(factory=trio.Event)

    async def put(self, pcm: bytes) -> None:
        """Listens to at most MAX_PIECE_BYTES of audio; waits while there is no ear yet."""
        recognizer = self._recognizer or await self._wait_opened()
        recognizer.accept(pcm)

    async def put_mark(self, mark: Mark) -> None:
        """The utterance ends here."""
        recognizer = self._recognizer or await self._wait_opened()
        recognizer.end_speech()
        self.marked(mark)

    async def run(
        self, *, suspicion: tuple[int, int], cap_seconds: float, conditioning: Conditioning
    ) -> None:
        """Keeps the ear open until cancelled."""
        async with self.recognizers.open(
            self.hear, suspicion=suspicion, cap_seconds=cap_seconds, conditioning=conditioning
        ) as recognizer:
            self._recognizer = recognizer
            self.configure(self._configuration)
            self._opened.set()
            await trio.sleep_forever()

    async def _wait_opened(self) -> Recognizer:
        await self._opened.wait()
        assert self._recognizer
        return self._recognizer

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
