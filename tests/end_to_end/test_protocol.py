"""What the ListenAI protocol promises, message by message, through a real socket.

The engines take no time but where a test is about their time, fail on demand, and the
voice is silent; the detector is the real one, because it is what some settings are about.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import httpx
import numpy as np
import pytest
import trio
from end_to_end_server import recording
from fakes import FakeChatModel, FakeSynthesizer, call
from trio_websocket import ConnectionClosed, WebSocketConnection

from listenai.app import open_engines, serve
from listenai.audio import FRAME_BYTES
from listenai.client.connection import open_socket
from listenai.config import Config
from listenai.engines.base import ChatSettings, ReplyText, SpeakerMemory, Transcript
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.espeak import EspeakSynthesizer
from listenai.engines.segmenter import Change, Segmenter
from listenai.engines.ten_vad import TenVadDetector
from listenai.errors import ChatModelError, SynthesizerError, TranscriberError

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

SECONDS = 10.0  # for any one answer
SILENCE = bytes(FRAME_BYTES * 60)  # 0.96 s: ends every segment
DEVICE = {"pause": True, "flush": True, "playback_reports": True, "echo": "cancelled"}


# --- a server ------------------------------------------------------------------------------


@attrs.frozen
class Transcriber:
    """Understands one text in each language, or fails."""

    texts: dict[str, str] = attrs.field(factory=lambda: {"en": "tell me something"})
    fail: Exception | None = None

    @property
    def languages(self) -> Sequence[str]:
        return tuple(self.texts)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[Transcribing]:
        yield Transcribing(Transcript(self.texts[language], complete=True), self.fail)


@attrs.frozen
class Transcribing:
    """One utterance."""

    transcript: Transcript
    fail: Exception | None

    async def accept(self, pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def partial(self) -> str:
        await trio.lowlevel.checkpoint()
        return self.transcript.text

    async def finish(self) -> Transcript:
        await trio.lowlevel.checkpoint()
        if self.fail:
            raise self.fail
        return self.transcript


class ChatModel(FakeChatModel):
    """Keeps the settings that it was asked with, too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings: list[ChatSettings] = []

    def open_reply(
        self, messages: Any, tools: Any, settings: ChatSettings
    ) -> AbstractAsyncContextManager:
        self.settings.append(settings)
        return super().open_reply(messages, tools, settings)


@attrs.define
class Server:
    """A real server with engines that do as they are told."""

    chat: ChatModel = attrs.field(factory=lambda: ChatModel("One two three."))
    voice: Any = attrs.field(factory=lambda: FakeSynthesizer(0.3))
    transcriber: Transcriber = attrs.field(factory=Transcriber)
    settings: dict[str, Any] = attrs.field(factory=dict)  # of Config
    options: dict[str, Any] = attrs.field(factory=dict)  # of serve
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        config = Config(host="127.0.0.1", port=0, memory_budget_mb=1000, **self.settings)
        async with open_engines(fake=True) as fake, trio.open_nursery() as nursery:
            engines = attrs.evolve(
                fake,
                recognizers=SegmentingRecognizerFactory(TenVadDetector, self.transcriber),
                chat_model=self.chat,
                synthesizer=self.voice,
            )
            [address] = await nursery.start(partial(serve, config, engines, **self.options))
            self.url = address.url("ws") + "/"
            yield self
            nursery.cancel_scope.cancel()


