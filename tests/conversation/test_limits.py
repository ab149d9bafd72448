"""How much may be asked for: exact to the request, and never forgotten by coming back."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.conversation.limits import (
    CEILINGS,
    MAX_OWNERS,
    Kind,
    RateLimits,
    RequestWindow,
    TokenBucket,
    kind_of,
)
from listenai.errors import ErrorCode
from listenai.events import (
    Answer,
    Command,
    DeviceToolReturned,
    HangUp,
    HistoryForgotten,
    InterruptPressed,
    PingReceived,
    PlaybackReported,
    SessionEnd,
    SessionStart,
    SpeechDiscarded,
    SpeechFinished,
    StatisticsAsked,
    TextTyped,
)
from listenai.server.frames import MAX_MESSAGE_BYTES
from listenai.settings import Configuration

REAL_TIME = 32_000  # bytes a second


def take_all(limit: RequestWindow, now: float) -> int:
    """How many requests are allowed at once."""
    taken = 0
    while limit.take(now) is None:
        taken += 1
    return taken


# --- requests in a minute ----------------------------------------------------------------


def test_a_minute_s_requests_may_come_at_once_and_no_more() -> None:
    """Sixty of sixty-one; the last is told how long to wait, and that is true."""
    window = RequestWindow(60)
    assert take_all(window, 5.0) == 60
    assert window.take(5.0) == 60.0
    assert window.take(64.0) == 1.0
    assert window.take(65.0) is None


def test_who_spreads_requests_evenly_is_never_refused() -> None:
    """One a second, for an hour."""
    window = RequestWindow(60)
    assert all(window.take(float(second)) is None for second in range(3600))


def test_a_refused_request_is_not_counted() -> None:
    """Trying again and again does not make the wait longer."""
    window = RequestWindow(1)
    assert window.take(0.0) is None
    assert [window.take(second) for second in (1.0, 30.0, 59.5)] == [59.0, 30.0, 0.5]
    assert window.take(60.0) is None


@given(
    st.integers(1, 8),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_no_minute_ever_holds_more(per_minute: int, gaps: list[float]) -> None:
    """Whatever comes when; and whoever waits as long as told is let in."""
    window, now, allowed = RequestWindow(per_minute), 0.0, list[float]()
    for gap in gaps:
        now += gap
        wait = window.take(now)
        if wait is not None:
            assert 0 < wait <= 60
            now += wait + 1e-6  # adding floats may fall short of the moment
            assert window.take(now) is None
        allowed.append(now)
        assert sum(at + 60 > now for at in allowed) <= per_minute


def test_a_window_keeps_little_however_many_are_allowed() -> None:
    """A million requests a minute are about sixty entries."""
    window = RequestWindow(10**6)
    for hundredth in range(12_000):
        assert window.take(hundredth / 100) is None
    assert len(window._slots) <= 61


# --- what is sent while talking -------------------------------------------------------------


def test_a_bucket_gives_its_capacity_at_once_and_then_its_rate() -> None:
    """The time told is the time after which it is there."""
    bucket = TokenBucket(100, per_second=10)
    assert bucket.take(100, 0.0) is None
    assert bucket.take(5, 0.0) == 0.5
    assert bucket.take(5, 0.5) is None
    assert bucket.take(101, 0.5) == 10.0  # more than there can be counts as all
    assert bucket.take(101, 10.5) is None
    assert bucket.take(100, 1000.0) is None  # and no more than all is saved up
    assert bucket.take(1, 1000.0) == 0.1


def test_audio_may_come_in_small_messages_and_ten_times_as_fast() -> None:
    """62 messages of 512 bytes a second, ten microphones of them, for ten minutes."""
    limit = RateLimits(60).open("")
    for message in range(10 * 60 * 62 * 10):
        assert limit.take(Kind.AUDIO, message / 620, 512) is None


def test_audio_much_faster_than_that_is_slowed_down() -> None:
    """After a burst of the largest message, ten times real time remains."""
    limit = RateLimits(60).open("")
    assert limit.take(Kind.AUDIO, 0.0, MAX_MESSAGE_BYTES) is None
    wait = limit.take(Kind.AUDIO, 0.0, 10 * REAL_TIME)
    assert wait == pytest.approx(1.0)
    assert limit.take(Kind.AUDIO, wait, 10 * REAL_TIME) is None


@pytest.mark.parametrize("kind", CEILINGS)
def test_every_ceiling_is_there_and_apart_from_the_others(kind: Kind) -> None:
    """Each is reached at last, and leaves all others and requests alone."""
    limits = RateLimits(1)
    limit = limits.open("")
    burst, per_second = CEILINGS[kind]
    assert limit.take(kind, 0.0, int(burst)) is None
    wait = limit.take(kind, 0.0, 1)
    assert wait == pytest.approx(1 / per_second)
    assert limits.refused == {kind: 1}
    for other in Kind:
        assert other is kind or limit.take(other, 0.0) is None


def test_honest_devices_stay_below_every_ceiling() -> None:
    """A report for each frame of 60 ms, a ping a second, four tools a second, for a minute."""
    limit = RateLimits(60).open("")
    for kind, per_second in (
        (Kind.PLAYBACK, 17),
        (Kind.PING, 1),
        (Kind.TOOL_RESULT, 4),
        (Kind.SIGNAL, 2),
    ):
        for number in range(60 * per_second):
            assert limit.take(kind, number / per_second) is None


# --- owners ----------------------------------------------------------------------------------


def test_connections_of_one_owner_share_the_minute() -> None:
    """Neither a second one nor a new one begins afresh; another owner does."""
    limits = RateLimits(3)
    first, second = limits.open("ann"), limits.open("ann")
    assert [limit.take(Kind.REQUEST, 0.0) for limit in (first, second, first)] == [None] * 3
    assert limits.open("ann").take(Kind.REQUEST, 1.0) == 59.0
    assert limits.open("ben").take(Kind.REQUEST, 1.0) is None


def test_connections_of_one_owner_have_a_microphone_each() -> None:
    """A fleet behind one key is not measured by one device's audio."""
    limits = RateLimits(3)
    burst = int(CEILINGS[Kind.AUDIO][0])
    for _ in range(100):
        assert limits.open("fleet").take(Kind.AUDIO, 0.0, burst) is None


