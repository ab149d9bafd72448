"""VoxCPM through its real loader, on tiny random checkpoints made here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from listenai.engines.base import SpeechChunk
from listenai.engines.voxcpm import VoxcpmSynthesizer
from listenai.engines.voxcpm_model import Prompt, VoxcpmModel
from listenai.engines.voxcpm_voices import read_voices
from listenai.errors import SynthesizerError
from listenai.wav import write_wav

CHUNK_BYTES = 1280 * 2  # 80 ms at 16 kHz
LONG_TEXT = "the quick brown fox"
ANNA = {"id": "anna", "description": "calm", "wav": "anna.wav", "text": "Hello."}


def real(test: Any) -> Any:
    """A test of the real packages, which warn about themselves and each other."""
    for category in ("DeprecationWarning", "FutureWarning", "UserWarning", "SyntaxWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}")(test)
    return pytest.mark.models(test)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models: small (like VoxCPM-0.5B) and second (like VoxCPM 2)."""
    for package in ("torch", "soxr", "einops", "transformers"):
        pytest.importorskip(package, reason=f"{package} is missing: see scripts/test.sh")
    # Importing the package needs torchaudio or our stand-in, which loading provides.
    from listenai.engines.voxcpm_model import _provide_torchaudio

    _provide_torchaudio()
    pytest.importorskip("voxcpm", reason="voxcpm is missing: see scripts/test.sh")
    from tiny_models import tiny_voxcpm

    folder = tmp_path_factory.mktemp("voxcpm")
    tiny_voxcpm.build_voxcpm(folder / "small")
    tiny_voxcpm.build_voxcpm(folder / "second", "2")
    return folder


def save_voices(folder: Path, *voices: Mapping[str, object]) -> Path:
    """A folder of voices, with two seconds of noise at 22 kHz as anna.wav."""
    noise = np.random.default_rng(0).integers(-3000, 3000, 2 * 22_050)
    write_wav(folder / "anna.wav", noise.astype("<i2").tobytes(), 22_050)
    (folder / "voices.json").write_text(json.dumps(voices), "utf-8")
    return folder


@pytest.fixture
def anna(tmp_path: Path) -> Path:
    return save_voices(tmp_path, ANNA)


def quick(folder: Path, voices: Path | None, *, instances: int = 1) -> Any:
    return VoxcpmSynthesizer.open(
        folder, voices_folder=voices, instances=instances, inference_timesteps=1
    )


async def speak(
    synthesizer: VoxcpmSynthesizer, text: str, voice_id: str = "default"
) -> Sequence[SpeechChunk]:
    async with synthesizer.open_speech(text, voice_id=voice_id, language="en") as chunks:
        return [chunk async for chunk in chunks]


async def wait_free(synthesizer: VoxcpmSynthesizer, instances: int) -> None:
    """Until so many models wait for a sentence."""
    while synthesizer.free_instances < instances:  # noqa: ASYNC110 - a thread sets it free
        await trio.sleep(0.001)


# --- speaking ----------------------------------------------------------------------------


@real
async def test_a_sentence_becomes_audio(models: Path, anna: Path) -> None:
    """Whole chunks of 80 ms, as many as the model's bound for two letters and a blank allows."""
    async with quick(models / "small", anna) as synthesizer:
        chunks = await speak(synthesizer, " hi\n")
        assert synthesizer.sample_rate == 16_000
    assert {len(chunk.pcm) for chunk in chunks} == {CHUNK_BYTES}
    assert len(chunks) == 6 * len("_hi") + 10
    assert any(any(chunk.pcm) for chunk in chunks)


@real
async def test_the_first_chunk_comes_before_the_sentence_is_done(models: Path, anna: Path) -> None:
    """While it is heard, the model is still at work."""
    async with quick(models / "small", anna) as synthesizer:
        await wait_free(synthesizer, 1)
        async with synthesizer.open_speech(LONG_TEXT, voice_id="default", language="en") as chunks:
            assert (await anext(chunks)).pcm
            assert synthesizer.free_instances == 0


