"""The store of sessions: claims, fencing, expiry, bounds, owners."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from listenai.conversation.items import AssistantItem, ToolCallItem, UserItem
from listenai.effects import Effects
from listenai.engines.base import ToolCall
from listenai.errors import ErrorCode, ProtocolError
from listenai.events import Certainty
from listenai.sessions.base import (
    MAX_INTERACTIONS,
    MAX_ITEMS,
    Interaction,
    LeaseLost,
    Session,
)
from listenai.sessions.memory import (
    TAKEOVER_SECONDS,
    MemoryBackend,
    MemoryLease,
    MemorySessionStore,
)
from listenai.settings import EffectiveConfiguration

IDLE_SECONDS = 3600.0


def make_store(
    backend: MemoryBackend | None = None, *, max_sessions: int = 3, seed: int = 0
) -> MemorySessionStore:
    effects = Effects(random.Random(seed), lambda: 1e9 + trio.current_time())
    return MemorySessionStore(
        effects, IDLE_SECONDS, max_sessions, EffectiveConfiguration, backend or MemoryBackend()
    )


@pytest.fixture
async def store() -> AsyncIterator[MemorySessionStore]:
    """A store for three sessions, its sweep running."""
    made = make_store()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.sweep)
        yield made
        nursery.cancel_scope.cancel()


def say(session: Session, text: str) -> None:
    session.add(UserItem(text, 1e9 + trio.current_time(), text))


def texts(session: Session) -> list[str]:
    return [item.text for item in session.items if isinstance(item, UserItem)]


async def visit(store: MemorySessionStore, session_id: str | None = None, owner: str = "") -> str:
    """Claims, saves, releases; the session's id."""
    lease = await store.claim(session_id, owner)
    await lease.save()
    await lease.release()
    return lease.session.id


# --- claim, save, release ------------------------------------------------------------------


async def test_ids_are_given_or_chosen(autojump_clock, store: MemorySessionStore):
    """An unknown id is a new session of that id; none is a new UUID each time."""
    named = await store.claim("kitchen", "")
    one, two = await store.claim(None, ""), await store.claim(None, "")
    assert (named.session.id, named.restored) == ("kitchen", False)
    assert len({one.session.id, two.session.id, "kitchen"}) == 3
    assert len(one.session.id) == 36


async def test_what_was_saved_is_restored(autojump_clock, store: MemorySessionStore):
    """Every field of a session; the last activity is the restoring."""
    lease = await store.claim("a", "")
    session = lease.session
    say(session, "hello")
    session.record(Interaction(4, 1e9, 2.5, ("hello",), ("get_weather",)))
    session.volume, session.last_turn_id, session.last_stream_id = 30, 4, 3
    session.configuration = EffectiveConfiguration(language="zh", interruptible=False)
    await lease.save()
    await lease.release()
    await trio.sleep(60)
    again = await store.claim("a", "")
    assert again.restored
    assert again.epoch > lease.epoch
    assert again.session == attrs.evolve(session, last_activity=1e9 + trio.current_time())


async def test_what_was_not_saved_is_not_restored(autojump_clock, store: MemorySessionStore):
    """A lease works on a copy of its own."""
    lease = await store.claim("a", "")
    say(lease.session, "kept")
    await lease.save()
    say(lease.session, "lost")
    lease.session.configuration = EffectiveConfiguration(language="zh")
    await lease.release()
    again = await store.claim("a", "")
    say(again.session, "lost too")
    await again.release()
    again = await store.claim("a", "")
    assert texts(again.session) == ["kept"]
    assert again.session.configuration == EffectiveConfiguration()


async def test_a_session_never_saved_leaves_nothing(autojump_clock, store: MemorySessionStore):
    """Released or erased."""
    await (await store.claim("a", "")).release()
    await (await store.claim("b", "")).erase()
    assert not store.backend.records
    assert not (await store.claim("a", "")).restored


