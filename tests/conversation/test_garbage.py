"""A connection that has ended is freed at once, not when Python looks for cycles."""

import gc
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from fakes import Talking

from listenai.conversation.dialogue import Dialogue
from listenai.conversation.turn import Turn
from listenai.engines.timed import TimedChatModel, TimedSynthesizer

# What most of a connection's objects hang on.  (`Talking` itself is a cycle with its conversation.)
HEAVY = Dialogue | Turn | trio.Cancelled | BaseExceptionGroup


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What the cyclic collector finds, once it has run."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("seconds", [0.15, 0.5, 2.0, 9.0])
async def test_a_device_that_leaves_leaves_no_cycles(
    autojump_clock: trio.testing.MockClock, garbage: list[object], seconds: float
):
    """Whether it leaves while the model thinks, while speech is made or played, or after."""
    for _ in range(8):  # Trio wakes tasks in either order, by chance
        talk = Talking(chat=TimedChatModel(), voice=TimedSynthesizer(audio_ms=4000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.run)
            talk.ask()
            await trio.sleep(seconds)
            talk.device.leave()
        talk.recognizers.opened.clear()  # they would hold their dialogue
        del talk
    gc.collect()
    assert not [each for each in garbage if isinstance(each, HEAVY)]
