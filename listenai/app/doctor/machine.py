"""What can be checked without asking anybody: Python, native libraries, files, memory, models."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import soundfile
import trio

from listenai.app import ears, voices
from listenai.app.choices import azure_resource, need_extra, need_model
from listenai.app.doctor.report import Check, Finding, broken, look, well
from listenai.app.doctor.taken import EMBEDDED, own_engines
from listenai.app.guards import make_admission
from listenai.app.models import places_of, survey
from listenai.app.tools import OUR_OWN
from listenai.audio import FRAME_BYTES
from listenai.codecs.music_files import MusicLibrary
from listenai.codecs.resampling import StreamResampler
from listenai.config import Config
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.model_files import MODELS
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.errors import EngineError
from listenai.music import MusicError
from listenai.server.admission import MIB, budget
from listenai.server.authentication import read_keys
from listenai.server.tls import make_tls_context
from listenai.tools.entry_points import load_custom_tools

OLDEST_PYTHON = (3, 11)
FILE_SECONDS = 5.0  # for what is read from a disk
LOAD_SECONDS = 30.0  # for the models of PocketSphinx, from a slow one
_MODELS_OF = {"ASR_ENGINE": ears.MODELS, "TTS_ENGINE": voices.MODELS}
# engine, which is also its extra -> the package that it needs
_PACKAGES_OF = {"vosk": "vosk", "faster-whisper": "faster_whisper", "pyttsx3": "pyttsx3"}


def checks() -> list[Check]:
    """Those that need no configuration."""
    return [
        Check("Python", "python", FILE_SECONDS, _python),
        Check("voice detection, TEN VAD", "ten-vad", FILE_SECONDS, _ten_vad),
        Check("music files, libsndfile", "soundfile", FILE_SECONDS, _soundfile),
    ]


def configured_checks(config: Config) -> list[Check]:
    """Those that the configuration asks for."""
    taken = own_engines(config)
    rows = [
        ("TTS_ENGINE", "the voice, espeak-ng", "espeak", _espeak),
        ("ASR_ENGINE", "hearing, PocketSphinx", "sphinx", _sphinx),
    ]
    engines = [
        Check(name, trouble, LOAD_SECONDS, run)
        for variable, name, trouble, run in rows
        if taken.get(variable) == EMBEDDED
    ]
    files: list[tuple[str, str, Callable[[Config], Finding]]] = [
        ("API keys", "keys", _keys),
        ("TLS", "tls", _tls),
        ("music folder", "music", _music),
        ("tools of installed packages", "extras", _custom_tools),
        ("traces", "extras", _traces),
        ("memory", "memory", _memory),
        ("models", "models", _models),
        ("engines that were asked for", "models", _engines),
    ]
    return engines + [
        Check(name, trouble, FILE_SECONDS, partial(trio.to_thread.run_sync, look_at, config))
        for name, trouble, look_at in files
    ]


# --- Python and libraries ------------------------------------------------------------------


async def _python() -> Finding:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return broken(f"{version} is older than {oldest}", "python")
    return well(version)


async def _ten_vad() -> Finding:
    try:
        with TenVadDetector() as detector:
            detector.process(bytes(FRAME_BYTES))
    except EngineError as error:
        return broken(str(error))
    return well("loaded")


async def _soundfile() -> Finding:
    return well(f"version {soundfile.__libsndfile_version__}")


async def _espeak() -> Finding:
    synthesizer = EspeakSynthesizer()
    await trio.to_thread.run_sync(synthesizer.load)
    return well("loaded")


async def _sphinx() -> Finding:
    transcriber = SphinxTranscriber(instances=1)
    began = trio.current_time()
    try:
        await transcriber.warm()
    finally:
        transcriber.close()
    return well(f"its models loaded in {trio.current_time() - began:.1f} s")


# --- files ---------------------------------------------------------------------------------


def _keys(config: Config) -> Finding:
    keys = read_keys(config.api_keys, config.api_keys_file)
    if not keys:
        return well("none: everyone who reaches the port may connect")
    owners = len({key.owner for key in keys})
    return well(f"{_several(len(keys), 'key')} of {_several(owners, 'owner')}")


def _tls(config: Config) -> Finding:
    if make_tls_context(config.tls_cert_file, config.tls_key_file) is None:
        return well("none: http and ws")
    return well("certificate and key belong together: https and wss")


def _music(config: Config) -> Finding:
    if not config.music_dir:
        return well("none: one tune of our own")
    library = MusicLibrary(Path(config.music_dir), StreamResampler)
    try:
        library.scan()
    except MusicError as error:
        return broken(f"MUSIC_DIR: {error}")
    if tuple(library.tracks) == tuple(MusicLibrary(None, StreamResampler).tracks):
        return look(f"MUSIC_DIR={config.music_dir!r} has no music that can be read", "music")
    return well(f"{_several(len(library.tracks), 'track')} in {config.music_dir}")


def _custom_tools(config: Config) -> Finding:
    if not config.mcp_enabled:
        return well("none: tools are off (MCP_ENABLED)")
    tools = load_custom_tools(OUR_OWN)
    return well(", ".join(tool.schema.name for tool in tools) or "none")


def _traces(config: Config) -> Finding:
    if not config.tracing_url:
        return well("none")
    if importlib.util.find_spec("opentelemetry") is None:
        return broken("TRACING_URL needs `pip install 'listenai[tracing]'`")
    return well("sent to TRACING_URL")


def _memory(config: Config) -> Finding:
    admission = make_admission(config)
    megabytes = budget(config.memory_budget_mb) // MIB
    if admission.limited_by_memory:
        return look(
            f"{megabytes} MiB are enough for {admission.places} connections, not for the"
            f" {config.max_connections} of CLOUD_MAX_CONNECTIONS",
            "memory",
        )
    return well(f"{megabytes} MiB, enough for {_several(admission.places, 'connection')}")


def _models(config: Config) -> Finding:
    surveyed = survey(places_of(config, os.environ))
    if unfinished := [each for each in surveyed if each.problems]:
        names = "; ".join(f"{each.model.name}: {', '.join(each.problems)}" for each in unfinished)
        return look(names, "models")
    found = [each.model.name for each in surveyed if each.folder]
    if not found:
        needless = EMBEDDED in own_engines(config).values()
        why = "the embedded engines need none" if needless else "none of them is asked for"
        return well(f"none of {len(MODELS)} here; {why}")
    return well(", ".join(found))


def _engines(config: Config) -> Finding:
    """Raises ConfigurationError for one whose model, library or key is not here."""
    places = places_of(config, os.environ)
    taken = own_engines(config)
    for variable, engine in taken.items():
        if models := _MODELS_OF[variable].get(engine):
            need_model(models, places, f"{variable}={engine}")
        elif engine in _PACKAGES_OF:
            need_extra(engine, _PACKAGES_OF[engine], f"{variable}={engine}")
        elif engine == "azure":
            azure_resource(config)
    named = [f"{variable}={engine}" for variable, engine in taken.items()]
    return well(", ".join(named) or "none: there are services")


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
