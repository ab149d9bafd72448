"""A stand-in for a language model's server: OpenAI's chat completions on a real socket.

In a test, `open_openai_server()` runs it beside the client, records what it is asked, and gives
one answer of its script after the other, faults included.  As a process,
`python tests/openai_server.py` prints its URL and echoes what the user says, so that it can be
killed in the middle of an answer.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

CHAT_PATH = "/v1/chat/completions"
MODEL = "stand-in"


# --- what an answer is made of -----------------------------------------------------------


@attrs.frozen
class Sleep:
    """Nothing is sent for so many seconds; for ever where they are infinite."""

    seconds: float = math.inf


@attrs.frozen
class Cut:
    """The connection is lost in the middle of the answer."""


Step = bytes | Sleep | Cut


@attrs.frozen
class Answer:
    """What one request gets: a head, after some seconds, and a body step by step."""

    steps: Sequence[Step]
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    media_type: str = "text/event-stream"
    head_after: float = 0.0  # seconds; infinite: it never answers


@attrs.define(eq=False)
class Asked:
    """One request, and what became of it."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    client_port: int  # tells connections apart
    finished: trio.Event = attrs.field(factory=trio.Event)  # the whole answer was sent
    left: trio.Event = attrs.field(factory=trio.Event)  # the client hung up before that

    @property
    def last_text(self) -> str:
        """What the last message says."""
        return str(self.body["messages"][-1]["content"])


Behaviour = Answer | Callable[[Asked], Answer]


def event(data: object) -> bytes:
    """One server-sent event; text is sent as it is, all else as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\n\n".encode()


DONE = event("[DONE]")


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None) -> bytes:
    """One chunk of a reply."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "model": MODEL, "choices": [choice]})


def usage(prompt_tokens: int, completion_tokens: int) -> bytes:
    """The chunk that tells the costs; it has no choices."""
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return event({"object": "chat.completion.chunk", "choices": [], "usage": counts})


# --- answers -----------------------------------------------------------------------------


def tokens(text: str) -> list[str]:
    """Words with the space before them."""
    words = text.split(" ")
    return words[:1] + [f" {word}" for word in words[1:]]


def spaced(steps: Sequence[bytes], every: float) -> list[Step]:
    """The steps with so many seconds before each."""
    if not every:
        return list(steps)
    return [step for each in steps for step in (Sleep(every), each)]


def saying(text: str, *, every: float = 0.0, cost: tuple[int, int] = (11, 7)) -> Answer:
    """A whole reply, a word at a time, with usage: the way OpenAI does it."""
    words = [chunk({"role": "assistant", "content": ""})]
    words += [chunk({"content": token}) for token in tokens(text)]
    return Answer([*spaced(words, every), chunk(finish="stop"), usage(*cost), DONE])


def calling(*calls: tuple[str, Any], every: float = 0.0, ids: Sequence[str | None] = ()) -> Answer:
    """Tool calls (name, arguments), their arguments in fragments that come in turn.

    ids: of the calls; call_1, call_2, … where it is empty, and none where one is None.
    """
    ids = ids or [f"call_{number}" for number in range(1, len(calls) + 1)]
    opened: list[bytes] = []
    pieces: list[list[bytes]] = []
    for index, ((name, arguments), call_id) in enumerate(zip(calls, ids, strict=True)):
        head = {"index": index, "type": "function", "function": {"name": name, "arguments": ""}}
        opened.append(chunk({"tool_calls": [head | ({"id": call_id} if call_id else {})]}))
        text = json.dumps(arguments)
        parts = [text[at : at + 5] for at in range(0, len(text), 5)]
        pieces.append(
            [
                chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
                for part in parts
            ]
        )
    longest = max(map(len, pieces))
    mixed = [piece[at] for at in range(longest) for piece in pieces if at < len(piece)]
    return Answer([*spaced([*opened, *mixed], every), chunk(finish="tool_calls"), DONE])


def whole(text: str) -> Answer:
    """One JSON document, though a stream was asked for."""
    message = {"role": "assistant", "content": text}
    document = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    }
    return Answer([json.dumps(document).encode()], media_type="application/json")


def refusing(
    status: int, message: str = "no", *, retry_after: str | None = None, **more: str
) -> Answer:
    """An HTTP error with OpenAI's explanation."""
    body = json.dumps({"error": {"message": message, "type": "stand_in_error", **more}}).encode()
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Answer([body], status, headers, "application/json")


def _begun(text: str) -> list[Step]:
    return [chunk({"content": token}) for token in tokens(text)]


def stalling(text: str) -> Answer:
    """Says this and then nothing more, for ever."""
    return Answer([*_begun(text), Sleep()])


