"""Several observers as one."""

from __future__ import annotations

from observed import CONTENT, TALK, watch_talk

from listenai.events import PingReceived
from listenai.observer import NOBODY, Fact, Observers


class Recorder:
    """Writes down what it is told, with its own name."""

    def __init__(self, name: str, told: list[tuple[object, ...]]) -> None:
        self.name, self.told = name, told

    def open_connection(self, connection_id: str, dialect: str, peer: str) -> Recorder:
        self.told.append((self.name, "open", connection_id, dialect, peer))
        return self

    def observe(self, fact: Fact, now: float) -> None:
        self.told.append((self.name, fact, now))

    def received(self, size: int) -> None:
        self.told.append((self.name, "received", size))

    def sent(self, size: int) -> None:
        self.told.append((self.name, "sent", size))

    def closed(self, code: int, reason: str) -> None:
        self.told.append((self.name, "closed", code, reason))


async def test_each_is_told_everything_in_order(autojump_clock):
    """One after the other, as they were given."""
    told: list[tuple[object, ...]] = []
    await watch_talk(Observers([Recorder("a", told), Recorder("b", told)]))
    assert [entry[0] for entry in told] == ["a", "b"] * (len(told) // 2)
    assert [entry[1:] for entry in told[::2]] == [entry[1:] for entry in told[1::2]]
    facts = [entry[1] for entry in told[::2] if len(entry) == 3 and isinstance(entry[2], float)]
    assert [type(fact) for fact in facts] == [type(fact) for _, fact in TALK]
    assert told[0] == ("a", "open", "k-1", "ListenAI", "192.0.2.7")
    assert told[-1] == ("b", "closed", 1006, CONTENT)
    assert ("b", "received", 30) in told
    assert ("b", "sent", 8) in told


async def test_nobody_need_look(autojump_clock):
    """A connection without observers is told to nobody."""
    await watch_talk(Observers())
    NOBODY.observe(PingReceived(), 0.0)
