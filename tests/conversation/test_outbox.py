"""Two lanes to one writer: a rendezvous behind a gate, and a lane that overtakes."""

from __future__ import annotations

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


def delta(text: object) -> TextDelta:
    return TextDelta(1, str(text))


async def test_send_returns_when_its_message_was_taken(schedule, autojump_clock):
    """A rendezvous: nothing is buffered for a writer that is busy."""
    outbox, sender, sent = Outbox(), Sender(), []

    async def send() -> None:
        for number in range(3):
            await outbox.send(sender, delta(number))
            sent.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(1)
        assert sent == []
        for number in range(3):
            assert await outbox.take() == delta(number)
            assert sender.texts == [str(n) for n in range(number + 1)]
            await trio.sleep(1)
            assert sent == list(range(number + 1))


async def test_taken_is_called_at_the_very_moment(schedule, autojump_clock):
    """Once for each message, with the time at which the writer had it."""
    outbox, sender = Outbox(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("a"))
        await trio.sleep(1.5)
        event = await outbox.take()
        assert sender.taken_events == [(event, trio.current_time())]
        await trio.sleep(1)
    assert len(sender.taken_events) == 1


async def test_take_waits_for_either_lane(schedule, autojump_clock):
    """The writer sleeps until there is something."""
    outbox, sender, got = Outbox(), Sender(), []

    async def write() -> None:
        while len(got) < 2:
            event = await outbox.take()
            got.append((event, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        start = trio.current_time()
        await trio.sleep(1)
        outbox.post(PongSent(1))
        await trio.sleep(1)
        await outbox.send(sender, delta("a"))
    assert got == [(PongSent(1), start + 1), (delta("a"), start + 2)]


async def test_posted_notices_overtake(schedule, autojump_clock):
    """In their own order, before anything of a turn."""
    outbox, sender = Outbox(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("audio"))
        await wait_all_tasks_blocked()
        outbox.post(PongSent(1))
        outbox.post(PongSent(2))
        assert [await outbox.take() for _ in range(3)] == [
            PongSent(1),
            PongSent(2),
            delta("audio"),
        ]


async def test_nothing_of_a_held_turn_is_taken(schedule, autojump_clock):
    """Not even what waited before the hold; what is posted passes it."""
    outbox, sender = Outbox(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("a"))
        await wait_all_tasks_blocked()
        sender.gate = Gate.HELD
        outbox.post(PongSent(1))
        assert await outbox.take() == PongSent(1)
        with trio.move_on_after(60) as nothing:
            await outbox.take()
        assert nothing.cancelled_caught
        assert sender.taken_events == []
        nursery.cancel_scope.cancel()


async def test_an_opened_gate_wakes_the_writer(schedule, autojump_clock):
    """The very message that was held goes out."""
    outbox, sender, got = Outbox(), Sender(Gate.HELD), []

    async def write() -> None:
        got.append(await outbox.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(outbox.send, sender, delta("a"))
        await trio.sleep(1)
        assert got == []
        sender.gate = Gate.OPEN
        outbox.gate_changed()
        await trio.sleep(1)
        assert got == [delta("a")]


async def test_a_shut_turn_leaves_the_lane_to_the_next(schedule, autojump_clock):
    """Interrupted and cancelled: its message is withdrawn, the next turn's is taken."""
    outbox, old, new = Outbox(), Sender(), Sender()
    async with trio.open_nursery() as turn:
        turn.start_soon(outbox.send, old, delta("old"))
        await wait_all_tasks_blocked()
        old.gate = Gate.SHUT
        with trio.move_on_after(60) as nothing:
            await outbox.take()
        assert nothing.cancelled_caught
        turn.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, new, delta("new"))
        assert await outbox.take() == delta("new")
    assert old.taken_events == []


async def test_a_cancelled_send_withdraws_its_message(schedule, autojump_clock):
    """Whoever waits behind it is next."""
    outbox, first, second = Outbox(), Sender(), Sender()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await outbox.send(first, delta("withdrawn"))
        nursery.start_soon(outbox.send, second, delta("next"))
        assert await outbox.take() == delta("next")
    assert (first.texts, second.texts) == ([], ["next"])


async def test_a_cancelled_sender_in_the_queue_is_forgotten(schedule, autojump_clock):
    """It had not even reached the lane."""
    outbox, sender = Outbox(), Sender()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, sender, delta("first"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await outbox.send(sender, delta("cancelled"))
        nursery.start_soon(outbox.send, sender, delta("last"))
        assert [await outbox.take(), await outbox.take()] == [delta("first"), delta("last")]


async def test_what_was_taken_is_what_was_sent(schedule, autojump_clock):
    """Senders cancelled at any moment: `taken` knows exactly what the writer got, in order."""
    outbox, sender, got = Outbox(), Sender(), []
    writing = trio.CancelScope()

    async def write() -> None:
        with writing:
            while True:
                with trio.move_on_after(0.0007):  # the dialect's deadline interrupts the wait
                    got.append(await outbox.take())
                await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for number in range(60):
            with trio.move_on_after((number % 5) * 0.0005):
                await outbox.send(sender, delta(number))
        writing.cancel()
    assert [event for event, _ in sender.taken_events] == got
    assert 0 < len(got) < 60


async def test_senders_take_turns(schedule, autojump_clock):
    """Nobody overtakes: tools and text of one turn leave in the order in which they asked."""
    outbox, got = Outbox(), []
    senders = [Sender() for _ in range(3)]

    async def send(name: str, sender: Sender) -> None:
        for _ in range(4):
            await outbox.send(sender, delta(name))

    async with trio.open_nursery() as nursery:
        for name, sender in zip("abc", senders, strict=True):
            nursery.start_soon(send, name, sender)
        for _ in range(12):
            await wait_all_tasks_blocked()
            event = await outbox.take()
            assert isinstance(event, TextDelta)
            got.append(event.text)
    for start in range(0, 12, 3):
        assert sorted(got[start : start + 3]) == ["a", "b", "c"]


async def test_a_device_that_does_not_read_is_stalled(schedule, autojump_clock):
    """64 notices wait, no more; posting never waits."""
    outbox = Outbox()
    for number in range(MAX_POSTED):
        outbox.post(PongSent(number))
    with pytest.raises(DeviceStalled, match="64"):
        outbox.post(PongSent(64))
    assert await outbox.take() == PongSent(0)
    outbox.post(PongSent(65))


async def test_what_was_posted_is_given_out_before_the_end(schedule, autojump_clock):
    """The last words: an error, a goodbye."""
    outbox = Outbox()
    outbox.post(PongSent(1))
    outbox.post(PongSent(2))
    outbox.close()
    assert [await outbox.take(), await outbox.take()] == [PongSent(1), PongSent(2)]
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await outbox.take()


async def test_closing_wakes_the_writer(schedule, autojump_clock):
    """Also when a held message waits: it is never sent."""
    outbox, sender = Outbox(), Sender(Gate.HELD)

    async def write() -> None:
        with pytest.raises(trio.EndOfChannel):
            await outbox.take()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(outbox.send, sender, delta("held"))
        await trio.sleep(1)
        outbox.close()
        await trio.sleep(60)
        pytest.fail("the writer sleeps on")
    assert sender.taken_events == []
