"""Which transcriber understands speech."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from listenai.app.choices import Choice, Tell, device, find_models, is_openai, loaded, need_model
from listenai.app.models import Places
from listenai.app.supervision import ChildService, supervise
from listenai.config import Config
from listenai.effects import Effects
from listenai.engines.base import Transcriber
from listenai.engines.funasr import FunasrTranscriber
from listenai.engines.openai_transcriber import OpenAITranscriber
from listenai.engines.sherpa import SherpaTranscriber
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.upstreams import Upstream
from listenai.services.asr.client import AsrServiceTranscriber

STAGE = "speech recognition"
MODELS = {"funasr": ("fun-asr-nano", "sensevoice-small"), "sherpa": ("sherpa-sensevoice",)}
# A service that is asked for when the server starts may still be loading its model.
FIRST_ANSWER_SECONDS = 5.0


@asynccontextmanager
async def open_transcriber(
    config: Config, places: Places, client: httpx.AsyncClient, tell: Tell
) -> AsyncIterator[Transcriber]:
    """An explicit URL, else a model for the GPU, else one for the CPU, else the embedded one.

    What holds the GIL runs as a service of ours, in a process of its own.
    """
    engine, reason = choose_engine(config, places)
    if is_openai(config.asr_service_url, "ASR_SERVICE_URL"):
        urls = ", ".join(config.asr_service_url)
        tell(Choice(STAGE, f"{config.asr_model} at {urls}", "ASR_SERVICE_URL"))
        yield OpenAITranscriber(
            client,
            [Upstream(url) for url in config.asr_service_url],
            model=config.asr_model,
            random=Effects().random,
            api_key=config.asr_api_key,
            timeout_seconds=config.asr_timeout,
        )
    elif config.asr_service_url:
        urls = ", ".join(config.asr_service_url)
        tell(Choice(STAGE, f"the service at {urls}", "ASR_SERVICE_URL"))
        async with _connected(config, config.asr_service_url) as transcriber:
            yield transcriber
    elif engine == "funasr":
        need_model(MODELS["funasr"], places, "ASR_ENGINE=funasr")  # rather here than in the child
        tell(Choice(STAGE, "funasr, in a process of its own", reason))
        service = ChildService("asr", ["asr", "--host", "127.0.0.1", "--engine", "funasr"])
        async with trio.open_nursery() as nursery:
            url = await nursery.start(supervise, service)
            async with _connected(config, (url,)) as transcriber:
                yield transcriber
            nursery.cancel_scope.cancel()
    else:
        async with open_own_transcriber(places, engine, reason, tell) as transcriber:
            yield transcriber


def choose_engine(config: Config, places: Places) -> tuple[str, str]:
    """The engine where there is no service, and why it."""
    if config.asr_engine != "auto":
        return config.asr_engine, f"ASR_ENGINE={config.asr_engine}"
    if device() == "cuda" and (here := next(find_models(MODELS["funasr"], places), None)):
        return "funasr", f"a GPU, and {here.model.name} is here"
    if here := next(find_models(MODELS["sherpa"], places), None):
        return "sherpa", f"{here.model.name} is here"
    return "embedded", "no ASR_SERVICE_URL, and no model is here"


@asynccontextmanager
async def open_own_transcriber(
    places: Places, engine: str, reason: str, tell: Tell
) -> AsyncIterator[Transcriber]:
    """One in this process: "embedded", "sherpa" or, for a service, "funasr"."""
    if engine == "embedded":
        tell(Choice(STAGE, "PocketSphinx, US English commands", reason))
        async with _open_sphinx() as sphinx:
            yield sphinx
        return
    here = need_model(MODELS[engine], places, f"ASR_ENGINE={engine}")
    name, folder = here.model.name, here.folder
    assert folder  # or it would not be here
    tell(Choice(STAGE, f"{name} in {folder}", reason))
    if engine == "sherpa":
        async with loaded(STAGE, SherpaTranscriber.open(folder)) as sherpa:
            yield sherpa
    else:
        opening = FunasrTranscriber.open(folder, model=name, device=device())
        async with loaded(STAGE, opening) as funasr:
            yield funasr


@asynccontextmanager
async def _open_sphinx() -> AsyncIterator[SphinxTranscriber]:
    transcriber = SphinxTranscriber()
    try:
        async with trio.open_nursery() as nursery:
            # The first question should not wait for what is loaded on first use.
            nursery.start_soon(transcriber.warm)
            yield transcriber
            nursery.cancel_scope.cancel()
    finally:
        transcriber.close()


@asynccontextmanager
async def _connected(config: Config, urls: tuple[str, ...]) -> AsyncIterator[Transcriber]:
    transcriber = AsrServiceTranscriber(
        urls, chance=Effects().random.random, timeout_seconds=config.asr_timeout
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(transcriber.serve)
        with trio.move_on_after(FIRST_ANSWER_SECONDS):
            await transcriber.wait_ready()
        yield transcriber
        nursery.cancel_scope.cancel()
