"""SANS-IO: the heard-word ledger: how much of what was said has been heard.

Spoken text is the exact concatenation of its sentences; heard text is always a
prefix of it that ends with a whole word.  A word counts as heard when its last
sample was played.  Where the synthesizer tells word timings, that is exact;
else a word's place is its share of the sentence's characters, or, while the
sentence is still being spoken, an assumed pace.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

import attrs

from listenai.engines.base import WordTiming
from listenai.events import Certainty

# A slow reading pace, so that words of a sentence whose length is not yet known
# are rather called unheard than heard.
ASSUMED_CHARACTERS_PER_SECOND = 11.0
ASSUMED_CJK_CHARACTERS_PER_SECOND = 3.5

_CJK = "぀-ヿ㐀-鿿豈-﫿"
_ONE_CJK = re.compile(rf"[{_CJK}]")
_WORD = re.compile(rf"[{_CJK}][^\w\s]*|[^\s{_CJK}]+")


@attrs.frozen
class Heard:
    """A split of the spoken text, and how it is known."""

    text: str
    unheard_text: str
    certainty: Certainty


@attrs.define
class _Sentence:
    text: str
    from_sample: int
    to_sample: int | None = None  # None: its audio is still coming
    timings: list[WordTiming] = attrs.field(factory=list)


class HeardLedger:
    """One stream's words and where they stand in its samples."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._sentences: list[_Sentence] = []

    @property
    def spoken_text(self) -> str:
        """Everything begun, heard or not."""
        return "".join(sentence.text for sentence in self._sentences)

    def begin_sentence(self, text: str, from_sample: int) -> None:
        """From this sample on the stream says this; ends the sentence before."""
        if self._sentences:
            self.end_sentence(from_sample)
        self._sentences.append(_Sentence(text, from_sample))

    def time_words(self, timings: Iterable[WordTiming]) -> None:
        """Words of the latest sentence; samples count from the sentence's first."""
        self._sentences[-1].timings.extend(timings)

    def end_sentence(self, to_sample: int) -> None:
        """The latest sentence's audio ends before this sample."""
        if self._sentences and self._sentences[-1].to_sample is None:
            self._sentences[-1].to_sample = to_sample

    def break_off(self, to_sample: int) -> str:
        """A sentence that is being spoken ends here; the rest of its text, "" without such a one.

        The word that is being spoken counts as unspoken.
        """
        if not self._sentences or self._sentences[-1].to_sample is not None:
            return ""
        sentence = self._sentences.pop()
        spoken = self._heard_characters(sentence, to_sample)
        if spoken:
            timings = [timing for timing in sentence.timings if timing.end <= spoken]
            head = _Sentence(sentence.text[:spoken], sentence.from_sample, to_sample, timings)
            self._sentences.append(head)
        return sentence.text[spoken:]

    def heard(self, played: int, *, reported: bool) -> Heard:
        """What was heard when `played` samples were; `reported`: the device itself said so."""
        length, exact = 0, True
        for sentence in self._sentences:
            if played < sentence.from_sample:
                break
            exact = exact and (bool(sentence.timings) or played == sentence.from_sample)
            length += self._heard_characters(sentence, played)
        spoken = self.spoken_text
        certainty = Certainty.REPORTED if reported and exact else Certainty.ESTIMATED
        return Heard(spoken[:length].rstrip(), spoken[length:].strip(), certainty)

    def _heard_characters(self, sentence: _Sentence, played: int) -> int:
        """How many characters of the sentence were heard, up to the end of a word."""
        if sentence.to_sample is not None and played >= sentence.to_sample:
            return len(sentence.text)
        if sentence.timings:
            return self._by_timings(sentence, played - sentence.from_sample)
        return self._by_proportion(sentence, played - sentence.from_sample)

    @staticmethod
    def _by_timings(sentence: _Sentence, played: int) -> int:
        # A word is over where the next one begins; of the last one that is not known.
        begun = bisect_right([timing.from_sample for timing in sentence.timings], played)
        return sentence.timings[begun - 2].end if begun >= 2 else 0

    def _by_proportion(self, sentence: _Sentence, played: int) -> int:
        text = sentence.text
        if sentence.to_sample is not None:
            reached = played * len(text) / (sentence.to_sample - sentence.from_sample)
        else:
            cjk = _ONE_CJK.search(text)
            pace = ASSUMED_CJK_CHARACTERS_PER_SECOND if cjk else ASSUMED_CHARACTERS_PER_SECOND
            # Its last word is still coming, however slow the voice.
            reached = min(played * pace / self._sample_rate, len(text.rstrip()) - 1)
        heard = 0
        for word in _WORD.finditer(text):
            if word.end() > reached:
                break
            heard = word.end()
        return heard
