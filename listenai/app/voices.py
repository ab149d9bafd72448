"""Which synthesizer speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import trio

from listenai.app.choices import (
    Choice,
    Tell,
    azure_resource,
    device,
    find_models,
    is_openai,
    loaded,
    need_extra,
    need_model,
)
from listenai.app.models import Places
from listenai.app.supervision import ChildService, supervise
from listenai.config import Config
from listenai.effects import Effects
from listenai.engines.azure_synthesizer import AzureSynthesizer
from listenai.engines.base import Synthesizer
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.openai_synthesizer import OpenAISynthesizer
from listenai.engines.pyttsx3_voice import Pyttsx3Synthesizer
from listenai.engines.sherpa import SherpaSynthesizer
from listenai.engines.upstreams import Upstream
from listenai.engines.voxcpm import VoxcpmSynthesizer
from listenai.errors import ConfigurationError, SynthesizerError

STAGE = "speech synthesis"
MODELS = {"voxcpm": ("voxcpm-0.5b",), "sherpa": ("sherpa-kokoro", "sherpa-piper")}
# Without an answer nobody knows its voices: a server cannot start.
FIRST_ANSWER_SECONDS = 60.0


@asynccontextmanager
async def open_synthesizer(
    config: Config, places: Places, client: httpx.AsyncClient, tell: Tell
) -> AsyncIterator[Synthesizer]:
    """An explicit URL, else a model for the GPU, else one for the CPU, else the embedded one.

    What holds the GIL runs as a service of ours, in a process of its own.
    """
    engine, reason = choose_engine(config, places)
    if is_openai(config.tts_service_url, "TTS_SERVICE_URL"):
        urls = ", ".join(config.tts_service_url)
        tell(Choice(STAGE, f"{config.tts_model} at {urls}", "TTS_SERVICE_URL"))
        yield OpenAISynthesizer(
            client,
            [Upstream(url) for url in config.tts_service_url],
            model=config.tts_model,
            voice=config.tts_model_voice,
            random=Effects().random,
            api_key=config.tts_api_key,
            timeout_seconds=config.tts_timeout,
            sample_rate=config.tts_model_rate,
        )
    elif config.tts_service_url:
        urls = ", ".join(config.tts_service_url)
        tell(Choice(STAGE, f"the service at {urls}", "TTS_SERVICE_URL"))
        async with _connected(config, config.tts_service_url) as synthesizer:
            yield synthesizer
    elif engine == "voxcpm":
        need_model(MODELS["voxcpm"], places, "TTS_ENGINE=voxcpm")  # rather here than in the child
        tell(Choice(STAGE, "voxcpm, in a process of its own", reason))
        service = ChildService("tts", ["tts", "--host", "127.0.0.1", "--engine", "voxcpm"])
        async with trio.open_nursery() as nursery:
            url = await nursery.start(supervise, service)
            async with _connected(config, (url,)) as synthesizer:
                yield synthesizer
            nursery.cancel_scope.cancel()
    else:
        async with open_own_synthesizer(config, places, engine, reason, tell) as synthesizer:
            yield synthesizer


def choose_engine(config: Config, places: Places) -> tuple[str, str]:
    """The engine where there is no service, and why it."""
    if config.tts_engine != "auto":
        return config.tts_engine, f"TTS_ENGINE={config.tts_engine}"
    for variable, value in (
        ("AZURE_SPEECH_KEY", config.azure_speech_key),
        ("AZURE_SPEECH_REGION", config.azure_speech_region),
    ):
        if value:
            return "azure", f"{variable} is set"
    if device() == "cuda" and (here := next(find_models(MODELS["voxcpm"], places), None)):
        return "voxcpm", f"a GPU, and {here.model.name} is here"
    if here := next(find_models(MODELS["sherpa"], places), None):
        return "sherpa", f"{here.model.name} is here"
    return "embedded", "no TTS_SERVICE_URL, and no model is here"


@asynccontextmanager
async def open_own_synthesizer(
    config: Config, places: Places, engine: str, reason: str, tell: Tell
) -> AsyncIterator[Synthesizer]:
    """One in this process, or the client of a cloud; "voxcpm" in a service's process only."""
    openers: dict[str, Callable[..., AbstractAsyncContextManager[Synthesizer]]] = {
        "embedded": _open_embedded,
        "pyttsx3": _open_pyttsx3,
        "azure": _open_azure,
    }
    opening = openers.get(engine, partial(_open_model, engine=engine))
    async with opening(config, places, reason, tell) as synthesizer:
        yield synthesizer


