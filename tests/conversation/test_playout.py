"""The audio clock: what may be sent, what must have been heard."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.playout import Playout

RATE = 16_000
LEAD = 0.5


def sent(samples: int, at: float = 10.0) -> Playout:
    playout = Playout(RATE, LEAD)
    playout.send(at, samples)
    return playout


def test_nothing_sent_is_nothing_played():
    """And the first sample may go at once."""
    playout = Playout(RATE, LEAD)
    assert not playout.started
    assert playout.played(1e6) == 0
    assert playout.due() == playout.ends_at() == float("-inf")


def test_the_first_sample_starts_the_clock():
    """One second of audio plays for one second."""
    playout = sent(RATE)
    assert playout.started
    assert playout.ends_at() == 11.0
    assert [playout.played(at) for at in (10.0, 10.25, 11.0, 99.0)] == [0, 4000, RATE, RATE]


def test_more_may_be_sent_when_the_lead_is_not_exceeded():
    """Audio beyond the lead waits for the clock."""
    playout = sent(RATE)
    assert playout.due() == 10.5
    assert playout.due() == playout.ends_at() - LEAD


def test_a_device_that_ran_dry_begins_again():
    """The silence between is not counted as audio."""
    playout = sent(RATE)
    playout.send(15.0, RATE)
    assert [playout.played(at) for at in (15.0, 15.5, 16.0)] == [RATE, 24_000, 2 * RATE]
    assert playout.ends_at() == 16.0


def test_a_pause_stops_the_clock_and_moves_the_end():
    """Nothing is lost and nothing is played twice."""
    playout = sent(RATE)
    playout.pause(10.25)
    assert playout.paused
    assert playout.played(12.0) == 4000
    playout.resume(12.25)
    assert not playout.paused
    assert playout.played(12.5) == 8000
    assert playout.ends_at() == 13.0


def test_pausing_twice_is_pausing_once():
    """The first moment counts; so does the first resume."""
    playout = sent(RATE)
    playout.pause(10.25)
    playout.pause(10.5)
    playout.resume(11.0)
    playout.resume(11.5)
    assert playout.played(11.25) == 8000


def test_a_pause_after_the_end_moves_nothing():
    """The device had run dry: what comes later begins when it comes."""
    playout = sent(RATE)
    playout.pause(12.0)
    playout.resume(20.0)
    assert playout.played(20.0) == RATE
    playout.send(20.0, RATE)
    assert playout.played(20.5) == 24_000


def test_a_pause_before_the_first_sample():
    """The stream was announced, then held: the clock begins with the audio."""
    playout = Playout(RATE, LEAD)
    playout.pause(10.0)
    playout.resume(11.0)
    assert not playout.started
    playout.send(12.0, RATE)
    assert playout.played(12.5) == 8000


@given(
    at=st.floats(0, 1e6),
    chunks=st.lists(st.integers(1, 5000), min_size=1, max_size=20),
    rate=st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000]),
)
@settings(max_examples=100, deadline=None)
def test_at_its_end_all_was_played(at: float, chunks: list[int], rate: int):
    """Rounding must not make the last sample, and with it the last word, unheard."""
    playout = Playout(rate, LEAD)
    for chunk in chunks:
        playout.send(at, chunk)
    assert playout.played(playout.ends_at()) == playout.sent == sum(chunks)


@attrs.frozen
class Step:
    """Time goes by, then this happens."""

    seconds: float
    happens: str
    samples: int


STEPS = st.lists(
    st.builds(
        Step,
        st.floats(0, 0.4),
        st.sampled_from(["send", "send", "pause", "resume", "nothing"]),
        st.integers(1, 3000),
    ),
    max_size=40,
)


@given(start=st.floats(0, 1e5), steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_any_history_of_a_stream(start: float, steps: list[Step]):
    """Played grows with time, never beyond what was sent; the lead bounds what is ahead."""
    now, paused_seconds, dry_seconds, longest = start, 0.0, 0.0, 0
    playout = Playout(RATE, LEAD)
    played = 0
    first: float | None = None
    for step in steps:
        was_paused, ends_at = playout.paused, playout.ends_at()
        now += step.seconds
        if first is not None:
            if was_paused:
                paused_seconds += step.seconds
            else:
                dry_seconds += min(step.seconds, max(0.0, now - ends_at))
        before, played = played, playout.played(now)
        assert before <= played <= playout.sent

        if step.happens == "send" and not playout.paused and playout.due() <= now:
            first = now if first is None else first
            playout.send(now, step.samples)
            longest = max(longest, step.samples)
        elif step.happens == "pause":
            playout.pause(now)
        elif step.happens == "resume":
            playout.resume(now)
        assert playout.played(now) == played, "sending, pausing, resuming play nothing"
        assert playout.sent - played <= LEAD * RATE + longest + 1

    if first is not None:  # what was not a pause and not a gap was played
        expected = (now - first - paused_seconds - dry_seconds) * RATE
        assert playout.played(now) == pytest.approx(expected, abs=1)