async def test_an_erased_session_is_gone(autojump_clock, store: MemorySessionStore):
    """The next one of that id is a new one."""
    await visit(store, "a")
    lease = await store.claim("a", "")
    await lease.erase()
    assert not store.backend.records
    assert not (await store.claim("a", "")).restored


@pytest.mark.parametrize("late", ["save", "release", "erase"])
@pytest.mark.parametrize("end", ["release", "erase"])
async def test_a_lease_ends_once(autojump_clock, store: MemorySessionStore, end: str, late: str):
    """Whatever comes after its end is LeaseLost and changes nothing."""
    await visit(store, "a")
    lease = await store.claim("a", "")
    await getattr(lease, end)()
    with pytest.raises(LeaseLost, match="claim the session again"):
        await getattr(lease, late)()
    assert (await store.claim("a", "")).restored is (end == "release")


# --- takeover --------------------------------------------------------------------------------


async def hold(store: MemorySessionStore, seconds: float, session_id: str = "a") -> None:
    """Holds a session until it is wanted, and so many seconds longer."""
    lease = await store.claim(session_id, "")
    await lease.wait_lost()
    await trio.sleep(seconds)
    say(lease.session, f"held {seconds:g}")
    try:
        await lease.save()
        await lease.release()
    except LeaseLost:
        pass


async def test_a_claim_waits_until_the_holder_has_saved(autojump_clock, store: MemorySessionStore):
    """Then it has what the holder wrote last."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, store, 0.7)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        lease = await store.claim("a", "")
        assert trio.current_time() - began == pytest.approx(0.7)
        assert lease.restored
        assert texts(lease.session) == ["held 0.7"]
    assert store.backend.fenced == 0


async def test_a_holder_that_does_not_let_go_is_fenced(autojump_clock, store: MemorySessionStore):
    """After two seconds; what it writes later is refused."""
    lease = await store.claim("a", "")
    await lease.save()
    say(lease.session, "too late")
    began = trio.current_time()
    newer = await store.claim("a", "")
    assert trio.current_time() - began == TAKEOVER_SECONDS
    assert (newer.epoch > lease.epoch, store.backend.fenced) == (True, 1)
    await lease.wait_lost()
    for late in (lease.save, lease.release, lease.erase):
        with pytest.raises(LeaseLost):
            await late()
    await newer.save()
    await newer.release()
    assert texts((await store.claim("a", "")).session) == []


async def test_of_many_claims_only_the_newest_is_granted(autojump_clock, store: MemorySessionStore):
    """The others are told; the holder's time runs from the first."""
    granted: list[tuple[int, float]] = []
    overtaken: list[int] = []

    async def claim(number: int) -> None:
        try:
            await store.claim("a", "")
            granted.append((number, trio.current_time()))
        except LeaseLost:
            overtaken.append(number)

    await store.claim("a", "")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(claim, number)
            await trio.sleep(0.5)
    assert granted == [(3, began + TAKEOVER_SECONDS)]
    assert overtaken == [0, 1, 2]


@pytest.mark.parametrize("end", ["release", "erase"])
async def test_a_claim_that_is_cancelled_leaves_the_session_free(
    autojump_clock, store: MemorySessionStore, end: str
):
    """It had asked the holder, who goes; the session is idle, or gone, not wanted for ever."""
    lease = await store.claim("a", "")
    await lease.save()
    with trio.move_on_after(0.5) as scope:
        await store.claim("a", "")
    assert scope.cancelled_caught
    await getattr(lease, end)()
    assert list(store.backend.idle) == list(store.backend.records)
    assert list(store.backend.idle) == (["a"] if end == "release" else [])


async def test_a_claim_cancelled_as_the_holder_lets_go(autojump_clock, store: MemorySessionStore):
    """It is granted or not; either way the session is not held for ever."""
    lease = await store.claim("a", "")
    await lease.save()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit, store, "a")
        await trio.testing.wait_all_tasks_blocked()
        await lease.release()
        nursery.cancel_scope.cancel()
    assert list(store.backend.idle) == ["a"]
    await trio.sleep(IDLE_SECONDS + 1)
    assert not store.backend.records


