"""What is counted of connections: an observer that turns facts into Prometheus' instruments.

Messages are counted by plain additions, 62 a second and device, and read when somebody looks; all
else happens a few times a turn.  Labels come from small closed sets, or are bounded here: close
codes, and the names of tools, may be whatever a stranger likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from listenai.conversation.actions import BeginTurn, HoldTurn, InterruptTurn, ReleaseTurn
from listenai.errors import ErrorCode
from listenai.events import (
    ErrorReported,
    InterruptPressed,
    StreamFlushed,
    StreamPaused,
    Target,
    TextTyped,
    ToolCalled,
    ToolReturned,
    TurnMetrics,
)
from listenai.observer import ConnectionObserver, Fact, SessionOpened, TurnLeft, TurnWaited
from listenai.speech import FinalTranscript, SpeechEnded, SpeechSuspected, TranscriptionFailed
from listenai.telemetry.base import ToolRun, ToolRuns, cause_name

PREFIX = "listenai"
MAX_TOOL_NAMES = 100  # MCP servers choose theirs; more of them count as "other"
CLOSE_CODES = {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1013, 4001}

# Seconds.  In a talk 100 ms is at once, 300 ms prompt, 1 s a pause, 10 s broken.
LATENCY = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10)
TOOL_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# The fields of TurnMetrics, without "_ms".
STAGES = (
    *("end_of_speech", "transcript", "turn_started", "first_token", "first_sentence"),
    *("first_audio", "text_done", "audio_done", "ended"),
)


class CountingObserver:
    """Counts every connection of a server in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, namespace=PREFIX, registry=registry)
        gauge = partial(Gauge, namespace=PREFIX, registry=registry)
        histogram = partial(Histogram, namespace=PREFIX, registry=registry)
        # Read, not pushed: see the module's docstring.
        self.messages_in = self.bytes_in = self.messages_out = self.bytes_out = 0

        # Connections and sessions
        self.connections = gauge("connections", "Connections that are open.", ["dialect"])
        self.opened = counter("connections_opened", "Connections accepted.", ["dialect"])
        self.closed = counter("connections_closed", "Connections ended, by close code.", ["code"])
        self.sessions = counter("sessions_opened", "Sessions taken up, new or again.", ["kind"])
        self.errors = counter("errors", "Errors told to devices.", ["code"])

        # Turns
        self.turns_now = gauge("turns", "Turns begun and not yet left.")
        self.turns = counter("turns_left", "Turns, by what caused and what ended them.",
                             ["cause", "outcome"])  # fmt: skip
        self.waited = histogram("turn_wait_seconds", "What a turn waited for its place.",
                                buckets=LATENCY)  # fmt: skip
        self.stages = histogram("turn_stage_seconds", "From the last speech sample to each stage.",
                                ["stage"], buckets=LATENCY)  # fmt: skip
        self.tokens = counter("llm_tokens", "Tokens of chat models that tell.", ["kind"])

        # Barge-in and hearing
        self.interruptions = counter("interruptions", "Replies that lost the floor.", ["by"])
        self.interruption_latency = histogram(
            "interruption_latency_seconds",
            "From suspected speech (or the button) to pause and flush handed to the wire.",
            ["signal"],
            buckets=LATENCY,
        )
        self.false_alarms = counter("false_alarms", "Replies held for nothing, and released.")
        self.segments = counter("speech_segments", "Segments heard, by what they were.", ["result"])

        # Tools
        self.tool_calls = counter("tool_calls", "Tools called, by what came of it.",
                                  ["tool", "outcome"])  # fmt: skip
        self.tool_seconds = histogram("tool_duration_seconds", "From call to return.",
                                      ["tool"], buckets=TOOL_SECONDS)  # fmt: skip
        self._tool_names: set[str] = set()
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """What is known beforehand: a rate needs the zero that comes before the first one."""
        for code in ErrorCode:
            self.errors.labels(code)
        for by in ("speech", "button", "text"):
            self.interruptions.labels(by)
        for result in ("words", "empty", "too_short", "failed"):
            self.segments.labels(result)
        for kind in ("prompt", "completion"):
            self.tokens.labels(kind)

    def open_connection(self, connection_id: str, dialect: str, peer: str) -> ConnectionObserver:  # noqa: ARG002
        """Counts one connection."""
        self.opened.labels(dialect).inc()
        self.connections.labels(dialect).inc()
        return _CountedConnection(self, dialect)

    def tool_label(self, run: ToolRun) -> str:
        """Its name; devices' tools together, and so are others' beyond the first hundred."""
        if run.target is Target.DEVICE:
            return "device"
        if len(self._tool_names) < MAX_TOOL_NAMES:
            self._tool_names.add(run.name)
        return run.name if run.name in self._tool_names else "other"


