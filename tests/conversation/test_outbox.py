"""Two lanes to one writer: a rendezvous behind a gate, and a lane that overtakes."""

from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from listenai.conversation.outbox import MAX_POSTED, Gate, Outbox
from listenai.errors import DeviceStalled
from listenai.events import Notice, PongSent, TextDelta


@attrs.define(eq=False)
class Sender:
    """A turn, as the outbox knows it."""

    gate: Gate = Gate.OPEN
    taken_events: list[tuple[Notice, float]] = attrs.field(factory=list)

    def taken(self, event: Notice, now: float) -> None:
        self.taken_events.append((event, now))

    @property
    def texts(self) -> list[str]:
        return [event.text for event, _ in self.taken_events if isinstance(event, TextDelta)]


@attrs.define(eq=False)
class Taker:
    """A writer: idle, it takes whatever may leave at once; busy, when the test says so."""

    idle: bool = False
    got: list[Notice] = attrs.field(factory=list)
    outbox: Outbox = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.outbox = Outbox(self._changed)

    def _changed(self) -> None:
        if self.idle:
            self.take_all()

    def take_all(self) -> None:
        while event := self.outbox.take():
            self.got.append(event)


def busy() -> Outbox:
    """The outbox of a writer that takes when the test says so."""
    return Taker().outbox


def delta(text: object) -> TextDelta:
    return TextDelta(1, str(text))


# --- a writer that is busy -----------------------------------------------------------------


async def test_send_returns_when_its_message_was_taken(schedule, autojump_clock):
    """A rendezvous: nothing is buffered for a writer that is busy."""
    outbox, sender, sent = busy(), Sender(), []

    async def send() -> None:
        for number in range(3):
            await outbox.send(sender, delta(number))
            sent.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(1)
        assert sent == []
        for number in range(3):
            assert outbox.take() == delta(number)
            assert outbox.take() is None
            assert sender.texts == [str(n) for n in range(number + 1)]
            await trio.sleep(1)
            assert sent == list(range(number + 1))


async def test_taken_is_called_at_the_very_moment(schedule, autojump_clock):
    """Once for each message, with the time at which the writer had it."""
    outbox, sender = busy(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("a"))
        await trio.sleep(1.5)
        event = outbox.take()
        assert sender.taken_events == [(event, trio.current_time())]
        await trio.sleep(1)
    assert len(sender.taken_events) == 1


async def test_posted_notices_overtake(schedule, autojump_clock):
    """In their own order, before anything of a turn."""
    outbox, sender = busy(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("audio"))
        await wait_all_tasks_blocked()
        outbox.post(PongSent(1))
        outbox.post(PongSent(2))
        assert [outbox.take() for _ in range(3)] == [PongSent(1), PongSent(2), delta("audio")]


async def test_nothing_of_a_held_turn_is_taken(schedule, autojump_clock):
    """Not even what waited before the hold; what is posted passes it."""
    outbox, sender = busy(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("a"))
        await wait_all_tasks_blocked()
        sender.gate = Gate.HELD
        outbox.post(PongSent(1))
        assert outbox.take() == PongSent(1)
        assert outbox.take() is None
        assert sender.taken_events == []
        nursery.cancel_scope.cancel()


async def test_a_shut_turn_leaves_the_lane_to_the_next(schedule, autojump_clock):
    """Interrupted and cancelled: its message is withdrawn, the next turn's is taken."""
    outbox, old, new = busy(), Sender(), Sender()
    async with trio.open_nursery() as turn:
        turn.start_soon(outbox.send, old, delta("old"))
        await wait_all_tasks_blocked()
        old.gate = Gate.SHUT
        assert outbox.take() is None
        turn.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, new, delta("new"))
        await wait_all_tasks_blocked()
        assert outbox.take() == delta("new")
    assert old.taken_events == []


async def test_a_cancelled_send_withdraws_its_message(schedule, autojump_clock):
    """Whoever waits behind it is next."""
    outbox, first, second = busy(), Sender(), Sender()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await outbox.send(first, delta("withdrawn"))
        nursery.start_soon(outbox.send, second, delta("next"))
        await wait_all_tasks_blocked()
        assert outbox.take() == delta("next")
    assert (first.texts, second.texts) == ([], ["next"])


