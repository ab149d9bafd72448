"""Engines that fail, devices that vanish or stall, tools, and our own bugs."""

from __future__ import annotations

import pytest
import trio
from fakes import (
    ANSWER,
    Envelope,
    FakeChatModel,
    FakeDevice,
    FakeSynthesizer,
    call,
    speech,
    talking,
    tool,
)

from listenai.conversation.conversation import Deadlines
from listenai.conversation.outbox import MAX_POSTED
from listenai.engines.base import ReplyText
from listenai.errors import ChatModelError, ErrorCode, SynthesizerError, ToolError
from listenai.events import (
    AudioChunk,
    AudioReceived,
    DeviceToolReturned,
    ErrorReported,
    InterruptPressed,
    PingReceived,
    PongSent,
    SentenceStarted,
    StreamEnded,
    StreamFlushed,
    StreamPaused,
    StreamStarted,
    Target,
    ToolCalled,
    ToolReturned,
    ToolSchema,
    TurnInterrupted,
)
from listenai.settings import Configuration
from listenai.speech import PartialTranscript, TranscriptionFailed

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")


# --- engines -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["thinking", "speaking", "both"])
async def test_an_engine_error_ends_the_turn_not_the_connection(where: str, autojump_clock):
    """One error each, with the turn's number; what was said is played; the next turn works."""
    chat = FakeChatModel(fail=ChatModelError("no model") if where != "speaking" else None)
    voice = FakeSynthesizer(
        fail=SynthesizerError("no voice") if where != "thinking" else None, fail_at=10
    )
    async with talking(chat=chat, voice=voice) as talk:
        talk.ask()
        await trio.sleep(5)
        errors = talk.device.events(ErrorReported)
        assert {error.turn_id for error in errors} == {1}
        expected = {"thinking": ["LLM_ERROR"], "speaking": ["TTS_ERROR"]}
        assert sorted(e.code for e in errors) == expected.get(where, ["LLM_ERROR", "TTS_ERROR"])
        assert len(talk.device.events(StreamEnded)) == 1
        chat.fail = voice.fail = None
        talk.ask("again", 2)
        await trio.sleep(5)
        assert talk.history[-2:] == [("user", "again"), ("assistant", ANSWER)]


