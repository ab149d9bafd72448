"""What connections do, as log events: ids, durations, counts, lengths and codes.

Never what was said, typed, answered, asked of a tool or told as an error: a row of the table below
is all that leaves a fact.  Spec 000, "Key events logged", are the table's sections; INFO tells a
turn in about ten lines, DEBUG all but audio and single tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
import trio

from listenai import events as facts
from listenai import speech
from listenai.conversation import actions
from listenai.errors import ErrorCode
from listenai.observer import ConnectionObserver, Fact, SessionOpened, TurnLeft, TurnWaited
from listenai.settings import Configuration
from listenai.telemetry.base import ToolRuns, cause_characters, cause_name
from listenai.telemetry.logs import bind

_CONNECTION = logging.getLogger("listenai.connection")
_SESSION = logging.getLogger("listenai.session")
_AUDIO = logging.getLogger("listenai.audio")
_ASR = logging.getLogger("listenai.asr")
_TURN = logging.getLogger("listenai.turn")
_LLM = logging.getLogger("listenai.llm")
_TOOL = logging.getLogger("listenai.tool")
_ERROR = logging.getLogger("listenai.error")

_OUR_FAILURES = {
    *(ErrorCode.ASR_ERROR, ErrorCode.LLM_ERROR, ErrorCode.TTS_ERROR),
    *(ErrorCode.TIMEOUT, ErrorCode.INTERNAL_ERROR),
}

Fields = Mapping[str, object]
Row = tuple[logging.Logger, int, str, Callable[[Any], Fields]]
DEBUG, INFO, WARNING = logging.DEBUG, logging.INFO, logging.WARNING


def _nothing(_fact: object) -> Fields:
    return {}


def _take(*names: str, **renamed: str) -> Callable[[Any], Fields]:
    """These attributes, which hold no contents; renamed: field="attribute"."""
    fields = {**{name: name for name in names}, **renamed}
    return lambda fact: {field: getattr(fact, name) for field, name in fields.items()}


def _row(
    logger: logging.Logger, level: int, event: str, fields: Callable[[Any], Fields] = _nothing
) -> Row:
    return logger, level, event, fields


def _metrics(fact: facts.TurnMetrics) -> Fields:
    known = attrs.asdict(fact, filter=lambda _, value: value is not None)
    return {"turn": known.pop("turn_id"), **known}


_EVENTS: Mapping[type, Row] = MappingProxyType(
    {
        # Sessions
        facts.SessionStart: _row(
            _SESSION, DEBUG, "session_asked",
            lambda fact: {
                "device_tools": len(fact.device_tools),
                **attrs.asdict(fact.capabilities),
            },
        ),
        SessionOpened: _row(_SESSION, INFO, "session_opened", _take("restored")),
        Configuration: _row(
            _SESSION, INFO, "configured",
            lambda fact: {
                "changed": ",".join(attrs.asdict(fact, filter=lambda _, value: value is not None))
            },
        ),
        facts.HistoryForgotten: _row(_SESSION, INFO, "history_forgotten"),
        facts.SessionEnd: _row(_SESSION, INFO, "session_end_asked"),
        facts.HangUp: _row(_CONNECTION, INFO, "hang_up_asked", _take("code")),
        facts.StatisticsAsked: _row(_SESSION, DEBUG, "statistics_asked"),
        facts.StatusChanged: _row(_SESSION, DEBUG, "state_changed", _take("state")),
        # Audio processing
        speech.SpeechStarted: _row(_AUDIO, DEBUG, "speech_started", _take(segment="segment_id")),
        speech.SpeechSuspected: _row(
            _AUDIO, DEBUG, "speech_suspected", _take(segment="segment_id")
        ),
        speech.SpeechEnded: _row(
            _AUDIO, INFO, "speech_ended", _take("transcript_follows", segment="segment_id")
        ),
        facts.SpeechFinished: _row(_AUDIO, DEBUG, "push_to_talk_released"),
        facts.SpeechDiscarded: _row(_AUDIO, DEBUG, "speech_discarded"),
        facts.NothingUnderstood: _row(_ASR, DEBUG, "nothing_understood"),
        facts.StreamStarted: _row(
            _AUDIO, INFO, "stream_started",
            _take("sample_rate", turn="turn_id", stream="stream_id"),
        ),
        facts.SentenceStarted: _row(
            _AUDIO, DEBUG, "sentence_started",
            lambda fact: {
                "stream": fact.stream_id,
                "from_sample": fact.from_sample,
                "characters": len(fact.text),
            },
        ),
        facts.StreamPaused: _row(_AUDIO, INFO, "stream_paused", _take(stream="stream_id")),
        facts.StreamResumed: _row(_AUDIO, INFO, "stream_resumed", _take(stream="stream_id")),
        facts.StreamFlushed: _row(_AUDIO, INFO, "stream_flushed", _take(stream="stream_id")),
        facts.StreamEnded: _row(_AUDIO, INFO, "stream_ended", _take("samples", stream="stream_id")),
        facts.PlaybackReported: _row(
            _AUDIO, DEBUG, "playback_reported", _take("played_samples", stream="stream_id")
        ),
        # ASR recognition
        speech.PartialTranscript: _row(
            _ASR, DEBUG, "partial_transcript",
            lambda fact: {"segment": fact.segment_id, "characters": len(fact.text)},
        ),
        speech.FinalTranscript: _row(
            _ASR, INFO, "final_transcript",
            lambda fact: {
                "segment": fact.segment_id,
                "characters": len(fact.text),
                "complete": fact.complete,
            },
        ),
        speech.TranscriptionFailed: _row(
            _ASR, WARNING, "transcription_failed", _take("code", segment="segment_id")
        ),
        speech.TranscriptionDelayed: _row(
            _ASR, WARNING, "transcription_delayed", _take("code", segment="segment_id")
        ),
        # Turns: who has the floor
        facts.TextTyped: _row(
            _TURN, INFO, "text_typed", lambda fact: {"characters": len(fact.text)}
        ),
        facts.InterruptPressed: _row(_TURN, INFO, "interrupt_pressed"),
        actions.BeginTurn: _row(
            _TURN, INFO, "turn_begun",
            lambda fact: {
                "turn": fact.turn_id,
                "cause": cause_name(fact.cause),
                "characters": cause_characters(fact.cause),
            },
        ),
        actions.HoldTurn: _row(_TURN, DEBUG, "turn_held"),
        actions.ReleaseTurn: _row(_TURN, INFO, "turn_released"),
        actions.InterruptTurn: _row(_TURN, INFO, "turn_interrupted"),
        facts.TurnInterrupted: _row(
            _TURN, DEBUG, "interruption_told",
            lambda fact: {
                "turn": fact.turn_id,
                "heard_characters": len(fact.heard_text),
                "unheard_characters": len(fact.unheard_text),
                "played_ms": fact.played_ms,
                "certainty": fact.certainty,
            },
        ),
        facts.TurnMetrics: _row(_TURN, INFO, "turn_metrics", _metrics),
        # LLM interactions
        TurnWaited: _row(_LLM, INFO, "turn_started", _take("waited_seconds", turn="turn_id")),
        facts.TextDone: _row(
            _LLM, INFO, "reply_done",
            lambda fact: {
                "turn": fact.turn_id,
                "characters": len(fact.text),
                "tool_calls": len(fact.tool_calls),
            },
        ),
        TurnLeft: _row(
            _TURN, INFO, "turn_left",
            _take("outcome", "prompt_tokens", "completion_tokens", turn="turn_id"),
        ),
        # Tools: a device's answer; the rest needs to know what runs
        facts.DeviceToolReturned: _row(_TOOL, DEBUG, "device_answered", _take("ok")),
    }
)  # fmt: skip


class LoggingObserver:
    """Logs what every connection does, and binds its ids in the tasks that tell of them."""

    def open_connection(self, connection_id: str, dialect: str, peer: str) -> ConnectionObserver:
        """From here on every record of this task, and of those it starts, names the connection."""
        bind(connection=connection_id)
        return _LoggedConnection(connection_id, dialect, peer)


class _LoggedConnection:
    """Logs what one connection does.

    Facts come from tasks that were started before their ids were known (the connection lives
    longer than a session), so that each record is given connection and session here.
    """

    def __init__(self, connection_id: str, dialect: str, peer: str) -> None:
        self._ids: dict[str, object] = {"connection": connection_id}
        self._tools = ToolRuns()
        self._replying = 0  # the turn whose first token was told
        self._opened_at = trio.current_time()
        self._messages_in = self._bytes_in = self._messages_out = self._bytes_out = 0
        self._log(_CONNECTION, INFO, "connection_opened", {"dialect": dialect, "peer": peer})

    def observe(self, fact: Fact, now: float) -> None:
        """Logs it."""
        kind = type(fact)
        if kind in _EVENTS:
            self._log_row(fact)
        elif kind in _TOLD_BY_METHODS:
            self._log_more(fact, now)

    def received(self, size: int) -> None:
        """A message came in; told when the connection is closed."""
        self._messages_in += 1
        self._bytes_in += size

    def sent(self, size: int) -> None:
        """A message went out; told when the connection is closed."""
        self._messages_out += 1
        self._bytes_out += size

    def closed(self, code: int, reason: str) -> None:  # noqa: ARG002 - a device's may say anything
        """The connection is over."""
        fields = {
            "code": code,
            "seconds": round(trio.current_time() - self._opened_at, 3),
            "messages_in": self._messages_in,
            "bytes_in": self._bytes_in,
            "messages_out": self._messages_out,
            "bytes_out": self._bytes_out,
        }
        self._log(_CONNECTION, INFO, "connection_closed", fields)
        bind(session=self._ids.get("session"))  # for whoever still tells of the connection

    def _log_row(self, fact: Fact) -> None:
        if isinstance(fact, SessionOpened):
            self._ids["session"] = fact.session_id
            bind(session=fact.session_id)
        elif isinstance(fact, TurnWaited):
            bind(turn=fact.turn_id)
        elif isinstance(fact, TurnLeft):
            self._leave_tools(fact)
        logger, level, event, fields = _EVENTS[type(fact)]
        if logger.isEnabledFor(level):
            self._log(logger, level, event, fields(fact))
        if isinstance(fact, TurnLeft):
            bind(turn=None)

    def _log_more(self, fact: Fact, now: float) -> None:
        match fact:
            case facts.TextDelta(turn_id=turn_id):
                if turn_id != self._replying:
                    self._replying = turn_id
                    self._log(_LLM, DEBUG, "reply_begun", {"turn": turn_id})
            case facts.ToolCalled():
                self._tools.begin(fact, now)
                fields = {"turn": fact.turn_id, "tool": fact.name, "target": fact.target}
                self._log(_TOOL, INFO, "tool_called", fields)
            case facts.ToolReturned():
                self._log_return(fact)
            case facts.ErrorReported(code=code, turn_id=turn_id, retry_after_ms=retry_after_ms):
                level = WARNING if code in _OUR_FAILURES else INFO
                known = {"code": code, "turn": turn_id, "retry_after_ms": retry_after_ms}
                self._log(_ERROR, level, "error_reported", known)

    def _log_return(self, fact: facts.ToolReturned) -> None:
        run = self._tools.end(fact)
        fields = {
            "turn": fact.turn_id,
            "tool": run.name if run else None,  # else it may be words of the chat model's own
            "ok": fact.ok,
            "duration_ms": fact.duration_ms,
        }
        self._log(_TOOL, INFO, "tool_returned", fields)

    def _leave_tools(self, fact: TurnLeft) -> None:
        for run in self._tools.leave(fact.turn_id):
            self._log(_TOOL, INFO, "tool_left", {"turn": fact.turn_id, "tool": run.name})

    def _log(self, logger: logging.Logger, level: int, event: str, fields: Fields) -> None:
        """What is None is left out."""
        known = {name: value for name, value in fields.items() if value is not None}
        logger.log(level, event, extra={"fields": {**self._ids, **known}})


_TOLD_BY_METHODS = {facts.TextDelta, facts.ToolCalled, facts.ToolReturned, facts.ErrorReported}