@attrs.frozen
class Peer:
    """A device that sends what a test says and keeps what it gets."""

    socket: WebSocketConnection
    got: list[dict[str, Any]] = attrs.field(factory=list)  # audio as type "audio"

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_message(json.dumps({"type": kind, **fields}))

    async def speak(self, name: str = "no.wav") -> None:
        """A recording and the silence after it, as fast as the server takes them."""
        pcm = recording(name) + SILENCE
        for start in range(0, len(pcm), 8192):
            await self.socket.send_message(pcm[start : start + 8192])

    async def configure(self, **settings: Any) -> dict[str, Any]:
        """Returns when they are in force, all the settings."""
        await self.send("configure", **settings)
        while "configuration" not in (status := await self.until("status")):
            pass
        return status["configuration"]

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of this type with these values."""
        with trio.fail_after(SECONDS):
            while True:
                message = await self.socket.get_message()
                if isinstance(message, bytes):
                    self.got.append({"type": "audio", "pcm": message})
                else:
                    self.got.append(json.loads(message))
                last = self.got[-1]
                if last["type"] == kind and fields.items() <= last.items():
                    return last

    async def close_code(self) -> int:
        """What the server closes with, after everything that it still says."""
        with suppress(ConnectionClosed):
            await self.until("no such message")
        assert self.socket.closed
        return self.socket.closed.code

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.got if message["type"] == kind]

    @property
    def pcm(self) -> bytes:
        return b"".join(message["pcm"] for message in self.all("audio"))

    @property
    def words(self) -> str:
        """Everything got, a word each: `thinking delta start audio …`."""
        return " ".join(map(_word, self.got))


def _word(message: dict[str, Any]) -> str:
    match message:
        case {"type": "status" | "tts_audio", "state": str(state)}:
            return state
        case {"type": "asr_result", "is_final": is_final}:
            return "final" if is_final else "partial"
        case {"type": "llm_response"}:
            return "delta" if message.get("delta") else "done"
    return str(message["type"])


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Peer]:
    """A peer that has said nothing."""
    async with open_socket(server.url, None, SECONDS) as (socket, _):
        yield Peer(socket)


@asynccontextmanager
async def begun(server: Server, **start: Any) -> AsyncIterator[Peer]:
    """A peer with a session."""
    async with connected(server) as peer:
        await peer.send("start_session", capabilities=DEVICE, **start)
        await peer.until("status", state="ready")
        yield peer


@asynccontextmanager
async def talking(**options: Any) -> AsyncIterator[tuple[Server, Peer]]:
    """A server and a peer with a session."""
    async with Server(**options).running() as server, begun(server) as peer:
        yield server, peer


# --- configure: what each field changes ----------------------------------------------------


def likeness(one: bytes, other: bytes) -> float:
    """How alike two mean spectra are: espeak never says the same sample by sample."""
    return float(np.corrcoef(_spectrum(one), _spectrum(other))[0, 1])


def _spectrum(pcm: bytes) -> np.ndarray:
    samples = np.frombuffer(pcm, np.int16)
    windows = samples[: len(samples) // 512 * 512].reshape(-1, 512) * np.hanning(512)
    return np.abs(np.fft.rfft(windows)).mean(axis=0)


async def test_language_changes_what_hears_thinks_and_speaks():
    """The transcriber's language, the chat model's, and that of the voice."""
    transcriber = Transcriber({"en": "say it", "zh": "你好吗"})
    audio = []
    async with talking(
        transcriber=transcriber, voice=EspeakSynthesizer(), chat=ChatModel("1 2.")
    ) as (server, peer):
        for language in ("en", "zh", "en"):
            assert (await peer.configure(language=language))["language"] == language
            peer.got.clear()
            await peer.speak()
            assert (await peer.until("asr_result", is_final=True))["text"] == (
                transcriber.texts[language]
            )
            await peer.until("turn_metrics")
            assert server.chat.settings[-1].language == language
            audio.append(peer.pcm)
    assert likeness(audio[0], audio[2]) > 0.98
    assert likeness(audio[0], audio[1]) < 0.9


async def test_voice_id_changes_the_voice():
    """The same words sound different, and the same again where the voice is the same."""
    voice, audio = EspeakSynthesizer(), []
    async with talking(voice=voice, chat=ChatModel("1 2.")) as (_, peer):
        for voice_id in ("default", "doubao-通用女声", "default"):
            await peer.configure(voice_id=voice_id)
            peer.got.clear()
            await peer.send("text", text="speak")
            await peer.until("turn_metrics")
            audio.append(peer.pcm)
    assert likeness(audio[0], audio[2]) > 0.98
    assert likeness(audio[0], audio[1]) < 0.9


async def test_system_prompt_reaches_the_chat_model():
    """From the next turn on; an empty one is none."""
    async with talking() as (server, peer):
        for prompt in ("Speak like a pirate.", ""):
            await peer.configure(system_prompt=prompt)
            await peer.send("text", text="hello")
            await peer.until("turn_metrics")
            _, messages = server.chat.asked[-1]
            assert [m.content for m in messages if m.role == "system"] == [prompt][: len(prompt)]


def segments_in(name: str, threshold: float, silence_frames: int) -> int:
    """How many segments of speech the detector finds in a recording."""
    segmenter = Segmenter(suspicion=(3, 4), threshold=threshold, silence_frames=silence_frames)
    pcm = recording(name) + SILENCE
    with TenVadDetector() as detector:
        frames = (pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES))
        changes = [segmenter.push(detector.process(f.ljust(FRAME_BYTES, b"\0"))) for f in frames]
    return sum(Change.STARTED in change for change in changes)


async def last_segment(name: str, **settings: Any) -> int:
    """The number of the segment that ends an utterance."""
    async with talking() as (_, peer):
        await peer.configure(end_of_turn_ms=500, **settings)
        await peer.speak(name)
        return (await peer.until("asr_result", is_final=True))["segment_id"]


async def test_vad_silence_frames_end_segments_later():
    """A short pause parts two segments; who is more patient hears one."""
    name = "what_time_is_it.wav"
    patient, usual = segments_in(name, 0.5, 40), segments_in(name, 0.5, 5)
    assert patient < usual
    assert await last_segment(name, vad_silence_frames=40) == patient
    assert await last_segment(name) == usual


async def test_vad_threshold_decides_what_is_speech():
    """Where it is high, quiet syllables are silence and part two segments."""
    name = "dog_and_house.wav"
    strict, usual = segments_in(name, 0.9, 5), segments_in(name, 0.5, 5)
    assert strict > usual
    assert await last_segment(name, vad_threshold=0.9) == strict
    assert await last_segment(name) == usual


async def test_end_of_turn_ms_delays_the_turn():
    """From the last speech on; none is none."""
    started = {}
    async with talking() as (_, peer):
        for delay in (0, 900):
            await peer.configure(end_of_turn_ms=delay)
            await peer.speak()
            started[delay] = (await peer.until("turn_metrics"))["turn_started_ms"]
    assert started[0] < 600
    assert 900 <= started[900] < 1500


async def test_interruptible_lets_speech_stop_the_reply_or_wait():
    """At once: the reply that runs is kept, and what was said over it is the next turn."""
    async with talking(voice=FakeSynthesizer(1.5)) as (_, peer):
        await peer.send("text", text="first")
        await peer.until("tts_audio", state="start")
        await peer.configure(interruptible=False)
        await peer.speak()
        await peer.until("asr_result", is_final=True, turn_id=2)
        assert not peer.all("interrupted")
        assert not peer.all("pause")
        assert [m["turn_id"] for m in peer.all("turn_metrics")] == [1]
        assert len(peer.pcm) == 1.5 * 32_000
        await peer.configure(interruptible=True)
        await peer.until("tts_audio", state="start")
        await peer.speak()
        assert (await peer.until("interrupted"))["turn_id"] == 2


async def test_tools_are_offered_or_not():
    """To the chat model; the session's offer stays."""
    async with talking() as (server, peer):
        for wanted in (True, False):
            await peer.configure(tools=wanted)
            await peer.send("text", text="hello")
            await peer.until("turn_metrics")
            names = {tool.name for tool in server.chat.tools[-1]}
            assert names == ({"get_weather", "set_volume", "play_music"} if wanted else set())