async def test_a_failed_transcription_is_told_and_releases_the_reply(autojump_clock):
    """ASR_ERROR; a reply that was held for it goes on."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        *started, ended, _ = speech(2, "x")
        failed = TranscriptionFailed(2, ErrorCode.ASR_ERROR, "no ear")
        talk.device.utter(*started, ended, failed)
        await trio.sleep(5)
        assert [e.code for e in talk.device.events(ErrorReported)] == ["ASR_ERROR"]
        assert talk.history[-1] == ("assistant", ANSWER)


async def test_a_failed_turn_leaves_nothing_in_the_outbox(autojump_clock):
    """A chunk that waited behind a stalled device is not sent after its turn took too long."""
    async with talking(chat=FakeChatModel("One."), deadlines=Deadlines(turn=0.7)) as talk:
        talk.ask()
        await trio.sleep(0.42)
        talk.device.stop_reading()
        await trio.sleep(0.5)
        talk.device.read_again()
        await trio.sleep(2)
        kinds = [type(event) for _, event in talk.device.got]
        after = kinds[kinds.index(ErrorReported) :]
        assert AudioChunk not in after


async def test_a_stream_that_failed_before_it_opened_is_never_announced(autojump_clock):
    """Its announcement waited behind a stalled device when the turn took too long."""
    chat = FakeChatModel("One.", delay=0.05)
    async with talking(chat=chat, deadlines=Deadlines(turn=0.4)) as talk:
        talk.ask()
        await trio.sleep(0.025)
        talk.device.stop_reading()  # the increment is taken, then nothing more is read
        await trio.sleep(0.8)
        talk.device.read_again()
        await trio.sleep(2)
        assert talk.device.kinds()[-3:] == ["ErrorReported", "TurnMetrics", "StatusChanged"]
        assert not talk.device.events(StreamStarted)


async def test_a_failed_synthesizer_is_one_error_with_sentences_waiting(autojump_clock):
    """The thinker, which waits to hand over a sentence, must not see a broken channel."""
    voice = FakeSynthesizer(fail=SynthesizerError("no voice"), fail_at=40)
    async with talking(chat=FakeChatModel("One. Two. Three. Four. Five."), voice=voice) as talk:
        talk.ask()
        await trio.sleep(3)
        assert [e.code for e in talk.device.events(ErrorReported)] == ["TTS_ERROR"]
        assert not talk.dialogue.floor.busy


async def test_our_own_bug_is_told_and_raised(autojump_clock):
    """INTERNAL_ERROR is the last word, close code 1011, and the bug is not hidden."""
    device = FakeDevice()
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True, allow_unwrapped=True):
        async with talking(
            device=device, stops=True, voice=FakeSynthesizer(fail=KeyError("bug"))
        ) as talk:
            talk.ask()
            await trio.sleep(60)
    assert device.got[-1][1].code == "INTERNAL_ERROR"
    assert device.closed == (1011, "internal error")


async def test_two_devices_one_failing(autojump_clock):
    """The other conversation does not notice."""
    broken = FakeDevice()
    async with talking() as healthy:
        healthy.ask()
        with pytest.RaisesGroup(KeyError, flatten_subgroups=True, allow_unwrapped=True):
            async with talking(
                device=broken, stops=True, voice=FakeSynthesizer(fail=KeyError("bug"))
            ) as talk:
                talk.ask()
                await trio.sleep(60)
        await trio.sleep(5)
        assert healthy.history == [("user", "hello"), ("assistant", ANSWER)]
        assert not healthy.device.events(ErrorReported)


# --- devices that leave --------------------------------------------------------------------

MOMENTS = {
    "waiting for the chat model": (lambda: {"chat": FakeChatModel(delay=1.0)}, 0.5, None),
    "inside a tool": (
        lambda: {
            "chat": FakeChatModel(
                lambda m: [call("slow")] if m[-1].role == "user" else [ReplyText("x")]
            ),
            "tools": [tool("slow", delay=60.0)],
        },
        1.0,
        None,
    ),
    "before the first audio": (lambda: {"voice": FakeSynthesizer(delay=0.5)}, 0.4, None),
    "in mid sentence": (dict, 0.7, "One two three"),
    "between sentences": (
        lambda: {
            "chat": FakeChatModel(
                lambda _m: [ReplyText("One two. "), *[ReplyText(" ")] * 300, ReplyText("Three.")]
            )
        },
        2.0,
        "One two.",
    ),
    "in the tail": (dict, 1.8, "One two three four five. Six seven eight"),
    "while held": (dict, None, "One two three"),
}


@pytest.mark.parametrize("side", ["reading", "writing", "both"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_vanished_device_ends_everything_quietly(moment: str, side: str, autojump_clock):
    """At each point of a turn: quickly, and what was heard is in the history."""
    options, seconds, heard = MOMENTS[moment]
    async with talking(stops=True, **options()) as talk:
        talk.ask()
        await trio.sleep(seconds or 0.7)
        if moment == "while held":
            talk.device.utter(*speech(2))
            await trio.sleep(0.2)
        left_at = trio.current_time()
        talk.device.leave(read_side=side != "writing", write_side=side != "reading")
        if side == "writing":  # noticed with the next thing there is to say
            talk.device.say(PingReceived())
    assert trio.current_time() - left_at < 0.1
    assert talk.history[0] == ("user", "hello")
    said = [text for kind, text in talk.history if kind == "assistant"]
    assert said == ([heard] if heard else [])


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_cancelled_connection_keeps_what_was_heard(moment: str, autojump_clock):
    """Server shutdown in mid turn, at each of its points."""
    options, seconds, heard = MOMENTS[moment]
    async with talking(**options()) as talk:
        talk.ask()
        await trio.sleep(seconds or 0.7)
        if moment == "while held":
            talk.device.utter(*speech(2))
            await trio.sleep(0.2)
    assert [text for kind, text in talk.history if kind == "user"] == ["hello"]
    said = [text for kind, text in talk.history if kind == "assistant"]
    assert said == ([heard] if heard else [])


async def test_queued_turns_are_in_the_history_of_a_lost_connection(autojump_clock):
    """What the user said counts, answered or not."""
    async with talking(chat=FakeChatModel(leaving=5.0, delay=1.0)) as talk:
        talk.ask("one")
        await trio.sleep(0.5)
        talk.ask("two", 2)
        await trio.sleep(0.1)
        talk.ask("three", 3)
        await trio.sleep(0.1)
    assert [text for _, text in talk.history] == ["one", "two", "three"]


# --- devices that do not read ----------------------------------------------------------------


async def test_flush_overtakes_what_waits_behind_a_stalled_device(autojump_clock):
    """At most the message already being sent comes before it, and no audio after it."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.stop_reading()
        await trio.sleep(0.3)
        before = len(talk.device.got)
        talk.device.utter(*speech(2))
        await trio.sleep(0.1)
        talk.device.say(InterruptPressed())
        await trio.sleep(1)
        talk.device.read_again()
        await trio.sleep(0.5)
        kinds = [type(event).__name__ for _, event in talk.device.got[before:]]
        assert kinds[0] in ("AudioChunk", "TextDelta", "StreamPaused")
        assert kinds.count("AudioChunk") <= 1
        assert "AudioChunk" not in kinds[kinds.index("StreamPaused") :]
        assert kinds.index("StreamPaused") < kinds.index("StreamFlushed")


