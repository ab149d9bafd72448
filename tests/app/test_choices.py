"""Which engine is taken for a stage."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from openai_audio_server import open_audio_server, speech_of

from listenai.app.choices import Choice
from listenai.app.ears import open_transcriber
from listenai.app.models import Places
from listenai.app.voices import open_synthesizer
from listenai.config import Config
from listenai.engines.base import SpeakerMemory
from listenai.errors import ConfigurationError


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "cache")


async def test_services_with_openais_audio_api_hear_and_speak(places: Places):
    """Where their URLs begin with http; the model is told with them."""
    told: list[Choice] = []
    async with open_audio_server() as server, httpx.AsyncClient() as client:
        config = Config(asr_service_url=(server.url,), tts_service_url=(server.url,))
        async with open_transcriber(config, places, client, told.append) as transcriber:
            opening = transcriber.open_utterance(language="en", speaker=SpeakerMemory())
            async with opening as utterance:
                await utterance.accept(speech_of("hello there"))
                heard = await utterance.finish()
        async with open_synthesizer(config, places, client, told.append) as synthesizer:
            opening = synthesizer.open_speech("hello", voice_id="default", language="en")
            async with opening as chunks:
                said = b"".join([chunk.pcm async for chunk in chunks])
    assert heard.text
    assert said == speech_of("hello")
    assert [choice.engine for choice in told] == [
        f"whisper-1 at {server.url}",
        f"tts-1 at {server.url}",
    ]


async def test_services_of_two_kinds_cannot_stand_in_for_each_other(places: Places):
    """All speak our protocol, or all OpenAI's."""
    config = Config(asr_service_url=("ws://a:1", "http://b:2"))
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match="ASR_SERVICE_URL: either all of them"):
            async with open_transcriber(config, places, client, lambda _choice: None):
                pytest.fail("which of them?")


@pytest.mark.parametrize(
    ("settings", "opening", "said"),
    [
        ({"asr_engine": "sherpa"}, open_transcriber, "ASR_ENGINE=sherpa: sherpa-sensevoice: "),
        ({"asr_engine": "funasr"}, open_transcriber, "ASR_ENGINE=funasr: fun-asr-nano: "),
        ({"tts_engine": "voxcpm"}, open_synthesizer, "TTS_ENGINE=voxcpm: voxcpm-0.5b: "),
    ],
)
async def test_a_model_that_is_asked_for_and_not_here_is_told_how_to_get(
    settings: dict, opening: object, said: str, places: Places
):
    """Before anything is started."""
    async with httpx.AsyncClient() as client:
        with pytest.raises(ConfigurationError) as caught:
            async with opening(Config(**settings), places, client, lambda _choice: None):  # type: ignore[operator]
                pytest.fail("there is no such model")
    assert caught.value.problems[0].startswith(said)
    assert "models pull" in caught.value.problems[0]


async def test_without_models_the_embedded_engines_are_taken(places: Places):
    """And the reason says what was looked for."""
    told: list[Choice] = []
    async with (
        httpx.AsyncClient() as client,
        open_synthesizer(Config(), places, client, told.append),
    ):
        pass
    assert str(told[0]) == "speech synthesis: espeak-ng (no TTS_SERVICE_URL, and no model is here)"
