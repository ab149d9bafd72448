"""The variables of specs 001, 002 and 004: what each one sets here, or why it sets nothing.

Whoever brings a `.env` from one of those systems is told about every line of it.  A variable
sets ours where it means the same; ours, where it is given too, wins.
"""

from __future__ import annotations

import attrs

from listenai.config.checks import Check, address


@attrs.frozen
class OtherVariable:
    """A variable of another system: exactly one of `sets` and `reason` says what becomes of it."""

    variable: str
    spec: str
    sets: str = ""  # our variable
    reason: str = ""  # why it has no effect
    # What it must be to be taken at all, where shells and tools give the name to other things.
    usable: Check | None = None


def _same(variable: str, spec: str, sets: str, usable: Check | None = None) -> OtherVariable:
    return OtherVariable(variable, spec, sets=sets, usable=usable)


def _none(variable: str, spec: str, reason: str) -> OtherVariable:
    return OtherVariable(variable, spec, reason=reason)


_PULLED = "no audio is skipped: a device that sends too fast is made to wait"
_NO_REDIS = "sessions are kept in this process's memory"

# Where two set the same, the first one that is given counts.
OTHER_VARIABLES: tuple[OtherVariable, ...] = (
    _none("STREAM_PCM_CHUNK_SIZE", "001", "audio messages may have any size"),
    _none("STREAM_BACKPRESSURE_THRESHOLD", "001", _PULLED),
    _none("STREAM_BACKPRESSURE_SKIP_FRAMES", "001", _PULLED),
    _same("OPENAI_API_KEY", "001", "LLM_API_KEY"),
    _same("OPENAI_MODEL", "001", "LLM_MODEL"),
    _same("STREAM_TTS_ENGINE", "001", "TTS_ENGINE"),
    _none("STREAM_TTS_MAX_PHRASE_LENGTH", "001", "replies are spoken sentence by sentence"),
    _none("STREAM_TTS_THREAD_WORKERS", "001", "one sentence is spoken at a time"),
    _same("STREAM_TTS_TIMEOUT_S", "001", "TTS_TIMEOUT"),
    _none("STREAM_MAX_PENDING_PHRASES", "001", "text is at most one sentence ahead of speech"),
    _same("SERVER_HOST", "002", "CLOUD_HOST"),
    _same("SERVER_PORT", "002", "CLOUD_PORT"),
    _same("PORT", "004", "CLOUD_PORT"),
    _same("HOST", "004", "CLOUD_HOST", address()),  # csh and conda set it to a name of theirs
    _none("NODE_ENV", "004", "there are no modes: development and production are the same"),
    _same("MAX_CONNECTIONS", "004", "CLOUD_MAX_CONNECTIONS"),
    _none("REDIS_URL", "004", _NO_REDIS),
    _none("REDIS_PASSWORD", "004", _NO_REDIS),
    _none("REDIS_DB", "004", _NO_REDIS),
    _none("AUDIO_CHUNK_SIZE", "004", "audio messages may have any size"),
    _none(
        "PROCESSING_TIMEOUT",
        "004",
        "a turn lasts until its audio was played; CLOUD_INTERACTION_TIMEOUT bounds that",
    ),
    _same("MAX_CONCURRENT_PROCESSING", "004", "CLOUD_MAX_CONCURRENT"),
    _none("RATE_LIMIT_WINDOW", "004", "the window is a minute; see CLOUD_RATE_LIMIT_PER_MINUTE"),
    _none("RATE_LIMIT_MAX_REQUESTS", "004", "see CLOUD_RATE_LIMIT_PER_MINUTE"),
    _none("RATE_LIMIT_MAX_CONNECTIONS", "004", "see CLOUD_MAX_CONNECTIONS_PER_IP"),
    _same("LOG_LEVEL", "004", "CLOUD_LOG_LEVEL"),
)
