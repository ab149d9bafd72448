"""Vosk: the adapter over a recognizer that is small and real, and the library without weights."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import attrs
import pytest
import trio

from listenai.engines.base import SpeakerMemory
from listenai.engines.vosk import STEP_BYTES, VoskTranscriber, language_of
from listenai.errors import TranscriberError

real = pytest.mark.models
SECOND = 32_000  # bytes


@attrs.define(eq=False)
class SpellingRecognizer:
    """Hears a word in every second of audio, and a pause after two of them, as Kaldi's does."""

    words: list[str] = attrs.field(factory="turn on the kitchen light".split)
    steps: list[int] = attrs.field(factory=list)  # bytes
    threads: set[int] = attrs.field(factory=set)
    heard: int = 0  # bytes
    told: int = 0  # words of sentences that have ended
    ended: bool = False

    @property
    def _sentence(self) -> list[str]:
        return self.words[self.told : self.heard // SECOND]

    def AcceptWaveform(self, data: bytes) -> int:  # noqa: N802
        assert not self.ended
        assert len(data) % 2 == 0
        self.threads.add(threading.get_ident())
        self.steps.append(len(data))
        self.heard += len(data)
        return int(len(self._sentence) == 2)

    def PartialResult(self) -> str:  # noqa: N802
        return json.dumps({"partial": " ".join(self._sentence)})

    def Result(self) -> str:  # noqa: N802
        sentence, self.told = self._sentence, self.heard // SECOND
        return json.dumps(
            {"result": [{"word": word} for word in sentence], "text": " ".join(sentence)}
        )

    def FinalResult(self) -> str:  # noqa: N802
        self.ended = True
        return self.Result()


@attrs.define(eq=False)
class FailingRecognizer(SpellingRecognizer):
    """Fails the way the library does."""

    def AcceptWaveform(self, data: bytes) -> int:  # noqa: N802
        raise Exception("Failed to process waveform")  # noqa: TRY002 - as Vosk does


def hearing(*recognizers: SpellingRecognizer, language: str = "en") -> VoskTranscriber:
    """A transcriber with these, one for each utterance."""
    left = list(recognizers)
    return VoskTranscriber(lambda: left.pop(0), [language], threads=1)


# --- what is understood ------------------------------------------------------------------


async def test_words_follow_the_audio() -> None:
    """Sentences that a pause has ended, and the one that goes on; in steps, off the loop."""
    recognizer = SpellingRecognizer()
    transcriber = hearing(recognizer)
    partials = []
    async with transcriber.open_utterance(language="en-US", speaker=SpeakerMemory()) as utterance:
        for _ in range(5):
            await utterance.accept(bytes(SECOND))
            partials.append(await utterance.partial())
        text = (await utterance.finish()).text
    assert partials[:2] == ["turn", "turn on"]
    assert partials[-1] == text == "turn on the kitchen light"
    assert max(recognizer.steps) == STEP_BYTES
    assert threading.get_ident() not in recognizer.threads


async def test_audio_may_come_in_odd_pieces() -> None:
    """Half a sample waits for its other half; nothing is lost."""
    recognizer = SpellingRecognizer()
    async with hearing(recognizer).open_utterance(
        language="en", speaker=SpeakerMemory()
    ) as utterance:
        for piece in (1, 2, 4001, 0, SECOND - 4004):
            await utterance.accept(bytes(piece))
        assert (await utterance.finish()).text == "turn"
    assert recognizer.heard == SECOND


async def test_utterances_do_not_share_a_recognizer() -> None:
    """Two at once, one thread: each hears its own words."""
    transcriber = hearing(SpellingRecognizer(["yes"]), SpellingRecognizer(["no"]))
    texts: list[str] = []

    async def listen() -> None:
        async with transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
            await utterance.accept(bytes(SECOND))
            texts.append((await utterance.finish()).text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(listen)
    assert sorted(texts) == ["no", "yes"]


async def test_languages_without_spaces_get_none_between_sentences() -> None:
    """Within a sentence they are the model's affair."""
    recognizer = SpellingRecognizer(["你", "好", "吗"])
    async with hearing(recognizer, language="zh").open_utterance(
        language="zh-CN", speaker=SpeakerMemory()
    ) as utterance:
        await utterance.accept(bytes(3 * SECOND))
        assert (await utterance.finish()).text == "你 好吗"


async def test_another_language_is_refused() -> None:
    """With the one that is understood, and where it is set."""
    opening = hearing().open_utterance(language="fr", speaker=SpeakerMemory())
    with pytest.raises(TranscriberError, match=r"'fr'; allowed: en \(VOSK_LANGUAGE"):
        async with opening:
            pytest.fail("it is of another language")


async def test_a_failure_of_the_library_is_ours() -> None:
    """It raises nothing but Exception."""
    async with hearing(FailingRecognizer()).open_utterance(
        language="en", speaker=SpeakerMemory()
    ) as utterance:
        with pytest.raises(TranscriberError, match="Vosk failed: Failed to process waveform"):
            await utterance.accept(bytes(SECOND))


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("vosk-model-small-en-in-0.4", "en"),
        ("vosk-model-en-us-0.22", "en"),
        ("vosk-model-small-cn-0.22", "zh"),
        ("vosk-model-de-0.21", "de"),
        ("model", "en"),
    ],
)
def test_a_folders_name_tells_the_language(name: str, language: str, tmp_path: Path) -> None:
    """Also that of the folder which a link leads to."""
    (tmp_path / name).mkdir()
    assert language_of(tmp_path / name) == language
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert language_of(tmp_path / "link") == language


