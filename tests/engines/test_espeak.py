"""The embedded synthesizer: audible, timed by the word, shared, and left at any moment."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import attrs
import numpy as np
import pytest
import trio

from listenai.audio import dbfs, seconds
from listenai.engines.base import SpeechChunk, WordTiming
from listenai.engines.espeak import CHUNK_MS, SAMPLE_RATE, EspeakSynthesizer
from listenai.errors import SynthesizerError

pytestmark = pytest.mark.engines

SENTENCE = "The quick brown fox jumps over the lazy dog, and it rests."
# Where its words begin differs a little from one call to the next: the library's pitch
# flutters on a clock of its own.
TOLERANCE_SAMPLES = SAMPLE_RATE // 20
ENGLISH = (
    SENTENCE,
    "Hello there, how are you?",
    "I'm fine — really “fine”, and it's a well-known naïve café.",
    "It costs 20 dollars and 50 cents. Doesn't it?",
)


@attrs.frozen
class Said:
    """A whole sentence."""

    text: str
    chunks: Sequence[SpeechChunk]

    @property
    def pcm(self) -> bytes:
        return b"".join(chunk.pcm for chunk in self.chunks)

    @property
    def timings(self) -> list[WordTiming]:
        return [word for chunk in self.chunks for word in chunk.words]

    @property
    def words(self) -> list[str]:
        return [self.text[word.start : word.end] for word in self.timings]


async def say(
    synthesizer: EspeakSynthesizer, text: str, *, voice_id: str = "default", language: str = "en"
) -> Said:
    async with synthesizer.open_speech(text, voice_id=voice_id, language=language) as chunks:
        return Said(text, [chunk async for chunk in chunks])


@pytest.fixture
def synthesizer() -> EspeakSynthesizer:
    return EspeakSynthesizer()


@pytest.mark.parametrize("voice_id", EspeakSynthesizer().voices)
@pytest.mark.parametrize("language", ["en", "en-GB", "xx"])
async def test_every_voice_speaks_audibly(
    synthesizer: EspeakSynthesizer, voice_id: str, language: str
) -> None:
    """Loud enough to hear, not clipped, and about as fast as people speak."""
    said = await say(synthesizer, "Hello there, and welcome.", voice_id=voice_id, language=language)
    assert -30 < dbfs(said.pcm) < -12
    samples = np.frombuffer(said.pcm, np.int16)
    assert np.count_nonzero(np.abs(samples.astype(int)) >= 32767) == 0
    if not voice_id.startswith("ja"):  # which spells English letter by letter
        assert 8 <= len(said.text) / seconds(said.pcm, SAMPLE_RATE) <= 25


@pytest.mark.parametrize("text", ENGLISH)
async def test_every_word_has_its_time(synthesizer: EspeakSynthesizer, text: str) -> None:
    """Timings rise, lie within the audio, and together cover every word of the text."""
    said = await say(synthesizer, text)
    assert " ".join(said.words).replace("— ", "").replace("“", "") == text.replace(
        "— ", ""
    ).replace("“", "")
    starts = [timing.from_sample for timing in said.timings]
    assert starts == sorted(set(starts))
    assert starts[0] < SAMPLE_RATE // 10
    assert starts[-1] < len(said.pcm) // 2


async def test_a_word_is_told_about_when_it_ends(
    synthesizer: EspeakSynthesizer,
) -> None:
    """The listener learns of a word while it reads about that part of the audio."""
    said = await say(synthesizer, SENTENCE)
    chunk_samples = SAMPLE_RATE * CHUNK_MS // 1000
    ends = [timing.from_sample for timing in said.timings[1:]] + [len(said.pcm) // 2]
    told_at, at = [], 0
    for chunk in said.chunks:
        assert len(chunk.pcm) // 2 <= 2 * chunk_samples
        at += len(chunk.pcm) // 2
        told_at += [at] * len(chunk.words)
    for end, told in zip(ends, told_at, strict=True):
        assert told <= end + 2 * chunk_samples


async def test_positions_count_characters_not_bytes(synthesizer: EspeakSynthesizer) -> None:
    """Text of two, three and four bytes a character, a NUL and half a surrogate pair."""
    said = await say(synthesizer, "é naïve “word” 😀 after\0this \ud83d end")
    assert {"naïve", "this", "end"} <= set(said.words)


@pytest.mark.parametrize(
    ("text", "language", "first"),
    [("今天天气很好。我是助手。", "zh-CN", "今"), ("こんにちは、みなさん。", "ja", "こんにちは、")],
)
async def test_the_language_chooses_the_default_voice(
    synthesizer: EspeakSynthesizer, text: str, language: str, first: str
) -> None:
    """Chinese and Japanese are spoken, not spelt out as foreign letters."""
    said = await say(synthesizer, text, language=language)
    assert dbfs(said.pcm) > -30
    assert said.words[0] == first
    spelt = await say(synthesizer, text, language="en")
    assert len(said.pcm) < len(spelt.pcm) * 0.8


@pytest.mark.parametrize("text", ["", "  \n", "... !", "😀 ***", "\0"])
async def test_text_without_words_is_silence_without_error(
    synthesizer: EspeakSynthesizer, text: str
) -> None:
    """No chunk at all."""
    assert not (await say(synthesizer, text)).chunks


async def test_an_unknown_voice_is_refused_with_the_list(synthesizer: EspeakSynthesizer) -> None:
    """The library would keep the voice of the sentence before."""
    with pytest.raises(SynthesizerError, match=r"'nope'.*default, doubao-通用女声, en-us"):
        await say(synthesizer, "Hello.", voice_id="nope")


async def test_a_sentence_without_end_is_refused(synthesizer: EspeakSynthesizer) -> None:
    """What it takes in memory is bounded; the next sentence is spoken."""
    with pytest.raises(SynthesizerError, match="more than 120 seconds"):
        await say(synthesizer, "word " * 1000)
    assert (await say(synthesizer, SENTENCE)).words[0] == "The"


async def test_voices_do_not_leak_between_sentences_at_once(
    synthesizer: EspeakSynthesizer,
) -> None:
    """Forty sentences in three voices, from two instances, each as if alone."""
    cases = [(text, voice_id) for text in ENGLISH for voice_id in ("en-us", "en-us+f3", "cmn")]
    alone = {case: await say(synthesizer, case[0], voice_id=case[1]) for case in cases}
    other = EspeakSynthesizer()

    async def check(case: tuple[str, str], speaker: EspeakSynthesizer) -> None:
        said = await say(speaker, case[0], voice_id=case[1])
        assert said.words == alone[case].words
        assert len(said.pcm) == pytest.approx(len(alone[case].pcm), abs=2 * TOLERANCE_SAMPLES)
        for ours, expected in zip(said.timings, alone[case].timings, strict=True):
            assert ours.from_sample == pytest.approx(expected.from_sample, abs=TOLERANCE_SAMPLES)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                speaker = synthesizer if number % 2 else other
                nursery.start_soon(check, cases[number % len(cases)], speaker)


async def test_a_slow_listener_does_not_keep_others_waiting(
    synthesizer: EspeakSynthesizer,
) -> None:
    """A device that plays in real time has its sentence in a buffer, not the library."""
    with trio.fail_after(10):
        async with synthesizer.open_speech(SENTENCE, voice_id="default", language="en") as slow:
            first = await anext(slow)
            assert (await say(synthesizer, SENTENCE)).words[0] == "The"
            rest = [chunk async for chunk in slow]
    assert seconds(first.pcm + b"".join(chunk.pcm for chunk in rest), SAMPLE_RATE) > 2


async def test_leaving_a_sentence_frees_the_library_at_once(
    synthesizer: EspeakSynthesizer,
) -> None:
    """The next sentence's first chunk comes long before the left one could have been said."""
    long_text = "word " * 250
    began = time.perf_counter()
    whole = await say(synthesizer, long_text)
    whole_seconds = time.perf_counter() - began
    assert seconds(whole.pcm, SAMPLE_RATE) > 40

    async def leave_and_go_on() -> float:
        async with synthesizer.open_speech(long_text, voice_id="default", language="en") as chunks:
            await anext(chunks)
            left_at = time.perf_counter()
        async with synthesizer.open_speech(SENTENCE, voice_id="default", language="en") as chunks:
            await anext(chunks)
            return time.perf_counter() - left_at

    # The best of a few: other processes may take the machine in between.
    assert min([await leave_and_go_on() for _ in range(5)]) < whole_seconds / 3


