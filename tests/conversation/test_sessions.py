"""A session outlives its connection: kept, restored, taken over, erased."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from fakes import (
    ANSWER,
    FakeChatModel,
    FakeDevice,
    FakeSynthesizer,
    Talking,
    call,
    talking,
    tool,
)

from listenai.conversation.conversation import LET_GO_SECONDS
from listenai.effects import Effects
from listenai.engines.base import ReplyText
from listenai.errors import ErrorCode
from listenai.events import (
    AudioReceived,
    ErrorReported,
    PingReceived,
    PongSent,
    SessionEnd,
    SessionStart,
    State,
    StatisticsAsked,
    StatisticsSent,
    StatusChanged,
    StreamStarted,
    TurnMetrics,
    UserTranscript,
)
from listenai.sessions.base import Lease, SessionStore
from listenai.sessions.memory import TAKEOVER_SECONDS, MemorySessionStore
from listenai.settings import Configuration, EffectiveConfiguration

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")

HEARD = "One two three"  # of ANSWER, 0.7 s after it was asked for
TAKEN_OVER = (4001, "taken over by a newer connection")


def make_store(max_sessions: int = 10) -> MemorySessionStore:
    return MemorySessionStore(
        Effects(random.Random(1), trio.current_time),
        3600.0,
        max_sessions,
        lambda: EffectiveConfiguration(end_of_turn_ms=0),
    )


def ready(talk: Talking) -> StatusChanged:
    """The first thing a begun conversation is told."""
    [status] = [e for e in talk.device.events(StatusChanged) if e.state is State.READY]
    return status


@asynccontextmanager
async def connecting(**options: Any) -> AsyncIterator[Talking]:
    """A conversation that may have to wait for its session, or never get it."""
    talk = Talking(**options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        yield talk
        nursery.cancel_scope.cancel()
    talk.check_laws()


async def leave_in_mid_reply(store: SessionStore, **options: Any) -> Talking:
    """One visit: a question, and gone 0.7 s later."""
    async with talking(sessions=store, session_id="s", stops=True, **options) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.leave()
    return talk


# --- kept and restored -----------------------------------------------------------------------


async def test_a_new_session_is_not_restored(autojump_clock):
    """With an id asked for or given; `status ready` says so."""
    store = make_store()
    async with talking(sessions=store, session_id="kitchen") as named:
        await trio.sleep(0.1)
        assert (ready(named).session_id, ready(named).restored) == ("kitchen", False)
        async with talking(sessions=store) as nameless:
            await trio.sleep(0.1)
            assert ready(nameless).restored is False
            assert ready(nameless).session_id == nameless.session.id != "kitchen"


async def test_audio_before_the_start_begins_a_session(autojump_clock):
    """As if asked for, by the same way."""
    store = make_store()
    device = FakeDevice()
    talk = Talking(device=device, sessions=store, starts=False)
    async with trio.open_nursery() as nursery:
        device.say(AudioReceived(b"xx"))
        nursery.start_soon(talk.conversation.run, talk.draining)
        await trio.sleep(0.1)
        assert ready(talk).session_id in store.backend.records
        nursery.cancel_scope.cancel()


async def test_segments_are_counted_on_across_a_restore(autojump_clock):
    """As turns and streams are."""
    store = make_store()
    await leave_in_mid_reply(store)
    async with talking(sessions=store, session_id="s") as talk:
        before = talk.session.last_segment_id
        assert before >= 1
        talk.ask("go on", 1)  # the new ear's first segment
        await trio.sleep(0.2)
        final = [event for event in talk.device.events(UserTranscript) if event.is_final]
        assert [event.segment_id for event in final] == [before + 1]


async def test_a_restored_session_remembers_what_was_heard(autojump_clock):
    """The next request to the chat model contains it, and not what was only generated."""
    store = make_store()
    before = await leave_in_mid_reply(store)
    async with talking(sessions=store, session_id="s") as talk:
        talk.ask("go on", 2)
        await trio.sleep(0.2)
        assert ready(talk).restored is True
        asked = [(message.role, message.content) for message in talk.chat.asked[0][1]]
        assert asked == [("user", "hello"), ("assistant", HEARD), ("user", "go on")]
    assert before.session is not talk.session


async def test_settings_and_counters_go_on(autojump_clock):
    """Configuration, volume, statistics; turn and stream ids."""
    store = make_store()
    async with talking(sessions=store, session_id="s", stops=True) as talk:
        talk.device.say(Configuration(language="zh", system_prompt="Be brief."))
        talk.ask()
        await trio.sleep(3)
        talk.session.volume = 30  # as the volume tool does
        talk.device.leave()
    await trio.sleep(60)
    async with talking(sessions=store, session_id="s") as talk:
        talk.ask("more")
        await trio.sleep(3)
        configuration = ready(talk).configuration
        assert (configuration.language, configuration.system_prompt) == ("zh", "Be brief.")
        assert talk.recognizer.settings[0]["language"] == "zh"
        assert talk.session.volume == 30
        assert [stream.stream_id for stream in talk.device.events(StreamStarted)] == [2]
        assert [metrics.turn_id for metrics in talk.device.events(TurnMetrics)] == [2]
        talk.device.say(StatisticsAsked())
        await trio.sleep(0.1)
        [sent] = talk.device.events(StatisticsSent)
        assert (sent.statistics.message_count, sent.statistics.interaction_count) == (4, 2)
        assert sent.statistics.duration_seconds == pytest.approx(66.0, abs=0.05)
        assert 1.9 < sent.statistics.average_interaction_seconds < 2.2
        assert 64 < sent.statistics.last_activity < 66  # when the turn ended


async def test_interactions_are_tracked(autojump_clock):
    """Duration, tools and the items of each (spec 000, "Interaction Tracking")."""
    chat = FakeChatModel(
        lambda m: [call("clock")] if m[-1].content == "hello" else [ReplyText("One.")]
    )
    async with talking(chat=chat, tools=[tool("clock", delay=0.5)]) as talk:
        talk.ask()
        await trio.sleep(5)
        talk.ask("thanks", 2)
        await trio.sleep(5)
        with_tool, plain = talk.session.interactions
        assert [with_tool.turn_id, plain.turn_id] == [1, 2]
        assert [with_tool.tools, plain.tools] == [("clock",), ()]
        assert with_tool.duration_seconds == pytest.approx(0.5 + 1.0, abs=0.1)
        assert plain.duration_seconds == pytest.approx(1.0, abs=0.1)
        items = [item.id for item in talk.session.items]
        assert [*with_tool.item_ids, *plain.item_ids] == items
        assert len(with_tool.item_ids) == 4
        last = talk.device.events(TurnMetrics)[-1]
        assert plain.duration_seconds == pytest.approx(last.ended_ms / 1000)


async def test_a_session_is_kept_for_its_time(autojump_clock):
    """An hour after the device left it is another one."""
    store = make_store()
    for away, restored in ((0, False), (3599, True), (3601, False)):
        await trio.sleep(away)
        async with talking(sessions=store, session_id="s", stops=True) as talk:
            await trio.sleep(0.1)
            talk.device.leave()
        assert ready(talk).restored is restored


async def test_an_ended_session_is_erased(autojump_clock):
    """`end_session` in mid reply leaves nothing to restore."""
    store = make_store()
    async with talking(sessions=store, session_id="s", stops=True) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.say(SessionEnd())
    assert talk.device.closed == (1000, "session ended")
    assert not store.backend.records


# --- however a connection ends -----------------------------------------------------------------


def heard_by_store(store: MemorySessionStore) -> list[str]:
    record = store.backend.records["s"]
    assert record.holder is None
    assert record.saved
    return [item.text for item in record.saved.items]


async def test_a_cancelled_connection_saves(autojump_clock):
    """Server shutdown: what was heard, and what waited for an answer."""
    store = make_store()
    async with talking(sessions=store, session_id="s", chat=FakeChatModel(leaving=5)) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.ask("wait", 2)
        await trio.sleep(0.1)
        talk.ask("no", 3)
        await trio.sleep(0.1)
    assert heard_by_store(store) == ["hello", HEARD, "wait", "no"]


async def test_our_own_bug_does_not_cost_the_session(autojump_clock):
    """It is told and raised as ever; the next connection has the history."""
    store = make_store()
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True, allow_unwrapped=True):
        await leave_in_mid_reply(store, voice=FakeSynthesizer(fail=KeyError("bug"), fail_at=20))
    assert heard_by_store(store)[0] == "hello"
    async with talking(sessions=store, session_id="s") as talk:
        await trio.sleep(0.1)
        assert ready(talk).restored is True


async def test_a_stalled_device_does_not_keep_its_session(autojump_clock):
    """Given up after 5 s, its session is free."""
    store = make_store()
    async with talking(sessions=store, session_id="s", stops=True) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.device.stop_reading()
    assert heard_by_store(store)[0] == "hello"


async def test_a_drain_saves(autojump_clock):
    """The reply in progress is part of it."""
    store = make_store()
    async with talking(sessions=store, session_id="s", stops=True) as talk:
        talk.ask()
        await trio.sleep(0.7)
        talk.draining.set()
    assert heard_by_store(store) == ["hello", ANSWER]


async def test_turns_are_saved_as_they_end(autojump_clock):
    """A server that dies loses one turn at most; settings are saved too."""
    store = make_store()
    async with talking(sessions=store, session_id="s") as talk:
        talk.ask()
        await trio.sleep(3)
        saved = store.backend.records["s"].saved
        assert [item.text for item in saved.items] == ["hello", ANSWER]
        talk.device.say(Configuration(language="zh"))
        await trio.sleep(0.1)
        assert store.backend.records["s"].saved.configuration.language == "zh"


@attrs.frozen
class SlowLease:
    """A lease in a store that has stopped answering."""

    lease: Lease

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lease, name)

    async def save(self) -> None:
        await trio.sleep_forever()


@attrs.frozen
class SlowStore:
    """Gives out slow leases."""

    store: SessionStore

    async def claim(self, session_id: str | None, owner: str) -> Any:
        return SlowLease(await self.store.claim(session_id, owner))


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_store_that_does_not_answer_is_not_waited_for(cancelled: bool, autojump_clock):
    """A second, whoever ended the connection; then the lease is let go, or left to be fenced."""
    async with talking(sessions=SlowStore(make_store()), stops=not cancelled) as talk:
        talk.ask()
        await trio.sleep(0.7)
        left_at = trio.current_time()
        if not cancelled:
            talk.device.leave()
    assert trio.current_time() - left_at == pytest.approx(LET_GO_SECONDS, abs=0.1)


# --- taken over ----------------------------------------------------------------------------------


def _with_slow_tool() -> dict[str, Any]:
    chat = FakeChatModel(lambda m: [call("slow")] if m[-1].role == "user" else [ReplyText("Done.")])
    return {"chat": chat, "tools": [tool("slow", delay=60.0)]}


def _with_slow_exit() -> dict[str, Any]:
    return {"chat": FakeChatModel(ANSWER, leaving=0.3)}


MOMENTS: dict[str, tuple[Callable[[], dict[str, Any]], float, list[str]]] = {
    "before it said anything": (dict, 0.001, []),
    "waiting for the chat model": (lambda: {"chat": FakeChatModel(delay=9.0)}, 0.5, []),
    "inside a tool": (_with_slow_tool, 1.0, ["slow", '{"error": "interrupted"}']),
    "in mid sentence": (dict, 0.7, [HEARD]),
    "an engine takes its time to leave": (_with_slow_exit, 0.15, ["One"]),
    "in the tail": (dict, 1.8, ["One two three four five. Six seven eight"]),
    "when all is said": (dict, 5.0, [ANSWER]),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_newer_connection_takes_the_session_over(moment: str, autojump_clock):
    """The older is told and closed 4001; its turn is in the history the newer begins with."""
    options, seconds, said = MOMENTS[moment]
    store = make_store()
    async with talking(sessions=store, session_id="s", stops=True, **options()) as older:
        older.ask()
        await trio.sleep(seconds)
        async with connecting(sessions=store, session_id="s") as newer:
            await trio.sleep(0.5)
            assert ready(newer).restored is True
            history = [text for _, text in newer.history]
            assert history == ["hello", *said]
            assert newer.history == older.history
            newer.ask("and now", 2)
            await trio.sleep(5)
            assert newer.history[-2:] == [("user", "and now"), ("assistant", ANSWER)]
    [error] = older.device.events(ErrorReported)
    assert (error.code, older.device.closed) == (ErrorCode.SESSION_ERROR, TAKEN_OVER)
    assert "newer connection" in error.message
    assert not newer.device.events(ErrorReported)
    assert store.backend.fenced == 0


async def test_an_old_connection_that_cannot_end_is_fenced(autojump_clock):
    """The newer waits two seconds, has what was saved before, and the older changes nothing."""
    store = make_store()
    chat = FakeChatModel("One.", leaving=0.0)
    async with talking(sessions=store, session_id="s", chat=chat, stops=True) as older:
        older.ask()
        await trio.sleep(3)
        chat.leaving, chat.delay = 10.0, 1.0
        older.ask("stuck", 2)
        await trio.sleep(0.5)
        began = trio.current_time()
        async with connecting(sessions=store, session_id="s") as newer:
            await trio.sleep(20)
            waited = newer.device.times(StatusChanged)[0] - began
            assert newer.history == [("user", "hello"), ("assistant", "One.")]
    assert waited == pytest.approx(TAKEOVER_SECONDS, abs=0.2)
    assert older.device.closed == TAKEN_OVER
    assert older.history[-1] == ("user", "stuck")
    assert store.backend.fenced == 1
    assert [item.text for item in store.backend.records["s"].saved.items] == ["hello", "One."]


async def test_a_stalled_device_cannot_delay_a_takeover(autojump_clock):
    """Its session is free before it has read that it was taken over."""
    store = make_store()
    async with talking(sessions=store, session_id="s", stops=True) as older:
        older.ask()
        await trio.sleep(0.7)
        older.device.stop_reading()
        await trio.sleep(0.1)
        async with connecting(sessions=store, session_id="s") as newer:
            await trio.sleep(0.1)
            assert ready(newer).restored is True
            assert newer.history[0] == ("user", "hello")


async def test_of_three_connections_the_last_has_the_session(autojump_clock):
    """The second, still waiting for the first, is overtaken and told."""
    store = make_store()
    async with talking(
        sessions=store, session_id="s", chat=FakeChatModel(leaving=1.0), stops=True
    ) as first:
        first.ask()
        await trio.sleep(0.05)
        async with connecting(sessions=store, session_id="s") as second:
            await trio.sleep(0.3)
            async with connecting(sessions=store, session_id="s") as third:
                await trio.sleep(2)
                assert ready(third).restored is True
                assert not second.device.events(StatusChanged)
                assert [e.code for e in second.device.events(ErrorReported)] == ["SESSION_ERROR"]
                assert first.device.closed == second.device.closed == TAKEN_OVER
                assert third.device.closed is None


async def test_back_and_forth(autojump_clock):
    """Ten takeovers in a row: every question asked is in the end's history, once."""
    store = make_store()
    async with trio.open_nursery() as nursery:
        for number in range(10):
            talk = Talking(sessions=store, session_id="s")
            nursery.start_soon(talk.run)
            await trio.sleep(0.01)
            talk.ask(f"question {number}")
            await trio.sleep(random.Random(number).random())
        nursery.cancel_scope.cancel()
    questions = [text for kind, text in talk.history if kind == "user"]
    assert questions == [f"question {number}" for number in range(10)]
    assert talk.session.last_turn_id == talk.session.interaction_count == 10


