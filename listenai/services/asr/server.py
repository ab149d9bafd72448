"""The ASR service: WebSocket connections, each with an ear of its own (spec 000, "ASR Service").

Three tasks serve a connection: one reads, one listens, one writes.  Reading goes on while a
segment is recognised, and recognition while the client reads nothing, both up to a bound.
"""

from __future__ import annotations

import logging
import signal
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import trio
from trio_websocket import WebSocketConnection

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.errors import EngineError
from listenai.services.asr.ear import Ear, Hearing, Inbox
from listenai.services.asr.protocol import (
    MAX_AUDIO_BYTES,
    Configured,
    Error,
    InvalidMessage,
    Ping,
    Pong,
    Ready,
    Reset,
    ServiceErrorCode,
    ServiceMessage,
    WasReset,
    read_command,
    write,
)
from listenai.services.sockets import (
    CLOSE_SECONDS,
    LOST,
    TRY_AGAIN_LATER,
    Stream,
    accept_socket,
    why_lost,
)

__all__ = ["DEFAULT_PORT", "Hearing", "run_asr", "serve_asr"]

_log = logging.getLogger(__name__)

DEFAULT_PORT = 9200  # spec 000, "Environment Variables": ASR_SERVICE_URL
PATH = "/"
HANDSHAKE_SECONDS = 10.0
# Messages for one client: seconds of partial results.  Who takes none of them is gone or stuck.
MAX_WAITING_MESSAGES = 64
BUFFER_SECONDS = 60.0  # of audio not listened to yet: twice what a client replays at once
MAX_REFUSALS = 32  # clients beyond the last place who are told so at a time
_BYTES_A_SECOND = SAMPLE_RATE * SAMPLE_BYTES


async def run_asr(
    load: AbstractAsyncContextManager[Hearing],
    *,
    host: str = "0.0.0.0",  # noqa: S104 - spec 000: services are reached from other machines
    port: int = DEFAULT_PORT,
    max_connections: int = 100,
    buffer_seconds: float = BUFFER_SECONDS,
    ping_interval: float = 30.0,
    ping_timeout: float = 300.0,
) -> None:
    """Serves until SIGTERM or SIGINT, then says goodbye to all clients; arguments of serve_asr."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    serve_asr,
                    load,
                    host=host,
                    port=port,
                    max_connections=max_connections,
                    buffer_seconds=buffer_seconds,
                    ping_interval=ping_interval,
                    ping_timeout=ping_timeout,
                )
            )
            async for number in signals:
                _log.info("asr_stopping signal=%s", signal.Signals(number).name)
                nursery.cancel_scope.cancel()
                break


async def serve_asr(
    load: AbstractAsyncContextManager[Hearing],
    *,
    host: str,
    port: int,
    max_connections: int = 100,
    buffer_seconds: float = BUFFER_SECONDS,
    ping_interval: float = 30.0,
    ping_timeout: float = 300.0,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves clients until cancelled; then each is told with close code 1001.

    load: opened once, while clients are told MODEL_NOT_READY; closed after the last of them.
    buffer_seconds: of audio that waits for each client, before it has to wait.
    ping_interval, ping_timeout: seconds; a client that does not answer is let go.
    Started with the addresses it listens on.  Raises OSError where it cannot listen, and in a
    group what loading raises.
    """
    service = _Service(max_connections, int(buffer_seconds * _BYTES_A_SECOND))
    service.ping_interval, service.ping_timeout = ping_interval, ping_timeout
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.hold, load)
        try:
            async with trio.open_nursery() as connections:
                await connections.start(trio.serve_listeners, service.serve_connection, listeners)
                addresses = [listener.socket.getsockname()[:2] for listener in listeners]
                _log.info(
                    "asr_listening %s", " ".join(f"{host}:{port}" for host, port in addresses)
                )
                task_status.started(addresses)
        finally:
            service.over.set()


@attrs.define(eq=False)
class _Service:
    """What all connections share."""

    max_connections: int
    buffer_bytes: int
    ping_interval: float = 30.0
    ping_timeout: float = 300.0
    hearing: Hearing | None = None  # None: still loading
    over: trio.Event = attrs.field(factory=trio.Event)  # the last connection has ended
    connections: int = 0
    accepted: int = 0  # in total; numbers them in the log

    async def hold(self, load: AbstractAsyncContextManager[Hearing]) -> None:
        """Loads the engines, and keeps them until all connections are over."""
        began = trio.current_time()
        _log.info("asr_loading")
        async with load as hearing:
            self.hearing = hearing
            _log.info("asr_ready seconds=%.1f", trio.current_time() - began)
            with trio.CancelScope(shield=True):  # bounded: connections close within bounds
                await self.over.wait()
            self.hearing = None

    async def serve_connection(self, stream: Stream) -> None:
        """One client, from its handshake to its end; its failure is nobody else's."""
        self.accepted += 1
        number = self.accepted
        if self.connections >= self.max_connections + MAX_REFUSALS:
            await trio.aclose_forcefully(stream)
            return
        self.connections += 1
        full = self.connections > self.max_connections
        try:
            async with accept_socket(
                stream, path=PATH, seconds=HANDSHAKE_SECONDS, max_message_bytes=MAX_AUDIO_BYTES
            ) as socket:
                if full:
                    await _hang_up(socket, _BUSY)
                elif self.hearing is None:
                    await _hang_up(socket, _NOT_READY)
                else:
                    _log.info("client_connected client=%d", number)
                    await _Connection(self, self.hearing, socket, number).serve()
        except* LOST as group:
            _log.info("client_left client=%d: %s", number, why_lost(group))
        except* Exception as group:
            _log.error("connection_failed client=%d", number, exc_info=group)
        finally:
            self.connections -= 1


