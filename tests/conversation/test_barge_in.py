"""The user speaks over the reply, at every point of a turn."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
from fakes import (
    ANSWER,
    FULL,
    RATE,
    FakeChatModel,
    FakeDevice,
    FakeSynthesizer,
    Talking,
    call,
    speech,
    talking,
    tool,
)

from listenai.conversation.conversation import Deadlines
from listenai.device import Capabilities, Echo
from listenai.engines.base import ReplyText
from listenai.events import (
    AudioChunk,
    Certainty,
    InterruptPressed,
    PlaybackReported,
    State,
    StatusChanged,
    StreamEnded,
    StreamFlushed,
    StreamPaused,
    StreamResumed,
    StreamStarted,
    TextDelta,
    TextDone,
    TextTyped,
    ToolCalled,
    ToolReturned,
    TurnInterrupted,
    UserTranscript,
)
from listenai.settings import EffectiveConfiguration
from listenai.speech import FinalTranscript, PartialTranscript, SpeechEnded

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")

TEXT = (TextDelta, TextDone, StatusChanged, UserTranscript)


def with_tools(messages):
    """Calls the slow tool first, then answers."""
    if messages[-1].role == "user":
        return [ReplyText("Let me see. "), call("slow")]
    return [ReplyText(word + " ") for word in ANSWER.split()]


@attrs.frozen
class Point:
    """A point of a turn at which the user begins to speak."""

    name: str
    options: Callable[[], dict]
    arrive: Callable[[Talking], object]  # async: returns when the point is reached
    paused: bool  # is there a stream to pause and flush?
    heard: str
    sequence: list[str]


async def _sleep(talk: Talking, seconds: float) -> None:
    await trio.sleep(seconds)


async def _until(talk: Talking, kind: type, count: int = 1) -> None:
    while len(talk.device.events(kind)) < count:  # noqa: ASYNC110  # the mock clock's sleep
        await trio.sleep(0.001)


BEFORE_AUDIO = ["TurnInterrupted", "TurnMetrics"]
STOPPED = ["StreamPaused", "StreamFlushed", "TurnInterrupted", "TurnMetrics"]

POINTS = [
    Point(
        "waiting for the chat model",
        lambda: {"chat": FakeChatModel(delay=1.0)},
        lambda talk: _sleep(talk, 0.5),
        paused=False,
        heard="",
        sequence=BEFORE_AUDIO,
    ),
    Point(
        "inside a tool",
        lambda: {
            "chat": FakeChatModel(with_tools),
            "tools": [tool("slow", delay=60.0)],
            "deadlines": Deadlines(filler=0.0),
        },
        lambda talk: _sleep(talk, 5.0),
        paused=True,
        heard="Let me see.",
        sequence=["StreamStarted", "SentenceStarted", "AudioChunk", *STOPPED],
    ),
    Point(
        "before the first audio",
        lambda: {"voice": FakeSynthesizer(delay=0.5)},
        lambda talk: _sleep(talk, 0.3),
        paused=False,
        heard="",
        sequence=BEFORE_AUDIO,
    ),
    Point(
        "in mid sentence",
        dict,
        lambda talk: _sleep(talk, 0.7),
        paused=True,
        heard="One two three",
        sequence=["StreamStarted", *["SentenceStarted", "AudioChunk"] * 2, *STOPPED],
    ),
    Point(
        "between sentences",
        lambda: {"chat": FakeChatModel(lambda _m: [ReplyText("One two. "), *_late()])},
        lambda talk: _sleep(talk, 2.0),
        paused=True,
        heard="One two.",
        sequence=["StreamStarted", "SentenceStarted", "AudioChunk", *STOPPED],
    ),
    Point(
        "in the tail",
        dict,
        lambda talk: _until(talk, StreamEnded),
        paused=True,
        heard="One two three four five. Six seven",
        sequence=[
            "StreamStarted",
            "SentenceStarted",
            "AudioChunk",
            "SentenceStarted",
            "AudioChunk",
            "StreamEnded",
            *STOPPED,
        ],
    ),
]


def _late() -> list:
    return [ReplyText(" ")] * 300 + [ReplyText("Three four.")]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name.replace(" ", "-"))
async def test_barge_in_at_every_point(point: Point, autojump_clock):
    """Pause, flush, cancel; only heard words stay; the second question is answered."""
    async with talking(**point.options()) as talk:
        talk.ask("first")
        await point.arrive(talk)
        spoke_at = trio.current_time()
        talk.device.utter(*speech(2))
        await trio.sleep(0.2)
        assert bool(talk.device.events(StreamPaused)) == point.paused
        held = len(talk.device.got)
        await trio.sleep(0.3)
        assert len(talk.device.got) == held, "something of a held turn was sent"
        talk.chat.answer, talk.chat.delay = ANSWER, 0.01
        talk.voice.delay = 0.001
        talk.device.utter(
            SpeechEnded(2, trio.current_time(), True), FinalTranscript(2, "second", True)
        )
        await trio.sleep(6)

        kinds = talk.device.kinds(*TEXT, ToolCalled, ToolReturned)
        assert kinds[: len(point.sequence)] == point.sequence
        assert kinds[len(point.sequence) :] == [
            "StreamStarted",
            "SentenceStarted",
            "AudioChunk",
            "SentenceStarted",
            "AudioChunk",
            "StreamEnded",
            "TurnMetrics",
        ]
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.heard_text == point.heard
        said = [text for kind, text in talk.history if kind == "assistant"]
        assert said == ([point.heard] if point.heard else []) + [ANSWER]
        assert [text for kind, text in talk.history if kind == "user"] == ["first", "second"]
        if point.paused:
            [flushed] = talk.device.times(StreamFlushed)
            assert talk.device.times(StreamPaused) == [pytest.approx(spoke_at, abs=0.01)]
            first = talk.device.events(StreamStarted)[0].stream_id
            assert not [
                at
                for at, event in talk.device.got
                if isinstance(event, AudioChunk) and event.stream_id == first and at > flushed
            ]


async def test_what_was_heard_is_reported_and_exact(autojump_clock):
    """The device's report and the engine's timings: the certainty says so."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        await trio.sleep(0.25)
        talk.device.utter(PartialTranscript(2, "stop"))
        await trio.sleep(0.5)
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.heard_text == "One two three"
        assert interrupted.unheard_text == "four five. Six seven eight nine ten."
        assert interrupted.certainty is Certainty.REPORTED
        assert interrupted.played_ms == pytest.approx(645, abs=25)
        speaker = talk.device.loudspeaker
        assert interrupted.played_ms == pytest.approx(speaker.total_played[1] / RATE * 1000, abs=1)


