"""The LLM service: any ChatModel as an OpenAI-compatible HTTP API.

The model is asked first and the answer begins with its first part, so that a model that cannot
answer is an HTTP error.  Who asks is watched meanwhile: when the client has gone, the model stops.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, cast

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from listenai.effects import Effects
from listenai.engines.base import ChatModel, ReplyPart
from listenai.errors import ChatModelError, ConfigurationError
from listenai.services.llm.completion import Completion, Fields, server_sent
from listenai.services.llm.protocol import MAX_BODY_BYTES, ApiError, read_question

_log = logging.getLogger(__name__)

MAX_REPLIES = 64  # at a time: the model's queue is not ours to fill
RETRY_AFTER_SECONDS = 1
# What is too large is read to its end, within reason: a client that still sends hears no answer.
_HEARD_OUT_BYTES = 4 * MAX_BODY_BYTES
_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy would send the whole stream at its end
]


def make_llm_app(
    chat_model: ChatModel,
    *,
    api_key: str,
    model_names: Sequence[str],
    max_replies: int = MAX_REPLIES,
    effects: Effects | None = None,
) -> Starlette:
    """POST /v1/chat/completions, GET /v1/models and /v1/models/NAME, GET /health.

    api_key: what clients send as `Authorization: Bearer …`; "": everyone may ask.
    model_names: by which the one chat model is known; others are a 404.
    """
    effects = effects or Effects()
    names = tuple(model_names)
    if not names:
        raise ConfigurationError(["the LLM service needs the name of one model at least"])
    created = int(effects.wall_clock())

    def told(name: str) -> Fields:
        return {"id": name, "object": "model", "created": created, "owned_by": "listenai"}

    async def list_models(request: Request) -> Response:
        _check_key(request, api_key)
        return JSONResponse({"object": "list", "data": [told(name) for name in names]})

    async def show_model(request: Request) -> Response:
        _check_key(request, api_key)
        name = request.path_params["name"]
        if name not in names:
            problem = f"that model does not exist here; choose one of {', '.join(names)}"
            raise ApiError(problem, status=404, param="model", code="model_not_found")
        return JSONResponse(told(name))

    async def show_health(_request: Request) -> Response:
        state = {"status": "ok", "models": list(names), "replies": completions.replies}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    completions = _Completions(chat_model, api_key, names, max_replies, effects)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", show_model),
            Route("/health", show_health),
        ],
        exception_handlers={
            ApiError: _tell_api_error,
            HTTPException: _tell_http_error,
            Exception: _tell_bug,
        },
    )


async def serve_llm(
    app: Starlette,
    *,
    host: str | None = "127.0.0.1",
    port: int = 8000,
    stop: trio.Event | None = None,
    graceful_seconds: float = 5.0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled, or gracefully until `stop` is set; starts with its base URL.

    host: None for every interface.  port: 0 for one that the kernel chooses.
    graceful_seconds: for replies that are being made.
    Raises ConfigurationError where it cannot listen.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigurationError(
            [
                f"the LLM service cannot listen on {host or 'every interface'}, port {port}: "
                f"{error.strerror or error}; choose another port or host, or stop the program "
                "that listens there"
            ]
        ) from error
    shown, bound = listeners[0].socket.getsockname()[:2]
    config = Config()
    # Hypercorn would leave a socket open that it cannot bind.
    config.bind = [f"fd://{listener.socket.detach()}" for listener in listeners]
    config.accesslog = None
    config.errorlog = _error_log()
    config.graceful_timeout = graceful_seconds
    config.include_server_header = False
    serve = partial(
        hypercorn.trio.serve,
        cast(Any, app),  # Hypercorn and Starlette name the same thing twice
        config,
        shutdown_trigger=(trio.Event() if stop is None else stop).wait,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        url = f"http://[{shown}]:{bound}/v1" if ":" in shown else f"http://{shown}:{bound}/v1"
        task_status.started(url)


def _error_log() -> logging.Logger:
    log = logging.getLogger(f"{__name__}.hypercorn")
    log.setLevel(logging.WARNING)
    return log


def _check_key(request: Request, api_key: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if not api_key:
        return
    if scheme.lower() != "bearer" or not given.strip():
        problem = "no API key was given; send it as 'Authorization: Bearer KEY'"
        raise ApiError(problem, status=401, code="missing_api_key")
    if not hmac.compare_digest(given.strip().encode(), api_key.encode()):
        raise ApiError("this API key is not the right one", status=401, code="invalid_api_key")


async def _tell_api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {
        401: {"WWW-Authenticate": "Bearer"},
        413: {"Connection": "close"},  # there may be more of the body
        429: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    }.get(error.status)
    return JSONResponse(error.body, status_code=error.status, headers=headers)


async def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = f"{request.method} {request.url.path}: {error.detail}; there is /v1/chat/completions"
    told = ApiError(problem, status=error.status_code)
    return JSONResponse(told.body, status_code=told.status, headers=error.headers)


async def _tell_bug(_request: Request, _error: Exception) -> Response:
    told = ApiError("the service has failed; its log says why", status=500, kind="server_error")
    return JSONResponse(told.body, status_code=told.status)


@attrs.define(eq=False)
class _Completions:
    """POST /v1/chat/completions, an ASGI application."""

    chat_model: ChatModel
    api_key: str
    names: Sequence[str]
    max_replies: int
    effects: Effects
    replies: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_key(Request(scope), self.api_key)
        if (body := await _body(receive)) is None:
            return
        question = read_question(body, self.names)
        if self.replies >= self.max_replies:
            problem = f"{self.max_replies} replies are being made already; try again"
            raise ApiError(problem, status=429, kind="rate_limit_error", code="rate_limit_exceeded")
        completion_id = f"chatcmpl-{self.effects.new_id()}"
        completion = Completion(question, completion_id, int(self.effects.wall_clock()))
        self.replies += 1
        failure: ApiError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                failure = await self._reply(completion, scope, receive, send)
                nursery.cancel_scope.cancel()
        finally:
            self.replies -= 1
        if failure:  # outside of the nursery: not in a group
            raise failure

    async def _reply(
        self, completion: Completion, scope: Scope, receive: Receive, send: Send
    ) -> ApiError | None:
        """Asks and answers; returns what went wrong before the answer had begun."""
        question, began = completion.question, False
        try:
            async with self.chat_model.open_reply(
                question.messages, question.tools, question.settings
            ) as parts:
                if not question.stream:
                    await _collect(completion, parts)
                else:
                    first = await anext(aiter(parts), None)
                    began = True
                    await _start_stream(send)
                    await _stream(completion, first, parts, send)
        except ChatModelError as error:
            _log.warning("llm_failed: began=%s", began)
            failure = ApiError(str(error), status=502, kind="server_error", code="llm_error")
            if not began:
                return failure
            await _send(send, server_sent(failure.body), more=False)
            return None
        if not question.stream:
            await JSONResponse(completion.whole())(scope, receive, send)
        return None


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where the client has left before its end."""
    body, size, more = bytearray(), 0, True
    while more and size <= _HEARD_OUT_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data = message.get("body", b"")
        size += len(data)
        more = message.get("more_body", False)
        if size <= MAX_BODY_BYTES:
            body += data
    if size > MAX_BODY_BYTES:
        raise ApiError(f"a request may have {MAX_BODY_BYTES} bytes at most", status=413)
    return bytes(body)


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _collect(completion: Completion, parts: AsyncIterator[ReplyPart]) -> None:
    async for part in parts:
        for _chunk in completion.add(part):
            pass


async def _start_stream(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM})


async def _stream(
    completion: Completion, first: ReplyPart | None, parts: AsyncIterator[ReplyPart], send: Send
) -> None:
    await _send(send, server_sent(completion.begin()))
    if first is not None:
        await _send_part(completion, first, send)
        async for part in parts:
            await _send_part(completion, part, send)
    for chunk in completion.end():
        await _send(send, server_sent(chunk))
    await _send(send, server_sent("[DONE]"), more=False)


async def _send_part(completion: Completion, part: ReplyPart, send: Send) -> None:
    for chunk in completion.add(part):
        await _send(send, server_sent(chunk))


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
