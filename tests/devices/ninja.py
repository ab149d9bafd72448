"""A client of the realtime service, written from its document (spec 004) alone.

It does in Python what the document's page does in JavaScript: asks for a session token, starts
a session, sends audio in small chunks, answers heartbeats, and plays what comes.  It knows
nothing of any server's code.  What the document does not name is kept and not understood.
"""

from __future__ import annotations

import io
import json
import time
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

# "Audio Processing Options"
MAX_CHUNK_BYTES = 4096
BUFFER_SECONDS = 3.0  # of audio that waits to be played; what is more is lost
SAMPLE_RATE = 16_000
# "Reconnection Configuration"
MAX_ATTEMPTS, BASE_DELAY, MAX_DELAY, BACKOFF_FACTOR = 5, 1.0, 30.0, 2.0

CLOSE_SECONDS = 2.0
SECONDS = 20.0  # for anything that is waited for


def delays() -> list[float]:
    """Seconds before each attempt to connect again."""
    return [min(BASE_DELAY * BACKOFF_FACTOR**n, MAX_DELAY) for n in range(MAX_ATTEMPTS)]


async def authenticate(http_url: str, token: str, user_id: str, call_id: str) -> str:
    """A session token for a call."""
    body = {"token": token, "userId": user_id, "callId": call_id}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(http_url + "/auth/websocket", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["expiresIn"] == 300
    return answer.json()["sessionToken"]


@dataclass
class Played:
    """A loudspeaker with a buffer: each file is played when the one before it is over."""

    seconds: float = 0.0
    files: int = 0
    lost: int = 0  # files that did not fit
    ends_at: float = 0.0

    def play(self, data: bytes) -> None:
        """Reads the whole file, as a browser's decodeAudioData does."""
        with wave.open(io.BytesIO(data)) as file:
            assert file.getcomptype() == "NONE"
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
            seconds = file.getnframes() / file.getframerate()
            assert len(file.readframes(file.getnframes())) == 2 * file.getnframes() > 0
        now = trio.current_time()
        if self.ends_at - now > BUFFER_SECONDS:
            self.lost += 1
            return
        self.ends_at = max(self.ends_at, now) + seconds
        self.seconds += seconds
        self.files += 1


@dataclass
class Call:
    """One connection with a session."""

    socket: WebSocketConnection
    call_id: str
    stream: trio.SocketStream
    got: list[dict[str, Any]] = field(default_factory=list)  # a file is {"type": "file"}
    played: Played = field(default_factory=Played)
    heartbeats: int = 0
    news: trio.Event = field(default_factory=trio.Event)
    over: bool = False

    # --- to the server ---

    async def send(self, kind: str, **data: Any) -> None:
        """A message in the document's envelope."""
        await self.send_raw(
            json.dumps(
                {
                    "type": kind,
                    "callId": self.call_id,
                    "timestamp": int(1000 * time.time()),
                    "data": data,
                }
            )
        )

    async def send_raw(self, message: str | bytes) -> None:
        await self.socket.send_message(message)

    async def speak(self, pcm: bytes) -> None:
        """Audio, chunk by chunk."""
        for start in range(0, len(pcm), MAX_CHUNK_BYTES):
            await self.send_raw(pcm[start : start + MAX_CHUNK_BYTES])

    # --- from the server ---

    async def receive(self) -> None:
        """Handles messages until the connection is closed."""
        try:
            while True:
                await self.handle(await self.socket.get_message())
        except ConnectionClosed:
            self.over = True
            await trio.aclose_forcefully(self.stream)
            self.news.set()

    async def handle(self, message: str | bytes) -> None:
        """The document's handleMessage."""
        if isinstance(message, bytes):
            self.played.play(message)
            self.got.append({"type": "file", "data": {}})
        else:
            fields = json.loads(message)
            assert set(fields) == {"type", "callId", "timestamp", "data"}
            assert isinstance(fields["data"], dict)
            assert abs(fields["timestamp"] - 1000 * time.time()) < 60_000
            if fields["type"] == "heartbeat":
                self.heartbeats += 1
                await self.send_raw(
                    json.dumps(
                        {
                            "type": "heartbeat",
                            "callId": "",
                            "timestamp": int(1000 * time.time()),
                            "data": {"pong": True},
                        }
                    )
                )
            self.got.append(fields)
        self.news.set()
        self.news = trio.Event()

    # --- what is asked of it ---

    def all(self, kind: str, **data: Any) -> list[dict[str, Any]]:
        """The data of messages of this type with these values."""
        of_kind = [message["data"] for message in self.got if message["type"] == kind]
        return [found for found in of_kind if data.items() <= found.items()]

    @property
    def stages(self) -> list[str]:
        """What was told of the pipeline, as "stage status"."""
        return [f"{data['stage']} {data['status']}" for data in self.all("processing_status")]

    async def wait(self, what: Callable[[], Any]) -> Any:
        """Until there is such a thing, or the connection is over."""
        with trio.fail_after(SECONDS):
            while not (found := what()):
                news = self.news
                if self.over:
                    raise AssertionError(f"the connection is over: {self.socket.closed}")
                await news.wait()
        return found

    async def until(self, kind: str, **data: Any) -> dict[str, Any]:
        """The first message of this type with these values."""
        return (await self.wait(lambda: self.all(kind, **data)))[0]

    async def end(self) -> int:
        """Waits for the server's goodbye: its code."""
        with trio.fail_after(SECONDS):
            while not self.over:
                await self.news.wait()
        assert self.socket.closed
        return self.socket.closed.code


@asynccontextmanager
async def connect(url: str, call_id: str) -> AsyncIterator[Call]:
    """A connection that has said nothing; what comes is handled in the background."""
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    # The library leaves the stream open where the server is the first to say goodbye.
    async with stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, parts.netloc, parts.path)
        call = Call(socket, call_id, stream)
        nursery.start_soon(call.receive)
        yield call
        with trio.move_on_after(CLOSE_SECONDS):
            await socket.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_call(
    url: str, session_token: str, user_id: str, call_id: str, **options: Any
) -> AsyncIterator[Call]:
    """A connection whose session was started."""
    async with connect(url, call_id) as call:
        more = {"options": options} if options else {}
        await call.send(
            "session_start", userId=user_id, callId=call_id, authToken=session_token, **more
        )
        await call.until("connection_status")
        yield call
