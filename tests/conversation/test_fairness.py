"""A conversation whose engines give everything at once does not keep the loop from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence

import pytest
import trio
from fakes import (
    FULL,
    RATE,
    Envelope,
    EventDialect,
    FakeChatModel,
    FakeDevice,
    FakeSynthesizer,
    Talking,
)

from listenai.audio import SAMPLE_BYTES
from listenai.device import DeviceProfile
from listenai.engines.base import ReplyPart, SpeechChunk
from listenai.events import AudioChunk, TextDelta, TextTyped

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")

MOST_AT_ONCE = 6  # messages: an announcement, a state, some text, some audio


class HastyModel(FakeChatModel):
    """Has the whole reply already."""

    async def _stream(self, parts: Sequence[ReplyPart]) -> AsyncGenerator[ReplyPart]:
        for part in parts:
            yield part


class HastyVoice(FakeSynthesizer):
    """Gives a whole sentence in one piece."""

    async def _stream(self, text: str) -> AsyncGenerator[SpeechChunk]:
        yield SpeechChunk(bytes(int(self.seconds * RATE) * SAMPLE_BYTES))


async def test_others_run_between_the_messages_of_a_hasty_reply(autojump_clock):
    """Between its words as between its pieces of audio."""
    rounds = 0
    got: list[tuple[int, type]] = []

    class Watched(FakeDevice):
        def _deliver(self, message: Envelope) -> None:
            got.append((rounds, type(message.event)))
            super()._deliver(message)

    talk = Talking(
        chat=HastyModel(" ".join(["word"] * 200) + "."),
        voice=HastyVoice(20.0),
        dialect=EventDialect(DeviceProfile(paced=False)),
        device=Watched(FULL),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        talk.device.say(TextTyped("tell me a story"))
        kinds: Counter[type] = Counter()
        while kinds[TextDelta] < 200 or kinds[AudioChunk] < 300:
            rounds += 1
            await trio.lowlevel.checkpoint()
            kinds = Counter(kind for _, kind in got)
        nursery.cancel_scope.cancel()
    assert max(Counter(number for number, _ in got).values()) <= MOST_AT_ONCE