@real
async def test_a_sentence_that_is_left_frees_its_model_within_a_chunk(
    models: Path, anna: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made after the listener has gone: the chunk that was being made."""
    made = count_chunks(monkeypatch)
    async with quick(models / "small", anna) as synthesizer:
        async with synthesizer.open_speech(LONG_TEXT, voice_id="default", language="en") as chunks:
            await anext(chunks)
        when_left = len(made)
        await wait_free(synthesizer, 1)
        assert len(made) <= when_left + 1
        assert len(await speak(synthesizer, "hi")) == 6 * len("_hi") + 10


@real
async def test_streams_on_a_pool_never_share_a_model(
    models: Path, anna: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight sentences on two models: each model makes one sentence to its end at a time."""
    made = count_chunks(monkeypatch)
    lengths: list[int] = []
    async with quick(models / "small", anna, instances=2) as synthesizer:

        async def listen(text: str) -> None:
            lengths.append(len(await speak(synthesizer, text)))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(listen, f"hi {number}")
    assert lengths == [6 * len("_hi_0") + 10] * 8
    by_model: dict[int, list[str]] = {}
    for model, text in made:
        said = by_model.setdefault(model, [])
        if not said or said[-1] != text:
            said.append(text)
    assert len(by_model) == 2
    assert sorted(text for said in by_model.values() for text in said) == [
        f"hi {number}" for number in range(8)
    ]


def count_chunks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Fills with (model, text) for each chunk that is made."""
    made: list[tuple[int, str]] = []
    speak_really = VoxcpmModel.speak

    def speak_and_tell(self: VoxcpmModel, text: str, *args: Any, **kwargs: Any) -> Any:
        chunks = speak_really(self, text, *args, **kwargs)
        try:
            for chunk in chunks:
                made.append((id(self), text))
                yield chunk
        finally:
            chunks.close()

    monkeypatch.setattr(VoxcpmModel, "speak", speak_and_tell)
    return made


@real
async def test_who_waits_for_a_model_can_leave(models: Path, anna: Path) -> None:
    """A sentence that is cancelled while all models are busy is never spoken."""
    async with (
        quick(models / "small", anna) as synthesizer,
        synthesizer.open_speech(LONG_TEXT, voice_id="default", language="en") as chunks,
    ):
        await anext(chunks)
        with trio.move_on_after(0) as scope:
            await speak(synthesizer, "hi")
        assert scope.cancelled_caught
        assert [chunk async for chunk in chunks]


@real
async def test_text_without_words_is_silence(models: Path, anna: Path) -> None:
    """It never reaches a model."""
    async with quick(models / "small", anna) as synthesizer:
        assert await speak(synthesizer, "… !") == []


@real
async def test_a_failure_of_the_model_is_our_error(
    models: Path, anna: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next sentence is spoken."""
    async with quick(models / "small", anna) as synthesizer:
        # More text than the tiny model has room for.
        with pytest.raises(SynthesizerError, match="VoxCPM failed on 1000 characters"):
            await speak(synthesizer, "word " * 200)
        assert await speak(synthesizer, "hi")


@real
async def test_a_closed_synthesizer_fails_those_who_listen(models: Path, anna: Path) -> None:
    """Half a sentence is not taken for a whole one."""
    opened = trio.Event()

    async def hear_all() -> None:
        async with synthesizer.open_speech(LONG_TEXT, voice_id="default", language="en") as chunks:
            async for _ in chunks:
                opened.set()

    async def listen() -> None:
        with pytest.raises(SynthesizerError, match="closed meanwhile"):
            await hear_all()

    async with trio.open_nursery() as nursery, quick(models / "small", anna) as synthesizer:
        nursery.start_soon(listen)
        await opened.wait()
    with pytest.raises(SynthesizerError, match="closed meanwhile"):
        await speak(synthesizer, "hi")


# --- voices ------------------------------------------------------------------------------


@real
async def test_voices_are_listed_and_chosen(models: Path, anna: Path) -> None:
    """By id; the default ones stand for the first; others are refused with the list."""
    async with quick(models / "small", anna) as synthesizer:
        assert set(synthesizer.voices) == {"default", "doubao-通用女声", "anna"}
        assert synthesizer.voices["anna"] == "calm"
        for voice_id in synthesizer.voices:
            assert await speak(synthesizer, "hi", voice_id)
        with pytest.raises(SynthesizerError, match="no voice 'bob'; choose one of default"):
            await speak(synthesizer, "hi", "bob")


@real
async def test_a_recording_is_prepared_once_for_all_models(
    models: Path, anna: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models, two sentences: the voice is read once, at any rate."""
    prepared: list[str] = []
    prompt_of = VoxcpmModel.prompt_of

    def prepare_and_tell(self: VoxcpmModel, voice: Any, folder: Path) -> Any:
        prepared.append(voice.id)
        return prompt_of(self, voice, folder)

    monkeypatch.setattr(VoxcpmModel, "prompt_of", prepare_and_tell)
    async with quick(models / "small", anna, instances=2) as synthesizer:
        await speak(synthesizer, "hi")
        await speak(synthesizer, "ho")
    assert prepared == ["anna"]


@real
async def test_without_recordings_there_is_one_voice(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model makes it at the start; each sentence goes on from it."""
    async with quick(models / "small", None) as synthesizer:
        assert set(synthesizer.voices) == {"default", "doubao-通用女声"}
        assert await speak(synthesizer, "hi")


@real
async def test_voxcpm_2_speaks_with_a_recording_or_a_description(
    models: Path, tmp_path: Path
) -> None:
    """At 48 kHz, in chunks of 160 ms."""
    voices = save_voices(tmp_path, ANNA, {"id": "bob", "style": "a deep voice"})
    async with quick(models / "second", voices) as synthesizer:
        assert synthesizer.sample_rate == 48_000
        for voice_id in ("anna", "bob"):
            chunks = await speak(synthesizer, "hi", voice_id)
            assert {len(chunk.pcm) for chunk in chunks} == {7680 * 2}


@real
async def test_a_request_may_have_its_own_parameters(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for goes before the voice's own, and that before the synthesizer's."""
    voices = save_voices(tmp_path, {**ANNA, "cfg_value": 3.0})
    asked: list[tuple[str, float | None, int | None]] = []
    speak_really = VoxcpmModel.speak

    def speak_and_tell(self: VoxcpmModel, text: str, prompt: Prompt, **kwargs: Any) -> Any:
        asked.append((prompt.style, prompt.cfg_value, prompt.inference_timesteps))
        return speak_really(self, text, prompt, **kwargs)

    monkeypatch.setattr(VoxcpmModel, "speak", speak_and_tell)
    async with quick(models / "second", voices) as synthesizer:
        await speak(synthesizer, "hi")
        tuned = synthesizer.tuned(cfg_value=0.0, inference_timesteps=2, style=None)
        await speak(tuned, "hi")
        tuned = synthesizer.tuned(cfg_value=None, inference_timesteps=None, style="whispering")
        await speak(tuned, "hi")
    assert asked == [("", 3.0, 1), ("", 0.0, 2), ("whispering", 2.0, 1)]


@real
async def test_a_style_needs_voxcpm_2(models: Path, anna: Path) -> None:
    """The smaller model would read it aloud."""
    async with quick(models / "small", anna) as synthesizer:
        with pytest.raises(SynthesizerError, match="this model has no styles; choose a voice"):
            synthesizer.tuned(cfg_value=None, inference_timesteps=None, style="whispering")


@real
async def test_a_description_needs_voxcpm_2(models: Path, tmp_path: Path) -> None:
    """The smaller model would read it aloud."""
    voices = save_voices(tmp_path, {"id": "bob", "style": "a deep voice"})
    with pytest.raises(SynthesizerError, match="'bob' has a style, which only VoxCPM 2"):
        async with quick(models / "small", voices):
            pytest.fail("the voice does not work")


@pytest.mark.parametrize(
    ("voices", "complaint"),
    [
        ([], "it has no voice"),
        ([ANNA, ANNA], "'anna' is there twice"),
        ([{"id": "bob"}], "needs either wav and text, or style"),
        ([{"id": "bob", "wav": "anna.wav"}], "a recording needs both wav and text"),
        ([{"id": "bob", "wav": "bob.wav", "text": "Hi."}], "bob.wav: No such file"),
        ([{"id": "bob", "wav": "short.wav", "text": "Hi."}], "short.wav plays 0.1 s; allowed"),
        ([{"id": "bob", "colour": "blue"}], "colour"),
        ([{"description": "nameless"}], "id"),
    ],
)
def test_a_wrong_list_of_voices_is_told(
    tmp_path: Path, voices: list[Mapping[str, object]], complaint: str
) -> None:
    """Each problem with the voice that has it."""
    write_wav(tmp_path / "short.wav", bytes(3200), 16_000)
    save_voices(tmp_path, *voices)
    with pytest.raises(SynthesizerError, match=complaint):
        read_voices(tmp_path)


@pytest.mark.parametrize(("content", "complaint"), [(None, "cannot read"), ("[", "is not JSON")])
def test_a_broken_list_of_voices_is_told(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    """With its path."""
    if content is not None:
        (tmp_path / "voices.json").write_text(content, "utf-8")
    with pytest.raises(SynthesizerError, match=complaint):
        read_voices(tmp_path)


def test_a_voice_may_have_its_own_quality(tmp_path: Path) -> None:
    """Other settings than the synthesizer's."""
    save_voices(tmp_path, {**ANNA, "cfg_value": 3.0, "inference_timesteps": 30})
    (voice,) = read_voices(tmp_path)
    assert (voice.cfg_value, voice.inference_timesteps) == (3.0, 30)


# --- loading -----------------------------------------------------------------------------


async def test_missing_weights_are_refused_before_loading(tmp_path: Path) -> None:
    """The library would ask a hub for them."""
    with pytest.raises(SynthesizerError, match=r"no model\.safetensors or pytorch_model\.bin"):
        async with VoxcpmSynthesizer.open(tmp_path):
            pytest.fail("there is no model")


async def test_a_pool_of_nothing_is_refused(tmp_path: Path) -> None:
    """Sentences would wait for ever."""
    with pytest.raises(ValueError, match="allowed is 1 or more"):
        async with VoxcpmSynthesizer.open(tmp_path, instances=0):
            pytest.fail("nobody would speak")


async def test_without_the_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module can be imported; using it asks for the extra."""
    for name in ("torch", "torchaudio", "voxcpm"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("config.json", "model.safetensors", "audiovae.pth", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "tokenizer_config.json").write_bytes(b"x")
    with pytest.raises(SynthesizerError, match=r"pip install 'listenai\[voxcpm\]'"):
        async with VoxcpmSynthesizer.open(tmp_path):
            pytest.fail("there is no package")


@real
def test_on_the_cpu_a_core_is_left_to_the_server(models: Path) -> None:
    """Of all threads that PyTorch would take; fewer, where fewer are allowed, stay as they are."""
    import torch

    cores, before = os.cpu_count() or 1, torch.get_num_threads()
    try:
        for allowed, used in ((cores, max(1, cores - 1)), (cores + 3, max(1, cores - 1)), (1, 1)):
            torch.set_num_threads(allowed)
            VoxcpmModel.load(models / "small", "cpu")
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)
