"""Which engines `serve` would take."""

from __future__ import annotations

import os
from collections.abc import Mapping

from listenai.app import ears, voices
from listenai.app.chat_models import choose_cloud
from listenai.app.models import places_of
from listenai.config import Config

EMBEDDED = "embedded"


def own_engines(config: Config) -> Mapping[str, str]:
    """The engine of ASR_ENGINE and of TTS_ENGINE; a stage with a service has none of ours."""
    places = places_of(config, os.environ)
    stages = (
        ("ASR_ENGINE", config.asr_service_url, ears.choose_engine),
        ("TTS_ENGINE", config.tts_service_url, voices.choose_engine),
    )
    return {name: choose(config, places)[0] for name, service, choose in stages if not service}


def has_language_model(config: Config) -> bool:
    """Whether one was named: without, it is an Ollama or the embedded assistant."""
    cloud, _ = choose_cloud(config)
    return cloud != EMBEDDED and bool(cloud or config.llm_base_url)
