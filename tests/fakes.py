"""Small real implementations of everything around a conversation.

Messages are the events themselves (`EventDialect`); the device has a loudspeaker
that plays in real time, pauses, resumes, flushes and reports truthfully, and it
checks the laws of audio as it goes.  A frame of audio is a key under which the
scripted recognizer finds what it "hears" in it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import attrs
import trio

from listenai.audio import SAMPLE_BYTES, Encoding
from listenai.conversation.conversation import Conversation, Deadlines
from listenai.conversation.dialogue import Dialogue, Engines
from listenai.conversation.limits import RateLimits
from listenai.conversation.music_player import MusicPlayer, MusicSource
from listenai.conversation.replying import Limits
from listenai.conversation.turn_places import TurnPlaces
from listenai.device import UNCONDITIONED, Capabilities, Conditioning, DeviceProfile, Echo
from listenai.effects import Effects
from listenai.engines.base import (
    ChatMessage,
    ChatSettings,
    ReplyPart,
    ReplyText,
    SpeechChunk,
    ToolCall,
    WordTiming,
)
from listenai.events import (
    AudioChunk,
    AudioReceived,
    PlaybackReported,
    SessionStart,
    StreamFlushed,
    StreamPaused,
    StreamResumed,
    StreamStarted,
    ToolSchema,
)
from listenai.music import Track
from listenai.observer import NOBODY, ConnectionObserver
from listenai.sessions.base import Lease, Session, SessionStore
from listenai.settings import EffectiveConfiguration
from listenai.speech import (
    FinalTranscript,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    SpeechSuspected,
)
from listenai.tools.base import ToolRegistry, ToolTraits
from listenai.tools.music import MusicTool
from listenai.wire import DeviceGone

RATE = 16_000
CHUNK_SAMPLES = 320  # 20 ms

FULL = Capabilities(pause=True, flush=True, playback_reports=True, echo=Echo.CANCELLED)


@attrs.frozen
class Envelope:
    """An event as a message, which has a length."""

    event: Any

    def __len__(self) -> int:
        return 1


class EventDialect:
    """Messages are events."""

    def __init__(self, profile: DeviceProfile | None = None) -> None:
        self.profile = profile or DeviceProfile(chunk_seconds=CHUNK_SAMPLES / RATE)
        self.kept: list[Any] = []  # what could not be sent

    def receive(self, message: Any, now: float) -> Sequence[Any]:
        return [message.event]

    def send(self, event: Any, now: float) -> Sequence[Any]:
        return [Envelope(event)]

    def next_deadline(self) -> float:
        return math.inf

    def expire(self, now: float) -> Sequence[Any]:
        return []

    def undelivered(self, messages: Sequence[Any], now: float) -> None:
        self.kept = [message.event for message in messages]


@attrs.frozen
class PlainDecoder:
    """Audio that is already plain, but for what begins with "?"."""

    encoding: Encoding
    sample_rate: int

    def push(self, data: bytes) -> bytes:
        if data.startswith(b"?"):
            raise ValueError(f"this is no {self.encoding} at {self.sample_rate} Hz")
        return data


class Loudspeaker:
    """Plays one stream at a time in Trio's time; counts what it was told wrongly."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self.stream_id = 0
        self.queued = 0.0  # samples
        self.played = 0.0
        self.total_played: dict[int, float] = {}
        self.paused = False
        self.flushed: set[int] = set()
        self.most_queued = 0.0
        self.law_broken: list[str] = []
        self._told_to_pause = False
        self._at = 0.0

    def advance(self) -> None:
        now = trio.current_time()
        if not self.paused:
            played = min(self.queued, (now - self._at) * RATE)
            self.queued -= played
            self.played += played
            self.total_played[self.stream_id] = self.played
        self._at = now

    def take(self, event: Any) -> None:
        self.advance()
        match event:
            case StreamStarted(stream_id=stream_id):
                self.stream_id, self.queued, self.played = stream_id, 0.0, 0.0
                self.paused = self._told_to_pause = False
            case AudioChunk(stream_id=stream_id, pcm=pcm):
                if self._told_to_pause:
                    self.law_broken.append("audio between pause and resume")
                if stream_id in self.flushed or stream_id != self.stream_id:
                    self.law_broken.append("audio of a stream that was flushed or never started")
                self.queued += len(pcm) / SAMPLE_BYTES
                self.most_queued = max(self.most_queued, self.queued)
            case StreamPaused():
                self._told_to_pause = True
                self.paused = self._capabilities.pause
            case StreamResumed():
                self.paused = self._told_to_pause = False
            case StreamFlushed(stream_id=stream_id):
                self.flushed.add(stream_id)
                self._told_to_pause = False
                if self._capabilities.flush:
                    self.queued, self.paused = 0.0, False


def room() -> bool:
    """Whether a wire's kernel has room for a message; a schedule has its own opinion."""
    return True


def room_under(seed: int) -> Callable[[], bool]:
    """`room` under one schedule: for every message, for none, or by chance."""
    chance, share = random.Random(seed), (1.0, 0.0, 0.5)[seed % 3]
    return lambda: chance.random() < share


class FakeDevice:
    """A wire, and a device behind it."""

    def __init__(self, capabilities: Capabilities = FULL, *, reports: bool = True) -> None:
        self.capabilities = capabilities
        self.reports = reports and capabilities.playback_reports
        self.loudspeaker = Loudspeaker(capabilities)
        self.got: list[tuple[float, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.answers_pings = True
        self._to_server, self._from_device = trio.open_memory_channel[Any](math.inf)
        self._reading = trio.Event()
        self._reading.set()
        self._gone = trio.Event()
        self._before_message: Callable[[], None] = lambda: None

    # --- the wire --------------------------------------------------------------------------

    async def receive(self) -> Any:
        try:
            return Envelope(await self._from_device.receive())
        except trio.EndOfChannel:
            raise DeviceGone from None

    async def send(self, message: Envelope) -> None:
        await self._checkpoint()
        if self._gone.is_set():
            raise DeviceGone
        if not self._reading.is_set():  # a set event's `wait` would be a checkpoint
            await self._reading.wait()
        if self._gone.is_set():
            raise DeviceGone
        self._deliver(message)

    def send_nowait(self, message: Envelope) -> bool:
        if not self.has_room(message):
            return False
        self._deliver(message)
        return True

    def has_room(self, message: Envelope) -> bool:
        """Whether it takes the message at once; else it is sent by somebody who waits."""
        return room() and self._reading.is_set() and not self._gone.is_set()

    def _deliver(self, message: Envelope) -> None:
        event = message.event
        self.got.append((trio.current_time(), event))
        self.loudspeaker.take(event)
        if isinstance(event, StreamFlushed) and self.reports:
            self.report()

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.answers_pings:
            await trio.sleep_forever()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self.closed = (code, reason)

    # --- what the device does --------------------------------------------------------------

    def say(self, *requests: Any) -> None:
        for request in requests:
            self._to_server.send_nowait(request)

    def utter(self, *events: SpeechEvent) -> None:
        """Sends a frame in which the scripted recognizer hears these events."""
        self.say(AudioReceived(script(*events)))

    def report(self) -> None:
        self.loudspeaker.advance()
        speaker = self.loudspeaker
        self.say(PlaybackReported(speaker.stream_id, int(speaker.played + 0.01)))  # float rounding

    def stop_reading(self) -> None:
        self._reading = trio.Event()

    def read_again(self) -> None:
        self._reading.set()

    def leave(self, *, read_side: bool = True, write_side: bool = True) -> None:
        if read_side:
            self._to_server.close()
        if write_side:
            self._gone.set()
            self._reading.set()

    # --- what the test asks ----------------------------------------------------------------

    def events(self, *kinds: type) -> list[Any]:
        return [event for _, event in self.got if isinstance(event, kinds)]

    def times(self, *kinds: type) -> list[float]:
        return [at for at, event in self.got if isinstance(event, kinds)]

    def kinds(self, *without: type) -> list[str]:
        """The names of everything got, runs of one kind once."""
        names = [type(event).__name__ for _, event in self.got if not isinstance(event, without)]
        return [name for name, _ in itertools.groupby(names)]


# --- hearing -----------------------------------------------------------------------------

_SCRIPTS: dict[bytes, tuple[SpeechEvent, ...]] = {}


def script(*events: SpeechEvent) -> bytes:
    """A frame in which these events will be heard."""
    frame = f"script {len(_SCRIPTS)}".encode()
    _SCRIPTS[frame] = events
    return frame


class ScriptedRecognizer:
    """Hears what the frame's script says; its time is the time of hearing."""

    def __init__(self, hear: Callable[[SpeechEvent], None]) -> None:
        self._hear = hear
        self.accepted: list[bytes] = []
        self.commits = 0
        self.ends = 0
        self.settings: list[dict[str, Any]] = []
        self.suspicions: list[tuple[int, int]] = []  # after the one it was opened with

    def accept(self, pcm: bytes) -> None:
        self.accepted.append(pcm)
        for event in _SCRIPTS.get(pcm, ()):
            now_ended = isinstance(event, SpeechEnded) and event.last_speech_at < 0
            self._hear(
                attrs.evolve(event, last_speech_at=trio.current_time()) if now_ended else event
            )

    def end_speech(self) -> None:
        self.ends += 1

    def commit(self) -> None:
        self.commits += 1

    def configure(self, **settings: Any) -> None:
        self.settings.append(settings)

    def suspect_after(self, suspicion: tuple[int, int]) -> None:
        self.suspicions.append(suspicion)


class ScriptedRecognizers:
    """Makes scripted recognizers and counts those alive."""

    languages = ("en", "zh", "ja")

    def __init__(self) -> None:
        self.opened: list[ScriptedRecognizer] = []
        self.suspicions: list[tuple[int, int]] = []
        self.alive = 0

    @asynccontextmanager
    async def open(
        self,
        hear: Callable[[SpeechEvent], None],
        *,
        suspicion: tuple[int, int],
        cap_seconds: float,
        conditioning: Conditioning = UNCONDITIONED,
    ) -> AsyncIterator[ScriptedRecognizer]:
        self.opened.append(recognizer := ScriptedRecognizer(hear))
        self.suspicions.append(suspicion)
        self.alive += 1
        try:
            yield recognizer
        finally:
            self.alive -= 1


def speech(segment_id: int = 1, text: str | None = None) -> list[SpeechEvent]:
    """A user begins to speak; with a text, the whole utterance in one tick."""
    begun: list[SpeechEvent] = [SpeechStarted(segment_id), SpeechSuspected(segment_id)]
    if text is None:
        return begun
    ended = SpeechEnded(segment_id, -1.0, transcript_follows=True)  # -1: when it is heard
    return [*begun, ended, FinalTranscript(segment_id, text, complete=True)]


# --- thinking ----------------------------------------------------------------------------

ANSWER = "One two three four five. Six seven eight nine ten."


class FakeChatModel:
    """Says its answer word by word, or what `answer` makes of the messages."""

    def __init__(
        self,
        answer: str | Callable[[Sequence[ChatMessage]], Sequence[ReplyPart]] = ANSWER,
        *,
        delay: float = 0.01,
        leaving: float = 0.0,
        fail: BaseException | None = None,
        fail_after: float = 0.0,
    ) -> None:
        self.answer, self.delay, self.leaving = answer, delay, leaving
        self.fail, self.fail_after = fail, fail_after
        self.asked: list[tuple[float, list[ChatMessage]]] = []
        self.tools: list[list[ToolSchema]] = []
        self.settings: list[ChatSettings] = []
        self.alive = self.most_alive = 0

    @property
    def questions(self) -> list[str]:
        return [messages[-1].content for _, messages in self.asked]

    def _parts(self, messages: Sequence[ChatMessage]) -> Sequence[ReplyPart]:
        if isinstance(self.answer, str):
            return [ReplyText(word + " ") for word in self.answer.split()]
        return self.answer(messages)

    def open_reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], settings: ChatSettings
    ) -> AbstractAsyncContextManager[AsyncIterator[ReplyPart]]:
        self.asked.append((trio.current_time(), list(messages)))
        self.tools.append(list(tools))
        self.settings.append(settings)
        return self._open(self._parts(messages))

    @asynccontextmanager
    async def _open(self, parts: Sequence[ReplyPart]) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        self.alive += 1
        self.most_alive = max(self.alive, self.most_alive)
        try:
            async with aclosing(self._stream(parts)) as stream:
                yield stream
        finally:
            with trio.CancelScope(shield=True):  # a thread that finishes its chunk
                await trio.sleep(self.leaving)
            self.alive -= 1

    async def _stream(self, parts: Sequence[ReplyPart]) -> AsyncGenerator[ReplyPart]:
        for part in parts:
            await trio.sleep(self.delay)
            yield part
        if self.fail:
            await trio.sleep(self.fail_after)
            raise self.fail


def call(name: str, arguments: str = "{}", call_id: str = "call-1") -> ToolCall:
    return ToolCall(call_id, name, arguments)


# --- speaking ----------------------------------------------------------------------------


class FakeSynthesizer:
    """Each sentence lasts as long; its words share that time evenly and are timed exactly."""

    sample_rate = RATE
    voices: Mapping[str, str] = {"default": "the only voice"}

    def __init__(
        self,
        seconds: float = 1.0,
        *,
        delay: float = 0.001,
        timed: bool = True,
        fail: BaseException | None = None,
        fail_at: int = 0,
    ) -> None:
        self.seconds, self.delay, self.timed = seconds, delay, timed
        self.fail, self.fail_at = fail, fail_at
        self.spoken: list[str] = []
        self.alive = 0

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        self.spoken.append(text)
        self.alive += 1
        try:
            async with aclosing(self._stream(text)) as stream:
                yield stream
        finally:
            self.alive -= 1

    async def _stream(self, text: str) -> AsyncGenerator[SpeechChunk]:
        words = self._timings(text) if self.timed else ()
        for index in range(int(self.seconds * RATE / CHUNK_SAMPLES)):
            await trio.sleep(self.delay)
            if self.fail and index == self.fail_at:
                raise self.fail
            yield SpeechChunk(bytes(CHUNK_SAMPLES * SAMPLE_BYTES), words if index == 0 else ())

    def _timings(self, text: str) -> tuple[WordTiming, ...]:
        words = text.split()
        starts, at = [], 0
        for word in words:
            at = text.index(word, at)
            starts.append((at, at + len(word)))
            at += len(word)
        return tuple(
            WordTiming(start, end, int(self.seconds * RATE * index / len(words)))
            for index, (start, end) in enumerate(starts)
        )


