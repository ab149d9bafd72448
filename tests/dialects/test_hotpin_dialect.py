"""The Hotpin dialect, byte for byte: what its devices say, what they are told, and when."""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listenai import events
from listenai.device import Capabilities, Duplex, Echo
from listenai.dialects.base import NEVER
from listenai.dialects.hotpin import MAX_REPLY_SECONDS, PROFILE, HotpinDialect, claims
from listenai.dialects.hotpin_messages import (
    EMPTY_AUDIO,
    INTERRUPTED,
    MAX_JSON_BYTES,
    NO_SPEECH,
    NOT_UNDERSTOOD,
    UNAVAILABLE,
    speaking,
    thinking,
)
from listenai.dialects.hotpin_messages import error as error_message
from listenai.dialects.hotpin_reply import CHUNK_BYTES, MAX_WAV_BYTES
from listenai.errors import ErrorCode, ProtocolError
from listenai.wav import HEADER_BYTES
from listenai.wire import Message

HELLO = '{"session_id":"esp32-hotpin-001"}'
EOS, RESET = '{"signal":"EOS"}', '{"signal":"RESET"}'
PCM = bytes(range(256)) * 4  # 32 ms
LONG, SHORT = b"\x01\x02" * 2032, b"\x03\x04" * 100  # a whole chunk of 127 ms, a last one

START = events.SessionStart("esp32-hotpin-001", Capabilities(echo=Echo.CANCELLED))
BUTTON, DISCARDED = events.InterruptPressed(), events.SpeechDiscarded()
FORGOTTEN = events.HistoryForgotten()
TRANSCRIPTION = '{"status":"processing","stage":"transcription"}'
COMPLETE, CLEARED = '{"status":"complete"}', '{"status":"reset"}'


def told(*messages: Message) -> events.Answer:
    return events.Answer(messages)


def failure(text: str) -> str:
    return f'{{"status":"error","message":"{text}"}}'


def header(pcm_bytes: int) -> bytes:
    """The 44 bytes of spec 002, 4.2, written out: 16-bit mono at 16 kHz."""
    return (
        b"RIFF" + (pcm_bytes + 36).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\x01\0\x01\0"
        b"\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data" + pcm_bytes.to_bytes(4, "little")
    )


def file(pcm: bytes) -> list[bytes]:
    """The chunks of 4096 bytes of spec 002, 3.4.3."""
    wav = header(len(pcm)) + pcm
    return [wav[start : start + 4096] for start in range(0, len(wav), 4096)]


STREAMED = header(0)[:4] + b"\xff\xff\xff\xff" + header(0)[8:40] + b"\xff\xff\xff\xff"


def transcript(text: str = "hello how are you", turn_id: int = 1) -> events.UserTranscript:
    return events.UserTranscript(text, True, False, 1, turn_id)


def reported(code: ErrorCode, turn_id: int | None = None) -> events.ErrorReported:
    return events.ErrorReported(code, "why", turn_id)


# --- golden dialogues ------------------------------------------------------------------------

Step = tuple[float, Any, Sequence[Any]]  # at, message or notice (None: the deadline), what follows

ASKED: list[Step] = [
    (0.0, HELLO, [START]),
    (
        0.0,
        events.StatusChanged(events.State.READY, "esp32-hotpin-001", True),
        ['{"status":"connected","session_id":"esp32-hotpin-001"}'],
    ),
    (1.0, PCM, [BUTTON, events.AudioReceived(PCM)]),
    (1.1, PCM, [events.AudioReceived(PCM)]),
    (2.0, EOS, [told(TRANSCRIPTION), events.SpeechFinished()]),
]
UNDERSTOOD: list[Step] = [
    *ASKED,
    (
        2.1,
        transcript(),
        ['{"status":"processing","stage":"llm","transcript":"hello how are you"}'],
    ),
    (2.2, events.TextDelta(1, "Hello! "), []),
]
SPEAKING: list[Step] = [
    *UNDERSTOOD,
    (2.3, events.StreamStarted(1, 7, 16_000), []),
    (2.3, events.SentenceStarted(7, "Hello! ", 0), []),
    (2.3, events.AudioChunk(7, LONG), []),
]
FIRST_SENTENCE: list[Step] = [*SPEAKING, (2.4, events.AudioChunk(7, SHORT), [])]
ONE = LONG + SHORT
HELLO_TOLD = '{"status":"processing","stage":"tts","response":"Hello!"}'

