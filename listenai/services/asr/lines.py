"""Connections to ASR services: some kept warm, each lent to one utterance at a time.

A line that an utterance leaves before its end is reset before anybody else gets it, so that no
result of one utterance can be taken for another's.  The service learns the voice of whoever
speaks on a line: a speaker gets the line of last time where it is free, and another's only
after a reset.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs
import trio
from trio_websocket import WebSocketConnection

from listenai.errors import TranscriberAway, TranscriberError
from listenai.services.asr.protocol import (
    Command,
    Configure,
    Error,
    InvalidMessage,
    Ready,
    Reset,
    ServiceMessage,
    WasReset,
    read_message,
    write,
)
from listenai.services.pool import Unreachable, Upstream, awake, next_awake_at, problems_of
from listenai.services.sockets import LOST, open_socket, why_lost

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0  # for connection, handshake and `ready` together
PING_SECONDS, PONG_SECONDS = 20.0, 10.0
IDLE_SECONDS = 60.0  # a line beyond the warm ones is closed after this
MAX_MESSAGE_BYTES = 1 << 20  # of a service; the longest results are some kilobytes

News = ServiceMessage | Unreachable  # what an utterance is told of its line


@attrs.define(eq=False)
class Line:
    """One connection to a service, which is ready."""

    upstream: Upstream
    ready: Ready
    socket: WebSocketConnection
    speaker: object = None  # whose voice the service has learned here
    idle_since: float = attrs.field(factory=trio.current_time)
    over: trio.Event = attrs.field(factory=trio.Event)  # to be closed
    _tell: Callable[[News], None] | None = None  # the utterance; None: there is none
    _configured: Configure | None = None  # what was sent last
    _resets: int = 0  # sent or to be sent, and not answered
    _to_reset: trio.Event = attrs.field(factory=trio.Event)

    @property
    def is_free(self) -> bool:
        """Whether an utterance may have it."""
        return self._tell is None and not self._resets and not self.over.is_set()

    def lend(self, tell: Callable[[News], None]) -> None:
        """An utterance begins: it is told everything, and Unreachable when the line is lost."""
        self._tell = tell
        self.upstream.load += 1

    def give_back(self, *, finished: bool) -> None:
        """The utterance is over; what was not `finished` is forgotten by the service too."""
        self._tell = None
        self.upstream.load -= 1
        self.idle_since = trio.current_time()
        if not finished:
            self._resets += 1
            self._to_reset.set()

    async def begin(self, speaker: object, settings: Configure) -> None:
        """Makes the service expect this speaker, with these settings."""
        if self.speaker is not None and self.speaker is not speaker:
            self._resets += 1
            await self.send(Reset())
        self.speaker = speaker
        if self._configured != settings:
            await self.send(settings)
            self._configured = settings

    async def send(self, message: Command | bytes) -> None:
        """Sends audio or a command; raises Unreachable."""
        if self.over.is_set():
            raise Unreachable("the connection is lost")
        try:
            await self.socket.send_message(
                message if isinstance(message, bytes) else write(message)
            )
        except LOST as error:
            raise Unreachable(why_lost(error)) from error
        except trio.Cancelled:
            self.over.set()  # half a message may have left
            raise

    async def watch(self) -> None:
        """Reads, pings and resets until it is over; raises one of LOST, in a group."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._reset)
            nursery.start_soon(self._ping)
            await self.over.wait()
            nursery.cancel_scope.cancel()

    def lose(self, why: str) -> None:
        """There is no connection any more."""
        self.over.set()
        if self._tell is not None:
            self._tell(Unreachable(why))

    async def _read(self) -> None:
        while True:
            message = read_message(await _text_of(self.socket))
            if isinstance(message, Error):
                self._configured = None  # it may be this that was refused
            if isinstance(message, WasReset):
                self._resets -= 1
            elif self._tell is not None:
                self._tell(message)

    async def _reset(self) -> None:
        while True:
            await self._to_reset.wait()
            self._to_reset = trio.Event()
            await self.send(Reset())

    async def _ping(self) -> None:
        while True:
            await trio.sleep(PING_SECONDS)
            with trio.move_on_after(PONG_SECONDS) as waiting:
                await self.socket.ping()
            if waiting.cancelled_caught:
                raise Unreachable(f"no answer to a ping within {PONG_SECONDS:g} s")
            self.upstream.answered()


