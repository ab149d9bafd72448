"""Counts are exact, labels are bounded, and all of it is text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from observed import CONTENT, watch_talk
from prometheus_client.parser import text_string_to_metric_families

from listenai.conversation.actions import (
    BeginTurn,
    HoldTurn,
    InterruptTurn,
    ReleaseTurn,
    UserTyped,
)
from listenai.events import (
    InterruptPressed,
    StreamFlushed,
    StreamPaused,
    Target,
    TextTyped,
    ToolCalled,
    ToolReturned,
)
from listenai.observer import TurnLeft, TurnOutcome
from listenai.speech import SpeechSuspected
from listenai.telemetry.counting import MAX_TOOL_NAMES
from listenai.telemetry.metrics import Metrics

Samples = Mapping[str, float]


def samples(metrics: Metrics) -> Samples:
    """What is shown and not zero, by name{label="value",…}; without the process and buckets."""
    return {
        sample.name.removeprefix("listenai_") + _shown(sample.labels): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.value and not sample.name.startswith("listenai_process_")
        if not sample.name.endswith("_bucket")
    }


def _shown(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{shown}}}" if shown else ""


def of(metrics: Metrics, name: str) -> Samples:
    """Those of one metric, by their labels."""
    return {
        shown.removeprefix(name): value
        for shown, value in samples(metrics).items()
        if shown.split("{")[0] == name
    }


TALK = {
    'connections_opened_total{dialect="ListenAI"}': 1,
    'connections_closed_total{code="1006"}': 1,
    'sessions_opened_total{kind="new"}': 1,
    'messages_total{direction="in"}': 1,
    'messages_total{direction="out"}': 2,
    'message_bytes_total{direction="in"}': 30,
    'message_bytes_total{direction="out"}': 16,
    'errors_total{code="ASR_ERROR"}': 1,
    'errors_total{code="INVALID_MESSAGE"}': 1,
    'errors_total{code="LLM_ERROR"}': 1,
    'turns_left_total{cause="user_said",outcome="interrupted"}': 1,
    'turns_left_total{cause="user_typed",outcome="failed"}': 1,
    'turns_left_total{cause="tool_finished",outcome="cut_off"}': 1,
    "turn_wait_seconds_count": 3,
    "turn_wait_seconds_sum": 0.05,
    'turn_stage_seconds_count{stage="end_of_speech"}': 1,
    'turn_stage_seconds_sum{stage="end_of_speech"}': 0.1,
    'turn_stage_seconds_count{stage="transcript"}': 1,
    'turn_stage_seconds_sum{stage="transcript"}': 0.15,
    'turn_stage_seconds_count{stage="turn_started"}': 2,
    'turn_stage_seconds_sum{stage="turn_started"}': 0.2,
    'turn_stage_seconds_count{stage="first_token"}': 1,
    'turn_stage_seconds_sum{stage="first_token"}': 0.3,
    'turn_stage_seconds_count{stage="first_sentence"}': 1,
    'turn_stage_seconds_sum{stage="first_sentence"}': 0.65,
    'turn_stage_seconds_count{stage="first_audio"}': 1,
    'turn_stage_seconds_sum{stage="first_audio"}': 0.7,
    'turn_stage_seconds_count{stage="text_done"}': 1,
    'turn_stage_seconds_sum{stage="text_done"}': 0.8,
    'turn_stage_seconds_count{stage="ended"}': 2,
    'turn_stage_seconds_sum{stage="ended"}': 2.9,
    'llm_tokens_total{kind="prompt"}': 70,
    'llm_tokens_total{kind="completion"}': 8,
    'interruptions_total{by="speech"}': 1,
    'interruptions_total{by="button"}': 1,
    "false_alarms_total": 1,
    'interruption_latency_seconds_count{signal="pause"}': 2,
    'interruption_latency_seconds_sum{signal="pause"}': 0.044,
    'interruption_latency_seconds_count{signal="flush"}': 2,
    'interruption_latency_seconds_sum{signal="flush"}': 0.57,
    'speech_segments_total{result="words"}': 2,
    'speech_segments_total{result="empty"}': 1,
    'speech_segments_total{result="too_short"}': 1,
    'speech_segments_total{result="failed"}': 1,
    'tool_calls_total{outcome="ok",tool="weather"}': 1,
    'tool_calls_total{outcome="left",tool="weather"}': 1,
    'tool_calls_total{outcome="error",tool="device"}': 1,
    'tool_calls_total{outcome="error",tool="unknown"}': 1,
    'tool_duration_seconds_count{tool="weather"}': 1,
    'tool_duration_seconds_sum{tool="weather"}': 0.2,
    'tool_duration_seconds_count{tool="device"}': 1,
    'tool_duration_seconds_sum{tool="device"}': 0.1,
}


async def test_a_talk_is_counted_exactly(autojump_clock):
    """Every counter, gauge and sum, and none beside them; twice the same adds up."""
    metrics = Metrics()
    await watch_talk(metrics.observer)
    assert samples(metrics) == pytest.approx(TALK)
    await watch_talk(metrics.observer)
    assert samples(metrics) == pytest.approx({name: 2 * value for name, value in TALK.items()})


async def test_what_goes_on_is_shown(autojump_clock):
    """Connections that are open and turns that are not left."""
    metrics = Metrics()
    first = metrics.observer.open_connection("k-1", "ListenAI", "192.0.2.7")
    second = metrics.observer.open_connection("k-2", "ListenAI", "192.0.2.7")
    first.observe(BeginTurn(1, UserTyped(CONTENT, 0.0)), 0.0)
    second.observe(BeginTurn(1, UserTyped(CONTENT, 0.0)), 0.0)
    assert of(metrics, "connections") == {'{dialect="ListenAI"}': 2}
    assert of(metrics, "turns") == {"": 2}
    first.observe(TurnLeft(1, TurnOutcome.PLAYED), 1.0)
    first.closed(1000, "")
    assert of(metrics, "connections") == {'{dialect="ListenAI"}': 1}
    assert of(metrics, "turns") == {"": 1}


def test_buckets_tell_a_prompt_answer_from_a_slow_one():
    """10 ms to 10 s; an observation is in every bucket from its own on."""
    metrics = Metrics()
    for seconds in (0.0004, 0.004, 2.0):
        metrics.loop_lag(seconds)
    shown = metrics.render().decode()
    assert 'listenai_loop_lag_seconds_bucket{le="0.001"} 1.0' in shown
    assert 'listenai_loop_lag_seconds_bucket{le="0.005"} 2.0' in shown
    assert 'listenai_loop_lag_seconds_bucket{le="+Inf"} 3.0' in shown
    bounds = [
        sample.labels["le"]
        for family in text_string_to_metric_families(shown)
        if family.name == "listenai_turn_wait_seconds"
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]
    assert (bounds[0], bounds[-2:]) == ("0.01", ["10.0", "+Inf"])


def test_a_text_that_takes_the_floor_is_told_from_speech():
    """The one that came last before the decision; a turn that begins ends its claim."""
    metrics = Metrics()
    connection = metrics.observer.open_connection("k-1", "ListenAI", "")
    text, begin = TextTyped(CONTENT), BeginTurn(1, UserTyped(CONTENT, 0.0))
    for fact in (SpeechSuspected(1), text, InterruptTurn(), begin, InterruptTurn()):
        connection.observe(fact, 0.0)
    assert of(metrics, "interruptions_total") == {'{by="text"}': 1, '{by="speech"}': 1}


def test_a_flush_is_reckoned_from_the_decision_where_nothing_was_held():
    """And once: what has no suspicion before it, of music say, is no latency."""
    metrics = Metrics()
    connection = metrics.observer.open_connection("k-1", "ListenAI", "")
    connection.observe(InterruptTurn(), 5.0)
    connection.observe(StreamFlushed(1), 5.25)
    for fact in (StreamFlushed(2), StreamPaused(2)):
        connection.observe(fact, 9.0)
    assert of(metrics, "interruption_latency_seconds_sum") == {'{signal="flush"}': 0.25}


def test_a_hold_that_is_over_says_nothing_of_what_comes_after_it():
    """Neither a release nor a pause leaves its time behind."""
    metrics = Metrics()
    connection = metrics.observer.open_connection("k-1", "ListenAI", "")
    for fact, now in (
        *((HoldTurn(), 1.0), (StreamPaused(1), 1.125), (ReleaseTurn(), 2.0)),
        *((StreamPaused(2), 5.0), (InterruptTurn(), 7.0), (StreamFlushed(1), 7.25)),
    ):
        connection.observe(fact, now)
    assert of(metrics, "interruption_latency_seconds_sum") == {
        '{signal="pause"}': 0.125,
        '{signal="flush"}': 0.25,
    }


def test_the_button_is_reckoned_from_its_press():
    """Not from the noise that had the reply held before."""
    metrics = Metrics()
    connection = metrics.observer.open_connection("k-1", "ListenAI", "")
    for fact, now in (
        *((SpeechSuspected(1), 1.0), (HoldTurn(), 1.0)),
        *((InterruptPressed(), 2.0), (InterruptTurn(), 2.0), (StreamFlushed(1), 2.125)),
    ):
        connection.observe(fact, now)
    assert of(metrics, "interruption_latency_seconds_sum") == {'{signal="flush"}': 0.125}


def test_strangers_cannot_make_time_series():
    """Devices' tools are one, others' are a hundred and one, close codes are those we know."""
    metrics = Metrics()
    connection = metrics.observer.open_connection("k-1", "ListenAI", "")
    names = [f"tool{number}" for number in range(MAX_TOOL_NAMES + 20)]
    connection.observe(BeginTurn(1, UserTyped(CONTENT, 0.0)), 0.0)
    for target, name in [*((Target.SERVER, n) for n in names), *((Target.DEVICE, n) for n in "ab")]:
        connection.observe(ToolCalled(1, name, name, {}, target), 0.0)
        connection.observe(ToolReturned(1, name, name, True, None, 1.0), 0.0)
    connection.closed(4242, CONTENT)
    calls = of(metrics, "tool_calls_total")
    assert len(calls) == MAX_TOOL_NAMES + 2
    assert calls['{outcome="ok",tool="other"}'] == 20
    assert calls['{outcome="ok",tool="device"}'] == 2
    assert of(metrics, "connections_closed_total") == {'{code="other"}': 1}


async def test_what_was_said_is_in_no_metric(autojump_clock):
    """Not even as a label."""
    metrics = Metrics()
    await watch_talk(metrics.observer)
    assert CONTENT.encode() not in metrics.render()


def test_rates_have_their_zero():
    """What is known beforehand is shown before it happens for the first time."""
    shown = Metrics().render().decode()
    assert 'listenai_errors_total{code="TTS_ERROR"} 0.0' in shown
    assert 'listenai_interruptions_total{by="speech"} 0.0' in shown
    assert "_created" not in shown


# --- what others keep ----------------------------------------------------------------------


def test_what_others_keep_is_read_when_somebody_looks():
    """Gauges and counters, with and without labels."""
    metrics = Metrics()
    waiting = {"turns": 0, "logs": 0}
    for queue in waiting:
        metrics.gauge("queue_depth", "What waits.", lambda q=queue: waiting[q], queue=queue)
    metrics.counter("sessions_expired", "Sessions nobody came back to.", lambda: waiting["logs"])
    waiting |= {"turns": 3, "logs": 7}
    assert of(metrics, "queue_depth") == {'{queue="turns"}': 3, '{queue="logs"}': 7}
    assert of(metrics, "sessions_expired_total") == {"": 7}
    assert "# TYPE listenai_sessions_expired_total counter" in metrics.render().decode()


def test_a_name_is_shown_once():
    """Another kind, other labels, the same labels again, or a name of our own: a mistake."""
    metrics = Metrics()
    metrics.gauge("queue_depth", "What waits.", lambda: 0, queue="turns")
    for mistake in (
        lambda: metrics.gauge("queue_depth", "What waits.", lambda: 0, queue="turns"),
        lambda: metrics.gauge("queue_depth", "What waits.", lambda: 0, line="logs"),
        lambda: metrics.counter("queue_depth", "What waits.", lambda: 0, queue="logs"),
    ):
        with pytest.raises(ValueError, match="listenai_queue_depth is shown already, with queue"):
            mistake()
    with pytest.raises(ValueError, match="listenai_turns"):
        metrics.gauge("turns", "Ours.", lambda: 0)


def test_the_process_is_shown():
    """Its CPU, memory and files, under our prefix."""
    shown = Metrics().render().decode()
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds"):
        [line] = [
            line for line in shown.splitlines() if line.startswith(f"listenai_process_{name}")
        ]
        assert float(line.split()[1]) > 0
    assert Metrics.content_type.startswith("text/plain; version=0.0.4")
