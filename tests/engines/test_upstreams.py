"""Circuit breakers, and the way of a reply through several servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.engines.upstreams import (
    FAILURES_TO_OPEN,
    LONGEST_PAUSE_SECONDS,
    LONGEST_REST_SECONDS,
    MAX_LIMITED_SECONDS,
    MAX_WAIT_SECONDS,
    REST_SECONDS,
    Attempt,
    BreakerState,
    Outcome,
    Pause,
    Route,
    Upstream,
    backoff_seconds,
    read_retry_after,
)
from listenai.errors import ConfigurationError

CLOSED, OPEN, HALF_OPEN = BreakerState
FAILURES = [Outcome.BROKEN, Outcome.SILENT]
SIGNS_OF_LIFE = [Outcome.BEGUN, Outcome.ANSWERED, Outcome.REFUSED, Outcome.LIMITED]


def upstream(name: str = "a") -> Upstream:
    return Upstream(f"http://{name}")


def attempt(asked: Upstream, now: float) -> Attempt:
    begun = asked.begin(now)
    assert begun
    return begun


def opened(at: float = 0.0) -> Upstream:
    """A server that has just failed too often."""
    broken = upstream()
    for _ in range(FAILURES_TO_OPEN):
        attempt(broken, at).report(Outcome.BROKEN, at, problem="a is broken")
    return broken


# --- the breaker -------------------------------------------------------------------------


@pytest.mark.parametrize("failure", FAILURES)
def test_a_server_rests_after_failures_in_a_row(failure: Outcome) -> None:
    """And not before."""
    broken = upstream()
    for _ in range(FAILURES_TO_OPEN - 1):
        attempt(broken, 0).report(failure, 0)
    assert broken.state is CLOSED
    attempt(broken, 5).report(failure, 5)
    assert broken.state is OPEN
    assert broken.begin(5 + REST_SECONDS - 0.1) is None


@pytest.mark.parametrize("sign", [Outcome.ANSWERED, Outcome.REFUSED])
def test_a_sign_of_life_ends_the_row(sign: Outcome) -> None:
    """Failures count only in a row; a refusal is an answer, too."""
    shaky = upstream()
    for _ in range(FAILURES_TO_OPEN - 1):
        attempt(shaky, 0).report(Outcome.BROKEN, 0)
    attempt(shaky, 0).report(sign, 0)
    attempt(shaky, 0).report(Outcome.BROKEN, 0)
    assert shaky.state is CLOSED


def test_one_probe_after_the_rest() -> None:
    """Everybody else still goes elsewhere."""
    resting = opened()
    probe = attempt(resting, REST_SECONDS)
    assert probe.probes
    assert resting.state is HALF_OPEN
    assert resting.begin(REST_SECONDS + 99) is None


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
def test_a_probe_that_succeeds_closes_the_breaker(sign: Outcome) -> None:
    """The server is asked as before."""
    resting = opened()
    attempt(resting, REST_SECONDS).report(sign, REST_SECONDS)
    assert resting.state is CLOSED
    assert resting.begin(REST_SECONDS)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_probe_that_fails_is_another_rest(failure: Outcome) -> None:
    """One failure is enough then; the rest is twice as long, up to a bound."""
    resting, now = opened(), 100.0
    for rest in (2 * REST_SECONDS, 4 * REST_SECONDS, 8 * REST_SECONDS, LONGEST_REST_SECONDS):
        attempt(resting, now).report(failure, now)
        assert resting.state is OPEN
        assert resting.begin(now + rest - 0.1) is None
        now += rest
    attempt(resting, now).report(Outcome.ANSWERED, now)
    for _ in range(FAILURES_TO_OPEN):
        attempt(resting, now).report(failure, now)
    assert attempt(resting, now + REST_SECONDS).probes


def test_an_abandoned_probe_leaves_the_probing_to_the_next() -> None:
    """A user who interrupts must not keep the server out for ever."""
    resting = opened()
    attempt(resting, REST_SECONDS).report(Outcome.ABANDONED, REST_SECONDS)
    assert resting.state is OPEN
    assert attempt(resting, REST_SECONDS).probes


def test_an_attempt_abandoned_after_its_answer_changes_nothing() -> None:
    """It was answered; what the user wants then says nothing of the server."""
    resting = opened()
    probe = attempt(resting, REST_SECONDS)
    probe.report(Outcome.ANSWERED, REST_SECONDS)
    probe.report(Outcome.ABANDONED, REST_SECONDS)
    assert resting.state is CLOSED
    assert probe.outcome is Outcome.ANSWERED


def test_a_late_failure_does_not_lengthen_the_rest() -> None:
    """Requests that were under way when the breaker opened fail later."""
    broken = upstream()
    late = attempt(broken, 0)
    for _ in range(FAILURES_TO_OPEN):
        attempt(broken, 0).report(Outcome.BROKEN, 0)
    late.report(Outcome.SILENT, REST_SECONDS - 1)
    assert attempt(broken, REST_SECONDS).probes
    late.report(Outcome.BROKEN, REST_SECONDS)
    assert broken.state is HALF_OPEN


def test_an_answer_that_breaks_off_counts() -> None:
    """A server that begins well every time and never ends well rests, too."""
    broken = upstream()
    for _ in range(FAILURES_TO_OPEN):
        begun = attempt(broken, 0)
        begun.report(Outcome.BEGUN, 0)
        begun.report(Outcome.BROKEN, 0)
    assert broken.state is OPEN


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "report"]),
            st.sampled_from(Outcome),
            st.floats(0, 40),
            st.integers(0, 5),
        ),
        max_size=60,
    )
)
def test_no_server_is_lost(steps: list[tuple[str, Outcome, float, int]]) -> None:
    """Whatever happened: once all attempts were reported, there is a time to ask again."""
    tried, now, living = upstream(), 0.0, []
    for do, outcome, seconds, which in steps:
        now += seconds
        if do == "begin" and (begun := tried.begin(now)):
            living.append(begun)
        elif do == "report" and living:
            living.pop(which % len(living)).report(outcome, now, retry_after=20)
        assert sum(each.probes for each in living) <= 1
    for each in living:
        each.report(Outcome.ABANDONED, now)
    assert tried.begin(now + REST_SECONDS + 20)


# --- limits ------------------------------------------------------------------------------


def test_a_server_that_limits_us_is_left_alone_as_long_as_it_says() -> None:
    """It is well: its breaker stays closed."""
    limited = upstream()
    attempt(limited, 0).report(Outcome.LIMITED, 0, problem="a is full", retry_after=8)
    assert limited.begin(7.9) is None
    assert limited.problem(1) == "a is full; it is asked again in 7 s"
    assert limited.begin(8)


def test_nobody_stays_away_for_a_day() -> None:
    """A Retry-After of hours is tried again sooner."""
    limited = upstream()
    attempt(limited, 0).report(Outcome.LIMITED, 0, retry_after=86400)
    assert limited.begin(MAX_LIMITED_SECONDS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2026 07:28:09 GMT", 9.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds, or a date by the server's own clock."""
    assert read_retry_after(value, "Wed, 21 Oct 2026 07:28:00 GMT") == seconds