class Lines:
    """All lines to all services; alive while `serve` runs."""

    def __init__(self, urls: Sequence[str], *, warm: int, chance: Callable[[], float]) -> None:
        self.upstreams = tuple(Upstream(url) for url in urls)
        self._languages: dict[Upstream, tuple[str, ...]] = {}  # as far as they have told
        self._warm, self._chance = warm, chance
        self._lines: list[Line] = []
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()

    @property
    def languages(self) -> tuple[str, ...]:
        """What the services understand, each language once; empty until one has told."""
        known = (language for each in self._languages.values() for language in each)
        return tuple(dict.fromkeys(known))

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keeps lines warm and closes those that nobody needs, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                while True:
                    await self._wait_changed(until=await self._tend())
            finally:
                self._nursery = None

    async def wait_ready(self) -> None:
        """Waits until a service has answered."""
        while not self._lines:
            await self._wait_changed(until=math.inf)

    async def take(self, speaker: object, language: str, tell: Callable[[News], None]) -> Line:
        """A line for one utterance, to be given back; TranscriberAway when nobody answers.

        Raises TranscriberError where no service understands the language.
        """
        line = next((line for line in self._free() if line.speaker is speaker), None)
        if line is None or not self._may_understand(line.upstream, language):
            line = await self._choose(language)
        line.lend(tell)
        self._tell_changed()
        return line

    def give_back(self, line: Line, *, finished: bool) -> None:
        """The utterance is over."""
        line.give_back(finished=finished)
        if finished:
            line.upstream.answered()
        self._tell_changed()

    def give_up(self, line: Line, why: str) -> None:
        """This service takes too long: the line is closed, and others are asked first."""
        line.upstream.failed(trio.current_time(), f"{line.upstream.name}: {why}", self._chance())
        line.over.set()

    def pause_seconds(self) -> float:
        """How long to wait before it makes sense to ask again."""
        rest = next_awake_at(self.upstreams) - trio.current_time()
        return max(rest, 0.0) + 0.05 * self._chance()

    # --- choosing ----------------------------------------------------------------------------

    def _free(self) -> list[Line]:
        return [line for line in self._lines if line.is_free]

    def _may_understand(self, upstream: Upstream, language: str) -> bool:
        return language in self._languages.get(upstream, (language,))

    async def _choose(self, language: str) -> Line:
        """A free line to the least loaded service, or a new one where it has none."""
        able = [each for each in self.upstreams if self._may_understand(each, language)]
        if not able:
            raise TranscriberError(
                f"no speech recognition service understands {language!r}; allowed: "
                f"{', '.join(self.languages)}"
            )
        for upstream in awake(able, trio.current_time()):
            free = [line for line in self._free() if line.upstream is upstream]
            if free:
                # Another speaker's line costs a reset and what was learned of that voice: the
                # one that was left longest ago.
                return min(free, key=lambda line: (line.speaker is not None, line.idle_since))
            try:
                line = await self._connect(upstream)
            except Unreachable:
                continue
            if self._may_understand(upstream, language):
                return line
        raise TranscriberAway(f"no speech recognition service answers: {problems_of(able)}")

    # --- connections -------------------------------------------------------------------------

    async def _connect(self, upstream: Upstream) -> Line:
        """A new line; raises Unreachable."""
        if self._nursery is None:
            raise Unreachable("the client of the speech recognition service is not running")
        line: Line = await self._nursery.start(self._hold, upstream)
        return line

    async def _hold(self, upstream: Upstream, *, task_status: trio.TaskStatus[Line]) -> None:
        """One line, from its handshake to its end."""
        line: Line | None = None
        problem = "the client was closed"
        deadline = trio.current_time() + CONNECT_SECONDS
        try:
            async with open_socket(
                upstream.url, seconds=CONNECT_SECONDS, max_message_bytes=MAX_MESSAGE_BYTES
            ) as socket:
                line = Line(upstream, await _wait_ready(socket, deadline), socket)
                if upstream.failures or upstream not in self._languages:
                    _log.info("asr_service_ready upstream=%s", upstream.name)
                self._languages[upstream] = line.ready.languages
                self._lines.append(line)
                self._tell_changed()
                task_status.started(line)
                await line.watch()
        except* (*LOST, InvalidMessage) as group:
            problem = f"{upstream.name}: {why_lost(group)}"
            level = logging.DEBUG if upstream.failures else logging.WARNING  # once is enough
            _log.log(level, "asr_service_lost: %s", problem)
            upstream.failed(trio.current_time(), problem, self._chance())
        except* Exception as group:  # a mistake of ours costs this line, not the server
            problem = f"{upstream.name}: {why_lost(group)}"
            _log.error("asr_line_failed: %s", problem, exc_info=group)
            upstream.failed(trio.current_time(), problem, self._chance())
        finally:
            if line is not None:
                self._lines.remove(line)
                line.lose(problem)
                self._tell_changed()
        if line is None:
            raise Unreachable(problem)

    async def _tend(self) -> float:
        """Opens a warm line or closes old ones; when to look again."""
        now = trio.current_time()
        free = self._free()
        if len(free) < self._warm:
            for upstream in _fewest_first(awake(self.upstreams, now), free):
                try:
                    await self._connect(upstream)
                except Unreachable:
                    continue
                return now
            return next_awake_at(self.upstreams)
        spare = sorted(free, key=lambda line: line.idle_since)[: len(free) - self._warm]
        for line in spare:
            if line.idle_since + IDLE_SECONDS <= now:
                line.over.set()
        left = [line.idle_since + IDLE_SECONDS for line in spare if line.is_free]
        return min(left, default=math.inf)

    async def _wait_changed(self, *, until: float) -> None:
        changed = self._changed
        with trio.move_on_at(until):
            await changed.wait()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _fewest_first(upstreams: Iterable[Upstream], free: Sequence[Line]) -> Iterator[Upstream]:
    """Services with the fewest warm lines first, so that a second one is ready when one dies."""
    counted = {each: sum(line.upstream is each for line in free) for each in upstreams}
    yield from sorted(counted, key=lambda each: counted[each])


async def _text_of(socket: WebSocketConnection) -> str:
    message = await socket.get_message()
    if isinstance(message, bytes):
        raise InvalidMessage("binary messages: is this an ASR service?")
    return message


async def _wait_ready(socket: WebSocketConnection, deadline: float) -> Ready:
    """The service's first word; Unreachable where it will not serve us."""
    with trio.move_on_at(deadline):
        match read_message(await _text_of(socket)):
            case Ready() as ready:
                return ready
            case Error(code=code, message=message):
                raise Unreachable(f"{code}: {message}")
            case message:
                raise InvalidMessage(f"{type(message).__name__} came before ready")
    raise Unreachable("it does not say that it is ready")
