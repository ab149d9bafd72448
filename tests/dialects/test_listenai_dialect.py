"""The ListenAI dialect: what it understands, what it refuses and what it says."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, get_args

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listenai import events
from listenai.device import Capabilities, DeviceProfile, Duplex, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.fields import rule_of
from listenai.dialects.json_text import MAX_MESSAGE_BYTES
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.messages import (
    CLIENT_MESSAGES,
    MAX_DEPTH,
    MAX_DEVICE_TOOLS,
    MAX_TEXT,
    PLAIN_RULES,
)
from listenai.errors import ErrorCode, ProtocolError
from listenai.settings import Configuration, EffectiveConfiguration, Offer, SessionStatistics

PCM = bytes(range(256)) + b"\x01"  # odd sizes are allowed
AUDIO = base64.b64encode(PCM).decode()
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}}
LAMP = {"name": "set_lamp", "description": "Switch the lamp", "parameters": SCHEMA}


def understood(message: str | bytes) -> events.Request:
    """The one request that a message is."""
    (request,) = ListenAIDialect().receive(message, 0.0)
    return request


def refusal(message: str | bytes) -> ProtocolError:
    """Why a message is refused."""
    with pytest.raises(ProtocolError) as caught:
        ListenAIDialect().receive(message, 0.0)
    return caught.value


# --- from the device ---------------------------------------------------------------------

# The ListenAI protocol, client to server; session_stats is "on request".
DOCUMENTED = {
    "start_session", "configure", "audio_data", "text", "end_of_speech", "interrupt",
    "playback", "tool_result", "end_session", "ping", "session_stats",
}  # fmt: skip

RECEIVED: list[tuple[dict[str, Any], events.Request]] = [
    ({"type": "start_session"}, events.SessionStart()),
    (
        {"type": "start_session", "session_id": "Küche_1.a-b", "capabilities": {"echo": "raw"}},
        events.SessionStart("Küche_1.a-b", Capabilities(echo=Echo.RAW)),
    ),
    (
        {
            "type": "start_session",
            "session_id": None,
            "capabilities": {
                "pause": True,
                "flush": True,
                "playback_reports": True,
                "display_text": True,
                "echo": "cancelled",
            },
            "device_tools": [LAMP],
        },
        events.SessionStart(
            None,
            Capabilities(True, True, True, True, Echo.CANCELLED),
            (events.ToolSchema("set_lamp", "Switch the lamp", SCHEMA),),
        ),
    ),
    (
        {"type": "start_session", "device_tools": [LAMP | {"parameters": {}}]},
        events.SessionStart(
            device_tools=(
                events.ToolSchema(
                    "set_lamp", "Switch the lamp", {"type": "object", "properties": {}}
                ),
            )
        ),
    ),
    ({"type": "configure"}, Configuration()),
    (
        {
            "type": "configure",
            "language": "zh",
            "voice_id": "doubao-通用女声",
            "system_prompt": "",
            "vad_threshold": 1,
            "vad_silence_frames": 8.0,
            "end_of_turn_ms": 0,
            "interruptible": False,
            "tools": True,
            "partial_results": False,
            "output_sample_rate": 24000.0,
        },
        Configuration("zh", "doubao-通用女声", "", 1.0, 8, 0.0, False, True, False, 24_000),
    ),
    ({"type": "configure", "end_of_turn_ms": None}, Configuration()),
    ({"type": "audio_data", "audio": AUDIO}, events.AudioReceived(PCM)),
    ({"type": "audio_data", "audio": ""}, events.AudioReceived(b"")),
    ({"type": "text", "text": "你好 🙂"}, events.TextTyped("你好 🙂")),
    ({"type": "end_of_speech"}, events.SpeechFinished()),
    ({"type": "interrupt"}, events.InterruptPressed()),
    (
        {"type": "playback", "stream_id": 1, "played_samples": 0},
        events.PlaybackReported(1, 0, 0.0),
    ),
    (
        {"type": "playback", "stream_id": 3, "played_samples": 16000, "output_latency_ms": 42.5},
        events.PlaybackReported(3, 16_000, 42.5),
    ),
    (
        {"type": "tool_result", "call_id": "call_1", "result": {"on": [1, None]}},
        events.DeviceToolReturned("call_1", True, {"on": [1, None]}),
    ),
    (
        {"type": "tool_result", "call_id": "call_1", "result": None},
        events.DeviceToolReturned("call_1", True, None),
    ),
    (
        {"type": "tool_result", "call_id": "call_1", "error": "no lamp"},
        events.DeviceToolReturned("call_1", False, "no lamp"),
    ),
    ({"type": "end_session"}, events.SessionEnd()),
    ({"type": "session_stats"}, events.StatisticsAsked()),
    ({"type": "ping"}, events.PingReceived()),
    ({"type": "ping", "id": 7}, events.PingReceived(7)),
    ({"type": "ping", "id": "seven"}, events.PingReceived("seven")),
]


@pytest.mark.parametrize(("wire", "request_"), RECEIVED, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_message_is_understood(
    wire: dict[str, Any], request_: events.Request, ensure_ascii: bool
) -> None:
    """Escaped or not, spaces or none, the request is the documented one."""
    request = understood(json.dumps(wire, ensure_ascii=ensure_ascii, indent=1))
    assert request == request_
    kinds = [type(value) for value in attrs.astuple(request, recurse=False)]
    assert kinds == [type(value) for value in attrs.astuple(request_, recurse=False)]


NEVER_ASKED = {  # requests of other dialects' devices
    events.EncodedAudio,
    events.SpeechDiscarded,
    events.HistoryForgotten,
    events.HangUp,
    events.Answer,
}


def test_every_documented_message_is_in_the_golden_table() -> None:
    """Neither a message nor a request is without its row."""
    assert {wire["type"] for wire, _ in RECEIVED} == DOCUMENTED == set(CLIENT_MESSAGES)
    asked = {type(request) for _, request in RECEIVED}
    assert asked | NEVER_ASKED == set(get_args(events.Request))


def test_configure_can_set_every_setting() -> None:
    """The message's fields are the configuration's, by name and order."""
    wanted = [field.name for field in attrs.fields(CLIENT_MESSAGES["configure"])]
    assert wanted == [field.name for field in attrs.fields(Configuration)]


def test_binary_is_audio_as_it_is() -> None:
    """The very bytes, not a copy of them."""
    request = understood(PCM)
    assert isinstance(request, events.AudioReceived)
    assert request.pcm is PCM
    assert understood(b"") == events.AudioReceived(b"")
    largest = bytes(MAX_MESSAGE_BYTES)
    assert understood(largest) == events.AudioReceived(largest)


def test_messages_describe_themselves() -> None:
    """A reference can be written: every class has a docstring, every rule says what it allows."""
    for message in CLIENT_MESSAGES.values():
        assert message.__doc__
        attrs.resolve_types(message, include_extras=True)
        for field in attrs.fields(message):
            given_type = next(
                (part for part in get_args(field.type) if part is not type(None)), None
            )
            rule = rule_of(field.type, PLAIN_RULES) or rule_of(given_type, PLAIN_RULES)
            assert field.type == Capabilities | None or (rule and rule.allowed), field.name


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_tool_may_answer_with_nested_data() -> None:
    """MAX_DEPTH levels pass, one more does not."""
    wire = {"type": "tool_result", "call_id": "a", "result": nested(MAX_DEPTH)}
    assert understood(json.dumps(wire)) == events.DeviceToolReturned("a", True, nested(MAX_DEPTH))
    error = refusal(json.dumps(wire | {"result": nested(MAX_DEPTH + 1)}))
    assert "'result'" in str(error)


# Each message, and the words that its error must have: the field, and what is allowed.
START, CONFIGURE, PLAYBACK = (
    {"type": "start_session"},
    {"type": "configure"},
    {"type": "playback", "stream_id": 1, "played_samples": 1},
)
RESULT = {"type": "tool_result", "call_id": "a"}
BAD_FIELDS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("'type'", "missing", "start_session", "ping")),
    ({"type": None}, ("'type'", "null")),
    ({"type": 1}, ("'type'", "text")),
    ({"type": []}, ("'type'", "a list")),
    ({"session_id": "hotpin"}, ("'type'", "missing")),
    (START | {"session_id": ""}, ("'session_id'", "64")),
    (START | {"session_id": "a" * 65}, ("'session_id'", "64", "65 characters")),
    (START | {"session_id": "a b"}, ("'session_id'", "letters")),
    (START | {"session_id": "a\n"}, ("'session_id'", "letters")),
    (START | {"session_id": "../a"}, ("'session_id'", "letters")),
    (START | {"session_id": 7}, ("'session_id'", "7")),
    (START | {"sessionId": "a"}, ("unknown field 'sessionId'", "session_id")),
    (START | {"capabilities": []}, ("'capabilities'", "must be an object")),
    (START | {"capabilities": {"pause": 1}}, ("'capabilities.pause'", "true or false")),
    (START | {"capabilities": {"flush": None}}, ("'capabilities.flush'", "null")),
    (
        START | {"capabilities": {"echo": "loud"}},
        ("'capabilities.echo'", "cancelled, raw, unknown"),
    ),
    (START | {"capabilities": {"echo": {}}}, ("'capabilities.echo'", "cancelled")),
    (START | {"capabilities": {"laser": True}}, ("'laser'", "'capabilities'", "display_text")),
    (START | {"device_tools": {}}, ("'device_tools'", "list")),
    (START | {"device_tools": "abc"}, ("'device_tools'", "list")),
    (START | {"device_tools": [1]}, ("'device_tools[0]'", "must be an object")),
    (START | {"device_tools": [LAMP, {}]}, ("'device_tools[1].name'", "missing")),
    (START | {"device_tools": [LAMP | {"name": "a b"}]}, ("'device_tools[0].name'", "a-z")),
    (START | {"device_tools": [LAMP | {"name": "灯"}]}, ("'device_tools[0].name'", "a-z")),
    (START | {"device_tools": [LAMP | {"description": 1}]}, ("'device_tools[0].description'",)),
    (START | {"device_tools": [LAMP | {"parameters": []}]}, ("'device_tools[0].parameters'",)),
    (
        START | {"device_tools": [LAMP | {"parameters": {"type": "string"}}]},
        ("'device_tools[0].parameters'", '"type":"object"'),
    ),
    (
        START | {"device_tools": [LAMP | {"parameters": {"properties": 1}}]},
        ("'device_tools[0].parameters'",),
    ),
    (
        START | {"device_tools": [LAMP | {"parameters": {"a": nested(MAX_DEPTH)}}]},
        ("'device_tools[0].parameters'", str(MAX_DEPTH)),
    ),
    (START | {"device_tools": [LAMP | {"code": "x"}]}, ("'code'", "'device_tools[0]'")),
    (START | {"device_tools": [LAMP, LAMP]}, ("'device_tools'", "different name")),
    (
        START | {"device_tools": [LAMP | {"name": f"a{i}"} for i in range(MAX_DEVICE_TOOLS + 1)]},
        ("'device_tools'", "at most 32"),
    ),
    (CONFIGURE | {"language": ""}, ("'language'", "blank")),
    (CONFIGURE | {"language": ["en"]}, ("'language'", "text")),
    (CONFIGURE | {"voice_id": "a" * 65}, ("'voice_id'", "64")),
    (CONFIGURE | {"system_prompt": "a" * (MAX_TEXT + 1)}, ("'system_prompt'", str(MAX_TEXT))),
    (CONFIGURE | {"vad_threshold": 1.01}, ("'vad_threshold'", "from 0 to 1", "1.01")),
    (CONFIGURE | {"vad_threshold": -0.01}, ("'vad_threshold'", "from 0 to 1")),
    (CONFIGURE | {"vad_threshold": True}, ("'vad_threshold'", "number", "true")),
    (CONFIGURE | {"vad_threshold": "0.5"}, ("'vad_threshold'", "number")),
    (CONFIGURE | {"vad_silence_frames": 0}, ("'vad_silence_frames'", "from 1 to 100")),
    (CONFIGURE | {"vad_silence_frames": 101}, ("'vad_silence_frames'", "from 1 to 100")),
    (CONFIGURE | {"vad_silence_frames": 5.5}, ("'vad_silence_frames'", "whole")),
    (CONFIGURE | {"vad_silence_frames": True}, ("'vad_silence_frames'", "whole")),
    (CONFIGURE | {"end_of_turn_ms": 10_000.5}, ("'end_of_turn_ms'", "from 0 to 10000")),
    (CONFIGURE | {"end_of_turn_ms": -1}, ("'end_of_turn_ms'", "from 0 to 10000")),
    (CONFIGURE | {"interruptible": "no"}, ("'interruptible'", "true or false")),
    (CONFIGURE | {"tools": 0}, ("'tools'", "true or false")),
    (CONFIGURE | {"partial_results": {}}, ("'partial_results'", "true or false")),
    (CONFIGURE | {"output_sample_rate": 11_025}, ("'output_sample_rate'", "8000", "48000")),
    (CONFIGURE | {"output_sample_rate": [16_000]}, ("'output_sample_rate'", "16000")),
    (CONFIGURE | {"speed": 2}, ("unknown field 'speed'", "output_sample_rate")),
    ({"type": "audio_data"}, ("'audio'", "missing")),
    ({"type": "audio_data", "audio": None}, ("'audio'", "base64")),
    ({"type": "audio_data", "audio": "AAA"}, ("'audio'", "base64")),
    ({"type": "audio_data", "audio": "AA\nAA"}, ("'audio'", "base64")),
    ({"type": "audio_data", "audio": "AA=="[::-1]}, ("'audio'", "base64")),
    ({"type": "audio_data", "audio": "AAAA===="}, ("'audio'", "base64")),
    ({"type": "audio_data", "audio": "AA-_"}, ("'audio'", "base64")),
    ({"type": "audio_data", "audio": "声音声音"}, ("'audio'", "base64")),
    ({"type": "text"}, ("'text'", "missing")),
    ({"type": "text", "text": " \n"}, ("'text'", "blank")),
    ({"type": "text", "text": "a" * (MAX_TEXT + 1)}, ("'text'", str(MAX_TEXT), "10001")),
    ({"type": "end_of_speech", "now": True}, ("unknown field 'now'", "none but 'type'")),
    ({"type": "interrupt", "turn_id": 1}, ("unknown field 'turn_id'",)),
    ({"type": "playback"}, ("'stream_id'", "'played_samples'", "missing")),
    (PLAYBACK | {"stream_id": 0}, ("'stream_id'", "from 1")),
    (PLAYBACK | {"stream_id": "1"}, ("'stream_id'", "whole")),
    (PLAYBACK | {"played_samples": -1}, ("'played_samples'", "from 0")),
    (PLAYBACK | {"played_samples": 2**53}, ("'played_samples'", str(2**53 - 1))),
    (PLAYBACK | {"output_latency_ms": 10_001}, ("'output_latency_ms'", "10000")),
    (RESULT, ("'result'", "'error'", "exactly one")),
    (RESULT | {"result": 1, "error": "a"}, ("'result'", "'error'", "exactly one")),
    (RESULT | {"error": 1}, ("'error'", "text")),
    ({"type": "tool_result", "result": 1}, ("'call_id'", "missing")),
    ({"type": "tool_result", "call_id": "a/b", "result": 1}, ("'call_id'", "letters")),
    ({"type": "end_session", "why": ""}, ("unknown field 'why'",)),
    ({"type": "session_stats", "id": 1}, ("unknown field 'id'",)),
    ({"type": "ping", "id": 1.5}, ("'id'", "whole number")),
    ({"type": "ping", "id": True}, ("'id'", "true")),
    ({"type": "ping", "id": "a" * 65}, ("'id'", "64")),
    ({"type": "ping", "id": 2**53}, ("'id'", "whole number")),
]


@pytest.mark.parametrize(("wire", "words"), BAD_FIELDS, ids=lambda value: str(value)[:50])
def test_a_bad_field_is_named(wire: dict[str, Any], words: tuple[str, ...]) -> None:
    """INVALID_MESSAGE says which field, what was wrong and what is allowed, briefly."""
    error = refusal(json.dumps(wire))
    assert error.code is ErrorCode.INVALID_MESSAGE
    assert all(word in str(error) for word in words), str(error)
    assert len(str(error)) < 600


def test_all_bad_fields_are_named_at_once() -> None:
    """One answer is enough to mend a message."""
    error = refusal('{"type":"configure","tools":1,"vad_threshold":7,"nonsense":0}')
    assert all(f"'{name}'" in str(error) for name in ("tools", "vad_threshold", "nonsense"))


NOT_A_MESSAGE = [
    ("", "not JSON"),
    ("hello", "not JSON"),
    ("\ufeff{}", "not JSON"),
    ('{"type":"ping"', "not JSON"),
    ('{"type":"ping"} {}', "not JSON"),
    ("{'type':'ping'}", "not JSON"),
    ("[]", "a list"),
    ("null", "null"),
    ('"ping"', "'ping'"),
    ("17", "17"),
    ('{"type":"configure","vad_threshold":NaN}', "NaN"),
    ('{"type":"configure","vad_threshold":-Infinity}', "-Infinity"),
    ('{"type":"tool_result","call_id":"a","result":1e999}', "too large"),
    ('{"type":"tool_result","call_id":"a","result":' + "9" * 33 + "}", "33 digits"),
    ('{"type":"ping","id":1,"id":2}', "'id'"),
    ('{"type":"tool_result","call_id":"a","result":{"b":1,"b":1}}', "'b'"),
    ('{"type":"text","text":"\\ud800"}', "surrogate"),
    ('{"type":"text","text":"\ud800"}', "surrogate"),
    ('{"type":"tool_result","call_id":"a","result":{"\\udfff":1}}', "surrogate"),
    ('{"type":"ping","id":' + "9" * 5000 + "}", "5000 digits"),
    ('{"type":' + "[" * 100_000, "deep"),
    ('{"type":"tool_result","call_id":"a","result":' + '{"a":' * 90_000, "deep"),
]


@pytest.mark.parametrize(("text", "words"), NOT_A_MESSAGE, ids=lambda value: str(value)[:50])
def test_what_is_no_message_is_refused(text: str, words: str) -> None:
    """INVALID_MESSAGE says what it is instead."""
    error = refusal(text)
    assert error.code is ErrorCode.INVALID_MESSAGE
    assert words in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("depth", [*range(MAX_DEPTH + 1, 1000, 97), *range(900, 1000)])
def test_nesting_near_the_recursion_limit_is_refused(depth: int) -> None:
    """What the parser just manages must not fail later, wherever it is and however it is spelt."""
    for value in ("[" * depth + "]" * depth, '{"\\u0041":' * depth + "1" + "}" * depth):
        for text in (
            '{"type":"tool_result","call_id":"a","result":%s}',
            '{"type":"ping","other":%s}',
            '{"type":%s}',
            "%s",
        ):
            assert refusal(text % value).code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("kind", ["", "Ping", "start", "x" * 1000, "错"])
def test_an_unknown_type_is_answered_with_the_known_ones(kind: str) -> None:
    """UNKNOWN_MESSAGE_TYPE lists what there is, and does not repeat a long type."""
    error = refusal(json.dumps({"type": kind, "more": 1}))
    assert error.code is ErrorCode.UNKNOWN_MESSAGE_TYPE
    assert all(known in str(error) for known in DOCUMENTED)
    assert len(str(error)) < 300


def test_messages_over_the_limit_are_refused() -> None:
    """Text is measured as the wire carries it, in UTF-8."""
    limit = str(MAX_MESSAGE_BYTES)
    for message in (
        bytes(MAX_MESSAGE_BYTES + 1),
        '{"type":"ping"}'.ljust(MAX_MESSAGE_BYTES + 1),
        "{" + "声" * (MAX_MESSAGE_BYTES // 2),
    ):
        error = refusal(message)
        assert error.code is ErrorCode.INVALID_MESSAGE
        assert limit in str(error)
    assert understood('{"type":"ping"}'.ljust(MAX_MESSAGE_BYTES)) == events.PingReceived()


def test_many_unknown_fields_make_a_short_error() -> None:
    """A large message gets no large answer, nor a slow one."""
    names = {f"{number:06}": 0 for number in range(50_000)}
    assert len(str(refusal(json.dumps({"type": "ping"} | names)))) < 300
    twice = json.dumps(names)[:-1] + ',"049999":0}'
    assert "'049999'" in str(refusal(twice))


# --- to the device -----------------------------------------------------------------------

STATISTICS = SessionStatistics(4, 2, 61.5, None, 1_700_000_000.25)
STATISTICS_WIRE = (
    '"message_count":4,"interaction_count":2,"session_duration_seconds":61.5,'
    '"average_interaction_seconds":null,"last_activity":1700000000.25'
)

SENT: list[tuple[events.Notice, str | bytes]] = [
    (
        events.StatusChanged(events.State.LISTENING, "s1"),
        '{"type":"status","state":"listening","session_id":"s1"}',
    ),
    (
        events.StatusChanged(
            events.State.READY,
            "s1",
            restored=False,
            configuration=EffectiveConfiguration(system_prompt="Sei höflich"),
            offer=Offer(("en", "zh"), ("doubao-通用女声",), ()),
            duplex=Duplex.HALF,
        ),
        '{"type":"status","state":"ready","session_id":"s1","restored":false,"configuration":{'
        '"language":"en","voice_id":"default","system_prompt":"Sei höflich","vad_threshold":0.5,'
        '"vad_silence_frames":5,"end_of_turn_ms":null,"interruptible":true,"tools":true,'
        '"partial_results":true,"output_sample_rate":16000},"capabilities":{'
        '"languages":["en","zh"],"voices":["doubao-通用女声"],"tools":[]},"duplex":"half"}',
    ),
    (
        events.StatusChanged(events.State.CLOSING, "s1", statistics=STATISTICS),
        '{"type":"status","state":"closing","session_id":"s1","statistics":{'
        + STATISTICS_WIRE
        + "}}",
    ),
    (
        events.UserTranscript('turn it "off"', True, False, 3, 2),
        '{"type":"asr_result","text":"turn it \\"off\\"","is_final":true,"speeching":false,'
        '"segment_id":3,"turn_id":2}',
    ),
    (
        events.TextDelta(2, "好"),
        '{"type":"llm_response","turn_id":2,"delta":true,"text":"好"}',
    ),
    (
        events.TextDone(2, "好的。"),
        '{"type":"llm_response","turn_id":2,"done":true,"text":"好的。"}',
    ),
    (
        events.TextDone(2, "", (MappingProxyType({"name": "set_volume", "arguments": {}}),)),
        '{"type":"llm_response","turn_id":2,"done":true,"text":"",'
        '"tool_calls":[{"name":"set_volume","arguments":{}}]}',
    ),
    (
        events.ToolCalled(
            2, "c1", "set_lamp", MappingProxyType({"on": True}), events.Target.DEVICE
        ),
        '{"type":"tool_call","turn_id":2,"call_id":"c1","name":"set_lamp",'
        '"arguments":{"on":true},"target":"device"}',
    ),
    (
        events.ToolReturned(2, "c1", "get_time", True, None, 12.34567),
        '{"type":"tool_result","turn_id":2,"call_id":"c1","name":"get_time","ok":true,'
        '"result":null,"duration_ms":12.346}',
    ),
    (
        events.ToolReturned(2, "c1", "get_weather", False, "no such city", 3.0),
        '{"type":"tool_result","turn_id":2,"call_id":"c1","name":"get_weather","ok":false,'
        '"error":"no such city","duration_ms":3.0}',
    ),
    (
        events.StreamStarted(2, 5, 24_000),
        '{"type":"tts_audio","state":"start","turn_id":2,"stream_id":5,"sample_rate":24000,'
        '"source":"speech"}',
    ),
    (
        events.StreamStarted(2, 6, 16_000, events.Source.MUSIC),
        '{"type":"tts_audio","state":"start","turn_id":2,"stream_id":6,"sample_rate":16000,'
        '"source":"music"}',
    ),
    (
        events.SentenceStarted(5, "Bis bald.", 4800),
        '{"type":"tts_audio","state":"sentence","stream_id":5,"text":"Bis bald.",'
        '"from_sample":4800}',
    ),
    (events.AudioChunk(5, PCM), PCM),
    (
        events.StreamEnded(5, 9600),
        '{"type":"tts_audio","state":"end","stream_id":5,"samples":9600}',
    ),
    (events.StreamPaused(5), '{"type":"pause","stream_id":5}'),
    (events.StreamResumed(5), '{"type":"resume","stream_id":5}'),
    (events.StreamFlushed(5), '{"type":"flush","stream_id":5}'),
    (
        events.TurnInterrupted(2, "Once upon", "a time", 500.0, events.Certainty.REPORTED),
        '{"type":"interrupted","turn_id":2,"heard_text":"Once upon","unheard_text":"a time",'
        '"played_ms":500.0,"certainty":"reported"}',
    ),
    (
        events.TurnMetrics(2, end_of_speech_ms=80.0, first_audio_ms=0.1 + 0.2),
        '{"type":"turn_metrics","turn_id":2,"end_of_speech_ms":80.0,"transcript_ms":null,'
        '"turn_started_ms":null,"first_token_ms":null,"first_sentence_ms":null,'
        '"first_audio_ms":0.3,"text_done_ms":null,"audio_done_ms":null,"ended_ms":null,'
        '"certainty":null}',
    ),
    (
        events.StatisticsSent("s1", STATISTICS),
        '{"type":"session_stats","session_id":"s1",' + STATISTICS_WIRE + "}",
    ),
    (
        events.ErrorReported(ErrorCode.INVALID_MESSAGE, "bad"),
        '{"type":"error","code":"INVALID_MESSAGE","message":"bad"}',
    ),
    (
        events.ErrorReported(ErrorCode.RATE_LIMITED, "slow down", 2, 1500),
        '{"type":"error","code":"RATE_LIMITED","message":"slow down","turn_id":2,'
        '"retry_after_ms":1500}',
    ),
    (events.PongSent(), '{"type":"pong"}'),
    (events.PongSent("a"), '{"type":"pong","id":"a"}'),
    (events.PongSent(0), '{"type":"pong","id":0}'),
]


@pytest.mark.parametrize(("notice", "wire"), SENT, ids=lambda value: str(value)[:50])
def test_a_notice_is_told(notice: events.Notice, wire: str | bytes) -> None:
    """One message, byte for byte, for each notice."""
    assert ListenAIDialect().send(notice, 0.0) == (wire,)


def test_every_notice_is_in_the_golden_table() -> None:
    """A notice without a row would be a KeyError in front of a device."""
    told = {type(notice) for notice, _ in SENT}
    assert told | {type(notice) for notice in UNTOLD} == set(get_args(events.Notice))


UNTOLD: list[events.Notice] = [
    events.NothingUnderstood(),
    events.VoiceNoticed(speaking=True),
    events.Answer(("{}",)),
]


@pytest.mark.parametrize("notice", UNTOLD, ids=str)
def test_what_other_dialects_tell_is_not_told(notice: events.Notice) -> None:
    """These devices learn it from `status`, or never ask."""
    assert ListenAIDialect().send(notice, 0.0) == ()


def test_audio_is_sent_as_it_is() -> None:
    """The very bytes, not a copy of them."""
    (message,) = ListenAIDialect().send(events.AudioChunk(1, PCM), 0.0)
    assert message is PCM


@pytest.mark.parametrize("result", [float("nan"), object()])
def test_what_is_not_json_is_a_bug_of_ours(result: object) -> None:
    """It is raised here, and not left to the device's parser."""
    with pytest.raises((TypeError, ValueError)):
        ListenAIDialect().send(events.ToolReturned(1, "c", "t", True, result, 1.0), 0.0)


