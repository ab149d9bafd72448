"""Engines that go away and come back, without a new connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from fakes import ANSWER, FakeChatModel, FakeDevice, FakeSynthesizer, speech, talking

from listenai.conversation.speaking import AWAY_SECONDS
from listenai.device import Capabilities
from listenai.engines.base import SpeechChunk
from listenai.errors import ChatModelError, ErrorCode, SynthesizerAway, SynthesizerError
from listenai.events import (
    ErrorReported,
    SentenceStarted,
    StreamResumed,
    TextDelta,
    TextDone,
    TurnInterrupted,
)
from listenai.speech import TranscriptionDelayed

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")


class ComingAndGoing(FakeSynthesizer):
    """A voice that is away between two moments, also in the middle of a sentence."""

    def __init__(self, leaves_at: float, back_at: float, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.leaves_at, self.back_at = leaves_at, back_at

    @property
    def away(self) -> bool:
        return self.leaves_at <= trio.current_time() < self.back_at

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        if self.away:
            raise SynthesizerAway("the voice cannot be reached")
        async with super().open_speech(text, voice_id=voice_id, language=language) as chunks:
            yield self._until_away(chunks)

    async def _until_away(self, chunks: AsyncIterator[SpeechChunk]) -> AsyncIterator[SpeechChunk]:
        async for chunk in chunks:
            if self.away:
                raise SynthesizerAway("the voice has gone")
            yield chunk


async def test_a_voice_that_goes_away_in_mid_sentence_goes_on_at_the_unspoken_word(autojump_clock):
    """TTS_ERROR once, all the text at once, and every word is spoken."""
    start = trio.current_time()
    voice = ComingAndGoing(start + 0.3, start + 4.0)
    async with talking(chat=FakeChatModel("One two three four five. Six seven."), voice=voice) as t:
        t.ask()
        await trio.sleep(3.5)
        assert [e.code for e in t.device.events(ErrorReported)] == [ErrorCode.TTS_ERROR]
        [done] = t.device.events(TextDone)
        assert done.text.split() == "One two three four five. Six seven.".split()
        await trio.sleep(6)
        assert t.history[-1] == ("assistant", "One two three four five. Six seven.")
        assert len(t.device.events(ErrorReported)) == 1
        begun = [e.text.split() for e in t.device.events(SentenceStarted)]
        [first, rest, last] = begun
        assert first == "One two three four five.".split()
        assert rest == first[-len(rest) :]
        assert 1 <= len(rest) <= 4
        assert last == ["Six", "seven."]
        t.ask("again", 2)
        await trio.sleep(4)
        assert len(t.device.events(ErrorReported)) == 1


async def test_a_voice_that_is_away_from_the_start_says_it_all_when_it_is_back(autojump_clock):
    """No stream is opened before there is a sound."""
    start = trio.current_time()
    voice = ComingAndGoing(start, start + 10.0)
    async with talking(voice=voice) as talk:
        talk.ask()
        await trio.sleep(9)
        assert "StreamStarted" not in talk.device.kinds()
        await trio.sleep(8)
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_who_interrupts_a_reply_without_voice_has_heard_what_was_spoken(autojump_clock):
    """The words that the voice still owes are not in the history."""
    start = trio.current_time()
    voice = ComingAndGoing(start + 0.3, start + 1e6)
    async with talking(voice=voice) as talk:
        talk.ask()
        await trio.sleep(4)
        talk.ask("stop", 2)
        await trio.sleep(1)
        [interrupted] = talk.device.events(TurnInterrupted)
        heard = interrupted.heard_text
        assert ANSWER.startswith(heard)
        assert 1 <= len(heard.split()) <= 4
        assert f"{heard} {interrupted.unheard_text}" == ANSWER
        assert talk.history[1] == ("assistant", heard)


async def test_a_voice_that_stays_away_ends_the_turn_without_it(autojump_clock):
    """After a minute; the next turn may have a voice again."""
    start = trio.current_time()
    voice = ComingAndGoing(start, start + AWAY_SECONDS + 10)
    async with talking(voice=voice) as talk:
        talk.ask()
        await trio.sleep(AWAY_SECONDS - 1)
        assert talk.dialogue.floor.busy
        await trio.sleep(10)
        assert not talk.dialogue.floor.busy
        assert len(talk.device.events(ErrorReported)) == 1
        assert talk.history == [("user", "hello")]
        await trio.sleep(10)
        talk.ask("again", 2)
        await trio.sleep(4)
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_a_device_that_shows_text_has_seen_what_could_not_be_spoken(autojump_clock):
    """Shown is seen: it belongs to the history."""
    voice = FakeSynthesizer(fail=SynthesizerError("no voice"))
    device_options = Capabilities(display_text=True)

    async with talking(device=FakeDevice(device_options), voice=voice) as talk:
        talk.ask()
        await trio.sleep(3)
        assert [e.code for e in talk.device.events(ErrorReported)] == [ErrorCode.TTS_ERROR]
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_a_chat_model_that_fails_is_excused_aloud(autojump_clock):
    """LLM_ERROR, a spoken line, and the next turn works."""
    chat = FakeChatModel("One two.", fail=ChatModelError("no model"))
    async with talking(chat=chat) as talk:
        talk.ask()
        await trio.sleep(4)
        assert [e.code for e in talk.device.events(ErrorReported)] == [ErrorCode.LLM_ERROR]
        assert talk.voice.spoken == ["One two.", " Sorry, I cannot answer right now."]
        told = "".join(event.text for event in talk.device.events(TextDelta))
        assert told.split() == "One two. Sorry, I cannot answer right now.".split()
        chat.fail, chat.answer = None, ANSWER
        talk.ask("again", 2)
        await trio.sleep(5)
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_a_transcript_that_is_delayed_lets_the_reply_go_on_and_takes_the_floor_late(
    autojump_clock,
):
    """ASR_ERROR, the held reply is released; the words count when they come."""
    async with talking(chat=FakeChatModel(" ".join(["word"] * 60) + ".")) as talk:
        talk.voice.seconds = 20.0
        talk.ask()
        await trio.sleep(1)
        *begun, ended, _ = speech(2, "x")
        delayed = TranscriptionDelayed(2, ErrorCode.ASR_ERROR, "the ear is away")
        talk.device.utter(*begun, ended, delayed)
        await trio.sleep(1)
        assert [e.code for e in talk.device.events(ErrorReported)] == [ErrorCode.ASR_ERROR]
        assert talk.device.events(StreamResumed)
        *_, final = speech(2, "stop it")
        talk.device.utter(final)
        await trio.sleep(1)
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.turn_id == 1
        assert ("user", "stop it") in [*talk.history, ("user", talk.chat.questions[-1])]