# By name: what happens, in order.
DIALOGUES: dict[str, list[Step]] = {
    "a whole turn": [
        *FIRST_SENTENCE,
        (2.5, events.TextDelta(1, 'I\'m "fine".'), []),
        (
            2.6,
            events.TextDone(1, 'Hello! I\'m "fine".'),
            ['{"status":"processing","stage":"tts","response":"Hello! I\'m \\"fine\\"."}'],
        ),
        (2.6, events.SentenceStarted(7, 'I\'m "fine".', 2132), []),
        (2.6, events.AudioChunk(7, LONG), []),
        (2.6, events.AudioChunk(7, LONG), []),
        (
            2.7,
            events.StreamEnded(7, 6196),
            [*file(ONE + LONG + LONG), COMPLETE],
        ),
        (3.7, events.TurnMetrics(1), []),
        (4.0, PCM, [BUTTON, events.AudioReceived(PCM)]),  # and so on
    ],
    "the button is not pressed": [*ASKED[:2], (1.0, EOS, [told(failure(EMPTY_AUDIO))])],
    "audio of no bytes is none": [
        *ASKED[:2],
        (1.0, b"", []),
        (1.0, EOS, [told(failure("Empty audio buffer"))]),
    ],
    "no words": [
        *ASKED,
        (2.1, events.NothingUnderstood(), [failure("Could not understand audio")]),
        (2.2, EOS, [told(failure(EMPTY_AUDIO))]),
    ],
    "recognition fails": [
        *ASKED,
        (2.1, reported(ErrorCode.ASR_ERROR), []),
        (2.1, events.NothingUnderstood(), [failure(NOT_UNDERSTOOD)]),
    ],
    "asked twice": [
        *ASKED,
        (2.05, EOS, [told(failure("Busy"))]),
        *UNDERSTOOD[-2:],
        (2.3, EOS, [told(failure("Busy"))]),
    ],
    "the model fails": [
        *UNDERSTOOD,
        (2.3, reported(ErrorCode.LLM_ERROR, 1), [failure("Service temporarily unavailable")]),
        (2.3, None, [BUTTON]),
        (2.3, events.TextDelta(1, "Sorry."), []),
        (2.3, events.StreamStarted(1, 7, 16_000), []),
        (2.3, events.AudioChunk(7, LONG), []),
        (2.4, events.TurnMetrics(1), []),
    ],
    "the model fails in mid speech": [
        *FIRST_SENTENCE,
        (2.5, reported(ErrorCode.LLM_ERROR, 1), [failure(UNAVAILABLE)]),
        (2.5, None, [BUTTON, events.PlaybackReported(7, 0)]),
        (2.5, events.StreamEnded(7, 2132), []),
    ],
    "the reply takes the server too long": [
        *UNDERSTOOD,
        (2.3, reported(ErrorCode.TIMEOUT, 1), [failure(UNAVAILABLE)]),
        (2.3, None, [BUTTON]),
    ],
    "the voice fails": [
        *SPEAKING,
        (2.4, reported(ErrorCode.TTS_ERROR, 1), [failure("TTS synthesis failure")]),
        (2.4, None, [BUTTON, events.PlaybackReported(7, 0)]),
    ],
    "the voice says nothing": [
        *SPEAKING[:-1],
        (2.4, events.TextDone(1, "Hello!"), [HELLO_TOLD]),
        (2.4, events.StreamEnded(7, 0), [failure(NO_SPEECH)]),
    ],
    "the model says nothing": [
        *UNDERSTOOD[:-1],
        (2.3, events.TextDone(1, " "), []),
        (2.4, events.TurnMetrics(1), [failure(UNAVAILABLE)]),
    ],
    "too much is asked": [
        *UNDERSTOOD,
        (2.2, events.ErrorReported(ErrorCode.RATE_LIMITED, "later", 1, 900), [failure("later")]),
        (2.2, None, [BUTTON]),
    ],
    "too much waits": [
        *ASKED,
        (2.1, reported(ErrorCode.RATE_LIMITED), [failure("why")]),
        (2.2, PCM, [BUTTON, events.AudioReceived(PCM)]),
    ],
    "our own mistake": [*ASKED, (2.1, reported(ErrorCode.INTERNAL_ERROR), [failure("why")])],
    "a message that is none": [
        *UNDERSTOOD,
        (2.2, reported(ErrorCode.INVALID_MESSAGE), [failure("why")]),
        *SPEAKING[-3:],
    ],
    "the session is another's": [
        *ASKED[:1],
        (0.0, reported(ErrorCode.SESSION_ERROR), [failure("why")]),
        (0.0, None, [events.HangUp(1008, "no session")]),
    ],
    "a key is missing": [(0.0, reported(ErrorCode.UNAUTHORIZED), [failure("why")])],
    "interrupted before there are words": [
        *ASKED,
        (2.1, PCM, [DISCARDED, BUTTON, told(failure(INTERRUPTED)), events.AudioReceived(PCM)]),
        (2.2, events.NothingUnderstood(), []),
        (3.0, EOS, [told(TRANSCRIPTION), events.SpeechFinished()]),
    ],
    "interrupted while the model thinks": [
        *UNDERSTOOD,
        (2.3, PCM, [BUTTON, told(failure("Interrupted")), events.AudioReceived(PCM)]),
        (2.3, events.TextDone(1, "Hello!"), []),
        (2.3, events.StreamStarted(1, 7, 16_000), []),
        (2.3, events.TurnMetrics(1), []),
    ],
    "interrupted in mid speech": [
        *SPEAKING,
        (
            2.4,
            PCM,
            [
                BUTTON,
                events.PlaybackReported(7, 0),
                told(failure(INTERRUPTED)),
                events.AudioReceived(PCM),
            ],
        ),
        (2.4, events.AudioChunk(7, LONG), []),
        (2.4, events.StreamEnded(7, 2032), []),
        (2.5, EOS, [told(TRANSCRIPTION), events.SpeechFinished()]),
        (2.6, transcript("again", 2), [thinking("again")]),
    ],
    "what was given up becomes a turn all the same": [
        *ASKED,
        (2.1, PCM, [DISCARDED, BUTTON, told(failure(INTERRUPTED)), events.AudioReceived(PCM)]),
        (2.1, transcript(), []),
        (2.1, events.TextDelta(1, "Hello! "), []),
        (2.2, EOS, [told(TRANSCRIPTION), events.SpeechFinished()]),
        (2.3, transcript("again", 2), [thinking("again")]),
    ],
    "told of what was given up when the next is asked": [
        *ASKED,
        (2.1, PCM, [DISCARDED, BUTTON, told(failure(INTERRUPTED)), events.AudioReceived(PCM)]),
        (2.2, transcript(), []),
        (2.2, events.NothingUnderstood(), []),
    ],
    "two utterances, both understood": [
        *UNDERSTOOD,
        (2.3, transcript("again", 2), [thinking("again")]),
        (2.3, events.TurnMetrics(1), []),
        (2.4, events.TextDelta(2, "Yes."), []),
        (2.4, events.TextDone(2, "Yes."), [speaking("Yes.")]),
    ],
    "reset": [
        *ASKED[:2],
        (1.0, RESET, [BUTTON, FORGOTTEN, told(CLEARED)]),
        (1.0, EOS, [told(failure(EMPTY_AUDIO))]),
    ],
    "reset while recording": [
        *ASKED[:-1],
        (2.0, RESET, [DISCARDED, FORGOTTEN, told(CLEARED)]),
        (2.0, EOS, [told(failure(EMPTY_AUDIO))]),
    ],
    "reset before there are words": [
        *ASKED,
        (2.1, RESET, [DISCARDED, BUTTON, told(failure(INTERRUPTED)), FORGOTTEN, told(CLEARED)]),
    ],
    "reset in mid speech": [
        *SPEAKING,
        (
            2.4,
            RESET,
            [
                BUTTON,
                events.PlaybackReported(7, 0),
                told(failure(INTERRUPTED)),
                FORGOTTEN,
                told(CLEARED),
            ],
        ),
        (2.4, events.StreamEnded(7, 2032), []),
    ],
    "no words for 8 s": [
        *ASKED,
        (10.0, None, [DISCARDED, BUTTON, told(failure(UNAVAILABLE))]),
        (10.1, transcript(), []),
    ],
    "no sound for 8 s": [*UNDERSTOOD, (10.0, None, [BUTTON, told(failure(UNAVAILABLE))])],
    "a first sentence that takes more than 8 s": [
        *SPEAKING,
        (
            10.0,
            None,
            [
                BUTTON,
                events.PlaybackReported(7, 2032),
                told(HELLO_TOLD, *file(LONG), COMPLETE),
            ],
        ),
        (10.0, events.AudioChunk(7, LONG), []),
        (10.0, events.StreamEnded(7, 2032), []),
    ],
    "a second sentence that takes more than 8 s": [
        *FIRST_SENTENCE,
        (2.6, events.SentenceStarted(7, "I'm fine.", 2132), []),
        (2.6, events.AudioChunk(7, LONG), []),
        (
            10.0,
            None,
            [
                BUTTON,
                events.PlaybackReported(7, 2132),
                told(HELLO_TOLD, *file(ONE), COMPLETE),
            ],
        ),
    ],
    "a second sentence that does not begin within 8 s": [
        *FIRST_SENTENCE,
        (
            10.0,
            None,
            [
                BUTTON,
                events.PlaybackReported(7, 2132),
                told(HELLO_TOLD, *file(ONE), COMPLETE),
            ],
        ),
        (10.1, EOS, [told(failure(EMPTY_AUDIO))]),
    ],
    "said without being asked": [
        *ASKED[:2],
        (5.0, events.TextDelta(1, "Your tea is ready."), []),
        (5.0, events.StreamStarted(1, 7, 16_000), []),
        (5.0, events.AudioChunk(7, SHORT), []),
        (5.0, events.TextDone(1, "Your tea is ready."), [speaking("Your tea is ready.")]),
        (99.0, events.StreamEnded(7, 100), [*file(SHORT), COMPLETE]),
    ],
    "said without being asked, while the user speaks": [
        *ASKED[:-1],
        (1.2, events.TextDelta(1, "Your tea is ready."), []),
        (1.2, None, [BUTTON]),
        (1.2, events.StreamStarted(1, 7, 16_000), []),
        (2.0, EOS, [told(TRANSCRIPTION), events.SpeechFinished()]),
    ],
    "music": [
        *ASKED[:2],
        (1.0, events.StreamStarted(0, 3, 16_000, events.Source.MUSIC), []),
        (1.0, events.AudioChunk(3, LONG), []),
        (1.0, None, [BUTTON]),
        (1.0, events.StreamEnded(3, 960), []),
    ],
    "partial words": [
        *ASKED,
        (2.1, events.UserTranscript("hello", False, True, 1, 1), []),
    ],
}

