"""The Ninja dialect (spec 004): what it understands, refuses and says, byte for byte."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Sequence
from typing import Any, get_args

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listenai import events
from listenai.audio import Encoding
from listenai.device import Capabilities, Conditioning, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.json_text import MAX_MESSAGE_BYTES
from listenai.dialects.mailboxes import MAX_BOXES, Mailboxes
from listenai.dialects.ninja import PROFILE, NinjaDialect
from listenai.dialects.ninja_messages import CLIENT_MESSAGES
from listenai.dialects.reference import NOTICES
from listenai.errors import ErrorCode, ProtocolError
from listenai.settings import Configuration, SessionStatistics

PCM = bytes(range(256)) + b"\x01"  # odd sizes are allowed
WEBM = bytes.fromhex("1A45DFA3") + PCM
AT = 1_767_225_600.25  # seconds since 1970
STAMP = 1_767_225_600_250
WHO = {"userId": "user-123", "callId": "call-456", "authToken": "good"}


def refuse(token: str, user_id: str, call_id: str) -> str | None:
    """Knows one user's one call."""
    good = (token, user_id, call_id) == ("good", "user-123", "call-456")
    return None if good else "data.authToken is not good"


def new(mailboxes: Mailboxes | None = None) -> NinjaDialect:
    """One that has heard nothing."""
    boxes = Mailboxes() if mailboxes is None else mailboxes
    return NinjaDialect(PROFILE, boxes, refuse, lambda: AT, lambda: {"cpuPercent": 1.5})


def envelope(kind: str, data: Any, call_id: str = "call-456") -> str:
    """A message as the documentation's client writes it."""
    return json.dumps({"type": kind, "callId": call_id, "timestamp": STAMP, "data": data})


START = envelope("session_start", WHO)
# The document's client has the browser cancel its echo.
SESSION = events.SessionStart("call-456", Capabilities(echo=Echo.CANCELLED))


def started(mailboxes: Mailboxes | None = None, **options: Any) -> NinjaDialect:
    """One whose session_start was understood at 0 s; told of its session."""
    dialect = new(mailboxes)
    dialect.receive(envelope("session_start", WHO | {"options": options}), 0.0)
    dialect.send(events.StatusChanged(events.State.READY, "call-456", restored=False), 0.0)
    return dialect


def told(dialect: NinjaDialect, *notices: events.Notice, now: float = 0.0) -> list[str]:
    """What the device gets, the texts shortened to type and data."""
    messages = [message for notice in notices for message in dialect.send(notice, now)]
    return [short(message) for message in messages]


def short(message: str | bytes) -> str:
    """The type and the data; of a binary message, that it is one."""
    if isinstance(message, bytes):
        return f"binary of {len(message)}"
    fields = json.loads(message)
    assert list(fields) == ["type", "callId", "timestamp", "data"]
    assert fields["timestamp"] == STAMP
    return f"{fields['type']} {json.dumps(fields['data'], ensure_ascii=False)}"


# --- from the device ---------------------------------------------------------------------

# After session_start: each message, and what the conversation is asked.
AUDIO = base64.b64encode(PCM).decode()
WEBM_AUDIO = base64.b64encode(WEBM).decode()
RECEIVED: list[tuple[str | bytes, tuple[events.Request, ...]]] = [
    (PCM, (events.AudioReceived(PCM),)),
    (b"", (events.AudioReceived(b""),)),
    (WEBM, (events.EncodedAudio(WEBM, Encoding.WEBM_OPUS, 48_000),)),
    (envelope("audio_chunk", {"audio": AUDIO}), (events.AudioReceived(PCM),)),
    (
        envelope("audio_chunk", {"audio": AUDIO, "mimeType": "audio/pcm"}),
        (events.AudioReceived(PCM),),
    ),
    (
        envelope("audio_chunk", {"audio": AUDIO, "mimeType": 'audio/webm; codecs="opus"'}),
        (events.EncodedAudio(PCM, Encoding.WEBM_OPUS, 48_000),),
    ),
    (
        envelope("audio_chunk", {"audio": WEBM_AUDIO}),
        (events.EncodedAudio(WEBM, Encoding.WEBM_OPUS, 48_000),),
    ),
    # As the documentation writes it: no call, and it is an answer, which is not answered.
    (envelope("heartbeat", {"pong": True}, ""), ()),
    (envelope("heartbeat", {}), (events.PingReceived(),)),
    ('{"type":"heartbeat"}', (events.PingReceived(),)),
    ('{"type":"heartbeat","data":null,"callId":null,"extra":[1]}', (events.PingReceived(),)),
    (envelope("metrics", {}), (events.StatisticsAsked(),)),
    (envelope("session_end", {"reason": "done"}), (events.SessionEnd(),)),
]


