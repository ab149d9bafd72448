"""Settings, from environment variables under the names of spec 000.

Every setting is a row: variable, unit, default, check.  All problems are found
before any is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from listenai.errors import ConfigurationError

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@attrs.frozen
class _Check:
    """What a variable's text may be, in words, and how it is read."""

    allowed: str
    read: Callable[[str], Any]  # raises ValueError


def _number(lowest: float, highest: float, *, whole: bool = False) -> _Check:
    def read(text: str) -> float:
        value = int(text) if whole else float(text)
        if not lowest <= value <= highest:
            raise ValueError
        return value

    kind = "a whole number" if whole else "a number"
    return _Check(f"{kind} from {lowest:g} to {highest:g}", read)


def _one_of(*values: str) -> _Check:
    def read(text: str) -> str:
        if text.upper() not in values:
            raise ValueError
        return text.upper()

    return _Check(f"one of {', '.join(values)}", read)


def _text() -> _Check:
    def read(text: str) -> str:
        if not text.strip():
            raise ValueError
        return text

    return _Check("any text that is not empty", read)


def _setting(variable: str, default: Any, check: _Check) -> Any:
    return attrs.field(default=default, metadata={"variable": variable, "check": check})


@attrs.frozen
class Config:
    """The effective settings; times in seconds."""

    host: str = _setting("CLOUD_HOST", "0.0.0.0", _text())  # noqa: S104  # spec 000's default
    port: int = _setting("CLOUD_PORT", 9400, _number(0, 65535, whole=True))
    ping_interval: float = _setting("CLOUD_PING_INTERVAL", 30.0, _number(1, 3600))
    ping_timeout: float = _setting("CLOUD_PING_TIMEOUT", 300.0, _number(1, 86400))
    interaction_timeout: float = _setting("CLOUD_INTERACTION_TIMEOUT", 600.0, _number(1, 86400))
    drain_timeout: float = _setting("CLOUD_DRAIN_TIMEOUT", 20.0, _number(0, 3600))
    log_level: str = _setting("CLOUD_LOG_LEVEL", "INFO", _one_of(*_LOG_LEVELS))
    voice_id: str = _setting("TTS_VOICE_ID", "doubao-通用女声", _text())
    temperature: float = _setting("LLM_TEMPERATURE", 0.7, _number(0, 2))
    max_tokens: int = _setting("LLM_MAX_TOKENS", 2048, _number(1, 1_000_000, whole=True))

    @classmethod
    def load(cls, environment: Mapping[str, str], **overrides: Any) -> Config:
        """Reads the environment; options given by hand (not None) win.

        Raises ConfigurationError that names every problem.
        """
        values: dict[str, Any] = {}
        problems: list[str] = []
        for field in attrs.fields(cls):
            variable, check = field.metadata["variable"], field.metadata["check"]
            given = overrides.get(field.name)
            text = str(given) if given is not None else environment.get(variable)
            if text is None:
                continue
            try:
                values[field.name] = check.read(text)
            except ValueError:
                problems.append(f"{variable}={text!r}: must be {check.allowed}")
        if problems:
            raise ConfigurationError(problems)
        return cls(**values)
