"""The law of the heard text, over any interleaving of what can happen to a stream.

Heard text is a prefix of the spoken text, never reaches beyond what was sent, never
shrinks while the stream is played, and is exact, and called so, where the engine timed
the words and a truthful device reported after the flush.
"""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from listenai.audio import SAMPLE_BYTES
from listenai.conversation.stream import Stream
from listenai.engines.base import WordTiming
from listenai.events import AudioChunk, Certainty, SentenceStarted, StreamEnded, StreamStarted

RATE = 16_000
WORD_SAMPLES = 4_000  # a quarter of a second a word
WORDS = ("one", "zwei,", "three", "quatre.", "five")


@attrs.define
class TruthfulDevice:
    """Plays what it gets, in whole samples, as the stream's own clock assumes."""

    received: int = 0
    played: float = 0.0
    paused: bool = False
    flushed: bool = False

    def advance(self, seconds: float) -> None:
        if not self.paused and not self.flushed:
            self.played = min(self.received, self.played + seconds * RATE)


class LedgerLaw(RuleBasedStateMachine):
    """A stream, a truthful device, and a line over which anything may come late or wrong."""

    @initialize(timed=st.booleans())
    def begin(self, timed: bool) -> None:
        self.timed = timed
        self.now = 100.0
        self.stream = Stream(1, RATE, 0.5)
        self.stream.taken(StreamStarted(1, 1, RATE), self.now)
        self.device = TruthfulDevice()
        self.sentence_left = 0  # samples of the current sentence that are not sent yet
        self.words: list[tuple[str, int]] = []  # word, the sample at which it is over
        self.honest = True  # every report since the flush was the truth
        self.reported = False
        self.heard_before = ""

    # --- the reply ---------------------------------------------------------------------------

    @precondition(lambda self: self.sentence_left == 0 and not self._over())
    @rule(count=st.integers(1, 5))
    def start_sentence(self, count: int) -> None:
        if self.stream.playout.paused:  # the gate is shut
            return
        words = WORDS[:count]
        text = (" " if self.words else "") + " ".join(words)
        begin = self.stream.playout.sent
        self.stream.taken(SentenceStarted(1, text, begin), self.now)
        at = len(text) - len(text.lstrip())
        for index, word in enumerate(words):
            timing = WordTiming(at, at + len(word), index * WORD_SAMPLES)
            if self.timed:
                self.stream.ledger.time_words([timing])
            self.words.append((word, begin + (index + 1) * WORD_SAMPLES))
            at += len(word) + 1
        self.sentence_left = count * WORD_SAMPLES

    @precondition(lambda self: self.sentence_left > 0 and not self._over())
    @rule(samples=st.integers(WORD_SAMPLES // 2, 4 * WORD_SAMPLES))
    def send_audio(self, samples: int) -> None:
        if self.stream.playout.paused:
            return
        samples = min(samples, self.sentence_left)
        self.stream.taken(AudioChunk(1, bytes(samples * SAMPLE_BYTES)), self.now)
        self.device.received += samples
        self.sentence_left -= samples
        if not self.sentence_left:
            self.stream.ledger.end_sentence(self.stream.playout.sent)

    @precondition(lambda self: not self._over() and not self.sentence_left and len(self.words) > 5)
    @rule()
    def end_stream(self) -> None:
        self.stream.taken(StreamEnded(1, self.stream.playout.sent), self.now)

    # --- time and the floor ------------------------------------------------------------------

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.device.advance(seconds)
        self.now += seconds

    @precondition(lambda self: not self.stream.cut_off)
    @rule()
    def pause(self) -> None:
        self.stream.playout.pause(self.now)
        self.device.paused = True

    @precondition(lambda self: not self.stream.cut_off)
    @rule()
    def resume(self) -> None:
        self.stream.playout.resume(self.now)
        self.device.paused = False

    @precondition(lambda self: not self.stream.cut_off and len(self.words) > 3)
    @rule(forgets=st.sampled_from([True, True, True, False]))
    def interrupt(self, forgets: bool) -> None:
        self.stream.cut(self.now, device_forgets=forgets)
        self.device.flushed = forgets
        self.heard_before = ""  # the device's last word may correct the clock's

    # --- reports -----------------------------------------------------------------------------

    @rule()
    def report_truthfully(self) -> None:
        if self.stream.cut_off and not self.device.flushed:
            return  # it plays on: this is not its last word
        self.stream.report(int(self.device.played), 0.0)
        self.reported = self.reported or self.stream.cut_off
        self._corrected()

    @precondition(lambda self: self.stream.playout.sent > 2 * WORD_SAMPLES)
    @rule(samples=st.integers(-RATE, 60 * RATE), latency=st.floats(0, 1))
    def report_lies_or_late(self, samples: int, latency: float) -> None:
        self.stream.report(samples, latency)
        self.honest = self.honest and not self.stream.cut_off
        self._corrected()

    # --- the law -----------------------------------------------------------------------------

    @invariant()
    def heard_is_a_prefix_of_what_was_spoken(self) -> None:
        heard = self.stream.heard(self.now)
        spoken = self.stream.ledger.spoken_text
        assert spoken.startswith(heard.text)
        assert heard.text.split() + heard.unheard_text.split() == spoken.split()

    @invariant()
    def nothing_beyond_what_was_sent(self) -> None:
        played = self.stream.played(self.now)
        assert 0 <= played <= self.stream.playout.sent == self.device.received
        if self.timed:
            count = len(self.stream.heard(self.now).text.split())
            assert all(over <= self.device.received for _, over in self.words[:count])

    @invariant()
    def heard_never_shrinks(self) -> None:
        heard = self.stream.heard(self.now).text
        assert heard.startswith(self.heard_before)
        self.heard_before = heard

    @invariant()
    def certain_is_exact(self) -> None:
        heard = self.stream.heard(self.now)
        if heard.certainty is Certainty.REPORTED:
            assert self.timed or self.stream.played(self.now) == 0 or not self.words
        if self.timed and self.honest and self.reported and self.device.flushed:
            truth = [word for word, over in self.words if over <= int(self.device.played)]
            assert heard.text.split() == truth
            assert heard.certainty is Certainty.REPORTED

    # --- small parts -------------------------------------------------------------------------

    def _over(self) -> bool:
        return self.stream.cut_off or self.stream.ended

    def _corrected(self) -> None:
        if self.stream.cut_off:
            self.heard_before = ""


LedgerLaw.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLedgerLaw = LedgerLaw.TestCase
