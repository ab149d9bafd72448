"""Speech recognition by OpenAI-compatible servers: vLLM, OpenAI, and many more.

The API takes a whole recording, so an utterance is one request at its end, and there are no
partial results: one request for each would cost too much.
"""

from __future__ import annotations

import io
import json
import random
import wave
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.engines.openai_audio import AudioServers, Failure, Service
from listenai.engines.openai_http import Answer, Patience
from listenai.engines.openai_request import error_text, mended
from listenai.engines.upstreams import Outcome, Upstream
from listenai.errors import TranscriberAway, TranscriberError

LANGUAGES = tuple("en zh ja ko yue de fr es it pt nl ru pl uk tr ar hi vi th id".split())
MIN_SAMPLES = 400  # 25 ms, one window of Whisper's features: less is no sound to a model
MAX_SECONDS = 60.0  # of one request, 1.9 MB; a longer utterance is several
MAX_ANSWER_BYTES = 1024 * 1024  # of a text that takes a minute to say
UNSPACED_LANGUAGES = ("zh", "ja", "yue", "th")
_MIN_BYTES = MIN_SAMPLES * SAMPLE_BYTES
_MAX_BYTES = int(MAX_SECONDS * SAMPLE_RATE) * SAMPLE_BYTES
_SERVICE = Service(
    "speech recognition", "audio/transcriptions", refused=TranscriberError, away=TranscriberAway
)


class OpenAITranscriber:
    """A Transcriber that asks the first of several servers that answers.

    client: shared and pooled; its timeouts are not used.  Who made it closes it.
    api_key: "" for none; it is sent to all upstreams and never told to anyone.
    timeout_seconds: longest silence of a server; then the next one is asked.
    languages: ISO 639 codes of what the model understands.

    Raises ConfigurationError where there is no upstream, or URL or key cannot be used.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        upstreams: Sequence[Upstream],
        *,
        model: str,
        random: random.Random,
        api_key: str = "",
        timeout_seconds: float = 60.0,
        languages: Sequence[str] = LANGUAGES,
    ) -> None:
        self.languages: Sequence[str] = tuple(languages)
        self.upstreams = tuple(upstreams)
        self._model = model
        self._servers = AudioServers(
            _SERVICE,
            client,
            upstreams,
            api_key=api_key,
            random=random,
            timeout_seconds=timeout_seconds,
        )

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[OpenAIUtterance]:
        """One utterance; no server is asked before there is something to understand."""
        _ = speaker  # every request stands alone
        yield OpenAIUtterance(self._servers, self._model, language)


class OpenAIUtterance:
    """One utterance (engines.base.Utterance); made by OpenAITranscriber.open_utterance.

    What asks a server raises TranscriberAway when none can be reached, TranscriberError when
    all of them refuse; a cancelled request's connection is closed.
    """

    def __init__(self, servers: AudioServers, model: str, language: str) -> None:
        self._servers, self._model = servers, model
        # "zh-CN" is no ISO 639 code, and without one the model finds out for itself.
        self._language = language.replace("_", "-").split("-")[0].lower()
        self._audio = bytearray()
        self._texts: list[str] = []

    async def accept(self, pcm: bytes) -> None:
        """Keeps audio, int16 mono 16 kHz of any length; asks when there are MAX_SECONDS of it."""
        self._audio += pcm
        while len(self._audio) > _MAX_BYTES:
            await self._understand(_MAX_BYTES)
        await trio.lowlevel.checkpoint()

    async def partial(self) -> str:
        """Nothing: see the module."""
        await trio.lowlevel.checkpoint()
        return ""

    async def finish(self) -> Transcript:
        """The words of everything accepted; none, unasked, in less than MIN_SAMPLES."""
        await trio.lowlevel.checkpoint()
        if len(self._audio) >= _MIN_BYTES:
            await self._understand(len(self._audio))
        space = "" if self._language in UNSPACED_LANGUAGES else " "
        return Transcript(space.join(filter(None, self._texts)))

    async def _understand(self, size: int) -> None:
        """Asks for the text of the first bytes."""
        body = {"data": {"model": self._model, "response_format": "json"}}
        if self._language:
            body["data"]["language"] = self._language
        recording = _wav(self._audio[:size])

        def request(_without: Collection[str]) -> dict[str, Any]:
            return {**body, "files": {"file": ("utterance.wav", recording, "audio/wav")}}

        attempt, text = await self._servers.ask(request, _read_text)
        attempt.report(Outcome.ANSWERED, trio.current_time())
        self._texts.append(text)
        del self._audio[:size]


def _wav(pcm: bytes | bytearray) -> bytes:
    """A WAV file of int16 mono 16 kHz; half a sample at the end is left out."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(pcm[: len(pcm) - len(pcm) % SAMPLE_BYTES])
    return file.getvalue()


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
    text = _text_in(bytes(body), answer.header("Content-Type") or "")
    await answer.aclose()
    return text


def _text_in(body: bytes, content_type: str) -> str:
    """The transcript in an answer: JSON with `text`, or plain text; raises Failure."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        told = body.decode()
        found = json.loads(told)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("text"), str):
        return mended(found["text"]).strip()
    if isinstance(found, dict) and (problem := error_text(found)):
        raise Failure(Outcome.REFUSED, f"failed ({problem})")
    plain = kind == "text/plain" or (kind == "" and body)
    if not plain or isinstance(found, dict):
        what = kind or ("JSON" if body else "something")
        problem = f"answers with {what} that holds no text: is it a transcription API?"
        raise Failure(Outcome.REFUSED, problem)
    return body.decode("utf-8", "replace").strip()
