"""The spoken loop: a sentence is spoken, noticed, understood and answered, inside this process."""

from __future__ import annotations

from functools import partial

import trio

from listenai.app.doctor.report import Check, Finding, broken, well
from listenai.app.doctor.taken import EMBEDDED, has_language_model, own_engines
from listenai.audio import FRAME_BYTES, SAMPLE_RATE
from listenai.codecs.resampling import StreamResampler
from listenai.commands import spoken_words
from listenai.config import Config
from listenai.engines.base import (
    ChatMessage,
    ChatModel,
    ChatSettings,
    ReplyText,
    SpeakerMemory,
    Synthesizer,
    Transcriber,
)
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector

SENTENCE = "What is two plus two?"  # PocketSphinx understands it from every English voice
VOICE = "en-us+f3"
ANSWERS = ("4", "four")
LOOP_SECONDS = 30.0
ANSWER_SECONDS = 5.0
SPEECH = 0.5  # probability from which a frame counts as speech
FRAMES_OF_SPEECH = 20  # a third of a second: the sentence takes more than one


def checks(config: Config | None = None) -> list[Check]:
    """The loop where both its engines would be taken, and the assistant where it may be."""
    config = config or Config()
    loop = Check("spoken loop", "spoken-loop", LOOP_SECONDS, _embedded_loop)
    assistant = partial(answering, EmbeddedChatModel())
    answer = Check("the embedded assistant", "spoken-loop", ANSWER_SECONDS, assistant)
    ours = list(own_engines(config).values()) == [EMBEDDED, EMBEDDED]
    return [*([loop] if ours else []), *([] if has_language_model(config) else [answer])]


async def _embedded_loop() -> Finding:
    transcriber = SphinxTranscriber(instances=1)
    try:
        await transcriber.warm()  # its models have a line of their own
        return await spoken_loop(EspeakSynthesizer(), transcriber)
    finally:
        transcriber.close()


async def spoken_loop(synthesizer: Synthesizer, transcriber: Transcriber) -> Finding:
    """Text to speech and back."""
    began = trio.current_time()
    pcm = await _spoken(synthesizer)
    spoken = trio.current_time()
    noticed = await trio.to_thread.run_sync(_frames_of_speech, pcm)
    text = await _understood(transcriber, pcm)
    heard = trio.current_time()
    if noticed < FRAMES_OF_SPEECH:
        return broken(f"{noticed} frames of speech were noticed in a whole sentence", "spoken-loop")
    wanted = " ".join(spoken_words(SENTENCE))
    if text != wanted:
        return broken(f"{wanted!r} was understood as {text!r}", "spoken-loop")
    return well(
        f"{wanted!r} spoken in {_milliseconds(spoken - began)} and understood in"
        f" {_milliseconds(heard - spoken)} ({len(pcm) / 2 / SAMPLE_RATE:.1f} s of speech)"
    )


async def _spoken(synthesizer: Synthesizer) -> bytes:
    resampler = StreamResampler(synthesizer.sample_rate, SAMPLE_RATE)
    pcm = bytearray()
    speech = synthesizer.open_speech(SENTENCE, voice_id=VOICE, language="en")
    async with speech as chunks:
        async for chunk in chunks:
            pcm += resampler.push(chunk.pcm)
    return bytes(pcm + resampler.flush())


def _frames_of_speech(pcm: bytes) -> int:
    whole = range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)
    with TenVadDetector() as detector:
        return sum(detector.process(pcm[at : at + FRAME_BYTES]) > SPEECH for at in whole)


async def _understood(transcriber: Transcriber, pcm: bytes) -> str:
    opening = transcriber.open_utterance(language="en", speaker=SpeakerMemory())
    async with opening as utterance:
        await utterance.accept(pcm)
        return (await utterance.finish()).text


async def answering(chat_model: ChatModel) -> Finding:
    """A chat model does the sum."""
    began = trio.current_time()
    question = [ChatMessage("user", SENTENCE)]
    opening = chat_model.open_reply(question, [], ChatSettings())
    words = ""
    async with opening as reply:
        async for part in reply:
            words += part.text if isinstance(part, ReplyText) else ""
    if not any(answer in words.lower() for answer in ANSWERS):
        return broken(f"it answers {SENTENCE!r} with {words!r}", "spoken-loop")
    return well(f"answers {words.strip()!r} in {_milliseconds(trio.current_time() - began)}")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
