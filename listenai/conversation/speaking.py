"""Sentences → synthesizer → paced audio, for one turn.

Audio goes out in chunks of at most the profile's length, no further ahead of
the device's clock than its lead.  A turn lasts until its audio has been played:
the tail after the last chunk can still be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from listenai.audio import SAMPLE_BYTES, scaled
from listenai.conversation.outbox import Gate, Outbox
from listenai.conversation.sentences import has_words, speakable
from listenai.conversation.stream import Stream
from listenai.conversation.turn import Turn
from listenai.engines.base import Synthesizer, WordTiming
from listenai.events import AudioChunk, SentenceStarted, State, StreamEnded, StreamStarted
from listenai.sessions.base import Session


class Resampler(Protocol):
    """Converts the rate of a run of int16 mono PCM."""

    def push(self, pcm: bytes) -> bytes:
        """Takes audio at one rate, gives what is ready at the other."""

    def flush(self) -> bytes:
        """Gives the rest."""


MakeResampler = Callable[[int, int], Resampler]  # (from rate, to rate), Hz


@attrs.frozen
class Speaking:
    """One conversation's voice."""

    synthesizer: Synthesizer
    make_resampler: MakeResampler
    outbox: Outbox
    session: Session
    lead_seconds: float
    chunk_seconds: float
    show: Callable[[State], None]

    async def speak(self, turn: Turn, sentences: trio.MemoryReceiveChannel[str]) -> None:
        """Speaks every sentence, then waits until the last was played."""
        silent = ""  # text without words goes, unspoken, before the next sentence
        async for sentence in sentences:
            text = silent + sentence
            silent = "" if has_words(text) else text
            if not silent:
                turn.marks.reach("first_sentence")
                await self._speak_sentence(turn, text)
        await self.finish(turn)

    async def finish(self, turn: Turn) -> None:
        """Ends the turn's stream, if it has one, and waits until it was played."""
        stream = turn.stream
        if stream and stream.opened:
            if not stream.ended:
                await self.outbox.send(turn, StreamEnded(stream.id, stream.playout.sent))
            turn.marks.reach("audio_done")
            await self._wait_until(turn, stream.playout.ends_at)

    async def _speak_sentence(self, turn: Turn, sentence: str) -> None:
        configuration = self.session.configuration
        stream = await self._open_stream(turn)
        rate = stream.sample_rate
        resampler = self.make_resampler(self.synthesizer.sample_rate, rate)
        scale = rate / self.synthesizer.sample_rate
        await self.outbox.send(turn, SentenceStarted(stream.id, sentence, stream.playout.sent))
        async with self.synthesizer.open_speech(
            speakable(sentence), voice_id=configuration.voice_id, language=configuration.language
        ) as chunks:
            pending = b""
            async for chunk in chunks:
                stream.ledger.time_words(
                    WordTiming(word.start, word.end, round(word.from_sample * scale))
                    for word in chunk.words
                )
                pending = await self._send_whole(turn, stream, pending + resampler.push(chunk.pcm))
            pending += resampler.flush()
            pending = await self._send_whole(turn, stream, pending)
            if pending:
                await self._send_audio(turn, stream, pending)
        stream.ledger.end_sentence(stream.playout.sent)

    async def _open_stream(self, turn: Turn) -> Stream:
        """The turn's stream, announced to the device before its first use."""
        if turn.stream is None:
            self.session.last_stream_id += 1
            rate = self.session.configuration.output_sample_rate
            turn.stream = Stream(self.session.last_stream_id, rate, self.lead_seconds)
            await self.outbox.send(turn, StreamStarted(turn.id, turn.stream.id, rate))
            self.show(State.SPEAKING)
        return turn.stream

    async def _send_whole(self, turn: Turn, stream: Stream, pcm: bytes) -> bytes:
        """Sends all full chunks; returns the rest."""
        size = int(stream.sample_rate * self.chunk_seconds) * SAMPLE_BYTES
        start = 0
        while len(pcm) - start >= size:
            await self._send_audio(turn, stream, pcm[start : start + size])
            start += size
        return pcm[start:]

    async def _send_audio(self, turn: Turn, stream: Stream, pcm: bytes) -> None:
        await self._wait_until(turn, stream.playout.due)
        await self.outbox.send(turn, AudioChunk(stream.id, scaled(pcm, self.session.volume)))

    @staticmethod
    async def _wait_until(turn: Turn, when: Callable[[], float]) -> None:
        """Until `when()`, which a hold moves; a held turn does not get past here."""
        while turn.gate is not Gate.OPEN or when() > trio.current_time():
            deadline = when() if turn.gate is Gate.OPEN else float("inf")
            with trio.move_on_at(deadline):
                await turn.wait_changed()
