"""What a Ninja device may say (spec 004): one class per message, each field with its rule.

All messages come in one envelope: `type`, `callId`, `timestamp` and `data`.  Fields that are
not named here are ignored; where null is given for one that may be left out, it was left out.
The names are those of the wire.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import attrs

from listenai.dialects.fields import (
    MAX_COUNT,
    Audio,
    Id,
    MessageReader,
    Rule,
    is_text,
    matching,
    number,
    text,
    whole,
)

MAX_TOKEN = 4096  # characters; tokens travel in HTTP headers elsewhere and are smaller

UserId = Annotated[str, matching(r"[!-~\w]{1,128}", "1 to 128 visible characters without blanks")]
Token = Annotated[str, text(MAX_TOKEN)]
CallId = Annotated[str, Rule("text", is_text)]  # of an envelope: empty, or the session's
Timestamp = Annotated[float, number(0, MAX_COUNT)]  # ms since 1970


@attrs.frozen
class Options:
    """What `startStream` of spec 004 is given; maxChunkSize and bufferDuration change nothing.

    echoCancellation: spec 004 asks the browser for it; false where a device has none.
    """

    enableVAD: (  # noqa: N815
        Annotated[bool, Rule("true: the server finds the end of speech", lambda v: v is True)]
        | None
    ) = None
    vadThreshold: Annotated[float, number(0, 1)] | None = None  # noqa: N815
    sampleRate: Annotated[int, whole(8_000, 48_000)] | None = None  # noqa: N815 - of PCM, Hz
    channels: Annotated[int, Rule("1: mono", lambda v: v == 1)] | None = None
    enableDenoising: bool | None = None  # noqa: N815
    enableAGC: bool | None = None  # noqa: N815
    enableCompression: bool | None = None  # noqa: N815
    echoCancellation: bool | None = None  # noqa: N815


@attrs.frozen
class SessionStartData:
    """Who calls, and the token that says so."""

    userId: UserId  # noqa: N815
    callId: Id  # noqa: N815 - it names the session
    authToken: Token  # noqa: N815
    options: Options | None = None


@attrs.frozen
class SessionStart:
    """The first message of a connection."""

    data: SessionStartData
    callId: CallId | None = None  # noqa: N815
    timestamp: Timestamp | None = None


@attrs.frozen
class SessionEnd:
    """The call is over: erase the session and close."""

    callId: CallId | None = None  # noqa: N815
    timestamp: Timestamp | None = None


@attrs.frozen
class HeartbeatData:
    """`pong` is true in an answer to the server's heartbeat."""

    pong: bool | None = None


@attrs.frozen
class Heartbeat:
    """A sign of life, or the answer to one."""

    data: HeartbeatData | None = None
    callId: CallId | None = None  # noqa: N815
    timestamp: Timestamp | None = None


@attrs.frozen
class AudioChunkData:
    """Audio, as text; mimeType: of this and of what follows."""

    audio: Audio
    mimeType: Annotated[str, Rule("text", is_text)] | None = None  # noqa: N815


@attrs.frozen
class AudioChunk:
    """Audio from a device that cannot send binary."""

    data: AudioChunkData
    callId: CallId | None = None  # noqa: N815
    timestamp: Timestamp | None = None


@attrs.frozen
class Metrics:
    """Please send `metrics`."""

    callId: CallId | None = None  # noqa: N815
    timestamp: Timestamp | None = None


ClientMessage = SessionStart | SessionEnd | Heartbeat | AudioChunk | Metrics

CLIENT_MESSAGES: Final[dict[str, Any]] = {
    "session_start": SessionStart,
    "session_end": SessionEnd,
    "heartbeat": Heartbeat,
    "audio_chunk": AudioChunk,
    "metrics": Metrics,
}

READER: Final[MessageReader[ClientMessage]] = MessageReader(CLIENT_MESSAGES, unknown_fields=True)
