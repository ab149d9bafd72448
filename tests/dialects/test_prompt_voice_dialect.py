"""The Prompt Voice dialect: what it understands, what it refuses and what it says."""

from __future__ import annotations

import base64
import itertools
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listenai import events
from listenai.audio import Encoding
from listenai.config import load
from listenai.device import DeviceProfile
from listenai.dialects.base import NEVER
from listenai.dialects.json_text import MAX_MESSAGE_BYTES
from listenai.dialects.prompt_voice import CAPABILITIES, PROFILE, PromptVoiceDialect
from listenai.dialects.prompt_voice_messages import claims
from listenai.errors import ErrorCode, ProtocolError
from listenai.events import Source, State
from listenai.settings import Configuration, SessionStatistics

SPEC = (Path(__file__).parents[1] / "spec" / "spec_001.txt").read_text("utf-8")
PCM = bytes(range(256)) + b"\x01"  # odd sizes are allowed
HELLO = bytes(range(100))
EPOCH = 1_760_000_000.0  # the wall clock at Trio's zero


def dialect(**options: Any) -> PromptVoiceDialect:
    """A new device's, whose ids count and whose wall clock stands at the `now` of 100."""
    numbers = itertools.count(1)
    return PromptVoiceDialect(
        new_id=lambda: f"id-{next(numbers)}", wall_clock=lambda: EPOCH + 100, **options
    )


