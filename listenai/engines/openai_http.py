"""One HTTP answer that is read as it comes, and how long it is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import httpx
import trio

from listenai.errors import ChatModelError

DRAIN_SECONDS = 0.1  # for the end of the HTTP answer, without which no connection is used again
CLOSE_SECONDS = 1.0  # closing a socket takes none
MAX_REFUSAL_BYTES = 64 * 1024  # of the explanation of an HTTP error


class RequestBody(httpx.AsyncByteStream):
    """A request's body: httpx's own are generators, which nobody closes on a cancellation."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._left = [body]

    def __aiter__(self) -> Self:
        self._left = [self._body]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class TooSlow(Exception):
    """A wait has reached its deadline; the message is a predicate of the server."""


class Patience:
    """How long one reply may still be waited for; only waiting uses it up.  In seconds."""

    def __init__(self, token_seconds: float, total_seconds: float) -> None:
        self._token_seconds = self._token_left = token_seconds
        self._total_seconds = self._total_left = total_seconds

    def progress(self) -> None:
        """Something came, or another server is asked: the silence begins anew."""
        self._token_left = self._token_seconds

    def check(self) -> None:
        """Raises ChatModelError when there is no time for anything more."""
        if self._total_left <= 0:
            raise ChatModelError(f"no language model has answered within {self._total_seconds:g} s")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Raises TooSlow when what is inside takes too long."""
        began = trio.current_time()
        in_all = self._total_left <= self._token_left  # which of the two ends first
        with trio.move_on_after(max(0.0, min(self._token_left, self._total_left))) as scope:
            yield
        waited = trio.current_time() - began
        self._token_left -= waited
        self._total_left -= waited
        if scope.cancelled_caught and in_all:
            self._total_left = 0.0
            raise TooSlow(f"took longer than {self._total_seconds:g} s altogether")
        if scope.cancelled_caught:
            raise TooSlow(f"sent nothing for {self._token_seconds:g} s")

    async def pause(self, until: float) -> None:
        """Sleeps, as long as there is time."""
        self._total_left -= until - trio.current_time()
        self.check()
        await trio.sleep_until(until)


class Answer:
    """One HTTP answer as it came, closed whole: httpx's generators close nothing when dropped."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = response.aiter_raw()
        self.status = response.status_code

    def header(self, name: str) -> str | None:
        value: str | None = self._response.headers.get(name)
        return value

    async def read(self) -> bytes | None:
        """The next bytes, None at the end."""
        return await anext(self._chunks, None)

    async def read_refusal(self, patience: Patience) -> bytes:
        """The explanation of an error, its beginning at least; the answer is closed then."""
        body = b""
        try:
            with patience.waiting():
                while len(body) < MAX_REFUSAL_BYTES and (data := await self.read()) is not None:
                    body += data
        finally:
            await self.aclose()
        return body

    async def drain(self) -> None:
        """Reads what is left of an answer that is over, so that its connection is used again."""
        with trio.move_on_after(DRAIN_SECONDS), suppress(httpx.HTTPError):
            while await self.read() is not None:
                pass

    async def aclose(self) -> None:
        """Frees the connection if the answer was read to its end, and closes it otherwise."""
        # Reading on, cancelled at the first wait, is what unwinds the generators.
        with trio.CancelScope(shield=True) as at_once, suppress(httpx.HTTPError):
            at_once.cancel()
            while await self.read() is not None:
                pass
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._response.aclose()
