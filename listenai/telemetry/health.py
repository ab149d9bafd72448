"""Whether hearing, thinking and speaking work, as far as conversations see it.

A stage is degraded from its error on until it does its work again, in whichever conversation.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from listenai.errors import ErrorCode
from listenai.events import ErrorReported, SentenceStarted, TextDone
from listenai.observer import ConnectionObserver, Fact
from listenai.speech import FinalTranscript

_STAGES: Mapping[ErrorCode, str] = {
    ErrorCode.ASR_ERROR: "asr",
    ErrorCode.LLM_ERROR: "llm",
    ErrorCode.TTS_ERROR: "tts",
}
OK, DEGRADED = "ok", "degraded"


class HealthObserver:
    """Watches every connection; `services` says "ok" or "degraded" of asr, llm and tts."""

    def __init__(self) -> None:
        self.services: dict[str, str] = dict.fromkeys(_STAGES.values(), OK)

    def open_connection(self, *_about: str) -> ConnectionObserver:
        """One that judges the stages by what becomes of turns."""
        return _WatchedConnection(self.services)


@attrs.define
class _WatchedConnection:
    services: dict[str, str]
    _failed_turn: int | None = None  # whose chat model has failed: its text says nothing

    def observe(self, fact: Fact, _now: float) -> None:
        match fact:
            case ErrorReported(code=code, turn_id=turn_id) if code in _STAGES:
                self.services[_STAGES[code]] = DEGRADED
                if code is ErrorCode.LLM_ERROR:
                    self._failed_turn = turn_id
            case FinalTranscript():
                self.services["asr"] = OK
            case TextDone(turn_id=turn_id) if turn_id != self._failed_turn:
                self.services["llm"] = OK
            case SentenceStarted():  # told when its audio is there
                self.services["tts"] = OK

    def received(self, size: int) -> None:
        pass

    def sent(self, size: int) -> None:
        pass

    def closed(self, code: int, reason: str) -> None:
        pass