async def test_a_cancelled_sentence_leaves_nothing_behind(
    synthesizer: EspeakSynthesizer,
) -> None:
    """Cancelled while it waits for the library, while it is spoken, and while it is read."""
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(10):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(say, synthesizer, "word " * 200)
            await say(synthesizer, "One.")
            nursery.cancel_scope.cancel()
    assert (await say(synthesizer, SENTENCE)).words[-1] == "rests."
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_an_error_of_the_listener_is_raised_as_it_is(
    synthesizer: EspeakSynthesizer,
) -> None:
    """Not in a group: who speaks can catch what went wrong."""
    with pytest.raises(KeyError, match="of the listener"):  # noqa: PT012 - inside is the point
        async with synthesizer.open_speech(SENTENCE, voice_id="default", language="en") as chunks:
            async for _ in chunks:
                raise KeyError("of the listener")


def test_a_missing_library_says_how_to_install_it() -> None:
    """In a process where the optional package cannot be imported."""
    program = (
        "import sys; sys.modules['espeakng_loader'] = None\n"
        "from listenai.engines.espeak import EspeakSynthesizer\n"
        "from listenai.errors import SynthesizerError\n"
        "try: EspeakSynthesizer().load()\n"
        "except SynthesizerError as error: print(error)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'listenai[embedded]'" in finished.stdout


async def test_the_longest_sentence_fits_its_buffer(synthesizer: EspeakSynthesizer) -> None:
    """Many short clauses, nearly up to the limit, none of it read before all was said."""
    text = "W. " * 280
    async with synthesizer.open_speech(text, voice_id="default", language="en") as chunks:
        first = await anext(chunks)
        await say(synthesizer, "Next.")  # comes after the whole of it
        said = Said(text, [first] + [chunk async for chunk in chunks])
    assert seconds(said.pcm, SAMPLE_RATE) > 100
    assert all(len(chunk.pcm) >= len(first.pcm) - 2 for chunk in said.chunks[:-1])
