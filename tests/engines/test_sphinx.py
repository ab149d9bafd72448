"""PocketSphinx in process: what it understands, and that instances and the loop stay safe."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing

from listenai.audio import SAMPLE_RATE
from listenai.commands import load_commands, read_grammar, spoken_words
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.engines.sphinx import STEP_BYTES, SphinxTranscriber
from listenai.engines.sphinx_agreement import (
    Word,
    difference_in_sound,
    disagreement,
    plausible,
)
from listenai.engines.sphinx_library import Decoder, known_words, model_path, pronunciations
from listenai.errors import TranscriberError
from listenai.wav import read_wav

engines = pytest.mark.engines
DATA = Path(__file__).parent.parent / "data"
TEXTS = json.loads((DATA / "texts.json").read_text())


@pytest.fixture(scope="module")
def transcriber() -> Iterator[SphinxTranscriber]:
    """One transcriber with one instance, loaded by the first test that needs it."""
    shared = SphinxTranscriber(instances=1)
    yield shared
    shared.close()


def audio(name: str) -> bytes:
    return read_wav(DATA / name).samples.tobytes()


def noise(dbfs: float, seconds: float = 2.0) -> bytes:
    """White noise at a level; minus infinity is digital silence."""
    scale = 32768 * 10 ** (dbfs / 20)
    samples = np.random.default_rng(1).normal(0, 1, int(seconds * SAMPLE_RATE)) * scale
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()


async def transcribe(
    transcriber: SphinxTranscriber, pcm: bytes, speaker: SpeakerMemory | None = None
) -> Transcript:
    async with transcriber.open_utterance(
        language="en", speaker=speaker or SpeakerMemory()
    ) as utterance:
        await utterance.accept(pcm)
        return await utterance.finish()


async def partials(transcriber: SphinxTranscriber, pcm: bytes) -> list[str]:
    """The partial text after each step of 60 ms."""
    async with transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
        texts = []
        for start in range(0, len(pcm), STEP_BYTES):
            await utterance.accept(pcm[start : start + STEP_BYTES])
            texts.append(await utterance.partial())
        return texts


# --- what is understood ------------------------------------------------------------------


@engines
@pytest.mark.parametrize("name", TEXTS)
async def test_recordings_are_understood_exactly(transcriber: SphinxTranscriber, name: str) -> None:
    """Word for word from the first utterance on; commands are known to be whole sentences."""
    said = " ".join(spoken_words(TEXTS[name]["spoken"]))
    expected = Transcript(said, complete=True if load_commands().accepts(said) else None)
    assert await transcribe(transcriber, audio(name)) == expected


@engines
async def test_odd_pieces_are_understood_as_well(transcriber: SphinxTranscriber) -> None:
    """Where the audio is cut, within samples too, changes nothing."""
    pcm = audio("weather_beijing.wav")
    async with transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
        for start in range(0, len(pcm), 1001):
            await utterance.accept(pcm[start : start + 1001])
        assert (await utterance.finish()).text == "what is the weather in beijing"


@engines
async def test_speech_that_is_cut_right_after_it_is_understood(
    transcriber: SphinxTranscriber,
) -> None:
    """In a quiet room, cut at the last audible sample: the pause after it is our own."""
    samples = read_wav(DATA / "stop.wav").samples[:, 0]
    room = np.random.default_rng(0).integers(-4, 5, samples.size)
    end = np.flatnonzero(np.abs(samples) > 100)[-1]
    cut = (samples + room)[:end].astype("<i2").tobytes()
    assert (await transcribe(transcriber, cut)).text == "stop"


@engines
@pytest.mark.parametrize("name", ["stop_the_music.wav", "what_time_is_it.wav", "no.wav"])
async def test_a_partial_shows_the_first_word_long_before_the_end(
    transcriber: SphinxTranscriber, name: str
) -> None:
    """Some word within 450 ms of the speech (it begins at 300 ms), the right one later."""
    texts = await partials(transcriber, audio(name))
    assert texts[:5] == [""] * 5  # the silence before
    assert texts[math.floor((0.3 + 0.45) / 0.06)] != ""
    first_word = spoken_words(TEXTS[name]["spoken"])[0]
    assert any(text.split()[:1] == [first_word] for text in texts[:-5])


@engines
@pytest.mark.parametrize("dbfs", [-math.inf, -78.0, -45.0, -20.0])
async def test_silence_and_noise_are_no_words(transcriber: SphinxTranscriber, dbfs: float) -> None:
    """Neither partial nor final, from digital silence to loud white noise."""
    assert set(await partials(transcriber, noise(dbfs))) == {""}
    assert await transcribe(transcriber, noise(dbfs)) == Transcript("")


@engines
async def test_an_utterance_without_audio_is_empty(transcriber: SphinxTranscriber) -> None:
    """Opening and finishing at once is allowed."""
    assert await transcribe(transcriber, b"") == Transcript("")


@engines
async def test_the_channel_is_remembered_after_words_only(transcriber: SphinxTranscriber) -> None:
    """Noise leaves a device's memory alone; each device has its own."""
    one, other = SpeakerMemory(), SpeakerMemory()
    await transcribe(transcriber, noise(-20), one)
    assert one.values == {}
    await transcribe(transcriber, audio("no.wav"), one)
    await transcribe(transcriber, audio("weather_beijing.wav"), other)
    assert len(one.values) == len(other.values) == 1
    assert one.values != other.values
    before = dict(one.values)
    await transcribe(transcriber, audio("stop_the_music.wav"), one)
    assert one.values != before
    again = SpeakerMemory()  # what others said in between does not reach it
    await transcribe(transcriber, audio("weather_beijing.wav"), again)
    assert again.values == other.values