@pytest.mark.parametrize(("message", "requests"), RECEIVED, ids=lambda value: str(value)[:50])
def test_a_message_is_understood(
    message: str | bytes, requests: tuple[events.Request, ...]
) -> None:
    """Text or binary, it becomes the documented requests."""
    assert tuple(started().receive(message, 1.0)) == requests


def test_every_message_type_is_in_the_golden_table() -> None:
    """None is without a row."""
    texts = [json.loads(message) for message, _ in RECEIVED if isinstance(message, str)]
    assert {text["type"] for text in texts} | {"session_start"} == set(CLIENT_MESSAGES)


def test_a_session_is_the_call() -> None:
    """callId names the session; what is not known is ignored."""
    assert new().receive(START, 0.0) == (SESSION,)
    more = WHO | {"device": "page", "options": {"maxChunkSize": 4096, "bufferDuration": 3000}}
    assert new().receive(envelope("session_start", more, ""), 0.0) == (SESSION,)


def test_options_are_those_of_the_documentation() -> None:
    """All that the document gives startStream are taken; a threshold is a setting."""
    documented = {
        "enableVAD": True,
        "vadThreshold": 0.4,
        "maxChunkSize": 4096,
        "bufferDuration": 3000,
        "enableDenoising": True,
        "enableAGC": True,
        "sampleRate": 16000,
        "channels": 1,
    }
    dialect = new()
    assert dialect.receive(envelope("session_start", WHO | {"options": documented}), 0.0) == (
        SESSION,
        Configuration(vad_threshold=0.4),
    )
    assert dialect.profile.conditioning == Conditioning(noise_reduction=True, automatic_gain=True)
    assert attrs.evolve(dialect.profile, conditioning=Conditioning()) == PROFILE
    assert started().profile == PROFILE
    assert dialect.receive(PCM, 0.0) == (events.AudioReceived(PCM),)


def test_a_device_may_say_that_it_has_an_echo() -> None:
    start = envelope("session_start", WHO | {"options": {"echoCancellation": False}})
    assert new().receive(start, 0.0) == (events.SessionStart("call-456", Capabilities()),)


def test_pcm_of_another_rate_is_decoded() -> None:
    assert started(sampleRate=8000).receive(PCM, 0.0) == (
        events.EncodedAudio(PCM, Encoding.PCM, 8000),
    )


def test_webm_goes_on_until_something_else_is_said() -> None:
    """A recorder sends its header once; pieces of it look like anything."""
    dialect = started()
    for message in (WEBM, PCM, PCM[7:], WEBM):
        assert dialect.receive(message, 0.0) == (
            events.EncodedAudio(message, Encoding.WEBM_OPUS, 48_000),
        )
    pcm = envelope("audio_chunk", {"audio": "", "mimeType": "audio/PCM"})
    assert dialect.receive(pcm, 0.0) == (events.AudioReceived(b""),)
    assert dialect.receive(PCM, 0.0) == (events.AudioReceived(PCM),)


