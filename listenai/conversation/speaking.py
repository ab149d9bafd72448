"""Sentences → synthesizer → paced audio, for one turn.

Audio goes out in chunks of at most the profile's length, no further ahead of
the device's clock than its lead.  A turn lasts until its audio has been played:
the tail after the last chunk can still be interrupted.

A synthesizer that goes away costs the device an error, not the text: what is unspoken
is kept, and spoken from the last unspoken word when the synthesizer is back in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import attrs
import trio

from listenai.audio import SAMPLE_BYTES, scaled
from listenai.conversation.music_player import MusicPlayer
from listenai.conversation.outbox import Gate, Outbox
from listenai.conversation.sentences import has_words, speakable
from listenai.conversation.stream import Stream
from listenai.conversation.turn import Turn
from listenai.engines.base import Synthesizer, WordTiming
from listenai.errors import SynthesizerAway, SynthesizerError
from listenai.events import (
    AudioChunk,
    ErrorReported,
    SentenceStarted,
    State,
    StreamEnded,
    StreamStarted,
)
from listenai.observer import TurnOutcome
from listenai.sessions.base import Session

# A service that was restarted has loaded its model by then; who still listens, asks again.
AWAY_SECONDS = 60.0
# Music sent ahead while a sentence is waited for: what is ahead delays the sentence.
MUSIC_LEAD_SECONDS = 0.12
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 2.0


class Resampler(Protocol):
    """Converts the rate of a run of int16 mono PCM."""

    def push(self, pcm: bytes) -> bytes:
        """Takes audio at one rate, gives what is ready at the other."""

    def flush(self) -> bytes:
        """Gives the rest."""


MakeResampler = Callable[[int, int], Resampler]  # (from rate, to rate), Hz


@attrs.define
class _Sentences:
    """Sentences with words; text without goes, unspoken, before the next one."""

    _channel: trio.MemoryReceiveChannel[str]
    _silent: str = ""

    async def receive(self) -> str:
        """The next one; raises trio.EndOfChannel.  Cancelling it loses nothing."""
        while not has_words(self._silent):
            self._silent += await self._channel.receive()
        sentence, self._silent = self._silent, ""
        return sentence


@attrs.frozen
class Speaking:
    """One conversation's voice."""

    synthesizer: Synthesizer
    make_resampler: MakeResampler
    music: MusicPlayer
    outbox: Outbox
    session: Session
    lead_seconds: float
    chunk_seconds: float
    show: Callable[[State], None]
    speaks: bool = True  # else the text alone is the reply

    async def speak(self, turn: Turn, channel: trio.MemoryReceiveChannel[str]) -> None:
        """Speaks every sentence, then waits until the last was played.

        Without a voice the sentences are taken all the same: the text is shown.
        """
        sentences = _Sentences(channel)
        with suppress(trio.EndOfChannel):
            try:
                while self.speaks:
                    sentence = await self._next_sentence(turn, sentences)
                    await self._speak_or_wait(turn, sentence, sentences)
            except SynthesizerError as error:
                self._tell(turn, error)
            while True:
                await sentences.receive()
        await self.finish(turn)

    async def finish(self, turn: Turn) -> None:
        """Ends the turn's stream, if it has one, and waits until it was played."""
        stream = turn.stream
        if stream and stream.opened:
            if not stream.ended:
                await self.outbox.send(turn, StreamEnded(stream.id, stream.playout.sent))
            turn.marks.reach("audio_done")
            await self._wait_until(turn, stream.playout.ends_at)

    async def _next_sentence(self, turn: Turn, sentences: _Sentences) -> str:
        """The next one; while it is waited for, music that plays goes on.

        Raises trio.EndOfChannel.
        """
        while True:
            stream = turn.stream
            music_due = float("inf")
            if stream and self.music.playing:
                music_due = stream.playout.ends_at() - MUSIC_LEAD_SECONDS
            with trio.move_on_at(music_due):
                return await sentences.receive()
            assert stream  # or nothing was due
            silence = bytes(int(stream.sample_rate * self.chunk_seconds) * SAMPLE_BYTES)
            await self._send_audio(turn, stream, silence)

    # --- a voice that comes and goes ---------------------------------------------------------

    async def _speak_or_wait(self, turn: Turn, sentence: str, sentences: _Sentences) -> None:
        """Speaks the sentence; while the voice is away, waits for it, and takes more sentences.

        Raises SynthesizerError when it stays away.
        """
        owed = deque([sentence])
        away_since, pause = float("inf"), FIRST_RETRY_SECONDS
        while owed:
            try:
                await self._speak_sentence(turn, owed[0])
            except SynthesizerAway as error:
                now = trio.current_time()
                if now - away_since > AWAY_SECONDS:
                    raise
                away_since = min(now, away_since)
                self._tell(turn, error)
                if turn.stream:
                    owed[0] = turn.stream.break_off() or owed[0]
                await self._take_more(owed, sentences, until=now + pause)
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
            else:
                owed.popleft()
                away_since, pause = float("inf"), FIRST_RETRY_SECONDS

    @staticmethod
    async def _take_more(owed: deque[str], sentences: _Sentences, *, until: float) -> None:
        """The text goes on meanwhile."""
        with suppress(trio.EndOfChannel), trio.move_on_at(until):
            while True:
                owed.append(await sentences.receive())
        await trio.sleep_until(until)

    def _tell(self, turn: Turn, error: SynthesizerError) -> None:
        """Once a turn."""
        if not turn.voiceless:
            turn.voiceless = True
            turn.outcome = TurnOutcome.FAILED
            self.outbox.post(
                ErrorReported(error.code, str(error), turn.id, timed_out=error.timed_out)
            )

    # --- one sentence ------------------------------------------------------------------------

    async def _speak_sentence(self, turn: Turn, sentence: str) -> None:
        turn.marks.reach("first_sentence")
        configuration = self.session.configuration
        rate = turn.stream.sample_rate if turn.stream else configuration.output_sample_rate
        resampler = self.make_resampler(self.synthesizer.sample_rate, rate)
        scale = rate / self.synthesizer.sample_rate
        stream: Stream | None = None
        async with self.synthesizer.open_speech(
            speakable(sentence), voice_id=configuration.voice_id, language=configuration.language
        ) as chunks:
            pending = b""
            async for chunk in chunks:
                stream = stream or await self._begin_sentence(turn, rate, sentence)
                stream.ledger.time_words(
                    WordTiming(word.start, word.end, round(word.from_sample * scale))
                    for word in chunk.words
                )
                pending = await self._send_whole(turn, stream, pending + resampler.push(chunk.pcm))
        stream = stream or await self._begin_sentence(turn, rate, sentence)  # nothing to be heard
        pending = await self._send_whole(turn, stream, pending + resampler.flush())
        if pending:
            await self._send_audio(turn, stream, pending)
        stream.ledger.end_sentence(stream.playout.sent)

    async def _begin_sentence(self, turn: Turn, rate: int, sentence: str) -> Stream:
        """Announces the sentence; before the first, the turn's stream."""
        if turn.stream is None:
            self.session.last_stream_id += 1
            turn.stream = Stream(self.session.last_stream_id, rate, self.lead_seconds)
            await self.outbox.send(turn, StreamStarted(turn.id, turn.stream.id, rate))
            self.show(State.SPEAKING)
        stream = turn.stream
        await self.outbox.send(turn, SentenceStarted(stream.id, sentence, stream.playout.sent))
        return stream

    async def _send_whole(self, turn: Turn, stream: Stream, pcm: bytes) -> bytes:
        """Sends all full chunks; returns the rest."""
        size = int(stream.sample_rate * self.chunk_seconds) * SAMPLE_BYTES
        start = 0
        while len(pcm) - start >= size:
            await self._send_audio(turn, stream, pcm[start : start + size])
            await trio.lowlevel.checkpoint()  # a long piece does not keep the loop
            start += size
        return pcm[start:]

    async def _send_audio(self, turn: Turn, stream: Stream, pcm: bytes) -> None:
        await self._wait_until(turn, stream.playout.due)
        pcm = scaled(self.music.below(pcm, stream.sample_rate), self.session.volume)
        await self.outbox.send(turn, AudioChunk(stream.id, pcm))

    @staticmethod
    async def _wait_until(turn: Turn, when: Callable[[], float]) -> None:
        """Until `when()`, which a hold moves; a held turn does not get past here."""
        while turn.gate is not Gate.OPEN or when() > trio.current_time():
            deadline = when() if turn.gate is Gate.OPEN else float("inf")
            with trio.move_on_at(deadline):
                await turn.wait_changed()
