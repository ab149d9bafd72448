"""Tools that outlive their turn, fillers while tools run, and what becomes of late results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from fakes import ANSWER, FakeChatModel, Talking, call, speech, talking, tool

from listenai.conversation.conversation import Deadlines
from listenai.conversation.dialogue import MAX_ANNOUNCEMENTS
from listenai.engines.base import ReplyText
from listenai.errors import ToolError
from listenai.events import TextDelta, TextTyped, ToolReturned
from listenai.speech import FinalTranscript, SpeechEnded
from listenai.tools.base import ToolTraits

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")

BACKGROUND = ToolTraits(background=True, patience_seconds=2.0, timeout_seconds=60.0)
ANNOUNCED = ToolTraits(background=True, patience_seconds=0.0, timeout_seconds=60.0, announce=True)


def model(*calls: Any) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Calls the tools when asked "go", tells their results, answers anything else."""

    def answer(messages: Sequence[Any]) -> Sequence[Any]:
        last = messages[-1]
        if last.role == "tool":
            return [ReplyText(f"Result {last.content}.")]
        return list(calls) if last.content == "go" else [ReplyText(ANSWER)]

    return answer


async def interrupt(talk: Talking, text: str = "something else") -> None:
    """Speaks over what goes on."""
    talk.device.utter(*speech(2))
    await trio.sleep(0.1)
    talk.device.utter(SpeechEnded(2, trio.current_time(), True), FinalTranscript(2, text, True))


# --- outliving a turn ----------------------------------------------------------------------


async def test_barge_in_cancels_two_tools_and_lets_the_background_one_finish(autojump_clock):
    """The two are in the history as interrupted, the third with its result."""
    calls = [call("a", call_id="1"), call("b", call_id="2"), call("slow", call_id="3")]
    a, b = tool("a", delay=10.0), tool("b", delay=10.0)
    slow = tool("slow", delay=5.0, result="finished", traits=BACKGROUND)
    chat = FakeChatModel(model(*calls))
    async with talking(chat=chat, tools=[a, b, slow], deadlines=Deadlines(filler=0)) as talk:
        talk.ask("go")
        await trio.sleep(1)
        await interrupt(talk)
        await trio.sleep(10)
        assert len(a.runs) == len(b.runs) == len(slow.runs) == len(slow.finished) == 1
        assert a.finished == b.finished == []
        results = [text for kind, text in talk.history if kind == "toolresult"]
        assert sorted(results) == ['"finished"', *['{"error": "interrupted"}'] * 2]
        [late] = talk.device.events(ToolReturned)
        assert (late.call_id, late.ok, late.result) == ("3", True, "finished")
        assert late.duration_ms == pytest.approx(5000, abs=20)
        talk.ask("and now", 3)
        await trio.sleep(5)
        told = [m.content for m in talk.chat.asked[-1][1] if m.role == "tool"]
        assert '"finished"' in told


async def test_a_turn_waits_for_a_background_tool_as_long_as_its_patience_lasts(autojump_clock):
    """A quick result is the turn's; no second one follows."""
    quick = tool("quick", delay=1.0, result="soon", traits=BACKGROUND)
    async with talking(chat=FakeChatModel(model(call("quick"))), tools=[quick]) as talk:
        talk.ask("go")
        await trio.sleep(6)
        assert talk.history[-1] == ("assistant", 'Result "soon".')
        assert len(talk.device.events(ToolReturned)) == 1
        assert [kind for kind, _ in talk.history].count("toolresult") == 1


async def test_patience_over_the_model_is_told_that_it_still_runs(autojump_clock):
    """And the result joins the history later, under an id of its own."""
    slow = tool("slow", delay=8.0, result="late", traits=BACKGROUND)
    async with talking(chat=FakeChatModel(model(call("slow"))), tools=[slow]) as talk:
        talk.ask("go")
        await trio.sleep(6)
        assert '"status": "running"' in talk.history[-1][1]
        await trio.sleep(6)
        assert talk.history[-2:] == [("toolcall", "slow"), ("toolresult", '"late"')]
        ids = [item.call.call_id for item in talk.session.items if hasattr(item, "call")]
        assert len(ids) == len(set(ids)) == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_a_result_that_is_to_be_announced_is_told_when_the_floor_is_free(
    fails: bool, autojump_clock
):
    """Not into a reply, nor into the user's words."""
    error = ToolError("no luck") if fails else None
    slow = tool("slow", delay=7.0, result="ready", traits=ANNOUNCED, fail=error)
    chat = FakeChatModel(model(call("slow")))
    async with talking(chat=chat, tools=[slow]) as talk:
        talk.ask("go")
        await trio.sleep(6.5)
        talk.ask("hello", 2)
        await trio.sleep(8)
        content = '{"error": "no luck"}' if fails else '"ready"'
        assert talk.history[-5:] == [
            ("user", "hello"),
            ("assistant", ANSWER),
            ("toolcall", "slow"),
            ("toolresult", content),
            ("assistant", f"Result {content}."),
        ]


async def test_an_announcement_waits_until_the_user_has_spoken(autojump_clock):
    """Their question is answered first."""
    slow = tool("slow", delay=5.0, result="ready", traits=ANNOUNCED)
    async with talking(chat=FakeChatModel(model(call("slow"))), tools=[slow]) as talk:
        talk.ask("go")
        await trio.sleep(4.9)
        talk.device.utter(*speech(2))
        await trio.sleep(1)
        talk.device.utter(
            SpeechEnded(2, trio.current_time(), True), FinalTranscript(2, "hello", True)
        )
        await trio.sleep(10)
        said = [text for kind, text in talk.history if kind == "assistant"]
        assert said[-2:] == [ANSWER, 'Result "ready".']