# --- refused -------------------------------------------------------------------------------------


async def test_another_owner_is_refused(autojump_clock):
    """SESSION_ERROR; the connection goes on and may begin a session of its own."""
    store = make_store()
    async with talking(sessions=store, session_id="s", owner="alice") as owned:
        owned.ask()
        await trio.sleep(0.1)
        async with connecting(sessions=store, session_id="s", owner="bob") as talk:
            await trio.sleep(0.1)
            [error] = talk.device.events(ErrorReported)
            assert error.code is ErrorCode.SESSION_ERROR
            assert "belongs to somebody else" in error.message
            talk.device.say(SessionStart("mine"), PingReceived(1))
            await trio.sleep(0.1)
            assert ready(talk).session_id == "mine"
            assert talk.device.events(PongSent) == [PongSent(1)]
        await trio.sleep(3)
        assert owned.history == [("user", "hello"), ("assistant", ANSWER)]


async def test_a_full_store_refuses(autojump_clock):
    """SESSION_ERROR that says what to do; when another device leaves there is room."""
    store = make_store(max_sessions=1)
    async with (
        talking(sessions=store, session_id="first", stops=True) as first,
        connecting(sessions=store, session_id="second") as talk,
    ):
        await trio.sleep(0.1)
        [error] = talk.device.events(ErrorReported)
        assert error.code is ErrorCode.SESSION_ERROR
        assert "try again later" in error.message
        first.device.leave()
        await trio.sleep(0.1)
        talk.device.say(SessionStart("second"))
        await trio.sleep(0.1)
        assert ready(talk).session_id == "second"
    assert store.backend.evicted == 1


async def test_a_device_that_leaves_while_it_waits_gets_nothing(autojump_clock):
    """Cancelled in the claim: the session is its holder's, who was asked, and then free."""
    store = make_store()
    async with talking(
        sessions=store, session_id="s", chat=FakeChatModel(leaving=1.0), stops=True
    ) as older:
        older.ask()
        await trio.sleep(0.05)
        async with connecting(sessions=store, session_id="s") as talk:
            await trio.sleep(0.2)
        assert not talk.device.events(StatusChanged)
    assert heard_by_store(store)[0] == "hello"