UNTOLD: list[events.Notice] = [
    events.StatusChanged(events.State.THINKING, "esp32-hotpin-001"),
    events.StatusChanged(events.State.READY, "another"),
    events.VoiceNoticed(speaking=True),
    events.ToolCalled(1, "c1", "get_weather", {}, events.Target.SERVER),
    events.ToolReturned(1, "c1", "get_weather", True, "sunny", 3.0),
    events.StreamPaused(7),
    events.StreamResumed(7),
    events.StreamFlushed(7),
    events.TurnInterrupted(1, "", "Hello!", 0.0, events.Certainty.REPORTED),
    events.StatisticsSent("esp32-hotpin-001", None),  # type: ignore[arg-type]
    events.PongSent(1),
    told("{}"),
]


def follow(dialect: HotpinDialect, steps: Sequence[Step]) -> None:
    """Plays a dialogue; whatever happens must be what the dialogue has, to the byte."""
    for at, what, expected in steps:
        if what is None:
            assert dialect.next_deadline() <= at
            happened: Sequence[Any] = dialect.expire(at)
        elif isinstance(what, str | bytes):
            happened = dialect.receive(what, at)
        else:
            happened = dialect.send(what, at)
        assert list(happened) == list(expected), (at, what)
        for request in happened:
            if isinstance(request, events.Answer):
                dialect.send(request, at)


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_dialogue_goes_as_it_must(name: str) -> None:
    """Requests for the device's messages, messages for notices, both to the byte."""
    follow(HotpinDialect(), DIALOGUES[name])


