"""What a device meets that asks for too much, or when everybody asks at once."""

from __future__ import annotations

import pytest
import trio
from fakes import ANSWER, FakeDevice, talking

from listenai.conversation.limits import CEILINGS, Kind
from listenai.conversation.turn_places import MAX_WAIT_SECONDS, RETRY_AFTER_SECONDS, TurnPlaces
from listenai.errors import ErrorCode
from listenai.events import (
    AudioReceived,
    ErrorReported,
    InterruptPressed,
    PingReceived,
    PongSent,
    State,
    StatusChanged,
    StreamFlushed,
    TextDone,
    TextTyped,
    TurnInterrupted,
)

pytestmark = pytest.mark.usefixtures("schedule", "nothing_left")

REPLY_SECONDS = 2.5  # two sentences of a second, and what is around them


def states(device: FakeDevice) -> list[State]:
    return [event.state for event in device.events(StatusChanged)]


# --- replies at a time (CLOUD_MAX_CONCURRENT) ------------------------------------------------


async def test_a_turn_waits_for_its_place_and_is_told(autojump_clock):
    """`queued` at once; its reply begins when the other's is over, and is whole."""
    places = TurnPlaces(1)
    async with talking(places=places) as first, talking(places=places) as second:
        first.ask()
        await trio.sleep(0.5)
        second.ask()
        await trio.sleep(0.5)
        assert states(second.device)[-1] is State.QUEUED
        assert not second.device.events(TextDone)
        assert (places.in_use, places.waiting) == (1, 1)
        await trio.sleep(2 * REPLY_SECONDS)
        assert second.history == first.history == [("user", "hello"), ("assistant", ANSWER)]
        assert second.chat.asked[0][0] >= first.device.times(TextDone)[0]
    told = states(second.device)
    assert told[-5:] == [
        *(State.THINKING, State.QUEUED, State.THINKING, State.SPEAKING, State.LISTENING)
    ]
    assert State.QUEUED not in states(first.device)
    assert (places.in_use, places.waiting, places.most_in_use) == (0, 0, 1)


async def test_replies_come_in_the_order_in_which_they_were_asked_for(autojump_clock):
    """Of three that wait behind one, by whoever came first."""
    places = TurnPlaces(1)
    async with (
        talking(places=places) as one,
        talking(places=places) as two,
        talking(places=places) as three,
    ):
        for talk in (one, three, two):
            talk.ask()
            await trio.sleep(0.1)
        await trio.sleep(4 * REPLY_SECONDS)
        [begun] = zip(*(talk.device.times(TextDone) for talk in (one, three, two)), strict=True)
        assert list(begun) == sorted(begun)


async def test_who_has_waited_for_half_a_minute_is_told_to_come_again(autojump_clock):
    """RATE_LIMITED with the time; what was said stays said, and later there is an answer."""
    places = TurnPlaces(1)
    async with talking(places=places) as talk:
        async with places.turn("somebody else", lambda: None):
            talk.ask()
            await trio.sleep(MAX_WAIT_SECONDS + 1)
            [error] = talk.device.events(ErrorReported)
            assert (error.code, error.turn_id) == (ErrorCode.RATE_LIMITED, 1)
            assert error.retry_after_ms == RETRY_AFTER_SECONDS * 1000
            assert states(talk.device)[-1] is State.LISTENING
        await trio.sleep(RETRY_AFTER_SECONDS)
        talk.ask("again", 2)
        await trio.sleep(REPLY_SECONDS)
        assert talk.history[-1] == ("assistant", ANSWER)
        assert talk.history[0] == ("user", "hello")


@pytest.mark.parametrize("stop", ["button", "speech"])
async def test_who_waits_may_stop_it(autojump_clock, stop: str):
    """The queue is left at once; the chat model is not asked."""
    places = TurnPlaces(1)
    async with talking(places=places) as talk, places.turn("somebody else", lambda: None):
        talk.ask()
        await trio.sleep(1)
        assert places.waiting == 1
        if stop == "button":
            talk.device.say(InterruptPressed())
            await trio.sleep(1)
            assert places.waiting == 0
        else:
            talk.ask("something else", 2)
            await trio.sleep(1)
            assert places.waiting == 1  # for the new one
        assert [e.turn_id for e in talk.device.events(TurnInterrupted)] == [1]
        assert not talk.chat.asked


# --- requests of a minute (CLOUD_RATE_LIMIT_PER_MINUTE) --------------------------------------