async def test_a_visit_while_an_overtaken_claim_has_not_yet_noticed(
    autojump_clock, store: MemorySessionStore
):
    """The session is idle when the last of those who wanted it has gone."""
    lease = await store.claim("a", "")
    with pytest.RaisesGroup(LeaseLost):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.claim, "a", "")
            await trio.testing.wait_all_tasks_blocked()
            await lease.release()
            await visit(store, "a")
    assert list(store.backend.idle) == ["a"]


async def test_a_waiting_claim_gets_a_new_session_when_the_holder_erases(
    autojump_clock,
    store: MemorySessionStore,
):
    """The id is the same, the session is not."""
    lease = await store.claim("a", "")
    await lease.save()
    async with trio.open_nursery() as nursery:

        async def claim() -> None:
            newer = await store.claim("a", "")
            assert not newer.restored
            await newer.save()

        nursery.start_soon(claim)
        await trio.testing.wait_all_tasks_blocked()
        await lease.erase()
    assert store.backend.records["a"].holder is not None


async def test_two_servers_race(schedule: int, autojump_clock):
    """Claims on two stores with one backend, by holders good and bad: no older epoch's data
    ever replaces a newer one's."""
    chance = random.Random(schedule)
    backend = MemoryBackend()
    stores = [make_store(backend, seed=number) for number in range(2)]
    saved: list[int] = []  # epochs, in the order of their saves
    lost: list[int] = []

    async def pause() -> None:
        await trio.sleep(chance.choice([0, 0, 0.01, 0.5, 1.0]))

    async def write(lease: MemoryLease) -> None:
        for _ in range(chance.randrange(1, 5)):
            await pause()
            say(lease.session, str(lease.epoch))
            await lease.save()
            saved.append(lease.epoch)

    async def serve(store: MemorySessionStore, *, obeys: bool) -> None:
        for _ in range(5):
            await trio.sleep(chance.choice([0, 0.5, 5, 10]))
            try:
                lease = await store.claim("a", "")
            except LeaseLost:
                continue
            before = texts(lease.session)
            assert before == texts(backend.records["a"].saved) if lease.restored else not before
            try:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        if obeys:
                            nursery.start_soon(stop_when_lost, lease, scope)
                        await write(lease)
                        nursery.cancel_scope.cancel()
                await pause()
                await lease.save()
                saved.append(lease.epoch)
                await lease.release()
            except* LeaseLost:
                lost.append(lease.epoch)

    async def stop_when_lost(lease: MemoryLease, scope: trio.CancelScope) -> None:
        await lease.wait_lost()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(partial(serve, stores[number % 2], obeys=number < 3))
    assert saved == sorted(saved)
    assert len(set(saved)) > 5
    record = backend.records["a"]
    assert record.holder is None
    assert texts(record.saved)[-1] == str(saved[-1])
    assert len(lost) >= backend.fenced


# --- time, room, owners ------------------------------------------------------------------------


async def test_an_idle_session_is_forgotten_at_its_time(autojump_clock, store: MemorySessionStore):
    """By the sweep, each at its own; a claimed one never."""
    for session_id in ("a", "b"):
        await visit(store, session_id)
        await trio.sleep(10)
    lease = await store.claim("c", "")
    await trio.sleep(IDLE_SECONDS - 20.5)
    assert list(store.backend.records) == ["a", "b", "c"]
    await trio.sleep(1)
    assert list(store.backend.records) == ["b", "c"]
    await trio.sleep(10)
    assert list(store.backend.records) == ["c"]
    assert store.backend.expired == 2
    assert lease.session.id == "c"


async def test_a_claim_does_not_depend_on_the_sweep(autojump_clock):
    """An expired session is not restored, whoever comes first."""
    store = make_store()
    await visit(store, "a")
    await trio.sleep(IDLE_SECONDS - 0.1)
    assert (await store.claim("a", "")).restored
    await visit(store, "b")
    await trio.sleep(IDLE_SECONDS)
    assert not (await store.claim("b", "")).restored
    assert store.backend.expired == 1


