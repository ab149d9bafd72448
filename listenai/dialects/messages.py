"""What a ListenAI device may say: one class per message, each field with its rule.

The annotations are the protocol: messages are checked by them, and a reference
can be written from CLIENT_MESSAGES, the docstrings and `Rule.allowed`.  In a
field that may be left out, null means left out.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, get_args, get_origin

import attrs

from listenai import events, settings
from listenai.device import Capabilities, Echo

MAX_TEXT = 10_000  # characters of one typed turn, prompt or tool error: about 15 min of speech
MAX_NAME = 64  # characters of an id, language or voice: what a label or a log line can show
MAX_DEVICE_TOOLS = 32  # every tool is sent to the chat model with every turn
MAX_DEPTH = 32  # of a tool's data: well below Python's recursion limit, wherever it goes next
MAX_COUNT = 2**53 - 1  # the largest integer that JavaScript and JSON agree about
SAMPLE_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)  # Hz

_SHOWN_CHARACTERS = 40  # of a text in an error message; of a longer one only its length


def shown(value: object) -> str:
    """A JSON value as an error message shows it: short, whatever its size and depth."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"text of {len(value)} characters"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


# --- rules -------------------------------------------------------------------------------


@attrs.frozen
class Rule:
    """What a field may hold: what `accept` is true of and `convert` makes ours."""

    allowed: str  # completes "must be …"
    accept: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value  # ValueError: not allowed either

    def read(self, value: object) -> Any:
        """The value in our type; raises ValueError saying what is allowed."""
        try:
            if self.accept(value):
                return self.convert(value)
        except ValueError:
            pass
        raise ValueError(f"must be {self.allowed}, not {shown(value)}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(low: float, high: float) -> Rule:
    return Rule(
        f"a number from {low} to {high}",
        lambda value: _is_number(value) and low <= value <= high,
        float,
    )


def _integer(low: int, high: int) -> Rule:
    return Rule(
        f"a whole number from {low} to {high}",
        lambda value: _is_number(value) and low <= value <= high and value == int(value),
        int,
    )


def _one_of(*values: Any) -> Rule:
    """One of these, compared by value: 16000.0 is 16000, and "raw" is Echo.RAW."""
    return Rule(
        f"one of {', '.join(map(str, values))}",
        lambda value: not isinstance(value, bool) and value in values,
        lambda value: values[values.index(value)],
    )


def _matching(pattern: str, words: str) -> Rule:
    matches = re.compile(pattern).fullmatch
    return Rule(words, lambda value: isinstance(value, str) and matches(value) is not None)


def _text(longest: int, *, blank: bool = False) -> Rule:
    return Rule(
        f"text of at most {longest} characters{'' if blank else ', not blank'}",
        lambda value: (
            isinstance(value, str) and len(value) <= longest and (blank or bool(value.strip()))
        ),
    )


def _decode(text: str) -> bytes:
    data = binascii.a2b_base64(text, strict_mode=True)
    if len(text) != (len(data) + 2) // 3 * 4:  # strict mode lets a second padding pass
        raise ValueError("padded twice")
    return data


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


PLAIN_RULES: Final[Mapping[Any, Rule]] = {  # types that are their own rule
    bool: Rule("true or false", lambda value: isinstance(value, bool)),
    Echo: _one_of(*Echo),
}

Id = Annotated[
    str,
    _matching(rf"[\w.-]{{1,{MAX_NAME}}}", f"1 to {MAX_NAME} letters, digits, '_', '.' or '-'"),
]
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
    str, _matching(r"[a-zA-Z0-9_-]{1,64}", "1 to 64 of the characters a-z A-Z 0-9 _ -")
]
Name = Annotated[str, _text(MAX_NAME)]
Audio = Annotated[bytes, Rule("audio in base64", _is_text, _decode)]
Json = Annotated[Any, Rule(f"JSON nested at most {MAX_DEPTH} deep", _is_shallow)]
Schema = Annotated[
    dict[str, Any],
    Rule(
        f'a JSON Schema of "type":"object", nested at most {MAX_DEPTH} deep',
        _is_schema,
        lambda schema: {"type": "object", "properties": {}} | schema,
    ),
]


def rule_of(annotation: Any) -> Rule | None:
    """The rule of a field's annotation, or None."""
    if get_origin(annotation) is not Annotated:
        return PLAIN_RULES.get(annotation)
    return next((mark for mark in get_args(annotation)[1:] if isinstance(mark, Rule)), None)


# --- messages ----------------------------------------------------------------------------


@attrs.frozen
class DeviceTool:
    """A tool that the device runs itself when it gets a `tool_call` with target "device"."""

    name: ToolName
    description: Annotated[str, _text(MAX_TEXT, blank=True)]
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
    system_prompt: Annotated[str, _text(MAX_TEXT, blank=True)] | None = None
    vad_threshold: Annotated[float, _number(0, 1)] | None = None
    vad_silence_frames: Annotated[int, _integer(1, 100)] | None = None
    end_of_turn_ms: Annotated[float, _number(0, 10_000)] | None = None
    interruptible: bool | None = None
    tools: bool | None = None
    partial_results: bool | None = None
    output_sample_rate: Annotated[int, _one_of(*SAMPLE_RATES)] | None = None

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

    text: Annotated[str, _text(MAX_TEXT)]

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

    stream_id: Annotated[int, _integer(1, MAX_COUNT)]
    played_samples: Annotated[int, _integer(0, MAX_COUNT)]
    output_latency_ms: Annotated[float, _number(0, 10_000)] | None = None

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
    error: Annotated[str, _text(MAX_TEXT, blank=True)] | None = None

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
