"""The Configurator dialect: what it understands, what it refuses and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listenai import events
from listenai.audio import Encoding
from listenai.device import Capabilities, Conditioning, DeviceProfile, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.configurator import (
    CLIENT_MESSAGES,
    MAX_TEXT,
    PROFILES,
    Channel,
    ConfiguratorDialect,
)
from listenai.dialects.json_text import MAX_MESSAGE_BYTES
from listenai.errors import ErrorCode, ProtocolError
from listenai.events import Source, State
from listenai.settings import SessionStatistics

PCM = bytes(range(256)) + b"\x01"  # odd sizes are allowed
SEEING, HEARING = Capabilities(display_text=True), Capabilities(flush=True, echo=Echo.CANCELLED)


def dialect(channel: Channel = Channel.VOICE) -> ConfiguratorDialect:
    """A new device's."""
    return ConfiguratorDialect(channel, PROFILES[channel])


# --- from the device ---------------------------------------------------------------------

SESSION, MESSAGE = '{"type":"session"}', '{"type":"message","text":"hello"}'
START, END = '{"type":"audio_start","sample_rate":16000}', '{"type":"audio_end"}'
ANALYTICS = '{"type":"analytics"}'
BEGIN = events.SessionStart(None, HEARING)

# Each a connection at `/voice`: the messages, each with the requests that it is.
RECEIVED: dict[str, list[tuple[str | bytes, tuple[events.Request, ...]]]] = {
    "a session, text, sound and what is counted": [
        (SESSION, (BEGIN,)),
        ('{"type": "message", "text": "你好 🙂"}', (events.TextTyped("你好 🙂"),)),
        (START, ()),
        (PCM, (events.AudioReceived(PCM),)),
        (b"", (events.AudioReceived(b""),)),
        (END, (events.SpeechFinished(),)),
        (ANALYTICS, (events.StatisticsAsked(),)),
    ],
    "a session by its id": [
        (
            '{"type":"session","session_id":"Küche_1.a-b"}',
            (events.SessionStart("Küche_1.a-b", HEARING),),
        ),
        (MESSAGE, (events.TextTyped("hello"),)),
    ],
    "no id is an id left out, and what nobody knows is ignored": [
        ('{"type":"session","session_id":null,"page":{"version":[1]}}', (BEGIN,)),
        ('{"type":"message","text":"hello","sent_at":1}', (events.TextTyped("hello"),)),
    ],
    "text alone begins a session": [
        (MESSAGE, (BEGIN, events.TextTyped("hello"))),
        (MESSAGE, (events.TextTyped("hello"),)),
    ],
    "sound alone begins a session": [
        (START, (BEGIN,)),
        (PCM, (events.AudioReceived(PCM),)),
    ],
    "a question alone begins a session": [(ANALYTICS, (BEGIN, events.StatisticsAsked()))],
    "the conversation says what is wrong with a second session": [
        (SESSION, (BEGIN,)),
        ('{"type":"session","session_id":"b"}', (events.SessionStart("b", HEARING),)),
    ],
    "any rate is converted, until the next start": [
        ('{"type":"audio_start","sample_rate":44100}', (BEGIN,)),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 44_100),)),
        ('{"type":"audio_start","sample_rate":8000.0}', ()),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 8_000),)),
        (END, (events.SpeechFinished(),)),
        ('{"type":"audio_start","sample_rate":48000}', ()),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 48_000),)),
        (START, ()),
        (PCM, (events.AudioReceived(PCM),)),
    ],
}


@pytest.mark.parametrize("name", RECEIVED)
def test_messages_are_understood(name: str) -> None:
    """Message by message, the requests are these."""
    device = dialect()
    for message, requests in RECEIVED[name]:
        assert device.receive(message, 0.0) == requests


def test_every_message_is_in_the_golden_table() -> None:
    """And everything that it can ask for."""
    rows = [row for table in RECEIVED.values() for row in table]
    types = {json.loads(message)["type"] for message, _ in rows if isinstance(message, str)}
    assert types == set(CLIENT_MESSAGES[Channel.VOICE])
    asked = {type(request) for _, requests in rows for request in requests}
    assert asked == {
        *(events.SessionStart, events.TextTyped, events.SpeechFinished, events.StatisticsAsked),
        *(events.AudioReceived, events.EncodedAudio),
    }


