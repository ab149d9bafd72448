"""Asking OpenAI-compatible audio servers: one after the other, until one answers.

Both directions of speech share this: nobody has heard anything until an answer has begun, so a
server that fails is replaced by another, or asked once more.  What every server refuses is an
error; what may pass means that speech is away, and whoever asked decides how long to try again.
"""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import attrs
import httpx
import trio

from listenai.engines.openai_http import Answer, Patience, RequestBody, TooSlow
from listenai.engines.openai_request import error_text
from listenai.engines.upstreams import (
    Attempt,
    Outcome,
    Pause,
    Route,
    Upstream,
    read_retry_after,
)
from listenai.errors import ConfigurationError, EngineError

_log = logging.getLogger(__name__)
T = TypeVar("T")

CONNECT_SECONDS = 5.0
RETRIES = 1  # of each server: a connection lost by chance should not be heard of

# What looks like a key, in what a server says; short dummies are words as well.
_SECRET = re.compile(r"\b(?:(?:sk|pk|gsk|xai)[-_]|bearer\s)[\w.*-]{6,}", re.IGNORECASE)
_MIN_SECRET = 8
_UNSUPPORTED = re.compile(
    r"support|should be|unknown|unrecogni[sz]ed|unexpected|not (permitted|allowed)|forbidden|extra",
    re.IGNORECASE,
)
_REFUSALS = {
    401: "does not accept the API key: check it",
    403: "does not allow this API key to use the model: check both",
    404: "does not know the address or the model: check the URL and the model's name",
    413: "takes no requests of this size",
    429: "has had too many requests",
}


class Failure(Exception):
    """An attempt came to nothing; the message is a predicate of the server, as in "is busy"."""

    def __init__(self, outcome: Outcome, says: str, retry_after: float | None = None) -> None:
        super().__init__(says)
        self.outcome = outcome
        self.retry_after = retry_after


@attrs.frozen
class Service:
    """What servers are asked for, and the errors that tell of their failures."""

    name: str  # "speech recognition"
    path: str  # below the base URL: "audio/transcriptions"
    refused: type[EngineError]  # by all of them
    away: type[EngineError]  # may be back soon
    optional_fields: tuple[str, ...] = ()  # of requests; some servers refuse them


def service_url(base_url: str, path: str) -> str:
    """Where a service is: below /v1, unless the URL names a version or the whole path."""
    parts = urlsplit(base_url)
    base = parts.path.rstrip("/")
    if not base.endswith(f"/{path}"):
        versioned = re.search(r"/v\d\w*(/|$)", base)
        base += f"/{path}" if versioned else f"/v1/{path}"
    return urlunsplit((parts.scheme, parts.netloc, base, parts.query, ""))


