"""The chat model behind an OpenAI-compatible HTTP API: Ollama, vLLM, OpenAI, and many more.

`async with open_reply(…)` is entered when the first part of the reply is there: until then
nobody has heard anything, so a server that fails is replaced by another, or asked again.
Afterwards a failure is an error.  Every wait has a deadline; what the consumer of the reply
takes between two parts (it may be speaking) is nobody's silence and does not count.
"""

from __future__ import annotations

import logging
import math
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Self

import attrs
import httpx
import trio

from listenai.engines.base import ChatMessage, ChatSettings, ReplyPart
from listenai.engines.openai_http import Answer, Patience, RequestBody, TooSlow
from listenai.engines.openai_request import (
    ToolNames,
    as_json,
    chat_url,
    error_text,
    explain_refusal,
    refused_field,
    request_fields,
)
from listenai.engines.openai_stream import BrokenReply, CallIds, ReplyParser, WithheldReply
from listenai.engines.upstreams import (
    Attempt,
    Outcome,
    Pause,
    Route,
    Upstream,
    read_retry_after,
)
from listenai.errors import ChatModelError, ConfigurationError
from listenai.events import ToolSchema

_log = logging.getLogger(__name__)

USAGE_SECONDS = 1.0  # what may still come after the model has stopped: what it cost

# What looks like a key, in what a server says; short dummies like "ollama" are words as well.
_SECRET = re.compile(r"\b(?:(?:sk|pk|gsk|xai)[-_]|bearer\s)[\w.*-]{6,}", re.IGNORECASE)
_MIN_SECRET = 8


