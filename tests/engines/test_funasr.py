"""Fun-ASR-Nano and SenseVoice through the real AutoModel, on tiny checkpoints made here."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from listenai.engines.base import HOTWORDS, SpeakerMemory
from listenai.engines.funasr import MIN_SAMPLES, FunasrTranscriber
from listenai.engines.funasr_model import FAMILIES
from listenai.engines.whole_utterance import WholeUtterance
from listenai.errors import TranscriberError
from listenai.wav import read_wav

WORDS = ("turn", " on", " the", " light")
TEXT = "turn on the light"
SECOND = bytes(32_000)


def real(test: Any) -> Any:
    """A test of the real packages, which warn about themselves and each other."""
    for category in ("DeprecationWarning", "FutureWarning", "UserWarning", "SyntaxWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}")(test)
    return pytest.mark.models(test)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models: nano, endless (a nano that never stops) and sensevoice."""
    for package in ("torch", "funasr", "kaldi_native_fbank"):
        pytest.importorskip(package, reason=f"{package} is missing: see scripts/test.sh")
    from tiny_models import tiny_funasr

    folder = tmp_path_factory.mktemp("funasr")
    tiny_funasr.build_nano(folder / "nano", WORDS)
    tiny_funasr.build_nano(folder / "endless", [" na"], endless=True)
    tiny_funasr.build_sensevoice(folder / "sensevoice", TEXT)
    return folder


@asynccontextmanager
async def opened(
    transcriber: FunasrTranscriber,
    pcm: bytes = b"",
    language: str = "en",
    hotwords: tuple[str, ...] = (),
) -> AsyncIterator[WholeUtterance]:
    speaker = SpeakerMemory({HOTWORDS: hotwords} if hotwords else {})
    async with transcriber.open_utterance(language=language, speaker=speaker) as utterance:
        await utterance.accept(pcm)
        yield utterance


async def transcribe(
    transcriber: FunasrTranscriber,
    pcm: bytes = SECOND,
    language: str = "en",
    hotwords: tuple[str, ...] = (),
) -> str:
    async with opened(transcriber, pcm, language, hotwords) as utterance:
        return (await utterance.finish()).text


def library_model(transcriber: FunasrTranscriber) -> Any:
    """FunASR's own object, to listen in on."""
    return transcriber._model._model.model


def heard_prompts(transcriber: FunasrTranscriber) -> list[str]:
    """What the library tells its language model from now on, a batch each."""
    library = library_model(transcriber)
    prompts: list[str] = []
    ask = library.get_prompt
    library.get_prompt = lambda *args: prompts.append(ask(*args)) or prompts[-1]
    return prompts