async def test_partial_results_are_sent_or_not():
    """The final one always is."""
    kinds = {}
    async with talking() as (_, peer):
        for wanted in (True, False):
            await peer.configure(partial_results=wanted, end_of_turn_ms=300)
            peer.got.clear()
            await peer.speak("dog_and_house.wav")
            await peer.until("turn_metrics")
            kinds[wanted] = {m["is_final"] for m in peer.all("asr_result")}
    assert kinds == {True: {True, False}, False: {True}}


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
async def test_output_sample_rate_is_the_streams(rate: int):
    """Announced, and as many samples as that rate makes of 0.3 s."""
    async with talking() as (_, peer):
        await peer.configure(output_sample_rate=rate)
        await peer.send("text", text="hello")
        assert (await peer.until("tts_audio", state="start"))["sample_rate"] == rate
        samples = (await peer.until("tts_audio", state="end"))["samples"]
        assert len(peer.pcm) == samples * 2
        assert samples == pytest.approx(0.3 * rate, abs=2)
        assert max(len(m["pcm"]) for m in peer.all("audio")) <= 0.06 * rate * 2


async def test_a_configuration_is_applied_whole_or_not_at_all():
    """One bad field, and the good ones are not in force either."""
    async with talking() as (_, peer):
        before = await peer.configure()
        for bad in ({"voice_id": "nobody"}, {"vad_threshold": 2}, {"surprise": 1}):
            await peer.send("configure", end_of_turn_ms=77, tools=False, **bad)
            assert next(iter(bad)) in (await peer.until("error"))["message"]
        assert await peer.configure() == before
        changed = {"end_of_turn_ms": 77.0, "tools": False}
        assert await peer.configure(**changed) == before | changed


