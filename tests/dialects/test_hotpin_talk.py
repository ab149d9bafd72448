"""Hotpin devices in whole conversations, in mock time: what is told, and what is remembered."""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from fakes import (
    FakeChatModel,
    FakeLibrary,
    FakeSynthesizer,
    ScriptedRecognizers,
    at_once,
    call,
    fake_engines,
    script,
    speech,
    tool,
)
from trio.testing import wait_all_tasks_blocked

from listenai.conversation.conversation import Conversation, Deadlines
from listenai.conversation.limits import RateLimits
from listenai.conversation.music_player import MusicSource
from listenai.conversation.replying import Limits
from listenai.conversation.turn_places import TurnPlaces
from listenai.dialects.hotpin import MAX_REPLY_SECONDS, HotpinDialect
from listenai.effects import Effects
from listenai.engines.base import ReplyText
from listenai.errors import ChatModelError, ErrorCode, SynthesizerError
from listenai.sessions.base import Session
from listenai.sessions.memory import MemorySessionStore
from listenai.settings import EffectiveConfiguration
from listenai.speech import SpeechEnded, SpeechStarted, SpeechSuspected, TranscriptionFailed
from listenai.tools.base import ToolRegistry, ToolTraits
from listenai.tools.music import MusicTool
from listenai.wire import DeviceGone, Message

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")

HELLO, EOS, RESET = '{"session_id":"s1"}', '{"signal":"EOS"}', '{"signal":"RESET"}'
SILENCE = bytes(1024)


@attrs.define(eq=False)
class Device:
    """A wire, and everything that came over it."""

    got: list[tuple[float, Message]] = attrs.field(factory=list)
    skipped: list[Message] = attrs.field(factory=list)  # what came before what was waited for
    closed: int | None = None
    _to_server: trio.MemorySendChannel[Message] = attrs.field(init=False)
    _from_device: trio.MemoryReceiveChannel[Message] = attrs.field(init=False)
    _news: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._to_server, self._from_device = trio.open_memory_channel[Message](math.inf)

    # --- the wire --------------------------------------------------------------------------

    async def receive(self) -> Message:
        try:
            return await self._from_device.receive()
        except trio.EndOfChannel:
            raise DeviceGone from None

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        assert self.send_nowait(message)

    def send_nowait(self, message: Message) -> bool:
        self.got.append((trio.current_time(), message))
        self._news.set()
        self._news = trio.Event()
        return True

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self.closed = code
        self._news.set()

    # --- the device ------------------------------------------------------------------------

    def say(self, *messages: Message) -> None:
        for message in messages:
            self._to_server.send_nowait(message)

    def ask(self, text: str, segment_id: int = 1) -> None:
        """Button, words, button."""
        self.say(script(*speech(segment_id, text)), EOS)

    async def until(self, status: str, **fields: Any) -> dict[str, Any]:
        """The next message with this status that was not yet waited for."""
        seen = 0
        with trio.fail_after(60):
            while True:
                for index, (_, message) in enumerate(self.got[seen:], seen):
                    document = json.loads(message) if isinstance(message, str) else {}
                    if document.get("status") == status and fields.items() <= document.items():
                        self.skipped = [skipped for _, skipped in self.got[:index]]
                        del self.got[: index + 1]
                        return document
                seen = len(self.got)
                await self._news.wait()

    async def told(self) -> list[str]:
        """In short, what was told and not yet waited for."""
        await wait_all_tasks_blocked()
        messages = [message for _, message in self.got]
        self.got.clear()
        return in_short(messages)


def in_short(messages: Sequence[Message]) -> list[str]:
    """The values of JSON messages, and the bytes of files."""
    lines: list[str] = []
    for message in messages:
        if isinstance(message, bytes):
            before = int(lines.pop()) if lines and lines[-1].isdigit() else 0
            lines.append(str(before + len(message)))
        else:
            lines.append(" ".join(json.loads(message).values()))
    return lines


@attrs.define(eq=False)
class Talk:
    """One conversation."""

    device: Device
    conversation: Conversation
    chat: FakeChatModel
    recognizers: ScriptedRecognizers

    @property
    def session(self) -> Session:
        dialogue = self.conversation._dialogue
        assert dialogue
        return dialogue.session

    async def history(self) -> list[str]:
        """What is remembered, once everything is settled."""
        await wait_all_tasks_blocked()
        return [getattr(item, "text", type(item).__name__) for item in self.session.items]


def make_store() -> MemorySessionStore:
    effects = Effects(random.Random(0), trio.current_time)
    return MemorySessionStore(effects, 3600, 10, EffectiveConfiguration)


@asynccontextmanager
async def talking(
    *,
    chat: FakeChatModel | None = None,
    voice: FakeSynthesizer | None = None,
    store: MemorySessionStore | None = None,
    owner: str = "",
    tools: Sequence[Any] = (),
    plays_music: bool = False,
    exact: bool = True,
    hello: str = HELLO,
) -> AsyncIterator[Talk]:
    """A device that has said hello."""
    chat, recognizers, device = chat or FakeChatModel(), ScriptedRecognizers(), Device()

    def make_tools(_session: Session, music: Any) -> ToolRegistry:
        registry = ToolRegistry()
        for each in [*tools, *([MusicTool(music)] if plays_music else [])]:
            registry.register(each)
        return registry

    conversation = Conversation(
        device,
        HotpinDialect(exact),
        fake_engines(
            recognizers=recognizers,
            chat_model=chat,
            synthesizer=voice or FakeSynthesizer(0.34),
            make_tools=make_tools,
            music=MusicSource(FakeLibrary(), at_once),
        ),
        store or make_store(),
        Effects(random.Random(0), trio.current_time),
        deadlines=Deadlines(),
        limits=Limits(RateLimits(None).open(owner), TurnPlaces(10)),
        owner=owner,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation.run, trio.Event())
        device.say(hello)
        yield Talk(device, conversation, chat, recognizers)
        nursery.cancel_scope.cancel()


LLM, TTS = "processing llm", "processing tts"
TURN = ["processing transcription", f"{LLM} hello"]
ANSWER = "One two three four five. Six seven eight nine ten."


async def test_a_turn(autojump_clock):
    """Four stages, one file, complete; and the next one knows of it."""
    async with talking() as talk:
        talk.device.say(SILENCE)
        talk.device.ask("hello")
        await talk.device.until("connected", session_id="s1")
        await talk.device.until("complete")
        wav = str(44 + 2 * 10_880)
        assert in_short(talk.device.skipped) == [*TURN, f"{TTS} {ANSWER}", wav]
        talk.device.ask("go on", 2)
        await talk.device.until("complete")
        assert [m.content for m in talk.chat.asked[1][1][-3:]] == ["hello", ANSWER, "go on"]
        assert talk.session.configuration.end_of_turn_ms == math.inf


async def test_nothing_is_answered_before_eos(autojump_clock):
    """No voice detection ends what is said; pauses do not, either."""
    async with talking() as talk:
        talk.device.say(script(*speech(1, "hello")))
        await trio.sleep(30)
        talk.device.say(script(*speech(2, "hello there")))
        await trio.sleep(30)
        assert await talk.device.told() == ["connected s1"]
        talk.device.say(EOS)
        await talk.device.until("processing", stage="llm", transcript="hello there")


async def test_what_is_not_understood(autojump_clock):
    """Silence, words that are none, and recognition that fails: one answer to each EOS."""
    failing = [SpeechStarted(2), SpeechSuspected(2), SpeechEnded(2, -1.0, transcript_follows=True)]
    async with talking() as talk:
        await talk.device.until("connected")
        talk.device.say(SILENCE, EOS)
        expected = ["processing transcription", "error Could not understand audio"]
        assert await talk.device.told() == expected
        talk.device.ask("", 1)
        assert await talk.device.told() == expected
        failed = TranscriptionFailed(2, ErrorCode.ASR_ERROR, "broken")
        talk.device.say(script(*failing, failed), EOS)
        assert await talk.device.told() == expected
        talk.device.say(EOS)
        assert await talk.device.told() == ["error Empty audio buffer"]


def written(*sentences: str, pause: float) -> FakeChatModel:
    """A model that writes a sentence, then thinks."""
    return FakeChatModel(lambda _: [ReplyText(f"{each} ") for each in sentences], delay=pause)


async def test_a_slow_reply_is_complete_after_8_seconds(autojump_clock):
    """With the sentences that were there; history has them and no other, and the next turn too."""
    voice = FakeSynthesizer(1.0, delay=0.1)  # 5 s a sentence
    async with talking(chat=written("One.", "Two.", pause=0.1), voice=voice) as talk:
        await talk.device.until("connected")
        began = trio.current_time()
        talk.device.ask("hello")
        await talk.device.until("complete")
        assert trio.current_time() == began + MAX_REPLY_SECONDS
        assert in_short(talk.device.skipped)[2:] == [f"{TTS} One. Two.", str(44 + 32_000)]
        assert await talk.history() == ["hello", "One."]
        await trio.sleep(30)
        assert await talk.device.told() == []
        talk.device.ask("go on", 2)
        await talk.device.until("complete")
        assert [m.content for m in talk.chat.asked[1][1][-2:]] == ["One.", "go on"]