async def test_without_a_report_the_clock_decides_after_250_ms(autojump_clock):
    """A device that promised reports and sends none."""
    async with talking(device=FakeDevice(FULL, reports=False)) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.say(InterruptPressed())
        pressed_at = trio.current_time()
        await trio.sleep(1)
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.certainty is Certainty.ESTIMATED
        assert interrupted.heard_text == "One two three"
        assert talk.device.times(TurnInterrupted) == [pytest.approx(pressed_at + 0.25, abs=0.01)]


async def test_twice_in_a_row(autojump_clock):
    """A third utterance interrupts the second reply as the second did the first."""
    async with talking() as talk:
        for number, question in enumerate(["one", "two", "three"], 1):
            talk.ask(question, number)
            await trio.sleep(0.75)
        await trio.sleep(5)
        assert talk.chat.questions == ["one", "two", "three"]
        assert len(talk.device.events(StreamFlushed)) == 2
        interrupted = talk.device.events(TurnInterrupted)
        assert [i.turn_id for i in interrupted] == [1, 2]
        assert {i.certainty for i in interrupted} == {Certainty.REPORTED}
        assert [text for _, text in talk.history] == [
            "one", "One two three", "two", "One two three", "three", ANSWER,
        ]  # fmt: skip


async def test_two_utterances_in_one_tick(autojump_clock):
    """Only the last is answered; both are in the history."""
    async with talking() as talk:
        talk.ask("zero")
        await trio.sleep(0.7)
        talk.device.utter(*speech(2, "one"), *speech(3, "two"))
        await trio.sleep(5)
        assert talk.chat.questions == ["zero", "two"]
        assert [text for kind, text in talk.history if kind == "user"] == ["zero", "one", "two"]
        assert [i.turn_id for i in talk.device.events(TurnInterrupted)] == [1, 2]


