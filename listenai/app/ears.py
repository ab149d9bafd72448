"""Which detector tells speech from silence, and which transcriber understands it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
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
from listenai.engines.azure_transcriber import AzureTranscriber
from listenai.engines.base import Detector, EchoCanceller, Transcriber
from listenai.engines.echo_canceller import WebrtcEchoCanceller
from listenai.engines.funasr import FunasrTranscriber
from listenai.engines.model_files import find_model, folders_of
from listenai.engines.openai_transcriber import OpenAITranscriber
from listenai.engines.sherpa import SherpaTranscriber
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.upstreams import Upstream
from listenai.engines.vosk import DEFAULT_FOLDER, VoskTranscriber
from listenai.engines.webrtc_vad import WebRtcDetector
from listenai.engines.whisper import DEFAULT_MODEL, WhisperTranscriber, read_model_name
from listenai.errors import ConfigurationError

STAGE = "speech recognition"
OpenDetector = Callable[[], AbstractContextManager[Detector]]
MODELS = {"funasr": ("fun-asr-nano", "sensevoice-small"), "sherpa": ("sherpa-sensevoice",)}
_DEFAULTS = Config()
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
        opening = open_own_transcriber(places, engine, reason, tell, config)
        async with opening as transcriber:
            yield transcriber


def choose_detector(config: Config, tell: Tell) -> OpenDetector:
    """What makes each device's detector; ConfigurationError where its library is missing."""
    reason = f"VAD_ENGINE={config.vad_engine}"
    if config.vad_engine == "webrtc":
        need_extra("webrtcvad", "webrtcvad", reason)
        tell(Choice("voice detection", "WebRTC VAD", reason))
        return WebRtcDetector
    tell(Choice("voice detection", "TEN VAD", reason))
    return TenVadDetector


def choose_echo_canceller(config: Config, tell: Tell) -> Callable[[], EchoCanceller] | None:
    """What makes each device's echo canceller; ConfigurationError where its library is missing."""
    if config.echo_canceller == "none":
        return None
    reason = f"ECHO_CANCELLER={config.echo_canceller}"
    need_extra("aec", "pywebrtc_audio", reason)
    tell(Choice("echo cancellation", "WebRTC's, for devices that report playback", reason))
    return WebrtcEchoCanceller


def choose_engine(config: Config, places: Places) -> tuple[str, str]:
    """The engine where there is no service, and why it."""
    if config.asr_engine != "auto":
        return config.asr_engine, f"ASR_ENGINE={config.asr_engine}"
    for engine, variable, value in (
        ("vosk", "VOSK_MODEL_PATH", config.vosk_model_path),
        ("faster-whisper", "STREAM_MODEL_WHISPER", config.whisper_model),
        ("azure", "AZURE_SPEECH_KEY", config.azure_speech_key),
        ("azure", "AZURE_SPEECH_REGION", config.azure_speech_region),
    ):
        if value:
            return engine, f"{variable} is set"
    if device() == "cuda" and (here := next(find_models(MODELS["funasr"], places), None)):
        return "funasr", f"a GPU, and {here.model.name} is here"
    if here := next(find_models(MODELS["sherpa"], places), None):
        return "sherpa", f"{here.model.name} is here"
    return "embedded", "no ASR_SERVICE_URL, and no model is here"


@asynccontextmanager
async def open_own_transcriber(
    places: Places, engine: str, reason: str, tell: Tell, config: Config = _DEFAULTS
) -> AsyncIterator[Transcriber]:
    """One in this process, or the client of a cloud; "funasr" in a service's process only."""
    openers: dict[str, Callable[..., AbstractAsyncContextManager[Transcriber]]] = {
        "embedded": _open_embedded,
        "vosk": _open_vosk,
        "faster-whisper": _open_whisper,
        "azure": _open_azure,
    }
    opening = openers.get(engine, partial(_open_model, engine=engine))
    async with opening(config, places, reason, tell) as transcriber:
        yield transcriber


@asynccontextmanager
async def _open_model(
    _config: Config, places: Places, reason: str, tell: Tell, *, engine: str
) -> AsyncIterator[Transcriber]:
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
async def _open_vosk(
    config: Config, _places: Places, reason: str, tell: Tell
) -> AsyncIterator[Transcriber]:
    need_extra("vosk", "vosk", reason)
    folder = Path(config.vosk_model_path or DEFAULT_FOLDER)
    tell(Choice(STAGE, f"Vosk, {folder}", reason))
    opening = VoskTranscriber.open(folder, language=config.vosk_language)
    async with loaded(STAGE, opening) as vosk:
        yield vosk


@asynccontextmanager
async def _open_whisper(
    config: Config, places: Places, reason: str, tell: Tell
) -> AsyncIterator[Transcriber]:
    need_extra("faster-whisper", "faster_whisper", reason)
    whisper = read_model_name(config.whisper_model or DEFAULT_MODEL)
    model, folder = whisper.model, whisper.folder
    if folder is None:
        folders = folders_of(
            model, models_folder=places.models_folder, cache_folder=places.cache_folder
        )
        folder = find_model(model, tuple(folders))
    if folder is None:
        raise ConfigurationError(
            [
                f"{reason}: {model.name} is not here: hf download {model.hub_id}"
                f" ({model.megabytes} MB), or copy it to MODELS_DIR/{model.name}"
            ]
        )
    tell(Choice(STAGE, f"{model.name} in {folder}", reason))
    async with loaded(STAGE, WhisperTranscriber.open(folder, whisper, device=device())) as opened:
        yield opened


@asynccontextmanager
async def _open_azure(
    config: Config, _places: Places, reason: str, tell: Tell
) -> AsyncIterator[Transcriber]:
    resource = azure_resource(config)
    tell(Choice(STAGE, f"Azure, {resource.shown}", reason))
    opening = AzureTranscriber.open(
        resource, random=Effects().random, timeout_seconds=config.asr_timeout
    )
    async with opening as azure:
        yield azure


@asynccontextmanager
async def _open_embedded(
    _config: Config, _places: Places, reason: str, tell: Tell
) -> AsyncIterator[Transcriber]:
    tell(Choice(STAGE, "PocketSphinx, US English commands", reason))
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
    # The client brings a WebSocket library that a server without services does not need.
    from listenai.services.asr.client import AsrServiceTranscriber  # noqa: PLC0415

    transcriber = AsrServiceTranscriber(
        urls, chance=Effects().random.random, timeout_seconds=config.asr_timeout
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(transcriber.serve)
        with trio.move_on_after(FIRST_ANSWER_SECONDS):
            await transcriber.wait_ready()
        yield transcriber
        nursery.cancel_scope.cancel()