@engines
async def test_another_language_is_refused(transcriber: SphinxTranscriber) -> None:
    """The error lists what is understood."""
    with pytest.raises(TranscriberError, match=r"'zh'; allowed: en"):
        async with transcriber.open_utterance(language="zh", speaker=SpeakerMemory()):
            raise AssertionError("opened")


# --- instances ---------------------------------------------------------------------------


@engines
async def test_utterances_at_the_same_time_do_not_share_an_instance() -> None:
    """Two interleaved utterances are both right; a third waits until one is over."""
    transcriber = SphinxTranscriber(instances=2)
    names = ("weather_beijing.wav", "stop_the_music.wav")
    opened: list[str] = []

    async def third() -> None:
        await transcribe(transcriber, audio("no.wav"))
        opened.append("third")

    async with (
        trio.open_nursery() as nursery,
        transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as one,
        transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as other,
    ):
        nursery.start_soon(third)
        pcm, other_pcm = audio(names[0]), audio(names[1])
        for start in range(0, max(len(pcm), len(other_pcm)), STEP_BYTES):
            await one.accept(pcm[start : start + STEP_BYTES])
            await other.accept(other_pcm[start : start + STEP_BYTES])
        assert (await one.finish()).text == "what is the weather in beijing"
        assert (await other.finish()).text == "stop the music"
        await trio.testing.wait_all_tasks_blocked()
        assert opened == []
        assert transcriber.loaded == 2
    assert opened == ["third"]
    transcriber.close()


@engines
async def test_a_cancelled_utterance_gives_its_instance_back(
    transcriber: SphinxTranscriber,
) -> None:
    """Cancelled in the middle of a word, the only instance hears the next utterance right."""
    fed = trio.Event()

    async def listen() -> None:
        async with transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
            await utterance.accept(audio("tell_me_a_story.wav")[:32_000])
            fed.set()
            await utterance.accept(noise(-30, seconds=60))
            raise AssertionError("a minute was decoded before the cancellation came")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await fed.wait()
        nursery.cancel_scope.cancel()
    text = (await transcribe(transcriber, audio("volume_fifty.wav"))).text
    assert text == "set the volume to fifty percent"
    assert transcriber.loaded == 1


@engines
async def test_the_event_loop_ticks_while_audio_is_decoded() -> None:
    """The GIL is free: no gap of 50 ms while one call decodes for several times as long.

    Tried up to three times, because other work on the machine makes gaps too; a decoder
    that held the GIL would make one each time.
    """
    decoder = Decoder(
        {
            "hmm": str(model_path("en-us/en-us")),
            "dict": str(model_path("en-us/cmudict-en-us.dict")),
            "lm": str(model_path("en-us/en-us.lm.bin")),
        }
    )
    pcm = audio("weather_beijing.wav")
    longest_gaps = []
    for _ in range(3):
        decoder.start()
        began = last = time.perf_counter()
        longest, done = 0.0, trio.Event()

        async def decode(done: trio.Event = done) -> None:
            await trio.to_thread.run_sync(decoder.feed, pcm)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(decode)
            while not done.is_set():
                await trio.lowlevel.checkpoint()
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
        assert last - began > 0.15, "too little work to show anything"
        decoder.end()
        longest_gaps.append(longest)
        if longest < 0.05:
            break
    decoder.close()
    assert min(longest_gaps) < 0.05, longest_gaps


@engines
async def test_close_frees_idle_instances_at_once_and_busy_ones_later() -> None:
    """An utterance in progress is finished; nothing can be opened after."""
    transcriber = SphinxTranscriber(instances=2)
    assert transcriber.loaded == 0
    await transcriber.warm()
    assert transcriber.loaded == 1  # the second when two are needed
    async with transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
        transcriber.close()
        await utterance.accept(audio("no.wav"))
        assert (await utterance.finish()).text == "no"
    with pytest.raises(TranscriberError, match="closed"):
        await utterance.partial()
    with pytest.raises(TranscriberError, match="closed; make another"):
        await transcriber.warm()


