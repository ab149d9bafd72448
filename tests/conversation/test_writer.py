"""The one sender: at once where the wire has room, from its task where it has none."""

from __future__ import annotations

import attrs
import pytest
import trio
from fakes import Envelope, EventDialect
from trio.testing import wait_all_tasks_blocked

from listenai.conversation.writer import Writer
from listenai.errors import DeviceStalled
from listenai.events import Notice, PongSent
from listenai.observer import NOBODY

STALL_SECONDS = 5.0


@attrs.define(eq=False)
class NarrowWire:
    """Has room for so many messages; whoever sends more waits until there is some again."""

    room: int
    got: list[int] = attrs.field(factory=list)
    more: trio.Event = attrs.field(factory=trio.Event)

    def send_nowait(self, message: Envelope) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.got.append(message.event.id)
        return True

    async def send(self, message: Envelope) -> None:
        while not self.send_nowait(message):
            await self.more.wait()

    def widen(self, room: int) -> None:
        self.room += room
        self.more.set()
        self.more = trio.Event()


@attrs.define(eq=False)
class Written:
    """A writer on such a wire, and whom it has told."""

    wire: NarrowWire
    told: list[int] = attrs.field(factory=list)
    writer: Writer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.writer = Writer(self.wire, EventDialect(), NOBODY, STALL_SECONDS, self._tell)  # type: ignore[arg-type]

    def _tell(self, notice: Notice) -> None:
        assert isinstance(notice, PongSent)
        self.told.append(notice.id)  # type: ignore[arg-type]

    def post(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.outbox.post(PongSent(number))


async def test_a_notice_leaves_within_the_call(schedule, autojump_clock):
    """Without the task, which may not even run yet."""
    written = Written(NarrowWire(2))
    written.post(1, 2)
    assert written.wire.got == written.told == [1, 2]


async def test_the_task_sends_what_has_no_room(schedule, autojump_clock):
    """In order, and what came meanwhile after it; then the writer writes at once again."""
    written = Written(NarrowWire(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(written.writer.write)
        written.post(1, 2, 3)
        await wait_all_tasks_blocked()
        assert written.wire.got == [1]
        assert written.told == [1, 2]  # 2 is taken and cannot be taken back; 3 can
        written.wire.widen(9)
        await wait_all_tasks_blocked()
        assert written.wire.got == written.told == [1, 2, 3]
        written.post(4)
        assert written.wire.got == [1, 2, 3, 4]
        written.writer.outbox.close()


async def test_a_message_that_is_not_taken_is_a_stalled_device(schedule, autojump_clock):
    """Counted from each message, not from the first."""
    written = Written(NarrowWire(0))
    began = trio.current_time()

    async def widen() -> None:
        await trio.sleep(4)
        written.wire.widen(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(widen)
        written.post(1, 2)
        with pytest.raises(DeviceStalled, match="5 s"):
            await written.writer.write()
    assert trio.current_time() == began + 4 + STALL_SECONDS
    assert written.wire.got == [1]


async def test_what_is_told_may_post(schedule, autojump_clock):
    """What it posts comes next, after the whole of what it was told."""
    written = Written(NarrowWire(9))
    told = written._tell

    def answer(notice: Notice) -> None:
        told(notice)
        if len(written.told) == 1:
            written.post(2, 3)

    written.writer = Writer(written.wire, EventDialect(), NOBODY, STALL_SECONDS, answer)  # type: ignore[arg-type]
    written.post(1)
    assert written.wire.got == written.told == [1, 2, 3]


@pytest.mark.parametrize("room", [0, 1, 9])
async def test_the_task_ends_with_the_last_message(schedule, autojump_clock, room: int):
    """Not before, and not never."""
    written = Written(NarrowWire(room))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(written.writer.write)
        written.post(1, 2)
        written.writer.outbox.close()
        await trio.sleep(1)
        assert len(nursery.child_tasks) == (room < 2)
        written.wire.widen(2)
    assert written.wire.got == [1, 2]


@pytest.mark.parametrize("room", [0, 1])
async def test_a_listener_that_fails_does_not_stop_the_writer(schedule, autojump_clock, room: int):
    """It is a bug; what it was told of is sent, and the writer's work has an end."""
    written = Written(NarrowWire(room))

    def fail(notice: Notice) -> None:
        raise ValueError("a bug")

    written.writer = Writer(written.wire, EventDialect(), NOBODY, STALL_SECONDS, fail)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(written.writer.write)
        with pytest.raises(ValueError, match="a bug"):
            written.post(1)
        written.writer.outbox.close()
        await trio.sleep(1)
        written.wire.widen(1)
    assert written.wire.got == [1]


async def test_a_dialect_that_fails_does_so_in_the_face_of_who_posts(schedule, autojump_clock):
    """It is a bug; the writer is not stuck with it."""

    class Broken(EventDialect):
        def send(self, event: Notice, now: float) -> list[Envelope]:  # type: ignore[override]
            if event == PongSent(1):
                raise ValueError("a bug")
            return super().send(event, now)  # type: ignore[return-value]

    written = Written(NarrowWire(9))
    written.writer = Writer(written.wire, Broken(), NOBODY, STALL_SECONDS, written._tell)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a bug"):
        written.post(1)
    written.post(2)
    assert written.wire.got == [2]