class AudioServers:
    """Servers of one service, the first of which that answers is used.

    client: shared and pooled; its timeouts are not used.  Who made it closes it.
    api_key: "" for none; it is sent to all upstreams and never told to anyone.
    timeout_seconds: longest silence of a server that was asked.

    Raises ConfigurationError where there is no upstream, or URL or key cannot be used.
    """

    def __init__(
        self,
        service: Service,
        client: httpx.AsyncClient,
        upstreams: Sequence[Upstream],
        *,
        api_key: str,
        random: random.Random,
        timeout_seconds: float,
    ) -> None:
        if not upstreams:
            raise ConfigurationError([f"{service.name} needs one base URL at least"])
        if not re.fullmatch(r"[!-~]*", api_key):
            raise ConfigurationError(
                [f"the key of {service.name} has characters that no HTTP header can have"]
            )
        for upstream in upstreams:
            try:
                httpx.URL(service_url(upstream.base_url, service.path))
            except httpx.InvalidURL as error:
                raise ConfigurationError(
                    [f"{upstream.name!r} is not the base URL of {service.name}: {error}"]
                ) from error
        self.service = service
        self.upstreams = tuple(upstreams)
        self._client = client
        self._api_key = api_key
        self._random = random
        self._timeout_seconds = timeout_seconds

    async def ask(
        self,
        request: Callable[[Collection[str]], dict[str, Any]],
        begin: Callable[[Answer, Patience], Awaitable[T]],
    ) -> tuple[Attempt, T]:
        """What `begin` makes of the first answer that it accepts, and the attempt, which has BEGUN.

        request: the body as httpx takes it, given the optional fields that this server refuses.
        begin: raises Failure for an answer that is of no use; otherwise it closes the answer.
        Raises the service's errors.
        """
        route = Route(self.upstreams, RETRIES, self._random.random)
        patience = Patience(self._timeout_seconds, math.inf)
        refusing: set[Upstream] = set()
        while step := route.next(trio.current_time()):
            if isinstance(step, Pause):
                await trio.sleep_until(step.until)
                continue
            patience.progress()
            try:
                with self.judging(step):
                    begun = await self._try(step.upstream, request, begin, patience)
                    step.report(Outcome.BEGUN, trio.current_time())
                    return step, begun
            except Failure as failure:
                name, outcome = step.upstream.name, failure.outcome.value
                _log.warning("audio_attempt_failed: upstream=%s outcome=%s", name, outcome)
                if failure.outcome is Outcome.REFUSED:
                    refusing.add(step.upstream)
        error = self.service.refused if refusing >= set(self.upstreams) else self.service.away
        raise error(route.problem(trio.current_time()), timed_out=route.timed_out)

    @contextmanager
    def judging(self, attempt: Attempt) -> Iterator[None]:
        """Turns what goes wrong inside into a report about the server, and into a Failure."""
        try:
            with _translating():
                yield
        except Failure as failure:
            says = f"{self.service.name} at {attempt.upstream.name} {failure}"
            if len(self._api_key) >= _MIN_SECRET:
                says = says.replace(self._api_key, "[key]")
            says, now = _SECRET.sub("[key]", says), trio.current_time()
            attempt.report(failure.outcome, now, problem=says, retry_after=failure.retry_after)
            raise Failure(failure.outcome, says) from failure
        except BaseException:
            attempt.report(Outcome.ABANDONED, trio.current_time())
            raise

    def error(self, failure: Failure) -> EngineError:
        """What a failure after the beginning of an answer is to whoever asked."""
        refused = failure.outcome is Outcome.REFUSED
        kind = self.service.refused if refused else self.service.away
        return kind(str(failure), timed_out=failure.outcome is Outcome.SILENT)

    # --- one server --------------------------------------------------------------------------

    async def _try(
        self,
        upstream: Upstream,
        request: Callable[[Collection[str]], dict[str, Any]],
        begin: Callable[[Answer, Patience], Awaitable[T]],
        patience: Patience,
    ) -> T:
        without = set(upstream.refused_fields)
        while True:
            answer = await self._post(upstream, request(without), patience)
            if 200 <= answer.status < 300:
                break
            says = await answer.read_refusal(patience)
            field = self._refused_field(answer.status, says, without)
            if field is None:
                raise _refusal(answer, says)
            without.add(field)
        upstream.refused_fields |= without
        try:
            encoding = answer.header("Content-Encoding")
            if encoding not in {None, "", "identity"}:
                problem = f"compresses its answers ({encoding}): it must be told not to"
                raise Failure(Outcome.REFUSED, problem)
            return await begin(answer, patience)
        except BaseException:
            await answer.aclose()
            raise

    async def _post(self, upstream: Upstream, body: dict[str, Any], patience: Patience) -> Answer:
        headers = {"Accept-Encoding": "identity"}  # a compressed stream comes in lumps
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = self._client.build_request(
            "POST",
            service_url(upstream.base_url, self.service.path),
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            **body,
        )
        request.stream = RequestBody(request.read())
        with patience.waiting():
            return Answer(await self._client.send(request, stream=True, follow_redirects=False))

    def _refused_field(self, status: int, says: bytes, without: Collection[str]) -> str | None:
        """The optional field for which a request was refused, where the server names it."""
        told = says.decode("utf-8", "replace")
        if status in {400, 422} and _UNSUPPORTED.search(told):
            for field in self.service.optional_fields:
                if field in told and field not in without:
                    return field
        return None


def _refusal(answer: Answer, says: bytes) -> Failure:
    """What an HTTP error means for what was asked, and for the server."""
    status = answer.status
    told = "" if status == 401 else error_text(says)  # which may show the key
    if 300 <= status < 400:
        meaning = "has moved: set the URL to where it is now"
    else:
        meaning = _REFUSALS.get(status, "failed" if status >= 500 else "refused the request")
    problem = f"{meaning} (status {status}{': ' if told else ''}{told})"
    if status == 429 and "quota" not in told.lower():
        wait = read_retry_after(answer.header("Retry-After"), answer.header("Date"))
        return Failure(Outcome.LIMITED, problem, wait)
    passes = status >= 500 or status in {408, 409, 425}
    return Failure(Outcome.BROKEN if passes else Outcome.REFUSED, problem)


@contextmanager
def _translating() -> Iterator[None]:
    """What httpx raises as a Failure."""
    try:
        yield
    except TooSlow as error:
        raise Failure(Outcome.SILENT, str(error)) from error
    except httpx.ConnectTimeout as error:
        problem = f"cannot be reached within {CONNECT_SECONDS:g} s"
        raise Failure(Outcome.SILENT, problem) from error
    except httpx.PoolTimeout as error:  # ours is the limit: the server is not to blame
        problem = f"was not asked: no connection was free for {CONNECT_SECONDS:g} s"
        raise Failure(Outcome.LIMITED, problem) from error
    except httpx.ConnectError as error:
        why = " ".join(str(error).split())
        raise Failure(Outcome.BROKEN, f"cannot be reached ({why})") from error
    except httpx.TransportError as error:
        raise Failure(Outcome.BROKEN, "broke the connection off") from error
