"""Whisper in the server's own process: a tiny model that the real library loads and runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from listenai.engines.base import SpeakerMemory
from listenai.engines.whisper import (
    MIN_SAMPLES,
    PARTIAL_SECONDS,
    WhisperTranscriber,
    read_model_name,
)
from listenai.errors import ConfigurationError, TranscriberError

real = pytest.mark.models
SECOND = bytes(32_000)
WORDS = ["turn", "on", "the", "light"]
TEXT = " ".join(WORDS)
TINY = read_model_name("tiny-int8")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models that always hear TEXT: many (languages) and english."""
    reason = "faster-whisper is missing: pip install '.[faster-whisper]'"
    pytest.importorskip("faster_whisper", reason=reason)
    from tiny_models.tiny_whisper import tiny_whisper

    folder = tmp_path_factory.mktemp("whisper")
    tiny_whisper(folder / "many", WORDS)
    tiny_whisper(folder / "english", WORDS, multilingual=False)
    return folder


async def transcribe(transcriber: WhisperTranscriber, pcm: bytes, language: str = "en") -> str:
    async with transcriber.open_utterance(language=language, speaker=SpeakerMemory()) as utterance:
        await utterance.accept(pcm)
        return (await utterance.finish()).text


# --- what is understood ------------------------------------------------------------------


@real
@pytest.mark.parametrize("language", ["en", "en-US", "zh-CN"])
async def test_an_utterance_becomes_text(models: Path, language: str) -> None:
    """Features, encoder, search and tokenizer are the real ones; an odd byte does no harm."""
    async with WhisperTranscriber.open(models / "many", TINY) as transcriber:
        assert {"en", "zh", "de", "ja"} <= set(transcriber.languages)
        assert await transcribe(transcriber, SECOND + b"\0", language) == TEXT


@real
async def test_a_model_of_one_language_understands_no_other(models: Path) -> None:
    """The library itself would take French for English."""
    async with WhisperTranscriber.open(models / "english", TINY) as transcriber:
        assert transcriber.languages == ("en",)
        assert await transcribe(transcriber, SECOND) == TEXT
        with pytest.raises(TranscriberError, match="does not understand 'fr'; allowed: en"):
            await transcribe(transcriber, SECOND, "fr")


@real
async def test_more_than_a_window_is_understood_window_by_window(models: Path) -> None:
    """30 s each; beyond a minute the beginning is decoded and forgotten."""
    async with WhisperTranscriber.open(models / "many", TINY) as transcriber:
        assert await transcribe(transcriber, SECOND * 31) == f"{TEXT} {TEXT}"
        assert await transcribe(transcriber, SECOND * 61) == f"{TEXT} {TEXT} {TEXT}"


@real
@pytest.mark.parametrize("samples", [0, 1, MIN_SAMPLES - 1])
async def test_too_little_audio_is_no_words(models: Path, samples: int) -> None:
    """This model has words for everything, as Whisper has."""
    async with WhisperTranscriber.open(models / "many", TINY) as transcriber:
        assert await transcribe(transcriber, bytes(2 * samples)) == ""
        assert await transcribe(transcriber, bytes(2 * MIN_SAMPLES)) == TEXT


@real
async def test_a_partial_transcript_comes_with_enough_new_audio(models: Path) -> None:
    """Nothing for half a second, words for a second; none while all threads are busy."""
    async with (
        WhisperTranscriber.open(models / "many", TINY, threads=1) as transcriber,
        transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance,
    ):
        await utterance.accept(SECOND[: int(PARTIAL_SECONDS * 16_000)])
        assert await utterance.partial() == ""
        await utterance.accept(SECOND)
        threads = transcriber._threads
        threads.acquire_on_behalf_of_nowait("somebody who is being understood")
        assert await utterance.partial() == ""
        assert transcriber.dropped_partials == 1
        threads.release_on_behalf_of("somebody who is being understood")
        assert await utterance.partial() == TEXT


@real
async def test_who_waits_for_a_thread_can_be_cancelled(models: Path) -> None:
    """And who comes after is understood."""
    async with WhisperTranscriber.open(models / "many", TINY, threads=1) as transcriber:
        transcriber._threads.acquire_on_behalf_of_nowait("somebody")
        with trio.move_on_after(0.01) as waiting:
            await transcribe(transcriber, SECOND)
        transcriber._threads.release_on_behalf_of("somebody")
        assert waiting.cancelled_caught
        assert await transcribe(transcriber, SECOND) == TEXT


# --- which model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hub_id", "compute_type"),
    [
        ("small-int8", "Systran/faster-whisper-small", "int8"),
        ("small", "Systran/faster-whisper-small", "default"),
        ("base.en-int8_float16", "Systran/faster-whisper-base.en", "int8_float16"),
        ("large-v3-float16", "Systran/faster-whisper-large-v3", "float16"),
    ],
)
def test_a_models_name_is_its_size_and_its_numbers(
    name: str, hub_id: str, compute_type: str
) -> None:
    """As spec 001 writes it."""
    read = read_model_name(name)
    assert (read.model.hub_id, read.compute_type, read.folder) == (hub_id, compute_type, None)


def test_a_folder_is_a_model_too(tmp_path: Path) -> None:
    """By its path."""
    assert read_model_name(str(tmp_path)).folder == tmp_path
    assert read_model_name("./mine").folder == Path("mine")


@pytest.mark.parametrize("name", ["", "huge", "small-int4", "small-", "-int8"])
def test_a_name_that_is_none_is_told_with_those_there_are(name: str) -> None:
    """Sizes and numbers."""
    with pytest.raises(ConfigurationError, match=r"no Whisper model .*tiny, .*-int8, "):
        read_model_name(name)


# --- what is missing ---------------------------------------------------------------------


async def test_missing_files_are_told_before_the_library_looks(tmp_path: Path) -> None:
    """It would ask a hub for a tokenizer that is not there."""
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(TranscriberError) as caught:
        async with WhisperTranscriber.open(tmp_path, TINY):
            pytest.fail("there is no model")
    assert f"{tmp_path} has no tokenizer.json" in str(caught.value)
    assert "hf download Systran/faster-whisper-tiny" in str(caught.value)


@real
async def test_a_broken_model_is_an_error_and_no_crash(models: Path, tmp_path: Path) -> None:
    """The library's own words, and the folder."""
    for file in (models / "many").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(TranscriberError, match=f"could not be loaded from {tmp_path}: "):
        async with WhisperTranscriber.open(tmp_path, TINY):
            pytest.fail("there is no model")


async def test_a_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None in its place is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TranscriberError, match=r"pip install 'listenai\[faster-whisper\]'"):
        async with WhisperTranscriber.open(tmp_path, TINY):
            pytest.fail("there is no library")
