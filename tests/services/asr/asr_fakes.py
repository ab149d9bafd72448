"""A small ASR service in this process, with engines that understand numbered frames.

A frame carries its loudness in the first sample and its number in the second; the text of an
utterance is the numbers of its loud frames.  So a text tells which audio reached the engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import attrs
import numpy as np
import trio
from trio_websocket import WebSocketConnection

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.services.asr.protocol import Command, ServiceMessage, read_message, write
from listenai.services.asr.server import Hearing, serve_asr
from listenai.services.sockets import open_socket


def frames(numbers: Iterable[int], *, loud: bool = True) -> bytes:
    """Numbered frames of speech, or of silence."""
    made = []
    for number in numbers:
        samples = np.zeros(FRAME_SAMPLES, np.int16)
        samples[0], samples[1] = (10_000 if loud else 0), number
        made.append(samples.tobytes())
    return b"".join(made)


def words(numbers: Iterable[int]) -> str:
    return " ".join(str(number) for number in numbers)


class LoudnessDetector:
    """A frame is speech when its first sample is loud."""

    def process(self, frame: bytes) -> float:
        assert len(frame) == FRAME_BYTES
        return 0.9 if np.frombuffer(frame, np.int16)[0] else 0.1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@attrs.define(eq=False)
class NumberUtterance:
    """One session of the NumberTranscriber."""

    transcriber: NumberTranscriber
    language: str
    speaker: SpeakerMemory
    audio: bytearray = attrs.field(factory=bytearray)
    closed: bool = False

    def _text(self) -> str:
        whole = len(self.audio) - len(self.audio) % FRAME_BYTES
        samples = np.frombuffer(bytes(self.audio[:whole]), np.int16).reshape(-1, FRAME_SAMPLES)
        return words(int(frame[1]) for frame in samples if frame[0]) + self.transcriber.suffix

    async def accept(self, pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.audio += pcm
        self.transcriber.tell_news()

    async def partial(self) -> str:
        await trio.lowlevel.checkpoint()
        return self._text()

    async def finish(self) -> Transcript:
        self.transcriber.finishing += 1
        self.transcriber.tell_news()
        if self.transcriber.gate is not None:
            await self.transcriber.gate.wait()
        await trio.lowlevel.checkpoint()
        if self.transcriber.failures:
            raise self.transcriber.failures.pop()
        return Transcript(self._text(), complete=True)


@attrs.define(eq=False)
class NumberTranscriber:
    """Understands the numbers of loud frames, when its gate is open."""

    languages: tuple[str, ...] = ("en", "zh")
    gate: trio.Event | None = None
    failures: list[Exception] = attrs.field(factory=list)  # raised by `finish`, once each
    suffix: str = ""
    sessions: list[NumberUtterance] = attrs.field(factory=list)
    finishing: int = 0  # how often `finish` was called
    _news: trio.Event = attrs.field(factory=trio.Event)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[NumberUtterance]:
        session = NumberUtterance(self, language, speaker)
        self.sessions.append(session)
        self.tell_news()
        try:
            yield session
        finally:
            session.closed = True
            self.tell_news()

    def tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def wait_until(self, condition) -> None:
        """Waits until something is true of this transcriber."""
        with trio.fail_after(5):
            while not condition():
                await self._news.wait()

    async def wait_heard(self, frame_count: int) -> None:
        """Waits until the last session has so many frames."""
        await self.wait_until(
            lambda: self.sessions and len(self.sessions[-1].audio) >= frame_count * FRAME_BYTES
        )


@attrs.define
class Service:
    """A running service: its address, its engine, and how to stop it."""

    port: int
    transcriber: NumberTranscriber
    scope: trio.CancelScope
    over: trio.Event

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def stop(self) -> None:
        self.scope.cancel()
        await self.over.wait()


@asynccontextmanager
async def hearing_of(
    transcriber, loaded: trio.Event | None = None, open_detector=LoudnessDetector, **settings
) -> AsyncIterator[Hearing]:
    if loaded is not None:
        await loaded.wait()
    yield Hearing(transcriber, open_detector, SegmentingRecognizerFactory, **settings)


async def start_service(
    nursery: trio.Nursery,
    transcriber: NumberTranscriber | None = None,
    *,
    loaded: trio.Event | None = None,
    open_detector=LoudnessDetector,
    max_utterance_seconds: float = 30.0,
    **options,
) -> Service:
    """A service that lives in the nursery until it is stopped, on a port the kernel chose."""
    settings = {"max_utterance_seconds": max_utterance_seconds}
    transcriber = transcriber or NumberTranscriber()
    service = Service(0, transcriber, trio.CancelScope(), trio.Event())

    async def run(task_status) -> None:
        with service.scope:
            await serve_asr(
                hearing_of(transcriber, loaded, open_detector, **settings),
                task_status=task_status,
                **({"host": "127.0.0.1", "port": 0} | options),
            )
        service.over.set()

    [(_, service.port)] = await nursery.start(run)
    return service


@asynccontextmanager
async def serving(transcriber: NumberTranscriber | None = None, **options):
    """A service for the block."""
    async with trio.open_nursery() as nursery:
        yield await start_service(nursery, transcriber, **options)
        nursery.cancel_scope.cancel()


@attrs.define
class Client:
    """A plain client of the protocol."""

    socket: WebSocketConnection

    async def send(self, *messages: Command | bytes | str) -> None:
        for message in messages:
            raw = message if isinstance(message, bytes | str) else write(message)
            await self.socket.send_message(raw)

    async def receive(self) -> ServiceMessage:
        with trio.fail_after(5):
            return read_message(await self.socket.get_message())

    async def receive_until(self, kind: type) -> list[ServiceMessage]:
        """Everything up to and including the first message of a kind."""
        got = [await self.receive()]
        while not isinstance(got[-1], kind):
            got.append(await self.receive())
        return got


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[Client]:
    """A client's connection, as it is before `ready` was read."""
    async with open_socket(service.url, seconds=5, max_message_bytes=1 << 20) as socket:
        yield Client(socket)


@contextmanager
def in_time(seconds: float = 10) -> Iterator[None]:
    """A test that waits longer than this hangs."""
    with trio.fail_after(seconds):
        yield
