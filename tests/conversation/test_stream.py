"""One stream: what the device was really sent, has played, and says about it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.stream import Stream
from listenai.engines.base import WordTiming
from listenai.events import AudioChunk, Certainty, SentenceStarted, StreamEnded, StreamStarted

RATE = 16_000
TEXT = "One two."


def stream(seconds: float = 1.0) -> Stream:
    """Taken by the writer at 10 s: its start, a sentence of two timed words, its audio."""
    made = Stream(1, RATE, 0.5)
    made.taken(StreamStarted(7, 1, RATE), 10.0)
    made.taken(SentenceStarted(1, TEXT, 0), 10.0)
    made.ledger.time_words([WordTiming(0, 3, 0), WordTiming(4, 7, RATE // 2)])
    made.taken(AudioChunk(1, bytes(2 * int(seconds * RATE))), 10.0)
    return made


def test_what_was_taken_is_what_is_known():
    """Nothing before the writer has it."""
    made = Stream(1, RATE, 0.5)
    assert not made.opened
    made.taken(StreamStarted(7, 1, RATE), 10.0)
    assert made.opened
    assert made.ledger.spoken_text == ""
    made.taken(SentenceStarted(1, TEXT, 0), 10.0)
    assert made.ledger.spoken_text == TEXT
    assert made.playout.sent == 0
    made.taken(AudioChunk(1, bytes(640)), 10.0)
    assert made.playout.sent == 320
    assert not made.ended
    made.taken(StreamEnded(1, 320), 10.0)
    assert made.ended


def test_the_clock_says_what_was_played():
    """Of a stream that was not cut, whatever the device reports on its way."""
    made = stream()
    made.report(15_999, 0.0)
    assert made.played(10.5) == 8000
    assert made.heard(10.5).text == "One"


def test_a_stream_played_to_its_end_was_heard():
    """All of a sentence whose audio is complete."""
    made = stream()
    made.ledger.end_sentence(RATE)
    made.taken(StreamEnded(1, RATE), 11.0)
    assert made.heard(11.0).text == TEXT


def test_a_sentence_cut_short_by_a_failure_was_not_heard_to_its_end():
    """The stream ends because an engine failed: the text beyond its audio was never said."""
    made = stream(0.6)
    made.taken(StreamEnded(1, 9600), 10.6)
    heard = made.heard(99.0)
    assert (heard.text, heard.unheard_text) == ("One", "two.")


def test_a_device_that_forgets_stops_at_the_flush():
    """Its clock stands still from there on."""
    made = stream()
    made.cut(10.6, device_forgets=True)
    assert made.cut_off
    assert made.played(99.0) == 9600
    assert made.heard(99.0).text == "One"


def test_a_device_that_was_paused_stops_at_the_pause():
    """The hold came first; the flush changes nothing about what was played."""
    for device_forgets in (True, False):
        made = stream()
        made.playout.pause(10.25)
        made.cut(10.6, device_forgets=device_forgets)
        assert made.played(99.0) == 4000


def test_a_device_that_cannot_stop_plays_what_it_has():
    """All that was sent is heard, soon if not yet."""
    made = stream()
    made.ledger.end_sentence(RATE)
    made.cut(10.1, device_forgets=False)
    assert made.played(10.1) == RATE
    assert made.heard(10.1).text == TEXT


def test_the_report_after_the_flush_is_the_last_word():
    """With the synthesizer's timings it makes the heard text certain."""
    made = stream()
    made.report(100, 0.0)
    made.cut(10.6, device_forgets=True)
    assert not made.last_word_known  # what it said before is out of date
    assert made.heard(10.7).certainty is Certainty.ESTIMATED
    made.report(7999, 0.0)
    assert made.last_word_known
    assert made.played(10.7) == 7999
    heard = made.heard(10.7)
    assert (heard.text, heard.certainty) == ("", Certainty.REPORTED)


@pytest.mark.parametrize(
    ("samples", "latency", "played"),
    [
        (8000, 0.0, 8000),
        (8000, 0.25, 4000),  # what is still on its way to the loudspeaker was not heard
        (1000, 0.25, 0),
        (99_999, 0.0, RATE),  # never more than was sent
        (-5, 0.0, 0),
    ],
)
def test_reports_are_bounded(samples: int, latency: float, played: int):
    """By what was sent, and by zero."""
    made = stream()
    made.cut(10.5, device_forgets=True)
    made.report(samples, latency)
    assert made.played(10.5) == played


@given(
    reports=st.lists(st.tuples(st.integers(-100, 40_000), st.floats(0, 1)), min_size=1),
    cut_at=st.floats(10.0, 12.0),
    forgets=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_reports_never_go_back(reports: list[tuple[int, float]], cut_at: float, forgets: bool):
    """Played grows with every report, up to what was sent."""
    made = stream()
    made.cut(cut_at, device_forgets=forgets)
    played = 0
    for samples, latency in reports:
        made.report(samples, latency)
        assert played <= made.played(cut_at) <= made.playout.sent
        played = made.played(cut_at)
