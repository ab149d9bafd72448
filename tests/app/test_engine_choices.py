"""Which of the engines that nobody has by default is taken: by name, or by what is set for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ctypes.util import find_library
from pathlib import Path

import attrs
import httpx
import pytest
from azure_server import DEPLOYMENT, KEY, open_azure_server
from openai_server import open_openai_server

from listenai.app.chat_models import choose_chat_model, open_chat_model
from listenai.app.choices import Choice
from listenai.app.ears import choose_detector, choose_echo_canceller, open_transcriber
from listenai.app.models import Places
from listenai.app.voices import open_synthesizer
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
from listenai.errors import ConfigurationError

SECOND = bytes(32_000)


@attrs.frozen
class Opened:
    """The engines of a configuration, as `serve` opens them."""

    transcriber: Transcriber
    synthesizer: Synthesizer
    chat_model: ChatModel
    told: list[str]


@asynccontextmanager
async def opened(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Opened]:
    """Of an environment in which nothing is looked for outside."""
    config = Config.load({"LLM_OLLAMA_URL": "", **environment})
    places = Places(tmp_path / "models", tmp_path / "cache")
    told: list[Choice] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(httpx.AsyncClient(trust_env=False))
        yield Opened(
            await enter(open_transcriber(config, places, client, told.append)),
            await enter(open_synthesizer(config, places, client, told.append)),
            await enter(open_chat_model(config, client, told.append)),
            [str(choice) for choice in told],
        )


async def failing(environment: dict[str, str], tmp_path: Path) -> str:
    """The one problem there is, out of all nurseries."""
    problems: list[str] = []
    try:
        async with opened(environment, tmp_path):
            pytest.fail("that cannot work")
    except* ConfigurationError as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            [leaf] = leaf.exceptions
        assert isinstance(leaf, ConfigurationError)
        problems += leaf.problems
    [problem] = problems
    return problem


async def hear(transcriber: Transcriber) -> str:
    async with transcriber.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
        await utterance.accept(SECOND)
        return (await utterance.finish()).text


async def speak(synthesizer: Synthesizer) -> bytes:
    async with synthesizer.open_speech("hello", voice_id="default", language="en") as chunks:
        return b"".join([chunk.pcm async for chunk in chunks])


async def answer(chat_model: ChatModel) -> str:
    question = [ChatMessage("user", "Hello?")]
    async with chat_model.open_reply(question, [], ChatSettings()) as parts:
        return "".join([part.text async for part in parts if isinstance(part, ReplyText)])


# --- clouds ------------------------------------------------------------------------------


async def test_the_variables_of_spec_004_make_azure_hear_think_and_speak(tmp_path: Path):
    """All three services, at the addresses and with the keys that are set; each says why it is."""
    async with open_azure_server() as server:
        environment = {
            "AZURE_SPEECH_KEY": KEY,
            "AZURE_SPEECH_REGION": "eastus2",
            "AZURE_SPEECH_ENDPOINT": server.url,
            "AZURE_SPEECH_VOICE": "en-GB-SoniaNeural",
            "AZURE_OPENAI_KEY": KEY,
            "AZURE_OPENAI_ENDPOINT": server.url,
            "LLM_MODEL": DEPLOYMENT,
        }
        async with opened(environment, tmp_path) as engines:
            assert await hear(engines.transcriber) == "Hello there."
            assert await speak(engines.synthesizer) == "hello".encode("utf-16-le")
            assert await answer(engines.chat_model) == "Hello there."
    assert server.requests[1].spoken[0] == "en-GB-SoniaNeural"
    assert engines.told == [
        "speech recognition: Azure, 127.0.0.1 (AZURE_SPEECH_KEY is set)",
        "speech synthesis: Azure, 127.0.0.1 (AZURE_SPEECH_KEY is set)",
        "language model: my-gpt at Azure, 127.0.0.1 (AZURE_OPENAI_ENDPOINT is set)",
    ]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "GROQ_API_KEY is set"),
        ({"LLM_ENGINE": "groq", "LLM_BASE_URL": "http://elsewhere.example"}, "LLM_ENGINE=groq"),
    ],
)
async def test_a_key_of_groq_makes_it_answer(environment: dict[str, str], reason: str):
    """With spec 002's model, unless another is named; its key goes nowhere else."""
    told: list[Choice] = []
    async with open_openai_server(api_key="gsk_1234567890") as server, httpx.AsyncClient() as http:
        url = {"GROQ_BASE_URL": f"{server.url}/openai/v1"}
        given = {**environment, "GROQ_API_KEY": "gsk_1234567890"}
        config = Config.load({**given, "GROQ_BASE_URL": f"{server.url}/v1"})
        async with open_chat_model(config, http, told.append) as model:
            assert await answer(model) == "Hello there."
        other = Config.load({**given, **url, "LLM_MODEL": "gemma-7b-it"})
        async with open_chat_model(other, http, told.append):
            pass
    assert server.requests[0].body["model"] == "llama3-8b-8192"
    assert [str(choice) for choice in told] == [
        f"language model: llama3-8b-8192 at Groq, 127.0.0.1 ({reason})",
        f"language model: gemma-7b-it at Groq, 127.0.0.1 ({reason})",
    ]