async def test_results_are_kept_when_the_connection_ends_before_they_are_told(autojump_clock):
    """One that waits to be told, and one whose tool still runs."""
    ready = tool("ready", delay=3.0, result="told never", traits=ANNOUNCED)
    endless = tool("endless", delay=1e6, traits=ANNOUNCED)
    calls = [call("ready", call_id="1"), call("endless", call_id="2")]
    async with talking(chat=FakeChatModel(model(*calls)), tools=[ready, endless]) as talk:
        talk.ask("go")
        await trio.sleep(2.9)
        talk.device.utter(*speech(2))  # and never ends
        await trio.sleep(1)
    results = [text for kind, text in talk.history if kind == "toolresult"]
    assert '"told never"' in results
    assert '{"error": "interrupted"}' in results


async def test_more_results_than_can_wait_to_be_told_are_kept_silently(autojump_clock):
    """The user speaks on and on."""
    count = MAX_ANNOUNCEMENTS + 2
    names = [f"t{index}" for index in range(count)]
    tools = [tool(name, delay=3.0, result=name, traits=ANNOUNCED) for name in names]
    calls = [call(name, call_id=name) for name in names]
    async with talking(chat=FakeChatModel(model(*calls)), tools=tools) as talk:
        talk.ask("go")
        await trio.sleep(2.9)
        talk.device.utter(*speech(2))
        await trio.sleep(1)
        assert len(talk.dialogue.floor.announcements) == MAX_ANNOUNCEMENTS
        kept = [text for kind, text in talk.history if kind == "toolresult"]
        assert len([text for text in kept if text.startswith('"t')]) == 2


async def test_a_background_tool_that_takes_too_long_fails(autojump_clock):
    """Its own timeout goes on when the turn is over."""
    traits = ToolTraits(background=True, patience_seconds=0.0, timeout_seconds=4.0)
    endless = tool("endless", delay=1e6, traits=traits)
    async with talking(chat=FakeChatModel(model(call("endless"))), tools=[endless]) as talk:
        talk.ask("go")
        await trio.sleep(6)
        assert talk.history[-1] == (
            "toolresult",
            '{"error": "endless took longer than 4 seconds"}',
        )


# --- results -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (float("nan"), "not JSON"),
        ({"at": object()}, "not JSON"),
        ("x" * 70_000, "70002 characters; 10000 fit"),
    ],
    ids=["nan", "object", "huge"],
)
async def test_a_result_that_nobody_can_read_has_failed(result: object, said: str, autojump_clock):
    """Told to model and device; the turn goes on."""
    bad = tool("bad", result=result)
    async with talking(chat=FakeChatModel(model(call("bad"))), tools=[bad]) as talk:
        talk.ask("go")
        await trio.sleep(5)
        [returned] = talk.device.events(ToolReturned)
        assert not returned.ok
        assert said in returned.result
        assert talk.history[-1][0] == "assistant"


# --- fillers -------------------------------------------------------------------------------


async def test_the_user_is_asked_for_patience_once_while_tools_are_slow(autojump_clock):
    """After 2 s of silence, aloud and in the text; what was said is in the history."""
    slow = tool("slow", delay=9.0, result="at last")
    async with talking(chat=FakeChatModel(model(call("slow"))), tools=[slow]) as talk:
        talk.ask("go")
        await trio.sleep(1.9)
        assert talk.voice.spoken == []
        await trio.sleep(0.3)
        assert talk.voice.spoken == ["One moment, please."]
        await trio.sleep(12)
        assert talk.voice.spoken[1:] == [' Result "at last".']
        assert talk.history[-1] == ("assistant", 'One moment, please. Result "at last".')
        told = "".join(event.text for event in talk.device.events(TextDelta))
        assert told == 'One moment, please. Result "at last".'


async def test_a_filler_waits_for_what_is_being_said(autojump_clock):
    """Silence begins when the words before the tool were played."""

    def answer(messages: Sequence[Any]) -> Sequence[Any]:
        if messages[-1].role == "tool":
            return [ReplyText("Done.")]
        return [ReplyText("One two three four five. "), call("slow")]

    slow = tool("slow", delay=6.0)
    async with talking(chat=FakeChatModel(answer), tools=[slow]) as talk:
        talk.ask("go")
        await trio.sleep(2.9)  # a second of words, 2 of silence
        assert len(talk.voice.spoken) == 1
        await trio.sleep(0.3)
        assert talk.voice.spoken[1].strip() == "One moment, please."
        await trio.sleep(8)
        assert talk.history[-1] == ("assistant", "One moment, please. Done.")


@pytest.mark.parametrize(("delay", "filler"), [(1.9, 2.0), (9.0, 0.0)], ids=["quick", "off"])
async def test_no_filler(delay: float, filler: float, autojump_clock):
    """For a quick tool, and where none is wanted."""
    slow = tool("slow", delay=delay)
    deadlines = Deadlines(filler=filler)
    chat = FakeChatModel(model(call("slow")))
    async with talking(chat=chat, tools=[slow], deadlines=deadlines) as talk:
        talk.device.say(TextTyped("go"))
        await trio.sleep(14)
        assert talk.voice.spoken == ['Result "done".']
