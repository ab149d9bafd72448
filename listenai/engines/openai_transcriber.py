"""Speech recognition by OpenAI-compatible servers: vLLM, OpenAI, and many more.

The API takes a whole recording, so an utterance is one request at its end, and there are no
partial results: one request for each would cost too much.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from listenai.audio import SAMPLE_RATE
from listenai.engines.base import SpeakerMemory
from listenai.engines.openai_audio import AudioServers, Failure, Service
from listenai.engines.openai_http import Answer, Patience
from listenai.engines.openai_request import error_text, mended
from listenai.engines.upstreams import Outcome, Upstream
from listenai.engines.whole_utterance import WholeUtterance, space_of
from listenai.errors import TranscriberAway, TranscriberError
from listenai.wav import wav_bytes

LANGUAGES = tuple("en zh ja ko yue de fr es it pt nl ru pl uk tr ar hi vi th id".split())
MIN_SAMPLES = 400  # 25 ms, one window of Whisper's features: less is no sound to a model
MAX_ANSWER_BYTES = 1024 * 1024  # of a text that takes a minute to say
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
    ) -> AsyncIterator[WholeUtterance]:
        """One utterance; no server is asked before there is something to understand.

        What asks raises TranscriberAway when no server can be reached, TranscriberError when
        all of them refuse; a cancelled request's connection is closed.
        """
        _ = speaker  # every request stands alone
        # "zh-CN" is no ISO 639 code, and without one the model finds out for itself.
        code = language.replace("_", "-").split("-")[0].lower()

        async def decode(pcm: bytes, *, partial: bool) -> str:
            assert not partial  # see the module
            return await self._understand(pcm, code)

        yield WholeUtterance(decode, min_samples=MIN_SAMPLES, joined_by=space_of(code))

    async def _understand(self, pcm: bytes, language: str) -> str:
        body = {"data": {"model": self._model, "response_format": "json"}}
        if language:
            body["data"]["language"] = language
        recording = wav_bytes(pcm, SAMPLE_RATE)

        def request(_without: Collection[str]) -> dict[str, Any]:
            return {**body, "files": {"file": ("utterance.wav", recording, "audio/wav")}}

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