_BUSY = Error(
    ServiceErrorCode.BUSY, "this service has as many connections as it takes; try again later"
)
_NOT_READY = Error(
    ServiceErrorCode.MODEL_NOT_READY, "the model is being loaded; try again in some seconds"
)
_TOO_SLOW = Error(
    ServiceErrorCode.BUSY, "messages are not taken fast enough; connect again and read on"
)


async def _hang_up(socket: WebSocketConnection, why: Error) -> None:
    with trio.move_on_after(CLOSE_SECONDS):
        await socket.send_message(write(why))
        await socket.aclose(TRY_AGAIN_LATER, why.code)


class _Connection:
    """One client that was let in."""

    def __init__(
        self, service: _Service, hearing: Hearing, socket: WebSocketConnection, number: int
    ) -> None:
        self._service, self._hearing, self._socket = service, hearing, socket
        self._number = number
        self._messages_in, self._messages = trio.open_memory_channel[ServiceMessage](
            MAX_WAITING_MESSAGES
        )
        self._inbox = Inbox(service.buffer_bytes)
        self._ear: Ear | None = None
        self._ear_scope = trio.CancelScope()
        self._resets = 0  # that were asked for and not answered
        self._scope = trio.CancelScope()
        self._farewell: Error | None = None  # why we hang up
        self._audio_messages = self._audio_bytes = 0

    async def serve(self) -> None:
        """Serves until the client leaves, which raises one of LOST, or is hung up on."""
        hearing = self._hearing
        languages = tuple(hearing.transcriber.languages)
        self._tell(Ready(SAMPLE_RATE, languages, hearing.partials))
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._ping)
                    nursery.start_soon(self._listen, _first_settings(languages))
                    await self._read()
        finally:
            seconds = self._audio_bytes / _BYTES_A_SECOND
            _log.info(
                "client_heard client=%d audio_messages=%d seconds=%.1f",
                *(self._number, self._audio_messages, seconds),
            )
        if self._farewell:
            _log.warning("client_hung_up client=%d: %s", self._number, self._farewell.message)
            await _hang_up(self._socket, self._farewell)

    async def _read(self) -> None:
        while True:
            message = await self._socket.get_message()
            if isinstance(message, bytes):
                self._audio_messages += 1
                self._audio_bytes += len(message)
                await self._inbox.put(message)
                continue
            try:
                command = read_command(message)
            except InvalidMessage as error:
                self._tell(Error(ServiceErrorCode.INVALID_MESSAGE, str(error)))
                continue
            if isinstance(command, Ping):
                self._tell(Pong())
            elif isinstance(command, Reset):
                self._inbox.forget()
                self._resets += 1
                self._ear_scope.cancel()
            else:
                await self._inbox.put(command)

    async def _listen(self, settings: Configured) -> None:
        """One ear after another: a reset leaves the old one, with all that it was doing."""
        while True:
            ear = Ear(self._hearing, self._inbox, self._tell, settings)
            with trio.CancelScope() as self._ear_scope:
                try:
                    await ear.listen()
                except* EngineError as group:
                    self._hang_up(Error(ServiceErrorCode.ASR_ERROR, why_lost(group)))
            settings = ear.settings
            while self._resets:
                self._resets -= 1
                self._tell(WasReset())

    async def _write(self) -> None:
        async for message in self._messages:
            await self._socket.send_message(write(message))

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._service.ping_interval)
            with trio.move_on_after(self._service.ping_timeout) as waiting:
                await self._socket.ping()
            if waiting.cancelled_caught:
                _log.info("client_silent client=%d", self._number)
                self._scope.cancel()

    def _tell(self, message: ServiceMessage) -> None:
        """Hands a message to the writer; a client that lets too many pile up is hung up on."""
        try:
            self._messages_in.send_nowait(message)
        except trio.WouldBlock:
            self._hang_up(_TOO_SLOW)

    def _hang_up(self, why: Error) -> None:
        self._farewell = self._farewell or why
        self._scope.cancel()


def _first_settings(languages: tuple[str, ...]) -> Configured:
    default = Configured()
    if not languages or default.language in languages:
        return default
    return attrs.evolve(default, language=languages[0])
