"""A stand-in for Azure: its speech services and its OpenAI resource on a real socket.

It refuses what Azure's documentation says is refused, and answers in the shapes given there.  How
answers are made of steps is what openai_server says.
"""

from __future__ import annotations

import io
import json
import wave
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast
from xml.etree import ElementTree

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config
from openai_server import Answer, Behaviour, Cut, Sleep, saying
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

HEARING_PATH = "/stt/speech/recognition/conversation/cognitiveservices/v1"
SPEAKING_PATH = "/tts/cognitiveservices/v1"
CHAT_PATH = "/openai/deployments/{deployment}/chat/completions"
KEY = "0123456789abcdef0123456789abcdef"
DEPLOYMENT = "my-gpt"
WAV_TYPE = "audio/wav; codecs=audio/pcm; samplerate=16000"
PCM_FORMAT = "raw-16khz-16bit-mono-pcm"
SSML = "{http://www.w3.org/2001/10/synthesis}"


@attrs.define(eq=False)
class Asked:
    """One request, and what became of it."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes
    finished: trio.Event = attrs.field(factory=trio.Event)  # the whole answer was sent
    left: trio.Event = attrs.field(factory=trio.Event)  # the client hung up before that

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of a chat."""
        return cast(dict[str, Any], json.loads(self.content))

    @property
    def pcm(self) -> bytes:
        """What was recorded."""
        with wave.open(io.BytesIO(self.content)) as recording:
            assert (recording.getnchannels(), recording.getframerate()) == (1, 16_000)
            return recording.readframes(recording.getnframes())

    @property
    def spoken(self) -> tuple[str, str]:
        """The voice and the text of SSML."""
        [voice] = ElementTree.fromstring(self.content).iter(f"{SSML}voice")
        return voice.attrib["name"], voice.text or ""


# --- answers -----------------------------------------------------------------------------


def document(found: object, status: int = 200) -> Answer:
    return Answer([json.dumps(found).encode()], status, media_type="application/json")


def heard(text: str) -> Answer:
    """A transcript in the format "simple"."""
    return document(
        {"RecognitionStatus": "Success", "Offset": 0, "Duration": 1, "DisplayText": text}
    )


def recognition(status: str) -> Answer:
    """An answer without a transcript."""
    return document({"RecognitionStatus": status, "Offset": 0, "Duration": 0})


def sounding(*pieces: bytes | Sleep | Cut) -> Answer:
    """Raw PCM, in these pieces."""
    return Answer(list(pieces), media_type="audio/basic")


def refused(status: int, code: str, message: str) -> Answer:
    """An error as Azure explains it."""
    return document({"error": {"code": code, "message": message}}, status)


# --- the server --------------------------------------------------------------------------


@attrs.define(eq=False)
class AzureServer:
    """A running stand-in: requests that Azure would take are answered by the script."""

    script: deque[Behaviour | Callable[[Asked], Answer]] = attrs.field(factory=deque)
    requests: list[Asked] = attrs.field(factory=list)
    url: str = ""
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def wait_asked(self) -> Asked:
        """Until there was a request; the last one."""
        while not self.requests:
            await self._changed.wait()
        return self.requests[-1]

    def answer(self, asked: Asked) -> Answer:
        """What a request gets."""
        self.requests.append(asked)
        self._changed.set()
        self._changed = trio.Event()
        if refusal := _refuse(asked):
            return refusal
        behaviour = self.script.popleft() if self.script else _usual(asked)
        return behaviour if isinstance(behaviour, Answer) else behaviour(cast(Any, asked))


def _usual(asked: Asked) -> Answer:
    if asked.path == HEARING_PATH:
        return heard("Hello there.")
    if asked.path == SPEAKING_PATH:
        return sounding(asked.spoken[1].encode("utf-16-le"))
    return saying("Hello there.")


def _refuse(asked: Asked) -> Answer | None:
    """What the documentation says is refused."""
    is_chat = asked.path not in {HEARING_PATH, SPEAKING_PATH}
    key = asked.headers.get("api-key" if is_chat else "ocp-apim-subscription-key")
    if key != KEY or "authorization" in asked.headers:
        return refused(401, "401", "Access denied due to invalid subscription key")
    if is_chat:
        return _refuse_chat(asked)
    fits = _is_recording(asked) if asked.path == HEARING_PATH else _is_ssml(asked)
    return None if fits else Answer([], 400)


def _is_recording(asked: Asked) -> bool:
    """With a locale as the language."""
    is_simple = asked.query.get("format") == "simple" and "-" in asked.query.get("language", "")
    return is_simple and asked.headers["content-type"] == WAV_TYPE


def _is_ssml(asked: Asked) -> bool:
    """From somebody with a name, who wants the format that we take."""
    headers = asked.headers
    wanted = headers["content-type"], headers.get("x-microsoft-outputformat")
    known = wanted == ("application/ssml+xml", PCM_FORMAT) and bool(headers.get("user-agent"))
    return known and bool(asked.spoken)


def _refuse_chat(asked: Asked) -> Answer | None:
    if "api-version" not in asked.query:
        return refused(404, "404", "Resource not found")
    if asked.path != CHAT_PATH.format(deployment=DEPLOYMENT):
        missing = "The API deployment for this resource does not exist."
        return refused(404, "DeploymentNotFound", missing)
    return None


@attrs.frozen
class _Endpoint:
    """The ASGI application behind all paths."""

    server: AzureServer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query, headers = dict(request.query_params), dict(request.headers)
        asked = Asked(request.url.path, query, headers, await request.body())
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


async def _send(answer: Answer, send: Send) -> bool:
    """Whether the connection is to be cut then."""
    await trio.sleep(answer.head_after)
    headers = {"Content-Type": answer.media_type, **answer.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
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


@asynccontextmanager
async def open_azure_server(
    *script: Behaviour | Callable[[Asked], Answer],
) -> AsyncIterator[AzureServer]:
    """A server around a block; where the script ends, it hears, speaks and chats as usual."""
    server = AzureServer(deque(script))
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.0
    paths: Sequence[str] = (HEARING_PATH, SPEAKING_PATH, CHAT_PATH)
    routes = [Route(path, _Endpoint(server), methods=["POST"]) for path in paths]
    async with trio.open_nursery() as nursery:
        serving = partial(hypercorn.trio.serve, cast(Any, Starlette(routes=routes)), config)
        [server.url] = await nursery.start(serving)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