async def test_a_claim_starts_the_time_anew(autojump_clock, store: MemorySessionStore):
    """It is counted from the last release."""
    await visit(store, "a")
    await trio.sleep(IDLE_SECONDS - 1)
    await visit(store, "a")
    await trio.sleep(IDLE_SECONDS - 1)
    assert (await store.claim("a", "")).restored


async def test_the_longest_idle_makes_room(autojump_clock, store: MemorySessionStore):
    """Counted; claimed ones and younger ones stay."""
    held = await store.claim("held", "")
    for session_id in ("a", "b", "a"):  # b is idle for longer than a
        await visit(store, session_id)
        await trio.sleep(1)
    await visit(store, "new")
    assert list(store.backend.records) == ["held", "a", "new"]
    assert store.backend.evicted == 1
    assert held.session.id == "held"


async def test_a_full_store_refuses_new_sessions_only(autojump_clock, store: MemorySessionStore):
    """Those it has can be taken over; one that ends makes room."""
    leases = [await store.claim(session_id, "") for session_id in "abc"]
    with pytest.raises(ProtocolError, match=r"full: all of its 3 .*try again") as refused:
        await store.claim("d", "")
    assert refused.value.code is ErrorCode.SESSION_ERROR
    assert set(store.backend.records) == set("abc")
    await leases[0].release()
    assert (await store.claim("d", "")).session.id == "d"


async def test_a_session_belongs_to_its_owner(autojump_clock, store: MemorySessionStore):
    """Another one is refused, and the holder never hears of it."""
    lease = await store.claim("a", "alice")
    with pytest.raises(ProtocolError, match="belongs to somebody else") as refused:
        await store.claim("a", "bob")
    assert refused.value.code is ErrorCode.SESSION_ERROR
    with trio.move_on_after(1) as nothing:
        await lease.wait_lost()
    assert nothing.cancelled_caught
    await lease.save()
    await lease.release()
    for stranger in ("bob", ""):
        with pytest.raises(ProtocolError):
            await store.claim("a", stranger)
    assert (await store.claim("a", "alice")).restored


# --- a session -----------------------------------------------------------------------------------


def test_statistics_are_those_of_the_specification():
    """Messages are the user's and the assistant's; tools are none."""
    session = Session("a", 1000.0, EffectiveConfiguration())
    assert session.statistics(1004.0).average_interaction_seconds is None
    assert session.statistics(1004.0).last_activity == 1000.0
    session.add(UserItem("u", 1001.0, "hello"))
    session.add(ToolCallItem("t", 1002.0, ToolCall("c", "get_weather", "{}")))
    session.add(AssistantItem("s", 1003.0, "hi", Certainty.REPORTED))
    session.record(Interaction(1, 1001.0, 2.0, ("u", "t", "s"), ("get_weather",)))
    session.record(Interaction(2, 1003.0, 3.0, ()))
    statistics = session.statistics(1010.0)
    assert statistics.message_count == 2
    assert statistics.interaction_count == 2
    assert statistics.duration_seconds == 10.0
    assert statistics.average_interaction_seconds == 2.5
    assert statistics.last_activity == 1003.0


def test_a_session_is_bounded():
    """The oldest are forgotten, and counted all the same."""
    session = Session("a", 0.0, EffectiveConfiguration())
    for number in range(MAX_ITEMS + 5):
        session.add(UserItem(str(number), 0.0, "x"))
        session.record(Interaction(number, 0.0, 1.0, (str(number),)))
    assert [len(session.items), session.items[0].id] == [MAX_ITEMS, "5"]
    assert len(session.interactions) == MAX_INTERACTIONS
    assert session.interactions[-1].turn_id == MAX_ITEMS + 4
    assert (session.message_count, session.interaction_count) == (MAX_ITEMS + 5, MAX_ITEMS + 5)
