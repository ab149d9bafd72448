"""A page of the Voice + Text Configurator, written from its document (spec 003) and messages alone.

It does what the document asks of a web client: records, plays what comes through a buffer of
its own, connects again when the network fails, and recovers its state: the session by its id,
an open microphone, and the question that was not answered yet.  It knows nothing of any
server's code, and is strict where the messages are: what it does not know ends it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

PIECE_BYTES = 4096  # what a worklet hands over at once
RECORDED_SECONDS = 3.0  # kept of the microphone while there is no connection
PLAYED_SECONDS = 1.0  # that may wait for the loudspeaker; what is more is lost
FIRST_DELAY, LONGEST_DELAY, ATTEMPTS = 0.1, 2.0, 8  # seconds: connecting again
FINAL_CODES = {1000, 1008, 4001}  # ended, refused, open elsewhere: nobody comes back by itself

CLOSE_SECONDS = 2.0
SECONDS = 20.0  # for anything that is waited for

# The messages from the server, and their fields.
NUMBER = (int, float)
FIELDS: dict[str, dict[str, Any]] = {
    "session": {"session_id": str, "resumed": bool},
    "response_delta": {"text": str},
    "response": {"text": str},
    "audio_start": {"sample_rate": int},
    "audio_end": {},
    "stop_audio": {},
    "transcript": {"text": str, "final": bool},
    "vad": {"speaking": bool, "threshold": (*NUMBER, type(None))},
    "error": {"code": str, "message": str},
    "analytics": {"session_id": str, "session": dict, "connection": dict},
}


@dataclass
class Loudspeaker:
    """Plays one sound after the other; audio belongs between a start and an end or a stop."""

    rate: int = 0  # Hz, of what is being sent; 0: nothing is
    seconds: float = 0.0  # that were played, or will have been
    lost: float = 0.0  # seconds that did not fit
    thrown_away: float = 0.0  # seconds that were stopped before they were heard
    loud: bool = False  # whether there was anything but silence
    ends_at: float = 0.0  # Trio's time

    def start(self, rate: int) -> None:
        assert not self.rate, "the sound before has not ended"
        assert 8_000 <= rate <= 48_000
        self.rate = rate

    def push(self, pcm: bytes) -> None:
        assert self.rate, "audio without audio_start, or after stop_audio"
        assert pcm
        assert len(pcm) % 2 == 0
        now, seconds = trio.current_time(), len(pcm) / 2 / self.rate
        if max(self.ends_at - now, 0.0) + seconds > PLAYED_SECONDS:
            self.lost += seconds
            return
        self.ends_at = max(self.ends_at, now) + seconds
        self.seconds += seconds
        self.loud |= any(pcm)

    def end(self) -> None:
        assert self.rate, "there is no sound to be ended"
        self.rate = 0

    def stop(self) -> None:
        """All that waits is thrown away."""
        unheard = max(self.ends_at - trio.current_time(), 0.0)
        self.seconds -= unheard
        self.thrown_away += unheard
        self.ends_at, self.rate = 0.0, 0


@dataclass
class Page:
    """What the user does, and what the user sees and hears; `run` keeps it connected."""

    url: str
    session_id: str | None = None
    key: str | None = None
    speaker: Loudspeaker = field(default_factory=Loudspeaker)
    got: list[dict[str, Any]] = field(default_factory=list)  # audio is {"type": "audio"}
    connections: int = 0
    dropped_seconds: float = 0.0  # of the microphone, while there was no connection
    closed: int | None = None  # the code of an end that is final
    unanswered: str | None = None
    _outbox: deque[str | bytes] = field(default_factory=deque)
    _microphone: int = 0  # Hz, as the server knows it; 0: closed
    _recording: int = 0  # Hz, as the user has it
    _stream: trio.SocketStream | None = None
    _news: trio.Event = field(default_factory=trio.Event)

    # --- the user ---

    def type(self, text: str) -> None:
        """A question."""
        self.unanswered = text
        self._put(json.dumps({"type": "message", "text": text}, ensure_ascii=False))

    def open_microphone(self, rate: int = 16_000) -> None:
        self._recording = rate
        self._put(json.dumps({"type": "audio_start", "sample_rate": rate}))

    def hear(self, pcm: bytes) -> None:
        """The microphone hears this; what waits for a connection is kept, the newest of it."""
        for start in range(0, len(pcm), PIECE_BYTES):
            self._put(pcm[start : start + PIECE_BYTES])

    def close_microphone(self) -> None:
        self._recording = 0
        self._put('{"type":"audio_end"}')

    def ask_analytics(self) -> None:
        self._put('{"type":"analytics"}')

    def send_raw(self, message: str | bytes) -> None:
        """Something that a page of this kind would not say."""
        self._put(message)

    async def lose_network(self) -> None:
        """As a phone does in a lift: without a goodbye."""
        assert self._stream
        await trio.aclose_forcefully(self._stream)

    # --- the connection ---

    def _put(self, message: str | bytes) -> None:
        self._outbox.append(message)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def run(self) -> None:
        """Connects, and connects again, until an end that is final."""
        attempt = 0
        while self.closed is None:
            known = self.connections
            try:
                await self._connect()
            except* (ConnectionClosed, OSError, trio.ClosedResourceError):
                pass
            attempt = 0 if self.connections > known else attempt + 1
            assert attempt < ATTEMPTS, "there is no server"
            if self.closed is None:
                self._keep_newest()
                await trio.sleep(min(FIRST_DELAY * 2**attempt, LONGEST_DELAY))
        self._tell()

    async def _connect(self) -> None:
        parts = urlsplit(self.url)
        path = parts.path + (f"?key={self.key}" if self.key else "")
        assert parts.hostname
        async with await trio.open_tcp_stream(parts.hostname, parts.port or 80) as stream:
            self._stream = stream
            async with trio.open_nursery() as nursery:
                socket = await wrap_client_stream(nursery, stream, parts.netloc, path)
                try:
                    await self._talk(socket)
                finally:
                    if socket.closed and socket.closed.code in FINAL_CODES:
                        self.closed = socket.closed.code
                    with trio.move_on_after(CLOSE_SECONDS):
                        await socket.aclose()
                    nursery.cancel_scope.cancel()

    async def _talk(self, socket: WebSocketConnection) -> None:
        hello: dict[str, Any] = {"type": "session"}
        if self.session_id:
            hello["session_id"] = self.session_id
        await socket.send_message(json.dumps(hello))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, socket, nursery)

    async def _receive(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        while True:
            message = await socket.get_message()
            self._handle(message)
            if self.got[-1]["type"] == "session":
                self._recover()
                nursery.start_soon(self._send, socket)

    def _recover(self) -> None:
        """What the server has forgotten with the connection: first of all it is told again."""
        self.connections += 1
        if self.connections == 1:
            return
        self.speaker.stop()
        waiting = [m for m in self._outbox if isinstance(m, str)]
        if self.unanswered and not any('"message"' in message for message in waiting):
            self._outbox.appendleft(json.dumps({"type": "message", "text": self.unanswered}))
        if self._microphone:
            self._outbox.appendleft(
                json.dumps({"type": "audio_start", "sample_rate": self._microphone})
            )

    async def _send(self, socket: WebSocketConnection) -> None:
        while True:
            while not self._outbox:
                await self._news.wait()
            message = self._outbox[0]
            await socket.send_message(message)
            self._outbox.popleft()
            if isinstance(message, str):
                if '"audio_start"' in message:
                    self._microphone = json.loads(message)["sample_rate"]
                elif '"audio_end"' in message:
                    self._microphone = 0

    def _keep_newest(self) -> None:
        rate = self._recording or self._microphone or 16_000
        audio = sum(len(message) for message in self._outbox if isinstance(message, bytes))
        kept: deque[str | bytes] = deque()
        for message in self._outbox:
            if isinstance(message, bytes) and audio > RECORDED_SECONDS * rate * 2:
                audio -= len(message)
                self.dropped_seconds += len(message) / 2 / rate
            else:
                kept.append(message)
        self._outbox = kept

    # --- what comes ---

    def _handle(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.speaker.push(message)
            self.got.append({"type": "audio", "bytes": len(message)})
        else:
            fields = json.loads(message)
            wanted = FIELDS[fields["type"]]
            assert set(fields) == {"type", *wanted}, fields
            for name, kind in wanted.items():
                assert isinstance(fields[name], kind), fields
            self.got.append(fields)
            self._obey(fields)
        self._tell()

    def _obey(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "session":
                self.session_id = message["session_id"]
            case "response":
                self.unanswered = None
            case "audio_start":
                self.speaker.start(message["sample_rate"])
            case "audio_end":
                self.speaker.end()
            case "stop_audio":
                self.speaker.stop()

    # --- what is asked of it ---

    def all(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Messages of this type with these values."""
        return [m for m in self.got if m["type"] == kind and fields.items() <= m.items()]

    @property
    def kinds(self) -> list[str]:
        """The types of all messages, runs of one type once."""
        types = [message["type"] for message in self.got]
        return [kind for at, kind in enumerate(types) if at == 0 or kind != types[at - 1]]

    @property
    def transcripts(self) -> list[str]:
        return [message["text"] for message in self.all("transcript", final=True)]

    @property
    def responses(self) -> list[str]:
        return [message["text"] for message in self.all("response")]

    async def wait(self, what: Callable[[], Any]) -> Any:
        """Until there is such a thing."""
        with trio.fail_after(SECONDS):
            while not (found := what()):
                await self._news.wait()
        return found

    async def until(self, kind: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The message of this type with these values, or the second, or the third."""
        return (await self.wait(lambda: self.all(kind, **fields)[count - 1 : count]))[0]

    async def wait_played(self, sounds: int) -> None:
        """Until so many sounds have ended, and the last one was heard."""
        await self.wait(lambda: len(self.all("audio_end")) + len(self.all("stop_audio")) >= sounds)
        await trio.sleep_until(self.speaker.ends_at)

    async def answer(self, text: str) -> str:
        """Types a question; what is responded."""
        known = len(self.responses)
        self.type(text)
        return (await self.until("response", known + 1))["text"]

    async def end(self) -> int:
        """Waits for an end that is final: its code."""
        return await self.wait(lambda: self.closed)


@asynccontextmanager
async def open_page(
    url: str, session_id: str | None = None, key: str | None = None
) -> AsyncIterator[Page]:
    """A page that has its session."""
    page = Page(url, session_id, key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(page.run)
        await page.wait(lambda: page.connections or page.closed)
        yield page
        nursery.cancel_scope.cancel()