def test_there_are_no_deadlines() -> None:
    """Heartbeats are the wire's business here; the profile is the one given."""
    dialect = ListenAIDialect(DeviceProfile(history_messages=4))
    assert dialect.next_deadline() == NEVER
    assert dialect.expire(1e9) == ()
    dialect.undelivered(["{}"], 1e9)
    assert dialect.profile.history_messages == 4
    assert ListenAIDialect().profile == DeviceProfile()


# --- arbitrary messages: 10 000 in all ---------------------------------------------------


def arbitrary(examples: int) -> settings:
    """The same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


FIELD_NAMES = sorted(
    {field.name for message in CLIENT_MESSAGES.values() for field in attrs.fields(message)}
    | {"type", "pause", "flush", "echo", "name", "description", "parameters", "unknown"}
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # NaN and the infinities too: json.dumps writes them
    | st.text(max_size=20)
    | st.sampled_from(["en", "raw", AUDIO, 0, 1, 16_000, 2**53, 1e308, *CLIENT_MESSAGES])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELD_NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


def must_be_understood_or_refused(message: str | bytes) -> None:
    """Whatever it is: a request, or a ProtocolError with one of two codes and some words."""
    requests: Sequence[events.Request] = ()
    refused: ProtocolError | None = None
    try:
        requests = ListenAIDialect().receive(message, 0.0)
    except ProtocolError as error:
        refused = error
    assert all(isinstance(request, get_args(events.Request)) for request in requests)
    assert len(requests) == (0 if refused else 1)
    if refused:
        assert refused.code in {ErrorCode.INVALID_MESSAGE, ErrorCode.UNKNOWN_MESSAGE_TYPE}
        assert 0 < len(str(refused)) < 2000
        str(refused).encode()  # it can be sent


@pytest.mark.slow
@arbitrary(3500)
@given(st.text() | st.binary() | st.text(alphabet='{}[]":,\\u0dtyper19.eE-', max_size=30))
def test_arbitrary_text_and_binary(message: str | bytes) -> None:
    """Nothing but ProtocolError is raised."""
    must_be_understood_or_refused(message)


@pytest.mark.slow
@arbitrary(1500)
@given(VALUES)
def test_arbitrary_json(value: Any) -> None:
    """Nothing but ProtocolError is raised."""
    must_be_understood_or_refused(json.dumps(value))


@pytest.mark.slow
@arbitrary(1500)
@given(
    st.sampled_from([wire for wire, _ in RECEIVED]),
    st.dictionaries(st.sampled_from(FIELD_NAMES), VALUES, max_size=2),
    st.sets(st.sampled_from(FIELD_NAMES), max_size=1),
)
def test_messages_with_other_fields(
    wire: dict[str, Any], changes: dict[str, Any], without: set[str]
) -> None:
    """Nothing but ProtocolError is raised."""
    fields = {name: value for name, value in (wire | changes).items() if name not in without}
    must_be_understood_or_refused(json.dumps(fields))


@pytest.mark.slow
@arbitrary(3500)
@given(
    st.sampled_from([json.dumps(wire) for wire, _ in RECEIVED]),
    st.integers(0, 300),
    st.integers(0, 4),
    st.text(max_size=3) | st.sampled_from(['"', "\\", "{", "}", "[", "]", "1e999", "\\ud800"]),
)
def test_messages_with_other_characters(text: str, at: int, cut: int, put: str) -> None:
    """Nothing but ProtocolError is raised."""
    must_be_understood_or_refused(text[:at] + put + text[at + cut :])
