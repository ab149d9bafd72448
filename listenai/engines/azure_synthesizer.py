"""Speech synthesis by Azure over REST: SSML in, raw PCM out, while it is made.

`async with open_speech(…)` is entered with the first audio.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from xml.sax.saxutils import escape, quoteattr

import attrs
import trio

from listenai.engines.azure_resource import LOCALES, AzureResource
from listenai.engines.base import SpeechChunk
from listenai.engines.openai_audio import AudioServers, Failure, Service
from listenai.engines.openai_http import Answer, Patience
from listenai.engines.openai_request import error_text, mended
from listenai.engines.openai_synthesizer import DEFAULT_VOICES, PcmReader
from listenai.engines.upstreams import Attempt, Outcome
from listenai.errors import ConfigurationError, SynthesizerAway, SynthesizerError

SAMPLE_RATE = 16_000  # Hz of the audio that is asked for
_VOICE = re.compile(r"[a-z]{2,3}-[A-Z]{2}(-\w+)?-\w+(:\w+)?")
_ILLEGAL_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SERVICE = Service(
    "Azure speech synthesis",
    "cognitiveservices/v1",
    refused=SynthesizerError,
    away=SynthesizerAway,
)


class AzureSynthesizer:
    """Speaks with Azure's voices (engines.base.Synthesizer); made by `open`.

    The default voice follows the language.  No word timings: this API has none.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, servers: AudioServers, voice: str) -> None:
        """Not for callers: see `open`."""
        self._servers = servers
        self._voice = voice
        of_languages = {f"{locale}-{name}": locale for locale, name in LOCALES.values()}
        self.voices: Mapping[str, str] = {
            **dict.fromkeys(DEFAULT_VOICES, voice or "a voice of the conversation's language"),
            **({voice: "the configured voice"} if voice else {}),
            **of_languages,
        }

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        resource: AzureResource,
        *,
        random: random.Random,
        voice: str = "",
        timeout_seconds: float = 60.0,
    ) -> AsyncIterator[AzureSynthesizer]:
        """Alive in the `async with`; nobody is asked yet.

        voice: by default, like en-GB-SoniaNeural; "": one of the conversation's language.
        timeout_seconds: longest silence of the service.  Raises ConfigurationError for a voice
        that is none.
        """
        if voice and not _VOICE.fullmatch(voice):
            raise ConfigurationError(
                [f"AZURE_SPEECH_VOICE={voice!r}: must be a voice's name, like en-GB-SoniaNeural"]
            )
        headers = {
            "Content-Type": "application/ssml+xml",
            "X-Microsoft-OutputFormat": "raw-16khz-16bit-mono-pcm",
        }
        async with resource.open("tts", _SERVICE, headers, random, timeout_seconds) as servers:
            yield cls(servers, voice)

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        """Streams one sentence, entered with its first audio; leaving closes the connection.

        A text without words is silence, and nobody is asked.  Raises SynthesizerAway where the
        service cannot be reached, or is lost in mid sentence, SynthesizerError for an unknown
        voice and where it refuses.
        """
        voice = self._voice_of(voice_id, language)
        if not any(character.isalnum() for character in text):
            yield _Silence()
            return
        body = ssml(text, voice).encode()

        def request(_without: Collection[str]) -> dict[str, Any]:
            return {"content": body}

        attempt, speech = await self._servers.ask(request, _begin)
        try:
            yield _Speech(self._servers, attempt, speech)
        finally:
            if attempt.outcome is Outcome.BEGUN:
                attempt.report(Outcome.ANSWERED, trio.current_time())
            await speech.answer.aclose()

    def _voice_of(self, voice_id: str, language: str) -> str:
        if voice_id not in self.voices:
            raise SynthesizerError(
                f"there is no voice {voice_id!r}; choose one of {', '.join(self.voices)}"
            )
        if voice_id not in DEFAULT_VOICES:
            return voice_id
        primary = language.lower().replace("_", "-").split("-")[0]
        locale, name = LOCALES.get(primary, LOCALES["en"])
        return self._voice or f"{locale}-{name}"


def ssml(text: str, voice: str) -> str:
    """What Azure is to say, whatever is in the text; voice: like en-US-JennyNeural."""
    language = "-".join(voice.split("-")[:2])
    said = escape(_ILLEGAL_IN_XML.sub(" ", mended(text)))
    return (
        f'<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="{language}">'
        f"<voice name={quoteattr(voice)}>{said}</voice></speak>"
    )


async def _begin(answer: Answer, patience: Patience) -> _Reading:
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind.endswith(("json", "xml")):
        says = error_text(await answer.read_refusal(patience))
        problem = f"answers with {kind} instead of audio{': ' if says else ''}{says}"
        raise Failure(Outcome.REFUSED, problem)
    reading = _Reading(answer, patience, PcmReader(SAMPLE_RATE))
    reading.first = await reading.read()
    if not reading.first:
        raise Failure(Outcome.BROKEN, "sent no audio")
    return reading


@attrs.define(eq=False)
class _Reading:
    """One answer's audio as it comes; what goes wrong is a Failure, or httpx's or Patience's."""

    answer: Answer
    patience: Patience
    reader: PcmReader
    first: bytes = b""

    async def read(self) -> bytes:
        """The next whole samples, none at the end."""
        while True:
            with self.patience.waiting():
                data = await self.answer.read()
            if data is None:
                return b""
            self.patience.progress()
            if pcm := self.reader.push(data):
                return pcm


class _Speech:
    """The iterator over one sentence's audio."""

    def __init__(self, servers: AudioServers, attempt: Attempt, reading: _Reading) -> None:
        self._servers, self._attempt, self._reading = servers, attempt, reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SpeechChunk:
        if pcm := self._reading.first:
            self._reading.first = b""
            await trio.lowlevel.checkpoint()
            return SpeechChunk(pcm)
        try:
            with self._servers.judging(self._attempt):
                pcm = await self._reading.read()
        except Failure as failure:
            raise self._servers.error(failure) from failure
        if not pcm:
            raise StopAsyncIteration
        return SpeechChunk(pcm)


class _Silence:
    """The speech of a text without words."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SpeechChunk:
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration
