"""Small conversations for fault injection, watched as they go.

A scenario is a device, engines and a script of what the user does, in a few
seconds of virtual time.  Scripts sleep and never wait for the server, so that no
fault can hold them up.  A `Witness` notes what the loudspeaker had received and
played at the moment an item was written, for the laws to compare the history with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio
from fakes import (
    FULL,
    FakeChatModel,
    FakeDevice,
    FakeLibrary,
    FakeSynthesizer,
    ScriptedRecognizers,
    Talking,
    call,
    speech,
    tool,
)

from listenai.audio import SAMPLE_BYTES
from listenai.conversation.items import Item
from listenai.conversation.tool_outcomes import STILL_RUNNING
from listenai.device import Capabilities, Echo
from listenai.engines.base import ReplyText
from listenai.errors import ChatModelError, ErrorCode, SynthesizerError
from listenai.events import AudioChunk, DeviceToolReturned, InterruptPressed, TextTyped, ToolSchema
from listenai.sessions.base import Session
from listenai.settings import Configuration, EffectiveConfiguration
from listenai.speech import FinalTranscript, SpeechEnded, SpeechEvent, TranscriptionFailed
from listenai.tools.base import ToolTraits

SENTENCE_SECONDS = 0.4
ANSWER = "One two three four. Five six seven eight."


# --- a conversation that is watched --------------------------------------------------------


@attrs.frozen
class Witnessed:
    """An item, and what the loudspeaker knew when it was written, in samples by stream."""

    item: Item
    received: Counter[int]
    played: dict[int, float]


@attrs.define
class WatchedSession(Session):
    """A session that tells of each item when it is written."""

    written: Callable[[Item], None] = attrs.field(default=lambda _item: None, kw_only=True)

    def add(self, item: Item) -> None:
        Session.add(self, item)
        self.written(item)


class WatchedDevice(FakeDevice):
    """Remembers what its user typed, and says nothing after it left."""

    def __init__(self, capabilities: Capabilities, said: list[str], *, reports: bool) -> None:
        super().__init__(capabilities, reports=reports)
        self.left = False
        self._said = said

    def say(self, *requests: Any) -> None:
        if not self.left:
            self._said += [each.text for each in requests if isinstance(each, TextTyped)]
            super().say(*requests)

    def leave(self, *, read_side: bool = True, write_side: bool = True) -> None:
        super().leave(read_side=read_side, write_side=write_side)
        self.left = self.left or read_side


class FailingRecognizers(ScriptedRecognizers):
    """Remembers what it heard; told to, it fails to transcribe the next segment."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.fail_next = False
        self._said = said

    def open(self, hear: Callable[[SpeechEvent], None], **options: Any) -> Any:
        def hear_or_fail(event: SpeechEvent) -> None:
            if isinstance(event, FinalTranscript):
                if self.fail_next:
                    self.fail_next = False
                    event = TranscriptionFailed(event.segment_id, ErrorCode.ASR_ERROR, "no ear")
                else:
                    self._said.append(event.text)
            hear(event)

        return super().open(hear_or_fail, **options)


@attrs.define(eq=False)
class Witness:
    """A conversation under test and what was seen of it."""

    talk: Talking
    said: list[str]  # by the user, in order
    seen: list[Witnessed] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        configuration = self.talk.session.configuration
        self.talk.session = WatchedSession("s1", 0.0, configuration, written=self._written)

    def _written(self, item: Item) -> None:
        device = self.talk.device
        device.loudspeaker.advance()
        received: Counter[int] = Counter()
        for chunk in device.events(AudioChunk):
            received[chunk.stream_id] += len(chunk.pcm) // SAMPLE_BYTES
        self.seen.append(Witnessed(item, received, dict(device.loudspeaker.total_played)))