def wav(pcm: bytes, rate: int) -> str:
    """A WAV file in base64, put together by hand."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
        *(b"data", len(pcm)),
    )
    return base64.b64encode(head + pcm).decode()


def chunk(seq: int, pcm: bytes = HELLO, rate: int = 16_000) -> str:
    return f'{{"type":"tts_chunk","seq":{seq},"audio_b64":"{wav(pcm, rate)}","mime":"audio/wav"}}'


def token(text: str) -> str:
    return f'{{"type":"llm_token","text":"{text}","done":false}}'


def info(message: str) -> str:
    return f'{{"type":"info","message":"{message}"}}'


DONE = '{"type":"llm_token","text":"","done":true}'
COMPLETE = '{"type":"tts_complete"}'
READY, CANCELLED, INTERRUPTED = info("ready"), info("cancelled"), info("interrupted")
IGNORED = info("audio after `stop` or `cancel` is ignored until the next `start`")
NOT_STARTED = info("nothing was started: `start` comes before `stop`")
NO_METRICS = (
    '{"type":"metrics","id":null,"t0":null,"t1":null,"t2":null,"t3":null,"t4":null,"rtf":null}'
)


# --- from the device ---------------------------------------------------------------------

SESSION = events.SessionStart(capabilities=CAPABILITIES)
START, STOP, CANCEL = '{"type":"start"}', '{"type":"stop"}', '{"type":"cancel"}'
DISCARD = (events.InterruptPressed(), events.SpeechDiscarded(), events.Answer((CANCELLED,)))

# Each a connection: the messages, each with the requests that it is.
RECEIVED: dict[str, list[tuple[str | bytes, tuple[events.Request, ...]]]] = {
    "16 kHz is what we work with": [
        ('{"type": "start", "sample_rate": 16000}', (SESSION,)),
        (PCM, (events.AudioReceived(PCM),)),
        (b"", (events.AudioReceived(b""),)),
        (STOP, (events.SpeechFinished(),)),
    ],
    "any other rate is converted, until the next start": [
        ('{"type":"start","sample_rate":44100}', (SESSION,)),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 44_100),)),
        ('{"type":"start","sample_rate":8000.0}', (events.Answer((READY,)),)),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 8_000),)),
        ('{"type":"start","sample_rate":48000}', (events.Answer((READY,)),)),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 48_000),)),
        ('{"type":"start","sample_rate":null}', (events.Answer((READY,)),)),
        (PCM, (events.AudioReceived(PCM),)),
    ],
    "what the spec does not name is ignored": [
        ('{"type":"start","language":"en","sample_rate":16000}', (SESSION,)),
        ('{"type":"stop","reason":{"button":1}}', (events.SpeechFinished(),)),
    ],
    "a session has many captures": [
        (START, (SESSION,)),
        (STOP, (events.SpeechFinished(),)),
        (START, (events.Answer((READY,)),)),
        (STOP, (events.SpeechFinished(),)),
        (STOP, (events.Answer((NOT_STARTED,)),)),
    ],
    "audio after a capture is ignored, which is said once": [
        (START, (SESSION,)),
        (STOP, (events.SpeechFinished(),)),
        (PCM, (events.Answer((IGNORED,)),)),
        (PCM, ()),
        (START, (events.Answer((READY,)),)),
        (PCM, (events.AudioReceived(PCM),)),
        (CANCEL, DISCARD),
        (PCM, (events.Answer((IGNORED,)),)),
        (PCM, ()),
    ],
    "cancel stops the reply, after the capture too": [
        (START, (SESSION,)),
        (CANCEL, DISCARD),
        (CANCEL, DISCARD),
        (START, (events.Answer((READY,)),)),
        (STOP, (events.SpeechFinished(),)),
        (CANCEL, DISCARD),
    ],
    "audio without a start begins a capture": [
        (PCM, (SESSION, events.AudioReceived(PCM))),
        ('{"type":"start","sample_rate":24000}', (events.Answer((READY,)),)),
        (PCM, (events.EncodedAudio(PCM, Encoding.PCM, 24_000),)),
    ],
    "nothing begins by its end": [
        (STOP, (events.Answer((NOT_STARTED,)),)),
        (CANCEL, (events.Answer((CANCELLED,)),)),
        (START, (SESSION,)),
    ],
}


@pytest.mark.parametrize("name", RECEIVED)
def test_messages_are_understood(name: str) -> None:
    """Message by message, the requests are these."""
    device = dialect()
    for message, requests in RECEIVED[name]:
        assert device.receive(message, 0.0) == requests


def test_a_session_is_begun_without_any_promise_of_the_device() -> None:
    """It never said that it can pause, flush or report, and it has no id to come back by."""
    [start] = dialect().receive(START, 0.0)
    assert start == SESSION


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
    ("start", ("not JSON",)),
    ('"start"', ("JSON object",)),
    ('["start"]', ("JSON object", "a list")),
    ("{}", ("'type'", "missing", "start, stop, cancel")),
    ('{"type":null}', ("'type'", "null", "start, stop, cancel")),
    ('{"type":"start_session"}', ("'start_session'", "start, stop, cancel")),
    ('{"type":"start","type":"stop"}', ("'type'", "twice")),
    ('{"type":"start","sample_rate":7999}', ("'sample_rate'", "7999", "from 8000 to 48000")),
    ('{"type":"start","sample_rate":48001}', ("'sample_rate'", "48001", "from 8000 to 48000")),
    ('{"type":"start","sample_rate":16000.5}', ("'sample_rate'", "whole number")),
    ('{"type":"start","sample_rate":"16000"}', ("'sample_rate'", "whole number")),
    ('{"type":"start","sample_rate":true}', ("'sample_rate'", "true")),
    ('{"type":"start","sample_rate":NaN}', ("NaN",)),
    ('{"type":"start","name":"\\ud800"}', ("surrogate",)),
    (bytes(MAX_MESSAGE_BYTES + 1), (str(MAX_MESSAGE_BYTES), "smaller")),
    ('{"type":"' + "a" * MAX_MESSAGE_BYTES + '"}', (str(MAX_MESSAGE_BYTES), "smaller")),
]


@pytest.mark.parametrize(("message", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_is_refused_and_changes_nothing(
    message: str | bytes, words: tuple[str, ...]
) -> None:
    """The error says what was wrong and what is allowed; on the wire it has the spec's code."""
    device = dialect()
    with pytest.raises(ProtocolError) as caught:
        device.receive(message, 0.0)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    [told] = device.send(events.ErrorReported(caught.value.code, str(caught.value)), 0.0)
    assert isinstance(told, str)
    error = json.loads(told)
    assert (error["type"], error["code"], error["recoverable"]) == (
        *("error", "INVALID_MESSAGE"),
        True,
    )
    assert device.receive(START, 0.0) == (SESSION,)


