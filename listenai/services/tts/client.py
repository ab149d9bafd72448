"""A Synthesizer that is a TTS service, or several of which the least loaded one is asked.

Connections are made before they are needed and kept; a connection speaks one sentence at a time.
A sentence of which nothing has come yet is asked of the next service when one fails; afterwards
a lost connection is SynthesizerAway, and the caller decides what to say again.
"""

from __future__ import annotations

import itertools
import logging
import random as chance
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio
from trio_websocket import WebSocketConnection

from listenai.audio import SAMPLE_BYTES
from listenai.engines.base import SpeechChunk
from listenai.errors import ConfigurationError, SynthesizerAway, SynthesizerError
from listenai.services.pool import Unreachable, Upstream, problems_of
from listenai.services.sockets import LOST, open_socket, why_lost
from listenai.services.tts.link import MAX_SENTENCE_SECONDS, Link, LinkDeadlines, Speech
from listenai.services.tts.messages import Failed, Mode, Ready, Synthesize, sendable
from listenai.services.tts.protocol import TtsProtocolError, decode_reply

_log = logging.getLogger(__name__)

WARM_LINKS = 1  # to each service, beside those that speak
MAX_IDLE_LINKS = 4  # a crowd's connections are closed when it has gone
MAX_LINKS = 64  # to each service
# A sentence in mode "full" is one message, at a rate of 48 kHz or less.
MAX_MESSAGE_BYTES = int(MAX_SENTENCE_SECONDS * 48_000) * SAMPLE_BYTES


@attrs.define(eq=False)
class _Line:
    """One service, and the connections to it."""

    upstream: Upstream
    ready: Ready | None = None  # the last one
    links: set[Link] = attrs.field(factory=set)
    idle: list[Link] = attrs.field(factory=list)
    connecting: set[object] = attrs.field(factory=set)  # one for each that is being made

    def is_away(self) -> bool:
        """Whether it was tried, and there is no connection."""
        return not self.links and self.upstream.failures > 0

    def wants_link(self, waiting: int) -> bool:
        """Whether one more connection should be made; after a failure one finds out for all."""
        have, wanted = len(self.idle) + len(self.connecting), WARM_LINKS + waiting
        room = len(self.links) + len(self.connecting) < MAX_LINKS
        return have < wanted and room and not (self.upstream.failures and self.connecting)