async def test_the_next_turn_waits_for_the_old_scope_while_listening_goes_on(autojump_clock):
    """An engine that is slow to leave delays the next reply, never the ear."""
    async with talking(chat=FakeChatModel(leaving=0.3)) as talk:
        talk.ask("one")
        await trio.sleep(0.03)
        talk.ask("two", 2)
        asked_at = trio.current_time()
        await trio.sleep(0.1)
        talk.device.utter(*speech(3), PartialTranscript(3, "uh-huh"))
        await trio.sleep(0.01)
        assert [e.text for e in talk.device.events(UserTranscript)][-1] == "uh-huh"
        await trio.sleep(0.1)
        talk.device.utter(SpeechEnded(3, trio.current_time(), True), FinalTranscript(3, ""))
        await trio.sleep(5)
        first, second = (at for at, _ in talk.chat.asked[:2])
        assert second >= asked_at + 0.299
        assert talk.chat.most_alive == 1
        assert first < asked_at


@pytest.mark.parametrize("ending", ["too short", "empty"])
async def test_a_false_alarm_resumes_at_the_held_sample(ending: str, autojump_clock):
    """One pause, one resume, no sample lost or sent twice, and the lead is kept."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        await trio.sleep(0.4)
        now = trio.current_time()
        if ending == "too short":
            talk.device.utter(SpeechEnded(2, now, transcript_follows=False))
        else:
            talk.device.utter(SpeechEnded(2, now, True), FinalTranscript(2, ""))
        await trio.sleep(5)
        talk.device.loudspeaker.advance()
        assert len(talk.device.events(StreamPaused)) == len(talk.device.events(StreamResumed)) == 1
        assert not talk.device.events(StreamFlushed, TurnInterrupted)
        assert talk.device.loudspeaker.played == pytest.approx(2 * RATE, abs=1)
        assert talk.device.loudspeaker.most_queued <= 0.5 * RATE + 320 + 1
        [ended] = talk.device.times(StreamEnded)
        [started] = talk.device.times(StreamStarted)
        assert ended - started == pytest.approx(2.0 - 0.5 + 0.4, abs=0.05)
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_speech_that_goes_on_takes_the_floor_without_a_word(autojump_clock):
    """Nobody understood anything in 1.5 s, but somebody still speaks."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        began_at = trio.current_time()
        await trio.sleep(5)
        assert talk.device.times(StreamFlushed) == [pytest.approx(began_at + 1.5, abs=0.01)]


async def test_a_pending_transcript_decides_after_the_hold(autojump_clock):
    """A slow transcriber: the hold waits for it, beyond 1.5 s."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        await trio.sleep(0.5)
        talk.device.utter(SpeechEnded(2, trio.current_time(), True))
        await trio.sleep(3)
        assert not talk.device.events(StreamResumed, StreamFlushed)
        talk.device.utter(FinalTranscript(2, "stop it", True))
        await trio.sleep(0.1)
        assert talk.device.events(StreamFlushed)


async def test_a_backchannel_does_not_take_the_floor(autojump_clock):
    """ "Uh-huh" over a reply pauses it for a moment and is forgotten."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2), PartialTranscript(2, "uh-huh"))
        await trio.sleep(0.3)
        talk.device.utter(SpeechEnded(2, trio.current_time(), True), FinalTranscript(2, "uh-huh"))
        await trio.sleep(5)
        assert talk.chat.questions == ["hello"]
        assert talk.history == [("user", "hello"), ("assistant", ANSWER)]
        assert len(talk.device.events(StreamResumed)) == 1