def test_only_start_claims_a_shared_path() -> None:
    """As PROTOCOLS has it: the rest is another dialect's first message."""
    assert claims({"type": "start"})
    assert claims({"type": "start", "sample_rate": "wrong"})  # it is told what is wrong with it
    for opening in ({}, {"session_id": "a"}, {"type": "start_session"}, {"type": ["start"]}):
        assert not claims(opening)


# --- to the device: one message each -----------------------------------------------------

ERRORS = [
    ("INVALID_MESSAGE", ErrorCode.INVALID_MESSAGE, False, True),
    ("INVALID_MESSAGE", ErrorCode.UNKNOWN_MESSAGE_TYPE, False, True),
    ("ASR_ERROR", ErrorCode.ASR_ERROR, False, True),
    ("ASR_TIMEOUT", ErrorCode.ASR_ERROR, True, True),
    ("LLM_ERROR", ErrorCode.LLM_ERROR, False, True),
    ("LLM_TIMEOUT", ErrorCode.LLM_ERROR, True, True),
    ("TTS_ERROR", ErrorCode.TTS_ERROR, False, True),
    ("TTS_TIMEOUT", ErrorCode.TTS_ERROR, True, True),
    ("LLM_TIMEOUT", ErrorCode.TIMEOUT, False, True),
    ("RATE_LIMITED", ErrorCode.RATE_LIMITED, False, True),
    ("SESSION_ERROR", ErrorCode.SESSION_ERROR, False, False),
    ("UNAUTHORIZED", ErrorCode.UNAUTHORIZED, False, False),
    ("INTERNAL_ERROR", ErrorCode.INTERNAL_ERROR, False, False),
]


@pytest.mark.parametrize(("wire", "code", "timed_out", "recoverable"), ERRORS)
def test_errors_have_their_codes(
    wire: str, code: ErrorCode, timed_out: bool, recoverable: bool
) -> None:
    """What broke is told from what took too long; what closes the connection is not recoverable."""
    error = events.ErrorReported(code, 'it "broke"', 2, 1500, timed_out)
    assert dialect().send(error, 0.0) == [
        f'{{"type":"error","code":"{wire}","message":"it \\"broke\\"",'
        f'"recoverable":{"true" if recoverable else "false"}}}'
    ]


def test_every_code_has_its_row() -> None:
    """And every code of PROTOCOLS but one, which nothing here can mean: models load first."""
    assert {code for _, code, _, _ in ERRORS} == set(ErrorCode)
    spec = {"ASR_ERROR", "ASR_TIMEOUT", "LLM_ERROR", "LLM_TIMEOUT", "TTS_ERROR", "TTS_TIMEOUT"}
    assert {wire for wire, *_ in ERRORS} >= {*spec, "INVALID_MESSAGE"}


