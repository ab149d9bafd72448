"""Whether hearing, thinking and speaking work, as `/health` has it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from listenai.errors import ErrorCode
from listenai.events import ErrorReported, SentenceStarted, TextDone
from listenai.observer import Fact
from listenai.speech import FinalTranscript
from listenai.telemetry.health import DEGRADED, OK, HealthObserver

LLM_FAILS = ErrorReported(ErrorCode.LLM_ERROR, "no mind", turn_id=1)


def told(*facts: Fact, observer: HealthObserver | None = None) -> dict[str, str]:
    """What is said of the stages after these facts of one connection."""
    observer = observer or HealthObserver()
    connection = observer.open_connection("k-1", "ListenAI", "192.0.2.7")
    for at, fact in enumerate(facts):
        connection.received(1)
        connection.observe(fact, float(at))
        connection.sent(1)
    connection.closed(1000, "")
    return observer.services


def test_all_is_well_until_something_fails():
    """A server that nobody has talked to is healthy."""
    assert told() == {"asr": OK, "llm": OK, "tts": OK}


@pytest.mark.parametrize(
    ("stage", "code", "works_again"),
    [
        ("asr", ErrorCode.ASR_ERROR, FinalTranscript(1, "", complete=True)),
        ("llm", ErrorCode.LLM_ERROR, TextDone(2, "fine")),
        ("tts", ErrorCode.TTS_ERROR, SentenceStarted(1, "fine", 0)),
    ],
)
def test_a_stage_is_degraded_until_it_does_its_work_again(
    stage: str, code: ErrorCode, works_again: Fact
):
    """That one alone; in whichever connection."""
    observer = HealthObserver()
    error = ErrorReported(code, "away", turn_id=1)
    assert told(error, observer=observer) == {"asr": OK, "llm": OK, "tts": OK} | {stage: DEGRADED}
    assert told(works_again, observer=observer) == {"asr": OK, "llm": OK, "tts": OK}


def test_the_excuse_of_a_failed_turn_is_no_answer():
    """Its text is done, and was not the chat model's; the next turn's is."""
    assert told(LLM_FAILS, TextDone(1, "Sorry."))["llm"] == DEGRADED
    assert told(LLM_FAILS, TextDone(1, "Sorry."), TextDone(2, "Fine."))["llm"] == OK


@pytest.mark.parametrize("code", sorted(set(ErrorCode) - {"ASR_ERROR", "LLM_ERROR", "TTS_ERROR"}))
def test_what_devices_do_wrong_is_no_illness(code: ErrorCode):
    """Nor are limits, timeouts and sessions."""
    facts: Sequence[Fact] = [ErrorReported(code, "no", turn_id=1)]
    assert set(told(*facts).values()) == {OK}
