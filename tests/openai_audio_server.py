"""A stand-in for an audio server: OpenAI's transcriptions and speech on a real socket.

In a test, `open_audio_server()` runs it beside the client, records what it is asked, and gives
one answer of its script after the other, faults included.  How answers are made of steps is
what openai_server says.
"""

from __future__ import annotations

import io
import json
import re
import wave
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import attrs
import hypercorn.trio
import numpy as np
import trio
from hypercorn.config import Config
from openai_server import Answer, Cut, Sleep, Step, refusing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

TRANSCRIPTIONS_PATH = "/v1/audio/transcriptions"
SPEECH_PATH = "/v1/audio/speech"
RATE = 24_000  # Hz, of speech
CHARACTER_SECONDS = 0.06  # of speech


@attrs.define(eq=False)
class Asked:
    """One request, and what became of it."""

    path: str
    fields: Mapping[str, Any]  # of the form, or of the JSON
    file: bytes  # the recording, "" where speech is asked for
    headers: Mapping[str, str]
    client_port: int  # tells connections apart
    finished: trio.Event = attrs.field(factory=trio.Event)  # the whole answer was sent
    left: trio.Event = attrs.field(factory=trio.Event)  # the client hung up before that

    @property
    def pcm(self) -> bytes:
        """What was recorded."""
        with wave.open(io.BytesIO(self.file)) as recording:
            return recording.readframes(recording.getnframes())


Behaviour = Answer | Callable[[Asked], Answer]


# --- answers -----------------------------------------------------------------------------


def hearing(text: str) -> Answer:
    """A transcript, the way OpenAI does it."""
    document = {"text": text, "usage": {"type": "duration", "seconds": 1}}
    return Answer([json.dumps(document).encode()], media_type="application/json")


def hearing_plainly(text: str, media_type: str = "text/plain; charset=utf-8") -> Answer:
    """A transcript as text alone."""
    return Answer([text.encode()], media_type=media_type)


def speech_of(text: str, rate: int = RATE) -> bytes:
    """What a text sounds like: a tone that rises, so that no two samples can be mixed up."""
    at = np.arange(int(len(text) * CHARACTER_SECONDS * rate)) / rate
    tone = np.sin(2 * np.pi * (200 + 300 * at + len(text)) * at)
    return (tone * 12_000).astype("<i2").tobytes()


def pieces_of(data: bytes, size: int) -> list[Step]:
    """The data in pieces of so many bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def speaking(text: str, *, piece: int = 4800, media_type: str = "audio/pcm") -> Answer:
    """The speech of a text in pieces of so many bytes."""
    return Answer(pieces_of(speech_of(text), piece), media_type=media_type)


def wav_of(pcm: bytes, *, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(pcm)
    return file.getvalue()


def speaking_wav(wav: bytes, *, piece: int = 4800) -> Answer:
    """A WAV file in pieces of so many bytes."""
    return Answer(pieces_of(wav, piece), media_type="audio/wav")


def usual_answer(asked: Asked) -> Answer:
    """ "Hello there.", or the speech of what is asked for."""
    if asked.path == TRANSCRIPTIONS_PATH:
        return hearing("Hello there.")
    return speaking(str(asked.fields["input"]))


# --- the server --------------------------------------------------------------------------


@attrs.define(eq=False)
class AudioServer:
    """A running server: its script comes first, then `usual` answers everything."""

    usual: Behaviour = usual_answer
    api_key: str | None = None  # else 401
    script: deque[Behaviour] = attrs.field(factory=deque)
    requests: list[Asked] = attrs.field(factory=list)
    url: str = ""
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def wait_asked(self, count: int = 1) -> Asked:
        """Until there were so many requests; the one that made it so many."""
        while len(self.requests) < count:
            await self._changed.wait()
        return self.requests[count - 1]

    def answer(self, asked: Asked) -> Answer:
        """What a request gets."""
        self.requests.append(asked)
        self._changed.set()
        self._changed = trio.Event()
        given = asked.headers.get("authorization", "")
        if self.api_key is not None and given != f"Bearer {self.api_key}":
            return refusing(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")
        behaviour = self.script.popleft() if self.script else self.usual
        return behaviour if isinstance(behaviour, Answer) else behaviour(asked)


@attrs.frozen
class _Endpoint:
    """The ASGI application behind both paths."""

    server: AudioServer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = await _read(Request(scope, receive))
        answer = self.server.answer(asked)
        cut = False
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                if not asked.finished.is_set():
                    asked.left.set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            cut = await _send(answer, send)
            if not cut:
                asked.finished.set()
                await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()
        if cut:
            raise ConnectionAbortedError("this answer is cut off")  # Hypercorn closes


async def _read(request: Request) -> Asked:
    body = await request.body()
    kind = request.headers["content-type"]
    if kind.startswith("multipart/form-data"):
        fields, file = _read_form(body, kind)
    else:
        fields, file = json.loads(body), b""
    assert request.client
    return Asked(request.url.path, fields, file, dict(request.headers), request.client.port)


def _read_form(body: bytes, content_type: str) -> tuple[dict[str, str], bytes]:
    """The fields of a form, and its file."""
    fields, file = {}, b""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'\bname="([^"]*)"', head)
        assert name, "a part of a form has a name"
        if b"filename=" in head:
            assert name[1] == b"file", "the recording is called `file`"
            file = content
        else:
            fields[name[1].decode()] = content.decode()
    return fields, file


async def _send(answer: Answer, send: Send) -> bool:
    """Whether the connection is to be cut then."""
    await trio.sleep(answer.head_after)
    headers = {"Content-Type": answer.media_type, **answer.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items() if value]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    for step in answer.steps:
        match step:
            case bytes():
                await send({"type": "http.response.body", "body": step, "more_body": True})
            case Sleep(seconds):
                await trio.sleep(seconds)
            case Cut():
                return True
    return False


async def serve_audio(
    server: AudioServer,
    port: int = 0,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; reports the base URL, without /v1.  Port 0: the kernel's choice."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 0.0
    endpoint = _Endpoint(server)
    paths = (TRANSCRIPTIONS_PATH, SPEECH_PATH)
    app = cast(Any, Starlette(routes=[Route(path, endpoint, methods=["POST"]) for path in paths]))
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(partial(hypercorn.trio.serve, app, config))
        server.url = binds[0]
        task_status.started(server.url)


@asynccontextmanager
async def open_audio_server(
    *script: Behaviour, usual: Behaviour = usual_answer, api_key: str | None = None
) -> AsyncIterator[AudioServer]:
    """A server around a block; where the script ends, `usual` answers."""
    server = AudioServer(usual, api_key, deque(script))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_audio, server)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


async def all_over(requests: Sequence[Asked]) -> None:
    """Until the server is done with every request, one way or the other."""
    for asked in requests:
        async with trio.open_nursery() as nursery:

            async def first(event: trio.Event, nursery: trio.Nursery = nursery) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, asked.finished)
            nursery.start_soon(first, asked.left)
