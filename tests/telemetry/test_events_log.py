"""What connections do, as log events."""

from __future__ import annotations

import logging
from contextvars import Context
from typing import get_args

import pytest
import trio
from fakes import Talking
from observed import CONTENT, TALK, entries, logging_with, watch_talk

from listenai.conversation.actions import CommitUtterance, Show, Tell
from listenai.events import (
    Answer,
    AudioChunk,
    AudioReceived,
    EncodedAudio,
    PingReceived,
    PongSent,
    StatisticsSent,
    StreamPaused,
    TextDelta,
    UserTranscript,
    VoiceNoticed,
)
from listenai.observer import Fact, SessionOpened
from listenai.telemetry.events_log import LoggingObserver

# (logger, event, fields); those of one connection and session are checked apart.
INFO_OF_THE_TALK = [
    ("connection", "connection_opened", {"dialect": "ListenAI", "peer": "192.0.2.7"}),
    ("session", "session_opened", {"restored": False}),
    ("session", "configured", {"changed": "system_prompt,interruptible"}),
    ("audio", "speech_ended", {"segment": 1, "transcript_follows": True}),
    ("asr", "final_transcript", {"segment": 1, "characters": 7, "complete": True}),
    ("turn", "turn_begun", {"turn": 1, "cause": "user_said", "characters": 7}),
    ("llm", "turn_started", {"turn": 1, "waited_seconds": 0.05}),
    ("tool", "tool_called", {"turn": 1, "tool": "weather", "target": "server"}),
    ("tool", "tool_called", {"turn": 1, "tool": "lamp", "target": "device"}),
    ("tool", "tool_returned", {"turn": 1, "tool": "lamp", "ok": False, "duration_ms": 100.0}),
    ("tool", "tool_returned", {"turn": 1, "tool": "weather", "ok": True, "duration_ms": 200.0}),
    ("tool", "tool_returned", {"turn": 1, "ok": False, "duration_ms": 0.0}),
    ("tool", "tool_returned", {"turn": 1, "ok": True, "duration_ms": 300.0}),
    ("audio", "stream_started", {"turn": 1, "stream": 1, "sample_rate": 16_000}),
    ("llm", "reply_done", {"turn": 1, "characters": 7, "tool_calls": 0}),
    ("audio", "stream_paused", {"turn": 1, "stream": 1}),
    ("audio", "speech_ended", {"turn": 1, "segment": 2, "transcript_follows": False}),
    ("turn", "turn_released", {"turn": 1}),
    ("audio", "stream_resumed", {"turn": 1, "stream": 1}),
    ("audio", "stream_paused", {"turn": 1, "stream": 1}),
    ("asr", "transcription_delayed", {"turn": 1, "segment": 3, "code": "ASR_ERROR"}),
    ("asr", "final_transcript", {"turn": 1, "segment": 3, "characters": 7}),
    ("turn", "turn_interrupted", {"turn": 1}),
    ("audio", "stream_flushed", {"turn": 1, "stream": 1}),
    ("turn", "turn_left", {"turn": 1, "outcome": "interrupted", "prompt_tokens": 70,
                           "completion_tokens": 8}),
    ("turn", "turn_metrics", {"turn": 1, "end_of_speech_ms": 100.0, "transcript_ms": 150.0,
                              "turn_started_ms": 200.0, "first_token_ms": 300.0,
                              "first_sentence_ms": 650.0, "first_audio_ms": 700.0,
                              "text_done_ms": 800.0, "ended_ms": 2600.0, "certainty": "reported"}),
    ("turn", "text_typed", {"characters": 7}),
    ("turn", "turn_begun", {"turn": 2, "cause": "user_typed", "characters": 7}),
    ("llm", "turn_started", {"turn": 2, "waited_seconds": 0.0}),
    ("error", "error_reported", {"turn": 2, "code": "LLM_ERROR"}),
    ("turn", "interrupt_pressed", {"turn": 2}),
    ("turn", "turn_interrupted", {"turn": 2}),
    ("audio", "stream_flushed", {"turn": 2, "stream": 2}),
    ("turn", "turn_left", {"turn": 2, "outcome": "failed"}),
    ("turn", "turn_metrics", {"turn": 2, "turn_started_ms": 0.0, "ended_ms": 300.0}),
    ("asr", "final_transcript", {"segment": 4, "characters": 0}),
    ("asr", "transcription_failed", {"segment": 5, "code": "ASR_ERROR"}),
    ("error", "error_reported", {"code": "ASR_ERROR"}),
    ("error", "error_reported", {"code": "INVALID_MESSAGE"}),
    ("session", "history_forgotten", {}),
    ("turn", "turn_begun", {"turn": 3, "cause": "tool_finished", "characters": 7}),
    ("llm", "turn_started", {"turn": 3, "waited_seconds": 0.0}),
    ("tool", "tool_called", {"turn": 3, "tool": "weather", "target": "server"}),
    ("audio", "stream_ended", {"turn": 3, "stream": 3, "samples": 4800}),
    ("session", "session_end_asked", {"turn": 3}),
    ("connection", "hang_up_asked", {"turn": 3, "code": 1008}),
    ("tool", "tool_left", {"turn": 3, "tool": "weather"}),
    ("turn", "turn_left", {"turn": 3, "outcome": "cut_off"}),
    ("tool", "tool_returned", {"turn": 3, "ok": True, "duration_ms": 600.0}),
    ("connection", "connection_closed", {"code": 1006, "seconds": 7.0, "messages_in": 1,
                                         "bytes_in": 30, "messages_out": 2, "bytes_out": 16}),
]  # fmt: skip