# --- the order of messages -----------------------------------------------------------------


def answer_with_tool(messages: Sequence[Any]) -> Sequence[Any]:
    if messages[-1].role == "tool":
        return [ReplyText("It is "), ReplyText("loud. "), ReplyText("Goodbye.")]
    return [ReplyText("Wait. "), call("set_volume", '{"level": 50}')]


async def test_a_turn_has_its_order():
    """Transcripts, thinking, text and tools and audio, the end, figures, listening."""
    async with talking(chat=ChatModel(answer_with_tool)) as (_, peer):
        await peer.configure(end_of_turn_ms=200)
        peer.got.clear()
        await peer.speak()
        await peer.until("status", state="listening")
    assert re.fullmatch(
        r"hearing (partial )+final thinking "
        r"((delta|done|tool_call|tool_result|start|sentence|audio|speaking) )+"
        r"end turn_metrics listening",
        peer.words,
    ), peer.words
    told = peer.words.split()
    assert re.search(r"\bdelta\b.*\btool_call\b.*\btool_result\b.*\bdelta\b.*\bdone\b", peer.words)
    assert re.search(r"\bstart\b.*?\bsentence\b.*?\baudio\b", peer.words)
    assert [told.count(word) for word in ("start", "end", "done", "tool_call")] == [1, 1, 1, 1]
    assert not re.search(r"\b(audio|sentence)\b.*\bstart\b", peer.words)
    assert not re.search(r"\bdone\b.*\bdelta\b", peer.words)


async def test_the_parts_of_a_turn_fit_together():
    """Increments make the text, sentences begin at their samples, one number binds all."""
    async with talking(chat=ChatModel(answer_with_tool)) as (_, peer):
        await peer.send("text", text="louder")
        await peer.until("turn_metrics")
    [whole] = [m for m in peer.all("llm_response") if m.get("done")]
    assert whole["text"] == "".join(m["text"] for m in peer.all("llm_response") if m.get("delta"))
    assert [one["name"] for one in whole["tool_calls"]] == ["set_volume"]
    [asked], [answered] = peer.all("tool_call"), peer.all("tool_result")
    assert asked["call_id"] == answered["call_id"] == whole["tool_calls"][0]["call_id"]
    sentences = [m for m in peer.all("tts_audio") if m["state"] == "sentence"]
    assert [m["from_sample"] for m in sentences] == [n * 4800 for n in range(len(sentences))]
    assert "".join(m["text"] for m in sentences).split() == whole["text"].split()
    assert {m["turn_id"] for m in peer.got if "turn_id" in m} == {1}
    assert len({m["stream_id"] for m in peer.got if "stream_id" in m}) == 1


