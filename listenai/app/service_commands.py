"""The stages as services of their own: `listenai asr`, `listenai tts`, `listenai llm`.

Each prints one line when it listens, and serves until SIGTERM or Ctrl-C; as a child of a server
of ours also until that is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import trio

from listenai.app import ears, voices
from listenai.app.chat_models import openai_model
from listenai.app.choices import Tell, log_choice
from listenai.app.models import places_of
from listenai.app.supervision import LISTENING
from listenai.config import Config
from listenai.engines.base import ChatModel
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.sphinx import SphinxTranscriber
from listenai.services.asr.ear import Hearing
from listenai.services.asr.server import serve_asr
from listenai.services.llm.server import make_llm_app, serve_llm
from listenai.services.tts.server import serve_tts

EMBEDDED_MODEL = "listenai-embedded"  # its name to clients of the LLM service


async def run_asr(
    config: Config, engine: str | None, host: str, port: int, tell: Tell = log_choice
) -> None:
    """The ASR service, with this engine, or the configured one, in its process."""
    hearing = open_hearing(config, engine, tell)
    async with trio.open_nursery() as nursery:
        [(_, listening), *_] = await nursery.start(
            partial(serve_asr, hearing, host=host, port=port)
        )
        _say_listening(f"ws://{_reachable(host)}:{listening}")


@asynccontextmanager
async def open_hearing(config: Config, engine: str | None, tell: Tell) -> AsyncIterator[Hearing]:
    """What the ASR service listens with, once its first client need not wait for a model."""
    places = places_of(config, os.environ)
    chosen, reason = (engine, "--engine") if engine else ears.choose_engine(config, places)
    detector = ears.choose_detector(config, tell)
    async with ears.open_own_transcriber(places, chosen, reason, tell, config) as transcriber:
        if isinstance(transcriber, SphinxTranscriber):
            await transcriber.warm()  # the others have loaded their model when they are opened
        yield Hearing(
            transcriber,
            detector,
            SegmentingRecognizerFactory,
            max_utterance_seconds=config.asr_max_utterance_seconds,
        )


async def run_tts(
    config: Config, engine: str | None, host: str, port: int, tell: Tell = log_choice
) -> None:
    """The TTS service, with this engine, or the configured one, in its process."""
    places = places_of(config, os.environ)
    chosen, reason = (engine, "--engine") if engine else voices.choose_engine(config, places)
    async with (
        voices.open_own_synthesizer(config, places, chosen, reason, tell) as synthesizer,
        trio.open_nursery() as nursery,
    ):
        [url, *_] = await nursery.start(partial(serve_tts, synthesizer, host=host, port=port))
        _say_listening(url.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104 - as it is reached


async def run_llm(config: Config, host: str, port: int, tell: Tell = log_choice) -> None:
    """The LLM service: what LLM_UPSTREAM_URL answers, or the embedded assistant."""
    async with httpx.AsyncClient() as client, trio.open_nursery() as nursery:
        chat_model: ChatModel = EmbeddedChatModel()
        names = [EMBEDDED_MODEL, config.llm_model]
        if config.llm_upstream_url:
            chat_model = openai_model(
                config,
                client,
                (config.llm_upstream_url,),
                config.llm_model,
                "LLM_UPSTREAM_URL",
                tell,
                config.llm_upstream_api_key,
            )
            names = [config.llm_model]
        app = make_llm_app(chat_model, api_key=config.llm_api_key, model_names=names)
        url = await nursery.start(partial(serve_llm, app, host=host, port=port))
        _say_listening(url.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104 - as it is reached


async def until_told(run: Callable[[], Awaitable[None]], *, child: bool) -> None:
    """Runs a service until a signal; a child also until its standard input ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
        if child:
            nursery.start_soon(_cancel_at_end_of_input, nursery.cancel_scope)
        await run()
        nursery.cancel_scope.cancel()


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        scope.cancel()


async def _cancel_at_end_of_input(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        while await stdin.receive_some(64):
            pass
    scope.cancel()


def _reachable(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104


def _say_listening(url: str) -> None:
    print(f"{LISTENING}{url}", flush=True)
