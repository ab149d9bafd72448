"""Traces: a span for each connection, its turns, and their parts, with OpenTelemetry.

Spans begin and end at the times of the facts, which may be told later: those of a turn's parts
come with its TurnMetrics.  They hold ids, durations, counts and codes, never contents.  One
background thread exports; nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Thread
from types import MappingProxyType
from typing import Any

import attrs
import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import Attributes

from listenai import __version__
from listenai.conversation.actions import (
    BeginTurn,
    HoldTurn,
    InterruptTurn,
    ReleaseTurn,
    UserSaid,
)
from listenai.events import (
    ErrorReported,
    StreamFlushed,
    StreamPaused,
    ToolCalled,
    ToolReturned,
    TurnMetrics,
)
from listenai.observer import (
    ConnectionObserver,
    Fact,
    SessionOpened,
    TurnLeft,
    TurnOutcome,
    TurnWaited,
)
from listenai.telemetry.base import cause_characters, cause_name

EXPORT_SECONDS = 5.0  # a collector that takes longer has lost the batch
CLOSE_SECONDS = 5.0  # one that takes longer at the end has lost the rest


@attrs.frozen
class _Part:
    """A part of a turn and a moment in it, by the fields of TurnMetrics that time them."""

    name: str
    begins: str
    ends: str
    event: str


_PARTS = (
    _Part("asr", "", "transcript_ms", "end_of_speech_ms"),  # "": the last speech sample
    _Part("llm", "turn_started_ms", "text_done_ms", "first_token_ms"),
    _Part("tts", "first_sentence_ms", "audio_done_ms", "first_audio_ms"),
)


def otlp_exporter(url: str) -> SpanExporter:
    """Sends spans to an OpenTelemetry collector: "http://collector:4318/v1/traces"."""
    return OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)


class TracingObserver:
    """Makes spans of what every connection does."""

    def __init__(self, exporter: SpanExporter, wall_clock: Callable[[], float] = time.time) -> None:
        """wall_clock: seconds since the epoch."""
        resource = Resource.create({"service.name": "listenai", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("listenai", __version__)
        self._wall_clock = wall_clock

    def open_connection(self, connection_id: str, dialect: str, peer: str) -> ConnectionObserver:
        """Begins the connection's span."""
        clock = _Clock(self._wall_clock() - trio.current_time())
        attributes = {
            "listenai.connection.id": connection_id,
            "listenai.dialect": dialect,
            "client.address": peer,
        }
        return _TracedConnection(self._tracer, clock, attributes)

    def close(self) -> None:
        """Exports what is left; blocks for CLOSE_SECONDS at most: call it in a thread."""
        # The library would wait half a minute for a collector that does not answer.
        closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


@attrs.frozen
class _Clock:
    """Trio's time as OpenTelemetry wants it."""

    epoch: float  # the wall clock's time at Trio's zero, seconds

    def at(self, now: float) -> int:
        """Nanoseconds since the epoch."""
        return int((self.epoch + now) * 1e9)


@attrs.frozen
class _TracedTurn:
    """A turn whose span is open: until it was left, and its metrics were told after that."""

    span: Span
    zero: float  # its metrics count from here, Trio's time
    tools: dict[str, Span] = attrs.field(factory=dict)  # those that run, by call