def watched(capabilities: Capabilities = FULL, *, reports: bool = True, **options: Any) -> Witness:
    """A conversation with the scenarios' short answer, unless told otherwise."""
    said: list[str] = []
    defaults = {"chat": FakeChatModel(ANSWER), "voice": FakeSynthesizer(SENTENCE_SECONDS)}
    talk = Talking(
        device=WatchedDevice(capabilities, said, reports=reports),
        recognizers=FailingRecognizers(said),
        **{**defaults, **options},
    )
    return Witness(talk, said)


# --- the scenarios -------------------------------------------------------------------------


@attrs.frozen
class Scenario:
    """One conversation, what the user does in it, and the history it must leave."""

    name: str
    open: Callable[[], Witness]
    user: Callable[[Talking], Awaitable[None]]
    history: tuple[tuple[str, str], ...]  # where nothing goes wrong


def _answered(*questions: str) -> tuple[tuple[str, str], ...]:
    return tuple(pair for each in questions for pair in (("user", each), ("assistant", ANSWER)))


async def _one_question(talk: Talking) -> None:
    talk.ask("hello")
    await trio.sleep(1.2)


def _two_tools(messages: Sequence[Any]) -> list[Any]:
    if messages[-1].role == "user":
        return [ReplyText("Let me see. "), call("slow", "{}", "a"), call("quick", "{}", "b")]
    return [ReplyText(word + " ") for word in ANSWER.split()]


def _with_tools() -> Witness:
    tools = [tool("slow", delay=0.2), tool("quick", delay=0.1)]
    return watched(chat=FakeChatModel(_two_tools), tools=tools)


async def _question_with_tools(talk: Talking) -> None:
    talk.ask("hello")
    await trio.sleep(1.8)


def _with_a_background_tool() -> Witness:
    traits = ToolTraits(background=True, patience_seconds=0.1, timeout_seconds=5.0)
    long = tool("long", delay=0.4, traits=traits)
    return watched(chat=FakeChatModel(_one_long_tool), tools=[long])


def _one_long_tool(messages: Sequence[Any]) -> Sequence[Any]:
    if messages[-1].content == "hello":
        return [call("long")]
    return [ReplyText(word + " ") for word in ANSWER.split()]


def _with_music() -> Witness:
    return watched(chat=FakeChatModel(_plays_music), library=FakeLibrary(seconds=30.0))


def _plays_music(messages: Sequence[Any]) -> Sequence[Any]:
    last = messages[-1]
    if last.content in ("play", "stop"):
        return [call("play_music", f'{{"action": "{last.content}"}}', f"call-{len(messages)}")]
    return [ReplyText(word + " ") for word in ANSWER.split()]


async def _music_with_talk_over_it(talk: Talking) -> None:
    talk.ask("play")
    await trio.sleep(1.3)
    talk.ask("question", 2)
    await trio.sleep(1.3)
    talk.device.utter(*speech(3))  # a cough
    await trio.sleep(0.1)
    talk.device.utter(SpeechEnded(3, -1.0, transcript_follows=False))
    await trio.sleep(0.3)
    talk.ask("stop", 4)
    await trio.sleep(1.5)


async def _barge_in(talk: Talking) -> None:
    talk.ask("first")
    await trio.sleep(0.45)
    talk.device.utter(*speech(2))
    await trio.sleep(0.2)
    talk.device.utter(SpeechEnded(2, -1.0, transcript_follows=True))
    await trio.sleep(0.05)
    talk.device.utter(FinalTranscript(2, "second", complete=True))
    await trio.sleep(1.3)


async def _false_alarm(talk: Talking) -> None:
    talk.ask("hello")
    await trio.sleep(0.45)
    talk.device.utter(*speech(2))
    await trio.sleep(0.2)
    talk.device.utter(SpeechEnded(2, -1.0, transcript_follows=False))
    await trio.sleep(1.0)