class IdentityResampler:
    """The rates are equal."""

    def push(self, pcm: bytes) -> bytes:
        return pcm

    def flush(self) -> bytes:
        return b""


@attrs.frozen
class FakeTool:
    """A tool that takes its time and returns or raises what it is told."""

    schema: ToolSchema
    result: Any = "done"
    delay: float = 0.0
    fail: BaseException | None = None
    traits: ToolTraits = attrs.field(factory=ToolTraits)
    runs: list[Mapping[str, Any]] = attrs.field(factory=list)
    finished: list[Mapping[str, Any]] = attrs.field(factory=list)

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        self.runs.append(arguments)
        await trio.sleep(self.delay)
        if self.fail:
            raise self.fail
        self.finished.append(arguments)
        return self.result


class AnyArguments:
    """Lets all arguments pass."""

    def check_schema(self, schema: ToolSchema) -> None:
        pass

    def check_arguments(self, schema: ToolSchema, arguments: Mapping[str, Any]) -> None:
        pass


def tool(name: str, **options: Any) -> FakeTool:
    return FakeTool(ToolSchema(name, f"does {name}", {"type": "object"}), **options)


MUSIC_SAMPLE = 1000  # of the fake music, all through


class FakeLibrary:
    """Tracks of steady samples, so that music is seen in what a device gets."""

    def __init__(self, *titles: str, seconds: float = 60.0) -> None:
        self.tracks = [Track(title) for title in titles or ("One tune",)]
        self.seconds = seconds
        self.opened: list[str] = []

    def open(self, track: Track, rate: int) -> FakeReader:
        self.opened.append(track.title)
        return FakeReader(round(self.seconds * rate), rate)


async def at_once(blocks: Callable[..., Any], *arguments: Any) -> Any:
    """Without a thread, which the mock clock would not wait for."""
    await trio.lowlevel.checkpoint()
    return blocks(*arguments)


@attrs.define
class FakeReader:
    """Gives a second at a time."""

    left: int
    rate: int

    def read(self) -> bytes:
        samples = min(self.left, self.rate)
        self.left -= samples
        return MUSIC_SAMPLE.to_bytes(2, "little") * samples

    def close(self) -> None:
        self.left = 0


# --- a conversation ----------------------------------------------------------------------


@attrs.frozen
class UnsharedLease:
    """Holds a session that nobody else wants and that needs no keeping."""

    session: Session
    restored: bool = False
    epoch: int = 1

    async def save(self) -> None:
        pass

    async def release(self) -> None:
        pass

    async def erase(self) -> None:
        pass

    async def wait_lost(self) -> None:
        await trio.sleep_forever()


def fake_engines(**others: Any) -> Engines:
    """Engines that need nothing, and these others."""
    given: dict[str, Any] = {
        "recognizers": ScriptedRecognizers(),
        "chat_model": FakeChatModel(),
        "synthesizer": FakeSynthesizer(),
        "make_resampler": lambda _from, _to: IdentityResampler(),
        "make_decoder": PlainDecoder,
        "make_tools": lambda _session, _music: ToolRegistry(),
        "checker": AnyArguments(),
        "music": MusicSource(FakeLibrary(), at_once),
    }
    return Engines(**(given | others))


