"""What can go wrong, in one tree; and the codes by which a device is told.

ListenAIError
├── ConfigurationError     settings that cannot work: every problem at once
├── ProtocolError          the device broke its protocol (the connection goes on)
├── DeviceStalled          the device takes no messages (the connection ends)
├── EngineError            an engine or service failed (the turn ends)
│   ├── TranscriberError       ASR_ERROR
│   │   └── TranscriberAway        it cannot be reached now, and may come back
│   ├── ChatModelError         LLM_ERROR
│   └── SynthesizerError       TTS_ERROR
│       └── SynthesizerAway        it cannot be reached now, and may come back
└── ToolError              a tool could not do it; the message is for the chat model

Anything else that escapes is a bug: the device is told INTERNAL_ERROR and the
exception is raised to the connection's firewall.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class ErrorCode(StrEnum):
    """Codes of spec 000, "Error Codes", and two of our own."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNKNOWN_MESSAGE_TYPE = "UNKNOWN_MESSAGE_TYPE"
    ASR_ERROR = "ASR_ERROR"
    LLM_ERROR = "LLM_ERROR"
    TTS_ERROR = "TTS_ERROR"
    SESSION_ERROR = "SESSION_ERROR"
    TIMEOUT = "TIMEOUT"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    RATE_LIMITED = "RATE_LIMITED"
    UNAUTHORIZED = "UNAUTHORIZED"


class ListenAIError(Exception):
    """The root of all our own exceptions."""


class ConfigurationError(ListenAIError):
    """Settings that cannot work; each problem names variable, value and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class ProtocolError(ListenAIError):
    """A message the dialect cannot accept; the message says what is allowed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class DeviceStalled(ListenAIError):
    """The device took no message for too long, or let too many pile up."""


class EngineError(ListenAIError):
    """An engine or service failed; `code` is what the device is told."""

    code = ErrorCode.INTERNAL_ERROR

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out  # it answered too late, rather than wrongly


class TranscriberError(EngineError):
    """Speech recognition failed."""

    code = ErrorCode.ASR_ERROR


class TranscriberAway(TranscriberError):
    """Speech recognition cannot be reached now; the same audio may be understood later."""


class ChatModelError(EngineError):
    """The language model failed."""

    code = ErrorCode.LLM_ERROR


class SynthesizerError(EngineError):
    """Speech synthesis failed."""

    code = ErrorCode.TTS_ERROR


class SynthesizerAway(SynthesizerError):
    """Speech synthesis cannot be reached now; the same text may be spoken later."""


class ToolError(ListenAIError):
    """A tool could not do what was asked; the text is given to the chat model."""