def test_a_chat_is_text() -> None:
    """Its device shows what it is told; sound is for the other place, which is said."""
    device = dialect(Channel.CHAT)
    assert device.receive(MESSAGE, 0.0) == (
        events.SessionStart(None, SEEING),
        events.TextTyped("hello"),
    )
    assert device.receive('{"type":"session","session_id":"a"}', 0.0) == (
        events.SessionStart("a", SEEING),
    )
    for message in (START, END):
        with pytest.raises(ProtocolError, match=r"known types: session, message, analytics$"):
            device.receive(message, 0.0)
    with pytest.raises(ProtocolError, match="at /voice only; connect there with this session's id"):
        device.receive(PCM, 0.0)


@pytest.mark.parametrize("channel", Channel)
def test_audio_out_of_place_is_refused_once(channel: Channel) -> None:
    """A microphone that is left open does not get an error for each of its messages."""
    device = dialect(channel)
    with pytest.raises(ProtocolError):
        device.receive(PCM, 0.0)
    assert device.receive(PCM, 0.0) == ()
    if channel is Channel.VOICE:
        device.receive(START, 0.0)
        assert device.receive(PCM, 0.0) == (events.AudioReceived(PCM),)
        device.receive(END, 0.0)
        with pytest.raises(ProtocolError, match="between audio_start and audio_end"):
            device.receive(PCM, 0.0)
        assert device.receive(PCM, 0.0) == ()


def test_audio_is_passed_on_as_it_is() -> None:
    """The very bytes, not a copy of them, up to the largest message."""
    device = dialect()
    device.receive(START, 0.0)
    [request] = device.receive(PCM, 0.0)
    assert isinstance(request, events.AudioReceived)
    assert request.pcm is PCM
    largest = bytes(MAX_MESSAGE_BYTES)
    assert device.receive(largest, 0.0) == (events.AudioReceived(largest),)


REFUSED: list[tuple[str | bytes, tuple[str, ...]]] = [
    ("", ("not JSON",)),
    ("session", ("not JSON",)),
    ('["session"]', ("JSON object", "a list")),
    ("{}", ("'type'", "missing", "session, message, analytics, audio_start, audio_end")),
    ('{"type":null}', ("'type'", "null")),
    ('{"type":"start_session"}', ("'start_session'", "session, message")),
    ('{"type":"session","type":"message"}', ("'type'", "twice")),
    ('{"type":"session","session_id":""}', ("'session_id'", "64")),
    ('{"type":"session","session_id":"../a"}', ("'session_id'", "letters")),
    ('{"type":"session","session_id":7}', ("'session_id'", "7")),
    ('{"type":"message"}', ("'text'", "missing")),
    ('{"type":"message","text":" "}', ("'text'", "blank")),
    ('{"type":"message","text":["a"]}', ("'text'", "a list")),
    ('{"type":"message","text":"' + "a" * (MAX_TEXT + 1) + '"}', ("'text'", "10000", "10001")),
    ('{"type":"message","text":"\\ud800"}', ("surrogate",)),
    ('{"type":"audio_start"}', ("'sample_rate'", "missing")),
    ('{"type":"audio_start","sample_rate":null}', ("'sample_rate'", "null")),
    ('{"type":"audio_start","sample_rate":7999}', ("'sample_rate'", "from 8000 to 48000")),
    ('{"type":"audio_start","sample_rate":48001}', ("'sample_rate'", "48001")),
    ('{"type":"audio_start","sample_rate":16000.5}', ("'sample_rate'", "whole number")),
    ('{"type":"audio_start","sample_rate":"16000"}', ("'sample_rate'", "whole number")),
    ('{"type":"audio_start","sample_rate":true}', ("'sample_rate'", "true")),
    (END, ("audio_start first",)),
    (bytes(MAX_MESSAGE_BYTES + 1), (str(MAX_MESSAGE_BYTES), "smaller")),
    ('{"type":"' + "a" * MAX_MESSAGE_BYTES + '"}', (str(MAX_MESSAGE_BYTES), "smaller")),
]


