"""Which of several servers is asked, and when again."""

from __future__ import annotations

import pytest

from listenai.services.pool import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    Upstream,
    awake,
    next_awake_at,
    problems_of,
)


def three() -> list[Upstream]:
    return [Upstream(f"ws://host{number}:9200") for number in range(3)]


def test_the_least_loaded_comes_first():
    """Those that are equal in the order given."""
    one, two, other = upstreams = three()
    one.load, two.load = 2, 1
    assert awake(upstreams, 0.0) == [other, two, one]
    one.load = two.load = 0
    assert awake(upstreams, 0.0) == upstreams


def test_a_failing_one_rests_ever_longer_but_not_too_long():
    """Twice as long each time, until it answers."""
    upstream, now, rests = Upstream("ws://host"), 100.0, []
    for _ in range(8):
        upstream.failed(now, "gone", chance=1.0)
        assert awake([upstream], now) == []
        rests.append(next_awake_at([upstream]) - now)
        now = upstream.rests_until
        assert awake([upstream], now) == [upstream]
    assert rests[:3] == pytest.approx([FIRST_REST_SECONDS * 2**n for n in range(3)])
    assert rests[-1] == pytest.approx(LONGEST_REST_SECONDS)
    upstream.answered()
    upstream.failed(now, "gone", chance=0.0)
    assert upstream.rests_until - now == pytest.approx(FIRST_REST_SECONDS / 2)


def test_connections_that_are_lost_together_are_one_failure():
    """What breaks while it rests says nothing new."""
    upstream = Upstream("ws://host")
    for _ in range(10):
        upstream.failed(0.0, "gone", chance=1.0)
    assert (upstream.failures, upstream.rests_until) == (1, FIRST_REST_SECONDS)


def test_problems_name_servers_but_no_secrets():
    """What is known of each."""
    upstream = Upstream("wss://user:secret@host/asr?key=secret")
    assert upstream.name == "wss://host/asr"
    assert problems_of([upstream]) == "no connection yet"
    upstream.failed(0.0, f"{upstream.name}: gone", chance=0.5)
    assert problems_of([upstream, Upstream("ws://other")]) == "wss://host/asr: gone"
