"""Ears, minds and voices that go away and come back, while devices stay connected.

The voice is espeak-ng and the ear is TEN VAD with PocketSphinx, each behind a switch; the mind is
a server on loopback that is stopped and started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from end_to_end_server import TEXTS, recording
from fakes import FakeChatModel
from openai_server import OpenAIServer, saying, serve_openai
from served import SECONDS, SILENCE, Served, begun, served, serving_engines

from listenai.app import open_engines
from listenai.audio import FRAME_BYTES
from listenai.config import Config
from listenai.engines.base import SpeakerMemory, SpeechChunk, Transcriber, Transcript, Utterance
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.errors import SynthesizerAway, TranscriberAway

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

STORY = "The quick brown fox jumps over the lazy dog. It barks at him for a while."


async def health(server: Served) -> dict[str, Any]:
    """What `/health` says; `/health/ready` says 200 whatever that is."""
    assert (await server.ask("/health/ready")).status_code == 200
    answer = await server.ask("/health")
    assert answer.status_code == 200
    return answer.json()


async def is_well(server: Served) -> bool:
    shown = await health(server)
    assert shown["status"] == ("degraded" if "degraded" in shown["services"].values() else "ok")
    return shown["status"] == "ok"


# --- the voice -------------------------------------------------------------------------------


@attrs.define(eq=False)
class SwitchedVoice:
    """A synthesizer that can be away, also in the middle of a sentence."""

    inner: EspeakSynthesizer = attrs.field(factory=EspeakSynthesizer)
    is_there: bool = True
    spoken: list[str] = attrs.field(factory=list)

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def voices(self) -> Any:
        return self.inner.voices

    def _check(self) -> None:
        if not self.is_there:
            raise SynthesizerAway("speech synthesis cannot be reached")

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        self._check()
        self.spoken.append(text)
        speech = self.inner.open_speech(text, voice_id=voice_id, language=language)
        async with speech as chunks:
            yield self._while_there(chunks)

    async def _while_there(self, chunks: AsyncIterator[SpeechChunk]) -> AsyncIterator[SpeechChunk]:
        async for chunk in chunks:
            self._check()
            yield chunk


async def test_a_voice_that_goes_away_goes_on_at_the_last_unspoken_word():
    """TTS_ERROR and all the text at once; then the rest aloud, on the same connection."""
    voice = SwitchedVoice()
    async with (
        served(
            engines={"synthesizer": voice, "chat_model": FakeChatModel(STORY, delay=0.0)}
        ) as server,
        begun(server.ws) as peer,
    ):
        await peer.send("text", text="tell me")
        await peer.until("tts_audio", state="sentence")
        for _ in range(12):  # of 60 ms: some words
            await peer.until("audio")
        voice.is_there = False
        error = await peer.until("error")
        assert (error["code"], error["turn_id"]) == ("TTS_ERROR", 1)
        whole = await peer.until("llm_response", done=True)
        assert whole["text"].split() == STORY.split()
        assert (await health(server))["services"] == {"asr": "ok", "llm": "ok", "tts": "degraded"}
        assert not await is_well(server)
        assert await peer.answers()
        heard = len(peer.pcm)
        voice.is_there = True
        await peer.until("turn_metrics", turn_id=1)
        assert await is_well(server)
        assert len(peer.pcm) > heard
        assert len(peer.all("error")) == 1
        [_] = peer.all("tts_audio", state="start")
        first, *rest = [m["text"].split() for m in peer.all("tts_audio", state="sentence")]
        assert first == STORY.split()[:9]
        assert rest[-1] == STORY.split()[9:]
        unspoken = rest[0]
        assert unspoken == first[-len(unspoken) :]
        assert 1 <= len(unspoken) < len(first)
        await peer.turn("again", 2)
        assert len(peer.all("error")) == 1


# --- the ear ---------------------------------------------------------------------------------


@attrs.define(eq=False)
class SwitchedEar:
    """A transcriber that can be away, also in the middle of an utterance."""

    inner: Transcriber
    is_there: bool = True
    asked: trio.Event = attrs.field(factory=trio.Event)  # while it was away

    @property
    def languages(self) -> Any:
        return self.inner.languages

    def check(self) -> None:
        if not self.is_there:
            self.asked.set()
            raise TranscriberAway("speech recognition cannot be reached")

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[_SwitchedUtterance]:
        self.check()
        async with self.inner.open_utterance(language=language, speaker=speaker) as utterance:
            yield _SwitchedUtterance(utterance, self)


@attrs.frozen
class _SwitchedUtterance:
    inner: Utterance
    ear: SwitchedEar

    async def accept(self, pcm: bytes) -> None:
        self.ear.check()
        await self.inner.accept(pcm)

    async def partial(self) -> str:
        self.ear.check()
        return await self.inner.partial()

    async def finish(self) -> Transcript:
        self.ear.check()
        return await self.inner.finish()


@pytest.mark.slow
async def test_an_ear_that_is_away_understands_it_when_it_is_back():
    """It goes in mid sentence: ASR_ERROR; the audio is kept and understood word for word."""
    name = "what_time_is_it.wav"
    sphinx = SphinxTranscriber()
    ear = SwitchedEar(sphinx)
    try:
        await sphinx.warm()
        recognizers = SegmentingRecognizerFactory(TenVadDetector, ear)
        async with served(engines={"recognizers": recognizers}) as server, begun(server.ws) as peer:
            pcm = recording(name) + SILENCE
            half = len(recording(name)) // 2 // FRAME_BYTES * FRAME_BYTES
            await peer.send_raw(pcm[:half])
            await peer.until("status", state="hearing")
            ear.is_there = False
            await peer.send_raw(pcm[half:])
            error = await peer.until("error")
            assert error["code"] == "ASR_ERROR"
            assert "cannot be reached" in error["message"]
            assert (await health(server))["services"]["asr"] == "degraded"
            assert not await is_well(server)
            with trio.fail_after(SECONDS):
                await ear.asked.wait()
            # Who cannot be heard can type.
            await peer.turn("then I type", 1)
            ear.is_there = True
            final = await peer.until("asr_result", is_final=True)
            assert final["text"] == TEXTS[name]
            await peer.until("turn_metrics", turn_id=final["turn_id"])
            assert await is_well(server)
            assert len(peer.all("error")) == 1
            await peer.speak(name)
            assert (await peer.until("asr_result", is_final=True))["text"] == TEXTS[name]
    finally:
        sphinx.close()


# --- the mind --------------------------------------------------------------------------------


@asynccontextmanager
async def mind_at(port: int) -> AsyncIterator[int]:
    """A language model at a port (0: any); gone after the block."""
    async with trio.open_nursery() as nursery:
        model = OpenAIServer(saying("I am here."))
        url = await nursery.start(partial(serve_openai, model, port))
        yield int(url.rpartition(":")[2])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def served_with_mind_at(port: int) -> AsyncIterator[Served]:
    """A server whose language model is there, or would be."""
    config = Config(
        host="127.0.0.1",
        port=0,
        memory_budget_mb=1000,
        llm_base_url=(f"http://127.0.0.1:{port}/v1",),
    )
    async with open_engines(config) as engines, serving_engines(config, engines) as server:
        yield server


async def test_a_mind_that_is_away_is_excused_aloud_and_asked_again():
    """LLM_ERROR and a spoken line; when it is up again it answers, on the same connection."""
    async with mind_at(0) as port:
        pass
    async with served_with_mind_at(port) as server, begun(server.ws) as peer:
        down = await peer.turn("are you there", 1)
        [error] = peer.all("error")
        assert (error["code"], error["turn_id"]) == ("LLM_ERROR", 1)
        assert down["text"].strip() == "Sorry, I cannot answer right now."
        assert len(peer.pcm) > 16_000
        assert (await health(server))["services"] == {"asr": "ok", "llm": "degraded", "tts": "ok"}
        assert not await is_well(server)
        async with mind_at(port):
            up = await peer.turn("and now", 2)
            assert up["text"] == "I am here."
            assert await is_well(server)
            async with begun(server.ws) as other:
                assert (await other.turn("and for me"))["text"] == "I am here."
        await peer.turn("and now", 3)
        assert not await is_well(server)
        assert [m["turn_id"] for m in peer.all("error")] == [1, 3]
