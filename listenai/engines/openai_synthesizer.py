"""Speech synthesis by OpenAI-compatible servers: vLLM-Omni, OpenAI, Kokoro, and many more.

`async with open_speech(…)` is entered when the first audio is there: until then nobody has heard
anything, so a server that fails is replaced by another.  Raw PCM is asked for, which comes while
it is made; a WAV file, the answer of simpler servers, says itself what it is.
"""

from __future__ import annotations

import math
import random
import re
import struct
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import httpx
import trio

from listenai.audio import SAMPLE_BYTES
from listenai.engines.base import SpeechChunk
from listenai.engines.openai_audio import AudioServers, Failure, Service
from listenai.engines.openai_http import Answer, Patience
from listenai.engines.openai_request import error_text, mended
from listenai.engines.upstreams import Attempt, Outcome, Upstream
from listenai.errors import SynthesizerAway, SynthesizerError

PCM_SAMPLE_RATE = 24_000  # Hz, of OpenAI's "pcm"
DEFAULT_VOICES = ("default", "doubao-通用女声")  # ids that work with every engine (spec 000)
MAX_SENTENCE_SECONDS = 120.0  # a model that finds no end is stopped
MAX_HEADER_BYTES = 64 * 1024  # of a WAV file before its audio: pictures of singers end here
_COMPRESSED = {f"audio/{kind}" for kind in "mpeg mp3 ogg opus aac flac webm mp4".split()}
_COMPRESSED_MAGIC = (b"ID3", b"OggS", b"fLaC")
_WAV_PCM, _WAV_EXTENSIBLE = 1, 0xFFFE
_SERVICE = Service(
    "speech synthesis",
    "audio/speech",
    refused=SynthesizerError,
    away=SynthesizerAway,
    # Without the first, audio comes all at once; in place of the second is "wav".
    optional_fields=("response_format", "stream"),
)


class OpenAISynthesizer:
    """A Synthesizer that asks the first of several servers that answers.

    client: shared and pooled; its timeouts are not used.  Who made it closes it.
    voice: the server's name of the default voice.  voices: more of them → what they are.
    api_key: "" for none; it is sent to all upstreams and never told to anyone.
    timeout_seconds: longest silence of a server, before the first audio and between two pieces.
    sample_rate: Hz of the model's audio.

    Raises ConfigurationError where there is no upstream, or URL or key cannot be used.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        upstreams: Sequence[Upstream],
        *,
        model: str,
        voice: str,
        random: random.Random,
        api_key: str = "",
        timeout_seconds: float = 60.0,
        sample_rate: int = PCM_SAMPLE_RATE,
        voices: Mapping[str, str] | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.voices: Mapping[str, str] = {
            **dict.fromkeys(DEFAULT_VOICES, f"the server's voice {voice}"),
            voice: "a voice of the server",
            **(voices or {}),
        }
        self.upstreams = tuple(upstreams)
        self._model, self._voice = model, voice
        self._servers = AudioServers(
            _SERVICE,
            client,
            upstreams,
            api_key=api_key,
            random=random,
            timeout_seconds=timeout_seconds,
        )

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        """Streams one sentence, entered with its first audio; leaving closes the connection.

        A text without words is silence, and no server is asked.  Raises SynthesizerAway when
        no server can be reached, or one is lost in mid sentence, SynthesizerError when all
        refuse, send no audio that is understood, or find no end.
        """
        _ = language  # the model hears it from the text; the API has no field for it
        if not any(character.isalnum() for character in text):
            yield _Silence()
            return
        voice = self._voice if voice_id in DEFAULT_VOICES else voice_id

        def request(without: Collection[str]) -> dict[str, Any]:
            fields: dict[str, Any] = {
                "model": self._model,
                "input": mended(text),
                "voice": voice,
                "response_format": "wav" if "response_format" in without else "pcm",
            }
            if "stream" not in without:
                fields["stream"] = True
            return {"json": fields}

        attempt, reading = await self._servers.ask(request, self._begin)
        try:
            yield _Speech(self._servers, attempt, reading)
        finally:
            if attempt.outcome is Outcome.BEGUN:
                attempt.report(Outcome.ANSWERED, trio.current_time())
            await reading.answer.aclose()

    async def _begin(self, answer: Answer, patience: Patience) -> _Reading:
        await _check_type(answer, patience, self.sample_rate)
        reading = _Reading(answer, patience, PcmReader(self.sample_rate))
        await reading.begin()
        return reading


class _Speech:
    """The iterator over one sentence's audio."""

    def __init__(self, servers: AudioServers, attempt: Attempt, reading: _Reading) -> None:
        self._servers, self._attempt, self._reading = servers, attempt, reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SpeechChunk:
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