class OpenAIChatModel:
    """A ChatModel that asks the first of several servers that answers.

    client: shared and pooled; its timeouts are not used.  Who made it closes it.
    api_key: "" for none; it is sent to all upstreams and never told to anyone.
    token_seconds: longest silence, before the first token and between two.
    total_seconds: longest wait for one reply altogether, with all attempts.
    retries: of each server after the first round, before the reply has begun; fewer than
        failures open its breaker, or one bad reply keeps the next from being asked for.

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
        token_seconds: float = 30.0,
        total_seconds: float = 120.0,
        connect_seconds: float = 5.0,
        retries: int = 1,
    ) -> None:
        if not upstreams:
            raise ConfigurationError(["a language model needs one base URL at least"])
        if not re.fullmatch(r"[!-~]*", api_key):
            raise ConfigurationError(
                ["the key of the language model has characters that no HTTP header can have"]
            )
        _check_urls(upstreams)
        self.upstreams = tuple(upstreams)
        self._client = client
        self._model = model
        self._random = random
        self._api_key = api_key
        self._token_seconds = token_seconds
        self._total_seconds = total_seconds
        self._connect_seconds = connect_seconds
        self._retries = retries

    @asynccontextmanager
    async def open_reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSchema],
        settings: ChatSettings,
    ) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """Streams one reply; leaving the `async with` closes the connection, or frees it.

        Raises ChatModelError, on entering or while streaming, in words for the user.
        """
        question = _Question(messages, tools, settings, ToolNames(tools))
        patience = Patience(
            min(self._token_seconds, settings.token_seconds),
            min(self._total_seconds, settings.reply_seconds),
        )
        attempt, reply = await self._begin(question, patience)
        try:
            yield reply
        finally:
            if attempt.outcome is Outcome.BEGUN:
                attempt.report(Outcome.ANSWERED, trio.current_time())
            await reply.aclose()

    async def _begin(self, question: _Question, patience: Patience) -> tuple[Attempt, _Reply]:
        """The first reply that begins: one server after the other, and again after a pause."""
        route = Route(self.upstreams, self._retries, self._random.random)
        while step := route.next(trio.current_time()):
            if isinstance(step, Pause):
                await patience.pause(step.until)
            elif reply := await self._try(step, question, patience):
                return step, reply
        raise ChatModelError(route.problem(trio.current_time()), timed_out=route.timed_out)

    async def _try(
        self, attempt: Attempt, question: _Question, patience: Patience
    ) -> _Reply | None:
        """A reply that has begun, or None: the attempt then knows why not."""
        patience.progress()
        try:
            with self._judging(attempt):
                answer = await self._ask(attempt.upstream, question, patience)
                parser = ReplyParser(question.names, CallIds(question.messages))
                reply = _Reply(answer, parser, patience, partial(self._judging, attempt))
                await reply.begin()
                attempt.report(Outcome.BEGUN, trio.current_time())
                return reply
        except _Failure as failure:
            patience.check()
            name, outcome = attempt.upstream.name, failure.outcome.value
            _log.warning("chat_attempt_failed: upstream=%s outcome=%s", name, outcome)
            return None

    async def _ask(self, upstream: Upstream, question: _Question, patience: Patience) -> Answer:
        """An HTTP answer that is no error; fields that the server refuses are left out."""
        without = set(upstream.refused_fields)
        while True:
            fields = question.fields(self._model, without)
            answer = await self._post(upstream, as_json(fields), patience)
            if 200 <= answer.status < 300:
                upstream.refused_fields |= without
                return await self._uncompressed(answer, upstream)
            says = await answer.read_refusal(patience)
            field = refused_field(says, fields) if answer.status in {400, 422} else None
            if field is None:
                raise self._refusal(answer, says, upstream)
            without.add(field)

    async def _post(self, upstream: Upstream, body: bytes, patience: Patience) -> Answer:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",  # a compressed stream comes in lumps
        }
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = self._client.build_request(
            "POST",
            chat_url(upstream.base_url),
            content=body,
            headers=headers,
            timeout=httpx.Timeout(None, connect=self._connect_seconds, pool=self._connect_seconds),
        )
        request.stream = RequestBody(body)
        with patience.waiting():
            return Answer(await self._client.send(request, stream=True, follow_redirects=False))

    async def _uncompressed(self, answer: Answer, upstream: Upstream) -> Answer:
        """The answer, unless it is compressed, though it was asked not to be."""
        if (encoding := answer.header("Content-Encoding")) in {None, "", "identity"}:
            return answer
        await answer.aclose()
        problem = f"{upstream.name} compresses its answers ({encoding}): it must be told not to"
        raise _Failure(Outcome.REFUSED, problem)

    def _refusal(self, answer: Answer, says: bytes, upstream: Upstream) -> _Failure:
        """What an HTTP error means for the reply, and for the server."""
        told = "" if answer.status == 401 else error_text(says)  # which may show the key
        problem = explain_refusal(answer.status, told, model=self._model, name=upstream.name)
        if answer.status == 429 and "quota" not in told.lower():
            wait = read_retry_after(answer.header("Retry-After"), answer.header("Date"))
            return _Failure(Outcome.LIMITED, problem, wait)
        passes = answer.status >= 500 or answer.status in {408, 409, 425}
        return _Failure(Outcome.BROKEN if passes else Outcome.REFUSED, problem)

    @contextmanager
    def _judging(self, attempt: Attempt) -> Iterator[None]:
        """Turns what goes wrong inside into a report about the server and one kind of error."""
        name = attempt.upstream.name
        try:
            with _translating(name, self._connect_seconds):
                yield
        except _Failure as failure:
            problem = self._without_secrets(str(failure))
            now = trio.current_time()
            attempt.report(failure.outcome, now, problem=problem, retry_after=failure.retry_after)
            raise _Failure(failure.outcome, problem) from failure
        except BaseException:
            attempt.report(Outcome.ABANDONED, trio.current_time())
            raise

    def _without_secrets(self, text: str) -> str:
        if len(self._api_key) >= _MIN_SECRET:
            text = text.replace(self._api_key, "[key]")
        return _SECRET.sub("[key]", text)


def _check_urls(upstreams: Sequence[Upstream]) -> None:
    """httpx is stricter about hosts than the standard library."""
    for upstream in upstreams:
        try:
            httpx.URL(chat_url(upstream.base_url))
        except httpx.InvalidURL as error:
            raise ConfigurationError(
                [f"{upstream.name!r} is not the base URL of a language model: {error}"]
            ) from error


class _Failure(Exception):
    """An attempt came to nothing; the message names the server."""

    def __init__(self, outcome: Outcome, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.outcome = outcome
        self.retry_after = retry_after


@contextmanager
def _translating(name: str, connect_seconds: float) -> Iterator[None]:
    """What httpx raises, and what the parser does, as a failure of the server `name`."""
    try:
        yield
    except (TooSlow, BrokenReply, WithheldReply) as error:
        outcome = _OUTCOMES[type(error)]
        raise _Failure(outcome, f"the language model at {name} {error}") from error
    except httpx.ConnectTimeout as error:
        problem = f"{name} cannot be reached within {connect_seconds:g} s"
        raise _Failure(Outcome.SILENT, problem) from error
    except httpx.PoolTimeout as error:  # ours is the limit: it says nothing of the server
        problem = f"no connection to {name} was free for {connect_seconds:g} s"
        raise _Failure(Outcome.REFUSED, problem) from error
    except httpx.ConnectError as error:
        why = " ".join(str(error).split())
        raise _Failure(Outcome.BROKEN, f"{name} cannot be reached ({why})") from error
    except httpx.TransportError as error:
        problem = f"the language model at {name} broke the connection off"
        raise _Failure(Outcome.BROKEN, problem) from error


_OUTCOMES = {
    TooSlow: Outcome.SILENT,
    BrokenReply: Outcome.BROKEN,
    WithheldReply: Outcome.REFUSED,
}


@attrs.frozen
class _Question:
    """What a reply is asked for."""

    messages: Sequence[ChatMessage]
    tools: Sequence[ToolSchema]
    settings: ChatSettings
    names: ToolNames

    def fields(self, model: str, without: set[str]) -> dict[str, Any]:
        return request_fields(
            self.messages,
            self.tools,
            self.settings,
            model=model,
            names=self.names,
            refused=without,
        )


class _Reply:
    """The iterator over one reply's parts; driven by hand, so no task and no generator is left."""

    def __init__(
        self,
        answer: Answer,
        parser: ReplyParser,
        patience: Patience,
        judging: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._answer = answer
        self._parser = parser
        self._patience = patience
        self._judging = judging
        self._ready: deque[ReplyPart] = deque()
        self._usage_due = math.inf

    async def begin(self) -> None:
        """Waits for the first part."""
        try:
            await self._fill()
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReplyPart:
        if self._ready:
            await trio.lowlevel.checkpoint()
        else:
            try:
                with self._judging():
                    await self._fill()
            except _Failure as failure:
                late = failure.outcome is Outcome.SILENT
                raise ChatModelError(str(failure), timed_out=late) from failure
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def _fill(self) -> None:
        """Reads until there is a part, or no more will come."""
        parser = self._parser
        while not self._ready and not parser.is_over:
            before = parser.chunks_read
            data = await (self._read_usage() if parser.is_finished else self._read())
            self._ready.extend(parser.end() if data is None else parser.receive(data))
            if parser.chunks_read > before:  # comments alone keep nobody patient
                self._patience.progress()

    async def _read(self) -> bytes | None:
        with self._patience.waiting():
            return await self._answer.read()

    async def _read_usage(self) -> bytes | None:
        """The model has stopped: what still comes is welcome, but not waited for."""
        self._usage_due = min(self._usage_due, trio.current_time() + USAGE_SECONDS)
        with trio.move_on_at(self._usage_due), suppress(httpx.TransportError):
            return await self._answer.read()
        return None

    async def aclose(self) -> None:
        """Stops the model, if it has not stopped."""
        try:
            if self._parser.is_over:
                await self._answer.drain()
        finally:
            await self._answer.aclose()