async def test_the_state_is_shown_again_after_a_false_alarm(autojump_clock):
    """Hearing, then what the reply was doing."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        await trio.sleep(0.2)
        talk.device.utter(SpeechEnded(2, trio.current_time(), transcript_follows=False))
        await trio.sleep(0.1)
        shown = [event.state for event in talk.device.events(StatusChanged)]
        assert shown[-2:] == [State.HEARING, State.SPEAKING]


async def test_a_device_that_cannot_pause_runs_dry_and_goes_on(autojump_clock):
    """No message, no audio while held; nothing lost afterwards."""
    capabilities = Capabilities(echo=Echo.CANCELLED)
    async with talking(device=FakeDevice(capabilities)) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        await trio.sleep(0.4)
        talk.device.utter(SpeechEnded(2, trio.current_time(), True), FinalTranscript(2, ""))
        await trio.sleep(5)
        talk.device.loudspeaker.advance()
        assert talk.device.loudspeaker.played == pytest.approx(2 * RATE, abs=1)
        assert not talk.device.events(StreamPaused, StreamResumed, StreamFlushed)


async def test_a_device_that_cannot_stop_hears_its_lead(autojump_clock):
    """What it had is what it heard, and no more than 160 ms of it."""
    async with talking(device=FakeDevice(Capabilities())) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        [interrupted] = talk.device.events(TurnInterrupted)
        sent = sum(len(e.pcm) for e in talk.device.events(AudioChunk)) / 2
        assert interrupted.played_ms == pytest.approx(sent / RATE * 1000, abs=0.1)


async def test_the_button_interrupts_without_speech(autojump_clock):
    """Also where speech may not interrupt; before the first sound it says nothing."""
    configuration = EffectiveConfiguration(end_of_turn_ms=0, interruptible=False)
    async with talking(configuration=configuration, chat=FakeChatModel(delay=0.2)) as talk:
        talk.ask()
        await trio.sleep(0.1)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        assert talk.device.kinds(*TEXT) == BEFORE_AUDIO
        talk.chat.delay = 0.01
        talk.ask("again", 2)
        await trio.sleep(0.7)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        assert len(talk.device.events(StreamFlushed)) == 1
        assert talk.history == [
            ("user", "hello"),
            ("user", "again"),
            ("assistant", "One two three"),
        ]


async def test_speech_over_an_uninterruptible_reply_becomes_the_next_turn(autojump_clock):
    """No pause, no flush; the question is answered when the reply is over."""
    configuration = EffectiveConfiguration(end_of_turn_ms=0, interruptible=False)
    async with talking(configuration=configuration) as talk:
        talk.ask("one")
        await trio.sleep(0.7)
        talk.ask("two", 2)
        await trio.sleep(6)
        assert talk.chat.questions == ["one", "two"]
        assert not talk.device.events(StreamPaused, StreamFlushed, TurnInterrupted)
        assert [text for kind, text in talk.history if kind == "assistant"] == [ANSWER, ANSWER]


async def test_typing_while_the_user_speaks_begins_held(autojump_clock):
    """A reply that begins under the user's words waits for their end."""
    async with talking() as talk:
        talk.device.utter(*speech(1))
        await trio.sleep(0.1)
        talk.device.say(TextTyped("typed"))
        await trio.sleep(0.5)
        assert not talk.device.events(TextDelta, AudioChunk)
        talk.device.utter(SpeechEnded(1, trio.current_time(), transcript_follows=False))
        await trio.sleep(5)
        assert talk.history == [("user", "typed"), ("assistant", ANSWER)]


async def test_a_tool_that_ran_stays_in_the_history(autojump_clock):
    """An interrupted tool is recorded too: it may have had effects."""
    slow = tool("slow", delay=60.0)
    async with talking(chat=FakeChatModel(with_tools), tools=[slow]) as talk:
        talk.ask()
        await trio.sleep(3)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        assert talk.history == [
            ("user", "hello"),
            ("assistant", "Let me see."),
            ("toolcall", "slow"),
            ("toolresult", '{"error": "interrupted"}'),
        ]
        assert slow.runs
        assert not slow.finished


async def test_reports_of_other_streams_are_nobodys(autojump_clock):
    """A late report of the last turn's stream says nothing about this one."""
    async with talking(device=FakeDevice(FULL, reports=False)) as talk:
        talk.ask()
        await trio.sleep(5)
        talk.ask("again", 2)
        await trio.sleep(0.7)
        talk.device.say(InterruptPressed(), PlaybackReported(1, 32_000), PlaybackReported(99, 1))
        await trio.sleep(1)
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.certainty is Certainty.ESTIMATED
        assert interrupted.heard_text == "One two three"


async def test_shown_text_counts_as_seen(autojump_clock):
    """For a device that displays text the history holds what was shown, certainly."""
    capabilities = attrs.evolve(FULL, display_text=True)
    async with talking(device=FakeDevice(capabilities)) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        shown = "".join(event.text for event in talk.device.events(TextDelta)).strip()
        assert talk.history[-1] == ("assistant", shown)
        assert len(shown) > len("One two three")
        [interrupted] = talk.device.events(TurnInterrupted)
        assert interrupted.heard_text == "One two three"