STATISTICS = SessionStatistics(4, 2, 61.5, 7.25, 1_767_225_600.0)
CALL = ("c1", "get_time")
UNTOLD: list[events.Notice] = [
    events.StatusChanged(State.LISTENING, "s1"),
    events.StatusChanged(State.HEARING, "s1"),
    events.StatusChanged(State.THINKING, "s1"),
    events.StatusChanged(State.SPEAKING, "s1"),
    events.VoiceNoticed(speaking=True),
    events.VoiceNoticed(speaking=False),
    events.ToolCalled(1, *CALL, {}, events.Target.SERVER),
    events.ToolReturned(1, *CALL, True, "ten", 1.0),
    events.StreamPaused(1),
    events.StreamResumed(1),
    events.StreamFlushed(1),  # of a stream that was never started
    events.StatisticsSent("s1", STATISTICS),
    events.PongSent(),
    events.Answer((READY,)),  # sent as it is, by the conversation
]
TOLD_ALONE: list[tuple[events.Notice, list[str]]] = [
    (events.StatusChanged(State.READY, "s1", restored=False), [READY]),
    (
        events.StatusChanged(State.QUEUED, "s1"),
        [info("many replies are being made; this one waits for its place")],
    ),
    (
        events.StatusChanged(State.CLOSING, "s1", statistics=STATISTICS),
        [info("the server is shutting down")],
    ),
    (events.NothingUnderstood(), [info("nothing was understood")]),
    (
        events.UserTranscript('"hé"', False, True, 1, 1),
        ['{"type":"partial_transcript","text":"\\"hé\\""}'],
    ),
    (
        events.UserTranscript("你好", True, False, 1, 1),
        ['{"type":"final_transcript","text":"你好","id":"id-1"}'],
    ),
    (events.TextDelta(1, " 好"), [token(" 好")]),
    (events.TextDone(1, "all of it", ({"name": "get_time"},)), [DONE]),
    (events.TurnMetrics(1), [DONE, COMPLETE, NO_METRICS]),
    (
        events.TurnInterrupted(1, "a", "b", 5.0, events.Certainty.ESTIMATED),
        [DONE, INTERRUPTED, COMPLETE],
    ),
]


@pytest.mark.parametrize(
    ("notice", "wire"), [*TOLD_ALONE, *((notice, []) for notice in UNTOLD)], ids=str
)
def test_a_notice_is_told(notice: events.Notice, wire: list[str]) -> None:
    """Byte for byte, to a device that was told nothing before."""
    assert list(dialect().send(notice, 0.0)) == wire


# --- to the device: replies --------------------------------------------------------------

Script = Sequence[tuple[float, events.Notice, list[str]]]


def must_tell(device: PromptVoiceDialect, script: Script) -> None:
    """At these times these notices are told by these messages."""
    for now, notice, wire in script:
        assert list(device.send(notice, now)) == wire, notice


def heard(text: str, *, final: bool = False, turn_id: int = 1) -> events.UserTranscript:
    return events.UserTranscript(text, final, not final, 1, turn_id)


def begun(turn_id: int, stream_id: int) -> Script:
    """A reply that has said its first words."""
    return [
        (100.0, events.TextDelta(turn_id, "One."), [token("One.")]),
        (100.0, events.StreamStarted(turn_id, stream_id, 16_000), []),
        (100.0, events.SentenceStarted(stream_id, "One.", 0), []),
        (100.0, events.AudioChunk(stream_id, HELLO), [chunk(1)]),
        (100.0, events.AudioChunk(stream_id, HELLO), [chunk(2)]),
    ]  # fmt: skip


def test_a_turn_is_told_from_the_first_word_to_the_last_sample() -> None:
    """Chunks count through the phrases of a reply; times are seconds since the epoch."""
    device = dialect()
    device.receive(START, 80.0)
    device.receive(bytes(64_000), 90.0)  # 2 s
    must_tell(device, [(90.0, events.VoiceNoticed(speaking=True), [])])
    device.receive(bytes(48_000), 90.5)  # 1.5 s
    script: Script = [
        (90.5, heard("what"), ['{"type":"partial_transcript","text":"what"}']),
        (91.4, heard("what time"), []),  # a second has not passed
        (91.5, heard("what time is"), ['{"type":"partial_transcript","text":"what time is"}']),
        (91.6, events.VoiceNoticed(speaking=False), []),
        (
            92.25,
            heard("what time is it", final=True),
            ['{"type":"final_transcript","text":"what time is it","id":"id-1"}'],
        ),
        (92.25, events.StatusChanged(State.THINKING, "s1"), []),
        (92.5, events.TextDelta(1, "It is "), [token("It is ")]),
        (92.5, events.TextDelta(1, "ten. "), [token("ten. ")]),
        (92.75, events.StreamStarted(1, 7, 24_000), []),
        (92.75, events.SentenceStarted(7, "It is ten.", 0), []),
        (93.125, events.AudioChunk(7, HELLO), [chunk(1, HELLO, 24_000)]),
        (93.25, events.TextDelta(1, "Bye."), [token("Bye.")]),
        (93.25, events.TextDone(1, "It is ten. Bye."), [DONE]),
        (93.3, events.AudioChunk(7, b"\1\2"), [chunk(2, b"\1\2", 24_000)]),
        (93.5, events.SentenceStarted(7, "Bye.", 51), ['{"type":"tts_phrase_done","seq":2}']),
        (93.5, events.AudioChunk(7, HELLO), [chunk(3, HELLO, 24_000)]),
        (93.6, events.StreamEnded(7, 101), ['{"type":"tts_phrase_done","seq":3}', COMPLETE]),
        (
            100.0,
            events.TurnMetrics(1, end_of_speech_ms=80.0, transcript_ms=380.0),
            [
                '{"type":"metrics","id":"id-1","t0":1760000090.0,"t1":1760000090.5,'
                '"t2":1760000092.25,"t3":1760000092.5,"t4":1760000093.125,"rtf":0.2}'
            ],
        ),
    ]  # fmt: skip
    must_tell(device, script)