@attrs.define(eq=False)
class Talking:
    """One conversation under test."""

    device: FakeDevice = attrs.field(factory=FakeDevice)
    chat: FakeChatModel = attrs.field(factory=FakeChatModel)
    voice: FakeSynthesizer = attrs.field(factory=FakeSynthesizer)
    tools: Sequence[FakeTool] = ()
    library: FakeLibrary | None = None
    device_tools: tuple[ToolSchema, ...] = ()
    configuration: EffectiveConfiguration = attrs.field(
        factory=lambda: EffectiveConfiguration(end_of_turn_ms=0)
    )
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    recognizers: ScriptedRecognizers = attrs.field(factory=ScriptedRecognizers)
    draining: trio.Event = attrs.field(factory=trio.Event)
    sessions: SessionStore | None = None  # without one, `session` is the only one there is
    session_id: str | None = None
    owner: str = ""
    per_minute: int | None = None  # requests allowed
    places: TurnPlaces = attrs.field(factory=lambda: TurnPlaces(100))
    observer: ConnectionObserver = NOBODY
    dialect: EventDialect = attrs.field(factory=EventDialect)
    engines: Mapping[str, Any] = attrs.field(factory=dict)  # others
    starts: bool = True  # with a `start_session`
    session: Session = attrs.field(init=False)
    conversation: Conversation = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.session = Session("s1", 0.0, self.configuration)
        self.conversation = Conversation(
            self.device,  # type: ignore[arg-type]  # its messages are events
            self.dialect,
            fake_engines(
                recognizers=self.recognizers,
                chat_model=self.chat,
                synthesizer=self.voice,
                make_tools=self._make_tools,
                music=MusicSource(self.library or FakeLibrary(), at_once),
                **self.engines,
            ),
            self,  # the store of sessions
            Effects(random.Random(0), trio.current_time),
            deadlines=self.deadlines,
            limits=Limits(RateLimits(self.per_minute).open(self.owner), self.places),
            owner=self.owner,
            observer=self.observer,
        )
        if self.starts:  # queued here: before anything a test says
            start = SessionStart(self.session_id, self.device.capabilities, self.device_tools)
            FakeDevice.say(self.device, start)

    async def claim(self, session_id: str | None, owner: str) -> Lease:
        """The session in hand, or one of the store's, which is in hand from then on."""
        if self.sessions is None:
            return UnsharedLease(self.session)
        lease = await self.sessions.claim(session_id, owner)
        self.session = lease.session
        return lease

    def _make_tools(self, _session: Session, music: MusicPlayer) -> ToolRegistry:
        registry = ToolRegistry()
        if self.library:
            registry.register(MusicTool(music))
        for each in self.tools:
            registry.register(each)
        return registry

    async def run(self) -> None:
        await self.conversation.run(self.draining)

    @property
    def recognizer(self) -> ScriptedRecognizer:
        return self.recognizers.opened[0]

    @property
    def dialogue(self) -> Dialogue:
        dialogue = self.conversation._dialogue
        assert dialogue
        return dialogue

    @property
    def history(self) -> list[tuple[str, str]]:
        """(kind, text) of the session's items."""
        lines = []
        for item in self.session.items:
            kind = type(item).__name__.removesuffix("Item").lower()
            content = getattr(item, "text", None) or getattr(item, "content", None)
            lines.append((kind, content or item.call.name))  # type: ignore[union-attr]
        return lines

    def ask(self, text: str = "hello", segment_id: int = 1) -> None:
        self.device.utter(*speech(segment_id, text))

    def check_laws(self) -> None:
        """What must hold at the end of every conversation."""
        assert not self.device.loudspeaker.law_broken
        assert self.recognizers.alive == self.chat.alive == self.voice.alive == 0
        assert self.chat.most_alive <= 1


@asynccontextmanager
async def talking(*, stops: bool = False, **options: Any) -> AsyncIterator[Talking]:
    """A conversation that has begun; cancelled at the end unless it `stops` by itself."""
    talk = Talking(**options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        while not talk.recognizers.opened:  # until it listens
            await trio.lowlevel.checkpoint()
        yield talk
        if not stops:
            nursery.cancel_scope.cancel()
    talk.check_laws()