def cutting(text: str) -> Answer:
    """Says this; then the connection is lost."""
    return Answer([*_begun(text), Cut()])


def ending_early(text: str) -> Answer:
    """Says this and ends, without a reason and without [DONE]."""
    return Answer(_begun(text))


def garbling(text: str) -> Answer:
    """Says this; then a chunk that is no JSON."""
    return Answer([*_begun(text), event('{"choices": [{'), DONE])


def failing(text: str, message: str) -> Answer:
    """Says this; then an error comes inside the stream."""
    return Answer([*_begun(text), event({"error": {"message": message}}), DONE])


NEVER = Answer([], head_after=math.inf)
NO_CHOICES = Answer([usage(11, 0), DONE])


# --- the server --------------------------------------------------------------------------


@attrs.define(eq=False)
class OpenAIServer:
    """A running server: its script comes first, then `usual` answers everything."""

    usual: Behaviour
    api_key: str | None = None  # else 401
    models: Sequence[str] | None = None  # else 404; None: any
    refused_fields: Sequence[str] = ()  # of a request: 400
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
        if refusal := self._refuse(asked):
            return refusal
        behaviour = self.script.popleft() if self.script else self.usual
        return behaviour if isinstance(behaviour, Answer) else behaviour(asked)

    def _refuse(self, asked: Asked) -> Answer | None:
        given = asked.headers.get("authorization", "")
        if self.api_key is not None and given != f"Bearer {self.api_key}":
            return refusing(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")
        if self.models is not None and (model := asked.body.get("model")) not in self.models:
            return refusing(404, f"The model `{model}` does not exist", code="model_not_found")
        for field in self.refused_fields:
            if field in asked.body:
                return refusing(400, f"Unsupported parameter: '{field}'", param=field)
        return None


@attrs.frozen
class _ChatEndpoint:
    """The ASGI application behind CHAT_PATH."""

    server: OpenAIServer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert request.client
        asked = Asked(await request.json(), dict(request.headers), request.client.port)
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
            cut = await _send_answer(answer, send)
            if not cut:
                asked.finished.set()
                await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()
        if cut:
            raise ConnectionAbortedError("this answer is cut off")  # Hypercorn closes


async def _send_answer(answer: Answer, send: Send) -> bool:
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


def make_app(server: OpenAIServer) -> Starlette:
    """Its HTTP: chats, and the list of models."""

    async def list_models(_request: Request) -> JSONResponse:
        models = [{"id": model, "object": "model"} for model in server.models or (MODEL,)]
        return JSONResponse({"object": "list", "data": models})

    return Starlette(
        routes=[
            Route(CHAT_PATH, _ChatEndpoint(server), methods=["POST"]),
            Route("/v1/models", list_models),
        ]
    )


async def serve_openai(
    server: OpenAIServer,
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
    app = cast(Any, make_app(server))
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(partial(hypercorn.trio.serve, app, config))
        server.url = binds[0]
        task_status.started(server.url)


@asynccontextmanager
async def open_openai_server(
    *script: Behaviour,
    usual: Behaviour | None = None,
    api_key: str | None = None,
    models: Sequence[str] | None = None,
    refused_fields: Sequence[str] = (),
) -> AsyncIterator[OpenAIServer]:
    """A server around a block; where the script ends, it says "Hello there." to everything."""
    server = OpenAIServer(
        usual or saying("Hello there."), api_key, models, refused_fields, deque(script)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_openai, server)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


# --- as a process ------------------------------------------------------------------------


def echo(asked: Asked, *, every: float = 0.0, tool: str = "", word: str = "") -> Answer:
    """Repeats what the user says; calls `tool` where that has `word`, and tells its result."""
    if asked.body["messages"][-1]["role"] == "tool":
        return saying(f"The tool says {asked.last_text}.", every=every)
    if tool and word.lower() in asked.last_text.lower():
        return calling((tool, {}), every=every)
    return saying(f"You said: {asked.last_text}.", every=every)


def main() -> None:
    """Prints the URL and serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--every", type=float, default=0.02, help="seconds before each token")
    parser.add_argument("--tool", default="", help="is called, without arguments, on --word")
    parser.add_argument("--word", default="", help='in what the user says; "" for always')
    parser.add_argument("--api-key", default=None, help="others get a 401")
    given = parser.parse_args()
    usual = partial(echo, every=given.every, tool=given.tool, word=given.word)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            server = OpenAIServer(usual, given.api_key)
            print(await nursery.start(serve_openai, server, given.port), flush=True)

    trio.run(run)


if __name__ == "__main__":
    main()
