"""Spans of connections, turns and their parts, at the times of the facts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import trio
from fakes import Talking
from observed import CONTENT, watch_talk
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    use_span,
)

from listenai.conversation.actions import BeginTurn, UserTyped
from listenai.events import ErrorReported
from listenai.observer import TurnLeft, TurnOutcome
from listenai.telemetry import tracing
from listenai.telemetry.tracing import TracingObserver, otlp_exporter

EPOCH = 1_767_225_600.0  # the wall clock's time when Trio's is zero

# name -> (parent, begins, ends, [(event, at)]); seconds
TURN_1 = {
    "asr": ("turn", 1.0, 1.15, [("end_of_speech", 1.1)]),
    "llm": ("turn", 1.2, 1.8, [("first_token", 1.3)]),
    "tts": ("turn", 1.65, 3.6, [("first_audio", 1.7)]),  # cut short: as long as its turn
}
MARKS_OF_TURN_1 = [
    *[("started", 1.2), ("held", 2.0), ("pause_sent", 2.004), ("released", 2.2)],
    *[("held", 3.0), ("pause_sent", 3.04), ("interrupted", 3.5), ("flush_sent", 3.52)],
    ("left", 3.6),
]


async def spans_of_talk() -> Sequence[ReadableSpan]:
    exporter = InMemorySpanExporter()
    observer = TracingObserver(exporter, wall_clock=lambda: EPOCH + trio.current_time())
    await watch_talk(observer)
    observer.close()
    return exporter.get_finished_spans()


def seconds(nanoseconds: int | None) -> float:
    assert nanoseconds is not None
    return round(nanoseconds / 1e9 - EPOCH, 4)


def events(span: ReadableSpan) -> list[tuple[str, float]]:
    return [(event.name, seconds(event.timestamp)) for event in span.events]


def turn(spans: Sequence[ReadableSpan], turn_id: int) -> ReadableSpan:
    [found] = [
        span
        for span in spans
        if span.attributes and span.attributes.get("listenai.turn.id") == turn_id
    ]
    return found


def children(spans: Sequence[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    assert parent.context
    return [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]


async def test_a_conversation_is_traced_to_its_end(autojump_clock):
    """A real one, whose facts come in the order in which they do."""
    exporter = InMemorySpanExporter()
    observer = TracingObserver(exporter, wall_clock=lambda: EPOCH + trio.current_time())
    talk = Talking(observer=observer.open_connection("k-1", "ListenAI", "192.0.2.7"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        talk.ask()
        await trio.sleep(5)
        assert not talk.device.events(ErrorReported)
        talk.device.leave()
    observer.close()
    spans = exporter.get_finished_spans()
    assert "left" in [name for name, _ in events(turn(spans, 1))]
    assert {span.name for span in children(spans, turn(spans, 1))} >= {"llm", "tts"}


async def test_a_connection_is_one_trace(autojump_clock):
    """From its beginning to its end, its turns within it."""
    spans = await spans_of_talk()
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    [connection] = [span for span in spans if span.parent is None]
    assert (connection.name, seconds(connection.start_time), seconds(connection.end_time)) == (
        *("connection", 0.0, 7.0),
    )
    assert connection.attributes == {
        "listenai.connection.id": "k-1",
        "listenai.dialect": "ListenAI",
        "client.address": "192.0.2.7",
        "session.id": "s-1",
        "listenai.session.restored": False,
        "listenai.close.code": 1006,
    }
    assert events(connection) == [("error", 5.3), ("error", 5.4)]
    within = children(spans, connection)
    assert [(span.name, span.attributes["listenai.turn.id"]) for span in within] == [
        *(("turn", 1), ("turn", 2), ("turn", 3)),
    ]
    assert connection.resource.attributes["service.name"] == "listenai"


async def test_a_turn_has_its_parts_where_they_happened(autojump_clock):
    """From the last speech sample on; what was cut short ends with the turn."""
    spans = await spans_of_talk()
    first = turn(spans, 1)
    assert (seconds(first.start_time), seconds(first.end_time)) == (1.0, 3.6)
    assert events(first) == MARKS_OF_TURN_1
    assert first.attributes == {
        "listenai.turn.id": 1,
        "listenai.turn.cause": "user_said",
        "listenai.turn.characters": len(CONTENT),
        "listenai.turn.outcome": "interrupted",
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 8,
    }
    found = {
        span.name: ("turn", seconds(span.start_time), seconds(span.end_time), events(span))
        for span in children(spans, first)
        if span.name != "tool"
    }
    assert found == TURN_1


async def test_tools_are_spans_of_their_turn(autojump_clock, caplog):
    """Each with its outcome; what was never called is none, nor is what returns once more."""
    spans = await spans_of_talk()
    assert caplog.messages == []  # the library tells of spans that are touched after their end
    tools = [
        (
            span.attributes["gen_ai.tool.name"],
            span.attributes["listenai.tool.target"],
            span.attributes["listenai.tool.outcome"],
            span.status.status_code,
            seconds(span.start_time),
            seconds(span.end_time),
        )
        for turn_id in (1, 2, 3)
        for span in children(spans, turn(spans, turn_id))
        if span.name == "tool"
    ]
    assert tools == [
        ("lamp", "device", "error", StatusCode.ERROR, 1.4, 1.5),
        ("weather", "server", "ok", StatusCode.UNSET, 1.4, 1.6),
        ("weather", "server", "left", StatusCode.UNSET, 6.1, 6.6),
    ]


async def test_a_turn_that_fails_is_an_error(autojump_clock):
    """With the code of what went wrong; typed, it has no recognition."""
    spans = await spans_of_talk()
    second = turn(spans, 2)
    assert second.status.status_code is StatusCode.ERROR
    assert turn(spans, 1).status.status_code is StatusCode.UNSET
    [error] = [event for event in second.events if event.name == "error"]
    assert error.attributes == {"code": "LLM_ERROR"}
    assert [span.name for span in children(spans, second)] == ["llm"]


async def test_a_turn_whose_metrics_never_went_out_ends_with_its_connection(autojump_clock):
    """The device left: it was told of nothing more."""
    third = turn(await spans_of_talk(), 3)
    assert seconds(third.end_time) == 7.0
    assert third.attributes["listenai.turn.outcome"] == "cut_off"
    assert events(third)[-1] == ("left", 6.6)


async def test_what_was_said_is_in_no_span(autojump_clock):
    """Nor in its events."""
    spans = await spans_of_talk()
    assert len(spans) == 11
    assert CONTENT not in "".join(span.to_json() for span in spans)


async def test_connections_are_traces_of_their_own(autojump_clock):
    """Whatever task they are told in."""
    exporter = InMemorySpanExporter()
    observer = TracingObserver(exporter)
    other = NonRecordingSpan(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1)))
    with use_span(other):
        first = observer.open_connection("k-1", "ListenAI", "")
        second = observer.open_connection("k-2", "ListenAI", "")
    for connection in (first, second):
        connection.observe(BeginTurn(1, UserTyped(CONTENT, 0.0)), 0.0)
        connection.observe(TurnLeft(1, TurnOutcome.PLAYED), 1.0)
        connection.closed(1000, "")
    observer.close()
    spans = exporter.get_finished_spans()
    assert len(spans) == 4
    assert len({span.context.trace_id for span in spans if span.context} - {1}) == 2


# --- the exporter --------------------------------------------------------------------------


class Collector(BaseHTTPRequestHandler):
    """Takes what is posted; before it answers it waits until it may."""

    posted: list[tuple[str, bytes]]
    may_answer: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.path, body))
        self.may_answer.wait()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""


@contextmanager
def collecting(*, answers: bool = True) -> Iterator[tuple[str, type[Collector]]]:
    """A collector on loopback: its URL, and what it took."""
    taken = type("Taken", (Collector,), {"posted": [], "may_answer": threading.Event()})
    if answers:
        taken.may_answer.set()
    with HTTPServer(("127.0.0.1", 0), taken) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", taken
        finally:
            taken.may_answer.set()
            server.shutdown()
            thread.join()


async def test_spans_reach_a_collector(autojump_clock):
    """As OTLP over HTTP, all of them when it is closed."""
    with collecting() as (url, taken):
        observer = TracingObserver(otlp_exporter(url))
        await watch_talk(observer)
        observer.close()
    assert {path for path, _ in taken.posted} == {"/v1/traces"}
    body = b"".join(body for _, body in taken.posted)
    for expected in (b"listenai", b"connection", b"turn", b"weather", b"user_said", b"interrupted"):
        assert expected in body
    assert CONTENT.encode() not in body


async def test_a_collector_that_does_not_answer_holds_up_nobody(monkeypatch, autojump_clock):
    """Closing waits for a bounded time."""
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.05)
    with collecting(answers=False) as (url, taken):
        observer = TracingObserver(otlp_exporter(url))
        await watch_talk(observer)
        observer.close()
        closing = [thread for thread in threading.enumerate() if thread.name == "traces"]
        assert len(closing) == 1  # still at it, where nobody waits for it
        taken.may_answer.set()
        closing[0].join()
    assert taken.posted