def test_nobody_in_particular_is_another_one_each_time() -> None:
    """Without keys each connection has its own minute, and none is remembered."""
    limits = RateLimits(1)
    assert limits.open("").take(Kind.REQUEST, 0.0) is None
    assert limits.open("").take(Kind.REQUEST, 0.0) is None
    assert limits.owners == 0


def test_owners_are_bounded_and_the_quietest_is_forgotten() -> None:
    """However many there are; who has just asked stays known."""
    limits = RateLimits(1)
    busy = limits.open("busy")
    for number in range(2 * MAX_OWNERS):
        busy.take(Kind.REQUEST, 60.0 * number)
        limits.open(f"owner {number}").take(Kind.REQUEST, 60.0 * number - 1)
        assert limits.owners <= MAX_OWNERS
    assert limits.open("busy").take(Kind.REQUEST, 60.0 * number) is not None


def test_without_limits_nothing_is_limited() -> None:
    """CLOUD_RATE_LIMIT_ENABLED=false, of every kind."""
    limits = RateLimits(None)
    limit = limits.open("ann")
    for kind in Kind:
        assert all(limit.take(kind, 0.0, 1 << 30) is None for _ in range(1000))
    assert not limits.refused


# --- what is told and counted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Kind.REQUEST, "60 requests a minute (CLOUD_RATE_LIMIT_PER_MINUTE) are allowed"),
        (Kind.PING, "5 a second of ping are allowed"),
    ],
)
def test_who_is_refused_is_told_what_is_allowed_and_when(kind: Kind, says: str) -> None:
    """In words and in milliseconds, rounded so that waiting for them is enough."""
    error = RateLimits(60).open("").error(kind, 1.2345)
    assert error.code is ErrorCode.RATE_LIMITED
    assert says in error.message
    assert error.message.endswith("try again in 1.2 s")
    assert error.retry_after_ms == 1235


def test_every_command_of_a_device_counts_as_something() -> None:
    """Turns and settings as requests; what ends something is heard also in a used-up minute."""
    examples = {
        SessionStart(): Kind.REQUEST,
        Configuration(): Kind.REQUEST,
        TextTyped("hello"): Kind.REQUEST,
        StatisticsAsked(): Kind.REQUEST,
        SpeechFinished(): Kind.SIGNAL,
        InterruptPressed(): Kind.SIGNAL,
        SessionEnd(): Kind.SIGNAL,
        PlaybackReported(1, 2): Kind.PLAYBACK,
        DeviceToolReturned("a", True, 1): Kind.TOOL_RESULT,
        PingReceived(): Kind.PING,
        SpeechDiscarded(): Kind.SIGNAL,
        HistoryForgotten(): Kind.SIGNAL,
    }
    of_the_dialect = {Answer, HangUp}  # not what a device asks for
    assert {type(command) for command in examples} | of_the_dialect == set(get_args(Command))
    assert {command: kind_of(command) for command in examples} == examples
