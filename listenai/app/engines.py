"""The engines that the configuration asks for; opened together, closed together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import trio

from listenai.app.chat_models import open_chat_model
from listenai.app.choices import Tell, log_choice
from listenai.app.ears import (
    OpenDetector,
    choose_detector,
    choose_echo_canceller,
    open_transcriber,
)
from listenai.app.models import places_of
from listenai.app.tools import ServerTools, make_server_tools
from listenai.app.voices import open_synthesizer
from listenai.codecs.decoding import make_decoder
from listenai.codecs.music_files import MusicLibrary
from listenai.codecs.resampling import StreamResampler
from listenai.config import Config
from listenai.conversation.dialogue import Engines
from listenai.conversation.music_player import MusicSource
from listenai.engines.base import ChatModel, Synthesizer, Transcriber
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedChatModel, TimedSynthesizer, TimedTranscriber
from listenai.errors import ConfigurationError
from listenai.music import MusicError
from listenai.tools.validation import JsonSchemaChecker

FAKE_SPEECH_MS = 600  # of a sentence of the engines that only take time
TOOL_CONNECTIONS = 50  # HTTP connections beside one for each reply
MUSIC_THREADS = 2  # a second of music takes 2 ms: these serve hundreds of listeners


@asynccontextmanager
async def open_engines(
    config: Config | None = None,
    *,
    fake: bool = False,
    fake_speech_ms: int = FAKE_SPEECH_MS,
    tell: Tell = log_choice,
) -> AsyncIterator[Engines]:
    """The engines that the configuration asks for, or for benchmarks those that only take time.

    fake_speech_ms: how long each sentence of the latter plays.  tell: is told of each choice.
    Raises ConfigurationError for settings of engines or tools that cannot work.
    """
    config = config or Config()
    places = places_of(config, os.environ)
    connections = httpx.Limits(max_connections=config.max_concurrent + TOOL_CONNECTIONS)
    async with httpx.AsyncClient(limits=connections) as client, trio.open_nursery() as nursery:
        tools = make_server_tools(config, client, JsonSchemaChecker())
        await nursery.start(tools.borrow)
        music = await _open_music(config)
        if fake:
            speech = TimedSynthesizer(fake_speech_ms)
            yield _engines(
                TenVadDetector, TimedTranscriber(), TimedChatModel(), speech, tools, music
            )
        else:
            async with (
                open_transcriber(config, places, client, tell) as transcriber,
                open_synthesizer(config, places, client, tell) as synthesizer,
                open_chat_model(config, client, tell) as chat_model,
            ):
                detector = choose_detector(config, tell)
                engines = _engines(detector, transcriber, chat_model, synthesizer, tools, music)
                canceller = choose_echo_canceller(config, tell)
                yield attrs.evolve(engines, make_echo_canceller=canceller)
        nursery.cancel_scope.cancel()


def _engines(
    open_detector: OpenDetector,
    transcriber: Transcriber,
    chat_model: ChatModel,
    synthesizer: Synthesizer,
    tools: ServerTools,
    music: MusicSource,
) -> Engines:
    return Engines(
        SegmentingRecognizerFactory(open_detector, transcriber),
        chat_model,
        synthesizer,
        StreamResampler,
        make_decoder,
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