def test_a_barge_in_ends_a_reply_at_once() -> None:
    """No chunk after the flush; what follows of the turn is its metrics alone."""
    device = dialect()
    must_tell(device, begun(1, 5))
    must_tell(
        device,
        [
            (100.0, events.StreamFlushed(5), [DONE, INTERRUPTED, COMPLETE]),
            (100.0, events.AudioChunk(5, HELLO), []),  # which the conversation promises not to do
            (
                100.0,
                events.TurnInterrupted(1, "One.", "", 20.0, events.Certainty.ESTIMATED),
                [],
            ),
        ],
    )
    [told] = device.send(events.TurnMetrics(1), 100.0)
    assert json.loads(told)["t4"] == EPOCH + 100


def test_an_interrupted_reply_that_was_silent_yet_is_ended_too() -> None:
    """Its page still waits for words and sound."""
    device = dialect()
    must_tell(device, begun(1, 5)[:1])
    silent = events.TurnInterrupted(1, "", "One.", 0.0, events.Certainty.ESTIMATED)
    must_tell(device, [(100.0, silent, [DONE, INTERRUPTED, COMPLETE])])
    assert len(device.send(events.TurnMetrics(1), 100.0)) == 1


def test_a_capture_that_starts_during_a_reply_stops_it() -> None:
    """Until the reply is complete: a page that starts anew at `tts_complete` cuts nothing off."""
    device = dialect()
    device.receive(START, 0.0)
    device.send(heard("a", final=True), 1.0)
    stop = (events.InterruptPressed(), events.Answer((READY,)))
    assert device.receive(START, 2.0) == stop
    must_tell(device, begun(1, 5))
    assert device.receive(START, 3.0) == stop
    device.send(events.StreamEnded(5, 100), 4.0)
    assert device.receive(START, 5.0) == (events.Answer((READY,)),)
    device.send(events.TurnMetrics(1), 6.0)
    must_tell(device, [(7.0, events.StreamStarted(1, 6, 16_000, Source.MUSIC), [])])
    assert device.receive(START, 8.0) == (events.Answer((READY,)),)  # music is no reply


def test_an_interruption_of_the_last_sound_is_told_once() -> None:
    """All chunks were sent and completed: only the loudspeaker is behind."""
    device = dialect()
    must_tell(device, begun(1, 5))
    played = events.TurnInterrupted(1, "One.", "", 20.0, events.Certainty.ESTIMATED)
    phrase = '{"type":"tts_phrase_done","seq":2}'
    must_tell(
        device,
        [
            (100.0, events.TextDone(1, "One."), [DONE]),
            (100.0, events.StreamEnded(5, 100), [phrase, COMPLETE]),
            (100.0, events.StreamFlushed(5), [INTERRUPTED]),
            (100.0, played, []),
        ],
    )


