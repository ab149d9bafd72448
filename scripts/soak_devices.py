"""The devices of soak.py: well and badly behaved, by a seed."""

from __future__ import annotations

import json
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import LocalProtocolError

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_BYTES, SAMPLE_RATE
from listenai.client.connection import ConnectionLost, ServerUnreachable, open_socket
from listenai.client.device import CAPABILITIES, Device, ReplyTimeout, ServerRefused
from listenai.client.microphone import Utterance
from listenai.client.speaker import Speaker
from listenai.client.turns import DeviceLog

STORY = "tell_me_a_story"  # its answer is long enough to be interrupted
SPEAKING_SHARE = 0.3  # of a device's time
REPLY_SECONDS = 100.0  # a story is told for 50
SILENCE_AMPLITUDE = 30  # of int16: what the recordings' margins stay below


@attrs.define
class Tally:
    """What all devices have met."""

    turns: int = 0
    interrupted: int = 0
    unanswered: Counter[str] = attrs.field(factory=Counter)  # no complete reply in time, by what
    done: Counter[str] = attrs.field(factory=Counter)  # by what a device did
    errors: Counter[str] = attrs.field(factory=Counter)  # by code
    lost: Counter[str] = attrs.field(factory=Counter)  # connections the server ended, by reason
    violations: list[str] = attrs.field(factory=list)
    voice_to_voice_ms: list[float] = attrs.field(factory=list)
    pause_ms: list[float] = attrs.field(factory=list)  # from the first sound of speech to `pause`

    def add(self, log: DeviceLog) -> None:
        """Counts what one connection has heard; once, when it is over."""
        closed = [turn for turn in log.turns.values() if turn.closed]
        self.turns += len(closed)
        self.interrupted += sum(turn.interrupted is not None for turn in closed)
        self.errors.update(str(error.message.get("code")) for error in log.errors)
        self.violations += [f"{broken.law}: {broken.detail}" for broken in log.violations]

    def figures(self) -> dict[str, Any]:
        """Everything as JSON."""
        figures = attrs.asdict(self)
        figures["voice_to_voice_ms"] = percentiles(self.voice_to_voice_ms)
        figures["pause_ms"] = percentiles(self.pause_ms)
        return figures


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and how many there are."""
    ranked = sorted(values)

    def at(share: float) -> float:
        return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 1)

    return {"p50": at(0.5), "p99": at(0.99), "n": len(ranked)} if ranked else {"n": 0}


# --- devices ---------------------------------------------------------------------------------

GARBAGE: Sequence[str | bytes] = (
    *("{", "[1]", "null", "", '"text"', "{}", "[" * 5000, '{"type":"dance"}'),
    *('{"type":"text","text":5}', '{"type":"text","text":""}', '{"type":"start_session"}'),
    *('{"type":"configure","vad_threshold":7}', '{"type":"playback","stream_id":99}'),
    *('{"type":"playback","stream_id":9,"played_samples":9}', '{"type":"session_stats"}'),
    *('{"type":"tool_result","call_id":"x","result":1}', '{"type":"end_of_speech"}'),
    *('{"type":"audio_data","audio":"%%"}', '{"type":"interrupt"}', '{"type":"ping","id":7}'),
    json.dumps({"type": "text", "text": "\U0001f600" * (1 << 18)}),
    *(b"", b"x", bytes(511), bytes(FRAME_BYTES + 1), bytes((1 << 20) + 1)),
)


def reset(socket: WebSocketConnection) -> None:
    """Breaks the connection off as a crash does: a TCP reset, no goodbye."""
    tcp = socket._stream.socket  # the library does not offer this
    tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.close()


def onset_frame(pcm: bytes) -> int:
    """The frame in which a recording begins to be more than silence."""
    sounding = np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)) > SILENCE_AMPLITUDE
    return int(sounding.argmax()) // FRAME_SAMPLES


@attrs.define(eq=False)
class VirtualDevice:
    """One device's life: connection after connection, doing one thing after the other."""

    name: str  # of its sessions
    url: str
    chance: random.Random
    speech: Mapping[str, bytes]  # int16 mono 16 kHz
    tally: Tally
    _spoken: float = 0.0  # seconds of the present connection
    _said: str = ""  # last
    _can_stop: bool = False  # the present connection: three frames of speech pause it

    async def live(self) -> None:
        """Until cancelled."""
        while True:
            (life,) = self.chance.choices((self.talk, self.stall, self.send_garbage), (8, 1, 1))
            self.tally.done[life.__name__] += 1
            try:
                await life()
            except* (ConnectionLost, ConnectionClosed, ServerUnreachable, ServerRefused) as errors:
                error = errors.exceptions[0]
                self.tally.lost[f"{life.__name__}: {error}"[:120]] += 1
            except* LocalProtocolError:  # the client library's: it may not answer it any more
                self.tally.lost[f"{life.__name__}: a ping crossed our goodbye"] += 1
            await trio.sleep(self.chance.uniform(0.0, 1.0))

    # --- well behaved, until it leaves ---------------------------------------------------------

    async def talk(self) -> None:
        """A session: some actions, then one of the ways to leave."""
        actions = (self.ask, self.listen, self.interrupt, self.press_button, self.type)
        session_id = self.chance.choice([None, f"{self.name}-{self.chance.randrange(3)}"])
        able = self.chance.choice([CAPABILITIES, CAPABILITIES, {}, {"pause": True}])
        self._can_stop = able is CAPABILITIES
        async with Device.connect(self.url, session_id=session_id, capabilities=able) as device:
            began, self._spoken = trio.current_time(), 0.0
            try:
                for _ in range(self.chance.randint(1, 6)):
                    (action,) = self.chance.choices(actions, (5, 2, 3, 1, 1))
                    await self._try(action, device)
                    await trio.sleep_until(began + self._spoken / SPEAKING_SHARE)
                leave = self.chance.choice((self.say_goodbye, self.hang_up, self.crash))
                await self._try(leave, device)
            finally:
                self.tally.add(device.log)

    async def _try(self, action: Callable[[Device], Awaitable[None]], device: Device) -> None:
        self.tally.done[action.__name__] += 1
        try:
            await action(device)
        except ReplyTimeout as error:
            self.tally.unanswered[f"{action.__name__}, {self._said}: {error}"[:200]] += 1

    async def ask(self, device: Device) -> None:
        """A question, and its answer heard to the end."""
        await self._say(device, self._question())
        reply = await device.wait_reply(REPLY_SECONDS)
        if reply.voice_to_voice_ms is not None:
            self.tally.voice_to_voice_ms.append(reply.voice_to_voice_ms)

    async def listen(self, device: Device) -> None:
        """Silence, and settings changed meanwhile."""
        delay = self.chance.choice([None, 0, 300])
        await device.configure(partial_results=self.chance.random() < 0.5, end_of_turn_ms=delay)
        await trio.sleep(self.chance.uniform(0.5, 4.0))

    async def interrupt(self, device: Device) -> None:
        """Speaks over a reply, and hears the next one to its end."""
        await self._provoke(device)
        began = trio.current_time()
        utterance = await self._say(device, self._question())
        await device.wait_reply(REPLY_SECONDS)
        onset = utterance.sent_at[onset_frame(utterance.pcm)]
        pauses = (event.at for event in device.log.events if event.type == "pause")
        at = next((at for at in pauses if at >= began), None)
        if at is not None and self._can_stop:
            self.tally.pause_ms.append((at - onset) * 1000)

    async def press_button(self, device: Device) -> None:
        """Stops a reply without a word."""
        await self._provoke(device)
        await device.interrupt()
        await device.wait_reply(REPLY_SECONDS)

    async def type(self, device: Device) -> None:
        """A typed question."""
        self._said = "typed"
        await device.type_text("what is twelve times seven")
        await device.wait_reply(REPLY_SECONDS)

    async def say_goodbye(self, device: Device) -> None:
        """Has its session erased."""
        await device.end_session()

    async def hang_up(self, device: Device) -> None:
        """Leaves in the middle of a reply."""
        await self._provoke(device)

    async def crash(self, device: Device) -> None:
        """Is gone in the middle of a reply."""
        await self._provoke(device)
        reset(device._socket)

    async def _provoke(self, device: Device) -> None:
        """Has the server speak for a while."""
        if self.chance.random() < 0.5:
            await self._say(device, STORY)
        else:
            self._said = "typed"
            await device.type_text("tell me a story")
        await device.wait_sound(REPLY_SECONDS)
        await trio.sleep(self.chance.uniform(0.1, 2.0))

    async def _say(self, device: Device, name: str) -> Utterance:
        self._said = name
        self._spoken += len(self.speech[name]) / SAMPLE_BYTES / SAMPLE_RATE
        return await device.speak(self.speech[name])

    def _question(self) -> str:
        return self.chance.choice(sorted(self.speech))

    # --- badly behaved -------------------------------------------------------------------------

    async def stall(self) -> None:
        """Asks, goes on sending, and reads nothing; then reads again, or crashes."""
        async with self._raw() as (socket, log):
            tcp = socket._stream.socket
            tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
            await socket.send_message('{"type":"start_session"}')
            await socket.send_message('{"type":"text","text":"tell me a story"}')
            due = trio.current_time()
            for _ in range(self.chance.randrange(int(12 / FRAME_SECONDS))):
                due += FRAME_SECONDS
                await trio.sleep_until(due)
                await socket.send_message(bytes(FRAME_BYTES))
            if self.chance.random() < 0.5:
                reset(socket)
            else:
                await self._read(socket, log, 2.0)

    async def send_garbage(self) -> None:
        """Messages that no device should send; now and then something that is no WebSocket."""
        async with self._raw() as (socket, log):
            for _ in range(self.chance.randint(1, 20)):
                await socket.send_message(self.chance.choice(GARBAGE))
                await self._read(socket, log, self.chance.uniform(0.0, 0.2))
            if self.chance.random() < 0.3:
                await socket._stream.send_all(self.chance.randbytes(100))
                await self._read(socket, log, 1.0)

    @asynccontextmanager
    async def _raw(self) -> AsyncIterator[tuple[WebSocketConnection, DeviceLog]]:
        log = DeviceLog(Speaker())
        try:
            async with open_socket(self.url, None, REPLY_SECONDS) as (socket, _):
                yield socket, log
        finally:
            self.tally.add(log)

    @staticmethod
    async def _read(socket: WebSocketConnection, log: DeviceLog, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while True:
                log.receive(await socket.get_message(), trio.current_time())