class _TracedConnection:
    """Makes spans of what one connection does."""

    def __init__(self, tracer: Tracer, clock: _Clock, attributes: Attributes) -> None:
        self._tracer, self._clock = tracer, clock
        self._span = tracer.start_span(
            "connection",
            Context(),  # nobody's child, whatever task this is
            SpanKind.SERVER,
            attributes,
            start_time=clock.at(trio.current_time()),
        )
        self._turns: dict[int, _TracedTurn] = {}
        self._latest = 0  # whom the floor's decisions mean

    def observe(self, fact: Fact, now: float) -> None:
        """Begins, ends or marks a span."""
        trace = _TRACE.get(type(fact))
        if trace:
            trace(self, fact, now)

    def received(self, size: int) -> None:
        """Not traced."""

    def sent(self, size: int) -> None:
        """Not traced."""

    def closed(self, code: int, reason: str) -> None:  # noqa: ARG002 - a device's may say anything
        """Ends the connection's span, and those of turns whose metrics never went out."""
        now = trio.current_time()
        for turn in self._turns.values():
            turn.span.end(self._clock.at(now))
        self._turns.clear()
        self._span.set_attribute("listenai.close.code", code)
        self._span.end(self._clock.at(now))

    # --- one method a fact -----------------------------------------------------------------

    def session_opened(self, fact: SessionOpened, _now: float) -> None:
        self._span.set_attribute("session.id", fact.session_id)
        self._span.set_attribute("listenai.session.restored", fact.restored)

    def marked(self, _fact: Fact, now: float, *, event: str) -> None:
        """The latest turn is marked with it."""
        self._mark(self._latest, event, now)

    def error_reported(self, fact: ErrorReported, now: float) -> None:
        self._mark(fact.turn_id, "error", now, {"code": fact.code})

    # Turns

    def turn_begun(self, fact: BeginTurn, _now: float) -> None:
        cause = fact.cause
        zero = cause.last_speech_at if isinstance(cause, UserSaid) else cause.at
        attributes: Attributes = {
            "listenai.turn.id": fact.turn_id,
            "listenai.turn.cause": cause_name(cause),
            "listenai.turn.characters": cause_characters(cause),
        }
        span = self._child(self._span, "turn", zero, attributes)
        self._turns[fact.turn_id] = _TracedTurn(span, zero)
        self._latest = fact.turn_id

    def turn_waited(self, fact: TurnWaited, now: float) -> None:
        self._mark(fact.turn_id, "started", now, {"waited_seconds": fact.waited_seconds})

    def turn_left(self, fact: TurnLeft, now: float) -> None:
        turn = self._turns[fact.turn_id]
        turn.span.set_attribute("listenai.turn.outcome", fact.outcome)
        turn.span.add_event("left", timestamp=self._clock.at(now))
        if fact.outcome is TurnOutcome.FAILED:
            turn.span.set_status(Status(StatusCode.ERROR))
        for kind, tokens in (("input", fact.prompt_tokens), ("output", fact.completion_tokens)):
            if tokens is not None:
                turn.span.set_attribute(f"gen_ai.usage.{kind}_tokens", tokens)
        for span in turn.tools.values():
            span.set_attribute("listenai.tool.outcome", "left")
            span.end(self._clock.at(now))
        turn.tools.clear()

    def turn_measured(self, fact: TurnMetrics, now: float) -> None:
        """Its parts, and its end: the metrics are the last that is told of a turn."""
        turn = self._turns.pop(fact.turn_id)
        ended = _after(turn.zero, fact.ended_ms)
        end = now if ended is None else ended
        for part in _PARTS:
            self._add_part(turn, part, fact, end)
        turn.span.end(self._clock.at(end))

    def _add_part(self, turn: _TracedTurn, part: _Part, metrics: TurnMetrics, end: float) -> None:
        """The part as far as it came; what was cut short ended with the turn."""
        if metrics.transcript_ms is None and part.name == "asr":
            return  # nobody spoke
        begun = _after(turn.zero, getattr(metrics, part.begins) if part.begins else 0.0)
        if begun is None:
            return
        span = self._child(turn.span, part.name, begun)
        happened = _after(turn.zero, getattr(metrics, part.event))
        if happened is not None:
            span.add_event(part.event.removesuffix("_ms"), timestamp=self._clock.at(happened))
        ended = _after(turn.zero, getattr(metrics, part.ends))
        span.end(self._clock.at(end if ended is None else ended))

    # Tools

    def tool_called(self, fact: ToolCalled, now: float) -> None:
        attributes: Attributes = {
            "gen_ai.tool.name": fact.name,
            "listenai.tool.target": fact.target,
        }
        turn = self._turns[fact.turn_id]
        turn.tools[fact.call_id] = self._child(turn.span, "tool", now, attributes)

    def tool_returned(self, fact: ToolReturned, now: float) -> None:
        """A tool in the background returns once more, when it is done: then it has no span."""
        turn = self._turns.get(fact.turn_id)
        span = turn.tools.pop(fact.call_id, None) if turn else None
        if span:
            span.set_attribute("listenai.tool.outcome", "ok" if fact.ok else "error")
            if not fact.ok:
                span.set_status(Status(StatusCode.ERROR))
            span.end(self._clock.at(now))

    # --- small parts -----------------------------------------------------------------------

    def _mark(
        self, turn_id: int | None, event: str, now: float, attributes: Attributes = None
    ) -> None:
        """An event of the turn's span; of the connection's where there is none."""
        turn = None if turn_id is None else self._turns.get(turn_id)
        span = turn.span if turn else self._span
        span.add_event(event, attributes, self._clock.at(now))

    def _child(self, parent: Span, name: str, at: float, attributes: Attributes = None) -> Span:
        return self._tracer.start_span(
            name,
            set_span_in_context(parent, Context()),
            attributes=attributes,
            start_time=self._clock.at(at),
        )


def _after(zero: float, milliseconds: float | None) -> float | None:
    """Trio's time of a mark; None: it was never reached."""
    return None if milliseconds is None else zero + milliseconds / 1000


_TRACE: Mapping[type, Callable[[Any, Any, float], None]] = MappingProxyType(
    {
        SessionOpened: _TracedConnection.session_opened,
        BeginTurn: _TracedConnection.turn_begun,
        TurnWaited: _TracedConnection.turn_waited,
        HoldTurn: partial(_TracedConnection.marked, event="held"),
        ReleaseTurn: partial(_TracedConnection.marked, event="released"),
        InterruptTurn: partial(_TracedConnection.marked, event="interrupted"),
        StreamPaused: partial(_TracedConnection.marked, event="pause_sent"),
        StreamFlushed: partial(_TracedConnection.marked, event="flush_sent"),
        ErrorReported: _TracedConnection.error_reported,
        ToolCalled: _TracedConnection.tool_called,
        ToolReturned: _TracedConnection.tool_returned,
        TurnLeft: _TracedConnection.turn_left,
        TurnMetrics: _TracedConnection.turn_measured,
    }
)
