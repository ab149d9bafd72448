"""One connection to a TTS service, and the one sentence that is spoken on it.

Whatever comes is read at once and kept for its listener, who hears in real time what an engine
makes much faster: so the engine is free as soon as it can be.  What is bounded is the sentence.
A sentence that is left early is cancelled, and the connection is not used again before the
service has said `cancelled`: no audio of it can get into the next one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Self

import attrs
import trio
from trio_websocket import WebSocketConnection

from listenai.audio import SAMPLE_BYTES
from listenai.engines.base import SpeechChunk, WordTiming
from listenai.errors import SynthesizerAway, SynthesizerError
from listenai.services.pool import Unreachable, Upstream
from listenai.services.sockets import LOST, why_lost
from listenai.services.tts.messages import (
    Cancel,
    Cancelled,
    End,
    Failed,
    Ready,
    Reply,
    Start,
    Synthesize,
    TtsErrorCode,
    Words,
)
from listenai.services.tts.protocol import TtsProtocolError, WordFinder, decode_reply, encode

# The longest sentence, as long as the embedded synthesizer's, and so what is kept of one.
MAX_SENTENCE_SECONDS = 120.0
_MAX_OUTGOING = 4  # a request and its cancellation, and again: nobody has more to say
_PASSING = {TtsErrorCode.BUSY, TtsErrorCode.MODEL_NOT_READY}


@attrs.frozen
class LinkDeadlines:
    """How long a service is waited for, in seconds."""

    connect: float = 5.0  # with the handshake, and `ready`
    silence: float = 300.0  # within a sentence: TTS_TIMEOUT
    cancel: float = 10.0  # for `cancelled`: a chunk of a slow engine
    ping_interval: float = 10.0
    ping_timeout: float = 10.0


class Speech:
    """One sentence as it is heard: an iterator over its chunks."""

    def __init__(self, request: Synthesize, sample_rate: int, silence_seconds: float) -> None:
        self.request = request
        self.over = False  # the service has said its last word about it
        self.failure: SynthesizerError | None = None
        self._sample_rate = sample_rate
        self._silence_seconds = silence_seconds
        self._chunks: deque[SpeechChunk] = deque()
        self._room = int(MAX_SENTENCE_SECONDS * sample_rate) * SAMPLE_BYTES
        self._finder = WordFinder(request.text)
        self._words: tuple[WordTiming, ...] = ()  # of the audio that comes next
        self._news = trio.Event()

    # --- what the listener calls -------------------------------------------------------------

    async def begin(self) -> None:
        """Waits for the first chunk, or the end; raises SynthesizerError."""
        while not self._chunks and not self.over:
            with trio.move_on_after(self._silence_seconds) as waiting:
                await self._news.wait()
            if waiting.cancelled_caught:
                self.failure = SynthesizerError(
                    f"the TTS service has sent nothing for {self._silence_seconds:g} s"
                )
                raise self.failure
        if not self._chunks and self.failure:
            raise self.failure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SpeechChunk:
        if self._chunks:
            await trio.lowlevel.checkpoint()
        await self.begin()
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.popleft()

    # --- what the link calls -----------------------------------------------------------------

    def hear(self, message: Words | bytes) -> None:
        """Takes the next audio or words of it."""
        if isinstance(message, Words):
            self._words += self._finder.find(message.words, self._sample_rate)
            return
        self._room -= len(message)
        if self._room < 0:
            problem = f"a sentence takes more than {MAX_SENTENCE_SECONDS:g} s to say; split it"
            self.fail(SynthesizerError(problem))
        elif not self.over:
            self._keep(message)

    def _keep(self, pcm: bytes) -> None:
        self._chunks.append(SpeechChunk(pcm, self._words))
        self._words = ()
        self._tell()

    def end(self) -> None:
        """All of it has come."""
        if self._words and not self.over:
            self._keep(b"")
        self.over = True
        self._tell()

    def fail(self, failure: SynthesizerError) -> None:
        """Nothing more comes; what has come is heard first."""
        if not self.over:
            self.failure, self.over = failure, True
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        if not self.over:
            self._news = trio.Event()


class Link:
    """A connection that is ready; `finish` is called when the next sentence may begin on it."""

    def __init__(
        self,
        upstream: Upstream,
        socket: WebSocketConnection,
        ready: Ready,
        deadlines: LinkDeadlines,
        finish: Callable[[Link, Speech], None],
    ) -> None:
        self.upstream, self.ready = upstream, ready
        self.scope = trio.CancelScope()  # of `run`: cancelling it says goodbye
        self._socket = socket
        self._deadlines = deadlines
        self._finish = finish
        self._speech: Speech | None = None
        self._cancel_due = math.inf
        self._outgoing, self._outbox = trio.open_memory_channel[str](_MAX_OUTGOING)
        self._wake = trio.Event()  # the watch: the time is another

    def speak(self, request: Synthesize) -> Speech:
        """Asks for a sentence; `leave` it, whatever comes of it."""
        self._speech = Speech(request, self.ready.sample_rate, self._deadlines.silence)
        self._outgoing.send_nowait(encode(request))
        return self._speech

    def leave(self, speech: Speech) -> None:
        """Nobody listens any more; never waits."""
        if self._speech is not speech:
            return  # it has ended, or the connection has
        self._cancel_due = trio.current_time() + self._deadlines.cancel
        self._outgoing.send_nowait(encode(Cancel(speech.request.request_id)))
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; raises one of LOST in a group when the connection is lost."""
        problem = "the connection was closed"
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch)
                    nursery.start_soon(self._ping)
                    await self._read()
        except* LOST as group:
            problem = why_lost(group)
            raise
        finally:
            self._lose(problem)

    def _lose(self, problem: str) -> None:
        speech, self._speech = self._speech, None
        if speech:
            problem = f"the TTS service {self.upstream.name} is away: {problem}"
            speech.fail(SynthesizerAway(problem))

    async def _write(self) -> None:
        async for message in self._outbox:
            await self._socket.send_message(message)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._deadlines.ping_interval)
            with trio.move_on_after(self._deadlines.ping_timeout) as waiting:
                await self._socket.ping()
            if waiting.cancelled_caught:
                raise Unreachable("it does not answer pings")

    async def _watch(self) -> None:
        """Gives the connection up when a cancelled sentence does not end in time."""
        while True:
            self._wake = trio.Event()
            with trio.move_on_at(self._cancel_due) as waiting:
                await self._wake.wait()
            if waiting.cancelled_caught:
                raise Unreachable(f"it did not cancel in {self._deadlines.cancel:g} s")

    async def _read(self) -> None:
        while True:
            try:
                message = await self._socket.get_message()
                self._take(message if isinstance(message, bytes) else decode_reply(message))
            except TtsProtocolError as error:
                raise Unreachable(f"it broke the protocol: {error}") from error

    def _take(self, message: Reply | bytes) -> None:
        speech = self._speech
        if speech is None:
            if isinstance(message, bytes):
                raise TtsProtocolError("audio that nobody asked for")
            return
        request_id = speech.request.request_id
        match message:
            case bytes():
                speech.hear(message)
            case Words(request_id=about) if about == request_id:
                speech.hear(message)
            case Start(request_id=about, sample_rate=rate) if about == request_id:
                if rate != self.ready.sample_rate:
                    problem = f"{rate} Hz, though `ready` said {self.ready.sample_rate}"
                    raise TtsProtocolError(problem)
            case Cancelled(request_id=about) if about == request_id:
                self._done(speech)
            case End(request_id=about) if about == request_id:
                speech.end()
                self._done_unless_cancelled(speech)
            case Failed(code, problem, about) if about in {request_id, None}:
                name = self.upstream.name
                kind = SynthesizerAway if code in _PASSING else SynthesizerError
                speech.fail(kind(f"the TTS service {name} says: {problem}"))
                self._done_unless_cancelled(speech)

    def _done_unless_cancelled(self, speech: Speech) -> None:
        if self._cancel_due == math.inf:
            self._done(speech)

    def _done(self, speech: Speech) -> None:
        self._speech, self._cancel_due = None, math.inf
        self._wake.set()
        self._finish(self, speech)