async def test_groqs_own_url_gets_groqs_key():
    """And any other URL does not."""
    async with open_openai_server(api_key="gsk_1234567890") as server, httpx.AsyncClient() as http:
        given = {"GROQ_API_KEY": "gsk_1234567890", "LLM_BASE_URL": f"{server.url}/v1"}
        groqs = Config.load({**given, "GROQ_BASE_URL": server.url})
        async with open_chat_model(groqs, http, lambda _choice: None) as model:
            assert await answer(model) == "Hello there."
        elsewhere = await choose_chat_model(Config.load(given), http, lambda _choice: None)
        with pytest.raises(Exception, match="does not accept the key"):
            await answer(elsewhere)
    assert "gsk_" not in str(server.requests[1].headers)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"ASR_ENGINE": "azure"}, "AZURE_SPEECH_KEY: must be"),
        ({"TTS_ENGINE": "azure", "AZURE_SPEECH_KEY": KEY}, "AZURE_SPEECH_REGION=''"),
        ({"LLM_ENGINE": "azure"}, "AZURE_OPENAI_KEY: must be"),
        ({"AZURE_OPENAI_KEY": KEY}, "AZURE_OPENAI_ENDPOINT=''"),
        ({"LLM_ENGINE": "groq"}, "LLM_ENGINE=groq: GROQ_API_KEY has to be set"),
    ],
)
async def test_what_a_cloud_lacks_is_told(environment: dict[str, str], told: str, tmp_path: Path):
    """Before anybody is asked."""
    assert (await failing(environment, tmp_path)).startswith(told)


# --- libraries ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "environment", "extra"),
    [
        ("vosk", {"VOSK_MODEL_PATH": "model"}, "vosk"),
        ("vosk", {"ASR_ENGINE": "vosk"}, "vosk"),
        ("faster_whisper", {"STREAM_MODEL_WHISPER": "small-int8"}, "faster-whisper"),
        ("pyttsx3", {"STREAM_TTS_ENGINE": "pyttsx3"}, "pyttsx3"),
    ],
)
async def test_a_missing_library_is_told_with_its_extra(
    package: str,
    environment: dict[str, str],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """None in its place is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, package, None)
    problem = await failing(environment, tmp_path)
    assert problem.endswith(f"a library is missing: pip install 'listenai[{extra}]'")


def test_the_detector_is_chosen_and_its_library_needed(monkeypatch: pytest.MonkeyPatch):
    """TEN VAD unless WebRTC's is asked for."""
    told: list[Choice] = []
    assert choose_detector(Config(), told.append).__name__ == "TenVadDetector"
    pytest.importorskip("webrtcvad", reason="WebRTC VAD is missing: pip install '.[webrtcvad]'")
    webrtc = Config.load({"VAD_ENGINE": "webrtc"})
    with choose_detector(webrtc, told.append)() as detector:
        assert detector.process(bytes(512)) == 0
    assert [choice.engine for choice in told] == ["TEN VAD", "WebRTC VAD"]
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'listenai\[webrtcvad\]'"):
        choose_detector(webrtc, told.append)


def test_an_echo_canceller_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Nobody has one unasked; without its library the way to get it is told."""
    told: list[Choice] = []
    assert choose_echo_canceller(Config(), told.append) is None
    webrtc = Config.load({"ECHO_CANCELLER": "webrtc"})
    make = choose_echo_canceller(webrtc, told.append)
    assert make is not None
    assert make().process(bytes(512), bytes(512)) == bytes(512)
    assert [choice.stage for choice in told] == ["echo cancellation"]
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'listenai\[aec\]'"):
        choose_echo_canceller(webrtc, told.append)


@pytest.mark.models
async def test_a_model_that_is_not_here_is_told(tmp_path: Path):
    """With the way to get it; a name that is none with those there are."""
    pytest.importorskip("vosk", reason="Vosk is missing: pip install '.[vosk]'")
    reason = "faster-whisper is missing: pip install '.[faster-whisper]'"
    pytest.importorskip("faster_whisper", reason=reason)
    gone = str(tmp_path / "gone")
    assert f"no folder {gone}" in await failing({"VOSK_MODEL_PATH": gone}, tmp_path)
    assert "no folder model" in await failing({"ASR_ENGINE": "vosk"}, tmp_path)
    problem = await failing({"ASR_ENGINE": "faster-whisper"}, tmp_path)
    assert problem.startswith("ASR_ENGINE=faster-whisper: faster-whisper-small is not here: hf ")
    assert "no Whisper model 'huge'" in await failing({"STREAM_MODEL_WHISPER": "huge"}, tmp_path)


@pytest.mark.models
async def test_a_whisper_model_is_found_in_models_dir_and_by_its_path(tmp_path: Path):
    """Under the name that the message tells."""
    reason = "faster-whisper is missing: pip install '.[faster-whisper]'"
    pytest.importorskip("faster_whisper", reason=reason)
    sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
    try:
        from tiny_models.tiny_whisper import tiny_whisper
    finally:
        del sys.path[0]
    folder = tiny_whisper(tmp_path / "models" / "faster-whisper-small", ["hello", "you"])
    for named in ("small-int8", str(folder)):
        async with opened({"STREAM_MODEL_WHISPER": named}, tmp_path) as engines:
            assert await hear(engines.transcriber) == "hello you"
        assert engines.told[0].endswith(f" in {folder} (STREAM_MODEL_WHISPER is set)")


@pytest.mark.engines
async def test_the_systems_voices_speak(tmp_path: Path):
    """By spec 001's name for the choice."""
    pytest.importorskip("pyttsx3", reason="pyttsx3 is missing: pip install '.[pyttsx3]'")
    if sys.platform == "linux" and not find_library("espeak-ng"):
        pytest.skip("pyttsx3's voices are missing: apt-get install espeak-ng")
    async with opened({"STREAM_TTS_ENGINE": "pyttsx3"}, tmp_path) as engines:
        assert len(await speak(engines.synthesizer)) > 10_000
    told = "speech synthesis: pyttsx3, the system's voices (TTS_ENGINE=pyttsx3)"
    assert engines.told[1] == told
