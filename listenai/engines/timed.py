"""Engines that take a fixed time and know one thing: for benchmarks and trials without models.

What a server adds to them is its own latency.  Schedules are absolute, so that late
timers do not add up.
"""

# ruff: noqa: ARG002 - the Protocols' arguments; these engines look at none of them

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

import attrs
import numpy as np
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.base import (
    ChatMessage,
    ChatSettings,
    ReplyPart,
    ReplyText,
    SpeakerMemory,
    SpeechChunk,
    Transcript,
)
from listenai.events import ToolSchema

HEARD_TEXT = "what will the weather be in london"
TRANSCRIPT_SECONDS = 0.1  # from the end of the utterance

REPLY_TOKENS = (
    *("The", " weather", " in", " London", " is", " mild", " and", " dry"),
    *(" all", " of", " today", "."),
)
FIRST_TOKEN_SECONDS = 0.1
TOKEN_SECONDS = 0.02

FIRST_CHUNK_SECONDS = 0.08
CHUNK_SECONDS = 0.02  # between chunks: five times faster than they play
CHUNK_MS = 100  # of audio
_TONE_HERTZ = 440  # 44 whole waves a chunk: chunks join without a click
_TONE_PEAK = 3277  # -20 dB below full scale


class TimedTranscriber:
    """Understands HEARD_TEXT, whatever is said, 100 ms after `finish` is called."""

    languages: Sequence[str] = ("en",)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[TimedUtterance]:
        """Never waits: there are as many instances as utterances."""
        yield TimedUtterance()


class TimedUtterance:
    """One utterance of a TimedTranscriber; it needs no audio."""

    async def accept(self, pcm: bytes) -> None:
        """Takes audio, int16 mono 16 kHz."""
        await trio.lowlevel.checkpoint()

    async def partial(self) -> str:
        """No words before the end."""
        await trio.lowlevel.checkpoint()
        return ""

    async def finish(self) -> Transcript:
        """HEARD_TEXT, TRANSCRIPT_SECONDS from now."""
        await trio.sleep(TRANSCRIPT_SECONDS)
        return Transcript(HEARD_TEXT)


class TimedChatModel:
    """Answers with REPLY_TOKENS: the first after 100 ms, then one every 20 ms."""

    @asynccontextmanager
    async def open_reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSchema],
        settings: ChatSettings,
    ) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """Streams the tokens; messages, tools and settings are not looked at."""
        # No scope is around a `yield`, here and below: it needs no channel and no task.
        async with aclosing(self._tokens()) as tokens:
            yield tokens

    async def _tokens(self) -> AsyncGenerator[ReplyPart, None]:
        due = trio.current_time() + FIRST_TOKEN_SECONDS
        for number, token in enumerate(REPLY_TOKENS):
            await trio.sleep_until(due + number * TOKEN_SECONDS)
            yield ReplyText(token)


@attrs.frozen
class TimedSynthesizer:
    """Hums a quiet tone of `audio_ms`: the first 100 ms come after 80 ms, the rest every 20 ms."""

    audio_ms: int = 600
    sample_rate: int = attrs.field(default=SAMPLE_RATE, init=False)
    voices: Mapping[str, str] = attrs.field(
        factory=lambda: {"default": "a tone of 440 Hz"}, init=False
    )

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        """Streams the tone; text, voice and language are not looked at."""
        async with aclosing(self._chunks()) as chunks:
            yield chunks

    async def _chunks(self) -> AsyncGenerator[SpeechChunk, None]:
        due = trio.current_time() + FIRST_CHUNK_SECONDS
        chunk = _tone(self.sample_rate * CHUNK_MS // 1000)
        left = self.sample_rate * self.audio_ms // 1000 * SAMPLE_BYTES
        number = 0
        while left > 0:
            await trio.sleep_until(due + number * CHUNK_SECONDS)
            yield SpeechChunk(chunk[:left])
            left -= len(chunk)
            number += 1


def _tone(samples: int) -> bytes:
    phase = np.arange(samples) * (2 * np.pi * _TONE_HERTZ / SAMPLE_RATE)
    return bytes((np.sin(phase) * _TONE_PEAK).astype("<i2").tobytes())
