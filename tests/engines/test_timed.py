"""The timed engines keep their schedules to the millisecond."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from listenai.audio import dbfs
from listenai.engines.base import ChatSettings, SpeakerMemory
from listenai.engines.timed import (
    HEARD_TEXT,
    REPLY_TOKENS,
    TimedChatModel,
    TimedSynthesizer,
    TimedTranscriber,
)


async def test_the_transcript_comes_100_ms_after_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However long it was spoken before."""
    async with TimedTranscriber().open_utterance(language="en", speaker=SpeakerMemory()) as heard:
        await heard.accept(bytes(512))
        assert await heard.partial() == ""
        await trio.sleep(3)
        began = trio.current_time()
        assert (await heard.finish()).text == HEARD_TEXT
        assert trio.current_time() - began == pytest.approx(0.1)


async def test_tokens_keep_an_absolute_schedule(autojump_clock: trio.testing.MockClock) -> None:
    """A slow reader of one does not delay the others."""
    began, at = trio.current_time(), []
    async with TimedChatModel().open_reply([], [], ChatSettings()) as parts:
        async for part in parts:
            at.append(trio.current_time() - began)
            if part.text == " weather":
                await trio.sleep(0.05)
    assert at[:2] == pytest.approx([0.1, 0.12])
    assert at[5:] == pytest.approx([0.1 + 0.02 * number for number in range(5, 12)])
    assert len(at) == len(REPLY_TOKENS)


@pytest.mark.parametrize(("audio_ms", "chunk_ms"), [(600, [100] * 6), (250, [100, 100, 50])])
async def test_speech_comes_in_100_ms_chunks_every_20_ms(
    autojump_clock: trio.testing.MockClock, audio_ms: int, chunk_ms: list[int]
) -> None:
    """The first after 80 ms; the last is as short as it must be."""
    synthesizer = TimedSynthesizer(audio_ms)
    began, at, sizes = trio.current_time(), [], []
    async with synthesizer.open_speech("Hello.", voice_id="default", language="en") as chunks:
        async for chunk in chunks:
            at.append(trio.current_time() - began)
            sizes.append(len(chunk.pcm) * 1000 / 2 / synthesizer.sample_rate)
            assert dbfs(chunk.pcm) == pytest.approx(-23, abs=0.5)
    assert at == pytest.approx([0.08 + 0.02 * number for number in range(len(chunk_ms))])
    assert sizes == chunk_ms