async def test_a_cancelled_sender_in_the_queue_is_forgotten(schedule, autojump_clock):
    """It had not even reached the lane."""
    outbox, sender = busy(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("first"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await outbox.send(sender, delta("cancelled"))
        nursery.start_soon(outbox.send, sender, delta("last"))
        await wait_all_tasks_blocked()
        assert outbox.take() == delta("first")
        await wait_all_tasks_blocked()
        assert outbox.take() == delta("last")


async def test_what_was_taken_is_what_was_sent(schedule, autojump_clock):
    """Senders cancelled at any moment: `taken` knows exactly what the writer got, in order."""
    taker, sender = Taker(), Sender()
    writing = trio.CancelScope()

    async def write() -> None:
        with writing:
            while True:
                await trio.sleep(0.0007)
                taker.take_all()
                taker.idle = not taker.idle

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for number in range(60):
            await trio.sleep(0.0003)
            with trio.move_on_after((number % 5) * 0.0001):
                await taker.outbox.send(sender, delta(number))
        writing.cancel()
    assert [event for event, _ in sender.taken_events] == taker.got
    assert 0 < len(taker.got) < 60


async def test_senders_take_turns(schedule, autojump_clock):
    """Nobody overtakes: tools and text of one turn leave in the order in which they asked."""
    outbox, got = busy(), []
    senders = [Sender() for _ in range(3)]

    async def send(name: str, sender: Sender) -> None:
        for _ in range(4):
            await outbox.send(sender, delta(name))

    async with trio.open_nursery() as nursery:
        for name, sender in zip("abc", senders, strict=True):
            nursery.start_soon(send, name, sender)
        for _ in range(12):
            await wait_all_tasks_blocked()
            event = outbox.take()
            assert isinstance(event, TextDelta)
            got.append(event.text)
    for start in range(0, 12, 3):
        assert sorted(got[start : start + 3]) == ["a", "b", "c"]


async def test_a_device_that_does_not_read_is_stalled(schedule, autojump_clock):
    """64 notices wait, no more; posting never waits."""
    outbox = busy()
    for number in range(MAX_POSTED):
        outbox.post(PongSent(number))
    with pytest.raises(DeviceStalled, match="64"):
        outbox.post(PongSent(64))
    assert outbox.take() == PongSent(0)
    outbox.post(PongSent(65))


async def test_what_was_posted_is_given_out_before_the_end(schedule, autojump_clock):
    """The last words: an error, a goodbye."""
    outbox = busy()
    outbox.post(PongSent(1))
    outbox.post(PongSent(2))
    outbox.close()
    assert outbox.closed
    assert [outbox.take() for _ in range(3)] == [PongSent(1), PongSent(2), None]


# --- a writer that has nothing to do ---------------------------------------------------------


async def test_an_idle_writer_takes_at_once(schedule, autojump_clock):
    """Inside the call, before any other task runs."""
    taker, sender = Taker(idle=True), Sender()
    seen: list[int] = []

    async def look() -> None:
        seen.append(len(taker.got))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        taker.outbox.post(PongSent(1))
        await taker.outbox.send(sender, delta("a"))
        taker.outbox.post(PongSent(2))
        assert taker.got == [PongSent(1), delta("a"), PongSent(2)]
    assert seen == [3]
    assert sender.texts == ["a"]


async def test_a_cancelled_sender_sends_nothing(schedule, autojump_clock):
    """However idle the writer is: an interrupted turn is silent from then on."""
    taker, sender = Taker(idle=True), Sender()
    with trio.CancelScope() as turn:
        turn.cancel()
        await taker.outbox.send(sender, delta("too late"))
    assert turn.cancelled_caught
    assert taker.got == []


async def test_an_opened_gate_lets_the_held_message_out(schedule, autojump_clock):
    """The very message that was held, once the outbox hears of it."""
    taker, sender = Taker(idle=True), Sender(Gate.HELD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.outbox.send, sender, delta("a"))
        await trio.sleep(1)
        assert taker.got == []
        sender.gate = Gate.OPEN
        taker.outbox.gate_changed()
        assert taker.got == [delta("a")]


async def test_each_change_is_told_to_the_writer(schedule, autojump_clock):
    """Both lanes and the end."""
    calls: list[float] = []
    outbox = Outbox(lambda: calls.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        await trio.sleep(1)
        outbox.post(PongSent(1))
        await trio.sleep(1)
        nursery.start_soon(outbox.send, Sender(), delta("a"))
        await trio.sleep(1)
        outbox.close()
        nursery.cancel_scope.cancel()
    assert len(calls) == 3
    assert all(later - earlier == 1 for earlier, later in pairwise(calls))
