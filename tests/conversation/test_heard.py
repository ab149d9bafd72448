"""The heard-word ledger: how much of what was said has been heard."""

from __future__ import annotations

import itertools
import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.heard import Heard, HeardLedger
from listenai.engines.base import WordTiming
from listenai.events import Certainty

RATE = 16_000
ONE = "One two three."  # words end at 3, 7, 14
TIMES = (0, 1000, 2000)  # samples at which they begin


def timings(text: str, starts: tuple[int, ...] | list[int]) -> list[WordTiming]:
    """Words without their punctuation, as synthesizers time them."""
    words = re.finditer(r"\w+", text)
    return [
        WordTiming(word.start(), word.end(), start)
        for word, start in zip(words, starts, strict=True)
    ]


def ledger_of(*sentences: tuple[str, int], timed: bool = False) -> HeardLedger:
    """Complete sentences: text and length in samples; timed evenly."""
    ledger, at = HeardLedger(RATE), 0
    for text, samples in sentences:
        ledger.begin_sentence(text, at)
        if timed:
            words = len(re.findall(r"\w+", text))
            ledger.time_words(timings(text, [samples * i // words for i in range(words)]))
        at += samples
        ledger.end_sentence(at)
    return ledger


def test_nothing_begun_is_nothing_heard():
    """The reply was only thought of."""
    heard = HeardLedger(RATE).heard(0, reported=False)
    assert (heard.text, heard.unheard_text) == ("", "")


@pytest.mark.parametrize(
    ("played", "text"),
    [
        (0, ""),
        (999, ""),
        (1000, "One"),
        (1999, "One"),
        (2000, "One two"),
        (2999, "One two"),
        (3000, "One two three."),
    ],
)
def test_timings_are_exact(played: int, text: str):
    """A word is over where the next begins; the last one where the sentence does."""
    heard = ledger_of((ONE, 3000), timed=True).heard(played, reported=True)
    assert heard == Heard(text, ONE[len(text) :].strip(), Certainty.REPORTED)


def test_timings_count_from_their_sentence():
    """And come in any number of parts."""
    ledger = ledger_of((ONE, 3000), timed=True)
    ledger.begin_sentence(" Four five six.", 3000)
    for timing in timings(" Four five six.", TIMES):
        ledger.time_words([timing])
    assert ledger.heard(3999, reported=True).text == ONE
    assert ledger.heard(4000, reported=True).text == ONE + " Four"
    assert ledger.heard(4000, reported=True).unheard_text == "five six."


def test_the_last_word_of_a_sentence_that_is_still_spoken_is_unheard():
    """Nobody knows yet where it ends, with or without timings."""
    timed, plain = HeardLedger(RATE), HeardLedger(RATE)
    timed.begin_sentence(ONE, 0)
    timed.time_words(timings(ONE, TIMES))
    plain.begin_sentence(ONE, 0)
    for ledger in (timed, plain):
        assert ledger.heard(60 * RATE, reported=False).text == "One two"


@pytest.mark.parametrize(
    ("played", "text"),
    [(1, ""), (1000, ""), (3000, "One"), (7000, "One two"), (13_999, "One two"), (14_000, ONE)],
)
def test_without_timings_a_word_has_its_share(played: int, text: str):
    """14 characters in 14 000 samples; the device's report makes that no more certain."""
    heard = ledger_of((ONE, 14_000)).heard(played, reported=True)
    assert heard == Heard(text, ONE[len(text) :].strip(), Certainty.ESTIMATED)


def test_a_sentence_of_unknown_length_has_an_assumed_pace():
    """11 characters a second; Chinese and Japanese say more with one: 3.5."""
    english, chinese = HeardLedger(RATE), HeardLedger(RATE)
    english.begin_sentence("One two three four five six.", 0)
    chinese.begin_sentence("今天天气很好，我们去公园。", 0)
    assert english.heard(RATE, reported=False).text == "One two"
    assert chinese.heard(2 * RATE, reported=False).text == "今天天气很好，"


def test_chinese_has_words_without_spaces():
    """Each character ends a word, its punctuation with it."""
    ledger = ledger_of(("你好，世界。", 6000))
    texts = [ledger.heard(played, reported=False).text for played in range(0, 6001, 1000)]
    assert texts == ["", "你", "你", "你好，", "你好，世", "你好，世", "你好，世界。"]


@pytest.mark.parametrize(
    ("timed", "reported", "certainty"),
    [
        (True, True, Certainty.REPORTED),
        (True, False, Certainty.ESTIMATED),
        (False, True, Certainty.ESTIMATED),
        (False, False, Certainty.ESTIMATED),
    ],
)
def test_certain_is_what_device_and_synthesizer_say(
    timed: bool, reported: bool, certainty: Certainty
):
    """One of them alone is an estimate."""
    ledger = ledger_of((ONE, 3000), timed=timed)
    assert ledger.heard(1500, reported=reported).certainty is certainty


def test_nothing_played_is_certainly_nothing_heard():
    """No word has to be placed to know that."""
    heard = ledger_of((ONE, 3000)).heard(0, reported=True)
    assert heard == Heard("", ONE, Certainty.REPORTED)


def test_a_sentence_without_audio_at_the_end_is_heard_with_the_rest():
    """Else a reply that was played to its end would look interrupted."""
    assert ledger_of((ONE, 3000), (" Hm.", 0)).heard(3000, reported=False).unheard_text == ""


def test_one_estimated_sentence_makes_the_whole_an_estimate():
    """Unless it had not been reached."""
    ledger = ledger_of((ONE, 3000), timed=True)
    ledger.begin_sentence(" Four.", 3000)
    assert ledger.heard(2000, reported=True).certainty is Certainty.REPORTED
    assert ledger.heard(3001, reported=True).certainty is Certainty.ESTIMATED


def test_the_next_sentence_ends_the_one_before():
    """Also when its end was not told."""
    ledger = HeardLedger(RATE)
    ledger.begin_sentence(ONE, 0)
    ledger.begin_sentence(" Four.", 3000)
    assert ledger.heard(3000, reported=False).text == ONE
    assert ledger.spoken_text == ONE + " Four."


def test_a_sentence_without_audio_divides_nothing_by_zero():
    """It is over as soon as it is reached."""
    ledger = ledger_of((ONE, 3000), (" Hm.", 0), (" Four.", 3000))
    assert ledger.heard(2999, reported=False).text == "One two"
    assert ledger.heard(4000, reported=False).text.startswith(ONE)
    begun_late = HeardLedger(RATE)
    begun_late.begin_sentence(ONE, 100)
    begun_late.end_sentence(100)
    assert begun_late.heard(50, reported=False).text == ""


@attrs.frozen
class Sentence:
    text: str
    samples: int
    starts: list[int] | None


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    words = draw(st.lists(st.sampled_from(["I", "hello", "don't", "世界", "3.5"]), min_size=1))
    text = draw(st.sampled_from(["", " ", "\n"])) + " ".join(words)
    text += draw(st.sampled_from(["", ".", "?!", "。", " "]))
    samples = draw(st.integers(0, 40_000))
    count = len(re.findall(r"\w+", text))
    starts = st.lists(st.integers(0, samples), min_size=count, max_size=count).map(sorted)
    return Sentence(text, samples, draw(st.none() | starts))


@given(said=st.lists(sentences(), max_size=4), still_speaking=st.booleans(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_reply(said: list[Sentence], still_speaking: bool, data: st.DataObject):
    """Heard and unheard split the text at the end of a word; more audio is never fewer words."""
    ledger, at = HeardLedger(RATE), 0
    for sentence in said:
        ledger.begin_sentence(sentence.text, at)
        if sentence.starts:
            ledger.time_words(timings(sentence.text, sentence.starts))
        at += sentence.samples
        if sentence is not said[-1] or not still_speaking:
            ledger.end_sentence(at)
    spoken = "".join(sentence.text for sentence in said)
    sentence_ends = set(itertools.accumulate(len(sentence.text) for sentence in said))
    assert ledger.spoken_text == spoken

    moments = sorted(data.draw(st.lists(st.integers(0, at + 100), min_size=1, max_size=8)))
    splits = [ledger.heard(played, reported=False) for played in moments]
    for heard in splits:
        assert spoken.startswith(heard.text)
        assert heard.unheard_text == spoken[len(heard.text) :].strip()
        before, after = heard.text[-1:], spoken[len(heard.text) : len(heard.text) + 1]
        inside_word = re.fullmatch(r"[a-z]{2}", before + after)
        assert not inside_word or len(heard.text) in sentence_ends
    for earlier, later in itertools.pairwise(splits):
        assert len(earlier.text) <= len(later.text)
    if said and not still_speaking:
        assert ledger.heard(at, reported=False).text == spoken.rstrip()