def test_a_reply_that_fails_is_ended_as_well() -> None:
    """With what it owes, whether it had begun or not."""
    for script in ([], begun(1, 5)):
        device = dialect()
        must_tell(device, script)
        told = [json.loads(message) for message in device.send(events.TurnMetrics(1), 100.0)]
        assert [message["type"] for message in told] == ["llm_token", "tts_complete", "metrics"]
        assert told[0]["done"] is True


def test_a_reply_that_is_cut_short_is_ended_with_its_sound() -> None:
    """Its time was over before its text was: what was said is played."""
    device = dialect()
    must_tell(device, begun(1, 5))
    phrase = '{"type":"tts_phrase_done","seq":2}'
    must_tell(device, [(100.0, events.StreamEnded(5, 100), [phrase, DONE, COMPLETE])])


def test_a_phrase_without_sound_is_not_told() -> None:
    """There is no chunk that it could end with."""
    device = dialect()
    must_tell(device, begun(1, 5))
    phrase = '{"type":"tts_phrase_done","seq":2}'
    must_tell(
        device,
        [
            (100.0, events.SentenceStarted(5, "Hm.", 100), [phrase]),
            (100.0, events.SentenceStarted(5, "Two.", 100), []),
            (100.0, events.StreamEnded(5, 100), [DONE, COMPLETE]),
        ],
    )


def test_the_next_reply_counts_anew_and_keeps_apart() -> None:
    """Its transcript may come before the last one's metrics."""
    device = dialect()
    must_tell(device, [(90.0, heard("a", final=True), [TRANSCRIPT.format("a", 1)])])
    must_tell(device, begun(1, 5))
    must_tell(device, [(101.0, events.StreamFlushed(5), [DONE, INTERRUPTED, COMPLETE])])
    must_tell(device, [(102.0, heard("b", final=True, turn_id=2), [TRANSCRIPT.format("b", 2)])])
    [first] = device.send(events.TurnMetrics(1), 100.0)
    must_tell(device, begun(2, 6))
    [*_, second] = device.send(events.TurnMetrics(2), 100.0)
    told = [json.loads(metrics) for metrics in (first, second)]
    assert [metrics["id"] for metrics in told] == ["id-1", "id-2"]
    assert [metrics["t2"] for metrics in told] == [EPOCH + 90, EPOCH + 102]
    assert device.send(events.TurnMetrics(2), 100.0) == [DONE, COMPLETE, NO_METRICS]  # forgotten


TRANSCRIPT = '{{"type":"final_transcript","text":"{}","id":"id-{}"}}'


def test_music_is_audio_of_its_own() -> None:
    """After a reply's end, with its own numbers; it has no metrics and owes no text."""
    device = dialect()
    must_tell(
        device,
        [
            (100.0, events.TurnMetrics(1), [DONE, COMPLETE, NO_METRICS]),
            (100.0, events.StreamStarted(1, 9, 16_000, Source.MUSIC), []),
            (100.0, events.AudioChunk(9, HELLO), [chunk(1)]),
            (
                100.0,
                events.StreamEnded(9, 50),
                ['{"type":"tts_phrase_done","seq":1}', COMPLETE],
            ),
        ],
    )


FORGOTTEN = {
    "a cough, long ago": (50.0, lambda device: None),
    "cancelled": (4.0, lambda device: device.receive(CANCEL, 2.0)),
    "not understood": (4.0, lambda device: device.send(events.NothingUnderstood(), 2.0)),
}


