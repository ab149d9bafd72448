"""SANS-IO: how long after the last speech frame a turn is over.

A whole sentence ends soon, a trailing conjunction or filler ends late, and what
cannot be judged lies between.  A user who goes on within a second of being cut
short makes the server more patient for a while.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

COMPLETE_SECONDS = 0.35
UNKNOWN_SECONDS = 0.7
TRAILING_SECONDS = 1.4
SHORTEST_SECONDS, LONGEST_SECONDS = 0.3, 1.4  # of the adaptive delays
CAP_SECONDS = 2.5  # nobody waits longer, however often they were cut short
RESUMED_WITHIN_SECONDS = 1.0
GROWTH, DECAY = 1.5, 0.9

_TRAILING: Mapping[str, frozenset[str]] = {
    "en": frozenset(
        (
            "and or but so because if when then than that the a an my your of to in on at for with"
            " from about like as is are was were um uh er erm hmm well please can could will would"
            " what how"
        ).split()
    ),
    "zh": frozenset("和 或 但是 因为 所以 如果 然后 嗯 呃 那个 就是 把 给 在 的".split()),
    "ja": frozenset("と で が から ので けど それで えっと あの その を に は も の".split()),
}
_BACKCHANNEL: Mapping[str, frozenset[str]] = {
    "en": frozenset(
        (
            "uh-huh uh huh mhm mm mmm hm hmm hmmm um yeah yep yup okay ok right sure ah oh er i see"
        ).split()
    ),
    "zh": frozenset("嗯 哦 噢 啊 对 好 好的 是 是的 嗯嗯".split()),
    "ja": frozenset("うん はい ええ へえ ふーん そう なるほど".split()),
}
_SPACED = re.compile(r"[\w'-]+")
_WIDE = re.compile(r"[^\w]+")
_SENTENCE_END = re.compile(r"[.!?。！？]$")


def words_of(text: str, language: str) -> list[str]:
    """Lower-case words; of languages without spaces, the runs between punctuation."""
    if language in ("zh", "ja"):
        return [run for run in _WIDE.split(text) if run]
    words = (word.strip("'-") for word in _SPACED.findall(text.lower().replace("’", "'")))
    return [word for word in words if word]


def is_backchannel(text: str, language: str) -> bool:
    """Whether this only says "I am listening": it takes no floor.  So does no word at all."""
    known = _BACKCHANNEL.get(language, _BACKCHANNEL["en"])
    return all(word in known for word in words_of(text, language))


def is_trailing(text: str, language: str) -> bool:
    """Whether the speaker has obviously not finished."""
    known = _TRAILING.get(language, _TRAILING["en"])
    words = words_of(text, language)
    if not words:
        return False
    if language in ("zh", "ja"):
        if _SENTENCE_END.search(text) or words[-1] in _BACKCHANNEL[language] - known:
            return False  # 好的 is an answer, though it ends like "my …"
        return words[-1].endswith(tuple(known))
    return words[-1] in known


@attrs.define
class Endpointer:
    """One device's patience.  `fixed_seconds` overrides all judgement."""

    language: str = "en"
    fixed_seconds: float | None = None
    _factor: float = 1.0
    _committed_at: float = float("-inf")

    def delay(self, text: str, complete: bool | None) -> float:
        """Seconds from the last speech frame to the end of the turn."""
        if self.fixed_seconds is not None:
            return self.fixed_seconds
        if complete or (complete is None and _SENTENCE_END.search(text)):
            base = COMPLETE_SECONDS
        elif is_trailing(text, self.language):
            return min(CAP_SECONDS, TRAILING_SECONDS * self._factor)
        else:
            base = UNKNOWN_SECONDS
        return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, base * self._factor))

    def committed(self, now: float) -> None:
        """A turn was taken to be over."""
        self._factor = max(1.0, self._factor * DECAY)
        self._committed_at = now

    def speech_started(self, now: float) -> None:
        """The user speaks; soon after a commit it means that they had not finished."""
        if now - self._committed_at <= RESUMED_WITHIN_SECONDS:
            self._factor = min(LONGEST_SECONDS / COMPLETE_SECONDS, self._factor * GROWTH)
            self._committed_at = float("-inf")  # counted once
