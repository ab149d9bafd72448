"""What a stage as a service adds to its engine: see README.md.

Service and client of each stage talk over loopback, both in this process; the engine behind the
service takes a known time.  Beside it the same engine without a service: what is left there is
the timers' lateness.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import click
import httpx
import trio
from report import Row, failing_plainly, table, write_json
from turns import percentile

from listenai.engines import timed
from listenai.engines.base import (
    ChatMessage,
    ChatModel,
    ChatSettings,
    SpeakerMemory,
    Synthesizer,
    Transcriber,
)
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import TimedChatModel, TimedSynthesizer, TimedTranscriber
from listenai.engines.upstreams import Upstream
from listenai.services.asr.client import AsrServiceTranscriber
from listenai.services.asr.ear import Hearing
from listenai.services.asr.server import serve_asr
from listenai.services.llm.server import make_llm_app, serve_llm
from listenai.services.tts.client import TtsServiceSynthesizer
from listenai.services.tts.server import serve_tts

HOST = "127.0.0.1"
MODEL = "timed"
READY_SECONDS = 10.0
PIECE_SECONDS = 0.06  # what the recognizer gives a transcriber at a time
PIECE = bytes(1920)
PIECES = 6  # of speech, in real time: the connection is in use when it ends
SPEECH_MS = 1000
LAST_TOKEN_SECONDS = timed.FIRST_TOKEN_SECONDS + timed.TOKEN_SECONDS * (len(timed.REPLY_TOKENS) - 1)
CHUNKS = SPEECH_MS // timed.CHUNK_MS
LAST_CHUNK_SECONDS = timed.FIRST_CHUNK_SECONDS + timed.CHUNK_SECONDS * (CHUNKS - 1)
HEADINGS = {
    "stage": "stage",
    "through": "through",
    "runs": "runs",
    "injected_ms": "injected ms",
    "first_p50_ms": "first, added p50",
    "first_p99_ms": "p99 ms",
    "last_p50_ms": "last, added p50",
    "last_p99_ms": "p99 ms",
}

Added = tuple[float, float]  # seconds beyond the injected ones: to the first result, and the last
Once = Callable[[], Awaitable[Added]]


async def transcribe(transcriber: Transcriber, speaker: SpeakerMemory) -> Added:
    """From the end of the speech to its text, which is first and last result."""
    opening = transcriber.open_utterance(language="en", speaker=speaker)
    async with opening as utterance:
        began = trio.current_time()
        for number in range(PIECES):
            await utterance.accept(PIECE)
            await trio.sleep_until(began + (number + 1) * PIECE_SECONDS)
        ended = trio.current_time()
        transcript = await utterance.finish()
        took = trio.current_time() - ended - timed.TRANSCRIPT_SECONDS
    _check(transcript.text == timed.HEARD_TEXT, "speech recognition")
    return took, took


async def speak(synthesizer: Synthesizer) -> Added:
    """From the sentence to its first audio, and to its last."""
    asked = trio.current_time()
    first, heard = 0.0, 0
    opening = synthesizer.open_speech("It is mild.", voice_id="default", language="en")
    async with opening as chunks:
        async for chunk in chunks:
            first = first or trio.current_time()
            heard += len(chunk.pcm)
    last = trio.current_time()
    _check(heard == synthesizer.sample_rate * 2 * SPEECH_MS // 1000, "speech synthesis")
    return first - asked - timed.FIRST_CHUNK_SECONDS, last - asked - LAST_CHUNK_SECONDS


async def reply(chat_model: ChatModel) -> Added:
    """From the question to its answer's first token, and to the last."""
    asked = trio.current_time()
    first, text = 0.0, ""
    question = [ChatMessage("user", "how is the weather")]
    async with chat_model.open_reply(question, (), ChatSettings()) as parts:
        async for part in parts:
            first = first or trio.current_time()
            text += getattr(part, "text", "")
    last = trio.current_time()
    _check(text == "".join(timed.REPLY_TOKENS), "the language model")
    return first - asked - timed.FIRST_TOKEN_SECONDS, last - asked - LAST_TOKEN_SECONDS


@asynccontextmanager
async def asr_service() -> AsyncIterator[Transcriber]:
    """The client of an ASR service with the timed engine."""

    @asynccontextmanager
    async def load() -> AsyncIterator[Hearing]:
        yield Hearing(TimedTranscriber(), TenVadDetector, SegmentingRecognizerFactory)

    async with trio.open_nursery() as nursery:
        serve = partial(serve_asr, load(), host=HOST, port=0)
        [(_, port), *_] = await nursery.start(serve)
        client = AsrServiceTranscriber([f"ws://{HOST}:{port}"], chance=random.Random(0).random)
        await nursery.start(client.serve)
        with trio.fail_after(READY_SECONDS):
            await client.wait_ready()
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tts_service() -> AsyncIterator[Synthesizer]:
    """The client of a TTS service with the timed engine."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tts, TimedSynthesizer(SPEECH_MS), host=HOST, port=0)
        [url, *_] = await nursery.start(serve)
        client = TtsServiceSynthesizer([url], random=random.Random(0))
        await nursery.start(client.run)
        await client.ready(READY_SECONDS)
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def llm_service() -> AsyncIterator[ChatModel]:
    """The client of an LLM service with the timed engine."""
    async with httpx.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
        app = make_llm_app(TimedChatModel(), api_key="", model_names=[MODEL])
        serve = partial(serve_llm, app, host=HOST, port=0, graceful_seconds=0.1)
        url = await nursery.start(serve)
        yield OpenAIChatModel(client, [Upstream(url)], model=MODEL, random=random.Random(0))
        nursery.cancel_scope.cancel()


async def measure(runs: int) -> list[Row]:
    """Two rows for each stage: its engine alone, and behind its service."""
    rows = []
    for name, injected, own, opening, once in (
        ("asr", timed.TRANSCRIPT_SECONDS, TimedTranscriber(), asr_service(), transcribe),
        ("llm", timed.FIRST_TOKEN_SECONDS, TimedChatModel(), llm_service(), reply),
        ("tts", timed.FIRST_CHUNK_SECONDS, TimedSynthesizer(SPEECH_MS), tts_service(), speak),
    ):
        more = (SpeakerMemory(),) if name == "asr" else ()
        async with opening as client:
            for through, engine in (("engine alone", own), ("service", client)):
                run: Once = partial(once, engine, *more)
                await run()  # the first one opens connections
                added = [await run() for _ in range(runs)]
                rows.append(_row(name, through, injected, added))
    return rows


def _row(stage: str, through: str, injected: float, added: Sequence[Added]) -> Row:
    row: Row = {"stage": stage, "through": through, "runs": len(added)}
    row["injected_ms"] = injected * 1e3
    for name, seconds in zip(("first", "last"), zip(*added, strict=True), strict=True):
        milliseconds = [each * 1e3 for each in seconds]
        row[f"{name}_p50_ms"] = percentile(milliseconds, 50)
        row[f"{name}_p99_ms"] = percentile(milliseconds, 99)
    return row


def _check(right: bool, stage: str) -> None:
    if not right:
        raise click.ClickException(f"{stage} gave another result than its engine; nothing measured")


@click.command()
@click.option("--runs", type=click.IntRange(1), default=20, help="Of each kind.  [20]")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(*, runs: int, json_path: Path | None) -> None:
    """Milliseconds that the services' protocols add to engines of known times."""
    with failing_plainly():
        rows = trio.run(measure, runs)
    click.echo(table(rows, HEADINGS))
    if json_path:
        write_json(json_path, "service costs", rows)


if __name__ == "__main__":
    main()
