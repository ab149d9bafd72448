"""Speech through the ASR service with the embedded engines, in this process and in another."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import pytest
import trio
from asr_fakes import in_time
from end_to_end_server import TEXTS, recording

from listenai.app import open_engines, serve
from listenai.audio import FRAME_BYTES
from listenai.client.device import Device
from listenai.config import Config
from listenai.engines.base import SpeakerMemory, Transcriber
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.services.asr.client import AsrServiceTranscriber
from listenai.services.asr.server import Hearing, serve_asr
from listenai.speech import FinalTranscript, SpeechEvent, TranscriptionFailed

pytestmark = [pytest.mark.engines, pytest.mark.slow]

PROCESS = """
import sys
from contextlib import asynccontextmanager
import trio
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.sphinx import SphinxTranscriber
from listenai.engines.ten_vad import TenVadDetector
from listenai.services.asr.server import Hearing, run_asr

@asynccontextmanager
async def load():
    transcriber = SphinxTranscriber(instances=1)
    await transcriber.warm()
    yield Hearing(transcriber, TenVadDetector, SegmentingRecognizerFactory)
    transcriber.close()

async def main():
    await run_asr(load(), host="127.0.0.1", port=int(sys.argv[1]))

trio.run(main)
"""


@contextmanager
def service_process(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service in a process of its own, killed at the end if it still runs."""
    process = subprocess.Popen([sys.executable, "-c", PROCESS, str(port)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@asynccontextmanager
async def client_of(*urls: str) -> AsyncIterator[AsrServiceTranscriber]:
    client = AsrServiceTranscriber(urls, chance=random.Random(1).random)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.serve)
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def service_of(transcriber: Transcriber) -> AsyncIterator[str]:
    """A service in this process; its URL."""

    @asynccontextmanager
    async def load() -> AsyncIterator[Hearing]:
        yield Hearing(transcriber, TenVadDetector, SegmentingRecognizerFactory)

    async def run(task_status) -> None:
        await serve_asr(load(), host="127.0.0.1", port=0, task_status=task_status)

    async with trio.open_nursery() as nursery:
        [(_, port)] = await nursery.start(run)
        yield f"ws://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def heard_by(transcriber: Transcriber, pcm: bytes) -> str:
    """What the server's own ear, with its own detector, makes of this transcriber's words."""
    events: list[SpeechEvent] = []
    told = trio.Event()

    def hear(event: SpeechEvent) -> None:
        events.append(event)
        told.set()

    factory = SegmentingRecognizerFactory(TenVadDetector, transcriber)
    with in_time(30):
        async with factory.open(hear, suspicion=(3, 4), cap_seconds=30) as recognizer:
            for start in range(0, len(pcm), 16 * FRAME_BYTES):
                recognizer.accept(pcm[start : start + 16 * FRAME_BYTES])
                await trio.lowlevel.checkpoint()
            recognizer.end_speech()
            while recognizer._owed:
                told = trio.Event()
                await told.wait()
    assert not any(isinstance(event, TranscriptionFailed) for event in events)
    return [event.text for event in events if isinstance(event, FinalTranscript)][-1]


@pytest.fixture(scope="module")
def sphinx() -> Iterator[SphinxTranscriber]:
    """One instance, loaded by the first test that needs it."""
    shared = SphinxTranscriber(instances=1)
    yield shared
    shared.close()


@pytest.mark.parametrize("name", TEXTS)
async def test_a_spoken_fixture_is_understood_as_in_process(
    sphinx: SphinxTranscriber, name: str
) -> None:
    """The same transcript, and the same words through the server's own ear."""
    pcm = recording(name)
    with in_time(30):
        async with sphinx.open_utterance(language="en", speaker=SpeakerMemory()) as local:
            await local.accept(pcm)
            expected = await local.finish()
        async with service_of(sphinx) as url, client_of(url) as client:
            async with client.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
                await utterance.accept(pcm)
                assert await utterance.finish() == expected
            assert await heard_by(client, pcm) == await heard_by(sphinx, pcm) == TEXTS[name]


async def test_a_killed_service_started_again_hears_the_whole_sentence() -> None:
    """SIGKILL in mid word, the same port, no new client; then SIGTERM is a clean end."""
    pcm = recording("weather_beijing.wav")
    port = free_port()
    half = len(pcm) // 2
    async with client_of(f"ws://127.0.0.1:{port}") as client:
        with service_process(port) as process, in_time(60):
            await client.wait_ready()
            async with client.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
                await utterance.accept(pcm[:half])
                while not await utterance.partial():
                    await trio.testing.wait_all_tasks_blocked(0.005)
                os.kill(process.pid, signal.SIGKILL)
                while client._lines._lines:  # until it is noticed
                    await trio.testing.wait_all_tasks_blocked(0.005)
                with service_process(port) as again:
                    await client.wait_ready()
                    await utterance.accept(pcm[half:])
                    assert (await utterance.finish()).text == TEXTS["weather_beijing.wav"]
                    again.terminate()
                    assert await trio.to_thread.run_sync(again.wait, 10) == 0


@asynccontextmanager
async def server_with(transcriber: Transcriber) -> AsyncIterator[str]:
    """The whole server with this transcriber and its own detector; its URL."""
    async with open_engines() as embedded, trio.open_nursery() as nursery:
        recognizers = SegmentingRecognizerFactory(TenVadDetector, transcriber)
        engines = attrs.evolve(embedded, recognizers=recognizers)
        [address] = await nursery.start(serve, Config(host="127.0.0.1", port=0), engines)
        yield address.url("ws") + "/"
        nursery.cancel_scope.cancel()


async def test_a_device_notices_nothing_of_a_killed_service() -> None:
    """SIGKILL while its user speaks: the sentence is whole, on the same connection."""
    name, port = "twelve_times_seven.wav", free_port()
    async with client_of(f"ws://127.0.0.1:{port}") as client:
        with service_process(port) as process, in_time(90):
            await client.wait_ready()
            async with (
                server_with(client) as url,
                Device.connect(url) as device,
                trio.open_nursery() as speaking,
            ):
                speaking.start_soon(device.speak, recording(name))
                await device.wait_event("asr_result")
                assert speaking.child_tasks  # in mid sentence
                os.kill(process.pid, signal.SIGKILL)
                with service_process(port):
                    reply = await device.wait_reply()
                assert reply.transcript == TEXTS[name]
                assert reply.audible
