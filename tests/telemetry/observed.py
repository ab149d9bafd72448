"""A scripted talk, as observers are told of it, and logs as they are written.

Whatever was said in it, by anybody, holds CONTENT, which no observer may tell.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import attrs
import trio

from listenai.conversation.actions import (
    BeginTurn,
    CommitUtterance,
    HoldTurn,
    InterruptTurn,
    ReleaseTurn,
    Show,
    Tell,
    ToolFinished,
    UserSaid,
    UserTyped,
)
from listenai.device import Capabilities
from listenai.engines.base import ToolCall
from listenai.errors import ErrorCode
from listenai.events import (
    Answer,
    AudioChunk,
    Certainty,
    DeviceToolReturned,
    ErrorReported,
    HangUp,
    HistoryForgotten,
    InterruptPressed,
    NothingUnderstood,
    PingReceived,
    PlaybackReported,
    PongSent,
    SentenceStarted,
    SessionEnd,
    SessionStart,
    SpeechDiscarded,
    SpeechFinished,
    State,
    StatisticsAsked,
    StatisticsSent,
    StatusChanged,
    StreamEnded,
    StreamFlushed,
    StreamPaused,
    StreamResumed,
    StreamStarted,
    Target,
    TextDelta,
    TextDone,
    TextTyped,
    ToolCalled,
    ToolReturned,
    ToolSchema,
    TurnInterrupted,
    TurnMetrics,
    UserTranscript,
    VoiceNoticed,
)
from listenai.observer import Fact, Observer, SessionOpened, TurnLeft, TurnOutcome, TurnWaited
from listenai.settings import Configuration, EffectiveConfiguration, SessionStatistics
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechStarted,
    SpeechSuspected,
    TranscriptionDelayed,
    TranscriptionFailed,
)
from listenai.telemetry.logs import NOISY, start_logging

CONTENT = "rosebud"
SAID = UserSaid(CONTENT, last_speech_at=1.0, ended_at=1.1, transcript_at=1.15)
STATISTICS = SessionStatistics(2, 1, 5.0, 1.0, 0.0)


def _called(turn_id: int, call_id: str, name: str, target: Target = Target.SERVER) -> ToolCalled:
    return ToolCalled(turn_id, call_id, name, {"about": CONTENT}, target)


def _returned(turn_id: int, call_id: str, name: str, *, ok: bool, ms: float) -> ToolReturned:
    return ToolReturned(turn_id, call_id, name, ok, {"answer": CONTENT}, ms)


# (Trio's time, fact)
TALK: tuple[tuple[float, Fact], ...] = (
    (0.0, SessionStart("s-1", Capabilities(pause=True), (ToolSchema("lamp", CONTENT, {}),))),
    (0.0, SessionOpened("s-1", restored=False)),
    (0.0, StatusChanged(State.READY, "s-1", False, EffectiveConfiguration(system_prompt=CONTENT))),
    (0.1, Configuration(system_prompt=CONTENT, interruptible=True)),
    # A question is heard; its turn calls tools of all sorts.
    (0.5, SpeechStarted(1)),
    (0.6, SpeechSuspected(1)),
    (0.9, PartialTranscript(1, CONTENT)),
    (1.1, SpeechEnded(1, last_speech_at=1.0, transcript_follows=True)),
    (1.15, FinalTranscript(1, CONTENT, complete=True)),
    (1.15, Tell(UserTranscript(CONTENT, True, False, 1, 1))),
    (1.15, BeginTurn(1, SAID)),
    (1.15, CommitUtterance()),
    (1.15, Show(State.THINKING)),
    (1.15, UserTranscript(CONTENT, True, False, 1, 1)),
    (1.2, TurnWaited(1, waited_seconds=0.05)),
    (1.3, TextDelta(1, CONTENT)),
    (1.3, TextDelta(1, CONTENT)),
    (1.4, _called(1, "c1", "weather")),
    (1.4, _called(1, "c2", "lamp", Target.DEVICE)),
    (1.5, DeviceToolReturned("c2", True, CONTENT)),
    (1.5, _returned(1, "c2", "lamp", ok=False, ms=100.0)),
    (1.6, _returned(1, "c1", "weather", ok=True, ms=200.0)),
    (1.6, _returned(1, "c3", CONTENT, ok=False, ms=0.0)),  # the chat model's own invention
    (1.7, _returned(1, "c1", "weather", ok=True, ms=300.0)),  # it went on in the background
    (1.7, StreamStarted(1, 1, 16_000)),
    (1.7, SentenceStarted(1, CONTENT, 0)),
    (1.7, AudioChunk(1, b"rosebud!")),
    (1.8, TextDone(1, CONTENT)),
    (1.9, AudioChunk(1, b"rosebud!")),
    # A cough: the reply is held and goes on.
    (2.0, SpeechStarted(2)),
    (2.0, SpeechSuspected(2)),
    (2.0, HoldTurn()),
    (2.004, StreamPaused(1)),
    (2.2, SpeechEnded(2, last_speech_at=2.1, transcript_follows=False)),
    (2.2, ReleaseTurn()),
    (2.2, StreamResumed(1)),
    # Somebody takes the floor.
    (3.0, SpeechStarted(3)),
    (3.0, SpeechSuspected(3)),
    (3.0, HoldTurn()),
    (3.04, StreamPaused(1)),
    (3.4, TranscriptionDelayed(3, ErrorCode.ASR_ERROR, CONTENT)),
    (3.5, FinalTranscript(3, CONTENT)),
    (3.5, InterruptTurn()),
    (3.52, StreamFlushed(1)),
    (3.55, PlaybackReported(1, 160)),
    (3.6, TurnLeft(1, TurnOutcome.INTERRUPTED, prompt_tokens=70, completion_tokens=8)),
    (3.6, TurnInterrupted(1, CONTENT, CONTENT, 1000.0, Certainty.REPORTED)),
    (
        3.6,
        TurnMetrics(
            1,
            end_of_speech_ms=100.0,
            transcript_ms=150.0,
            turn_started_ms=200.0,
            first_token_ms=300.0,
            first_sentence_ms=650.0,
            first_audio_ms=700.0,
            text_done_ms=800.0,
            ended_ms=2600.0,
            certainty=Certainty.REPORTED,
        ),
    ),
    # A typed question, whose turn fails, and is not over before the button is pressed.
    (4.0, TextTyped(CONTENT)),
    (4.0, BeginTurn(2, UserTyped(CONTENT, 4.0))),
    (4.0, TurnWaited(2, waited_seconds=0.0)),
    (4.1, ErrorReported(ErrorCode.LLM_ERROR, CONTENT, turn_id=2)),
    (4.2, InterruptPressed()),
    (4.2, InterruptTurn()),
    (4.25, StreamFlushed(2)),
    (4.3, TurnLeft(2, TurnOutcome.FAILED)),
    (4.3, TurnMetrics(2, turn_started_ms=0.0, ended_ms=300.0)),
    # A click, noise, and a transcriber that fails.
    (5.0, SpeechStarted(4)),
    (5.1, SpeechFinished()),
    (5.2, FinalTranscript(4, "")),
    (5.3, TranscriptionFailed(5, ErrorCode.ASR_ERROR, CONTENT)),
    (5.3, ErrorReported(ErrorCode.ASR_ERROR, CONTENT)),
    (5.4, ErrorReported(ErrorCode.INVALID_MESSAGE, CONTENT)),
    # What other dialects' devices ask.
    (5.5, VoiceNoticed(True)),
    (5.5, SpeechDiscarded()),
    (5.6, NothingUnderstood()),
    (5.7, HistoryForgotten()),
    (5.7, Answer((CONTENT,))),
    # A result is announced; the device leaves in the middle of it.
    (6.0, BeginTurn(3, ToolFinished(ToolCall("c9", "play", CONTENT), True, CONTENT, 6.0))),
    (6.0, TurnWaited(3, waited_seconds=0.0)),
    (6.1, _called(3, "c4", "weather")),
    (6.2, StreamEnded(3, 4800)),
    (6.3, PingReceived(CONTENT)),
    (6.3, PongSent(CONTENT)),
    (6.4, StatisticsAsked()),
    (6.4, StatisticsSent("s-1", STATISTICS)),
    (6.5, SessionEnd()),
    (6.5, HangUp(1008, CONTENT)),
    (6.6, TurnLeft(3, TurnOutcome.CUT_OFF)),
    (6.7, _returned(3, "c4", "weather", ok=True, ms=600.0)),  # later than its turn
)


async def watch_talk(observer: Observer) -> None:
    """Tells the observer of one connection from its beginning to its end.

    Needs a clock that jumps: everything is told at its time.
    """
    began = trio.current_time()
    connection = observer.open_connection("k-1", "ListenAI", "192.0.2.7")
    for at, fact in TALK:
        await trio.sleep_until(began + at)
        if isinstance(fact, AudioChunk):
            connection.sent(len(fact.pcm))
        connection.observe(_moved(fact, began), trio.current_time())
        if isinstance(fact, TextTyped):
            connection.received(30)
    await trio.sleep_until(began + 7.0)
    connection.closed(1006, CONTENT)


def _moved(fact: Fact, began: float) -> Fact:
    """The fact with its own times counted from the beginning."""
    if not isinstance(fact, BeginTurn):
        return fact
    times = {
        name: value + began
        for name, value in attrs.asdict(fact.cause, recurse=False).items()
        if name.endswith("at")
    }
    return attrs.evolve(fact, cause=attrs.evolve(fact.cause, **times))


# --- logs ----------------------------------------------------------------------------------


@contextmanager
def logging_with(level: str, log_format: str) -> Iterator[io.StringIO]:
    """What goes to standard error, complete after the block; the loggers are then as they were."""
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in NOISY}
    for handler in handlers:  # starting would close them
        root.removeHandler(handler)
    stream = io.StringIO()
    with redirect_stderr(stream):
        started = start_logging(level, log_format)
    try:
        yield stream
    finally:
        started.close()
        root.handlers[:] = handlers
        root.setLevel(root_level)
        for logger, before in levels.items():
            logger.setLevel(before)


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines of a JSON log."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]
