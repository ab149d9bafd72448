"""SANS-IO: text increments in, speakable sentences out.

Sentences are exact slices: joined, they are the text.  A sentence ends at a full
stop, question or exclamation mark followed by a space, at its Chinese or
Japanese sisters at once, or at a line break; an overlong one ends at its last
comma or space.  The character after the mark is waited for, since "3." may go on
as "3.5".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Longer ones are cut: a listener would wait too long for the first sound, and the
# synthesizer's buffers are sized for this.
MAX_SENTENCE_CHARACTERS = 300

_CLOSERS = "\"'”’)]}」』）】》*_`"  # Markdown ends emphasis behind the mark
_ABBREVIATIONS = frozenset(
    (
        "mr mrs ms dr prof sr jr st vs etc fig inc ltd co approx dept est e.g i.e a.m p.m u.s u.k"
    ).split()
)
_END = re.compile(
    rf"(?P<wide>[。！？；]++[{re.escape(_CLOSERS)}]*+)(?=.)|"
    rf"(?P<mark>[.!?…]++[{re.escape(_CLOSERS)}]*+)(?=\s)|"
    r"(?P<line>\n)(?=.)",
    re.DOTALL,
)
_SOFT_END = re.compile(r".*[,;:，、：\s]", re.DOTALL)
_UNSPEAKABLE = re.compile(r"[*_`#|<>~\\^=]|[\U0001F000-\U0001FAFF☀-➿️]")


def speakable(sentence: str) -> str:
    """The sentence for a voice: marks of Markdown and pictures are spaces, of equal length."""
    return _UNSPEAKABLE.sub(" ", sentence)


def has_words(text: str) -> bool:
    """Whether there is anything to pronounce."""
    return any(character.isalnum() for character in text)


class SentenceSplitter:
    """Collects increments; `push` and `flush` yield whole sentences."""

    def __init__(self) -> None:
        self._text = ""

    def push(self, delta: str) -> Iterator[str]:
        """Adds an increment; yields the sentences that are complete now."""
        self._text += delta
        while length := self._find_end() or self._find_cut():
            sentence, self._text = self._text[:length], self._text[length:]
            yield sentence

    def flush(self) -> Iterator[str]:
        """Yields what is left: the text is over."""
        rest, self._text = self._text, ""
        if rest:
            yield rest

    def _find_end(self) -> int:
        """Where the first sentence ends, 0 when it is not over or too long."""
        for end in _END.finditer(self._text, 0, MAX_SENTENCE_CHARACTERS + 1):
            candidate = self._text[: end.end()]
            if has_words(candidate) and not (end["mark"] and self._abbreviates(candidate)):
                return end.end()
        return 0

    def _find_cut(self) -> int:
        """Where to cut an overlong sentence, 0 when it is not."""
        if len(self._text) <= MAX_SENTENCE_CHARACTERS:
            return 0
        soft = _SOFT_END.match(self._text, 0, MAX_SENTENCE_CHARACTERS)
        return soft.end() if soft and has_words(soft.group()) else MAX_SENTENCE_CHARACTERS

    @staticmethod
    def _abbreviates(candidate: str) -> bool:
        """Whether the full stop at the end belongs to its word: "Dr.", "J.", "e.g."."""
        words = candidate.split()
        if not words or not words[-1].endswith(".") or words[-1].endswith(".."):
            return False
        word = words[-1].lstrip("([{\"'").rstrip(".").lower()
        return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i")