async def test_a_typed_turn_too_many_is_refused_until_the_minute_is_over(autojump_clock):
    """RATE_LIMITED with the time that is needed, and no turn; after that time there is one."""
    async with talking(per_minute=2) as talk:  # of which `start_session` is one
        talk.device.say(TextTyped("one"), TextTyped("two"))
        await trio.sleep(REPLY_SECONDS)
        [error] = talk.device.events(ErrorReported)
        assert (error.code, error.turn_id) == (ErrorCode.RATE_LIMITED, None)
        assert error.retry_after_ms == pytest.approx(60_000, abs=100)
        assert "2 requests a minute" in error.message
        assert talk.chat.questions == ["one"]
        await trio.sleep(error.retry_after_ms / 1000 - REPLY_SECONDS)
        talk.device.say(TextTyped("three"))
        await trio.sleep(REPLY_SECONDS)
        assert talk.chat.questions == ["one", "three"]
        assert len(talk.device.events(ErrorReported)) == 1


async def test_a_spoken_turn_too_many_is_refused_until_the_minute_is_over(autojump_clock):
    """RATE_LIMITED with its turn and the time; the words stay, and count in the next request."""
    async with talking(per_minute=2) as talk:
        talk.ask("one")
        await trio.sleep(REPLY_SECONDS)
        talk.ask("two", 2)
        await trio.sleep(1)
        [error] = talk.device.events(ErrorReported)
        assert (error.code, error.turn_id) == (ErrorCode.RATE_LIMITED, 2)
        assert 0 < error.retry_after_ms <= 60_000
        assert states(talk.device)[-1] is State.LISTENING
        assert talk.chat.questions == ["one"]
        await trio.sleep(error.retry_after_ms / 1000)
        talk.ask("three", 3)
        await trio.sleep(REPLY_SECONDS)
        _, messages = talk.chat.asked[-1]
        said = [message.content for message in messages if message.role == "user"]
        assert said == ["one", "two", "three"]


@pytest.mark.parametrize("stop", ["button", "speech"])
async def test_stop_is_heard_when_the_minute_is_used_up(autojump_clock, stop: str):
    """The reply stops, though the next is refused."""
    async with talking(per_minute=2) as talk:
        talk.ask()
        await trio.sleep(0.5)
        if stop == "button":
            talk.device.say(InterruptPressed())
        else:
            talk.ask("stop", 2)
        await trio.sleep(1)
        assert len(talk.device.events(StreamFlushed)) == 1
        assert [e.turn_id for e in talk.device.events(TurnInterrupted)] == [1]
        refused = [e.turn_id for e in talk.device.events(ErrorReported)]
        assert refused == ([] if stop == "button" else [2])


# --- what a device sends ---------------------------------------------------------------------


async def test_audio_that_comes_too_fast_is_slowed_down_and_never_lost(autojump_clock):
    """After the burst at ten times its pace; every byte is heard in order, no error is told."""
    at_once, per_second = CEILINGS[Kind.AUDIO]
    too_much = 5.0  # seconds' worth
    message = 100_000
    count = round((at_once + too_much * per_second) / message)
    async with talking() as unlimited, talking(per_minute=60) as talk:
        for each in (unlimited, talk):
            for number in range(count):
                each.device.say(AudioReceived(number.to_bytes(4, "little") * (message // 4)))
            each.device.say(PingReceived("behind it"))
        began = trio.current_time()
        await trio.sleep(too_much + 1)
        [answered], [at_once_answered] = (each.device.times(PongSent) for each in (talk, unlimited))
        assert answered - began == pytest.approx(too_much, abs=0.5)
        assert at_once_answered - began < 0.1
        heard = b"".join(talk.recognizer.accepted)
        assert heard == b"".join(unlimited.recognizer.accepted)
        assert len(heard) == count * message
        assert not talk.device.events(ErrorReported)


async def test_pings_too_many_are_refused_and_the_rest_goes_on(autojump_clock):
    """RATE_LIMITED for each beyond the ceiling; a turn is another thing."""
    at_once, _ = CEILINGS[Kind.PING]
    async with talking(per_minute=60) as talk:
        for number in range(int(at_once) + 3):
            talk.device.say(PingReceived(str(number)))
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.01)
        assert len(talk.device.events(PongSent)) == at_once
        errors = talk.device.events(ErrorReported)
        assert [error.code for error in errors] == [ErrorCode.RATE_LIMITED] * 3
        assert all(error.retry_after_ms <= 1000 for error in errors)
        talk.ask()
        await trio.sleep(REPLY_SECONDS)
        assert talk.history[-1] == ("assistant", ANSWER)