async def test_an_interrupted_turn_has_its_order():
    """By speech: pause, flush, interrupted, figures; no audio from the pause on until a start."""
    async with talking(voice=FakeSynthesizer(2.0)) as (_, peer):
        await peer.send("text", text="first")
        await peer.until("audio")
        peer.got.clear()
        await peer.speak()
        await peer.send("playback", stream_id=1, played_samples=1600)
        await peer.until("turn_metrics")
        await peer.until("tts_audio", state="start")
    words = peer.words.split()
    mine = [_word(m) for m in peer.got if m.get("turn_id") == 1 or m.get("stream_id") == 1]
    assert mine[-4:] == ["pause", "flush", "interrupted", "turn_metrics"]
    assert "audio" not in words[words.index("pause") :]
    assert peer.all("interrupted")[0]["turn_id"] == 1
    assert [m["turn_id"] for m in peer.all("turn_metrics")] == [1]
    assert words.index("final") < words.index("thinking") < words.index("start")


async def test_the_button_ends_a_turn_at_once():
    """Flush, interrupted, figures, listening, and not a byte more; `playback` is believed."""
    async with talking(voice=FakeSynthesizer(2.0)) as (_, peer):
        await peer.send("text", text="first")
        await peer.until("audio")
        await peer.send("interrupt")
        flush = await peer.until("flush")
        peer.got.clear()
        await peer.send("playback", stream_id=flush["stream_id"], played_samples=800)
        await peer.until("status", state="listening")
    assert peer.words == "interrupted turn_metrics listening"
    interrupted = peer.got[0]
    assert (interrupted["certainty"], interrupted["played_ms"]) == ("reported", 50.0)


async def test_a_turn_interrupted_before_it_spoke_has_no_stream():
    """Then there is nothing to flush."""
    async with talking(chat=ChatModel("late", delay=60)) as (_, peer):
        await peer.send("text", text="first")
        await peer.until("status", state="thinking")
        peer.got.clear()
        await peer.send("interrupt")
        await peer.until("status", state="listening")
    assert peer.words == "interrupted turn_metrics listening"


# --- error codes ---------------------------------------------------------------------------


async def goes_on(peer: Peer) -> bool:
    """Whether the connection still answers."""
    await peer.send("ping", id="still there")
    return (await peer.until("pong"))["id"] == "still there"


@pytest.mark.parametrize(
    ("message", "code", "named"),
    [
        ("no JSON", "INVALID_MESSAGE", "not JSON"),
        ('{"type":"text","text":1}', "INVALID_MESSAGE", "'text' must be text"),
        ('{"type":"sing"}', "UNKNOWN_MESSAGE_TYPE", "sing"),
        ('{"type":"start_session"}', "SESSION_ERROR", "already"),
    ],
)
async def test_a_message_that_cannot_be_is_told(message: str, code: str, named: str):
    """And changes nothing."""
    async with talking() as (_, peer):
        await peer.socket.send_message(message)
        error = await peer.until("error")
        assert error["code"] == code
        assert named in error["message"]
        assert await goes_on(peer)


@pytest.mark.parametrize(
    ("engine", "code"),
    [
        ({"chat": ChatModel("", fail=ChatModelError("no mind today"))}, "LLM_ERROR"),
        ({"voice": FakeSynthesizer(0.3, fail=SynthesizerError("no voice today"))}, "TTS_ERROR"),
    ],
    ids=["LLM_ERROR", "TTS_ERROR"],
)
async def test_an_engine_that_fails_ends_its_turn(engine: dict[str, Any], code: str):
    """With its code, its words and the turn; the connection goes on to the next one."""
    async with talking(**engine) as (_, peer):
        for turn_id in (1, 2):
            await peer.send("text", text="hello")
            error = await peer.until("error")
            assert (error["code"], error["turn_id"]) == (code, turn_id)
            assert "today" in error["message"]
            await peer.until("turn_metrics", turn_id=turn_id)
        assert await goes_on(peer)


async def test_speech_that_cannot_be_understood_is_told():
    """ASR_ERROR; the connection goes on."""
    failing = Transcriber(fail=TranscriberError("no ears today"))
    async with talking(transcriber=failing) as (_, peer):
        await peer.speak()
        error = await peer.until("error")
        assert (error["code"], error["message"]) == ("ASR_ERROR", "no ears today")
        assert await goes_on(peer)
        await peer.send("text", text="then I type")
        await peer.until("turn_metrics", turn_id=1)