@pytest.mark.parametrize("why", FORGOTTEN)
def test_a_voice_that_did_not_count_is_not_the_next_utterances_start(why: str) -> None:
    """Neither its time nor its length; a pause within an utterance is none."""
    begins, forget = FORGOTTEN[why]
    device = dialect()
    device.receive(START, 0.0)
    device.send(events.VoiceNoticed(speaking=True), 1.0)
    device.send(heard("uh-huh"), 1.25)
    device.receive(bytes(32_000), 1.5)  # a second of audio
    if why != "cancelled":  # who cancels still speaks
        device.send(events.VoiceNoticed(speaking=False), 1.5)
    forget(device)
    device.send(events.VoiceNoticed(speaking=False), 3.0)
    device.receive(START, 3.0)
    device.send(events.VoiceNoticed(speaking=True), begins)
    device.send(heard("hello"), begins + 0.5)
    device.receive(bytes(16_000), begins + 0.5)  # half a second
    device.send(events.VoiceNoticed(speaking=False), begins + 1)
    device.send(events.VoiceNoticed(speaking=True), begins + 1.5)
    device.receive(bytes(16_000), begins + 2)
    device.send(events.VoiceNoticed(speaking=False), begins + 2)
    device.send(heard("hello you", final=True), begins + 3)
    turn = events.TurnMetrics(1, end_of_speech_ms=100.0, transcript_ms=600.0)
    [*_, told] = device.send(turn, 100.0)
    metrics = json.loads(told)
    assert (metrics["t0"], metrics["t1"]) == (EPOCH + begins, EPOCH + begins + 0.5)
    assert metrics["rtf"] == 0.5  # of one second


def test_partial_transcripts_may_come_as_they_are() -> None:
    """An interval of 0 leaves none out; a final one begins the interval anew."""
    device = dialect(partial_seconds=0.0)
    assert all(len(device.send(heard(text), 1.0)) == 1 for text in ("a", "a b", "a b c"))
    device = dialect(partial_seconds=60.0)
    told = [device.send(heard(text, final=text == "b"), 1.0) for text in "abcd"]
    assert [len(messages) for messages in told] == [1, 1, 1, 0]


def test_the_profile_is_the_specs_and_there_are_no_deadlines() -> None:
    """700 ms of silence, 150 tokens, chunks of 200 ms; heartbeats are the wire's business."""
    device = dialect()
    assert device.profile == PROFILE == DeviceProfile(
        history_messages=10,
        temperature=0.7,
        max_tokens=150,
        token_seconds=5,
        reply_seconds=30,
        utterance_seconds=30.0,
        chunk_seconds=0.2,
        tell_voice=True,
        paced=True,
        configuration=Configuration(end_of_turn_ms=700),
    )  # fmt: skip
    assert device.next_deadline() == NEVER
    assert device.expire(1e9) == ()
    device.undelivered(["{}"], 1e9)


# --- as the specification writes it ------------------------------------------------------


def examples(heading: str) -> list[dict[str, Any]]:
    """The JSON examples below a heading of the API reference."""
    part = SPEC.split(f"#### {heading}\n")[1].split("```")[1]
    return [json.loads(line) for line in part.splitlines() if line.startswith("{")]


def test_the_specs_messages_are_understood() -> None:
    """Its examples, in their order: a session that is started, stopped and cancelled."""
    device = dialect()
    understood = [
        request
        for message in examples("Client → Server")
        for request in device.receive(json.dumps(message), 0.0)
    ]
    assert understood == [SESSION, events.SpeechFinished(), *DISCARD]


def test_the_specs_messages_are_told() -> None:
    """Each example's fields, of the same types, and none besides."""
    told = [
        heard("Hello, this is"),
        heard("Hello, this is a complete sentence.", final=True),
        events.TextDelta(1, "I'm responding"),
        events.StreamStarted(1, 1, 16_000),
        events.AudioChunk(1, HELLO),
        events.StreamEnded(1, 50),
        events.ErrorReported(ErrorCode.ASR_ERROR, "Error description", timed_out=True),
        events.StatusChanged(State.READY, "s1"),
    ]
    device = dialect()
    messages = [json.loads(text) for notice in told for text in device.send(notice, 100.0)]
    wanted = examples("Server → Client")
    assert {message["type"] for message in wanted} == {message["type"] for message in messages}
    for message in wanted:
        like = [
            {name: type(value) for name, value in other.items()}
            for other in messages
            if other["type"] == message["type"]
        ]
        assert {name: type(value) for name, value in message.items()} in like
    [error] = [message for message in messages if message["type"] == "error"]
    assert error in wanted