def test_the_dialogues_leave_nothing_out() -> None:
    """Every notice is in them, or among those that these devices are not told."""
    steps = [step for steps in DIALOGUES.values() for step in steps]
    notices = {type(what) for _, what, _ in steps} & set(get_args(events.Notice))
    untold = {type(notice) for notice in UNTOLD}
    assert notices | untold == set(get_args(events.Notice))
    silent = {type(what) for _, what, follows in steps if not follows}
    assert all(notice in silent for notice in (events.TextDelta, events.AudioChunk))


@pytest.mark.parametrize("stage", [[], ASKED[:2], ASKED, UNDERSTOOD, SPEAKING], ids=len)
def test_what_is_not_told(stage: list[Step]) -> None:
    """These devices learn nothing of it, whatever they do."""
    for notice in UNTOLD:
        dialect = HotpinDialect()
        follow(dialect, stage)
        assert list(dialect.send(notice, 3.0)) == []
        assert dialect.next_deadline() in {NEVER, 2.0 + MAX_REPLY_SECONDS}


def test_a_reply_may_take_8_seconds_from_eos() -> None:
    """Not from the last audio; and nothing is due before, or after it."""
    dialect = HotpinDialect()
    follow(dialect, ASKED[:-1])
    assert dialect.next_deadline() == NEVER
    follow(dialect, SPEAKING[4:])
    assert dialect.next_deadline() == 10.0
    assert list(dialect.expire(9.99)) == []
    assert dialect.expire(10.0)
    assert dialect.next_deadline() == NEVER
    dialect.undelivered(["{}"], 11.0)
    assert dialect.next_deadline() == NEVER