BEFORE: list[tuple[str | bytes, ErrorCode, tuple[str, ...]]] = [
    (PCM, ErrorCode.SESSION_ERROR, ("send session_start first",)),
    (envelope("audio_chunk", {"audio": ""}, ""), ErrorCode.SESSION_ERROR, ("session_start",)),
    (envelope("session_end", {}), ErrorCode.SESSION_ERROR, ("session_start",)),
    (envelope("metrics", {}, ""), ErrorCode.SESSION_ERROR, ("session_start",)),
    ("{", ErrorCode.INVALID_MESSAGE, ("not JSON",)),
    ("[]", ErrorCode.INVALID_MESSAGE, ("JSON object", "a list")),
    ("{}", ErrorCode.INVALID_MESSAGE, ("'type'", "missing", "session_start", "audio_chunk")),
    ('{"type":"hello"}', ErrorCode.UNKNOWN_MESSAGE_TYPE, ("'hello'", "session_start")),
    ('{"type":"session_start"}', ErrorCode.INVALID_MESSAGE, ("'data'", "missing")),
    (envelope("session_start", []), ErrorCode.INVALID_MESSAGE, ("'data'", "an object")),
    (
        envelope("session_start", {}),
        ErrorCode.INVALID_MESSAGE,
        ("'data.userId'", "'data.callId'", "'data.authToken'", "missing"),
    ),
    (
        envelope("session_start", WHO | {"userId": "a b"}),
        ErrorCode.INVALID_MESSAGE,
        ("'data.userId'", "128 visible"),
    ),
    (
        envelope("session_start", WHO | {"callId": "a/b"}, ""),
        ErrorCode.INVALID_MESSAGE,
        ("'data.callId'", "64"),
    ),
    (
        envelope("session_start", WHO, "call-7"),
        ErrorCode.INVALID_MESSAGE,
        ("'callId' and 'data.callId'",),
    ),
    (
        envelope("session_start", WHO | {"authToken": "bad"}),
        ErrorCode.UNAUTHORIZED,
        ("data.authToken is not good",),
    ),
    (
        envelope("session_start", WHO | {"options": {"enableVAD": False}}),
        ErrorCode.INVALID_MESSAGE,
        ("'data.options.enableVAD'", "true: the server finds the end of speech"),
    ),
    (
        envelope("session_start", WHO | {"options": {"channels": 2}}),
        ErrorCode.INVALID_MESSAGE,
        ("'data.options.channels'", "1: mono"),
    ),
    (
        envelope("session_start", WHO | {"options": {"sampleRate": 4000}}),
        ErrorCode.INVALID_MESSAGE,
        ("'data.options.sampleRate'", "8000 to 48000"),
    ),
]
AFTER: list[tuple[str | bytes, ErrorCode, tuple[str, ...]]] = [
    (START, ErrorCode.SESSION_ERROR, ("'call-456' already",)),
    (bytes(MAX_MESSAGE_BYTES + 1), ErrorCode.INVALID_MESSAGE, ("1048577", "smaller")),
    (envelope("audio_chunk", {}), ErrorCode.INVALID_MESSAGE, ("'data.audio'", "missing")),
    (envelope("audio_chunk", {"audio": "*"}), ErrorCode.INVALID_MESSAGE, ("base64",)),
    (
        envelope("audio_chunk", {"audio": "", "mimeType": "audio/mp4"}),
        ErrorCode.INVALID_MESSAGE,
        ("'data.mimeType'", "audio/webm;codecs=opus", "audio/pcm", "'audio/mp4'"),
    ),
    (
        envelope("audio_chunk", {"audio": ""}, "call-7"),
        ErrorCode.INVALID_MESSAGE,
        ("'callId'", "'call-456' or empty", "'call-7'"),
    ),
    ('{"type":"heartbeat","timestamp":"now"}', ErrorCode.INVALID_MESSAGE, ("'timestamp'",)),
    ('{"type":"heartbeat","type":"heartbeat"}', ErrorCode.INVALID_MESSAGE, ("twice",)),
    ('{"type":"heartbeat","x":"\\ud800"}', ErrorCode.INVALID_MESSAGE, ("surrogate",)),
]