async def test_a_reply_that_takes_too_long_is_told():
    """TIMEOUT after CLOUD_INTERACTION_TIMEOUT; the connection goes on."""
    slow = {"chat": ChatModel("late", delay=60), "settings": {"interaction_timeout": 0.3}}
    async with talking(**slow) as (_, peer):
        await peer.send("text", text="hello")
        error = await peer.until("error")
        assert (error["code"], error["turn_id"]) == ("TIMEOUT", 1)
        assert "0.3 seconds" in error["message"]
        await peer.until("turn_metrics", turn_id=1)
        assert await goes_on(peer)


async def test_more_than_can_wait_is_refused():
    """RATE_LIMITED for the fifth text over a reply that keeps the floor."""
    async with talking(voice=FakeSynthesizer(2.0)) as (_, peer):
        await peer.configure(interruptible=False)
        for number in range(5):
            await peer.send("text", text=f"question {number}")
        error = await peer.until("error")
        assert error["code"] == "RATE_LIMITED"
        assert "send it again" in error["message"]
        assert await goes_on(peer)
        assert len(peer.all("error")) == 1


async def test_errors_are_logged_with_their_context(caplog: pytest.LogCaptureFixture):
    """Code, session and turn; neither reason nor what a device said, which may quote its user."""
    caplog.set_level(logging.INFO)
    failing = ChatModel("", fail=ChatModelError("no mind today"))
    async with Server(chat=failing).running() as server, begun(server, session_id="den") as peer:
        await peer.send("text", text="hello")
        await peer.until("error")
        await peer.send("configure", voice_id="my secret")
        assert "my secret" in (await peer.until("error"))["message"]
    logged = [
        (record.levelname, fields["code"], fields["session"], fields.get("turn"))
        for record in caplog.records
        if record.getMessage() == "error_reported" and (fields := vars(record)["fields"])
    ]
    assert logged == [
        ("WARNING", "LLM_ERROR", "den", 1),
        ("INFO", "INVALID_MESSAGE", "den", None),
    ]
    assert "my secret" not in caplog.text


async def test_our_own_mistake_is_told_and_closes_1011():
    """INTERNAL_ERROR without its secrets; another connection does not notice."""
    chat = ChatModel(lambda messages: _answer_or_break(messages[-1].content))
    async with Server(chat=chat).running() as server, begun(server) as other, begun(server) as peer:
        await peer.send("text", text="break")
        code = await peer.close_code()
        [error] = peer.all("error")
        assert (error["code"], code) == ("INTERNAL_ERROR", 1011)
        assert "secret" not in error["message"]
        await other.send("text", text="hello")
        await other.until("turn_metrics")
        assert not other.all("error")


def _answer_or_break(question: str) -> Sequence[ReplyText]:
    if question == "break":
        raise RuntimeError("a secret of ours")
    return [ReplyText("Fine.")]


# --- close codes ---------------------------------------------------------------------------


async def test_the_end_of_a_session_closes_1000():
    """After `status closing` with the statistics."""
    async with talking() as (_, peer):
        await peer.send("end_session")
        assert await peer.close_code() == 1000
    assert peer.got[-1]["state"] == "closing"
    assert set(peer.got[-1]["statistics"]) == {
        *("message_count", "interaction_count", "last_activity"),
        *("session_duration_seconds", "average_interaction_seconds"),
    }


async def test_a_drain_closes_1001_after_the_reply():
    """The whole reply is sent; nothing new is begun."""
    draining = trio.Event()
    async with talking(options={"draining": draining}) as (_, peer):
        await peer.send("text", text="hello")
        await peer.until("tts_audio", state="start")
        draining.set()
        assert await peer.close_code() == 1001
    assert len(peer.pcm) == 0.3 * 32_000
    assert peer.words.endswith("turn_metrics listening closing")