def test_retry_after_a_date_without_a_clock() -> None:
    """Nothing is known then."""
    assert read_retry_after("Wed, 21 Oct 2026 07:28:09 GMT", None) is None


# --- the route ---------------------------------------------------------------------------


def walk(route: Route, outcome: Outcome, now: float = 0.0) -> list[str]:
    """The servers in the order in which they are asked, "pause" between rounds."""
    steps: list[str] = []
    while step := route.next(now):
        if isinstance(step, Pause):
            assert step.until > now
            steps.append("pause")
            now = step.until
        else:
            steps.append(step.upstream.name.removeprefix("http://"))
            step.report(outcome, now, problem=f"{steps[-1]} fails")
    return steps


def test_other_servers_first_then_again() -> None:
    """A round through all, a pause, and so on as often as retries say."""
    route = Route([upstream("a"), upstream("b")], 1, lambda: 0.5)
    assert walk(route, Outcome.BROKEN) == ["a", "b", "pause", "a", "b"]
    assert route.problem(0) == "a fails; b fails"


def test_retries_end_where_the_breaker_opens() -> None:
    """A server that rests is not waited for."""
    route = Route([upstream("a")], 99, lambda: 0.5)
    assert walk(route, Outcome.BROKEN) == ["a", "pause"] * (FAILURES_TO_OPEN - 1) + ["a"]


@pytest.mark.parametrize("outcome", [Outcome.SILENT, Outcome.REFUSED])
def test_what_will_not_change_is_not_tried_again(outcome: Outcome) -> None:
    """Neither a timeout's length again nor the same refusal; but the others are asked."""
    assert walk(Route([upstream("a"), upstream("b")], 5, lambda: 0.5), outcome) == ["a", "b"]


def test_a_server_that_rests_is_passed_over() -> None:
    """It costs the reply nothing."""
    assert walk(Route([opened(), upstream("b")], 0, lambda: 0.5), Outcome.REFUSED) == ["b"]


def test_when_all_rest_the_reply_fails_at_once() -> None:
    """And the user hears why, and when it may be better."""
    resting, now = opened(at=0), 0.0
    for rest in (1, 2, 4, 8):
        now += rest * REST_SECONDS
        attempt(resting, now).report(Outcome.BROKEN, now, problem="a is broken")
    route = Route([resting], 3, lambda: 0.5)
    assert route.next(now + 5) is None
    assert route.problem(now + 5) == "a is broken; it is asked again in 10 s"


def test_a_short_limit_is_waited_for_and_a_long_one_is_not() -> None:
    """Nobody listens to silence for a minute."""
    for seconds, waits in ((MAX_WAIT_SECONDS - 1, True), (MAX_WAIT_SECONDS + 1, False)):
        route = Route([upstream()], 1, lambda: 0.5)
        begun = route.next(0)
        assert isinstance(begun, Attempt)
        begun.report(Outcome.LIMITED, 0, retry_after=seconds)
        assert route.next(0) == (Pause(seconds) if waits else None)


def test_pauses_grow_and_jitter() -> None:
    """Each is between half and all of its length, which doubles up to a limit."""
    assert [backoff_seconds(n, 1.0) for n in range(6)] == [0.25, 0.5, 1, 2, 4, 4]
    assert backoff_seconds(0, 0.0) == 0.125
    assert backoff_seconds(2000, 1.0) == LONGEST_PAUSE_SECONDS


# --- addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "h:80", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://[h", "http://a b"],
)
def test_a_url_that_is_none(url: str) -> None:
    """Is refused with an example."""
    with pytest.raises(ConfigurationError, match="it must be like http"):
        Upstream(url)


def test_secrets_of_a_url_are_not_told() -> None:
    """A name shows neither user, password nor query."""
    assert Upstream("https://me:secret@h:8/v1?key=secret").name == "https://h:8/v1"
    with pytest.raises(ConfigurationError) as caught:
        Upstream("ftp://me:secret@h/v1")
    assert "secret" not in str(caught.value)
