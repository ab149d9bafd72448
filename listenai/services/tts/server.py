"""The TTS service: a synthesizer behind a WebSocket at `/tts`, and `/health` beside it.

Each connection has one reader, one worker that speaks a request after the other, and one writer,
so that a synthesis can be cancelled at any moment without cutting a message in two.  Whoever is
cancelled first leaves the engine, then is told so: no chunk can come after `cancelled`.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import NoReturn, Protocol, runtime_checkable

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from listenai.audio import SAMPLE_BYTES
from listenai.engines.base import Synthesizer
from listenai.errors import ConfigurationError, SynthesizerError
from listenai.services.pool import Unreachable
from listenai.services.sockets import LOST, TRY_AGAIN_LATER, accept_socket
from listenai.services.tts.messages import (
    MAX_REQUEST_BYTES,
    MAX_WAITING,
    PATH,
    Cancel,
    Cancelled,
    End,
    Failed,
    Mode,
    Ready,
    Reply,
    Start,
    Synthesize,
    TtsErrorCode,
    Voices,
    VoicesListed,
    Words,
)
from listenai.services.tts.protocol import TtsProtocolError, decode_request, encode, words_of

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16 * 1024  # of an HTTP request
MAX_WHOLE_BYTES = 16 << 20  # audio of one request in mode "full": 3 min at 48 kHz
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)  # before it is a WebSocket


@runtime_checkable
class TunableSynthesizer(Protocol):
    """A synthesizer whose model has parameters."""

    def tuned(
        self, *, cfg_value: float | None, inference_timesteps: int | None, style: str | None
    ) -> Synthesizer:
        """The same engine with these parameters, None for its own; raises SynthesizerError."""


@attrs.frozen
class TtsDeadlines:
    """How long the service waits, in seconds."""

    handshake: float = 5.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    stall: float = 5.0  # for a message to be taken: a client that reads nothing holds an engine


async def serve_tts(
    synthesizer: Synthesizer,
    *,
    host: str | None = "127.0.0.1",
    port: int = 9300,
    max_connections: int = 100,
    loaded: trio.Event | None = None,
    deadlines: TtsDeadlines | None = None,
    task_status: trio.TaskStatus[Sequence[str]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serves until cancelled; then clients are told that it goes away.  Starts with its URLs.

    host: None for every interface.  port: 0 for one that the kernel chooses.
    loaded: set when the synthesizer can be used, None where it can at once.  Until then
    connections get MODEL_NOT_READY, and `ready` after it.
    Raises ConfigurationError where it cannot listen.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigurationError(
            [
                f"the TTS service cannot listen on {host or 'every interface'}, port {port}: "
                f"{error.strerror or error}; choose another port or host, or stop the program "
                "that listens there"
            ]
        ) from error
    if loaded is None:
        loaded = trio.Event()
        loaded.set()
    service = _Service(synthesizer, loaded, max_connections, deadlines or TtsDeadlines())
    task_status.started([_url(listener) for listener in listeners])
    await trio.serve_listeners(service.serve_stream, listeners)


def _url(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"ws://[{host}]:{port}{PATH}" if ":" in host else f"ws://{host}:{port}{PATH}"


@attrs.define
class _Service:
    """What the connections share."""

    synthesizer: Synthesizer
    loaded: trio.Event
    max_connections: int
    deadlines: TtsDeadlines
    connections: int = 0

    async def serve_stream(self, stream: trio.SocketStream) -> None:
        """One connection, from its first byte to its end; its failures stay its own."""
        try:
            if await _asks_for_health(stream, self.deadlines.handshake):
                await self._tell_health(stream)
            else:
                await self._serve_socket(stream)
        except* (*LOST, *_GONE):
            pass  # which is how connections end
        except* Exception as failure:
            _log.error("tts_connection_failed", exc_info=failure)
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve_socket(self, stream: trio.SocketStream) -> None:
        async with accept_socket(
            stream,
            path=PATH,
            seconds=self.deadlines.handshake,
            max_message_bytes=MAX_REQUEST_BYTES,
        ) as socket:
            await self._converse(socket)

    async def _converse(self, socket: WebSocketConnection) -> None:
        if self.connections >= self.max_connections:
            await socket.aclose(TRY_AGAIN_LATER, f"{self.max_connections} connections")
            return
        self.connections += 1
        try:
            await _Connection(self, socket).converse()
        finally:
            self.connections -= 1

    async def _tell_health(self, stream: trio.SocketStream) -> None:
        """One answer to one request, whose head came with its first bytes."""
        ready = self.loaded.is_set()
        state = {"status": "ok" if ready else "loading", "connections": self.connections}
        content = json.dumps(state).encode() + b"\n"
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        fields = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        with trio.move_on_after(self.deadlines.stall):
            await stream.receive_some(MAX_HEAD_BYTES)  # closing with unread input is a reset
            await stream.send_all("\r\n".join([*fields, "", ""]).encode() + content)


async def _asks_for_health(stream: trio.SocketStream, seconds: float) -> bool:
    """Whether the first bytes are `GET /health`; they are left to be read again."""
    with trio.move_on_after(seconds):
        try:
            head = await stream.socket.recv(MAX_HEAD_BYTES, trio.socket.MSG_PEEK)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        return head.startswith(b"GET /health ")
    return False


@attrs.define(eq=False)
class _Job:
    """A request, and the scope in which it is spoken."""

    request: Synthesize
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class _Connection:
    """One client: its requests wait here, and its messages go out in order."""

    def __init__(self, service: _Service, socket: WebSocketConnection) -> None:
        self._service, self._socket = service, socket
        self._deadlines = service.deadlines
        self._running: _Job | None = None
        self._waiting: deque[_Job] = deque()
        self._more = trio.Event()
        # A rendezvous: what the engine has made is with the client, or not made yet.
        self._outgoing, self._outbox = trio.open_memory_channel[str | bytes](0)

    async def converse(self) -> None:
        """Until the client leaves, or reads nothing."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._ping)
            if not self._service.loaded.is_set():
                problem = "the model is still loading; `ready` comes when it has"
                await self._say(Failed(TtsErrorCode.MODEL_NOT_READY, problem))
                await self._service.loaded.wait()
            synthesizer = self._service.synthesizer
            await self._say(Ready(dict(synthesizer.voices), synthesizer.sample_rate))
            nursery.start_soon(self._work)
            with suppress(ConnectionClosed):
                await self._read()
            nursery.cancel_scope.cancel()

    # --- messages ----------------------------------------------------------------------------

    async def _say(self, reply: Reply) -> None:
        await self._outgoing.send(encode(reply))

    async def _write(self) -> None:
        async for message in self._outbox:
            # Half a message would spoil the goodbye, so it is finished, or the connection is.
            with trio.move_on_after(self._deadlines.stall, shield=True) as sending:
                await self._socket.send_message(message)
            if sending.cancelled_caught:
                _log.warning("tts_client_stalled")
                raise Unreachable("the client reads nothing")

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._deadlines.ping_interval)
            with trio.move_on_after(self._deadlines.ping_timeout) as waiting:
                await self._socket.ping()
            if waiting.cancelled_caught:
                raise Unreachable("the client does not answer pings")

    async def _read(self) -> None:
        while True:
            message = await self._socket.get_message()
            try:
                request = decode_request(message if isinstance(message, str) else "0")
            except TtsProtocolError as error:
                await self._say(Failed(TtsErrorCode.INVALID_MESSAGE, str(error), error.request_id))
                continue
            match request:
                case Voices():
                    await self._say(VoicesListed(dict(self._service.synthesizer.voices)))
                case Cancel(request_id):
                    await self._cancel(request_id)
                case Synthesize():
                    if failure := self._enqueue(request):
                        await self._say(failure)

    # --- requests ----------------------------------------------------------------------------

    def _enqueue(self, request: Synthesize) -> Failed | None:
        """Takes a request, or says why not."""
        code, voices = TtsErrorCode.INVALID_MESSAGE, self._service.synthesizer.voices
        jobs = [*self._waiting, *([self._running] if self._running else [])]
        if any(job.request.request_id == request.request_id for job in jobs):
            return Failed(code, "a request with this id is not over yet", request.request_id)
        if request.voice_id not in voices:
            problem = f"there is no voice {request.voice_id!r}; choose one of {', '.join(voices)}"
            return Failed(code, problem, request.request_id)
        if len(jobs) > MAX_WAITING:
            problem = f"{MAX_WAITING} requests wait already; wait for an end, or use a connection"
            return Failed(TtsErrorCode.BUSY, problem, request.request_id)
        self._waiting.append(_Job(request))
        self._more.set()
        return None

    async def _cancel(self, request_id: str) -> None:
        if self._running and self._running.request.request_id == request_id:
            self._running.scope.cancel()  # the worker says so when it has left the engine
            return
        kept = [job for job in self._waiting if job.request.request_id != request_id]
        self._waiting = deque(kept)
        await self._say(Cancelled(request_id))

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._more = trio.Event()
                await self._more.wait()
            job = self._running = self._waiting.popleft()
            request_id = job.request.request_id
            with job.scope:
                try:
                    await self._speak(job.request)
                except SynthesizerError as error:
                    _log.warning("tts_failed: characters=%d", len(job.request.text))
                    await self._say(Failed(TtsErrorCode.TTS_ERROR, str(error), request_id))
            if job.scope.cancel_called:
                await self._say(Cancelled(request_id))
            self._running = None

    async def _speak(self, request: Synthesize) -> None:
        """Says the text; mode "full" frees the engine before its first byte is sent."""
        synthesizer = self._tuned(request)
        request_id, rate = request.request_id, synthesizer.sample_rate
        await self._say(Start(request_id, rate))
        samples, whole = 0, bytearray()
        async with synthesizer.open_speech(
            request.text, voice_id=request.voice_id, language=request.language
        ) as chunks:
            async for chunk in chunks:
                if chunk.words:
                    words = words_of(request.text, chunk.words, rate)
                    await self._say(Words(request_id, words))
                samples += len(chunk.pcm) // SAMPLE_BYTES
                if request.mode is Mode.FULL:
                    whole += chunk.pcm
                    if len(whole) > MAX_WHOLE_BYTES:
                        raise SynthesizerError("too long for one message; use mode 'streaming'")
                elif chunk.pcm:
                    await self._outgoing.send(bytes(chunk.pcm))
        if whole:
            await self._outgoing.send(bytes(whole))
        await self._say(End(request_id, round(samples * 1000 / rate, 3)))

    def _tuned(self, request: Synthesize) -> Synthesizer:
        synthesizer = self._service.synthesizer
        parameters = (request.cfg_value, request.inference_timesteps, request.style)
        if not isinstance(synthesizer, TunableSynthesizer) or parameters == (None, None, None):
            return synthesizer
        return synthesizer.tuned(
            cfg_value=request.cfg_value,
            inference_timesteps=request.inference_timesteps,
            style=request.style,
        )