@engines
async def test_two_who_warm_it_wait_for_the_same_instance() -> None:
    """One is loaded, not one for each of them; both return when it is there."""
    transcriber = SphinxTranscriber(instances=2)
    loaded = []

    async def warm() -> None:
        await transcriber.warm()
        loaded.append(transcriber.loaded)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(warm)
        nursery.start_soon(warm)
    transcriber.close()
    assert loaded == [1, 1]


def test_no_instances_at_all_are_refused() -> None:
    """The message says what is allowed."""
    with pytest.raises(ValueError, match=r"0 instances .* 1 or more"):
        SphinxTranscriber(instances=0)


def test_importing_the_module_loads_no_library() -> None:
    """A server that uses another transcriber does not pay for this one."""
    code = "import sys, listenai.engines.sphinx; print('pocketsphinx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- the library -------------------------------------------------------------------------


@engines
def test_every_word_of_the_command_grammar_can_be_pronounced() -> None:
    """By the model's dictionary, or by our own additions to it."""
    words = load_commands().words
    found = pronunciations(words, model_path("en-us/cmudict-en-us.dict"))
    assert set(known_words(words, found)) == words
    assert found["the"] == ["DH AH", "DH IY"]  # every variant, in order


@engines
async def test_a_word_that_cannot_be_pronounced_is_named() -> None:
    """Instead of PocketSphinx's own complaint about the whole grammar; nothing stays busy."""
    grammar = read_grammar("#JSGF V1.0; grammar g; public <a> = <b>; <b> = frobnicate it;")
    transcriber = SphinxTranscriber(instances=1, grammar=grammar)
    for _ in range(2):
        with pytest.raises(TranscriberError, match="pronounce frobnicate of the command grammar"):
            await transcriber.warm()


@engines
def test_library_errors_say_what_was_wrong() -> None:
    """Settings, models, phones and grammars that cannot be used, and a closed decoder."""
    acoustic = {"hmm": str(model_path("en-us/en-us"))}
    with pytest.raises(TranscriberError, match="does not know one of these settings"):
        Decoder({"no_such_setting": 1})
    with pytest.raises(TranscriberError, match="cannot load its model"):
        Decoder({"hmm": "nowhere"})
    decoder = Decoder(acoustic)
    with pytest.raises(TranscriberError, match="refuses the word 'x' with the phones 'QQ'"):
        decoder.load_grammar("#JSGF V1.0; grammar g; public <a> = x;", {"x": ["QQ"]})
    with pytest.raises(TranscriberError, match="cannot read the command grammar"):
        decoder.load_grammar("no grammar", {})
    with pytest.raises(TranscriberError, match=r"the model file .* is missing"):
        model_path("en-us/none")
    decoder.close()
    decoder.close()
    with pytest.raises(TranscriberError, match="closed"):
        decoder.start()


# --- deciding ----------------------------------------------------------------------------


def word(text: str, phones: str, *, frames: int = 30, score: float = -450) -> Word:
    return Word(text, tuple(phones.split()), frames, score)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ("", "", 0),
        ("S T AA P", "S T AA P", 0),
        ("HH EH L P", "Y EH L P", 0.25),  # "yelp" for "help"
        ("S T AA P", "S T AO P", 0.125),  # one vowel for another
        ("N OW", "", 1),
        ("N OW", "S T AA P", 1 - 0.5 / 4),
    ],
)
def test_difference_in_sound_is_a_distance_over_phones(
    one: str, other: str, difference: float
) -> None:
    """Related phones differ by a half, others by one; over the longer length."""
    assert difference_in_sound(one.split(), other.split()) == difference
    assert difference_in_sound(other.split(), one.split()) == difference


def test_disagreement_weighs_sound_against_likelihood() -> None:
    """The better the grammar's words fit the audio, the more the texts may differ."""
    helped, yelped = word("help", "HH EH L P"), word("yelp", "Y EH L P")
    assert disagreement([helped], [yelped]) == 0.25
    fits_better = word("help", "HH EH L P", score=-150)
    assert disagreement([fits_better], [yelped]) == pytest.approx(0.25 - 0.03 * 10)
    assert disagreement([], [yelped]) == math.inf
    assert disagreement([helped], []) == math.inf


def test_words_far_too_long_for_their_letters_are_noise() -> None:
    """Two seconds of "if" are no word; a slow long word is."""
    slow = word("interesting", "IH N T R IH S T IH NG", frames=150)
    assert plausible([word("if", "IH F", frames=200), slow]) == [slow]
