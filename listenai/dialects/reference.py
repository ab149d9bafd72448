"""What the protocol reference says beyond the message types themselves.

Field comments cannot be read at run time, so each notice has a row here: examples, which
the dialect encodes as it encodes everything, and what each field of theirs means.  Tests
hold the rows against the notices, the codes against `ErrorCode`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from listenai import events
from listenai.device import Duplex
from listenai.errors import ErrorCode
from listenai.settings import EffectiveConfiguration, Offer, SessionStatistics


@attrs.frozen
class NoticeRow:
    """A notice on the wire: examples that together have every field, and what those mean."""

    examples: tuple[events.Notice, ...]
    fields: Mapping[str, str]  # all but `type`; none for binary messages


_TURN = "The turn: counts up from 1, and goes on across a restore."
_STREAM = "The stream of audio: counts up like turns."
_CALL = "The call; a device answers with the same."
_SINCE = "ms after the last speech sample (typed: after the text came); null: not reached."

_STATISTICS = SessionStatistics(4, 2, 61.5, 7.2, 1_767_225_600.0)
_OF_STATISTICS = {
    "message_count": "Messages in the conversation so far.",
    "interaction_count": "Turns so far.",
    "session_duration_seconds": "Since the session was made.",
    "average_interaction_seconds": "Of a turn; null: none yet.",
    "last_activity": "Seconds since 1970 (UTC).",
}

NOTICES: Final[Mapping[type[events.Notice], NoticeRow]] = {
    events.StatusChanged: NoticeRow(
        (
            events.StatusChanged(events.State.THINKING, "kitchen"),
            events.StatusChanged(
                events.State.READY,
                "kitchen",
                restored=True,
                configuration=EffectiveConfiguration(),
                offer=Offer(("en",), ("default",), ("get_weather", "set_volume")),
                duplex=Duplex.FULL,
            ),
            events.StatusChanged(events.State.CLOSING, "kitchen", statistics=_STATISTICS),
        ),
        {
            "state": f"One of {', '.join(events.State)}.",
            "session_id": "Give it to `start_session` to take the session up again.",
            "restored": "In `ready`: whether the session was there already.",
            "configuration": "In `ready`, and as the answer to `configure`: all settings.",
            "capabilities": "In `ready`: the languages, voices and tools to choose from.",
            "duplex": "In `ready`, and when it changes: full, or half: our own voice is in the "
            "microphone, or may be, so only `interrupt` and `text` interrupt a reply.",
            "statistics": "In `closing`: as in `session_stats`.",
        },
    ),
    events.UserTranscript: NoticeRow(
        (events.UserTranscript("what time is it", True, False, 3, 2),),
        {
            "text": "What was understood of the whole utterance so far.",
            "is_final": "True: these words open the turn.  False: they may still change.",
            "speeching": "Whether the user is speaking now.",
            "segment_id": "The segment of speech: counts up from 1.",
            "turn_id": "The turn that it will open.",
        },
    ),
    events.TextDelta: NoticeRow(
        (events.TextDelta(2, "It is "),),
        {"turn_id": _TURN, "delta": "Always true: an increment.", "text": "The increment."},
    ),
    events.TextDone: NoticeRow(
        (
            events.TextDone(
                2, "It is ten o'clock.", ({"call_id": "call-1", "name": "get_weather"},)
            ),
        ),
        {
            "turn_id": _TURN,
            "done": "Always true: nothing of the text follows.",
            "text": "The whole text.",
            "tool_calls": "The tools that were called, in order; left out if none.",
        },
    ),
    events.ToolCalled: NoticeRow(
        (events.ToolCalled(2, "call-1", "get_weather", {"city": "Paris"}, events.Target.SERVER),),
        {
            "turn_id": _TURN,
            "call_id": _CALL,
            "name": "The tool.",
            "arguments": "As the tool's JSON Schema has them.",
            "target": "Who runs it: `device` means please run it and send `tool_result`.",
        },
    ),
    events.ToolReturned: NoticeRow(
        (
            events.ToolReturned(2, "call-1", "get_weather", True, {"celsius": 21}, 180.0),
            events.ToolReturned(2, "call-1", "get_weather", False, "no such city", 95.5),
        ),
        {
            "turn_id": _TURN,
            "call_id": _CALL,
            "name": "The tool.",
            "ok": "Whether it could do it.",
            "result": "Any JSON, where `ok` is true.",
            "error": "Why not, where `ok` is false.",
            "duration_ms": "How long it took.",
        },
    ),
    events.StreamStarted: NoticeRow(
        (events.StreamStarted(2, 5, 16_000),),
        {
            "state": "`start`: binary messages of this stream follow.",
            "turn_id": _TURN,
            "stream_id": _STREAM,
            "sample_rate": "Hz, of the whole stream.",
            "source": "`speech`, with music below it where music plays, or `music` alone.",
        },
    ),
    events.SentenceStarted: NoticeRow(
        (events.SentenceStarted(5, "It is ten o'clock.", 0),),
        {
            "state": "`sentence`: what is said next.",
            "stream_id": _STREAM,
            "text": "The sentence.",
            "from_sample": "The sample of the stream at which it begins.",
        },
    ),
    events.AudioChunk: NoticeRow((events.AudioChunk(5, bytes(1920)),), {}),
    events.StreamEnded: NoticeRow(
        (events.StreamEnded(5, 19_200),),
        {
            "state": "`end`: the stream is complete.",
            "stream_id": _STREAM,
            "samples": "How many samples were sent in all.",
        },
    ),
    events.StreamPaused: NoticeRow((events.StreamPaused(5),), {"stream_id": _STREAM}),
    events.StreamResumed: NoticeRow((events.StreamResumed(5),), {"stream_id": _STREAM}),
    events.StreamFlushed: NoticeRow((events.StreamFlushed(5),), {"stream_id": _STREAM}),
    events.TurnInterrupted: NoticeRow(
        (events.TurnInterrupted(2, "It is", "ten o'clock.", 480.0, events.Certainty.REPORTED),),
        {
            "turn_id": _TURN,
            "heard_text": "What the user heard of the reply: this stays in the history.",
            "unheard_text": "The rest of it: this does not.",
            "played_ms": "How much of the stream was played.",
            "certainty": "`reported` by the device's `playback`, or `estimated` by the clock.",
        },
    ),
    events.TurnMetrics: NoticeRow(
        (events.TurnMetrics(2, 80.0, 250.0, 350.5, 470.1, 560.0, 575.3, 610.0, 1400.0, 1780.2),),
        {
            "turn_id": _TURN,
            "end_of_speech_ms": f"The detector said: over.  {_SINCE}",
            "transcript_ms": f"The text was known.  {_SINCE}",
            "turn_started_ms": f"The reply began.  {_SINCE}",
            "first_token_ms": f"The chat model's first word.  {_SINCE}",
            "first_sentence_ms": f"The first sentence was whole.  {_SINCE}",
            "first_audio_ms": f"The first audio was sent.  {_SINCE}",
            "text_done_ms": f"The whole text was sent.  {_SINCE}",
            "audio_done_ms": f"All audio was sent.  {_SINCE}",
            "ended_ms": f"The turn was over, its audio played.  {_SINCE}",
            "certainty": "How the heard text is known, as in `interrupted`; null: not told.",
        },
    ),
    events.StatisticsSent: NoticeRow(
        (events.StatisticsSent("kitchen", _STATISTICS),),
        {"session_id": "The session.", **_OF_STATISTICS},
    ),
    events.ErrorReported: NoticeRow(
        (
            events.ErrorReported(ErrorCode.LLM_ERROR, "the chat model does not answer", 2),
            events.ErrorReported(ErrorCode.RATE_LIMITED, "too many requests", retry_after_ms=1500),
        ),
        {
            "code": "One of the error codes below.",
            "message": "What was wrong, what is allowed and what to do, for people.",
            "turn_id": "The turn that it ended, if any.",
            "retry_after_ms": "How long to wait before it is tried again, if that helps.",
        },
    ),
    events.PongSent: NoticeRow(
        (events.PongSent("a1"),), {"id": "The id of the `ping`; left out if it had none."}
    ),
}

# What happened, and what becomes of turn and connection.
ERROR_CODES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.INVALID_MESSAGE: (
        "The message is not what it should be: not JSON, a field wrong, missing or unknown, or "
        "more than 1 MiB.  Nothing of it was done; the connection goes on."
    ),
    ErrorCode.UNKNOWN_MESSAGE_TYPE: "There is no message of this `type`; the connection goes on.",
    ErrorCode.ASR_ERROR: "Speech recognition failed: this utterance is lost.  Say it again.",
    ErrorCode.LLM_ERROR: "The chat model failed: the turn is over.  Ask again.",
    ErrorCode.TTS_ERROR: (
        "Speech synthesis failed: the turn is over, its text may have been sent.  Ask again."
    ),
    ErrorCode.SESSION_ERROR: (
        "The session cannot be had: this connection has one already, or it is somebody else's "
        "or was taken over by another connection."
    ),
    ErrorCode.TIMEOUT: "The reply took too long: the turn is over.  Ask again.",
    ErrorCode.INTERNAL_ERROR: "A mistake of the server's; the connection is closed with 1011.",
    ErrorCode.RATE_LIMITED: "Too many requests: this one was not taken.  Send it again later.",
    ErrorCode.UNAUTHORIZED: "The key is missing or wrong.",
}

CLOSE_CODES: Final[Mapping[int, str]] = {
    1000: "The session was ended, or the device left.",
    1001: "The server is going away: the reply in progress was finished.  Connect again.",
    1008: "Nothing was said for too long after connecting, or the device does not read, or the "
    "key is wrong.",
    1009: "A message was longer than 4 MiB.",
    1011: "A mistake of the server's.",
    1013: "The server is full.  Connect again later.",
    4001: "The session was taken over by a newer connection.",
}

AUDIO_LAWS: Final = (
    "Audio is 16-bit little-endian mono PCM: from the device at 16 kHz, in messages of any size; "
    "to the device at the stream's `sample_rate`, at most 60 ms a message, in whole samples.",
    "Binary messages belong to the stream that was last opened by `tts_audio start`.  There are "
    "none outside of a stream.",
    "`pause`: stop at once, keep what is queued.  No audio comes until `resume`, which goes on at "
    "the held sample, or until the `start` of another stream.",
    "`flush`: forget what is queued, and answer with `playback`.  No audio of that stream comes "
    "after it.",
    "`tts_audio end` counts the samples that were sent.  The turn lasts until they were played.",
    "A device that declared no `pause` or `flush` may ignore them: it gets its audio only a "
    "little ahead of its loudspeaker, and that runs out.",
)

ORDER_OF_A_TURN: Final = (
    "A turn: asr_result (not where it was typed), status thinking, then llm_response, tool_call, "
    "tool_result, tts_audio and audio interleaved, tts_audio end, turn_metrics, status listening.",
    "An interrupted turn: flush (if a stream is open), interrupted, turn_metrics.",
)
