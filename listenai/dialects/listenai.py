"""The ListenAI dialect (spec 000, "Protocol Layer"; served at `/docs/protocol`).

JSON text messages with a `type`, binary messages of audio, both ways.  What a
device may say stands in `messages`; here it is checked and turned into requests,
and notices are turned into messages by a table with one function per notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from listenai import events, settings
from listenai.device import DeviceProfile
from listenai.dialects.base import NEVER
from listenai.dialects.fields import MessageReader
from listenai.dialects.json_text import check_size, encode, parse_object
from listenai.dialects.messages import CLIENT_MESSAGES, PLAIN_RULES
from listenai.wire import Message

_READER = MessageReader(CLIENT_MESSAGES, plain=PLAIN_RULES)


@attrs.define
class ListenAIDialect:
    """One ListenAI device's translator; keeps nothing between messages, so `now` is not used."""

    profile: DeviceProfile = attrs.field(factory=DeviceProfile)

    def receive(self, message: Message, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """The request that one message is; raises ProtocolError saying what is allowed."""
        if isinstance(message, str):
            return (_READER.read(parse_object(message)).request(),)
        check_size(len(message))
        return (events.AudioReceived(message),)

    def send(self, event: events.Notice, now: float) -> Sequence[Message]:  # noqa: ARG002
        """The message that tells the device this, or none."""
        if type(event) is events.AudioChunk:
            return (event.pcm,)
        if type(event) in _UNTOLD:
            return ()
        return (encode(_FIELDS[type(event)](event)),)

    def next_deadline(self) -> float:
        """NEVER: this dialect has no heartbeat of its own."""
        return NEVER

    def expire(self, now: float) -> Sequence[events.Request]:  # noqa: ARG002
        """Nothing is ever due."""
        return ()

    def undelivered(self, messages: Sequence[Message], now: float) -> None:
        """Nothing is kept: what was missed is in the history."""


# --- to the device: notice -> JSON object ------------------------------------------------

Fields = dict[str, Any]


def _rounded(value: Any) -> Any:
    """Milliseconds to the microsecond, which is more than anybody can measure."""
    return round(value, 3) if isinstance(value, float) else value


def _as(kind: str, **more: Any) -> Callable[[Any], Fields]:
    """A row for a notice whose fields are those of the wire; None is left out."""

    def fields(event: Any) -> Fields:
        values = attrs.asdict(event, recurse=False)
        known = {name: _rounded(value) for name, value in values.items() if value is not None}
        return {"type": kind, **more, **known}

    return fields


def _status(event: events.StatusChanged) -> Fields:
    fields: Fields = {"type": "status", "state": event.state, "session_id": event.session_id}
    if event.restored is not None:
        fields["restored"] = event.restored
    if event.configuration is not None:
        fields["configuration"] = attrs.asdict(event.configuration)
    if event.offer is not None:
        fields["capabilities"] = attrs.asdict(event.offer)
    if event.duplex is not None:
        fields["duplex"] = event.duplex
    if event.statistics is not None:
        fields["statistics"] = _statistics(event.statistics)
    return fields


def _statistics(statistics: settings.SessionStatistics) -> Fields:
    return {
        "message_count": statistics.message_count,
        "interaction_count": statistics.interaction_count,
        "session_duration_seconds": statistics.duration_seconds,
        "average_interaction_seconds": statistics.average_interaction_seconds,
        "last_activity": statistics.last_activity,
    }


def _session_stats(event: events.StatisticsSent) -> Fields:
    head = {"type": "session_stats", "session_id": event.session_id}
    return head | _statistics(event.statistics)


def _delta(event: events.TextDelta) -> Fields:
    return {"type": "llm_response", "turn_id": event.turn_id, "delta": True, "text": event.text}


def _done(event: events.TextDone) -> Fields:
    head = {"type": "llm_response", "turn_id": event.turn_id, "done": True, "text": event.text}
    return head | ({"tool_calls": event.tool_calls} if event.tool_calls else {})


def _tool_result(event: events.ToolReturned) -> Fields:
    return {
        "type": "tool_result",
        "turn_id": event.turn_id,
        "call_id": event.call_id,
        "name": event.name,
        "ok": event.ok,
        "result" if event.ok else "error": event.result,
        "duration_ms": _rounded(event.duration_ms),
    }


def _turn_metrics(event: events.TurnMetrics) -> Fields:
    times = attrs.asdict(event, recurse=False)  # None too: "unknown is null"
    certainty = times.pop("certainty")
    rounded = {name: _rounded(value) for name, value in times.items()}
    return {"type": "turn_metrics", **rounded, "certainty": certainty}


def _error(event: events.ErrorReported) -> Fields:
    fields = _as("error")(event)
    del fields["timed_out"]  # its code says it
    return fields


# What this dialect's devices learn from other notices, or never ask for.
_UNTOLD = (events.NothingUnderstood, events.VoiceNoticed, events.Answer)

# One row per notice; AudioChunk is binary and has none.
_FIELDS: Final[Mapping[type[events.Notice], Callable[[Any], Fields]]] = {
    events.StatusChanged: _status,
    events.UserTranscript: _as("asr_result"),
    events.TextDelta: _delta,
    events.TextDone: _done,
    events.ToolCalled: _as("tool_call"),
    events.ToolReturned: _tool_result,
    events.StreamStarted: _as("tts_audio", state="start"),
    events.SentenceStarted: _as("tts_audio", state="sentence"),
    events.StreamEnded: _as("tts_audio", state="end"),
    events.StreamPaused: _as("pause"),
    events.StreamResumed: _as("resume"),
    events.StreamFlushed: _as("flush"),
    events.TurnInterrupted: _as("interrupted"),
    events.TurnMetrics: _turn_metrics,
    events.StatisticsSent: _session_stats,
    events.ErrorReported: _error,
    events.PongSent: _as("pong"),
}