class _CountedConnection:
    """Counts one connection."""

    def __init__(self, counts: CountingObserver, dialect: str) -> None:
        self._counts, self._dialect = counts, dialect
        self._causes: dict[int, str] = {}  # of the turns that were begun and not left
        self._tools = ToolRuns()
        self._taken_by = "speech"  # what would take the floor now
        self._held_at: float | None = None
        self._pause_since: float | None = None  # a hold whose pause was not yet handed over
        self._flush_since: float | None = None  # the same of an interruption

    def observe(self, fact: Fact, now: float) -> None:
        """Counts it."""
        count = _COUNT.get(type(fact))
        if count:
            count(self, fact, now)

    def received(self, size: int) -> None:
        """A message came in."""
        self._counts.messages_in += 1
        self._counts.bytes_in += size

    def sent(self, size: int) -> None:
        """A message went out."""
        self._counts.messages_out += 1
        self._counts.bytes_out += size

    def closed(self, code: int, reason: str) -> None:  # noqa: ARG002
        """The connection is over."""
        label = str(code) if code in CLOSE_CODES else "other"
        self._counts.closed.labels(label).inc()
        self._counts.connections.labels(self._dialect).dec()

    # --- one method a fact -----------------------------------------------------------------

    def session_opened(self, fact: SessionOpened, _now: float) -> None:
        self._counts.sessions.labels("restored" if fact.restored else "new").inc()

    def error_reported(self, fact: ErrorReported, _now: float) -> None:
        self._counts.errors.labels(fact.code).inc()

    # Turns

    def turn_begun(self, fact: BeginTurn, _now: float) -> None:
        self._causes[fact.turn_id] = cause_name(fact.cause)
        self._counts.turns_now.inc()
        self._taken_by = "speech"  # a text or a button that came before it has had its effect

    def turn_waited(self, fact: TurnWaited, _now: float) -> None:
        self._counts.waited.observe(fact.waited_seconds)

    def turn_left(self, fact: TurnLeft, _now: float) -> None:
        counts = self._counts
        counts.turns.labels(self._causes.pop(fact.turn_id), fact.outcome).inc()
        counts.turns_now.dec()
        counts.tokens.labels("prompt").inc(fact.prompt_tokens or 0)
        counts.tokens.labels("completion").inc(fact.completion_tokens or 0)
        for run in self._tools.leave(fact.turn_id):
            counts.tool_calls.labels(counts.tool_label(run), "left").inc()

    def turn_metrics(self, fact: TurnMetrics, _now: float) -> None:
        for stage in STAGES:
            milliseconds: float | None = getattr(fact, f"{stage}_ms")
            if milliseconds is not None:
                self._counts.stages.labels(stage).observe(milliseconds / 1000)

    # Barge-in

    def speech_suspected(self, _fact: SpeechSuspected, _now: float) -> None:
        self._taken_by = "speech"

    def interrupt_pressed(self, _fact: InterruptPressed, _now: float) -> None:
        self._taken_by = "button"

    def text_typed(self, _fact: TextTyped, _now: float) -> None:
        self._taken_by = "text"

    def turn_held(self, _fact: HoldTurn, now: float) -> None:
        self._held_at = self._pause_since = now

    def turn_released(self, _fact: ReleaseTurn, _now: float) -> None:
        self._held_at = None
        self._counts.false_alarms.inc()

    def turn_interrupted(self, _fact: InterruptTurn, now: float) -> None:
        by_speech = self._taken_by == "speech" and self._held_at is not None
        self._flush_since = self._held_at if by_speech else now
        self._held_at = None
        self._counts.interruptions.labels(self._taken_by).inc()

    def stream_paused(self, _fact: StreamPaused, now: float) -> None:
        if self._pause_since is not None:
            latency = now - self._pause_since
            self._counts.interruption_latency.labels("pause").observe(latency)
            self._pause_since = None

    def stream_flushed(self, _fact: StreamFlushed, now: float) -> None:
        if self._flush_since is not None:
            latency = now - self._flush_since
            self._counts.interruption_latency.labels("flush").observe(latency)
            self._flush_since = None

    # Hearing

    def speech_ended(self, fact: SpeechEnded, _now: float) -> None:
        if not fact.transcript_follows:
            self._counts.segments.labels("too_short").inc()

    def transcript(self, fact: FinalTranscript, _now: float) -> None:
        self._counts.segments.labels("words" if fact.text else "empty").inc()

    def transcription_failed(self, _fact: TranscriptionFailed, _now: float) -> None:
        self._counts.segments.labels("failed").inc()

    # Tools

    def tool_called(self, fact: ToolCalled, now: float) -> None:
        self._tools.begin(fact, now)

    def tool_returned(self, fact: ToolReturned, _now: float) -> None:
        counts, outcome = self._counts, "ok" if fact.ok else "error"
        never_ran = fact.turn_id in self._causes and not self._tools.was_called(fact)
        if run := self._tools.end(fact):
            label = counts.tool_label(run)
            counts.tool_calls.labels(label, outcome).inc()
            counts.tool_seconds.labels(label).observe(fact.duration_ms / 1000)
        elif never_ran:
            counts.tool_calls.labels("unknown", outcome).inc()


_COUNT: Mapping[type, Callable[[Any, Any, float], None]] = MappingProxyType(
    {
        SessionOpened: _CountedConnection.session_opened,
        ErrorReported: _CountedConnection.error_reported,
        BeginTurn: _CountedConnection.turn_begun,
        TurnWaited: _CountedConnection.turn_waited,
        TurnLeft: _CountedConnection.turn_left,
        TurnMetrics: _CountedConnection.turn_metrics,
        SpeechSuspected: _CountedConnection.speech_suspected,
        InterruptPressed: _CountedConnection.interrupt_pressed,
        TextTyped: _CountedConnection.text_typed,
        HoldTurn: _CountedConnection.turn_held,
        ReleaseTurn: _CountedConnection.turn_released,
        InterruptTurn: _CountedConnection.turn_interrupted,
        StreamPaused: _CountedConnection.stream_paused,
        StreamFlushed: _CountedConnection.stream_flushed,
        SpeechEnded: _CountedConnection.speech_ended,
        FinalTranscript: _CountedConnection.transcript,
        TranscriptionFailed: _CountedConnection.transcription_failed,
        ToolCalled: _CountedConnection.tool_called,
        ToolReturned: _CountedConnection.tool_returned,
    }
)
