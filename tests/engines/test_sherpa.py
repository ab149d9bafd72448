"""sherpa-onnx in the server's own process, on tiny graphs that its real loaders accept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trio

from listenai.engines.base import SpeakerMemory, SpeechChunk
from listenai.engines.sherpa import (
    MAX_SENTENCE_CHARACTERS,
    MIN_SAMPLES,
    SherpaSynthesizer,
    SherpaTranscriber,
    clauses_of,
)
from listenai.errors import SynthesizerError, TranscriberError

real = pytest.mark.models
SECOND = bytes(32_000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each kind: sensevoice, piper, kokoro."""
    for package in ("sherpa_onnx", "onnx", "espeakng_loader"):
        pytest.importorskip(package, reason=f"{package} is missing: pip install '.[sherpa,dev]'")
    import espeakng_loader
    from tiny_models import tiny_sherpa

    folder = tmp_path_factory.mktemp("sherpa")
    espeak_data = Path(espeakng_loader.get_data_path())
    tiny_sherpa.build_sensevoice(
        folder / "sensevoice", {"auto": "what", "en": "turn on the light", "zh": "ni hao"}
    )
    tiny_sherpa.build_piper(folder / "piper", espeak_data)
    tiny_sherpa.build_kokoro(folder / "kokoro", espeak_data, speakers=3)
    return folder


# --- hearing -----------------------------------------------------------------------------


async def transcribe(transcriber: SherpaTranscriber, pcm: bytes, language: str = "en") -> str:
    async with transcriber.open_utterance(language=language, speaker=SpeakerMemory()) as utterance:
        await utterance.accept(pcm)
        return (await utterance.finish()).text


@real
@pytest.mark.parametrize(
    ("language", "text"), [("en", "turn on the light"), ("en-US", "turn on the light")]
)
async def test_an_utterance_becomes_text(models: Path, language: str, text: str) -> None:
    """Words come through the real recognizer, for an odd number of bytes too."""
    async with SherpaTranscriber.open(models / "sensevoice") as transcriber:
        assert await transcribe(transcriber, SECOND + b"\0", language) == text


@real
async def test_another_language_is_loaded_when_it_is_spoken(models: Path) -> None:
    """The graph's answer tells which language it was asked for."""
    async with SherpaTranscriber.open(models / "sensevoice", language="en") as transcriber:
        assert await transcribe(transcriber, SECOND, "zh-CN") == "ni hao"
        assert await transcribe(transcriber, SECOND, "en") == "turn on the light"


@real
async def test_many_utterances_at_once_are_all_understood(models: Path) -> None:
    """More speakers than threads: each gets its own words."""
    texts: list[str] = []
    async with SherpaTranscriber.open(models / "sensevoice", threads=2) as transcriber:

        async def listen() -> None:
            texts.append(await transcribe(transcriber, SECOND))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(listen)
    assert texts == ["turn on the light"] * 6


@real
async def test_a_partial_transcript_comes_with_enough_new_audio(models: Path) -> None:
    """Nothing for a tenth of a second, words for a second."""
    async with (
        SherpaTranscriber.open(models / "sensevoice") as transcriber,
        transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance,
    ):
        await utterance.accept(SECOND[:3200])
        assert await utterance.partial() == ""
        await utterance.accept(SECOND)
        assert await utterance.partial() == "turn on the light"


@real
async def test_no_partial_transcript_is_made_while_all_threads_are_busy(models: Path) -> None:
    """Whoever asks keeps the words that were there, and it is counted."""
    async with (
        SherpaTranscriber.open(models / "sensevoice", threads=1) as transcriber,
        transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance,
    ):
        await utterance.accept(SECOND)
        threads = transcriber._threads
        threads.acquire_on_behalf_of_nowait("somebody who is being understood")
        assert await utterance.partial() == ""
        assert transcriber.dropped_partials == 1
        threads.release_on_behalf_of("somebody who is being understood")
        assert await utterance.partial() == "turn on the light"


@real
@pytest.mark.parametrize("samples", [0, 1, MIN_SAMPLES - 1])
async def test_too_little_audio_is_no_words(models: Path, samples: int) -> None:
    """What has no frame of features never reaches the model."""
    async with SherpaTranscriber.open(models / "sensevoice") as transcriber:
        assert await transcribe(transcriber, bytes(2 * samples)) == ""


@real
async def test_an_unknown_language_is_refused(models: Path) -> None:
    """The message lists the languages that are understood."""
    async with SherpaTranscriber.open(models / "sensevoice") as transcriber:
        with pytest.raises(TranscriberError, match="does not understand 'fr'; allowed: zh, en"):
            await transcribe(transcriber, SECOND, "fr")


@real
async def test_an_endless_utterance_is_refused(models: Path) -> None:
    """Nobody fills the memory by never stopping to talk."""
    async with SherpaTranscriber.open(models / "sensevoice") as transcriber:
        with pytest.raises(TranscriberError, match="more than 60 s"):
            await transcribe(transcriber, SECOND * 61)


# --- speaking ----------------------------------------------------------------------------


async def speak(
    synthesizer: SherpaSynthesizer, text: str, voice_id: str = "default"
) -> Sequence[SpeechChunk]:
    async with synthesizer.open_speech(text, voice_id=voice_id, language="en") as chunks:
        return [chunk async for chunk in chunks]