# --- without weights ---------------------------------------------------------------------


async def failing(folder: Path) -> str:
    """What is said of a folder that holds no model."""
    with pytest.raises(TranscriberError) as caught:
        async with VoskTranscriber.open(folder):
            pytest.fail("there is no model")
    return str(caught.value)


async def test_a_folder_that_holds_no_model_is_told(tmp_path: Path) -> None:
    """What is missing, and where models are."""
    assert f"there is no folder {tmp_path / 'gone'}" in await failing(tmp_path / "gone")
    said = await failing(tmp_path)
    assert f"{tmp_path} is no Vosk model: it has no am/final.mdl" in said
    assert "VOSK_MODEL_PATH" in said


def broken_model(folder: Path) -> Path:
    """What looks like a model from outside."""
    for name in ("am", "conf", "graph", "ivector"):
        (folder / name).mkdir()
    (folder / "am" / "final.mdl").write_bytes(b"no weights")
    (folder / "conf" / "mfcc.conf").write_text("--sample-frequency=16000\n")
    (folder / "conf" / "model.conf").touch()
    return folder


@real
async def test_a_broken_model_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """The real library reads it, and gives up."""
    pytest.importorskip("vosk", reason="Vosk is missing: pip install '.[vosk]'")
    said = await failing(broken_model(tmp_path))
    assert said == f"{tmp_path} holds no model that Vosk can load: Failed to create a model"


@real
async def test_the_library_lets_go_of_the_gil(tmp_path: Path) -> None:
    """It waits for a file that this thread writes: with the GIL held, that could not be."""
    pytest.importorskip("vosk", reason="Vosk is missing: pip install '.[vosk]'")
    weights = broken_model(tmp_path) / "am" / "final.mdl"
    weights.unlink()
    os.mkfifo(weights)
    said: list[str] = []

    async def load() -> None:
        said.append(await failing(tmp_path))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await trio.testing.wait_all_tasks_blocked()
            writer = await trio.to_thread.run_sync(os.open, str(weights), os.O_WRONLY)
            assert said == []
            os.close(writer)
    assert "Failed to create a model" in said[0]


async def test_a_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None in its place is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, "vosk", None)
    assert "pip install 'listenai[vosk]'" in await failing(broken_model(tmp_path))