@asynccontextmanager
async def _open_embedded(
    _config: Config, _places: Places, reason: str, tell: Tell
) -> AsyncIterator[Synthesizer]:
    tell(Choice(STAGE, "espeak-ng", reason))
    synthesizer = EspeakSynthesizer()
    async with trio.open_nursery() as nursery:
        # The first question should not wait for what is loaded on first use.
        nursery.start_soon(trio.to_thread.run_sync, synthesizer.load)
        yield synthesizer
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_model(
    config: Config, places: Places, reason: str, tell: Tell, *, engine: str
) -> AsyncIterator[Synthesizer]:
    here = need_model(MODELS[engine], places, f"TTS_ENGINE={engine}")
    name, folder = here.model.name, here.folder
    assert folder  # or it would not be here
    tell(Choice(STAGE, f"{name} in {folder}", reason))
    if engine == "sherpa":
        async with loaded(STAGE, SherpaSynthesizer.open(folder, model=name)) as sherpa:
            yield sherpa
    else:
        opening = VoxcpmSynthesizer.open(
            folder,
            voices_folder=Path(config.voices_dir) if config.voices_dir else None,
            device=device(),
            cfg_value=config.tts_cfg_value,
            inference_timesteps=config.tts_inference_timesteps,
        )
        async with loaded(STAGE, opening) as voxcpm:
            yield voxcpm


@asynccontextmanager
async def _open_pyttsx3(
    config: Config, _places: Places, reason: str, tell: Tell
) -> AsyncIterator[Synthesizer]:
    need_extra("pyttsx3", "pyttsx3", reason)
    tell(Choice(STAGE, "pyttsx3, the system's voices", reason))
    opening = Pyttsx3Synthesizer.open(timeout_seconds=config.tts_timeout)
    async with loaded(STAGE, opening) as synthesizer:
        yield synthesizer


@asynccontextmanager
async def _open_azure(
    config: Config, _places: Places, reason: str, tell: Tell
) -> AsyncIterator[Synthesizer]:
    resource = azure_resource(config)
    tell(Choice(STAGE, f"Azure, {resource.shown}", reason))
    opening = AzureSynthesizer.open(
        resource,
        random=Effects().random,
        voice=config.azure_speech_voice,
        timeout_seconds=config.tts_timeout,
    )
    async with opening as synthesizer:
        yield synthesizer


@asynccontextmanager
async def _connected(config: Config, urls: tuple[str, ...]) -> AsyncIterator[Synthesizer]:
    # The client brings a WebSocket library that a server without services does not need.
    from listenai.services.tts.client import TtsServiceSynthesizer  # noqa: PLC0415
    from listenai.services.tts.link import LinkDeadlines  # noqa: PLC0415

    synthesizer = TtsServiceSynthesizer(
        urls,
        random=Effects().random,
        mode=config.tts_mode,
        cfg_value=config.tts_cfg_value,
        inference_timesteps=config.tts_inference_timesteps,
        deadlines=LinkDeadlines(silence=config.tts_timeout),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(synthesizer.run)
        try:
            await synthesizer.ready(FIRST_ANSWER_SECONDS)
        except SynthesizerError as error:
            raise ConfigurationError([f"TTS_SERVICE_URL: {error}"]) from error
        yield synthesizer
        nursery.cancel_scope.cancel()
