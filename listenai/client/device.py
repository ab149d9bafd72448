"""A truthful device of the ListenAI protocol: a live microphone, a loudspeaker, a log.

    async with Device.connect("ws://127.0.0.1:9400/listenai") as device:
        await device.speak(pcm)
        reply = await device.wait_reply()

The microphone never stops: every 16 ms, on an absolute schedule, one frame goes to
the server: of what is being spoken, else of silence (or of a real microphone).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from listenai.client.connection import (
    CLOSE_SECONDS,
    ConnectionLost,
    ServerUnreachable,
    open_socket,
    why_closed,
)
from listenai.client.microphone import Microphone, SilentRoom, Utterance
from listenai.client.speaker import Speaker
from listenai.client.turns import Arrived, DeviceLog, JsonObject, Reply, Turn
from listenai.errors import ListenAIError

CONNECT_SECONDS = 10.0  # for the WebSocket handshake, and again for `status ready`
REPLY_SECONDS = 90.0

CAPABILITIES: JsonObject = {
    "pause": True,
    "flush": True,
    "playback_reports": True,
    "display_text": False,
    "echo": "cancelled",
}


class ReplyTimeout(ListenAIError):
    """No complete reply in time; the message says what there was."""


class ServerRefused(ListenAIError):
    """The server answered a request with an error."""


class Device:
    """One connection; everything it heard is in `log`.  Made by `Device.connect`."""

    def __init__(
        self,
        socket: WebSocketConnection,
        microphone: Microphone,
        log: DeviceLog,
        *,
        reports: bool,
        output_latency_ms: float,
    ) -> None:
        self.log = log
        self.frames_sent = 0  # of the microphone, silence included
        self.speaker = log.speaker
        self._socket = socket
        self._microphone = microphone
        self._reports = reports
        self._output_latency_ms = output_latency_ms
        self._utterances: deque[Utterance] = deque()
        self._asked: Utterance | None = None  # None: the last question was typed
        self._asked_at = 0.0
        self._asked_after = 0  # the last turn before it
        self._closed: str | None = None
        self._changed = trio.Event()

    @staticmethod
    @asynccontextmanager
    async def connect(
        url: str,
        *,
        api_key: str | None = None,
        session_id: str | None = None,
        capabilities: JsonObject = CAPABILITIES,
        device_tools: Sequence[JsonObject] = (),
        microphone: Microphone | None = None,
        loudspeaker: Callable[[bytes, int], None] | None = None,
        output_latency_ms: float = 0.0,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> AsyncIterator[Device]:
        """A device with a session, its microphone open.

        `loudspeaker` gets what is played (PCM and its rate) and is heard
        `output_latency_ms` later; the log then keeps no sound.  Raises ServerUnreachable
        before the block, and ConnectionLost after it when the server does not answer the
        goodbye.
        """
        start: dict[str, Any] = {"type": "start_session", "capabilities": dict(capabilities)}
        start |= {} if session_id is None else {"session_id": session_id}
        start |= {"device_tools": list(device_tools)} if device_tools else {}
        log = DeviceLog(Speaker(loudspeaker))
        async with open_socket(url, api_key, connect_seconds) as (socket, nursery):
            await _open_session(socket, log, start, connect_seconds)
            device = Device(
                socket,
                microphone or SilentRoom(),
                log,
                reports=bool(capabilities.get("playback_reports")),
                output_latency_ms=output_latency_ms,
            )
            nursery.start_soon(device._listen)
            nursery.start_soon(device._stream_microphone)
            yield device

    # --- asking ---------------------------------------------------------------------------

    async def speak(self, pcm: bytes) -> Utterance:
        """Says int16 mono 16 kHz PCM in real time; returns when its last frame is sent."""
        utterance = Utterance(pcm)
        self._ask(utterance)
        if pcm:
            self._utterances.append(utterance)
            await self.wait_until(utterance.sent.is_set)
        return utterance

    async def type_text(self, text: str) -> None:
        """Asks by text."""
        self._ask(None)
        await self.send({"type": "text", "text": text})

    async def interrupt(self) -> None:
        """Presses the button that stops the reply."""
        await self.send({"type": "interrupt"})

    async def configure(self, **settings: Any) -> None:
        """Changes settings; returns when they are in force.  Raises ServerRefused."""
        errors, before = len(self.log.errors), trio.current_time()
        await self.send({"type": "configure", **settings})

        def is_answered() -> bool:
            return len(self.log.errors) > errors or any(
                event.at >= before and event.type == "status" and "configuration" in event.message
                for event in self.log.events
            )

        with trio.move_on_after(CONNECT_SECONDS) as scope:
            await self.wait_until(is_answered)
        if scope.cancelled_caught:
            raise ServerRefused(f"no answer to `configure` within {CONNECT_SECONDS:g} s")
        for refusal in self.log.errors[errors:]:
            raise ServerRefused(_error_text(refusal.message))

    async def end_session(self) -> None:
        """Lets the server erase the session; it closes the connection (waits, bounded)."""
        await self.send({"type": "end_session"})
        with trio.move_on_after(CLOSE_SECONDS):
            while self._closed is None:
                await self._changed.wait()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Sends any message; raises ConnectionLost."""
        try:
            await self._socket.send_message(json.dumps(message))
        except ConnectionClosed as error:
            raise ConnectionLost(why_closed(error)) from None

    # --- waiting --------------------------------------------------------------------------

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Waits, looking whenever something came and every 16 ms; raises ConnectionLost."""
        while not is_true():
            if self._closed is not None:
                raise ConnectionLost(self._closed)
            await self._changed.wait()

    async def wait_event(self, kind: str, *, after: float = 0.0) -> Arrived:
        """The first message of this type, of those kept, that came at this time or later."""

        def found() -> Arrived | None:
            events = (event for event in self.log.events if event.at >= after)
            return next((event for event in events if event.type == kind), None)

        await self.wait_until(lambda: found() is not None)
        event = found()
        assert event is not None
        return event

    async def wait_sound(self, timeout: float = REPLY_SECONDS) -> tuple[Turn, float]:
        """The turn that answers the last question, and when it became audible."""

        def found() -> tuple[Turn, float] | None:
            for turn in self.log.turns_after(self._asked_after):
                at = self.speaker.first_sound_at(turn.stream_ids)
                if at is not None:
                    return turn, at
            return None

        with trio.move_on_after(timeout):
            await self.wait_until(lambda: found() is not None)
        if (sound := found()) is None:
            raise ReplyTimeout(f"nothing to be heard within {timeout:g} s; {self._situation()}")
        return sound

    async def wait_reply(self, timeout: float = REPLY_SECONDS) -> Reply:
        """The complete answer to the last question, when it has been played out.

        Where the server took the question for several, the last one's.  Raises
        ReplyTimeout and ConnectionLost.
        """
        with trio.move_on_after(timeout) as scope:
            await self.wait_until(
                lambda: self.log.is_over(
                    self._asked_after, self._asked_at, spoken=self._asked is not None
                )
            )
        if scope.cancelled_caught:
            raise ReplyTimeout(f"no complete reply within {timeout:g} s; {self._situation()}")
        turns = self.log.turns_after(self._asked_after)
        turn = next((turn for turn in reversed(turns) if turn.opened), None)
        if turn is None:
            told = "; ".join(_error_text(error.message) for error in self.log.errors)
            raise ReplyTimeout(f"the server could not answer: {told}")
        return self.reply(turn, self._asked)

    def reply(self, turn: Turn, asked: Utterance | None) -> Reply:
        """A turn as it is now, as the answer to this utterance."""
        if asked is None:
            return self.log.reply(turn, None, None)
        return self.log.reply(turn, asked.started_at, asked.ended_at)

    # --- the connection's tasks -----------------------------------------------------------

    async def _stream_microphone(self) -> None:
        try:
            while True:
                frame = await self._microphone.frame()
                utterance = self._utterances[0] if self._utterances else None
                await self._socket.send_message(utterance.next_frame() if utterance else frame)
                now = trio.current_time()
                if utterance is not None:
                    if not utterance.sent_at:
                        utterance.first_frame = self.frames_sent
                    utterance.frame_sent(now)
                    if utterance.sent.is_set():
                        self._utterances.popleft()
                self.frames_sent += 1
                self.speaker.advance(now)
                await self._send_reports()
                self._wake()
        except ConnectionClosed as error:
            self._lose(error)

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._socket.get_message()
                self.log.receive(message, trio.current_time())
                await self._send_reports()
                self._wake()
        except ConnectionClosed as error:
            self._lose(error)

    async def _send_reports(self) -> None:
        for report in self.speaker.take_reports():
            message = {"type": "playback", **attrs.asdict(report)}
            if self._output_latency_ms:
                message["output_latency_ms"] = self._output_latency_ms
            if self._reports:
                await self._socket.send_message(json.dumps(message))

    def _ask(self, utterance: Utterance | None) -> None:
        self._asked, self._asked_at = utterance, trio.current_time()
        self._asked_after = self.log.last_turn_id

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _lose(self, error: ConnectionClosed) -> None:
        self._closed = why_closed(error)
        self._wake()

    def _situation(self) -> str:
        """What is there instead of what was waited for."""
        turns = self.log.turns_after(self._asked_after)
        transcript = next((turn.transcript for turn in reversed(turns) if turn.transcript), None)
        parts = [
            f"the server is {self.log.state!r}",
            "it understood nothing" if transcript is None else f"it understood {transcript!r}",
            *(_error_text(event.message) for event in self.log.errors),
        ]
        return "; ".join(parts)


async def _open_session(
    socket: WebSocketConnection, log: DeviceLog, start: JsonObject, seconds: float
) -> None:
    try:
        with trio.fail_after(seconds):
            await socket.send_message(json.dumps(start))
            while log.state is None:
                log.receive(await socket.get_message(), trio.current_time())
                for refusal in log.errors:
                    raise ServerUnreachable(f"no session: {_error_text(refusal.message)}")
    except ConnectionClosed as error:
        raise ServerUnreachable(f"no session: {why_closed(error)}") from None
    except trio.TooSlowError:
        raise ServerUnreachable(
            "no session: the server did not say `status ready` in time; is this a ListenAI server?"
        ) from None


def _error_text(message: JsonObject) -> str:
    return f"error {message.get('code')}: {message.get('message')}"