@pytest.mark.parametrize(
    ("begun", "message", "code", "words"),
    [(False, *row) for row in BEFORE] + [(True, *row) for row in AFTER],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_message_is_refused(
    begun: bool, message: str | bytes, code: ErrorCode, words: tuple[str, ...]
) -> None:
    """What was wrong, what is allowed, and what to do."""
    with pytest.raises(ProtocolError) as caught:
        (started() if begun else new()).receive(message, 0.0)
    assert caught.value.code is code
    for word in words:
        assert word in str(caught.value)


def test_a_sign_of_life_needs_no_session() -> None:
    """Whatever call it names: there is none yet."""
    assert new().receive(envelope("heartbeat", {}, "call-7"), 0.0) == (events.PingReceived(),)


def test_who_was_refused_may_try_again() -> None:
    """A slip of the first message is no reason to connect anew; nothing of it is kept."""
    dialect = new()
    with pytest.raises(ProtocolError):
        dialect.receive(envelope("session_start", WHO | {"authToken": "bad"}), 0.0)
    assert json.loads(dialect.send(events.PongSent(), 0.0)[0])["callId"] == ""
    assert dialect.receive(START, 0.0) == (SESSION,)


# --- to the device -----------------------------------------------------------------------

ENVELOPE = '{"type":"%s","callId":"call-456","timestamp":1767225600250,"data":%s}'
READY = events.StatusChanged(events.State.READY, "call-456", restored=True)
STATISTICS = SessionStatistics(4, 2, 61.5, 7.2, AT)
TEN_MS = bytes(320)
WAV = (
    b"RIFF" + (36 + 320).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    + (1).to_bytes(2, "little") + (1).to_bytes(2, "little")  # PCM, mono
    + (16_000).to_bytes(4, "little") + (32_000).to_bytes(4, "little")
    + (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    + b"data" + (320).to_bytes(4, "little") + TEN_MS
)  # fmt: skip

SENT: list[tuple[events.Notice, list[str | bytes]]] = [
    (
        READY,
        [
            ENVELOPE
            % (
                "connection_status",
                '{"status":"connected","sessionId":"call-456","resumed":true}',
            )
        ],
    ),
    (
        events.StatusChanged(events.State.CLOSING, "call-456", statistics=STATISTICS),
        [ENVELOPE % ("connection_status", '{"status":"disconnected","sessionId":"call-456"}')],
    ),
    (events.StatusChanged(events.State.SPEAKING, "call-456"), []),
    (
        events.UserTranscript("你好 🙂", False, True, 1, 1),
        [ENVELOPE % ("transcript", '{"text":"你好 🙂","isFinal":false}')],
    ),
    (
        events.UserTranscript("what time is it", True, False, 1, 1),
        [
            ENVELOPE % ("processing_status", '{"stage":"stt","status":"started"}'),
            ENVELOPE
            % ("processing_status", '{"stage":"stt","status":"completed","latencyMs":0.0}'),
            ENVELOPE % ("transcript", '{"text":"what time is it","isFinal":true}'),
        ],
    ),
    (events.NothingUnderstood(), []),
    (events.VoiceNoticed(True), []),
    (
        events.StatusChanged(events.State.THINKING, "call-456"),
        [ENVELOPE % ("processing_status", '{"stage":"intent","status":"started"}')],
    ),
    (
        events.TextDelta(1, "It is "),
        [
            ENVELOPE % ("processing_status", '{"stage":"intent","status":"started"}'),
            ENVELOPE
            % ("processing_status", '{"stage":"intent","status":"completed","latencyMs":0.0}'),
            ENVELOPE % ("processing_status", '{"stage":"ai","status":"started"}'),
            ENVELOPE % ("ai_response", '{"text":"It is ","turnId":1,"done":false}'),
        ],
    ),
    (
        events.ToolCalled(1, "c", "get_weather", {"city": "Paris"}, events.Target.SERVER),
        [
            ENVELOPE % ("processing_status", '{"stage":"intent","status":"started"}'),
            ENVELOPE
            % (
                "processing_status",
                '{"stage":"intent","status":"completed","latencyMs":0.0,"tool":"get_weather"}',
            ),
            ENVELOPE % ("processing_status", '{"stage":"ai","status":"started"}'),
        ],
    ),
    (events.ToolReturned(1, "c", "get_weather", True, {"celsius": 21}, 180.0), []),
    (
        events.TextDone(1, "It is ten."),
        [
            ENVELOPE % ("processing_status", '{"stage":"intent","status":"started"}'),
            ENVELOPE
            % ("processing_status", '{"stage":"intent","status":"completed","latencyMs":0.0}'),
            ENVELOPE % ("processing_status", '{"stage":"ai","status":"started"}'),
            ENVELOPE % ("processing_status", '{"stage":"ai","status":"completed","latencyMs":0.0}'),
            ENVELOPE % ("ai_response", '{"text":"It is ten.","turnId":1,"done":true}'),
        ],
    ),
    (
        events.StreamStarted(1, 5, 24_000),
        [
            ENVELOPE % ("processing_status", '{"stage":"tts","status":"started"}'),
            ENVELOPE % ("audio_response", '{"state":"start","sampleRate":24000,"encoding":"wav"}'),
        ],
    ),
    (
        events.StreamStarted(1, 5, 16_000, events.Source.MUSIC),
        [
            ENVELOPE % ("audio_response", '{"state":"start","sampleRate":16000,"encoding":"wav"}'),
        ],
    ),
    (events.SentenceStarted(5, "It is ten.", 0), []),
    (events.AudioChunk(5, TEN_MS), [WAV]),
    (events.StreamEnded(5, 160), [ENVELOPE % ("audio_response", '{"state":"end"}')]),
    (events.StreamFlushed(5), [ENVELOPE % ("audio_response", '{"state":"stop"}')]),
    (events.StreamPaused(5), []),
    (events.StreamResumed(5), []),
    (events.TurnInterrupted(1, "It", "is ten.", 80.0, events.Certainty.ESTIMATED), []),
    (
        events.ErrorReported(ErrorCode.LLM_ERROR, "the chat model does not answer", 2),
        [
            ENVELOPE
            % (
                "error",
                '{"code":"LLM_ERROR","message":"the chat model does not answer","turnId":2}',
            )
        ],
    ),
    (
        events.ErrorReported(ErrorCode.RATE_LIMITED, "too much at once", retry_after_ms=1500),
        [
            ENVELOPE
            % (
                "error",
                '{"code":"RATE_LIMITED","message":"too much at once","retryAfterMs":1500}',
            )
        ],
    ),
    (events.PongSent(), [ENVELOPE % ("heartbeat", '{"pong":true}')]),
    (
        events.TurnMetrics(1, first_audio_ms=321.04),
        [
            ENVELOPE
            % (
                "metrics",
                '{"connection":{"messagesReceived":1,"messagesSent":1,"bytesReceived":SIZE,'
                '"bytesSent":SENT,"reconnections":0,"errors":0},'
                '"processing":{"audioChunksProcessed":0,"sttLatencyMs":null,'
                '"intentLatencyMs":null,"aiLatencyMs":null,"ttsLatencyMs":null,'
                '"totalLatencyMs":321.0},"system":{"cpuPercent":1.5}}',
            )
        ],
    ),
    (
        events.StatisticsSent("call-456", STATISTICS),
        [
            ENVELOPE
            % (
                "metrics",
                '{"connection":{"messagesReceived":1,"messagesSent":1,"bytesReceived":SIZE,'
                '"bytesSent":SENT,"reconnections":0,"errors":0},'
                '"processing":{"audioChunksProcessed":0},"system":{"cpuPercent":1.5}}',
            )
        ],
    ),
    (events.Answer(("{}",)), []),
]
STARTED_BYTES = len(envelope("session_start", WHO | {"options": {}}))
STATUS_BYTES = len(
    ENVELOPE
    % ("connection_status", '{"status":"connected","sessionId":"call-456","resumed":false}')
)


@pytest.mark.parametrize(("notice", "messages"), SENT, ids=lambda value: str(value)[:40])
def test_a_notice_is_told(notice: events.Notice, messages: list[str | bytes]) -> None:
    """The very bytes: key order, no blanks, characters as they are."""
    wanted = [
        text.replace("SIZE", str(STARTED_BYTES)).replace("SENT", str(STATUS_BYTES))
        if isinstance(text, str)
        else text
        for text in messages
    ]
    assert list(started().send(notice, 0.0)) == wanted


def test_every_notice_is_in_the_golden_table() -> None:
    """And none raises, in whatever order it comes."""
    assert {type(notice) for notice, _ in SENT} >= set(get_args(events.Notice))
    examples = [example for row in NOTICES.values() for example in row.examples]
    dialects = [new(), started()]
    for notice in [*examples, *(notice for notice, _ in SENT), *reversed(examples)]:
        for dialect in dialects:
            for message in dialect.send(notice, 1.0):
                assert isinstance(message, bytes) or json.loads(message)


def test_each_binary_message_is_a_whole_file() -> None:
    """At the rate of its stream, as any reader of WAV sees it."""
    dialect = started()
    dialect.send(events.StreamStarted(1, 1, 22_050), 0.0)
    (message,) = dialect.send(events.AudioChunk(1, TEN_MS), 0.0)
    assert isinstance(message, bytes)
    with wave.open(io.BytesIO(message)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22_050, 1, 2)
        assert file.readframes(1000) == TEN_MS


def test_compression_is_accepted_and_reported_unsupported() -> None:
    dialect = new()
    dialect.receive(envelope("session_start", WHO | {"options": {"enableCompression": True}}), 0.0)
    (message,) = told(dialect, READY)
    assert json.loads(message.partition(" ")[2])["unsupported"] == ["enableCompression"]


# --- stages ------------------------------------------------------------------------------


def state(value: events.State) -> events.StatusChanged:
    return events.StatusChanged(value, "call-456")


def stages(dialect: NinjaDialect, *timed: tuple[float, events.Notice]) -> list[str]:
    """The stages that were told, as "stage status latency tool"."""
    found = []
    for now, notice in timed:
        for message in told(dialect, notice, now=now):
            kind, _, data = message.partition(" ")
            if kind == "processing_status":
                found.append(" ".join(str(value) for value in json.loads(data).values()))
    return found


SPOKEN: list[tuple[float, events.Notice]] = [
    (0.0, events.VoiceNoticed(True)),
    (0.1, state(events.State.HEARING)),
    (0.5, events.UserTranscript("what", False, True, 1, 1)),
    (2.0, events.VoiceNoticed(False)),
    (2.25, events.UserTranscript("what time is it", True, False, 1, 1)),
    (2.25, state(events.State.THINKING)),
]
ANSWERED: list[tuple[float, events.Notice]] = [
    (2.5, events.TextDelta(1, "It is ")),
    (2.6, events.TextDelta(1, "ten.")),
    (2.75, events.StreamStarted(1, 1, 16_000)),
    (2.75, state(events.State.SPEAKING)),
    (2.8, events.TextDone(1, "It is ten.")),
    (3.5, events.StreamEnded(1, 16_000)),
]
HEARD = ["stt started", "stt completed 250.0", "intent started"]


def test_a_turn_runs_through_its_stages() -> None:
    """Each begins and is completed once; stt counts from the end of speech, tts from the text."""
    dialect = started()
    assert stages(dialect, *SPOKEN, *ANSWERED) == [
        *HEARD,
        "intent completed 250.0",
        "ai started",
        "tts started",
        "ai completed 300.0",
        "tts completed 250.0",
    ]
    (metrics,) = told(dialect, events.TurnMetrics(1, first_audio_ms=750.0), now=4.0)
    assert json.loads(metrics.partition(" ")[2])["processing"] == {
        "audioChunksProcessed": 0,
        "sttLatencyMs": 250.0,
        "intentLatencyMs": 250.0,
        "aiLatencyMs": 300.0,
        "ttsLatencyMs": 250.0,
        "totalLatencyMs": 750.0,
    }


def test_each_turn_has_latencies_of_its_own() -> None:
    """The next one had no voice: that of the last one is not told again."""
    silent: list[tuple[float, events.Notice]] = [
        (9.0, events.UserTranscript("and now", True, False, 2, 2)),
        (9.25, events.TextDone(2, "Ten.")),
    ]
    dialect = started()
    stages(dialect, *SPOKEN, *ANSWERED, (4.0, events.TurnMetrics(1)), *silent)
    *_, metrics = told(dialect, events.TurnMetrics(2), now=10.0)
    processing = json.loads(metrics.partition(" ")[2])["processing"]
    assert processing["ttsLatencyMs"] is None
    assert processing["totalLatencyMs"] is None
    assert processing["aiLatencyMs"] == 0.0
    spoken: list[tuple[float, events.Notice]] = [
        (20.0, events.UserTranscript("again", True, False, 3, 3)),
        (20.5, events.TextDelta(3, "Ten.")),
        (21.0, events.StreamStarted(3, 3, 16_000)),
        (22.0, events.StreamEnded(3, 16_000)),
    ]
    assert stages(dialect, *spoken)[-1] == "tts completed 500.0"


def test_the_intent_names_the_tool_that_was_chosen() -> None:
    """A second tool of the turn is not another intent."""
    tool = [
        events.ToolCalled(1, f"c{number}", f"tool-{number}", {}, events.Target.SERVER)
        for number in (1, 2)
    ]
    assert stages(started(), *SPOKEN, (2.75, tool[0]), (2.8, tool[1]), (3.0, ANSWERED[0][1])) == [
        *HEARD,
        "intent completed 500.0 tool-1",
        "ai started",
    ]


def test_what_was_nothing_is_cancelled() -> None:
    """Somebody coughed: stt ends without a text, before and after one that had words."""
    cough = [(0.1, state(events.State.HEARING)), (1.0, state(events.State.LISTENING))]
    nothing = ["stt started", "stt cancelled"]
    assert stages(started(), *cough, *SPOKEN, *cough) == [*nothing, *HEARD, *nothing]


def test_an_interrupted_turn_leaves_no_stage_open() -> None:
    """Stopped aloud: tts and ai are cancelled; the words open the next turn."""
    over: list[tuple[float, events.Notice]] = [
        (3.0, state(events.State.HEARING)),
        (3.1, events.UserTranscript("stop", False, True, 2, 2)),
        (3.1, events.StreamFlushed(1)),
        (3.1, events.TurnMetrics(1)),
        # The turn was left, and the user pauses: that is not the end of what was understood.
        (3.2, state(events.State.LISTENING)),
        (3.3, events.VoiceNoticed(False)),
        (3.5, events.UserTranscript("stop it", True, False, 2, 2)),
        (3.5, state(events.State.THINKING)),
        (3.75, events.TextDelta(2, "Yes.")),
    ]
    assert stages(started(), *SPOKEN, *ANSWERED[:4], *over) == [
        *HEARD,
        "intent completed 250.0",
        "ai started",
        "tts started",
        "stt started",
        "tts cancelled",
        "ai cancelled",
        "stt completed 200.0",
        "intent started",
        "intent completed 250.0",
        "ai started",
    ]


def test_a_turn_that_is_overtaken_does_not_end_the_next_one() -> None:
    """Its metrics come after the words that took the floor from it."""
    over: list[tuple[float, events.Notice]] = [
        (3.0, events.UserTranscript("stop", True, False, 2, 2)),
        (3.0, state(events.State.THINKING)),
        (3.1, events.TurnMetrics(1)),
        (3.25, events.TextDelta(2, "Yes.")),
    ]
    assert stages(started(), *SPOKEN, *over)[3:] == [
        "intent cancelled",
        "stt started",
        "stt completed 1000.0",
        "intent started",
        "intent completed 250.0",
        "ai started",
    ]


def test_an_announcement_is_a_turn_of_its_own() -> None:
    """Nobody asked: it begins with thinking, and is no continuation."""
    announced: list[tuple[float, events.Notice]] = [
        (9.0, events.TurnMetrics(1)),
        (9.0, state(events.State.THINKING)),
        (9.5, events.TextDelta(2, "The tea is ready.")),
        (9.75, events.TextDone(2, "The tea is ready.")),
        (9.8, events.TurnMetrics(2)),
    ]
    assert stages(started(), *SPOKEN, *ANSWERED, *announced)[-5:] == [
        "tts completed 250.0",
        "intent started",
        "intent completed 500.0",
        "ai started",
        "ai completed 250.0",
    ]


def test_a_held_reply_that_goes_on_does_not_think_again() -> None:
    """A false alarm while it thinks and after: intent is told once."""
    held: list[tuple[float, events.Notice]] = [
        (2.3, state(events.State.HEARING)),
        (2.4, state(events.State.THINKING)),
        (2.5, events.TextDelta(1, "It is ")),
        (2.6, state(events.State.HEARING)),
        (2.7, state(events.State.THINKING)),
    ]
    found = stages(started(), *SPOKEN, *held)
    assert [line for line in found if line.startswith("intent")] == [
        "intent started",
        "intent completed 250.0",
    ]


# --- heartbeats --------------------------------------------------------------------------


def beat(dialect: NinjaDialect, now: float) -> list[str]:
    """What is sent by itself at that time."""
    [answer] = dialect.expire(now)
    assert isinstance(answer, events.Answer)
    return [short(message) for message in answer.messages]


def test_a_heartbeat_comes_every_half_minute() -> None:
    """As long as something is heard; every message counts, an answer too."""
    dialect = new()
    assert dialect.next_deadline() == NEVER
    assert dialect.expire(1e9) == ()
    dialect.receive(START, 100.0)
    for due in (130.0, 160.0, 190.0, 220.0):
        assert dialect.next_deadline() == due
        assert dialect.expire(due - 0.001) == ()
        assert beat(dialect, due) == ['heartbeat {"ping": true}']
        assert dialect.receive(envelope("heartbeat", {"pong": True}, ""), due + 1) == ()


def test_who_is_silent_for_a_minute_is_given_up() -> None:
    """Once, with 1008; before that two heartbeats have gone out."""
    dialect = started()
    assert beat(dialect, 30.0) == ['heartbeat {"ping": true}']
    dialect.receive(b"", 31.0)
    assert beat(dialect, 60.0) == ['heartbeat {"ping": true}']
    assert beat(dialect, 90.0) == ['heartbeat {"ping": true}']
    assert dialect.next_deadline() == 91.0
    assert dialect.expire(91.0) == (events.HangUp(1008, "nothing heard for 60 s"),)
    assert dialect.next_deadline() == NEVER


def test_somebody_elses_call_is_closed() -> None:
    """The session was refused after a good token: there is nothing to talk about."""
    dialect = new()
    dialect.receive(START, 5.0)
    error = events.ErrorReported(ErrorCode.SESSION_ERROR, "it belongs to somebody else")
    assert told(dialect, error, now=6.0)[0].startswith("error")
    with pytest.raises(ProtocolError, match="no session"):
        dialect.receive(PCM, 6.0)
    assert dialect.next_deadline() == 6.0
    assert dialect.expire(6.0) == (events.HangUp(1008, "no session"),)
    assert dialect.next_deadline() == NEVER


def test_traffic_is_counted() -> None:
    """What this connection sent, got and was told of."""
    dialect = started()
    before = len(START) + len(', "options": {}')
    assert before == STARTED_BYTES
    dialect.receive(PCM, 0.0)
    dialect.receive(WEBM, 0.0)
    sent = STATUS_BYTES
    notices = (events.ErrorReported(ErrorCode.ASR_ERROR, "é"), events.AudioChunk(1, TEN_MS))
    for notice in notices:
        sent += sum(len(m.encode() if isinstance(m, str) else m) for m in dialect.send(notice, 0.0))
    (metrics,) = told(dialect, events.StatisticsSent("call-456", STATISTICS))
    data = json.loads(metrics.partition(" ")[2])
    assert data["connection"] == {
        "messagesReceived": 3,
        "messagesSent": 3,
        "bytesReceived": before + len(PCM) + len(WEBM),
        "bytesSent": sent,
        "reconnections": 0,
        "errors": 1,
    }
    assert data["processing"] == {"audioChunksProcessed": 2}


# --- away --------------------------------------------------------------------------------


def come_back(mailboxes: Mailboxes, now: float, who: dict[str, str] = WHO) -> list[str]:
    """What a device of that user and call is told first."""
    dialect = NinjaDialect(PROFILE, mailboxes, lambda *_: None, lambda: AT, dict)
    dialect.receive(envelope("session_start", who, ""), now)
    return told(dialect, READY, now=now)


def test_who_comes_back_gets_what_was_missed() -> None:
    """Texts, in order, after the status; sound is not kept.  Once."""
    mailboxes = Mailboxes()
    gone = started(mailboxes)
    missed = [
        *gone.send(events.TextDelta(1, "one"), 9.0),
        *gone.send(events.AudioChunk(1, TEN_MS), 9.0),
        *gone.send(events.TextDone(1, "one two"), 9.0),
    ]
    gone.undelivered(missed, 10.0)
    texts = [short(message) for message in missed if isinstance(message, str)]
    status, *got = come_back(mailboxes, 69.9)
    assert json.loads(status.partition(" ")[2]) == {
        "status": "connected",
        "sessionId": "call-456",
        "resumed": True,
        "queuedMessages": len(texts),
        "droppedMessages": 0,
    }
    assert got == texts
    assert len(come_back(mailboxes, 69.9)) == 1
    assert not len(mailboxes)


def test_after_a_minute_it_is_forgotten() -> None:
    mailboxes = Mailboxes()
    started(mailboxes).undelivered(["{}"], 10.0)
    assert len(come_back(mailboxes, 70.0)) == 1
    assert mailboxes.lost == 1


def test_nobody_else_gets_it() -> None:
    """Another user, or another call of the same one, has another box."""
    mailboxes = Mailboxes()
    started(mailboxes).undelivered(["{}"], 10.0)
    assert len(come_back(mailboxes, 11.0, WHO | {"userId": "user-7"})) == 1
    assert len(come_back(mailboxes, 11.0, WHO | {"callId": "call-7"})) == 1
    mailbox = mailboxes.take(("user-123", "call-456"), 11.0)
    assert mailbox.messages == ("{}",)


def test_before_a_session_nothing_is_kept() -> None:
    mailboxes = Mailboxes()
    new(mailboxes).undelivered(["{}"], 1.0)
    started(mailboxes).undelivered([TEN_MS], 1.0)
    assert not len(mailboxes)


ADDRESS = ("user", "call")


def test_a_box_drops_the_oldest_and_counts() -> None:
    """256 messages, or 1 MiB."""
    mailboxes = Mailboxes()
    mailboxes.put(ADDRESS, map(str, range(300)), 0.0)
    mail = mailboxes.take(ADDRESS, 0.0)
    assert mail.messages == tuple(map(str, range(44, 300)))
    assert mail.dropped == mailboxes.lost == 44
    half = "é" * (1 << 18)
    mailboxes.put(ADDRESS, [half + "1", half], 0.0)
    mailboxes.put(ADDRESS, [half], 0.0)
    mail = mailboxes.take(ADDRESS, 0.0)
    assert (mail.messages, mail.dropped) == ((half, half), 1)
    mailboxes.put(ADDRESS, ["x" * (MAX_MESSAGE_BYTES + 1)], 0.0)
    assert mailboxes.take(ADDRESS, 0.0).messages == ()


def test_boxes_are_bounded() -> None:
    """The one that expires first makes room; what is put again lasts as long as the newest."""
    mailboxes = Mailboxes()
    for number in range(MAX_BOXES):
        mailboxes.put((str(number), ""), ["a", "b"], float(number) / 100)
    mailboxes.put(("0", ""), ["c"], 2.0)
    mailboxes.put(("new", ""), ["d"], 2.0)
    assert len(mailboxes) == MAX_BOXES
    assert mailboxes.lost == 2
    assert mailboxes.take(("1", ""), 2.0).messages == ()
    assert mailboxes.take(("0", ""), 61.9).messages == ("a", "b", "c")
    assert mailboxes.take(("2", ""), 61.9).messages == ()


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


NAMES = sorted(
    {"type", "callId", "timestamp", "data", "userId", "authToken", "options", "audio"}
    | {"mimeType", "pong", "enableVAD", "vadThreshold", "sampleRate", "channels", "unknown"}
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # NaN and the infinities too: json.dumps writes them
    | st.text(max_size=20)
    | st.sampled_from(["good", "call-456", "user-123", "audio/webm", AUDIO, *CLIENT_MESSAGES])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=6,
)
GOOD = [START, *(message for message, _ in RECEIVED if isinstance(message, str))]


def must_be_understood_or_refused(message: str | bytes, begun: bool) -> None:
    """Whatever it is: requests, or a ProtocolError with words that can be sent."""
    dialect = started() if begun else new()
    requests: Sequence[events.Request] = ()
    refused: ProtocolError | None = None
    try:
        requests = dialect.receive(message, 1.0)
    except ProtocolError as error:
        refused = error
    if refused:
        assert 0 < len(str(refused)) < 2000
        assert dialect.send(events.ErrorReported(refused.code, str(refused)), 1.0)
    assert all(isinstance(request, get_args(events.Request)) for request in requests)


@pytest.mark.slow
@arbitrary(3000)
@given(
    st.text() | st.binary() | st.text(alphabet='{}[]":,\\u0dtyper19.eE-', max_size=30),
    st.booleans(),
)
def test_arbitrary_text_and_binary(message: str | bytes, begun: bool) -> None:
    """Nothing but ProtocolError is raised."""
    must_be_understood_or_refused(message, begun)


@pytest.mark.slow
@arbitrary(3500)
@given(
    st.sampled_from(GOOD),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=2),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    st.booleans(),
)
def test_messages_with_other_fields(
    good: str, changes: dict[str, Any], inner: dict[str, Any], begun: bool
) -> None:
    """Nothing but ProtocolError is raised."""
    fields = json.loads(good)
    fields["data"] = {**(fields.get("data") or {}), **inner}
    must_be_understood_or_refused(json.dumps(fields | changes), begun)


@pytest.mark.slow
@arbitrary(3500)
@given(
    st.sampled_from(GOOD),
    st.integers(0, 300),
    st.integers(0, 4),
    st.text(max_size=3) | st.sampled_from(['"', "\\", "{", "}", "[", "]", "1e999", "\\ud800"]),
    st.booleans(),
)
def test_messages_with_other_characters(
    text: str, at: int, cut: int, put: str, begun: bool
) -> None:
    """Nothing but ProtocolError is raised."""
    must_be_understood_or_refused(text[:at] + put + text[at + cut :], begun)