async def test_a_hold_covers_the_chunk_that_waits_for_a_stalled_device(autojump_clock):
    """A gate in the speaker alone would let it out."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.stop_reading()
        await trio.sleep(0.2)
        before = len(talk.device.got)
        talk.device.utter(*speech(2))
        await trio.sleep(0.1)
        talk.device.read_again()
        await trio.sleep(0.5)
        kinds = [type(event) for _, event in talk.device.got[before:]]
        assert AudioChunk not in kinds[kinds.index(StreamPaused) :]
        assert kinds[: kinds.index(StreamPaused)].count(AudioChunk) <= 1


async def test_no_stale_audio_through_a_wire_that_never_yields(autojump_clock):
    """The floor decides while the writer could run on without a checkpoint."""

    class EagerDevice(FakeDevice):
        async def _checkpoint(self) -> None:
            pass

        def has_room(self, message: Envelope) -> bool:
            return self._reading.is_set()

    async with talking(device=EagerDevice()) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.stop_reading()
        await trio.sleep(0.2)
        await talk.dialogue.handle(InterruptPressed())
        talk.device.read_again()  # no checkpoint since the decision: the cancel is still on its way
        await trio.sleep(0.5)
        kinds = [type(event) for _, event in talk.device.got]
        flushed = kinds.index(StreamFlushed)
        assert not {AudioChunk, SentenceStarted, StreamEnded} & set(kinds[flushed:])


async def test_a_device_that_does_not_read_cannot_stop_listening(autojump_clock):
    """The ear takes 200 messages while not one of ours is read."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.5)
        heard = len(talk.recognizer.accepted)
        talk.device.stop_reading()
        talk.device.utter(PartialTranscript(2, "still here"))
        for _ in range(200):
            talk.device.say(AudioReceived(b"x"))
        await trio.sleep(1)
        assert len(talk.recognizer.accepted) == heard + 201


async def test_a_stalled_device_is_given_up_after_5_seconds(autojump_clock):
    """The connection ends, closed as the device's fault; what was heard is kept."""
    async with talking(stops=True) as talk:
        talk.ask()
        await trio.sleep(0.5)
        talk.device.stop_reading()
        stalled_at = trio.current_time()
    assert trio.current_time() - stalled_at == pytest.approx(5, abs=0.3)
    assert talk.device.closed == (1008, "the device does not read")
    assert talk.history[0] == ("user", "hello")


async def test_a_full_control_lane_is_a_stalled_device(autojump_clock):
    """64 notices wait; one more and it is over, long before the 5 seconds."""
    async with talking(stops=True) as talk:
        talk.device.stop_reading()
        began = trio.current_time()
        for _ in range(MAX_POSTED + 3):
            talk.device.say(PingReceived())
    assert trio.current_time() - began < 1
    assert talk.device.closed == (1008, "the device does not read")


async def test_a_device_that_answers_no_ping_is_given_up(autojump_clock):
    """After the ping timeout."""
    deadlines = Deadlines(ping_interval=30, ping_timeout=60)
    async with talking(stops=True, deadlines=deadlines) as talk:
        talk.device.answers_pings = False
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(90, abs=1)


# --- tools -------------------------------------------------------------------------------


def calls_then_says(*calls):
    """Calls the tools once, then answers with what they returned."""

    def answer(messages):
        results = [m.content for m in messages if m.role == "tool"]
        if results:
            return [ReplyText(f"Results: {' and '.join(results)}.")]
        return list(calls)

    return answer


