"""When a user has finished: word lists of three languages, and a patience that adapts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.endpointing import (
    CAP_SECONDS,
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    Endpointer,
    is_backchannel,
    is_trailing,
    words_of,
)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Uh-huh, don’t STOP - 'now'", ["uh-huh", "don't", "stop", "now"]),
        ("en", " ?! - '", []),
        ("zh", "好的，开灯。", ["好的", "开灯"]),
        ("ja", "はい、そうです", ["はい", "そうです"]),
        ("fr", "Oui, d'accord", ["oui", "d'accord"]),
    ],
)
def test_words(language: str, text: str, expected: list[str]):
    """Lower case without punctuation; runs where the script has no spaces."""
    assert words_of(text, language) == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        *(("en", text) for text in ("uh-huh", "Mhm.", "yeah, okay", "Oh, I see!", "- right", "")),
        *(("zh", text) for text in ("嗯", "好的。", "对，是的", "嗯嗯")),
        *(("ja", text) for text in ("うん", "はい、はい", "なるほど。", "へえ")),
        ("xx", "okay"),  # a language without lists of its own has the English ones
    ],
)
def test_backchannels(language: str, text: str):
    """ "I am listening" takes no floor; neither does no word at all."""
    assert is_backchannel(text, language)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        *(("en", text) for text in ("stop", "no", "yeah but no", "okay stop", "uh what")),
        *(("zh", text) for text in ("停", "不对", "好的停下", "嗯，等等")),
        *(("ja", text) for text in ("止めて", "はい、待って", "違う")),
    ],
)
def test_words_that_take_the_floor(language: str, text: str):
    """One word that is no backchannel is enough."""
    assert not is_backchannel(text, language)


@pytest.mark.parametrize(
    ("language", "text", "trailing"),
    [
        ("en", "turn on the", True),
        ("en", "I would like, um", True),
        ("en", "because", True),
        ("en", "turn on the light", False),
        ("en", "this is the end", False),
        ("en", "", False),
        ("zh", "我想要那个", True),
        ("zh", "今天很冷，但是", True),
        ("zh", "打开客厅的灯", False),
        ("zh", "这是我的。", False),
        ("zh", "好的", False),  # an answer, though it ends like "my …"
        ("zh", "嗯", True),
        ("ja", "天気がいいから", True),
        ("ja", "えっと", True),
        ("ja", "電気をつけて", False),
        ("ja", "はい", False),
        ("xx", "turn on the", True),
    ],
)
def test_trailing(language: str, text: str, trailing: bool):
    """A conjunction, an article, a particle or a filler at the end: more will come."""
    assert is_trailing(text, language) is trailing


@pytest.mark.parametrize(
    ("language", "text", "complete", "seconds"),
    [
        ("en", "what time is it", True, 0.35),
        ("en", "What time is it?", None, 0.35),
        ("en", "what time is it", None, 0.7),
        ("en", "What time is it?", False, 0.7),  # the transcriber knows better
        ("en", "turn on the", None, 1.4),
        ("en", "turn on the", True, 0.35),
        ("zh", "现在几点？", None, 0.35),
        ("zh", "现在几点", None, 0.7),
        ("zh", "今天很冷，但是", None, 1.4),
        ("ja", "電気をつけて。", None, 0.35),
        ("ja", "天気がいいから", None, 1.4),
    ],
)
def test_delays(language: str, text: str, complete: bool | None, seconds: float):
    """Short after a whole sentence, long after a trailing one."""
    assert Endpointer(language).delay(text, complete) == seconds


def test_a_fixed_delay_overrides_all_judgement():
    """Zero too."""
    endpointer = Endpointer(fixed_seconds=0.0)
    endpointer.committed(0.0)
    endpointer.speech_started(0.5)
    assert endpointer.delay("turn on the", None) == 0.0


def cut_short(times: int) -> Endpointer:
    endpointer = Endpointer()
    for turn in range(times):
        endpointer.committed(turn * 10.0)
        endpointer.speech_started(turn * 10.0 + 1.0)
    return endpointer


def test_a_user_cut_short_gets_half_as_much_time_again():
    """Speech within a second of the commit, counted once."""
    endpointer = cut_short(1)
    endpointer.speech_started(1.0)
    assert endpointer.delay("turn it off", True) == pytest.approx(0.35 * 1.5)
    assert endpointer.delay("turn it off", None) == pytest.approx(0.7 * 1.5)
    assert endpointer.delay("and then", None) == pytest.approx(1.4 * 1.5)


def test_speech_later_than_a_second_changes_nothing():
    """That is an answer, or another question."""
    endpointer = Endpointer()
    endpointer.committed(10.0)
    endpointer.speech_started(11.01)
    assert endpointer.delay("turn it off", None) == 0.7


def test_patience_decays_by_a_tenth_each_turn():
    """Back to where it was, no further."""
    endpointer = cut_short(1)
    endpointer.committed(100.0)
    assert endpointer.delay("turn it off", None) == pytest.approx(0.7 * 1.5 * 0.9)
    for turn in range(20):
        endpointer.committed(200.0 + turn * 10)
    assert endpointer.delay("turn it off", None) == 0.7


def test_patience_has_a_cap():
    """However often the user was cut short."""
    endpointer = cut_short(30)
    assert endpointer.delay("turn it off", True) == LONGEST_SECONDS == 1.4
    assert endpointer.delay("turn it off", None) == LONGEST_SECONDS
    assert endpointer.delay("turn on the", None) == CAP_SECONDS == 2.5


@given(
    events=st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=40),
    text=st.sampled_from(["turn it off", "Yes.", "and the", ""]),
    complete=st.sampled_from([True, False, None]),
)
@settings(max_examples=100, deadline=None)
def test_no_delay_is_shorter_or_longer_than_allowed(events, text: str, complete: bool | None):
    """Whatever happened: 0.3 to 1.4 s, a trailing word at most 2.5 s; whole is not slower."""
    endpointer, now = Endpointer(), 0.0
    for is_commit, seconds in events:
        now += seconds
        (endpointer.committed if is_commit else endpointer.speech_started)(now)
    longest = CAP_SECONDS if is_trailing(text, "en") else LONGEST_SECONDS
    assert SHORTEST_SECONDS <= endpointer.delay(text, complete) <= longest
    assert endpointer.delay(text, True) <= endpointer.delay(text, None)