def level(chunks: Sequence[SpeechChunk]) -> float:
    wave = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2")
    return float(wave.max()) / 32767


@real
async def test_piper_speaks_in_short_chunks(models: Path) -> None:
    """Chunks of at most 200 ms at the model's rate, with the graph's level."""
    async with SherpaSynthesizer.open(models / "piper", model="sherpa-piper") as synthesizer:
        chunks = await speak(synthesizer, "Hello there, how are you?")
        assert synthesizer.sample_rate == 22_050
    assert len(chunks) > 1
    assert max(len(chunk.pcm) for chunk in chunks) == 22_050 // 5 * 2
    assert level(chunks) == pytest.approx(0.25, abs=0.001)


@real
@pytest.mark.parametrize(
    ("voice_id", "loudness"), [("default", 0.1), ("speaker-0", 0.1), ("speaker-2", 0.3)]
)
async def test_kokoro_speaks_with_the_chosen_speaker(
    models: Path, voice_id: str, loudness: float
) -> None:
    """The level of the audio tells whose style the graph was given."""
    async with SherpaSynthesizer.open(models / "kokoro") as synthesizer:
        chunks = await speak(synthesizer, "Hello.", voice_id)
    assert level(chunks) == pytest.approx(loudness, abs=0.001)


@real
async def test_what_was_left_leaves_the_thread_to_the_next(models: Path) -> None:
    """After a sentence is left in its first clause, another one is spoken whole."""
    clauses = ", ".join(["the quick brown fox jumps over the lazy dog"] * 20)
    async with SherpaSynthesizer.open(models / "kokoro") as synthesizer:
        whole = await speak(synthesizer, "Hello.")
        async with synthesizer.open_speech(clauses, voice_id="default", language="en") as chunks:
            assert (await anext(chunks)).pcm
        assert await speak(synthesizer, "Hello.") == whole


@real
async def test_text_without_words_is_silence(models: Path) -> None:
    """The library would write such text to its log as an error."""
    async with SherpaSynthesizer.open(models / "piper", model="sherpa-piper") as synthesizer:
        assert await speak(synthesizer, "… !") == []


@real
@pytest.mark.parametrize(
    ("text", "voice_id", "complaint"),
    [
        ("Hello.", "speaker-7", "there is no voice 'speaker-7'; choose one of default"),
        ("a" * (MAX_SENTENCE_CHARACTERS + 1), "default", "2001 characters is too long"),
    ],
)
async def test_what_cannot_be_spoken_is_refused(
    models: Path, text: str, voice_id: str, complaint: str
) -> None:
    """Unknown voices and endless sentences."""
    async with SherpaSynthesizer.open(models / "piper", model="sherpa-piper") as synthesizer:
        with pytest.raises(SynthesizerError, match=complaint):
            await speak(synthesizer, text, voice_id)


# --- loading -----------------------------------------------------------------------------


async def test_missing_files_are_named(tmp_path: Path) -> None:
    """Before the library is even imported."""
    with pytest.raises(TranscriberError, match=r"has no model\.int8\.onnx or model\.onnx"):
        async with SherpaTranscriber.open(tmp_path):
            pytest.fail("there is no model")


async def test_a_graph_without_what_the_library_needs_is_refused(tmp_path: Path) -> None:
    """FunASR's own export of SenseVoice is such a one; the library would end the process."""
    (tmp_path / "model.onnx").write_bytes(b"a graph with vocab_size and nothing else")
    (tmp_path / "tokens.txt").write_text("<blank> 0\n", "utf-8")
    with pytest.raises(TranscriberError, match="does not say its lfr_window_size, neg_mean"):
        async with SherpaTranscriber.open(tmp_path):
            pytest.fail("there is no model")


@real
async def test_a_broken_graph_is_told(models: Path, tmp_path: Path) -> None:
    """A download that was cut off is our error, with the folder in it."""
    whole = (models / "sensevoice" / "model.int8.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100 + whole[-12_000:])
    (tmp_path / "tokens.txt").write_text("<blank> 0\n", "utf-8")
    with pytest.raises(TranscriberError, match="SenseVoice could not be loaded from"):
        async with SherpaTranscriber.open(tmp_path):
            pytest.fail("the model is broken")


@real
async def test_without_the_package_it_says_what_to_install(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module can be imported; using it asks for the extra."""
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    with pytest.raises(TranscriberError, match=r"pip install 'listenai\[sherpa\]'"):
        async with SherpaTranscriber.open(models / "sensevoice"):
            pytest.fail("there is no package")


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("", []),
        ("… !", []),
        ("Hello.", ["Hello."]),
        ("It is 3.5 degrees.", ["It is 3.5 degrees."]),
        (
            "Tomorrow it will be mild and dry, with some clouds.",
            ["Tomorrow it will be mild and dry, ", "with some clouds."],
        ),
        (
            "今天天气很好，不冷不热，明天可能会下雨。",
            ["今天天气很好，不冷不热，", "明天可能会下雨。"],
        ),
    ],
)
def test_text_is_cut_where_one_breathes(text: str, clauses: list[str]) -> None:
    """After punctuation, and not into crumbs; nothing is lost."""
    assert clauses_of(text) == clauses
    assert not clauses or "".join(clauses) == text