async def test_who_says_nothing_is_closed_1008():
    """With a reason; who speaks in time is not."""
    quick = {"first_message_seconds": 0.3}
    async with Server(options=quick).running() as server, begun(server) as quick_peer:
        async with connected(server) as peer:
            assert await peer.close_code() == 1008
            assert "0.3 s" in peer.socket.closed.reason
        assert peer.got == []
        assert await goes_on(quick_peer)


async def test_a_message_far_too_long_closes_1009():
    """Over 4 MiB; one over 1 MiB is INVALID_MESSAGE and the connection goes on."""
    async with talking() as (_, peer):
        await peer.socket.send_message(bytes(2**20 + 2))
        assert (await peer.until("error"))["code"] == "INVALID_MESSAGE"
        with suppress(ConnectionClosed):
            await peer.socket.send_message(bytes(2**22 + 1))
        assert await peer.close_code() == 1009


# --- sessions ------------------------------------------------------------------------------


async def test_who_comes_back_goes_on_where_it_was():
    """By the session's id, however the connection ended: history, settings and numbers."""
    async with Server().running() as server:
        async with begun(server, session_id="den") as peer:
            assert peer.got[0]["restored"] is False
            configured = await peer.configure(system_prompt="", tools=False)
            await peer.send("text", text="remember the milk")
            await peer.until("turn_metrics")
        async with begun(server, session_id="den") as peer:
            assert peer.got[0]["restored"] is True
            assert peer.got[0]["configuration"] == configured
            await peer.send("text", text="what was it")
            assert (await peer.until("turn_metrics"))["turn_id"] == 2
            _, messages = server.chat.asked[-1]
            assert [(m.role, m.content) for m in messages] == [
                ("user", "remember the milk"),
                ("assistant", "One two three."),
                ("user", "what was it"),
            ]


async def test_an_ended_session_is_forgotten():
    """Its id is a new session's then."""
    async with Server().running() as server:
        for _ in range(2):
            async with begun(server, session_id="den") as peer:
                assert peer.got[0]["restored"] is False
                await peer.send("text", text="forget the milk")
                await peer.until("turn_metrics")
                await peer.send("end_session")
                assert await peer.close_code() == 1000
    assert "forget the milk" not in [m.content for m in server.chat.asked[1][1][:-1]]


# --- the rest of the conversation's messages -----------------------------------------------


async def test_audio_in_json_is_audio():
    """`audio_data` is heard like binary messages, also before `start_session`."""
    async with Server().running() as server, connected(server) as peer:
        pcm = recording("no.wav") + SILENCE
        for start in range(0, len(pcm), 9000):
            text = base64.b64encode(pcm[start : start + 9000]).decode()
            await peer.send("audio_data", audio=text)
        assert (await peer.until("status"))["state"] == "ready"
        assert (await peer.until("asr_result", is_final=True))["text"] == "tell me something"


async def test_statistics_are_sent_on_request():
    """Spec 000's five, and the count goes up with a turn."""
    async with talking() as (_, peer):
        counts = []
        for _ in range(2):
            await peer.send("session_stats")
            counts.append((await peer.until("session_stats"))["interaction_count"])
            await peer.send("text", text="hello")
            await peer.until("turn_metrics")
    assert counts == [0, 1]


async def test_end_of_speech_ends_the_utterance():
    """Push-to-talk: the turn begins although nobody was silent and the delay is long."""
    async with talking() as (_, peer):
        await peer.configure(end_of_turn_ms=10_000)
        await peer.socket.send_message(recording("no.wav")[: 45 * FRAME_BYTES])
        await peer.send("end_of_speech")
        assert (await peer.until("asr_result", is_final=True))["turn_id"] == 1


async def test_the_reference_is_on_the_same_port():
    """With the paths of this server, each of which is one to connect to."""
    async with Server().running() as server, httpx.AsyncClient() as http:
        url = server.url.replace("ws://", "http://")
        page = (await http.get(url + "docs/protocol")).text
        paths = re.findall(r"<td><code>/(\w*)</code></td><td>ListenAI[^<]*</td>", page)
        assert {"", "listenai", "ws"} <= set(paths)
        for path in paths:
            async with open_socket(server.url + path, None, SECONDS) as (socket, _):
                assert await goes_on(Peer(socket))