@contextmanager
def before_each_token(transcriber: FunasrTranscriber, see: Callable[[int, int], None]) -> Any:
    """Calls `see` with the number of the token and of utterances, in the decoding thread."""
    count = 0

    def hook(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        rows = kwargs["inputs_embeds"] if kwargs.get("input_ids") is None else kwargs["input_ids"]
        see(count, len(rows))

    handle = library_model(transcriber).llm.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


# --- what is understood ------------------------------------------------------------------


@real
@pytest.mark.parametrize(
    ("folder", "model"), [("nano", "fun-asr-nano"), ("sensevoice", "sensevoice-small")]
)
async def test_an_utterance_becomes_text(models: Path, folder: str, model: str) -> None:
    """Words come through the real loader; SenseVoice's tags do not."""
    async with FunasrTranscriber.open(models / folder, model=model) as transcriber:
        assert await transcribe(transcriber, SECOND + b"\0") == TEXT


@real
@pytest.mark.parametrize("samples", [0, 1, MIN_SAMPLES - 1])
async def test_too_little_audio_never_reaches_the_model(models: Path, samples: int) -> None:
    """An empty tensor would end the process."""
    async with FunasrTranscriber.open(models / "nano") as transcriber:
        assert await transcribe(transcriber, bytes(2 * samples)) == ""
        assert transcriber.decodings == 0
        assert await transcribe(transcriber, bytes(2 * MIN_SAMPLES)) == TEXT


@real
@pytest.mark.parametrize(
    ("language", "prompt"), [("en", "英文"), ("ja-JP", "日文"), ("zh-HK", "中文"), ("wuu", "中文")]
)
async def test_language_hotwords_and_numbers_reach_the_prompt(
    models: Path, language: str, prompt: str
) -> None:
    """What the library tells its language model."""
    async with FunasrTranscriber.open(
        models / "nano", hotwords=["Listenai", "小艾"], itn=False
    ) as transcriber:
        prompts = heard_prompts(transcriber)
        await transcribe(transcriber, SECOND, language)
    assert f"语音转写成{prompt}" in prompts[0]
    assert "Listenai, 小艾" in prompts[0]
    assert "不进行文本规整" in prompts[0]


@pytest.mark.parametrize(
    ("model", "language", "meant"),
    [
        ("fun-asr-nano", "zh", "中文"),
        ("fun-asr-nano", "yue", "中文"),
        ("sensevoice-small", "zh-HK", "yue"),
        ("sensevoice-small", "zh-yue", "yue"),
        ("sensevoice-small", "zh-wuu", "zh"),
        ("sensevoice-small", "en_US", "en"),
    ],
)
def test_language_tags_and_dialects(model: str, language: str, meant: str) -> None:
    """A dialect is its own language where the model knows it, else Chinese."""
    assert FAMILIES[model].language_of(language) == meant


def test_an_unknown_language_is_refused() -> None:
    """The message lists the languages that are understood."""
    with pytest.raises(TranscriberError, match="does not understand 'fr'; allowed: zh, en, ja"):
        FAMILIES["fun-asr-nano"].language_of("fr")


# --- who waits for whom ------------------------------------------------------------------


@real
async def test_utterances_that_end_together_are_decoded_together(models: Path) -> None:
    """Four within a moment are one batch; another language is another."""
    texts: list[str] = []
    async with FunasrTranscriber.open(models / "nano") as transcriber:

        async def listen(language: str, delay: int) -> None:
            for _ in range(delay):  # rounds of the scheduler: microseconds
                await trio.lowlevel.checkpoint()
            texts.append(await transcribe(transcriber, SECOND, language))

        async with trio.open_nursery() as nursery:
            for number, language in enumerate(("en", "en", "en", "en", "zh")):
                nursery.start_soon(listen, language, 3 * number)
        assert transcriber.decodings == 2
    assert texts == [TEXT] * 5


@real
async def test_speakers_with_other_hotwords_are_another_batch(models: Path) -> None:
    """A batch has one prompt: each is heard with its own words and ours, and no others."""
    async with FunasrTranscriber.open(models / "nano", hotwords=["Listenai"]) as transcriber:
        prompts = heard_prompts(transcriber)
        async with trio.open_nursery() as nursery:
            for hotwords in (("Li Wei",), ("Li Wei",), ("Beijing", "Listenai"), ()):
                nursery.start_soon(transcribe, transcriber, SECOND, "en", hotwords)
        assert transcriber.decodings == 3
    told = [{word for word in ("Listenai", "Li Wei", "Beijing") if word in p} for p in prompts]
    own = [words - {"Listenai"} for words in told]
    assert all("Listenai" in words for words in told)
    assert sorted(map(sorted, own)) == [[], ["Beijing"], ["Li Wei"]]  # two of four share one
    assert all(prompt.count("Listenai") == 1 for prompt in prompts)


@real
async def test_a_batch_is_not_larger_than_allowed(models: Path) -> None:
    """Five utterances in batches of two are three."""
    async with FunasrTranscriber.open(models / "nano", batch_size=2) as transcriber:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(transcribe, transcriber)
        assert transcriber.decodings == 3


@real
async def test_what_spoils_a_batch_spoils_nobody_elses_utterance(models: Path) -> None:
    """A batch that fails is decoded one by one; what fails alone is the engine's error."""
    texts: list[str] = []
    async with FunasrTranscriber.open(models / "nano") as transcriber:

        async def listen() -> None:
            texts.append(await transcribe(transcriber))

        def fail_together(_token: int, rows: int) -> None:
            if rows > 1:
                raise RuntimeError("out of memory")

        with before_each_token(transcriber, fail_together):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                nursery.start_soon(listen)
    assert texts == [TEXT] * 2


@real
async def test_a_failure_of_the_model_is_our_error(models: Path) -> None:
    """And the next utterance is understood."""
    async with FunasrTranscriber.open(models / "nano") as transcriber:

        def fail(_token: int, _rows: int) -> None:
            raise RuntimeError("out of memory")

        with (
            before_each_token(transcriber, fail),
            pytest.raises(TranscriberError, match="fun-asr-nano failed on 1 utterances"),
        ):
            await transcribe(transcriber)
        assert await transcribe(transcriber) == TEXT


@real
async def test_a_cancelled_utterance_stops_at_its_next_token(models: Path) -> None:
    """A model that would go on for 900 tokens is left at the third."""
    async with FunasrTranscriber.open(models / "endless") as transcriber:
        seen = 0
        scope = trio.CancelScope()

        def hang_up(token: int, _rows: int) -> None:
            nonlocal seen
            seen = token
            if token == 3:
                trio.from_thread.run_sync(scope.cancel)
                trio.from_thread.run(trio.testing.wait_all_tasks_blocked)

        with before_each_token(transcriber, hang_up):
            with scope:
                await transcribe(transcriber, SECOND * 50)
            assert scope.cancelled_caught
            await transcribe(transcriber, bytes(2 * MIN_SAMPLES))  # the thread is free
        assert seen < 3 + 30  # the rest are those of the second utterance


@real
async def test_one_of_a_batch_is_cancelled_the_other_is_understood(models: Path) -> None:
    """The row of the one who left ends; the batch goes on."""
    async with FunasrTranscriber.open(models / "nano") as transcriber:
        scope = trio.CancelScope()

        async def leave() -> None:
            with scope:
                await transcribe(transcriber)

        def hang_up(token: int, rows: int) -> None:
            assert rows == 2
            if token == 2:
                trio.from_thread.run_sync(scope.cancel)

        with before_each_token(transcriber, hang_up):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave)
                assert await transcribe(transcriber) == TEXT
        assert scope.cancelled_caught