@pytest.mark.parametrize(("message", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_is_refused_and_changes_nothing(
    message: str | bytes, words: tuple[str, ...]
) -> None:
    """The error says what was wrong and what is allowed."""
    device = dialect()
    with pytest.raises(ProtocolError) as caught:
        device.receive(message, 0.0)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert device.receive(SESSION, 0.0) == (BEGIN,)


# --- to the device -----------------------------------------------------------------------

STATISTICS = SessionStatistics(4, 2, 61.5, 7.2504, 1_767_225_600.0)
CALL = ("c1", "get_time")
STOPPED = events.TurnInterrupted(1, "a", "b", 5.0, events.Certainty.ESTIMATED)
UNTOLD: list[events.Notice] = [
    *(events.StatusChanged(state, "s1") for state in State if state is not State.READY),
    events.ToolCalled(1, *CALL, {}, events.Target.SERVER),
    events.ToolReturned(1, *CALL, True, "ten", 1.0),
    events.SentenceStarted(1, "One.", 0),
    events.AudioChunk(1, PCM),  # of a stream that was never started, as all of these
    events.StreamEnded(1, 5),
    events.StreamFlushed(1),
    events.StreamPaused(1),
    events.StreamResumed(1),
    events.PongSent(),
    events.Answer(("{}",)),  # sent as it is, by the conversation
]
NOTHING_YET = '{"turns":0,"interruptions":0,"errors":0,"mean_latency_ms":null}'
TEXT_TOLD: list[tuple[events.Notice, list[str | bytes]]] = [
    (
        events.StatusChanged(State.READY, "s1", restored=False),
        ['{"type":"session","session_id":"s1","resumed":false}'],
    ),
    (
        events.StatusChanged(State.READY, "s1", restored=True),
        ['{"type":"session","session_id":"s1","resumed":true}'],
    ),
    (events.TextDelta(1, " 好"), ['{"type":"response_delta","text":" 好"}']),
    (
        events.TextDone(1, 'all "of" it', ({"name": "get_time"},)),
        ['{"type":"response","text":"all \\"of\\" it"}'],
    ),
    (STOPPED, ['{"type":"response","text":""}']),
    (events.TurnMetrics(1), ['{"type":"response","text":""}']),
    (
        events.StatisticsSent("s1", STATISTICS),
        [
            '{"type":"analytics","session_id":"s1","session":{"messages":4,"interactions":2,'
            '"duration_seconds":61.5,"mean_interaction_seconds":7.25,'
            f'"last_activity":1767225600.0}},"connection":{NOTHING_YET}}}'
        ],
    ),
    (
        events.ErrorReported(ErrorCode.LLM_ERROR, "gone", 2, 1500, timed_out=True),
        ['{"type":"error","code":"LLM_ERROR","message":"gone"}'],
    ),
]
SOUND_TOLD: list[tuple[events.Notice, list[str | bytes]]] = [
    (
        events.UserTranscript("你", False, True, 1, 1),
        ['{"type":"transcript","text":"你","final":false}'],
    ),
    (
        events.UserTranscript("你好", True, False, 1, 1),
        ['{"type":"transcript","text":"你好","final":true}'],
    ),
    (events.NothingUnderstood(), ['{"type":"transcript","text":"","final":true}']),
    (
        events.VoiceNoticed(speaking=True, threshold=-52.345),
        ['{"type":"vad","speaking":true,"threshold":-52.3}'],
    ),
    (
        events.VoiceNoticed(speaking=False),
        ['{"type":"vad","speaking":false,"threshold":null}'],
    ),
    (
        events.StreamStarted(1, 7, 24_000),
        ['{"type":"audio_start","sample_rate":24000}'],
    ),
]
TTS_ERROR = events.ErrorReported(ErrorCode.TTS_ERROR, "gone", 1)


@pytest.mark.parametrize(
    ("notice", "wire"),
    [*TEXT_TOLD, *SOUND_TOLD, *((notice, []) for notice in UNTOLD)],
    ids=str,
)
def test_a_notice_is_told(notice: events.Notice, wire: list[str]) -> None:
    """Byte for byte, to a device that was told nothing before."""
    assert list(dialect().send(notice, 0.0)) == wire


@pytest.mark.parametrize(
    ("notice", "wire"),
    [*TEXT_TOLD, *((notice, []) for notice in (TTS_ERROR, *UNTOLD, *(n for n, _ in SOUND_TOLD)))],
    ids=str,
)
def test_a_notice_is_told_to_a_chat(notice: events.Notice, wire: list[str]) -> None:
    """The same words, and neither sound nor what goes wrong with it."""
    assert list(dialect(Channel.CHAT).send(notice, 0.0)) == wire


def test_every_notice_has_been_tried() -> None:
    tried = {type(notice) for notice in (*UNTOLD, *(n for n, _ in (*TEXT_TOLD, *SOUND_TOLD)))}
    assert tried == set(get_args(events.Notice))


Script = Sequence[tuple[events.Notice, list[str | bytes]]]


def must_tell(device: ConfiguratorDialect, script: Script) -> None:
    """These notices are told by these messages."""
    for notice, wire in script:
        assert list(device.send(notice, 0.0)) == wire, notice


def delta(text: str) -> tuple[events.Notice, list[str | bytes]]:
    return events.TextDelta(1, text), [f'{{"type":"response_delta","text":"{text}"}}']


def response(text: str) -> str:
    return f'{{"type":"response","text":"{text}"}}'


AUDIO_START, AUDIO_END = '{"type":"audio_start","sample_rate":16000}', '{"type":"audio_end"}'
STOP_AUDIO = '{"type":"stop_audio"}'
SPEAKING: Script = [
    delta("One. "),
    (events.StreamStarted(1, 7, 16_000), [AUDIO_START]),
    (events.SentenceStarted(7, "One.", 0), []),
    (events.AudioChunk(7, PCM), [PCM]),
    delta("Two."),
]
DONE: Script = [(events.TextDone(1, "One. Two."), [response("One. Two.")])]
MEASURED: Script = [(events.TurnMetrics(1), [])]


def test_a_reply_is_told_from_the_first_word_to_the_last_sample() -> None:
    """Its sound in brackets, its text once more as a whole."""
    script = [
        *SPEAKING,
        *DONE,
        (events.AudioChunk(7, b"\1\2"), [b"\1\2"]),
        (events.StreamEnded(7, 130), [AUDIO_END]),
        *MEASURED,
    ]
    must_tell(dialect(), script)


def test_a_barge_in_stops_the_sound_at_once() -> None:
    """`stop_audio` and none of its sound after it; the text ends with what was told of it."""
    device = dialect()
    must_tell(device, SPEAKING)
    must_tell(
        device,
        [
            (events.StreamFlushed(7), [STOP_AUDIO]),
            (events.AudioChunk(7, PCM), []),  # which the conversation promises not to do
            (events.StreamEnded(7, 130), []),
            (STOPPED, [response("One. Two.")]),
            *MEASURED,
            (events.StreamStarted(2, 8, 16_000), [AUDIO_START]),
            (events.AudioChunk(8, PCM), [PCM]),
        ],
    )


def test_a_barge_in_stops_what_is_still_played() -> None:
    """All was sent; the loudspeaker is behind.  The text was told before."""
    script = [
        *SPEAKING,
        *DONE,
        (events.StreamEnded(7, 130), [AUDIO_END]),
        (events.StreamFlushed(7), [STOP_AUDIO]),
        (STOPPED, []),
        *MEASURED,
    ]
    must_tell(dialect(), script)


def test_a_reply_that_fails_ends_with_its_text() -> None:
    """Once, whatever has failed; the next reply's text is its own."""
    device = dialect()
    must_tell(device, SPEAKING)
    must_tell(
        device,
        [
            (TTS_ERROR, ['{"type":"error","code":"TTS_ERROR","message":"gone"}']),
            (events.TurnMetrics(1), [response("One. Two.")]),
            (events.TextDelta(2, "Three."), ['{"type":"response_delta","text":"Three."}']),
            (events.TurnMetrics(2), [response("Three.")]),
        ],
    )


def test_music_stands_in_brackets_too() -> None:
    """And belongs to no reply: nothing of its text is told again."""
    script = [
        *SPEAKING,
        *DONE,
        (events.StreamEnded(7, 130), [AUDIO_END]),
        *MEASURED,
        (events.StreamStarted(1, 8, 16_000, Source.MUSIC), [AUDIO_START]),
        (events.AudioChunk(8, PCM), [PCM]),
        (events.StreamFlushed(8), [STOP_AUDIO]),
    ]
    must_tell(dialect(), script)


def test_the_threshold_is_told_with_the_silence_too() -> None:
    """It is the one that holds, until another is known."""
    loud = '{{"type":"vad","speaking":{},"threshold":{}}}'
    script: Script = [
        (events.VoiceNoticed(True, -50.0), [loud.format("true", -50.0)]),
        (events.VoiceNoticed(False), [loud.format("false", -50.0)]),
        (events.VoiceNoticed(True, -41.25), [loud.format("true", -41.2)]),
        (events.VoiceNoticed(False), [loud.format("false", -41.2)]),
    ]
    must_tell(dialect(), script)


def test_who_was_understood_is_not_told_that_nothing_was() -> None:
    """`audio_end` after a silence that had ended the utterance; the next one begins anew."""
    device = dialect()
    nothing: Script = [
        (events.NothingUnderstood(), ['{"type":"transcript","text":"","final":true}'])
    ]
    said = '{"type":"transcript","text":"hello","final":true}'
    device.receive(START, 0.0)
    must_tell(device, [(events.UserTranscript("hello", True, False, 1, 1), [said])])
    device.receive(END, 0.0)
    must_tell(device, [(events.NothingUnderstood(), [])])
    device.receive(START, 0.0)
    device.send(events.UserTranscript("um", False, True, 2, 2), 0.0)  # partial: it may be nothing
    device.receive(END, 0.0)
    must_tell(device, nothing)


def test_what_a_connection_saw_is_counted() -> None:
    """Turns, interruptions, errors, and the mean time to the first sound; of a chat, text."""
    for channel, mean in ((Channel.VOICE, 200.25), (Channel.CHAT, 30.0)):
        device = dialect(channel)
        device.send(events.TurnMetrics(1, first_token_ms=20.0, first_audio_ms=100.5), 0.0)
        device.send(events.TurnMetrics(2, first_token_ms=40.0, first_audio_ms=300.0), 0.0)
        device.send(events.ErrorReported(ErrorCode.LLM_ERROR, "gone", 3), 0.0)
        device.send(STOPPED, 0.0)
        device.send(events.TurnMetrics(3), 0.0)
        [told] = device.send(events.StatisticsSent("s1", STATISTICS), 0.0)
        assert json.loads(told)["connection"] == {
            "turns": 3,
            "interruptions": 1,
            "errors": 1,
            "mean_latency_ms": mean,
        }


def test_a_chat_that_goes_on_interrupts_nothing() -> None:
    """Its answer was told as a whole; at the other place it was still being heard."""
    for channel, interruptions in ((Channel.VOICE, 1), (Channel.CHAT, 0)):
        device = dialect(channel)
        must_tell(device, [*DONE, (STOPPED, [])])
        [told] = device.send(events.StatisticsSent("s1", STATISTICS), 0.0)
        assert json.loads(told)["connection"]["interruptions"] == interruptions


def test_a_session_that_cannot_be_had_is_followed_by_another() -> None:
    """The error is told; what comes next begins a new one.  Later ones change nothing."""
    device = dialect()
    refused = events.ErrorReported(ErrorCode.SESSION_ERROR, "it is somebody else's")
    device.receive('{"type":"session","session_id":"theirs"}', 0.0)
    device.send(refused, 0.0)
    assert device.receive(MESSAGE, 0.0) == (BEGIN, events.TextTyped("hello"))
    device.send(events.StatusChanged(State.READY, "s1", restored=False), 0.0)
    device.send(refused, 0.0)
    assert device.receive(MESSAGE, 0.0) == (events.TextTyped("hello"),)


def test_the_profile_is_the_protocols_and_there_are_no_deadlines() -> None:
    """As PROTOCOLS' table has it: ten messages, 30 s, a lead of 160 ms with its `stop_audio`."""
    assert PROFILES[Channel.VOICE] == DeviceProfile(
        history_messages=10,
        temperature=0.7,
        max_tokens=2048,
        utterance_seconds=30.0,
        lead_seconds=0.16,
        paced=True,
        tell_voice=True,
        conditioning=Conditioning(adaptive_threshold=True),
    )
    assert PROFILES[Channel.VOICE].lead(HEARING) == 0.16
    assert PROFILES[Channel.CHAT] == DeviceProfile(paced=False, speaks=False)
    device = dialect()
    assert device.next_deadline() == NEVER
    assert device.expire(1e9) == ()
    device.undelivered(["{}"], 1e9)


# --- arbitrary messages: 10 000 in all, and arbitrary notices ----------------------------


def arbitrary(examples: int) -> settings:
    """The same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def must_be_understood_or_refused(device: ConfiguratorDialect, message: str | bytes) -> None:
    """Whatever it is: requests, or a ProtocolError with some words that can be sent."""
    requests: Sequence[events.Request] = ()
    refused: ProtocolError | None = None
    try:
        requests = device.receive(message, 0.0)
    except ProtocolError as error:
        refused = error
    assert all(isinstance(request, get_args(events.Request)) for request in requests)
    if refused:
        assert 0 < len(str(refused)) < 2000
        [told] = device.send(events.ErrorReported(refused.code, str(refused)), 0.0)
        assert isinstance(told, str)
        assert json.loads(told)["code"] in ("INVALID_MESSAGE", "UNKNOWN_MESSAGE_TYPE")
        told.encode()


GOOD = [SESSION, MESSAGE, START, END, ANALYTICS, '{"type":"audio_start","sample_rate":44100}']
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # NaN and the infinities too: json.dumps writes them
    | st.text(max_size=20)
    | st.sampled_from([8_000, 16_000.0, 48_000, 2**53, 1e308, "session", "a b"])
)
NAMES = st.sampled_from(["type", "sample_rate", "session_id", "text"]) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)
MUTILATED = st.builds(
    lambda text, at, cut, put: text[:at] + put + text[at + cut :],
    st.sampled_from(GOOD),
    st.integers(0, 40),
    st.integers(0, 4),
    st.text(max_size=3) | st.sampled_from(['"', "\\", "{", "}", "[", "]", "1e999", "\\ud800"]),
)
OBJECTS = st.builds(
    lambda kind, more: json.dumps({"type": kind} | more),
    st.sampled_from(["session", "message", "audio_start", "audio_end", "analytics", "vad"]),
    st.dictionaries(NAMES, VALUES, max_size=2),
)
MESSAGES = (
    st.sampled_from(GOOD)
    | st.binary()
    | st.text()
    | st.text(alphabet='{}[]":,\\u0dtyper19.eE-', max_size=30)
    | VALUES.map(json.dumps)
    | OBJECTS
    | MUTILATED
)


@pytest.mark.slow
@arbitrary(1000)
@given(st.sampled_from(Channel), st.lists(MESSAGES, min_size=10, max_size=10))
def test_arbitrary_messages(channel: Channel, messages: list[str | bytes]) -> None:
    """Nothing but ProtocolError is raised, whatever was said before."""
    device = dialect(channel)
    for message in messages:
        must_be_understood_or_refused(device, message)


NUMBERS = st.integers(1, 3)  # of turns and streams: so that they meet
ANY = st.none() | st.text(max_size=5)
SOME_STATISTICS = st.builds(
    SessionStatistics,
    *(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1e9)),
    *(st.none() | st.floats(0, 1e9), st.floats(0, 1e10)),
)
BY_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "turn_id": NUMBERS,
    "stream_id": NUMBERS,
    "sample_rate": st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000]),
    "arguments": st.dictionaries(st.text(max_size=3), ANY, max_size=1),
    "tool_calls": st.just(()),
    "result": ANY,
    "pcm": st.binary(max_size=20),
    "messages": st.just(("{}",)),
    "id": st.none(),
    "configuration": st.none(),
    "offer": st.none(),
    "statistics": SOME_STATISTICS,
    "threshold": st.none() | st.floats(-120, 0),
    "duration_ms": st.floats(0, 1e6),
    "played_ms": st.floats(0, 1e6),
}
TOLD_TYPES = {
    *("session", "response_delta", "response", "analytics", "error", "transcript", "vad"),
    *("audio_start", "audio_end", "stop_audio"),
}


def notices_of(kind: type[Any]) -> st.SearchStrategy[events.Notice]:
    """Any notice of a type; numbers as they can be."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name[0] != "_"}
    fields = {
        name: BY_FIELD[name]
        if name in BY_FIELD
        else st.none() | st.floats(-1e6, 1e6)
        if name.endswith("_ms") and kind is events.TurnMetrics
        else st.from_type(hint)
        for name, hint in hints.items()
    }
    return st.builds(kind, **fields)


@pytest.mark.slow
@arbitrary(500)
@given(
    st.sampled_from(Channel),
    st.lists(
        st.one_of([notices_of(kind) for kind in get_args(events.Notice)]), min_size=5, max_size=30
    ),
)
def test_arbitrary_notices(channel: Channel, notices: list[events.Notice]) -> None:
    """None raises, in whatever order; messages are the protocol's, and sound is never stray."""
    device, sounding = dialect(channel), False
    for now, notice in enumerate(notices):
        for message in device.send(notice, float(now)):
            if isinstance(message, bytes):
                assert sounding
                continue
            kind = json.loads(message)["type"]
            assert kind in TOLD_TYPES
            sounding = kind == "audio_start" or (sounding and kind != "stop_audio")
            message.encode()