@attrs.define(eq=False)
class _Reading:
    """One answer's audio as it comes; what goes wrong is a Failure, or httpx's or Patience's."""

    answer: Answer
    patience: Patience
    _reader: PcmReader
    _first: bytes = b""

    async def begin(self) -> None:
        """Waits for the first samples."""
        self._first = await self.read()
        if not self._first:
            raise Failure(Outcome.BROKEN, "sent no audio")

    async def read(self) -> bytes:
        """The next whole samples, none at the end."""
        if first := self._first:
            self._first = b""
            await trio.lowlevel.checkpoint()
            return first
        while True:
            with self.patience.waiting():
                data = await self.answer.read()
            if data is None:
                return b""
            self.patience.progress()
            if pcm := self._reader.push(data):
                return pcm


async def _check_type(answer: Answer, patience: Patience, sample_rate: int) -> None:
    """Raises Failure for an answer whose Content-Type tells that it cannot be understood."""
    told = (answer.header("Content-Type") or "").lower()
    kind = told.partition(";")[0].strip()
    if kind.startswith("text/") or kind.endswith(("json", "xml")):
        says = error_text(await answer.read_refusal(patience))
        problem = f"answers with {kind} instead of audio{': ' if says else ''}{says}"
        raise Failure(Outcome.REFUSED, problem)
    if kind in _COMPRESSED:
        problem = f"answers with {kind}; only pcm and wav are understood: use a model with those"
        raise Failure(Outcome.REFUSED, problem)
    if (rate := re.search(r"rate=\"?(\d+)", told)) and int(rate[1]) != sample_rate:
        raise _other_rate(int(rate[1]), sample_rate)


def _other_rate(rate: int, expected: int) -> Failure:
    problem = f"speaks at {rate} Hz and not at {expected}: set the sample rate to the model's own"
    return Failure(Outcome.REFUSED, problem)


class PcmReader:
    """SANS-IO: raw PCM or a WAV file in pieces of any size, as whole samples (int16 mono).

    sample_rate: Hz; a WAV file of another rate is a Failure, as is all that is not 16-bit mono.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._pending = b""  # part of a header, or of a sample
        self._left: float | None = None  # bytes of audio to come, as told; None: in the header
        self._room = int(MAX_SENTENCE_SECONDS * sample_rate) * SAMPLE_BYTES

    def push(self, data: bytes) -> bytes:
        """The audio in the next bytes, none as long as there is only a header; raises Failure."""
        self._pending += data
        if self._left is None:
            self._left = self._enter_audio()
        if self._left is None:
            return b""
        size = int(min(len(self._pending), self._left))
        pcm = self._pending[: size - size % SAMPLE_BYTES]
        self._left -= len(pcm)
        # After the audio, a WAV file may tell who made it.
        self._pending = self._pending[len(pcm) :] if self._left >= SAMPLE_BYTES else b""
        self._room -= len(pcm)
        if self._room < 0:
            problem = f"finds no end: a sentence may take {MAX_SENTENCE_SECONDS:g} s to say"
            raise Failure(Outcome.REFUSED, problem)
        return pcm

    def _enter_audio(self) -> float | None:
        """The bytes of audio that follow, once the header is there; takes the header away."""
        head = self._pending
        if len(head) < 12 and b"RIFF".startswith(head[:4]):
            return None
        if head.startswith(_COMPRESSED_MAGIC):
            raise Failure(Outcome.REFUSED, "sends compressed audio though pcm was asked for")
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return math.inf
        at, described = 12, False
        while at + 8 <= len(head):
            kind, size = struct.unpack_from("<4sI", head, at)
            at += 8
            if kind == b"data":
                if not described:
                    raise Failure(Outcome.REFUSED, "sends a WAV file that does not say its format")
                self._pending = head[at:]
                return size or math.inf  # 0, as a very large one: unknown when it was written
            if kind == b"fmt " and len(head) >= at + size:
                self._check_format(head[at : at + size])
                described = True
            at += size + size % 2
        if at + 8 > MAX_HEADER_BYTES:
            raise Failure(Outcome.REFUSED, "sends a WAV file without an end of its header")
        return None

    def _check_format(self, told: bytes) -> None:
        if len(told) < 16:
            raise Failure(Outcome.REFUSED, "sends a WAV file with half a format")
        code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", told)
        if code == _WAV_EXTENSIBLE and len(told) >= 26:
            (code,) = struct.unpack_from("<H", told, 24)
        if (code, channels, bits) != (_WAV_PCM, 1, 8 * SAMPLE_BYTES):
            problem = f"sends WAV of format {code}, {bits} bits, {channels} channels"
            raise Failure(Outcome.REFUSED, f"{problem}; allowed is 16-bit PCM, mono")
        if rate != self._sample_rate:
            raise _other_rate(rate, self._sample_rate)