@pytest.mark.parametrize(
    "variable",
    [
        *("OPENAI_MAX_TOKENS", "OPENAI_TEMPERATURE"),
        *("STREAM_VAD_SILENCE_MS", "STREAM_PARTIAL_INTERVAL_MS"),
    ],
)
def test_the_specs_defaults_are_ours(variable: str) -> None:
    """Of the variables that are about its devices alone."""
    [default] = re.findall(rf"(?m)^{variable}=(\S+)", SPEC)
    [value] = [row.value for row in load({}).settings if row.setting.variable == variable]
    assert value == float(default)


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


def must_be_understood_or_refused(device: PromptVoiceDialect, message: str | bytes) -> None:
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
        assert json.loads(told)["code"] == "INVALID_MESSAGE"
        str(told).encode()


GOOD = [START, STOP, CANCEL, '{"type":"start","sample_rate":44100}']
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # NaN and the infinities too: json.dumps writes them
    | st.text(max_size=20)
    | st.sampled_from([8_000, 16_000.0, 48_000, 2**53, 1e308, "start", "stop"])
)
NAMES = st.sampled_from(["type", "sample_rate", "session_id"]) | st.text(max_size=5)
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
    st.sampled_from(["start", "stop", "cancel", "ping"]),
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
@given(st.lists(MESSAGES, min_size=10, max_size=10))
def test_arbitrary_messages(messages: list[str | bytes]) -> None:
    """Nothing but ProtocolError is raised, whatever was said before."""
    device = dialect()
    for message in messages:
        must_be_understood_or_refused(device, message)


NUMBERS = st.integers(1, 3)  # of turns and streams: so that they meet
TIMES = st.none() | st.floats(-1e6, 1e6)
ANY = st.none() | st.text(max_size=5)
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
    "statistics": st.none() | st.just(STATISTICS),
    "duration_ms": st.floats(0, 1e6),
    "played_ms": st.floats(0, 1e6),
}


def notices_of(kind: type[Any]) -> st.SearchStrategy[events.Notice]:
    """Any notice of a type; numbers as they can be."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name[0] != "_"}
    if kind is events.TurnMetrics:
        times = {name: TIMES for name in hints if name.endswith("_ms")}
    elif kind is events.StatisticsSent:
        times = {"statistics": st.just(STATISTICS)}
    else:
        times = {}
    fields = {
        name: BY_FIELD[name] if name in BY_FIELD else st.from_type(hint)
        for name, hint in hints.items()
    }
    return st.builds(kind, **(fields | times))


@pytest.mark.slow
@arbitrary(500)
@given(
    st.lists(
        st.one_of([notices_of(kind) for kind in get_args(events.Notice)]), min_size=5, max_size=30
    )
)
def test_arbitrary_notices(notices: list[events.Notice]) -> None:
    """None raises, in whatever order, and each is told in messages of the protocol."""
    device = dialect()
    for now, notice in enumerate(notices):
        for message in device.send(notice, float(now)):
            assert isinstance(message, str)
            fields = json.loads(message)
            assert fields["type"] in {
                *("partial_transcript", "final_transcript", "llm_token", "tts_chunk"),
                *("tts_phrase_done", "tts_complete", "error", "info", "metrics"),
            }


def test_every_notice_has_been_tried() -> None:
    """Told alone, in a reply, or not at all: none was forgotten."""
    alone = {type(notice) for notice, _ in TOLD_ALONE} | {type(notice) for notice in UNTOLD}
    in_replies = {events.StreamStarted, events.SentenceStarted, events.AudioChunk}
    rest = {events.StreamEnded, events.ErrorReported}
    assert alone | in_replies | rest == set(get_args(events.Notice))


def test_every_request_that_it_can_make_is_in_the_golden_table() -> None:
    """The others are what such a device cannot ask."""
    made = {type(request) for script in RECEIVED.values() for _, some in script for request in some}
    assert made == {
        *(events.SessionStart, events.AudioReceived, events.EncodedAudio, events.SpeechFinished),
        *(events.SpeechDiscarded, events.InterruptPressed, events.Answer),
    }