async def _typing_over_speech(talk: Talking) -> None:
    talk.device.utter(*speech(1))
    await trio.sleep(0.1)
    talk.device.say(TextTyped("typed"))
    await trio.sleep(0.2)
    talk.device.utter(SpeechEnded(1, -1.0, True), FinalTranscript(1, "spoken", complete=True))
    await trio.sleep(0.45)
    talk.device.say(TextTyped("typed again"))
    await trio.sleep(1.4)


def _uninterruptible() -> Witness:
    return watched(
        configuration=EffectiveConfiguration(end_of_turn_ms=0, interruptible=False),
        chat=FakeChatModel("One two three."),
    )


async def _speech_that_waits(talk: Talking) -> None:
    talk.ask("one")
    await trio.sleep(0.2)
    talk.ask("two", 2)
    await trio.sleep(0.5)  # it is being answered
    talk.device.say(TextTyped("three"))
    await trio.sleep(1.2)


def _volume(messages: Sequence[Any]) -> list[Any]:
    if messages[-1].role == "user":
        return [call("set_volume", '{"level": 3}', "v")]
    return [ReplyText(word + " ") for word in ANSWER.split()]


def _with_device_tool() -> Witness:
    schema = ToolSchema("set_volume", "sets the volume", {"type": "object"})
    return watched(chat=FakeChatModel(_volume), device_tools=(schema,))


async def _device_tool(talk: Talking) -> None:
    talk.ask("louder")
    await trio.sleep(0.2)
    talk.device.say(DeviceToolReturned("v", True, {"level": 3}))
    await trio.sleep(1.3)


def _with_failing_engines() -> Witness:
    # Short sentences: some are waiting for the voice when it fails.
    chat = FakeChatModel(
        "One. Two. Three. Four. Five. Six. Seven.", fail=ChatModelError("no model")
    )
    return watched(chat=chat, voice=FakeSynthesizer(0.14))


async def _failures_then_recovery(talk: Talking) -> None:
    talk.ask("first")
    await trio.sleep(1.2)
    talk.chat.fail = None
    talk.ask("second", 2)
    await trio.sleep(0.1)
    talk.voice.fail, talk.voice.fail_at = SynthesizerError("no voice"), 2
    await trio.sleep(0.8)
    talk.voice.fail = None
    # What goes on for ever now keeps the floor: the third would never be answered.
    talk.device.say(Configuration(interruptible=False))
    talk.ask("third", 3)
    await trio.sleep(1.3)


async def _stall(talk: Talking) -> None:
    talk.ask("hello")
    await trio.sleep(0.2)
    talk.device.stop_reading()
    await trio.sleep(1.0)
    talk.device.read_again()
    await trio.sleep(1.2)


async def _stall_and_barge_in(talk: Talking) -> None:
    talk.ask("first")
    await trio.sleep(0.2)
    talk.device.stop_reading()
    await trio.sleep(0.2)
    talk.device.utter(*speech(2))
    await trio.sleep(0.1)
    talk.device.read_again()
    await trio.sleep(0.1)
    talk.device.utter(SpeechEnded(2, -1.0, True), FinalTranscript(2, "second", complete=True))
    await trio.sleep(1.2)


async def _drain_in_mid_reply(talk: Talking) -> None:
    talk.ask("hello")
    await trio.sleep(0.3)
    talk.draining.set()
    await trio.sleep(0.1)
    talk.device.utter(*speech(2))  # a cough
    await trio.sleep(0.1)
    talk.device.utter(SpeechEnded(2, -1.0, transcript_follows=False))
    await trio.sleep(1.4)


async def _three_in_a_row(talk: Talking) -> None:
    for number, question in enumerate(["one", "two", "three"], 1):
        talk.ask(question, number)
        await trio.sleep(0.35)
    await trio.sleep(1.0)