class TtsServiceSynthesizer:
    """Speaks through TTS services; `run` has to be running.

    urls: like ws://127.0.0.1:9300/tts.  random: for jitter.
    mode, cfg_value, inference_timesteps, style: of every request; None: the engine's own.
    Raises ConfigurationError for URLs that are none.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        random: chance.Random,
        mode: str = Mode.STREAMING,
        cfg_value: float | None = None,
        inference_timesteps: int | None = None,
        style: str | None = None,
        deadlines: LinkDeadlines | None = None,
    ) -> None:
        if not urls:
            raise ConfigurationError(["speech synthesis needs the URL of one service at least"])
        self._lines = [_Line(Upstream(url)) for url in urls]
        self._random = random
        self._deadlines = deadlines or LinkDeadlines()
        self._mode = Mode(mode)
        self._parameters = {
            "cfg_value": cfg_value,
            "inference_timesteps": inference_timesteps,
            "style": style,
        }
        self._sample_rate: int | None = None
        self._numbers = itertools.count(1)
        self._waiting = 0  # sentences without a connection
        self._news = trio.Event()  # of connections and those who need one

    # --- a Synthesizer -----------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        """Hz of the audio; raises SynthesizerAway before a service has told."""
        if self._sample_rate is None:
            raise SynthesizerAway(self._problem())
        return self._sample_rate

    @property
    def voices(self) -> Mapping[str, str]:
        """The voices that all services have; none before one has told."""
        known = [line.ready.voices for line in self._lines if line.ready]
        first = known[0] if known else {}
        return {
            voice_id: told
            for voice_id, told in first.items()
            if all(voice_id in voices for voices in known)
        }

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        """Streams one sentence; entered with its first audio.  Leaving early cancels it there.

        Raises SynthesizerAway when no service can be reached, or when one is lost in mid
        sentence, and SynthesizerError when the service cannot say it, or says nothing too long.
        """
        text = sendable(text)
        if not text.strip():
            yield _Silence()
            return
        try:
            request = Synthesize(
                f"{next(self._numbers)}",
                text,
                voice_id,
                self._mode,
                language,
                **self._parameters,  # type: ignore[arg-type]
            )
        except ValueError as error:
            raise SynthesizerError(f"speech synthesis cannot say this: {error}") from error
        link, speech = await self._begin(request)
        try:
            yield speech
        finally:
            link.leave(speech)

    async def ready(self, seconds: float) -> None:
        """Waits until a service has told its voices; raises SynthesizerAway after the time."""
        with trio.move_on_after(seconds):
            while self._sample_rate is None:
                await self._news.wait()
        if self._sample_rate is None:
            raise SynthesizerAway(f"{self._problem()}; waited {seconds:g} s")

    # --- a sentence --------------------------------------------------------------------------

    async def _begin(self, request: Synthesize) -> tuple[Link, Speech]:
        """The sentence and the connection on which it has begun: each service is asked once."""
        rate = self.sample_rate
        tried: list[Upstream] = []
        failure: SynthesizerError | None = None
        while True:
            try:
                link = await self._take_link(tried)
            except SynthesizerAway as away:
                raise failure or away from None
            if link.ready.sample_rate != rate:  # it came back with another engine
                self._finish(link, None)
                raise SynthesizerAway(f"{link.upstream.name} speaks at another rate now")
            speech = link.speak(request)
            try:
                await speech.begin()
            except SynthesizerError as error:
                link.leave(speech)
                tried.append(link.upstream)
                failure = error
            except BaseException:
                link.leave(speech)
                raise
            else:
                return link, speech

    async def _take_link(self, tried: Collection[Upstream]) -> Link:
        """An idle connection of the least loaded service that is well; waits for one."""
        self._waiting += 1
        try:
            with trio.move_on_after(self._deadlines.connect):
                while True:
                    left = [line for line in self._lines if line.upstream not in tried]
                    if link := self._idle_link(left):
                        return link
                    if all(line.is_away() for line in left):
                        break
                    self._tell()
                    await self._news.wait()
            raise SynthesizerAway(self._problem())
        finally:
            self._waiting -= 1

    def _idle_link(self, lines: Sequence[_Line]) -> Link | None:
        now = trio.current_time()
        well_first = sorted(
            lines, key=lambda line: (line.upstream.rests_until > now, line.upstream.load)
        )
        for line in well_first:
            if line.idle:
                line.upstream.load += 1
                self._tell()
                return line.idle.pop()
        return None

    def _problem(self) -> str:
        return f"speech synthesis is away: {problems_of([line.upstream for line in self._lines])}"

    # --- connections -------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps connections to all services until cancelled; starts at once."""
        async with trio.open_nursery() as nursery:
            for line in self._lines:
                nursery.start_soon(self._maintain, line, nursery)
            task_status.started()

    async def _maintain(self, line: _Line, nursery: trio.Nursery) -> None:
        while True:
            while line.wants_link(self._waiting):
                if (now := trio.current_time()) < line.upstream.rests_until:
                    await trio.sleep(line.upstream.rests_until - now)
                    continue
                line.connecting.add(attempt := object())
                nursery.start_soon(self._connect, line, attempt)
            await self._news.wait()

    async def _connect(self, line: _Line, attempt: object) -> None:
        """One connection from its beginning to its loss."""
        url, deadlines = line.upstream.url, self._deadlines
        try:
            async with open_socket(
                url, seconds=deadlines.connect, max_message_bytes=MAX_MESSAGE_BYTES
            ) as socket:
                ready = await _receive_ready(socket, deadlines.connect)
                link = Link(line.upstream, socket, ready, deadlines, self._finish)
                self._welcome(line, link)
                line.connecting.discard(attempt)
                await self._run_link(line, link)
        except* LOST as group:
            self._learn_loss(line.upstream, why_lost(group))
        except* Exception as group:  # a mistake of ours costs this connection, not the server
            _log.error("tts_connection_failed: upstream=%s", line.upstream.name, exc_info=group)
            self._learn_loss(line.upstream, why_lost(group))
        finally:
            line.connecting.discard(attempt)
            self._tell()

    async def _run_link(self, line: _Line, link: Link) -> None:
        try:
            await link.run()
        except* LOST as group:  # told before the goodbye, which may take its time
            self._learn_loss(line.upstream, why_lost(group))
        finally:
            self._forget(line, link)

    def _welcome(self, line: _Line, link: Link) -> None:
        """Takes a connection in; raises Unreachable where its rate is not that of the others."""
        rate, known = link.ready.sample_rate, self._sample_rate
        if rate != known and any(each.links for each in self._lines):
            raise Unreachable(
                f"it speaks at {rate} Hz and the others at {known}: they need the same engine"
            )
        if not line.links:
            _log.info("tts_connected: upstream=%s", line.upstream.name)
        self._sample_rate, line.ready = rate, link.ready
        line.links.add(link)
        line.idle.append(link)
        line.upstream.answered()
        self._tell()

    def _forget(self, line: _Line, link: Link) -> None:
        line.links.remove(link)
        if link in line.idle:
            line.idle.remove(link)
        else:
            line.upstream.load -= 1
        self._tell()

    def _learn_loss(self, upstream: Upstream, problem: str) -> None:
        told = problem if upstream.name in problem else f"{upstream.name}: {problem}"
        if told != upstream.problem:
            _log.warning("tts_lost: %s", told)
        upstream.failed(trio.current_time(), told, self._random.random())

    def _finish(self, link: Link, speech: Speech | None) -> None:
        """A sentence is over: the next one may begin on this connection."""
        upstream = link.upstream
        line = next(line for line in self._lines if line.upstream is upstream)
        if speech and speech.failure:
            _log.warning("tts_failed: upstream=%s", upstream.name)
            upstream.failed(trio.current_time(), str(speech.failure), self._random.random())
        elif speech and speech.over:
            upstream.answered()
        if len(line.idle) < MAX_IDLE_LINKS:
            upstream.load -= 1
            line.idle.append(link)
        else:
            link.scope.cancel()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


async def _receive_ready(socket: WebSocketConnection, seconds: float) -> Ready:
    """The first message, `ready`; raises Unreachable where none comes in time."""
    said = "it did not get ready in time: is this a TTS service?"
    with trio.move_on_after(seconds):
        while True:
            message = await socket.get_message()
            try:
                reply = decode_reply(message if isinstance(message, str) else "")
            except TtsProtocolError as error:
                raise Unreachable(f"it is no TTS service: {error}") from error
            if isinstance(reply, Ready):
                return reply
            if isinstance(reply, Failed):
                said = reply.message
    raise Unreachable(said)


class _Silence:
    """The speech of a text without words."""

    def __aiter__(self) -> _Silence:
        return self

    async def __anext__(self) -> SpeechChunk:
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration
