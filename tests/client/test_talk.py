"""`talk` and its device against a small scripted server on a real loopback socket."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
)

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, FRAME_SECONDS, SAMPLE_RATE
from listenai.client.microphone import SilentRoom, Utterance, to_microphone
from listenai.client.report import describe_reply, reply_problems
from listenai.client.sound_card import CAPTURED_FRAMES, PLAYBACK_BYTES, open_sound_card
from listenai.client.speaker import Speaker
from listenai.client.talk import (
    Device,
    ReplyTimeout,
    ServerRefused,
    ServerUnreachable,
    TalkOptions,
    talk,
)
from listenai.client.turns import DeviceLog, Turn
from listenai.wav import Recording, read_wav, write_wav

CHUNK_SECONDS = 0.06
END_OF_SPEECH_FRAMES = 4  # of silence
CONFIRMED_FRAMES = 4  # of speech over a reply make an interruption


def tone(seconds: float, rate: int = SAMPLE_RATE, level: int = 8_000) -> bytes:
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * 440 * times)).astype(np.int16).tobytes()


# --- a scripted server -------------------------------------------------------------------


@attrs.define
class ScriptedServer:
    """Hears speech in loud frames, answers every utterance with a tone, and can misbehave."""

    reply_seconds: float = 0.6
    reply_level: int = 8_000
    fault: str = ""  # "pause": audio while paused, "flush": after flush, "deaf", "crash"
    refusal: str = ""  # of `configure` and `start_session`: an error message
    received: list[dict[str, Any]] = attrs.field(factory=list)
    frames: list[int] = attrs.field(factory=list)  # sizes of binary messages
    headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    url: str = ""

    async def serve(self, request: WebSocketRequest) -> None:
        self.headers = list(request.headers)
        socket = await request.accept()
        with suppress(ConnectionClosed):  # the device left
            await _Session(self, socket).run()


@attrs.define
class _Session:
    server: ScriptedServer
    socket: WebSocketConnection
    turn: int = 0
    speech: int = 0  # loud frames of the present utterance
    silence: int = 0
    replying: bool = False

    async def tell(self, kind: str, **fields: Any) -> None:
        await self.socket.send_message(json.dumps({"type": kind, **fields}))

    async def run(self) -> None:
        while True:
            message = await self.socket.get_message()
            if isinstance(message, bytes):
                self.server.frames.append(len(message))
                await self.hear(message)
                continue
            content = json.loads(message)
            self.server.received.append(content)
            match content["type"]:
                case "start_session" | "configure" if self.server.refusal:
                    await self.tell("error", code="SESSION_ERROR", message=self.server.refusal)
                case "start_session":
                    await self.tell("status", state="ready", session_id="s-1", restored=False)
                case "configure":
                    await self.tell("status", state="ready", session_id="s-1", configuration={})
                case "text":
                    await self.answer(None)
                case "interrupt":
                    await self.stop()
                case "playback" if self.replying and self.played_out(content):
                    await self.finish()
                case "end_session":
                    await self.socket.aclose(1000)

    def played_out(self, report: dict[str, Any]) -> bool:
        return int(report["played_samples"]) == round(self.server.reply_seconds * SAMPLE_RATE)

    async def hear(self, frame: bytes) -> None:
        if np.frombuffer(frame, np.int16).any():
            self.speech, self.silence = self.speech + 1, 0
            if self.replying and self.speech == 2:
                await self.tell("pause", stream_id=self.turn)
                if self.server.fault == "pause":
                    await self.socket.send_message(tone(0.01))
            if self.replying and self.speech == CONFIRMED_FRAMES:
                await self.stop()
        else:
            self.silence += 1
            if self.speech and self.silence == END_OF_SPEECH_FRAMES:
                self.speech = 0
                await self.answer("what the tone said")

    async def stop(self) -> None:
        await self.tell("flush", stream_id=self.turn)
        self.replying = False
        if self.server.fault == "flush":
            await self.socket.send_message(tone(0.01))
        heard = {"heard_text": "It is", "unheard_text": "late."}
        await self.tell(
            "interrupted", turn_id=self.turn, **heard, played_ms=100, certainty="reported"
        )
        await self.tell("turn_metrics", turn_id=self.turn, first_audio_ms=50, ended_ms=None)
        await self.tell("status", state="listening", session_id="s-1")

    async def answer(self, transcript: str | None) -> None:
        if self.server.fault == "deaf":
            return
        if self.server.fault == "crash":
            await self.socket.aclose(1011, "bug")
            return
        self.turn += 1
        turn = {"turn_id": self.turn}
        if transcript is not None:
            said = {"text": transcript, "is_final": True, "speeching": False, "segment_id": 1}
            await self.tell("asr_result", **said, **turn)
        await self.tell("status", state="thinking", session_id="s-1")
        call = {"call_id": "c1", "name": "clock"}
        await self.tell("tool_call", **turn, **call, arguments={"zone": "UTC"}, target="server")
        await self.tell("tool_result", **turn, **call, ok=True, result="ten", duration_ms=3)
        await self.tell("llm_response", **turn, delta=True, text="It is ")
        await self.tell("llm_response", **turn, done=True, text="It is late.")
        stream = {"stream_id": self.turn}
        await self.tell("tts_audio", state="start", **turn, **stream, sample_rate=SAMPLE_RATE)
        sound = tone(self.server.reply_seconds, level=self.server.reply_level)
        step = round(CHUNK_SECONDS * SAMPLE_RATE) * 2
        for begin in range(0, len(sound), step):
            await self.socket.send_message(sound[begin : begin + step])
        await self.tell("tts_audio", state="end", **stream, samples=len(sound) // 2)
        self.replying = True

    async def finish(self) -> None:
        self.replying = False
        metrics = {"transcript_ms": 20.0, "first_audio_ms": 90.0, "ended_ms": None}
        await self.tell("turn_metrics", turn_id=self.turn, **metrics)
        await self.tell("status", state="listening", session_id="s-1")


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[ScriptedServer]:
    """A scripted server on a port that the kernel chose."""
    server = ScriptedServer(**settings)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(serve_websocket, server.serve, "127.0.0.1", 0, None)
        server.url = f"ws://127.0.0.1:{listener.port}/listenai"
        yield server
        nursery.cancel_scope.cancel()


def options(server: ScriptedServer, *files: Path, **more: Any) -> TalkOptions:
    return TalkOptions(server.url, files, **{"timeout_seconds": 5, "gap_seconds": 0.1, **more})


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """A short tone with silence after it."""
    path = tmp_path / "question.wav"
    write_wav(path, tone(0.1) + bytes(3_200), SAMPLE_RATE)
    return path


# --- talk --------------------------------------------------------------------------------


async def test_questions_are_asked_one_after_another(question: Path, tmp_path: Path) -> None:
    """Two files: two answers, their words, tools and latencies; what was heard is saved."""
    stereo = tmp_path / "stereo.wav"
    write_wav(stereo, tone(0.1, 48_000), 48_000)
    said: list[str] = []
    saved = tmp_path / "reply.wav"
    async with serving() as server:
        status = await talk(options(server, question, stereo, save=saved), said.append)
    printed = "\n".join(said)
    assert status == 0, printed
    assert printed.count("what the tone said") == 2
    for part in ("question.wav", "stereo.wav", "It is late.", 'clock({"zone": "UTC"}) → "ten"'):
        assert part in printed
    for part in ("[server, 3 ms]", "0.60 s audible", "first sound heard", "unknown: ended"):
        assert part in printed

    kinds = [message["type"] for message in server.received]
    assert kinds[0] == "start_session"
    assert kinds[-1] == "end_session"
    assert server.received[0]["capabilities"]["pause"] is True
    reported = [m["played_samples"] for m in server.received if m["type"] == "playback"]
    assert max(reported) == round(0.6 * SAMPLE_RATE)
    assert set(server.frames) == {FRAME_BYTES}

    heard = read_wav(saved).samples[:, 0]
    reply = np.frombuffer(tone(0.6), np.int16)
    assert np.array_equal(heard[: len(reply)], reply)
    assert np.array_equal(heard[-len(reply) :], reply)
    assert len(heard) > 2 * len(reply)  # the silence between them too


async def test_a_barge_in_is_measured_and_answered(question: Path, tmp_path: Path) -> None:
    """Speaking over the reply: pause, flush and silence are timed; its question is answered."""
    over = tmp_path / "over.wav"
    write_wav(over, tone(0.15), SAMPLE_RATE)
    said: list[str] = []
    async with serving(reply_seconds=0.9) as server:
        wanted = options(server, question, barge_in=over, barge_in_at=0.1)
        status = await talk(wanted, said.append)
    printed = "\n".join(said)
    assert status == 0, printed
    assert "'It is' (reported)" in printed
    times = {line.split()[0]: float(line.split()[1]) for line in said if _is_timing(line)}
    # The server pauses at the 2nd and flushes at the 4th frame of speech.
    assert 0 <= times["pause"] < times["flush"]
    assert times["flush"] - times["pause"] == pytest.approx(2 * FRAME_SECONDS * 1000, abs=25)
    assert times["silence"] == pytest.approx(times["pause"], abs=5)
    assert printed.index("over.wav") < printed.rindex("what the tone said")


def _is_timing(line: str) -> bool:
    return line.startswith(("    pause ", "    flush ", "    silence "))


async def test_a_barge_in_that_comes_too_late_fails(question: Path) -> None:
    """A reply that is over cannot be interrupted: that is said, not passed."""
    said: list[str] = []
    async with serving() as server:
        status = await talk(
            options(server, question, barge_in=question, barge_in_at=2), said.append
        )
    assert status == 1
    assert "use a smaller --at" in said[-1]


@pytest.mark.parametrize(
    ("fault", "law"),
    [("pause", "no audio between pause and resume"), ("flush", "no audio after flush")],
)
async def test_a_broken_law_fails(question: Path, fault: str, law: str) -> None:
    """Every question was answered, but audio came when none was allowed."""
    said: list[str] = []
    async with serving(fault=fault) as server:
        wanted = options(server, question, barge_in=question, barge_in_at=0.1)
        status = await talk(wanted, said.append)
    assert status == 1
    assert [line for line in said if line.startswith("FAILED")] == [
        next(line for line in said if law in line)
    ]


async def test_an_answer_that_nobody_can_hear_fails(question: Path) -> None:
    """Audio below −40 dBFS is no answer."""
    said: list[str] = []
    async with serving(reply_level=100) as server:
        status = await talk(options(server, question), said.append)
    assert status == 1
    assert "no audible answer: 0.00 s louder than -40 dBFS" in said[-1]


async def test_no_reply_in_time_fails(question: Path) -> None:
    """The question, the time and what there was instead are told."""
    said: list[str] = []
    async with serving(fault="deaf") as server:
        status = await talk(options(server, question, timeout_seconds=0.2), said.append)
    assert status == 1
    assert "question.wav: no complete reply within 0.2 s" in said[-1]
    assert "it understood nothing" in said[-1]


async def test_a_server_that_leaves_fails(question: Path) -> None:
    """Its close code and reason are told."""
    said: list[str] = []
    async with serving(fault="crash") as server:
        status = await talk(options(server, question), said.append)
    assert status == 1
    assert "the server closed the connection (1011: bug)" in said[-1]


async def test_nobody_there_is_unusable(question: Path) -> None:
    """A port where nothing listens: exit status 2 and a sentence."""
    async with serving() as server:
        pass
    said: list[str] = []
    assert await talk(options(server, question), said.append) == 2
    assert said[0].startswith(f"no session at {server.url}: ")
    assert "is the server running there?" in said[0]


async def test_a_server_that_is_no_websocket_server_is_unusable(question: Path) -> None:
    """It answers the handshake with something else."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\ntry /here")

    said: list[str] = []
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        port = listeners[0].socket.getsockname()[1]
        wanted = TalkOptions(f"ws://127.0.0.1:{port}/wrong", (question,))
        assert await talk(wanted, said.append) == 2
        nursery.cancel_scope.cancel()
    assert "the server answered 404 try /here" in said[0]


async def test_a_refused_session_is_unusable(question: Path) -> None:
    """What the server said is passed on."""
    said: list[str] = []
    async with serving(refusal="taken") as server:
        assert await talk(options(server, question, session_id="mine"), said.append) == 2
    assert said == ["no session: error SESSION_ERROR: taken"]
    assert server.received[0]["session_id"] == "mine"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"url": "http://x/"}, "must begin with ws:// or wss://"),
        ({"url": "ws:///"}, "an address is like ws://127.0.0.1:9400/"),
        ({"url": "ws://h:port/"}, "no session at ws://h:port/"),
        ({"files": ()}, "give WAV files to ask, or --mic"),
        ({"mic": True}, "one of the two"),
        ({"mic": True, "files": (), "save": Path("x.wav")}, "go with WAV files"),
        ({"barge_in_at": -1.0}, "--at must be 0 or more seconds, not -1"),
        ({"timeout_seconds": 0.0}, "--timeout must be above 0 seconds, not 0"),
        ({"gap_seconds": -0.5}, "0 or more seconds, not -0.5"),
        ({"save": Path("nowhere/x.wav")}, "there is no folder nowhere"),
        ({"files": (Path("missing.wav"),)}, "cannot read missing.wav: No such file"),
        ({"barge_in": Path("missing.wav")}, "cannot read missing.wav"),
    ],
)
async def test_bad_options_are_unusable(
    question: Path, changed: dict[str, Any], complaint: str
) -> None:
    """Exit status 2 and what is allowed, before anything is connected."""
    said: list[str] = []
    good = TalkOptions("ws://127.0.0.1:9/", (question,))
    assert await talk(attrs.evolve(good, **changed), said.append) == 2
    assert complaint in "\n".join(said)


# --- the device as a library -------------------------------------------------------------


async def test_a_device_keeps_what_happened_and_when() -> None:
    """A reply has its words, sound, events and times on the device's clock."""
    async with serving() as server, Device.connect(server.url, api_key="k") as device:
        await device.configure(language="en")
        await device.speak(tone(0.1) + bytes(3_200))
        reply = await device.wait_reply(5)
        assert (reply.turn_id, reply.transcript, reply.text) == (1, *_WORDS)
        assert reply.audio == tone(0.6)
        assert reply.metrics == {"transcript_ms": 20.0, "first_audio_ms": 90.0, "ended_ms": None}
        kinds = [event.type for event in reply.events]
        assert kinds[0] == "asr_result"
        assert kinds[-1] == "turn_metrics"
        assert reply.speech_started_at is not None
        assert reply.speech_ended_at is not None
        assert reply.first_sound_at is not None
        spoken = reply.speech_ended_at - reply.speech_started_at
        assert spoken == pytest.approx(0.1, abs=2 * FRAME_SECONDS)  # the silence is not speech
        assert reply.voice_to_voice_ms is not None
        assert reply.voice_to_voice_ms > END_OF_SPEECH_FRAMES * FRAME_SECONDS * 500
        assert reply.silent_at == pytest.approx(reply.first_sound_at + 0.6, abs=0.01)
        assert device.log.session_id == "s-1"
    assert (b"authorization", b"Bearer k") in server.headers
    assert {"type": "configure", "language": "en"} in server.received


_WORDS = ("what the tone said", "It is late.")


async def test_a_typed_question_and_the_button() -> None:
    """Text asks without speech; the button ends the reply early."""
    async with serving() as server, Device.connect(server.url) as device:
        await device.type_text("the time?")
        turn, _ = await device.wait_sound(5)
        await device.interrupt()
        reply = await device.wait_reply(5)
        assert (reply.turn_id, reply.transcript) == (turn.id, None)
        assert reply.interrupted is not None
        assert 0 < len(reply.audio) < len(tone(0.6))
        flush = await device.wait_event("flush")
        assert reply.silent_at == pytest.approx(flush.at, abs=0.002)
        last = [message for message in server.received if message["type"] == "playback"][-1]
        assert last["played_samples"] == len(reply.audio) // 2


async def test_a_refused_setting_is_raised() -> None:
    """The caller gets the server's words, in an exception of its own and no group."""
    async with serving() as server:

        async def ask() -> None:
            async with Device.connect(server.url) as device:
                server.refusal = "no such voice"
                await device.configure(voice_id="nobody")

        with pytest.raises(ServerRefused, match="SESSION_ERROR: no such voice"):
            await ask()


async def test_waiting_is_bounded_and_says_what_there_is() -> None:
    """Without an answer `wait_sound` and `wait_reply` give up."""
    async with serving(fault="deaf") as server, Device.connect(server.url) as device:
        await device.speak(tone(0.02))
        with pytest.raises(ReplyTimeout, match=r"nothing to be heard within 0\.05 s"):
            await device.wait_sound(0.05)
        with pytest.raises(ReplyTimeout, match="the server is 'ready'"):
            await device.wait_reply(0.05)


async def test_a_silent_server_is_unreachable() -> None:
    """A connection on which `status ready` never comes is given up."""

    async def accept_only(request: WebSocketRequest) -> None:
        await request.accept()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(serve_websocket, accept_only, "127.0.0.1", 0, None)
        url = f"ws://127.0.0.1:{listener.port}/"
        with pytest.raises(ServerUnreachable, match="did not say `status ready` in time"):
            async with Device.connect(url, connect_seconds=0.1):
                pytest.fail("there is no session")
        nursery.cancel_scope.cancel()


async def test_a_stranger_that_says_nothing_is_unreachable() -> None:
    """A server that takes the connection and never answers the handshake is given up."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            port = listener.socket.getsockname()[1]
            with pytest.raises(ServerUnreachable, match="handshake in time"):
                async with Device.connect(f"ws://127.0.0.1:{port}/", connect_seconds=0.1):
                    pytest.fail("there is no session")
        nursery.cancel_scope.cancel()


async def test_the_microphone_never_drifts(autojump_clock: trio.testing.MockClock) -> None:
    """Frame n comes n * 16 ms after the first call, however long earlier ones took to send."""
    room = SilentRoom()
    began = trio.current_time()
    for number in range(1, 1_001):
        assert await room.frame() == bytes(FRAME_BYTES)
        if number % 50 < 20:
            await trio.sleep(0.030 if number % 50 < 5 else 0.003)  # behind, and caught up
        else:
            assert trio.current_time() == pytest.approx(began + number * FRAME_SECONDS)


def test_an_utterance_knows_when_its_speech_was_sent() -> None:
    """First and last loud sample, not the silence around; the last frame is filled up."""
    window = bytes(2 * 320)  # 20 ms: levels are measured in these
    utterance = Utterance(2 * window + tone(0.04) + 3 * window + b"\1\0")
    frames = []
    assert utterance.started_at is None
    while not utterance.sent.is_set():
        frames.append(utterance.next_frame())
        utterance.frame_sent(float(len(frames)))
    assert {len(frame) for frame in frames} == {FRAME_BYTES}
    assert b"".join(frames)[: len(utterance.pcm)] == utterance.pcm
    assert len(frames) == 9  # 2241 samples
    assert utterance.started_at == 1 + 640 // FRAME_SAMPLES
    assert utterance.ended_at == 1 + (640 + 640 - 1) // FRAME_SAMPLES


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (8_000, 1), (22_050, 2)])
def test_recordings_become_what_a_microphone_has(rate: int, channels: int) -> None:
    """Any rate, any channels: 16 kHz mono, as long and as loud."""
    mono = np.frombuffer(tone(0.5, rate), np.int16)
    pcm = to_microphone(Recording(np.column_stack([mono] * channels), rate))
    found = np.frombuffer(pcm, np.int16)
    assert len(found) == pytest.approx(8_000, abs=2)
    assert found.astype(float).std() == pytest.approx(8_000 / 2**0.5, rel=0.02)


# --- what arrived, without a connection --------------------------------------------------


def test_nonsense_is_a_violation_and_the_device_goes_on() -> None:
    """Messages that break the protocol are told, each with its reason."""
    log = DeviceLog(Speaker())
    for message in ("{", "[]", '{"type":"pause"}', '{"type":1}', '{"type":"tts_audio"}'):
        assert log.receive(message, 1.0) is None
    assert log.receive('{"type":"new_in_version_9"}', 2.0) is not None
    details = [violation.detail for violation in log.violations]
    assert len(details) == 5
    assert "not a JSON object" in details[1]
    assert details[2] == "pause: field 'stream_id' must be int, not None"


def _told(log: DeviceLog, **message: Any) -> None:
    assert log.receive(json.dumps(message), 1.0) is not None


@pytest.mark.parametrize("order", list(itertools.permutations(["metrics", "status", "silence"])))
def test_a_reply_is_over_only_when_nothing_of_it_is_left(order: tuple[str, ...]) -> None:
    """Metrics, a server that listens and a silent loudspeaker: all three, in any order."""
    log = DeviceLog(Speaker())

    def over() -> bool:
        return log.is_over(0, 0.0, spoken=True)

    _told(log, type="status", state="listening", session_id="s")
    assert not over()
    _told(log, type="asr_result", turn_id=1, text="hi", is_final=True)
    assert not over()
    _told(log, type="status", state="speaking", session_id="s")
    _told(log, type="tts_audio", state="start", turn_id=1, stream_id=1, sample_rate=16_000)
    log.receive(tone(0.1), 1.0)
    _told(log, type="tts_audio", state="end", stream_id=1, samples=1_600)
    for last in order:
        assert not over()
        match last:
            case "metrics":
                _told(log, type="turn_metrics", turn_id=1, ended_ms=5)
            case "status":
                _told(log, type="status", state="listening", session_id="s")
            case "silence":
                log.speaker.advance(2.0)
    assert over()
    assert not log.is_over(1, 0.0, spoken=True)


def test_an_error_without_a_turn_ends_the_waiting() -> None:
    """Speech that the server could not transcribe gets no turn."""
    log = DeviceLog(Speaker())
    _told(log, type="status", state="listening", session_id="s")
    _told(log, type="error", code="ASR_ERROR", message="broken")
    assert log.is_over(0, 0.5, spoken=True)
    assert not log.is_over(0, 1.5, spoken=True)


def test_a_failed_turn_is_described_with_its_problems() -> None:
    """Errors, tools that failed or did not return, and silence."""
    log = DeviceLog(Speaker())
    call = {"turn_id": 1, "name": "lamp", "arguments": {}, "target": "device"}
    _told(log, type="tool_call", call_id="a", **call)
    _told(log, type="tool_call", call_id="b", **call)
    _told(log, type="tool_result", turn_id=1, call_id="b", ok=False, error="no lamp")
    _told(log, type="error", turn_id=1, code="LLM_ERROR", message="away")
    reply = log.reply(log.turn(1), None, None)
    lines = list(describe_reply(reply))
    assert "  tool      lamp({}) did not return" in lines
    assert '  tool      lamp({}) → failed: "no lamp" [device]' in lines
    problems = list(reply_problems(reply))
    assert problems[0] == "error LLM_ERROR: away"
    assert "no audible answer" in problems[1]


def test_old_turns_are_forgotten() -> None:
    """A device that talks for days keeps a bounded number of turns."""
    log = DeviceLog(Speaker())
    turns: list[Turn] = [log.turn(number) for number in range(1, 1_102)]
    assert len(log.turns) == 1_000
    assert log.turn(1_101) is turns[-1]


# --- the sound card ----------------------------------------------------------------------


class FakeSoundDriver:
    """Looks like `sounddevice`; `on_open` gets each stream's callback."""

    class PortAudioError(Exception):
        """As the real one."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.capture: Callable[..., None] = _no_callback
        self.render: Callable[..., None] = _no_callback

    def RawInputStream(self, callback: Callable[..., None], **settings: Any) -> Any:  # noqa: N802
        if self.broken:
            raise self.PortAudioError("no device")
        self.capture = callback
        return _FakeStream()

    def RawOutputStream(self, callback: Callable[..., None], **settings: Any) -> Any:  # noqa: N802
        self.render = callback
        return _FakeStream()

    def rendered(self) -> bytes:
        block = bytearray(FRAME_BYTES)
        self.render(memoryview(block), FRAME_SAMPLES, None, None)
        return bytes(block)


def _no_callback(*args: Any) -> None:
    raise AssertionError("the stream was not opened")


class _FakeStream:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


async def test_the_sound_card_hands_over_between_threads() -> None:
    """Frames come out as they went in; playing waits a little, then gives everything."""
    driver = FakeSoundDriver()
    async with open_sound_card(driver) as card:
        frames = [bytes([number]) * FRAME_BYTES for number in range(3)]
        await trio.to_thread.run_sync(lambda: [driver.capture(f, 256, None, None) for f in frames])
        assert [await card.frame() for _ in frames] == frames
        sound = tone(4 * FRAME_SECONDS)
        card.play(sound, SAMPLE_RATE)
        blocks = b"".join(driver.rendered() for _ in range(10))
        assert blocks.strip(b"\0") == sound.strip(b"\0")
        assert blocks.startswith(bytes(3 * FRAME_BYTES))
        assert card.dropped_frames == card.dropped_bytes == 0


async def test_the_sound_cards_buffers_are_bounded() -> None:
    """The oldest sound is dropped, and counted."""
    driver = FakeSoundDriver()
    async with open_sound_card(driver) as card:
        for number in range(CAPTURED_FRAMES + 2):
            driver.capture(bytes([number]) * FRAME_BYTES, 256, None, None)
        assert card.dropped_frames == 2
        assert await card.frame() == b"\2" * FRAME_BYTES
        card.play(tone(1.0, 48_000), 48_000)
        assert card.dropped_bytes == pytest.approx(32_000 - PLAYBACK_BYTES, abs=2_000)


async def test_talking_live_prints_turns_until_interrupted() -> None:
    """The microphone's frames reach the server, the reply the loudspeaker; Ctrl-C ends well."""
    driver = FakeSoundDriver()
    said: list[str] = []
    played = bytearray()

    async def ring() -> None:
        """The card's clock: it speaks 6 frames, then listens until the turn was printed."""
        frame = 0
        while not any(line.startswith("reply") for line in said):
            if driver.render is not _no_callback:
                frame += 1
                driver.capture((tone(FRAME_SECONDS) if frame < 7 else bytes(512)), 256, None, None)
                played.extend(driver.rendered())
            await trio.sleep(FRAME_SECONDS)
        signal.raise_signal(signal.SIGINT)

    async with serving() as server, trio.open_nursery() as nursery:
        nursery.start_soon(ring)
        with trio.fail_after(5):
            status = await talk(TalkOptions(server.url, mic=True), said.append, driver)
    assert status == 0, said
    assert said == ["Speak; Ctrl-C ends.", "you    what the tone said", "reply  It is late."]
    assert np.frombuffer(bytes(played), np.int16).astype(float).std() > 1_000
    assert server.received[0]["capabilities"]["echo"] == "raw"
    assert all(m["output_latency_ms"] > 0 for m in server.received if m["type"] == "playback")


async def test_no_microphone_is_unusable() -> None:
    """A machine without a sound card: exit status 2 and what to do."""
    said: list[str] = []
    wanted = TalkOptions("ws://127.0.0.1:9/", mic=True)
    assert await talk(wanted, said.append, FakeSoundDriver(broken=True)) == 2
    assert "`python -m sounddevice` lists what there is" in said[0]
