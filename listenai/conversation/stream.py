"""One stream of audio to the device: its clock, its words, its reports."""

from __future__ import annotations

import attrs

from listenai.audio import SAMPLE_BYTES
from listenai.conversation.heard import Heard, HeardLedger
from listenai.conversation.playout import Playout
from listenai.events import AudioChunk, Notice, SentenceStarted, StreamEnded, StreamStarted


@attrs.define(eq=False)
class Stream:
    """What the device was really sent of a turn's audio; `taken` keeps it so."""

    id: int
    sample_rate: int
    lead_seconds: float
    opened: bool = False  # the device knows of it
    ended: bool = False  # the device knows that it is complete
    cut_off: bool = False  # the device knows that nothing follows
    runs_out: bool = False  # cut off, but the device cannot stop: it plays what it has
    playout: Playout = attrs.field(init=False)
    ledger: HeardLedger = attrs.field(init=False)
    _reported: int | None = None

    def __attrs_post_init__(self) -> None:
        self.playout = Playout(self.sample_rate, self.lead_seconds)
        self.ledger = HeardLedger(self.sample_rate)

    def taken(self, event: Notice, now: float) -> None:
        """The writer has this message of ours."""
        match event:
            case StreamStarted():
                self.opened = True
            case SentenceStarted(text=text, from_sample=from_sample):
                self.ledger.begin_sentence(text, from_sample)
            case AudioChunk(pcm=pcm):
                self.playout.send(now, len(pcm) // SAMPLE_BYTES)
            case StreamEnded():  # of a reply that failed, the last sentence was cut short
                self.ended = True

    def report(self, played_samples: int, output_latency_seconds: float) -> None:
        """The device says what it has played; never less than before, nor more than was sent."""
        audible = played_samples - round(output_latency_seconds * self.sample_rate)
        self._reported = max(self._reported or 0, min(audible, self.playout.sent))

    def cut(self, now: float, *, device_forgets: bool) -> None:
        """The device was told to flush.  What it says from here on is its last word."""
        if device_forgets:
            self.playout.pause(now)
        self.cut_off = True
        self.runs_out = not self.playout.paused
        self._reported = None

    def break_off(self) -> str:
        """The voice fails here; what of its sentence is unspoken, "" between sentences."""
        return self.ledger.break_off(self.playout.sent)

    @property
    def last_word_known(self) -> bool:
        """Whether the device has said how much it played of a stream that was cut."""
        return self._reported is not None

    def played(self, now: float) -> int:
        """Samples that were heard: as reported of a cut stream, else by the clock."""
        if self.cut_off and self._reported is not None:
            return self._reported
        return self.playout.sent if self.runs_out else self.playout.played(now)

    def heard(self, now: float) -> Heard:
        """What was heard of the words that were begun."""
        played = self.played(now)
        return self.ledger.heard(played, reported=self._reported == played)