# What every message is, or what another event tells.
NEVER_TOLD = {
    *(AudioReceived, AudioChunk, PingReceived, PongSent, Answer, VoiceNoticed),
    *(Tell, Show, CommitUtterance, UserTranscript, StatisticsSent),
}


async def test_a_talk_is_told_in_order(autojump_clock):
    """Each event once, with ids, durations, counts and codes."""
    with logging_with("INFO", "json") as said:
        await watch_talk(LoggingObserver())
    told = entries(said)
    common = ("time", "level", "logger", "event", "connection", "session")
    assert [
        (
            entry["logger"].removeprefix("listenai."),
            entry["event"],
            {name: value for name, value in entry.items() if name not in common},
        )
        for entry in told
    ] == INFO_OF_THE_TALK
    assert {entry["connection"] for entry in told} == {"k-1"}
    assert {entry.get("session") for entry in told[1:]} == {"s-1"}
    warnings = {entry["event"] for entry in told if entry["level"] == "WARNING"}
    assert warnings == {"error_reported", "transcription_delayed", "transcription_failed"}
    [excused] = [entry for entry in told if entry.get("code") == "INVALID_MESSAGE"]
    assert excused["level"] == "INFO"  # the device's mistake


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_what_was_said_is_in_no_log(autojump_clock, log_format):
    """By nobody: user, device, chat model or tool; at the most talkative level."""
    with logging_with("DEBUG", log_format) as said:
        await watch_talk(LoggingObserver())
    assert CONTENT not in said.getvalue()


async def test_each_kind_of_fact_is_told(autojump_clock):
    """At DEBUG, but for those that are every message or tell the same again."""
    untold = set()
    for kind in {type(fact): fact for _, fact in TALK}.values():
        with logging_with("DEBUG", "json") as said:
            connection = LoggingObserver().open_connection("k-1", "ListenAI", "192.0.2.7")
            connection.observe(kind, trio.current_time())
        if len(entries(said)) == 1:
            untold.add(type(kind))
    assert untold == NEVER_TOLD - {AudioReceived}
    audio = {AudioReceived, EncodedAudio}  # never observed: there is too much of it
    assert {type(fact) for _, fact in TALK} | audio == set(get_args(Fact))


async def test_the_first_token_of_a_reply_is_told_once(autojump_clock):
    """The others would be a line a word."""
    with logging_with("DEBUG", "json") as said:
        connection = LoggingObserver().open_connection("k-1", "ListenAI", "192.0.2.7")
        for turn_id in (1, 1, 1, 2, 2):
            connection.observe(TextDelta(turn_id, CONTENT), 0.0)
    begun = [entry["turn"] for entry in entries(said) if entry["event"] == "reply_begun"]
    assert begun == [1, 2]


async def test_who_tells_of_a_connections_end_names_its_session(autojump_clock):
    """Also tasks that were there before the session, and whoever serves the connection."""
    with logging_with("INFO", "json") as said:
        observer = LoggingObserver().open_connection("k-1", "ListenAI", "192.0.2.7")
        talk = Talking(observer=observer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.run)
            talk.ask()
            await trio.sleep(0.5)
            talk.device.stop_reading()
        observer.closed(1008, "")
        logging.getLogger("server").error("connection_failed")
    told = {entry["event"].split(":")[0]: entry.get("session") for entry in entries(said)}
    assert told["device_stalled"] == told["connection_failed"] == talk.session.id


async def test_facts_name_their_ids_whoever_tells_them(autojump_clock):
    """Some tasks were started before there was a session."""
    with logging_with("INFO", "json") as said:
        connection = LoggingObserver().open_connection("k-1", "ListenAI", "192.0.2.7")
        connection.observe(SessionOpened("s-1", restored=False), 0.0)
        Context().run(connection.observe, StreamPaused(1), 0.0)  # a task where nothing is bound
    paused = entries(said)[-1]
    assert (paused["event"], paused["connection"], paused["session"]) == (
        *("stream_paused", "k-1", "s-1"),
    )


async def test_other_loggers_records_name_connection_session_and_turn(autojump_clock):
    """Those of the tasks that run them, as long as they do."""
    log = logging.getLogger("some.engine")
    with logging_with("WARNING", "json") as said:
        connection = LoggingObserver().open_connection("k-1", "ListenAI", "192.0.2.7")
        log.warning("connected")
        for _, fact in TALK:
            connection.observe(fact, trio.current_time())
            if type(fact).__name__ in {"SessionOpened", "TurnWaited", "TurnLeft"}:
                log.warning(type(fact).__name__)
    told = [entry for entry in entries(said) if entry["logger"] == "some.engine"]
    ids = [(entry["connection"], entry.get("session"), entry.get("turn")) for entry in told]
    in_turns = [("k-1", "s-1", turn) for turn in (1, None, 2, None, 3, None)]
    assert ids == [("k-1", None, None), ("k-1", "s-1", None), *in_turns]
