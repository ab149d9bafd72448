"""Speech recognition by Azure over REST.

The API takes a whole recording of a minute at most, so an utterance is one request at its end, and
there are no partial results.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import trio

from listenai.audio import SAMPLE_RATE
from listenai.engines.azure_resource import LOCALES, AzureResource, locale_of
from listenai.engines.base import SpeakerMemory
from listenai.engines.openai_audio import AudioServers, Failure, Service
from listenai.engines.openai_http import Answer, Patience
from listenai.engines.openai_request import mended
from listenai.engines.upstreams import Outcome
from listenai.engines.whole_utterance import WholeUtterance, space_of
from listenai.errors import TranscriberAway, TranscriberError
from listenai.wav import wav_bytes

MIN_SAMPLES = 1600  # 100 ms: less is no word, and costs a request
MAX_ANSWER_BYTES = 1024 * 1024  # of a text that takes a minute to say
_NOTHING_SAID = {"NoMatch", "InitialSilenceTimeout", "BabbleTimeout"}
_SERVICE = Service(
    "Azure speech recognition",
    "speech/recognition/conversation/cognitiveservices/v1",
    refused=TranscriberError,
    away=TranscriberAway,
)


class AzureTranscriber:
    """Speech to text by Azure (engines.base.Transcriber); made by `open`."""

    languages = tuple(LOCALES)

    def __init__(self, servers: AudioServers) -> None:
        """Not for callers: see `open`."""
        self._servers = servers

    @classmethod
    @asynccontextmanager
    async def open(
        cls, resource: AzureResource, *, random: random.Random, timeout_seconds: float = 60.0
    ) -> AsyncIterator[AzureTranscriber]:
        """Alive in the `async with`; nobody is asked yet.

        timeout_seconds: longest silence of the service.
        """
        headers = {
            "Content-Type": "audio/wav; codecs=audio/pcm; samplerate=16000",
            "Accept": "application/json",
        }
        async with resource.open("stt", _SERVICE, headers, random, timeout_seconds) as servers:
            yield cls(servers)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[WholeUtterance]:
        """Collects one utterance; a language may name its region, like en-GB.

        Raises TranscriberError for a language that is not known; what asks the service raises it
        where that refuses, and TranscriberAway where it cannot be reached.
        """
        del speaker  # every request stands alone
        locale = locale_of(language)
        if locale is None:
            raise TranscriberError(
                f"{language!r} is no language that Azure is asked for; allowed: "
                f"{', '.join(self.languages)}, or one with a region, like en-GB"
            )

        async def decode(pcm: bytes, *, partial: bool) -> str:
            assert not partial  # see the module
            return await self._understand(pcm, locale)

        yield WholeUtterance(decode, min_samples=MIN_SAMPLES, joined_by=space_of(language))

    async def _understand(self, pcm: bytes, locale: str) -> str:
        recording = wav_bytes(pcm, SAMPLE_RATE)

        def request(_without: Collection[str]) -> dict[str, Any]:
            return {"params": {"language": locale, "format": "simple"}, "content": recording}

        attempt, text = await self._servers.ask(request, _read_text)
        attempt.report(Outcome.ANSWERED, trio.current_time())
        return text


async def _read_text(answer: Answer, patience: Patience) -> str:
    body = bytearray()
    while True:
        with patience.waiting():
            data = await answer.read()
        if data is None:
            break
        patience.progress()
        body += data
        if len(body) > MAX_ANSWER_BYTES:
            raise Failure(Outcome.REFUSED, f"answers with more than {MAX_ANSWER_BYTES} bytes")
    text = _text_in(bytes(body))
    await answer.aclose()
    return text


def _text_in(body: bytes) -> str:
    """The transcript in an answer in the format "simple"; raises Failure."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    status = found.get("RecognitionStatus") if isinstance(found, dict) else None
    if status in _NOTHING_SAID:
        return ""
    if status == "Success" and isinstance(found.get("DisplayText"), str):
        return mended(found["DisplayText"]).strip()
    if status == "Error":  # Azure: "an internal error … try again if possible"
        raise Failure(Outcome.BROKEN, "failed on this recording (RecognitionStatus Error)")
    told = f" (RecognitionStatus {str(status)[:40]})" if status else ""
    raise Failure(Outcome.REFUSED, f"answers with something else than a transcript{told}")
