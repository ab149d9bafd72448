"""Text increments become speakable sentences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.sentences import (
    MAX_SENTENCE_CHARACTERS,
    SentenceSplitter,
    has_words,
    speakable,
)


def split(*deltas: str) -> list[str]:
    splitter = SentenceSplitter()
    sentences = [sentence for delta in deltas for sentence in splitter.push(delta)]
    return [*sentences, *splitter.flush()]


@pytest.mark.parametrize(
    "sentences",
    [
        ["One.", " Two!", " Three?", " Four"],
        ["It costs 3.5 euros.", " Or 4."],
        ["Dr. Smith and Mr. Jones met J. Doe.", " They ate pears, etc. and apples."],
        ["We meet at 5 p.m. in the U.S. embassy.", " Bring, e.g. a pen."],
        ["The answer is no.", " Shall I go on?"],  # "no." rather than "No. 5"
        ["Well...", " maybe.", " Who knows…", " Not I.", " Sure."],
        ['He said "Stop!"', " She did (at once.)", " “Good.”", " End"],
        ["你好。", "今天天气很好！", "要带伞吗？", "不用"],
        ["他说：“好。”", "然后走了。", "「はい。」", "そうです。"],
        ["真的吗？！", "是的。。", "Yes."],
        ["First line\n", "second line\n", "\nthird"],
        ["- eggs\n", "- milk\n"],
        ["Version 1.2.3 is at example.com now.", " Get it"],
        ["What?!", " Really?"],
        ["**Bold.**", " It is said.", " _So._", " `End.`"],
    ],
)
def test_where_sentences_end(sentences: list[str]):
    """Marks followed by space, wide marks at once, line breaks; not abbreviations or numbers."""
    text = "".join(sentences)
    assert split(text) == sentences
    assert split(*text) == sentences


def test_the_first_sentence_does_not_wait_for_the_second():
    """It is there with the space behind it; a wide mark with any character."""
    splitter = SentenceSplitter()
    assert list(splitter.push("Hello there.")) == []  # it may go on as "there.com"
    assert list(splitter.push(" ")) == ["Hello there."]
    assert list(splitter.flush()) == [" "]
    assert list(splitter.push("你好。")) == []  # a closing quote may follow
    assert list(splitter.push("我")) == ["你好。"]


def test_flush_begins_anew():
    """The rest is given once."""
    splitter = SentenceSplitter()
    list(splitter.push("rest"))
    assert list(splitter.flush()) == ["rest"]
    assert list(splitter.flush()) == []


def test_marks_without_words_are_no_sentence():
    """They go with the next one."""
    assert split("... ! Hello. World") == ["... ! Hello.", " World"]


def test_an_overlong_sentence_is_cut_at_its_last_comma_or_space():
    """Where there is none, in the middle of a word."""
    words = "word " * 70
    first, second = split(words)
    assert len(first) == MAX_SENTENCE_CHARACTERS
    assert first.endswith("word ")
    assert second == "word " * 10
    assert [len(part) for part in split("x" * 650)] == [300, 300, 50]
    assert [len(part) for part in split("好，" + "好" * 299 + "，" + "好" * 100)] == [2, 300, 100]


@pytest.mark.parametrize("length", range(MAX_SENTENCE_CHARACTERS - 4, MAX_SENTENCE_CHARACTERS + 5))
def test_a_sentence_about_as_long_as_allowed(length: int):
    """Its end is found up to the very limit, and not beyond, however the text comes."""
    text = "x" * (length - 3) + '!!" Next'
    whole = split(text)
    assert [len(part) for part in whole][:1] == [min(length, MAX_SENTENCE_CHARACTERS)]
    assert split(*text) == whole


PIECES = st.sampled_from(
    [
        *("Hello", "world", "Dr.", "e.g.", "3.5", "No", "i", "J", " ", " ", "  ", "\n", "\r\n"),
        *(". ", ".", "...", "!", "?", "…", ",", ";", ":", '"', "”", ")", "*", "#", "🙂"),
        *("你好", "。", "！", "？", "；", "，", "」", "です", "'", "-", "x" * 120, "字" * 90),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=200))


@given(text=TEXTS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_sentences_are_slices_however_the_text_comes(text: str, data: st.DataObject):
    """Joined they are the text; increments of any size change nothing; none is too long."""
    whole = split(text)
    assert "".join(whole) == text
    assert all(0 < len(sentence) <= MAX_SENTENCE_CHARACTERS for sentence in whole)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=10)))
    deltas = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(*deltas) == whole


@pytest.mark.parametrize(
    ("sentence", "spoken"),
    [
        ("**Bold** and `code`", "  Bold   and  code "),
        ("# Title | cell ~old~", "  Title   cell  old "),
        ("I ♥ it 🎉!", "I   it  !"),
        ("5 - 3, it's 50%", "5 - 3, it's 50%"),
        ("你好，世界！ですー", "你好，世界！ですー"),
    ],
)
def test_what_cannot_be_said_is_spaces(sentence: str, spoken: str):
    """Marks of Markdown and pictures; words, punctuation and other scripts stay."""
    assert speakable(sentence) == spoken


@given(st.text(max_size=100))
@settings(max_examples=100, deadline=None)
def test_speakable_keeps_every_place(sentence: str):
    """Word timings count characters: length, letters and digits stay where they are."""
    spoken = speakable(sentence)
    assert len(spoken) == len(sentence)
    for before, after in zip(sentence, spoken, strict=True):
        assert after == before or (after == " " and not before.isalnum())


def test_words_are_letters_or_digits():
    """Of any script."""
    assert has_words("… 5")
    assert has_words("好")
    assert not has_words("?! 🙂 --\n")
    assert not has_words("")
