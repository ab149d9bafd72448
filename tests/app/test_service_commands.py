"""What the services of the command line are made of."""

from __future__ import annotations

import pytest

from listenai.app.choices import Choice
from listenai.app.service_commands import open_hearing
from listenai.config import Config
from listenai.engines.sphinx import SphinxTranscriber

pytestmark = pytest.mark.engines


async def test_the_asr_service_is_ready_when_pocketsphinx_is_loaded() -> None:
    """Until then its clients are told MODEL_NOT_READY; it is loaded once."""
    told: list[Choice] = []
    async with open_hearing(Config(), "embedded", told.append) as hearing:
        assert isinstance(hearing.transcriber, SphinxTranscriber)
        assert hearing.transcriber.loaded == 1
    assert [choice.reason for choice in told if "PocketSphinx" in choice.engine] == ["--engine"]


async def test_the_longest_utterance_is_as_configured() -> None:
    """30 s unless ASR_MAX_UTTERANCE_SECONDS says otherwise."""
    for config, seconds in ((Config(), 30.0), (Config(asr_max_utterance_seconds=5.0), 5.0)):
        async with open_hearing(config, "embedded", lambda _: None) as hearing:
            assert hearing.max_utterance_seconds == seconds