@pytest.mark.parametrize("seconds", [0.34, 0.24, 0.4])  # also whole chunks of engines: 80 ms
async def test_a_sentence_that_waits_for_the_next_is_whole(autojump_clock, seconds: float):
    """Its last chunk is a short one: the cut is behind it, not before."""
    chat, voice = written("One.", "Two.", "Three.", pause=3.0), FakeSynthesizer(seconds)
    async with talking(chat=chat, voice=voice) as talk:
        await talk.device.until("connected")
        began = trio.current_time()
        talk.device.ask("hello")
        await talk.device.until("complete")
        assert trio.current_time() == began + MAX_REPLY_SECONDS
        assert in_short(talk.device.skipped)[2:] == [
            f"{TTS} One. Two.",
            str(44 + round(2 * seconds * 32_000)),
        ]
        assert await talk.history() == ["hello", "One. Two."]


async def test_a_model_that_hangs(autojump_clock):
    """Told at 8 s, and what it says later is not."""
    async with talking(chat=FakeChatModel("Never.", delay=100.0)) as talk:
        await talk.device.until("connected")
        began = trio.current_time()
        talk.device.ask("hello")
        await talk.device.until("error", message="Service temporarily unavailable")
        assert trio.current_time() == began + MAX_REPLY_SECONDS
        await trio.sleep(200)
        assert await talk.device.told() == []
        assert await talk.history() == ["hello"]


@pytest.mark.parametrize("exact", [True, False])
async def test_a_long_reply_is_cut_at_a_sentence(autojump_clock, exact: bool):
    """At once, as far as 512 000 bytes go; the voice speaks no further."""
    voice = FakeSynthesizer(1.0)
    sentences = [f"Sentence {number}." for number in range(40)]
    chat = written(*sentences, pause=0.001)
    async with talking(chat=chat, voice=voice, exact=exact) as talk:
        await talk.device.until("connected")
        began = trio.current_time()
        talk.device.ask("hello")
        await talk.device.until("complete")
        assert trio.current_time() < began + 3
        assert in_short(talk.device.skipped)[-1] == str(44 + 15 * 32_000)
        assert await talk.history() == ["hello", " ".join(sentences[:15])]
        assert len(voice.spoken) <= 18
        await trio.sleep(60)
        assert await talk.device.told() == []


@pytest.mark.parametrize("stage", ["transcription", "llm", "tts"])
async def test_speech_before_complete_interrupts(autojump_clock, stage: str):
    """It says so; nothing more of the old reply is sent or remembered; the new one is answered."""
    chat = written("One.", "Two.", pause=1.0)
    voice = FakeSynthesizer(0.3, delay=0.1)
    async with talking(chat=chat, voice=voice) as talk:
        await talk.device.until("connected")
        talk.device.ask("hello")
        await talk.device.until("processing", stage=stage)
        assert await talk.device.told() in ([], [f"{LLM} hello"])
        talk.device.say(script(*speech(2, "again")))
        assert await talk.device.told() == ["error Interrupted"]
        await trio.sleep(20)
        assert await talk.device.told() == []
        talk.device.say(EOS)
        await talk.device.until("processing", stage="llm", transcript="again")
        await talk.device.until("complete")
        await trio.sleep(1)
        history = await talk.history()
        assert history[-2:] == ["again", "One. Two."]
        assert not [text for text in history[:-2] if "One." in text]


async def test_everything_at_once(autojump_clock):
    """Three questions in one breath: each EOS gets an answer, and the last question a file."""
    async with talking() as talk:
        for number, text in enumerate(["first", "second", "third"], 1):
            talk.device.ask(text, number)
        await talk.device.until("connected")
        while True:
            told = await talk.device.until("processing", stage="llm")
            if told["transcript"] == "third":
                break
        await talk.device.until("complete")
        await trio.sleep(20)
        assert await talk.device.told() == []
        history = await talk.history()
        assert history[-2:] == ["third", ANSWER]
        assert ANSWER not in history[:-2]


async def test_a_reset_forgets(autojump_clock):
    """Also what is being answered; the model is asked without a history."""
    async with talking() as talk:
        talk.device.ask("hello")
        await talk.device.until("complete")
        talk.device.say(RESET)
        assert await talk.device.told() == ["reset"]
        talk.device.ask("again", 2)
        await talk.device.until("processing", stage="llm")
        talk.device.say(RESET)
        assert (await talk.device.told())[-2:] == ["error Interrupted", "reset"]
        talk.device.ask("who am I", 3)
        await talk.device.until("complete")
        assert [m.content for m in talk.chat.asked[-1][1]] == ["who am I"]


WELL = {"answer": ANSWER, "fail": None}
SPOKEN = {"seconds": 0.34, "fail": None, "fail_at": 3}


