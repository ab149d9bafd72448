"""The command grammar: what it accepts, what it makes of it, and what it refuses to read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.commands import load_commands, number, read_grammar, spoken_words
from listenai.errors import ConfigurationError

GRAMMAR = load_commands()
HEAD = "#JSGF V1.0; grammar g; "


@given(st.integers(0, 2**32))
def test_every_drawn_sentence_is_a_command(seed: int) -> None:
    """What can be drawn can be parsed, and its parts are words of the sentence."""
    sentence = GRAMMAR.draw(random.Random(seed))
    command = GRAMMAR.parse(sentence)
    assert command is not None
    assert command.text == sentence
    assert all(part in sentence for part in command.parts.values())
    assert set(sentence.split()) <= GRAMMAR.words


@given(st.integers(0, 2**32))
def test_a_drawn_sentence_with_a_foreign_word_is_none(seed: int) -> None:
    """Only whole sentences are commands."""
    words = GRAMMAR.draw(random.Random(seed)).split()
    words.insert(random.Random(seed).randint(0, len(words)), "xylophone")
    assert not GRAMMAR.accepts(" ".join(words))


def test_drawing_reaches_every_rule_and_repeats_by_seed() -> None:
    """No alternative is forgotten, and a seed gives the same sentences each time."""
    drawn = [GRAMMAR.draw(random.Random(seed)) for seed in range(500)]
    assert drawn == [GRAMMAR.draw(random.Random(seed)) for seed in range(500)]
    rules = {command.rule for text in drawn if (command := GRAMMAR.parse(text))}
    assert rules == {
        *("volume", "light", "music", "timer", "window", "chat"),
        *("weather", "clock", "arithmetic", "greeting", "control", "help"),
    }


@pytest.mark.parametrize(
    ("text", "rule", "parts"),
    [
        (
            "What is the weather in Beijing?",
            "weather",
            {"place": "in beijing", "city": "beijing"},
        ),
        ("will it rain tomorrow", "weather", {"day": "tomorrow"}),
        (
            "Set the volume to 50%.",
            "volume",
            {"setting": "volume", "number": "fifty", "tens": "fifty"},
        ),
        (
            "please turn the living-room lights off, please",
            "light",
            {"polite": "please", "room": "living room", "appliance": "lights", "switch": "off"},
        ),
        (
            "set a timer for one minute",
            "timer",
            {"single_unit": "minute"},
        ),
        ("Tell me a story!", "chat", {"topic": "a story"}),
        ("STOP", "control", {}),
        ("OK", "control", {}),
        ("what\N{RIGHT SINGLE QUOTATION MARK}s your name", "help", {}),
    ],
)
def test_a_sentence_is_its_rule_and_the_parts_in_it(
    text: str, rule: str, parts: dict[str, str]
) -> None:
    """Case, punctuation, digits and contractions do not matter."""
    command = GRAMMAR.parse(text)
    assert command is not None
    assert (command.rule, dict(command.parts)) == (rule, parts)


def test_a_rule_met_twice_keeps_its_first_words() -> None:
    """Both sides of an arithmetic question have names of their own."""
    command = GRAMMAR.parse("what is twelve times forty five")
    assert command is not None
    assert command.parts["left"] == "twelve"
    assert command.parts["operator"] == "times"
    assert command.parts["right"] == "forty five"
    assert command.parts["number"] == "twelve"


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ?!", "set the volume to", "stop it", "please", "what is the weather in atlantis"),
        *("set the volume to 101", "set the volume to 20.5", "what is 1,0 plus 2", "停"),
        *("9" * 5000, "stop 停"),
    ],
)
def test_what_is_no_whole_sentence_is_no_command(text: str) -> None:
    """Beginnings, additions, other places and numbers, other languages."""
    assert GRAMMAR.parse(text) is None


@pytest.mark.parametrize("value", range(101))
def test_numbers_from_0_to_100_are_words_and_back(value: int) -> None:
    """Digits in a text become grammar words that mean the same."""
    words = " ".join(spoken_words(str(value)))
    assert number(words) == value
    assert GRAMMAR.accepts(f"what is {words} plus {value}")


def test_a_hundred_is_100_and_other_words_are_no_number() -> None:
    """The error names the word."""
    assert number("a hundred") == 100
    for words, wrong in (("twenty much", "'much'"), ("a", "'a'"), ("", "''")):
        with pytest.raises(ValueError, match=wrong):
            number(words)


@pytest.mark.parametrize(
    ("jsgf", "problem"),
    [
        ("grammar g; public <a> = <b>; <b> = x;", "begins with '#JSGF V1.0;'"),
        (HEAD + "\n<b> = x", "line 2: the grammar ends in the middle"),
        (HEAD + "\npublic <a> = <b>; <b> = x*;", r"line 2: cannot read '\*;'; allowed are words"),
        (HEAD + "public <a> = <b>; <b> = /2/ x | y;", "cannot read '/2/'"),
        (HEAD + "public <a> = <b>; <b> = x {tag};", "cannot read '{tag};'"),
        (HEAD + "public <a> = <b>; <b> = (x;", r"';' where '\)' is needed"),
        (HEAD + "public <a> = <b>; <b> = x | ;", "nothing stands before ';'"),
        (HEAD + "public <a> = <b>; <b> = x; <b> = y;", "<b> is defined twice"),
        (HEAD + "public <a> = <b>;", "<a> uses <b>, which no rule defines"),
        (HEAD + "public <a> = <b>; <b> = x <b>;", "<b> contains itself"),
        (HEAD + "<a> = <b>; <b> = x;", "0 public rules; exactly one"),
        (HEAD + "public <a> = <b>; public <b> = x;", "2 public rules; exactly one"),
        (HEAD + "public <a> = x;", r"names \[\]; it must name exactly one rule"),
        (HEAD + "public <a> = <b> <b>; <b> = x;", "must name exactly one rule"),
        (HEAD + "x = y;", "'x' where a rule should begin"),
    ],
)
def test_other_jsgf_is_refused_with_its_line(jsgf: str, problem: str) -> None:
    """Only what this grammar uses is read; the message says what is allowed."""
    with pytest.raises(ConfigurationError, match=problem):
        read_grammar(jsgf)


def test_comments_are_no_words_and_do_not_move_lines() -> None:
    """Both kinds of comment, also inside a rule."""
    grammar = read_grammar(
        HEAD + "/* one\ntwo */ public <a> = [<p>] <b>; // <c>\n<b> = x; <p> = p;"
    )
    assert grammar.words == {"x", "p"}
    assert grammar.accepts("p x")
    with pytest.raises(ConfigurationError, match="line 3: "):
        read_grammar(HEAD + "/* one\ntwo */\npublic <a> = ) ;")


def test_the_package_grammar_is_read_once() -> None:
    """Every caller has the same object."""
    assert load_commands() is GRAMMAR