@real
async def test_a_partial_transcript_decodes_what_was_said_so_far(models: Path) -> None:
    """Words after a second; no new decoding until there is new audio."""
    async with (
        FunasrTranscriber.open(models / "nano") as transcriber,
        opened(transcriber, SECOND[:8000]) as utterance,
    ):
        assert await utterance.partial() == ""
        await utterance.accept(SECOND)
        assert await utterance.partial() == TEXT
        assert await utterance.partial() == TEXT
        assert transcriber.decodings == 1
        assert (await utterance.finish()).text == TEXT


@real
async def test_a_partial_transcript_gives_way_to_a_finished_utterance(models: Path) -> None:
    """It is cut off at its next token, keeps its last words, and is counted."""
    async with FunasrTranscriber.open(models / "endless") as transcriber:
        partials: list[str] = []
        tokens: list[int] = []

        async def ask() -> None:
            async with opened(transcriber, SECOND * 50) as utterance:
                partials.append(await utterance.partial())

        def see(token: int, _rows: int) -> None:
            tokens.append(token)
            if token == 3:
                trio.from_thread.run_sync(nursery.start_soon, finish)
                trio.from_thread.run(trio.testing.wait_all_tasks_blocked)

        async def finish() -> None:
            await transcribe(transcriber, bytes(2 * MIN_SAMPLES))

        with before_each_token(transcriber, see):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
        assert partials == [""]
        assert transcriber.dropped_partials == 1
        assert transcriber.decodings == 2
        assert len(tokens) < 3 + 30


@real
async def test_no_partial_transcript_is_made_while_the_model_is_busy(models: Path) -> None:
    """Whoever asks keeps the words that were there."""
    async with (
        FunasrTranscriber.open(models / "nano") as transcriber,
        opened(transcriber, SECOND) as utterance,
    ):
        asked: list[str] = []

        def ask_meanwhile(token: int, _rows: int) -> None:
            if token == 1:
                asked.append(trio.from_thread.run(utterance.partial))

        with before_each_token(transcriber, ask_meanwhile):
            assert await transcribe(transcriber) == TEXT
        assert asked == [""]
        assert transcriber.dropped_partials == 1


# --- bounds, debugging, loading ----------------------------------------------------------


@real
async def test_an_endless_utterance_is_refused(models: Path) -> None:
    """Nobody fills the memory by never stopping to talk."""
    async with FunasrTranscriber.open(models / "nano") as transcriber:
        with pytest.raises(TranscriberError, match="more than 60 s"):
            await transcribe(transcriber, SECOND * 61)


@real
async def test_utterances_are_kept_only_for_debugging(models: Path, tmp_path: Path) -> None:
    """A WAV file for each finished one, where a folder was given."""
    async with FunasrTranscriber.open(models / "nano", dump_folder=tmp_path) as transcriber:
        await transcribe(transcriber, b"\x00\x10" * 8000)
    recording = read_wav(tmp_path / "utterance-000.wav")
    assert recording.seconds == 0.5
    assert set(recording.samples[:, 0]) == {0x1000}


@real
async def test_a_closed_transcriber_fails_those_who_wait(models: Path) -> None:
    """Nobody waits for a text that never comes."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(TranscriberError, match="closed meanwhile"):
                await transcribe(transcriber, SECOND * 50)

        async with FunasrTranscriber.open(models / "endless") as transcriber:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()


async def test_missing_weights_are_refused_before_loading(tmp_path: Path) -> None:
    """The library would go on with random ones."""
    with pytest.raises(TranscriberError, match=r"has no model\.pt"):
        async with FunasrTranscriber.open(tmp_path):
            pytest.fail("there is no model")


@real
async def test_broken_weights_are_told(models: Path, tmp_path: Path) -> None:
    """With the folder that they are in."""
    for path in (models / "sensevoice").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.pt").write_bytes(b"cut off")
    with pytest.raises(TranscriberError, match=f"could not be loaded from {tmp_path}"):
        async with FunasrTranscriber.open(tmp_path, model="sensevoice-small"):
            pytest.fail("the model is broken")


async def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    """With the names that are known."""
    with pytest.raises(TranscriberError, match="allowed: fun-asr-nano, sensevoice-small"):
        async with FunasrTranscriber.open(tmp_path, model="whisper"):
            pytest.fail("there is no such model")


async def test_without_the_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module can be imported; using it asks for the extra."""
    monkeypatch.setitem(sys.modules, "funasr", None)
    for name in ("model.pt", "config.yaml", "configuration.json"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "am.mvn").write_bytes(b"x")
    (tmp_path / "chn_jpn_yue_eng_ko_spectok.bpe.model").write_bytes(b"x")
    with pytest.raises(TranscriberError, match=r"pip install 'listenai\[funasr\]'"):
        async with FunasrTranscriber.open(tmp_path, model="sensevoice-small"):
            pytest.fail("there is no package")