@pytest.mark.parametrize(
    ("chat", "voice", "text"),
    [
        ({"fail": ChatModelError("down")}, {}, "Service temporarily unavailable"),
        ({}, {"fail": SynthesizerError("mute")}, "TTS synthesis failure"),
        ({"answer": "."}, {}, "Service temporarily unavailable"),
        ({}, {"seconds": 0.0}, "TTS synthesis failure"),
    ],
    ids=["model", "voice", "no words", "no sound"],
)
async def test_what_fails_is_told_once(
    autojump_clock, chat: dict[str, Any], voice: dict[str, Any], text: str
):
    """And nothing after it; what the device did not get, nobody has heard."""
    model, speaker = FakeChatModel(**{**WELL, **chat}), FakeSynthesizer(**{**SPOKEN, **voice})
    async with talking(chat=model, voice=speaker) as talk:
        await talk.device.until("connected")
        talk.device.ask("hello")
        await talk.device.until("error", message=text)
        await trio.sleep(100)
        assert await talk.device.told() == []
        question, *answer = await talk.history()
        assert question == "hello"
        assert "".join(answer) in {"", ANSWER}  # silence is spoken to its end
        vars(model).update(WELL)
        vars(speaker).update(SPOKEN)
        talk.device.ask("again", 2)
        await talk.device.until("complete")


async def test_what_is_said_while_the_file_is_played_counts(autojump_clock):
    """ "Yes" is no backchannel where a button is held; the reply that is left was heard."""
    async with talking(voice=FakeSynthesizer(5.0)) as talk:
        talk.device.ask("hello")
        await talk.device.until("complete")
        await trio.sleep(1)  # of 10
        talk.device.ask("yes", 2)
        await talk.device.until("processing", stage="llm", transcript="yes")
        await talk.device.until("complete")
        assert [m.content for m in talk.chat.asked[-1][1][-3:]] == ["hello", ANSWER, "yes"]


async def test_music_is_not_played_for_ever(autojump_clock):
    """A file has an end: the tool does what it does, and then there is silence."""
    chat = FakeChatModel()
    chat.answer = lambda messages: (
        [ReplyText("Here it is.")]
        if messages[-1].role == "tool"
        else [call("play_music", '{"action":"play"}')]
    )
    async with talking(chat=chat, plays_music=True) as talk:
        talk.device.ask("play some music")
        await talk.device.until("complete")
        await trio.sleep(60)
        assert await talk.device.told() == []
        chat.answer = "Well."
        talk.device.ask("and now", 2)
        await talk.device.until("complete")


async def test_a_result_that_comes_later_is_told_unasked(autojump_clock):
    """A device that waits for nothing plays whatever is complete."""
    chat = FakeChatModel()
    chat.answer = lambda messages: (
        [ReplyText("Your tea is ready.")]
        if messages[-1].role == "tool" and "done" in messages[-1].content
        else [ReplyText("I will.")]
        if messages[-1].role == "tool"
        else [call("make_tea")]
    )
    traits = ToolTraits(timeout_seconds=999.0, background=True, patience_seconds=1.0, announce=True)
    tea = tool("make_tea", delay=30.0, traits=traits)
    async with talking(chat=chat, tools=[tea]) as talk:
        talk.device.ask("make tea")
        await talk.device.until("processing", stage="tts", response="I will.")
        await talk.device.until("complete")
        await talk.device.until("complete")
        told = in_short(talk.device.skipped)
        assert told == [f"{TTS} Your tea is ready.", str(44 + 10_880)]


# --- sessions --------------------------------------------------------------------------------


async def test_who_does_not_say_who_it_is(autojump_clock):
    """An error, and 1008."""
    async with talking(hello="{}") as talk:
        assert (await talk.device.until("error"))["message"].count("session_id") == 2
        await wait_all_tasks_blocked()
        assert talk.device.closed == 1008
        assert talk.conversation._dialogue is None


async def test_a_session_is_its_owners(autojump_clock):
    """Another's is refused, without telling more; its own goes on where it was."""
    store = make_store()
    async with talking(store=store, owner="alice") as talk:
        talk.device.ask("hello")
        await talk.device.until("complete")
        await trio.sleep(10)  # it is played
    async with talking(store=store, owner="bob") as talk:
        talk.device.say(SILENCE, EOS)
        await talk.device.until("error")
        await wait_all_tasks_blocked()
        assert talk.device.closed == 1008
        assert not talk.chat.asked
        assert "connected s1" not in await talk.device.told()
    async with talking(store=store, owner="alice") as talk:
        talk.device.ask("again", 2)
        await talk.device.until("complete")
        assert [m.content for m in talk.chat.asked[0][1]] == ["hello", ANSWER, "again"]


async def test_a_newer_connection_takes_the_session(autojump_clock):
    """The older one is told, and closed."""
    store = make_store()
    async with talking(store=store) as older:
        await older.device.until("connected")
        async with talking(store=store) as newer:
            await newer.device.until("connected")
            assert "newer connection" in (await older.device.until("error"))["message"]
            await wait_all_tasks_blocked()
            assert older.device.closed == 4001
