"""A TTS service on a port of the kernel's choice, and a synthesizer that speaks step by step."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
from trio_websocket import WebSocketConnection

from listenai.engines.base import SpeechChunk, Synthesizer, WordTiming
from listenai.services.sockets import open_socket
from listenai.services.tts.server import TtsDeadlines, serve_tts

CHUNK_SAMPLES = 160


def chunk_of(text: str, index: int) -> bytes:
    """Audio that only this chunk of this text has."""
    return zlib.crc32(f"{index} {text}".encode()).to_bytes(4, "little") * (CHUNK_SAMPLES // 2)


@attrs.define
class Instance:
    """One model of a pool; two sentences at a time on it are a bug."""

    busy: bool = False


@attrs.define(eq=False)
class SteppedVoice:
    """Says each text in so many chunks, on the instances of a pool; with `steps`, one a step."""

    chunks: int = 5
    instances: int = 8
    sample_rate: int = 16_000
    steps: trio.Semaphore | None = None
    fail: BaseException | None = None  # after the first chunk
    fail_first: BaseException | None = None  # before it
    voices: Mapping[str, str] = attrs.field(factory=lambda: {"default": "a voice", "deep": "D"})
    spoken: list[str] = attrs.field(factory=list)
    left: list[str] = attrs.field(factory=list)  # texts whose engine was given back
    news: trio.Event = attrs.field(factory=trio.Event)  # one was
    alive: int = 0
    most_alive: int = 0
    _pool: list[Instance] = attrs.field(init=False)
    _free: trio.CapacityLimiter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = [Instance() for _ in range(self.instances)]
        self._free = trio.CapacityLimiter(self.instances)

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        async with self._free:
            instance = self._pool.pop()
            assert not instance.busy, "an instance was shared"
            instance.busy = True
            self.alive += 1
            self.most_alive = max(self.alive, self.most_alive)
            self.spoken.append(text)
            try:
                async with aclosing(self._stream(text)) as stream:
                    yield stream
            finally:
                instance.busy = False
                self.alive -= 1
                self.left.append(text)
                self.news.set()
                self.news = trio.Event()
                self._pool.append(instance)

    async def given_back(self) -> list[str]:
        """Waits until an engine was given back; the texts of those that were."""
        with trio.fail_after(5):
            while not self.left:
                await self.news.wait()
        return self.left

    async def _stream(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.fail_first:
            raise self.fail_first
        for index in range(self.chunks):
            await trio.lowlevel.checkpoint()
            if self.steps:
                await self.steps.acquire()
            words = self._words(text) if index == 0 else ()
            yield SpeechChunk(chunk_of(text, index), words)
            if self.fail:
                raise self.fail

    @staticmethod
    def _words(text: str) -> tuple[WordTiming, ...]:
        found, at = [], 0
        for index, word in enumerate(text.split()):
            at = text.index(word, at)
            found.append(WordTiming(at, at + len(word), 37 * index))
            at += len(word)
        return tuple(found)


def whole(voice: SteppedVoice, text: str) -> bytes:
    """All audio of a text."""
    return b"".join(chunk_of(text, index) for index in range(voice.chunks))


@attrs.frozen
class Service:
    """A running service; leaving `serving` stops it."""

    url: str
    scope: trio.CancelScope
    stopped: trio.Event

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    async def stop(self) -> None:
        self.scope.cancel()
        await self.stopped.wait()


@asynccontextmanager
async def serving(
    voice: Synthesizer, *, port: int = 0, deadlines: TtsDeadlines | None = None, **options: Any
) -> AsyncIterator[Service]:
    """A service in this process."""
    async with trio.open_nursery() as nursery:
        service = await start(nursery, voice, port=port, deadlines=deadlines, **options)
        yield service
        await service.stop()


async def start(nursery: trio.Nursery, voice: Synthesizer, **options: Any) -> Service:
    """A service that goes on in a nursery."""
    scope, stopped = trio.CancelScope(), trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Any]) -> None:
        try:
            with scope:
                await serve_tts(voice, task_status=task_status, **options)
        finally:
            stopped.set()

    urls = await nursery.start(partial(serve))
    return Service(urls[0], scope, stopped)


@attrs.frozen
class Peer:
    """A client that sees every message."""

    socket: WebSocketConnection

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send_message(json.dumps({"type": kind, **fields}))

    async def ask(self, request_id: str, text: str, **fields: Any) -> None:
        fields = {"voice_id": "default", **fields}
        await self.say("synthesize", request_id=request_id, text=text, **fields)

    async def hear(self) -> Any:
        """The next message; JSON is decoded."""
        with trio.fail_after(5):
            message = await self.socket.get_message()
        return message if isinstance(message, bytes) else json.loads(message)

    async def hear_until(self, kind: str) -> list[Any]:
        """All messages up to the next one of this type."""
        heard = [await self.hear()]
        while isinstance(heard[-1], bytes) or heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard


@asynccontextmanager
async def stranger(url: str) -> AsyncIterator[Peer]:
    """A connected client that has heard nothing yet."""
    async with open_socket(url, seconds=5, max_message_bytes=1 << 24) as socket:
        yield Peer(socket)


@asynccontextmanager
async def peer(url: str) -> AsyncIterator[Peer]:
    """A connected client that has heard `ready`."""
    async with stranger(url) as connected:
        assert (await connected.hear())["type"] == "ready"
        yield connected