async def _button(talk: Talking) -> None:
    talk.ask("first")
    await trio.sleep(0.5)
    talk.device.say(InterruptPressed())
    await trio.sleep(0.4)
    talk.ask("second", 2)
    await trio.sleep(1.2)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("plain", watched, _one_question, _answered("hello")),
        Scenario(
            "tools",
            _with_tools,
            _question_with_tools,
            (
                ("user", "hello"),
                ("assistant", "Let me see."),
                ("toolcall", "quick"),
                ("toolresult", '"done"'),
                ("toolcall", "slow"),
                ("toolresult", '"done"'),
                ("assistant", ANSWER),
            ),
        ),
        Scenario(
            "background-tool",
            _with_a_background_tool,
            _question_with_tools,
            (
                ("user", "hello"),
                ("toolcall", "long"),
                ("toolresult", STILL_RUNNING.content),
                ("assistant", ANSWER),
                ("toolcall", "long"),
                ("toolresult", '"done"'),
            ),
        ),
        Scenario(
            "music",
            _with_music,
            _music_with_talk_over_it,
            (
                ("user", "play"),
                ("toolcall", "play_music"),
                ("toolresult", '{"action": "play", "state": "playing", "title": "One tune"}'),
                ("assistant", ANSWER),
                *_answered("question"),
                ("user", "stop"),
                ("toolcall", "play_music"),
                ("toolresult", '{"action": "stop", "state": "stopped", "title": "One tune"}'),
                ("assistant", ANSWER),
            ),
        ),
        Scenario(
            "barge-in",
            watched,
            _barge_in,
            (("user", "first"), ("assistant", "One two three four."), *_answered("second")),
        ),
        Scenario("false-alarm", watched, _false_alarm, _answered("hello")),
        Scenario(
            "typing-over-speech",
            watched,
            _typing_over_speech,
            (
                ("user", "typed"),
                ("user", "spoken"),
                ("assistant", "One two three four."),
                *_answered("typed again"),
            ),
        ),
        Scenario(
            "uninterruptible",
            _uninterruptible,
            _speech_that_waits,
            tuple(
                pair
                for text in ("one", "two", "three")
                for pair in (("user", text), ("assistant", "One two three."))
            ),
        ),
        Scenario(
            "device-tool",
            _with_device_tool,
            _device_tool,
            (
                ("user", "louder"),
                ("toolcall", "set_volume"),
                ("toolresult", '{"level": 3}'),
                ("assistant", ANSWER),
            ),
        ),
        Scenario(
            "failing-engines",
            _with_failing_engines,
            _failures_then_recovery,
            (
                ("user", "first"),
                (
                    "assistant",
                    "One. Two. Three. Four. Five. Six. Seven. Sorry, I cannot answer right now.",
                ),
                ("user", "second"),
                ("assistant", "One. Two. Three. Four. Five."),
                ("user", "third"),
                ("assistant", "One. Two. Three. Four. Five. Six. Seven."),
            ),
        ),
        Scenario("stall", watched, _stall, _answered("hello")),
        Scenario(
            "stall-and-barge-in",
            watched,
            _stall_and_barge_in,
            (("user", "first"), ("assistant", "One two three four."), *_answered("second")),
        ),
        Scenario("drain", watched, _drain_in_mid_reply, _answered("hello")),
        Scenario(
            "three-in-a-row",
            watched,
            _three_in_a_row,
            (
                ("user", "one"),
                ("assistant", "One two three"),
                ("user", "two"),
                ("assistant", "One two three"),
                *_answered("three"),
            ),
        ),
        Scenario(
            "no-reports",
            lambda: watched(reports=False),
            _button,
            (("user", "first"), ("assistant", "One two three four."), *_answered("second")),
        ),
        Scenario(
            "no-capabilities",
            # What its microphone hears is the user: a doubtful one would not be believed at once.
            lambda: watched(Capabilities(echo=Echo.CANCELLED)),
            _button,
            (
                ("user", "first"),
                ("assistant", "One two three four. Five six"),
                *_answered("second"),
            ),
        ),
    )
}