# --- the handshake ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "session_id"),
    [
        ('{"session_id":"a"}', "a"),
        ('{"session_id":"esp32-001","api_key":"secret"}', "esp32-001"),
        ('{"session_id":"a","firmware":{"version":[1,2]}}', "a"),
        ('{\n  "session_id": "küche_1.a-b"\n}', "küche_1.a-b"),
    ],
)
def test_a_handshake_asks_for_its_session(hello: str, session_id: str) -> None:
    """Whatever else is in it."""
    [start] = HotpinDialect().receive(hello, 0.0)
    assert isinstance(start, events.SessionStart)
    assert start.session_id == session_id


@pytest.mark.parametrize(
    ("first", "word"),
    [
        ("{}", "'session_id' is missing"),
        ('{"session_id":null}', "null"),
        ('{"session_id":""}', "1 to 64"),
        ('{"session_id":7}', "7"),
        ('{"session_id":"a b"}', "letters"),
        ('{"session_id":"' + "a" * 65 + '"}', "65 characters"),
        ('{"session_id":"a","session_id":"b"}', "twice"),
        (EOS, "'session_id' is missing"),
        ("hello", "not JSON"),
        ("[]", "a list"),
        ("[" * 100_000, "deep"),
        ("x" * 2_000_000, "2000000 bytes"),
        (PCM, "audio"),
        (b"", "audio"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_who_does_not_say_who_it_is_is_told_how_and_let_go(first: Message, word: str) -> None:
    """Spec 002, 3.1: "Required: Yes (first message)"."""
    [answer, hang_up] = HotpinDialect().receive(first, 0.0)
    assert isinstance(answer, events.Answer)
    [message] = answer.messages
    assert len(str(message).encode()) <= MAX_JSON_BYTES
    document = json.loads(message)
    assert document["status"] == "error"
    assert word in document["message"]
    assert '{"session_id":"your-device-id"}' in document["message"]
    assert hang_up == events.HangUp(1008, "no session_id")


def test_a_first_message_with_a_type_is_another_dialects() -> None:
    """On the path that they share."""
    assert claims({"session_id": "a"})
    assert claims({"session_id": "a", "api_key": "b"})
    assert not claims({"type": "start_session", "session_id": "a"})
    assert not claims({})


# --- what is no message ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{}", ("'signal' is missing",)),
        ('{"signal":"eos"}', ("'signal'", "EOS, RESET", "'eos'")),
        ('{"signal":7}', ("'signal'", "EOS, RESET", "7")),
        ('{"signal":["EOS"]}', ("'signal'", "a list")),
        ('{"session_id":"a"}', ("'signal' is missing",)),
        ('{"signal":"EOS","signal":"RESET"}', ("'signal'", "twice")),
        ("EOS", ("not JSON",)),
        ("null", ("null",)),
        ('{"signal":"\\ud800"}', ("surrogate",)),
        (bytes((1 << 20) + 1), ("1048577 bytes", "1048576")),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_message_is_refused(message: Message, words: Sequence[str]) -> None:
    """It says what was wrong and what is allowed, and changes nothing."""
    dialect = HotpinDialect()
    follow(dialect, ASKED)
    with pytest.raises(ProtocolError) as caught:
        dialect.receive(message, 2.05)
    assert caught.value.code is ErrorCode.INVALID_MESSAGE
    assert all(word in str(caught.value) for word in words), str(caught.value)
    follow(dialect, UNDERSTOOD[5:])


# --- the file --------------------------------------------------------------------------------


def long_reply(dialect: HotpinDialect, sentences: int, chunks: int) -> list[Message]:
    """Sentences of so many whole chunks and a short one, until the stream is over or cut."""
    follow(dialect, SPEAKING[:-2])
    messages: list[Message] = []

    def send(notice: events.Notice) -> None:
        messages.extend(dialect.send(notice, 3.0))

    for _ in range(sentences):
        send(events.SentenceStarted(7, "Again.", 0))
        for pcm in [*[LONG] * chunks, SHORT]:
            send(events.AudioChunk(7, pcm))
    send(events.StreamEnded(7, 0))
    return messages


def file_in(messages: Sequence[Message]) -> bytes:
    """The binary messages after the last `tts`, as the device joins them."""
    chunks = [message for message in messages if isinstance(message, bytes)]
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= CHUNK_BYTES
    assert messages[-1] == COMPLETE
    return b"".join(chunks)


@pytest.mark.parametrize("exact", [True, False])
def test_a_reply_that_fits_is_sent_whole(exact: bool) -> None:
    """15.3 s of it."""
    dialect = HotpinDialect(exact)
    messages = long_reply(dialect, 8, 15)
    file, sentence = file_in(messages), LONG * 15 + SHORT
    assert file[HEADER_BYTES:] == sentence * 8
    assert file[:HEADER_BYTES] == (header(8 * len(sentence)) if exact else STREAMED)
    assert dialect.next_deadline() == NEVER
    if exact:
        with wave.open(io.BytesIO(file)) as parsed:
            assert parsed.getparams()[:4] == (1, 2, 16_000, 8 * (15 * 2032 + 100))


@pytest.mark.parametrize("exact", [True, False])
def test_a_reply_that_does_not_fit_ends_with_a_sentence(exact: bool) -> None:
    """At once; history gets what was sent, and not more."""
    dialect = HotpinDialect(exact)
    before = long_reply(dialect, 9, 15)  # 550 440 bytes
    assert exact is not any(isinstance(message, bytes) for message in before)
    assert dialect.next_deadline() <= 3.0
    [button, report, answer] = dialect.expire(3.0)
    assert isinstance(answer, events.Answer)
    file, sentence = file_in([*before, *answer.messages]), LONG * 15 + SHORT
    assert len(file) < 512_000
    assert file[HEADER_BYTES:] == sentence * 8
    assert (button, report) == (BUTTON, events.PlaybackReported(7, 8 * (15 * 2032 + 100)))
    assert dialect.next_deadline() == NEVER
    assert list(dialect.send(events.StreamEnded(7, 1), 3.1)) == []


def test_a_sentence_without_end_is_cut_where_the_buffer_ends() -> None:
    """One byte less than 512 000, and a sample has two: the device takes all of it."""
    dialect = HotpinDialect()
    assert long_reply(dialect, 1, 200) == []
    [_, report, answer] = dialect.expire(3.0)
    file = file_in(answer.messages)  # type: ignore[union-attr]
    assert len(file) == MAX_WAV_BYTES == 511_998
    assert file[:HEADER_BYTES] == header(511_954)
    assert report == events.PlaybackReported(7, 511_954 // 2)


def test_a_stream_goes_ahead_sentence_by_sentence() -> None:
    """In whole chunks, after the text so far; the rest comes with the end."""
    dialect = HotpinDialect(exact_wav=False)
    follow(dialect, SPEAKING[:-2])
    pcm = LONG + SHORT
    follow(
        dialect,
        [
            (2.3, events.SentenceStarted(7, "Hello! ", 0), []),
            (2.3, events.AudioChunk(7, LONG), []),
            (2.4, events.AudioChunk(7, SHORT), [HELLO_TOLD, (STREAMED + pcm)[:4096]]),
            (2.4, events.TextDone(1, "Hello! Yes."), []),
            (2.5, events.SentenceStarted(7, "Yes.", 2132), []),
            (2.5, events.AudioChunk(7, SHORT), []),
            (2.6, events.StreamEnded(7, 2232), [(STREAMED + pcm)[4096:] + SHORT, COMPLETE]),
        ],
    )


def test_a_stream_that_is_interrupted_was_heard_as_far_as_it_was_sent() -> None:
    """It may have been played already."""
    dialect = HotpinDialect(exact_wav=False)
    follow(dialect, SPEAKING[:-2])
    for pcm in (LONG, SHORT):
        dialect.send(events.AudioChunk(7, pcm), 2.4)
    assert events.PlaybackReported(7, (4096 - 44) // 2) in dialect.receive(PCM, 2.5)


def test_the_audio_has_the_rate_of_its_stream() -> None:
    """Spec 002, 4.2: "Sample Rate: Varies"."""
    dialect = HotpinDialect()
    follow(dialect, UNDERSTOOD)
    dialect.send(events.StreamStarted(1, 7, 22_050), 2.3)
    dialect.send(events.AudioChunk(7, SHORT), 2.3)
    [_, file, _] = dialect.send(events.StreamEnded(7, 100), 2.4)
    assert isinstance(file, bytes)
    with wave.open(io.BytesIO(file)) as parsed:
        assert (parsed.getframerate(), parsed.getnchannels(), parsed.getsampwidth()) == (
            (22_050, 1, 2)
        )
        assert parsed.readframes(1000) == SHORT


# --- JSON ------------------------------------------------------------------------------------


def arbitrary(examples: int) -> settings:
    """The same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@arbitrary(500)
@given(
    st.text(st.characters()) | st.text('a"\\\n é声🙂\ud800', max_size=800),
    st.sampled_from([thinking, speaking, error_message]),
)
def test_a_text_is_told_as_far_as_there_is_room(text: str, tell: Any) -> None:
    """Whole where it fits; else as much as fits, cut at a character, with an ellipsis."""
    message = str(tell(text))
    assert len(message.encode()) <= MAX_JSON_BYTES
    shown = list(json.loads(message).values())[-1]
    text = text.encode(errors="replace").decode()
    if shown != text:
        assert shown.endswith("…")
        kept = shown[:-1]
        assert text.startswith(kept)
        assert kept == kept.rstrip()
        more = text[len(kept) : len(kept) + 1]
        longer = message.replace("…", json.dumps(more, ensure_ascii=False)[1:-1] + "…")
        assert more.isspace() or len(longer.encode()) > MAX_JSON_BYTES


def test_a_long_text_is_cut() -> None:
    """At a character, not at a byte."""
    assert json.loads(str(thinking("声" * 300)))["transcript"] == "声" * 114 + "…"
    document = json.loads(str(error_message("no " * 500)))
    assert document["message"].startswith("no no")
    assert document["message"].endswith("no…")


# --- how these devices are treated -------------------------------------------------------------


def test_the_profile_is_the_protocols() -> None:
    """PROFILE has the numbers of the specification and of the devices."""
    assert (PROFILE.history_messages, PROFILE.temperature, PROFILE.max_tokens) == (20, 0.2, 200)
    assert PROFILE.utterance_seconds == 60.0
    assert PROFILE.lead(START.capabilities) == math.inf
    assert PROFILE.configuration.end_of_turn_ms == math.inf
    assert HotpinDialect().profile is PROFILE
    mine = attrs.evolve(PROFILE, max_tokens=3)
    assert HotpinDialect(True, mine).profile is mine


# --- anything at all: 10 000 messages ----------------------------------------------------------

TURNS, STREAMS = st.integers(1, 3), st.integers(1, 3)
TEXTS = st.sampled_from(["", " ", "Yes.", "声" * 300, "\ud800"])
NOTICES: st.SearchStrategy[events.Notice] = st.one_of(
    st.builds(events.StatusChanged, st.sampled_from(events.State), st.just("a")),
    st.builds(
        events.StatusChanged, st.just(events.State.READY), st.just("a"), duplex=st.just(Duplex.FULL)
    ),
    st.builds(events.UserTranscript, TEXTS, st.booleans(), st.booleans(), st.integers(1, 3), TURNS),
    st.builds(events.NothingUnderstood),
    st.builds(events.TextDelta, TURNS, TEXTS),
    st.builds(events.TextDone, TURNS, TEXTS),
    st.builds(
        events.StreamStarted,
        TURNS,
        STREAMS,
        st.sampled_from([8_000, 16_000, 48_000]),
        st.sampled_from(events.Source),
    ),
    st.builds(events.SentenceStarted, STREAMS, TEXTS, st.integers(0, 10**6)),
    st.builds(
        events.AudioChunk, STREAMS, st.sampled_from([b"", SHORT, LONG, bytes(4096), bytes(300_000)])
    ),
    st.builds(events.StreamEnded, STREAMS, st.integers(0, 10**6)),
    st.builds(events.TurnMetrics, TURNS),
    st.builds(events.ErrorReported, st.sampled_from(ErrorCode), TEXTS, st.none() | TURNS),
    st.sampled_from(UNTOLD),
)
# A reply as it mostly goes, so that chance gets into its middle.
USUAL: st.SearchStrategy[list[Any]] = st.builds(
    lambda steps, cut: [what for _, what, _ in steps][1:cut],
    st.sampled_from([DIALOGUES["a whole turn"], DIALOGUES["music"], FIRST_SENTENCE]),
    st.integers(2, 20),
)
MESSAGES = st.one_of(
    st.sampled_from([EOS, RESET, PCM, b"", HELLO]),
    st.sampled_from([EOS, RESET, HELLO]).flatmap(
        lambda text: st.builds(
            lambda at, cut, put: text[:at] + put + text[at + cut :],
            st.integers(0, len(text)),
            st.integers(0, 4),
            st.text(max_size=3) | st.sampled_from(['"', "\\", "{", "[", "1e999", "\\ud800"]),
        )
    ),
    st.text(max_size=40) | st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(["signal", "session_id", "type", "api_key"]) | st.text(max_size=3),
        st.none() | st.integers() | st.floats() | st.sampled_from(["EOS", "RESET"]) | st.text(),
        max_size=3,
    ).map(json.dumps),
)
WAITS = st.sampled_from([0.1, 3.0, 9.0])


def test_every_notice_may_come_at_random() -> None:
    """The strategy has them all."""
    drawn: set[type] = set()

    @arbitrary(1000)
    @given(NOTICES)
    def draw(notice: events.Notice) -> None:
        drawn.add(type(notice))

    draw()
    assert drawn == set(get_args(events.Notice))


ENDS = {NOT_UNDERSTOOD, UNAVAILABLE, NO_SPEECH, INTERRUPTED}


@attrs.define
class LawfulDevice:
    """Takes what a device is told, and checks what it could not survive."""

    file: bytearray | None = None  # since `tts`, until the end

    def take(self, message: Message) -> None:
        if isinstance(message, bytes):
            assert self.file is not None, "audio outside of a reply"
            self.file += message
            assert 0 < len(message) <= CHUNK_BYTES
            assert len(self.file) < 512_000
            return
        assert len(message.encode()) <= MAX_JSON_BYTES
        document = json.loads(message)
        if document["status"] == "complete":
            assert self.file is not None
            assert len(self.file) > HEADER_BYTES
            size = int.from_bytes(self.file[40:44], "little")
            assert size in {len(self.file) - HEADER_BYTES, 0xFFFFFFFF}
            self.file = None
        elif document.get("stage") == "tts":
            self.file = bytearray()
        elif document.get("message") in ENDS:
            self.file = None


def messages_of(
    dialect: HotpinDialect, requests: Sequence[events.Request], now: float
) -> Iterator[Message]:
    for request in requests:
        assert isinstance(request, get_args(events.Request))
        if isinstance(request, events.Answer):
            dialect.send(request, now)
            yield from request.messages


@pytest.mark.slow
@arbitrary(1000)
@given(
    st.booleans(),
    st.lists(
        st.one_of(MESSAGES.map(lambda one: [one]), NOTICES.map(lambda one: [one]), USUAL, WAITS),
        min_size=10,
        max_size=20,
    ),
)
def test_anything_at_any_time(exact: bool, steps: list[Any]) -> None:
    """Some 6000 messages and notices: only ProtocolError rises, and the device survives."""
    dialect, device, now = HotpinDialect(exact), LawfulDevice(), 0.0
    dialect.receive('{"session_id":"a"}', now)
    for step in steps:
        for what in [None] if isinstance(step, float) else step:
            now += step if isinstance(step, float) else 0.01
            messages: Sequence[Message] = ()
            if isinstance(what, str | bytes):
                try:
                    messages = list(messages_of(dialect, dialect.receive(what, now), now))
                except ProtocolError as refused:
                    messages = dialect.send(events.ErrorReported(refused.code, str(refused)), now)
            elif what is not None:
                messages = dialect.send(what, now)
            for message in messages:
                device.take(message)
            if dialect.next_deadline() <= now:
                for message in messages_of(dialect, dialect.expire(now), now):
                    device.take(message)
            assert dialect.next_deadline() > now


@pytest.mark.slow
@arbitrary(1500)
@given(MESSAGES)
def test_any_first_message(message: Message) -> None:
    """It begins a session, or is told how to."""
    requests = HotpinDialect().receive(message, 0.0)
    kinds = [type(request) for request in requests]
    assert kinds in ([events.SessionStart], [events.Answer, events.HangUp])


@pytest.mark.slow
@arbitrary(3500)
@given(MESSAGES)
def test_any_message_of_a_session(message: Message) -> None:
    """Understood, or refused in words that can be sent."""
    dialect = HotpinDialect()
    follow(dialect, ASKED[:2])
    requests: Sequence[events.Request] = ()
    refused: ProtocolError | None = None
    try:
        requests = dialect.receive(message, 0.0)
    except ProtocolError as error:
        refused = error
    assert all(isinstance(request, get_args(events.Request)) for request in requests)
    if refused:
        assert refused.code is ErrorCode.INVALID_MESSAGE
        assert 0 < len(str(refused).encode()) < 2000