async def test_tools_run_side_by_side_and_their_results_keep_the_calls_order(autojump_clock):
    """The slower first call does not delay the second, nor swap the results."""
    chat = FakeChatModel(calls_then_says(call("slow", "{}", "a"), call("quick", '{"x": 1}', "b")))
    slow, quick = tool("slow", delay=1.8, result="S"), tool("quick", delay=1.0, result="Q")
    async with talking(chat=chat, tools=[slow, quick]) as talk:
        talk.ask()
        asked_at = trio.current_time()
        await trio.sleep(8)
        assert [e.call_id for e in talk.device.events(ToolReturned)] == ["b", "a"]
        assert talk.device.times(ToolReturned)[-1] == pytest.approx(asked_at + 1.8, abs=0.1)
        assert talk.history[-1] == ("assistant", 'Results: "S" and "Q".')
        assert quick.runs == [{"x": 1}]
        assert [kind for kind, _ in talk.history] == [
            "user", "toolcall", "toolresult", "toolcall", "toolresult", "assistant",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("broken", "{}", "no weather today"),
        ("nothing", "{}", "there is no tool 'nothing'; there are: broken"),
        ("broken", "{", "not JSON"),
        ("broken", "[1]", "must be a JSON object"),
    ],
)
async def test_a_failed_tool_is_told_to_model_and_device(
    name: str, arguments: str, said: str, autojump_clock
):
    """The turn goes on; the model can say what went wrong."""
    chat = FakeChatModel(calls_then_says(call(name, arguments)))
    broken = tool("broken", fail=ToolError("no weather today"))
    async with talking(chat=chat, tools=[broken]) as talk:
        talk.ask()
        await trio.sleep(5)
        [returned] = talk.device.events(ToolReturned)
        assert not returned.ok
        assert said in returned.result
        assert said.split("'", maxsplit=1)[0] in talk.chat.asked[1][1][-1].content
        assert talk.history[-1][0] == "assistant"


async def test_a_device_runs_its_own_tool(autojump_clock):
    """Asked by `tool_call`, answered by `tool_result`; a late or unknown answer is refused."""
    schema = ToolSchema("set_volume", "sets the volume", {"type": "object"})
    chat = FakeChatModel(calls_then_says(call("set_volume", '{"level": 3}')))
    async with talking(chat=chat, device_tools=(schema,)) as talk:
        talk.ask()
        await trio.sleep(0.5)
        [called] = talk.device.events(ToolCalled)
        assert (called.target, called.arguments) == (Target.DEVICE, {"level": 3})
        talk.device.say(DeviceToolReturned("other", True, None))
        await trio.sleep(0.1)
        [error] = talk.device.events(ErrorReported)
        assert "other" in error.message
        talk.device.say(DeviceToolReturned("call-1", True, {"level": 3}))
        await trio.sleep(5)
        assert talk.history[-1] == ("assistant", 'Results: {"level": 3}.')
        talk.device.say(DeviceToolReturned("call-1", True, "again"))
        await trio.sleep(0.1)
        assert len(talk.device.events(ErrorReported)) == 2


async def test_a_tool_that_takes_too_long(autojump_clock):
    """30 seconds, then the model is told."""
    chat = FakeChatModel(calls_then_says(call("slow")))
    async with talking(chat=chat, tools=[tool("slow", delay=100.0)]) as talk:
        talk.ask()
        await trio.sleep(40)
        [returned] = talk.device.events(ToolReturned)
        assert not returned.ok
        assert "30 seconds" in returned.result


async def test_a_model_that_only_calls_tools_is_stopped(autojump_clock):
    """A bound on the loop: LLM_ERROR."""
    chat = FakeChatModel(lambda _m: [call("quick")])
    async with talking(chat=chat, tools=[tool("quick")]) as talk:
        talk.ask()
        await trio.sleep(5)
        [error] = talk.device.events(ErrorReported)
        assert error.code == "LLM_ERROR"
        assert len(talk.chat.asked) == 8


async def test_no_tools_are_offered_when_configured_so(autojump_clock):
    """`tools: false`."""
    async with talking(tools=[tool("quick")]) as talk:
        talk.ask()
        await trio.sleep(3)
        talk.device.say(Configuration(tools=False))
        talk.ask("again", 2)
        await trio.sleep(3)
        assert [[t.name for t in tools] for tools in talk.chat.tools] == [["quick"], []]


async def test_pings_are_answered_while_everything_else_waits(autojump_clock):
    """The control lane overtakes."""
    async with talking() as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.utter(*speech(2))
        talk.device.say(PingReceived(7))
        await trio.sleep(0.01)
        assert talk.device.events(PongSent) == [PongSent(7)]
        assert not talk.device.events(TurnInterrupted)
