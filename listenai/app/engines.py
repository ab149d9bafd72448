"""Which engine does what, and why; opened together, closed together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import trio

from listenai.app.tools import ServerTools, make_server_tools
from listenai.codecs.music_files import MusicLibrary
from listenai.codecs.resampling import StreamResampler
from listenai.config import DEFAULT_LLM_MODEL, Config
from listenai.conversation.dialogue import Engines
from listenai.conversation.music_player import MusicSource
from listenai.effects import Effects
from listenai.engines.base import ChatModel, Synthesizer, Transcriber
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.ollama import find_ollama
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.recognizer import SegmentingRecognizerFactory
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedChatModel, TimedSynthesizer, TimedTranscriber
from listenai.engines.upstreams import Upstream
from listenai.errors import ConfigurationError
from listenai.music import MusicError
from listenai.tools.validation import JsonSchemaChecker

_log = logging.getLogger(__name__)

FAKE_SPEECH_MS = 600  # of a sentence of the engines that only take time
TOOL_CONNECTIONS = 50  # HTTP connections beside one for each reply
MUSIC_THREADS = 2  # a second of music takes 2 ms: these serve hundreds of listeners


@attrs.frozen
class Choice:
    """Which engine was taken for a stage, and why."""

    stage: str
    engine: str
    reason: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.engine} ({self.reason})"


Tell = Callable[[Choice], None]


def _log_choice(choice: Choice) -> None:
    _log.info("engine_chosen: %s", choice)


@asynccontextmanager
async def open_engines(
    config: Config | None = None,
    *,
    fake: bool = False,
    fake_speech_ms: int = FAKE_SPEECH_MS,
    tell: Tell = _log_choice,
) -> AsyncIterator[Engines]:
    """The engines that the configuration asks for, or for benchmarks those that only take time.

    fake_speech_ms: how long each sentence of the latter plays.  tell: is told of each choice.
    Raises ConfigurationError for settings of engines or tools that cannot work.
    """
    config = config or Config()
    checker = JsonSchemaChecker()
    connections = httpx.Limits(max_connections=config.max_concurrent + TOOL_CONNECTIONS)
    async with httpx.AsyncClient(limits=connections) as client, trio.open_nursery() as nursery:
        tools = make_server_tools(config, client, checker)
        await nursery.start(tools.borrow)
        music = await _open_music(config)
        if fake:
            speech = TimedSynthesizer(fake_speech_ms)
            yield _engines(TimedTranscriber(), TimedChatModel(), speech, tools, music)
        else:
            chat_model = await _choose_chat_model(config, client, tell)
            transcriber, synthesizer = SphinxTranscriber(), EspeakSynthesizer()
            try:
                # The first question should not wait for what is loaded on first use.
                nursery.start_soon(transcriber.warm)
                nursery.start_soon(trio.to_thread.run_sync, synthesizer.load)
                yield _engines(transcriber, chat_model, synthesizer, tools, music)
            finally:
                nursery.cancel_scope.cancel()
                transcriber.close()
        nursery.cancel_scope.cancel()


def _engines(
    transcriber: Transcriber,
    chat_model: ChatModel,
    synthesizer: Synthesizer,
    tools: ServerTools,
    music: MusicSource,
) -> Engines:
    return Engines(
        SegmentingRecognizerFactory(TenVadDetector, transcriber),
        chat_model,
        synthesizer,
        StreamResampler,
        tools.of,
        tools.checker,
        music,
        tools.own,
    )


async def _open_music(config: Config) -> MusicSource:
    directory = Path(config.music_dir) if config.music_dir else None
    library = MusicLibrary(directory, StreamResampler)
    try:
        await trio.to_thread.run_sync(library.scan)
    except MusicError as error:
        raise ConfigurationError([f"MUSIC_DIR={config.music_dir!r}: {error}"]) from error
    limiter = trio.CapacityLimiter(MUSIC_THREADS)
    return MusicSource(library, partial(trio.to_thread.run_sync, limiter=limiter))


# --- the chat model ------------------------------------------------------------------------


async def _choose_chat_model(config: Config, client: httpx.AsyncClient, tell: Tell) -> ChatModel:
    """An explicit URL, else an Ollama that answers, else the embedded assistant."""
    if config.llm_engine == "embedded":
        return _embedded("LLM_ENGINE=embedded", tell)
    if config.llm_base_url:
        urls = config.llm_base_url
        return _openai(config, client, urls, config.llm_model, "LLM_BASE_URL", tell)
    if config.llm_engine == "openai":
        raise ConfigurationError(["LLM_ENGINE=openai: LLM_BASE_URL has to say where it is"])
    if not config.ollama_url:
        return _embedded("no LLM_BASE_URL, and no LLM_OLLAMA_URL", tell)
    async with httpx.AsyncClient(trust_env=False) as local:  # a proxy does not know our machine
        ollama = await find_ollama(local, config.ollama_url)
    if ollama is None:
        return _embedded("no LLM_BASE_URL, and no Ollama answers on this machine", tell)
    chosen = config.llm_model != DEFAULT_LLM_MODEL
    model = config.llm_model if chosen else ollama.model
    if model is None:
        return _embedded("the Ollama on this machine has no model: `ollama pull` one", tell)
    reason = "no LLM_BASE_URL, but this Ollama answers"
    return _openai(config, client, (ollama.base_url,), model, reason, tell)


def _embedded(reason: str, tell: Tell) -> ChatModel:
    tell(Choice("language model", "the embedded assistant", reason))
    return EmbeddedChatModel()


def _openai(
    config: Config,
    client: httpx.AsyncClient,
    base_urls: tuple[str, ...],
    model: str,
    reason: str,
    tell: Tell,
) -> ChatModel:
    upstreams = [Upstream(url) for url in base_urls]
    names = ", then ".join(upstream.name for upstream in upstreams)
    tell(Choice("language model", f"{model} at {names}", reason))
    return OpenAIChatModel(
        client,
        upstreams,
        model=model,
        random=Effects().random,
        api_key=config.llm_api_key,
        token_seconds=config.llm_token_timeout,
        total_seconds=config.llm_timeout,
    )
