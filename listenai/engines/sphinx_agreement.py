"""Which of two decoders is to be believed.

The grammar's decoder is nearly always right about commands and always wrong about
anything else; the general one understands anything, roughly.  Whether a command was said
shows in how far they disagree, in two ways:

- how different the two texts sound, as an edit distance over phones: a mistake of the
  general model sounds like what was said ("yelp" for "help"), words do not show that;
- how well the audio fits the grammar's words compared with the other's, as the log
  likelihood of a frame.  A command fits better than the general model's mistakes; other
  speech fits a command much worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

# Tuned on 960 spoken commands and 230 other sentences: 1.5 % of the commands are taken for
# something else, 2.5 % of the others, all of them much like a command, for a command.
MOST_DISAGREEMENT = 0.17
LIKELIHOOD_WEIGHT = 0.03

# A word this long is a noise that sounded like its vowel: "if" for two seconds.
LONGEST_WORD_FRAMES = 50
LONGEST_WORD_FRAMES_PER_LETTER = 10

_SOUNDS = (  # phones of one kind are taken for each other more easily
    "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW",
    "P B T D K G",
    "F V TH DH S Z SH ZH CH JH HH",
    "M N NG",
    "L R W Y",
)
_KIND = {phone: kind for kind, phones in enumerate(_SOUNDS) for phone in phones.split()}


@attrs.frozen
class Word:
    """One word of the best path."""

    text: str
    phones: tuple[str, ...]
    frames: int  # how long it is, in frames of 10 ms
    score: float  # log likelihood of its audio; comparable between decoders of one model


def disagreement(commands: Sequence[Word], general: Sequence[Word]) -> float:
    """How far the general decoder is from the grammar's: 0 and less is agreement.

    The difference in sound, from 0 to 1, less the likelihood of a frame that the grammar's
    words have before the others; infinite when either heard nothing.
    """
    if not commands or not general:
        return float("inf")
    ahead = _score_of_frame(commands) - _score_of_frame(general)
    return difference_in_sound(_phones(commands), _phones(general)) - LIKELIHOOD_WEIGHT * ahead


def difference_in_sound(one: Sequence[str], other: Sequence[str]) -> float:
    """Edit distance over the longer's length, 0 to 1; phones of one kind differ by a half."""
    row = [float(column) for column in range(len(other) + 1)]
    for line, a in enumerate(one, start=1):
        diagonal, row[0] = row[0], float(line)
        for column, b in enumerate(other, start=1):
            changed = diagonal + _difference(a, b)
            diagonal = row[column]
            row[column] = min(changed, row[column] + 1, row[column - 1] + 1)
    return row[-1] / max(1, len(one), len(other))


def plausible(words: Iterable[Word]) -> list[Word]:
    """The words that are not far too long for their letters."""
    return [
        word
        for word in words
        if word.frames <= LONGEST_WORD_FRAMES + LONGEST_WORD_FRAMES_PER_LETTER * len(word.text)
    ]


def text_of(words: Iterable[Word]) -> str:
    """The words as a sentence."""
    return " ".join(word.text for word in words)


def _difference(a: str, b: str) -> float:
    if a == b:
        return 0.0
    return 0.5 if _KIND.get(a) == _KIND.get(b) else 1.0


def _phones(words: Iterable[Word]) -> list[str]:
    return [phone for word in words for phone in word.phones]


def _score_of_frame(words: Sequence[Word]) -> float:
    return sum(word.score for word in words) / sum(word.frames for word in words)
