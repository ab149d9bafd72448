"""What a ListenAI device may say: one class per message, each field with its rule.

The annotations are the protocol: messages are checked by them, and a reference
can be written from CLIENT_MESSAGES, the docstrings and `Rule.allowed`.  In a
field that may be left out, null means left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import attrs

from listenai import events, settings
from listenai.device import Capabilities, Echo
from listenai.dialects import fields
from listenai.dialects.fields import (
    MAX_COUNT,
    MAX_NAME,
    Audio,
    Id,
    Name,
    Rule,
    matching,
    number,
    one_of,
    text,
    whole,
)

MAX_TEXT = 10_000  # characters of one typed turn, prompt or tool error: about 15 min of speech
MAX_DEVICE_TOOLS = 32  # every tool is sent to the chat model with every turn
MAX_DEPTH = 32  # of a tool's data: well below Python's recursion limit, wherever it goes next
SAMPLE_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)  # Hz


def _is_shallow(value: object) -> bool:
    """Whether lists and objects are nested at most MAX_DEPTH deep; looks level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return True
        level = [
            child
            for item in nested
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return False


def _is_schema(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("type", "object") == "object"
        and isinstance(value.get("properties", {}), dict)
        and _is_shallow(value)
    )


PLAIN_RULES: Final[Mapping[Any, Rule]] = {**fields.PLAIN_RULES, Echo: one_of(*Echo)}

PingId = Annotated[
    str | int,
    Rule(
        f"text of at most {MAX_NAME} characters or a whole number",
        lambda value: (
            len(value) <= MAX_NAME
            if isinstance(value, str)
            else type(value) is int and abs(value) <= MAX_COUNT
        ),
    ),
]
ToolName = Annotated[  # the pattern that chat completion services demand
    str, matching(r"[a-zA-Z0-9_-]{1,64}", "1 to 64 of the characters a-z A-Z 0-9 _ -")
]
Json = Annotated[Any, Rule(f"JSON nested at most {MAX_DEPTH} deep", _is_shallow)]
Schema = Annotated[
    dict[str, Any],
    Rule(
        f'a JSON Schema of "type":"object", nested at most {MAX_DEPTH} deep',
        _is_schema,
        lambda schema: {"type": "object", "properties": {}} | schema,
    ),
]


# --- messages ----------------------------------------------------------------------------


@attrs.frozen
class DeviceTool:
    """A tool that the device runs itself when it gets a `tool_call` with target "device"."""

    name: ToolName
    description: Annotated[str, text(MAX_TEXT, blank=True)]
    parameters: Schema


DeviceTools = Annotated[
    tuple[DeviceTool, ...],
    Rule(
        f"a list of at most {MAX_DEVICE_TOOLS} tools",
        lambda value: isinstance(value, list) and len(value) <= MAX_DEVICE_TOOLS,
    ),
]


@attrs.frozen
class StartSession:
    """Begin a session, or take one up again by its id; says what the device can do."""

    session_id: Id | None = None
    capabilities: Capabilities | None = None
    device_tools: DeviceTools | None = None

    def __attrs_post_init__(self) -> None:
        names = [tool.name for tool in self.device_tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("field 'device_tools' must have a different name for each tool")

    def request(self) -> events.SessionStart:
        """What the conversation is asked."""
        tools = (
            events.ToolSchema(tool.name, tool.description, tool.parameters)
            for tool in self.device_tools or ()
        )
        return events.SessionStart(
            self.session_id, self.capabilities or Capabilities(), tuple(tools)
        )


@attrs.frozen
class Configure:
    """Change settings: all that are given, or none where one is refused."""

    language: Name | None = None
    voice_id: Name | None = None
    system_prompt: Annotated[str, text(MAX_TEXT, blank=True)] | None = None
    vad_threshold: Annotated[float, number(0, 1)] | None = None
    vad_silence_frames: Annotated[int, whole(1, 100)] | None = None
    end_of_turn_ms: Annotated[float, number(0, 10_000)] | None = None
    interruptible: bool | None = None
    tools: bool | None = None
    partial_results: bool | None = None
    output_sample_rate: Annotated[int, one_of(*SAMPLE_RATES)] | None = None

    def request(self) -> settings.Configuration:
        """What the conversation is asked; the fields are the same by name."""
        return settings.Configuration(**attrs.asdict(self))


@attrs.frozen
class AudioData:
    """Audio from a device that cannot send binary: 16-bit little-endian mono PCM at 16 kHz."""

    audio: Audio

    def request(self) -> events.AudioReceived:
        """What the conversation is asked."""
        return events.AudioReceived(self.audio)


@attrs.frozen
class Text:
    """Typed input: a turn without `asr_result`."""

    text: Annotated[str, text(MAX_TEXT)]

    def request(self) -> events.TextTyped:
        """What the conversation is asked."""
        return events.TextTyped(self.text)


@attrs.frozen
class EndOfSpeech:
    """Push-to-talk was let go: the utterance ends now."""

    def request(self) -> events.SpeechFinished:
        """What the conversation is asked."""
        return events.SpeechFinished()


@attrs.frozen
class Interrupt:
    """The button: stop the reply."""

    def request(self) -> events.InterruptPressed:
        """What the conversation is asked."""
        return events.InterruptPressed()


@attrs.frozen
class Playback:
    """How many samples of a stream the loudspeaker has played; also the answer to `flush`."""

    stream_id: Annotated[int, whole(1, MAX_COUNT)]
    played_samples: Annotated[int, whole(0, MAX_COUNT)]
    output_latency_ms: Annotated[float, number(0, 10_000)] | None = None

    def request(self) -> events.PlaybackReported:
        """What the conversation is asked."""
        latency_ms = self.output_latency_ms or 0.0
        return events.PlaybackReported(self.stream_id, self.played_samples, latency_ms)


_ABSENT: Final = object()  # null is a result


@attrs.frozen
class ToolResult:
    """The answer to a `tool_call` with target "device": `result`, or `error` in words."""

    call_id: Id
    result: Json = _ABSENT
    error: Annotated[str, text(MAX_TEXT, blank=True)] | None = None

    def __attrs_post_init__(self) -> None:
        if (self.result is _ABSENT) == (self.error is None):
            raise ValueError("must have exactly one of the fields 'result' and 'error'")

    def request(self) -> events.DeviceToolReturned:
        """What the conversation is asked."""
        ok = self.error is None
        return events.DeviceToolReturned(self.call_id, ok, self.result if ok else self.error)


@attrs.frozen
class EndSession:
    """Erase the session and close the connection."""

    def request(self) -> events.SessionEnd:
        """What the conversation is asked."""
        return events.SessionEnd()


@attrs.frozen
class SessionStats:
    """Ask for the session's statistics."""

    def request(self) -> events.StatisticsAsked:
        """What the conversation is asked."""
        return events.StatisticsAsked()


@attrs.frozen
class Ping:
    """Ask whether the server lives; `pong` brings the id back."""

    id: PingId | None = None

    def request(self) -> events.PingReceived:
        """What the conversation is asked."""
        return events.PingReceived(self.id)


ClientMessage = (
    StartSession
    | Configure
    | AudioData
    | Text
    | EndOfSpeech
    | Interrupt
    | Playback
    | ToolResult
    | EndSession
    | SessionStats
    | Ping
)

CLIENT_MESSAGES: Final[Mapping[str, type[ClientMessage]]] = {
    "start_session": StartSession,
    "configure": Configure,
    "audio_data": AudioData,
    "text": Text,
    "end_of_speech": EndOfSpeech,
    "interrupt": Interrupt,
    "playback": Playback,
    "tool_result": ToolResult,
    "end_session": EndSession,
    "session_stats": SessionStats,
    "ping": Ping,
}
