"""SANS-IO: is what we hear ourselves?

A detector takes our own voice for speech, however quietly it comes back.  So what is done
depends on what is known of the device's echo:

    cancelled   full duplex: speech interrupts, after few speech frames
    raw         half duplex: while our voice sounds at the device, and a little longer, the
                microphone is heard as silence; the button and typed text interrupt
    unknown     as raw, until the envelopes of the first replies (`echo_evidence`) tell which
                of the two it is

A device that reports what it plays may have its echo cancelled here; then all of this is about
what is left of it, and is looked at for as long as it speaks: a canceller takes some seconds to
learn the room, and again when the device is moved.

Where our own words are understood all the same, they never interrupt; and after them, or after
several false alarms in one reply, a device that was *found* to have no echo, not said to, is
unknown again.

The policy is told everything that the device is given, in order, and keeps its clock of what
sounds there.  Music alone leaves the microphone open: it may go on for hours.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

import attrs

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.conversation.echo_evidence import BATCH_SECONDS, KEPT_SECONDS, EchoEvidence
from listenai.conversation.echo_reference import EchoReference
from listenai.device import Capabilities, DeviceProfile, Duplex, Echo
from listenai.engines.base import EchoCanceller
from listenai.events import (
    AudioChunk,
    Notice,
    PlaybackReported,
    SentenceStarted,
    Source,
    StreamFlushed,
    StreamPaused,
    StreamResumed,
    StreamStarted,
)

# Speech frames before a reply is held, of the last so many: few where the device
# cancels its echo, many where our own voice may come back.
SUSPICION = (3, 4)
SUSPICION_WITH_ECHO = (8, 10)

ROOM_SECONDS = 0.2  # a voice dies away
# Our voice is heard so much longer than it is played; more where more delay was measured.
TAIL_SECONDS = 0.5
# When a reply begins, so may anything else: that both were silent before proves nothing.
BEGINNING_SECONDS = 0.5
# Audio that comes later than the microphone heard it: a bad Wi-Fi, a busy machine.  It comes in
# a burst.  What stays late comes from a microphone that was off, soon known where it is very late.
LONGEST_STALL_SECONDS, BURST_SECONDS = 1.5, 0.15
LATE_SECONDS = 2.0
LONGEST_OUTAGE_SECONDS = 5.0  # later audio was not held up on its way: nothing was recorded
GAP_SECONDS = 0.3  # nothing came: lateness is looked at anew

# Of what a canceller leaves: it is learning the room as long as there is anything but noise.
LEFT_SECONDS = KEPT_SECONDS - BATCH_SECONDS
LEFT_QUIET_SHARE = 0.98

# False alarms in one reply: a user's first sounds are one or two.
DOUBTED_ALARMS = 3

REMEMBERED_SECONDS = 8.0  # of what was said: the longest sentence, and a slow recognizer
OWN_SHARE = 2 / 3  # of the words understood, in our order: it was ourselves
# Fewer are believed to be the user's where the device says that it cancels its echo:
# "coffee" answers "tea or coffee?" while it is still being asked.
BELIEVED_WORDS = 2
COMPARED_LETTERS = 4  # of a word: endings are what a recognizer gets wrong
COMPARED_WORDS = 60  # at most, the last ones: as many as are spoken in 20 s

_CJK = "぀-ヿ㐀-鿿豈-﫿"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


@attrs.define
class _MicrophoneClock:
    """When audio was heard, which is before it came: counted in samples from what came soonest."""

    _heard_until: float = float("-inf")
    _least_late: float = float("inf")  # of what came since `_looked_at`
    _looked_at: float = 0.0
    _came_at: float = float("-inf")
    gap: bool = False  # what came last did not follow on what came before

    def hear(self, pcm: bytes, now: float) -> float:
        """When this audio, which came now, began to be heard."""
        seconds = len(pcm) / SAMPLE_BYTES / SAMPLE_RATE
        late = now - self._heard_until - seconds
        self.gap = late == float("inf")
        if self.gap or late < 0:
            self._heard_until, late = now - seconds, 0.0
        if now > self._came_at + GAP_SECONDS:
            if late > LONGEST_OUTAGE_SECONDS:  # the microphone was off
                self._heard_until, self.gap, late = now - seconds, True, 0.0
            self._least_late, self._looked_at = float("inf"), now
        self._came_at = now
        self._least_late = min(self._least_late, late)
        off = self._least_late > LONGEST_STALL_SECONDS
        if now > self._looked_at + (BURST_SECONDS if off else LATE_SECONDS):
            self.gap = off
            self._heard_until += self._least_late
            self._least_late, self._looked_at = float("inf"), now
        self._heard_until += seconds
        return self._heard_until - seconds


@attrs.define
class _Said:
    text: str
    began_at: float


@attrs.define
class EchoPolicy:
    """One device's echo.  Times are Trio's.  `canceller` is for one that reports what it plays."""

    capabilities: Capabilities
    canceller: EchoCanceller | None = None
    echo: Echo = attrs.field(init=False)  # as the device said, or as it was found
    _tail: float = TAIL_SECONDS
    _evidence: EchoEvidence = attrs.field(init=False)
    _reference: EchoReference = attrs.field(factory=EchoReference)
    _microphone: _MicrophoneClock = attrs.field(factory=_MicrophoneClock)
    _stream: StreamStarted | None = None  # of speech
    _sent: int = 0  # samples of it
    _false_alarms: int = 0  # since it began
    _sounding_since: float = float("-inf")
    _sounds_until: float = float("-inf")  # by our clock
    _plays_until: float = float("-inf")  # as the device says
    _paused_at: float | None = None
    _half_sample: bytes = b""  # of the microphone: messages may end anywhere
    _said: deque[_Said] = attrs.field(factory=deque)
    _speech_began_at: float = float("-inf")

    def __attrs_post_init__(self) -> None:
        self.echo = Echo.UNKNOWN if self.canceller else self.capabilities.echo
        self._evidence = self._no_evidence()

    @property
    def duplex(self) -> Duplex:
        """Whether speech interrupts."""
        return Duplex.FULL if self.echo is Echo.CANCELLED else Duplex.HALF

    @property
    def suspicion(self) -> tuple[int, int]:
        """(speech frames, of the last so many) before somebody is thought to speak."""
        cancelled = self.echo is Echo.CANCELLED and not self.canceller  # which leaves a little
        return SUSPICION if cancelled else SUSPICION_WITH_ECHO

    # --- what the device is given ------------------------------------------------------------

    def sent(self, notice: Notice, now: float) -> None:
        """The device gets this."""
        match notice:
            case AudioChunk(stream_id=stream_id, pcm=pcm):
                if self._stream and stream_id == self._stream.stream_id:
                    self._sound(pcm, self._stream.sample_rate, now)
            case SentenceStarted(text=text):
                while self._said and self._ended_at(0) < now - REMEMBERED_SECONDS:
                    self._said.popleft()
                self._said.append(_Said(text, max(now, self._sounds_until)))
            case StreamStarted():
                self._resume(now)
                self._plays_until = float("-inf")
                self._stream = notice if notice.source is Source.SPEECH else None
                self._sent = self._false_alarms = 0
            case StreamPaused():
                self._paused_at = now
                self._reference.pause(now)
            case StreamResumed():
                self._resume(now)
                self._false_alarms += 1
                if self._false_alarms >= DOUBTED_ALARMS:
                    self._doubt()
            case StreamFlushed(stream_id=stream_id):
                if self._stream and stream_id == self._stream.stream_id:
                    self._flush(now)

    def report(self, report: PlaybackReported, now: float) -> None:
        """The device says what it has played: it may be behind our clock."""
        stream = self._stream
        if stream and report.stream_id == stream.stream_id and self._paused_at is None:
            unplayed = max(0, self._sent - report.played_samples) / stream.sample_rate
            self._plays_until = now + unplayed + report.output_latency_ms / 1000

    def _sound(self, pcm: bytes, sample_rate: int, now: float) -> None:
        if now > self._sounds_until + self._tail:
            self._sounding_since = now
            if self.canceller:
                self._doubt()  # it has to find the delay anew
        starts_at = max(now, self._sounds_until)
        samples = len(pcm) // SAMPLE_BYTES
        self._sent += samples
        self._sounds_until = starts_at + samples / sample_rate
        if self._learns:
            self._evidence.sent(pcm, sample_rate, starts_at)
        if self.canceller and sample_rate == SAMPLE_RATE:
            self._reference.play(pcm, starts_at)

    def _resume(self, now: float) -> None:
        if self._paused_at is not None:
            paused_seconds = now - self._paused_at
            if self._sounds_until > self._paused_at:
                self._sounds_until += paused_seconds
            self._evidence.shift(self._paused_at, paused_seconds)
            self._reference.resume(now)
            self._paused_at = None

    def _flush(self, now: float) -> None:
        if self.capabilities.flush:  # else it plays what it has
            self._sounds_until = min(now, self._audible_until())
            self._plays_until = float("-inf")
            heard_until = max(self._sounds_until, 0.0)  # long ago: nothing was to be heard yet
            self._evidence.forget_after(heard_until)
            self._reference.forget_after(heard_until)
            self._stream = None
        self._paused_at = None

    def _audible_until(self) -> float:
        """When the device falls, or fell, silent."""
        until = max(self._sounds_until, self._plays_until)
        return until if self._paused_at is None else min(until, self._paused_at)

    def _ended_at(self, index: int) -> float:
        """When a sentence is over: the next one begins."""
        last = index + 1 == len(self._said)
        return self._sounds_until if last else self._said[index + 1].began_at

    # --- what is heard ---------------------------------------------------------------------

    def heard(self, pcm: bytes, now: float) -> bytes:
        """What the recognizer is to hear of this (int16 mono 16 kHz, came now): it, or silence.

        May change `echo`.
        """
        heard_at = self._microphone.hear(pcm, now)
        whole = self._whole_samples(pcm)
        if self.canceller:
            pcm = whole
        if heard_at > self._audible_until() + self._tail:
            return pcm
        if self.canceller:
            played = self._reference.read(heard_at, len(whole) // SAMPLE_BYTES)
            if self._reference.jumped:
                self._doubt()
            pcm = whole = self.canceller.process(whole, played)
        if self._learns:
            self._learn(whole, heard_at)
        return bytes(len(pcm)) if self.duplex is Duplex.HALF else pcm

    @property
    def _learns(self) -> bool:
        return self.echo is Echo.UNKNOWN or self.canceller is not None

    def _learn(self, pcm: bytes, heard_at: float) -> None:
        beginning = heard_at < self._sounding_since + BEGINNING_SECONDS
        if beginning or self._microphone.gap:
            self._evidence.end_batch()
        if beginning or not (finding := self._evidence.heard(pcm, heard_at)):
            return
        self.echo = finding.echo
        self._tail = max(TAIL_SECONDS, finding.delay_seconds + ROOM_SECONDS)
        self._evidence = self._no_evidence()

    def _no_evidence(self) -> EchoEvidence:
        return EchoEvidence(LEFT_SECONDS, LEFT_QUIET_SHARE) if self.canceller else EchoEvidence()

    def end_audio(self) -> None:
        """What comes next does not follow on what came last."""
        self._half_sample = b""

    def _whole_samples(self, pcm: bytes) -> bytes:
        if not self._half_sample and len(pcm) % SAMPLE_BYTES == 0:
            return pcm
        pcm = self._half_sample + pcm
        whole = len(pcm) - len(pcm) % SAMPLE_BYTES
        self._half_sample = pcm[whole:]
        return pcm[:whole]

    def speech_began(self, now: float) -> None:
        """The detector says that somebody speaks."""
        self._speech_began_at = now

    def is_own(self, text: str, now: float) -> bool:
        """Whether these are words of ours that came back: mostly, and in our order.

        Who begins to speak when we are silent says their own words.  May change `echo`.
        """
        tail = self._tail + ROOM_SECONDS if self.duplex is Duplex.HALF else 0.0
        if self._speech_began_at > self._audible_until() + tail:
            return False
        if self.capabilities.echo is Echo.CANCELLED and len(_compared(text)) < BELIEVED_WORDS:
            return False
        since = now - REMEMBERED_SECONDS
        recent = " ".join(
            said.text
            for index, said in enumerate(self._said)
            if said.began_at <= now and self._ended_at(index) >= since
        )
        own = is_repeated(text, recent)
        if own:
            self._doubt()
        return own

    def _doubt(self) -> None:
        """What seemed to be the user may have been ourselves: full duplex has to be found anew."""
        if self.duplex is Duplex.FULL and self.capabilities.echo is not Echo.CANCELLED:
            self.echo, self._tail = Echo.UNKNOWN, TAIL_SECONDS
            self._evidence = self._no_evidence()
            self._false_alarms = 0


def open_policy(
    capabilities: Capabilities,
    profile: DeviceProfile,
    make_canceller: Callable[[], EchoCanceller] | None,
) -> EchoPolicy:
    """The policy for a device, with a canceller where there is one and it can work.

    It needs to know when what is played: a device that is sent all at once, or says nothing of
    what it plays, tells too little.  One that cancels its echo itself does that better.
    """
    knows = capabilities.playback_reports and profile.paced
    if make_canceller is None or not knows or capabilities.echo is Echo.CANCELLED:
        return EchoPolicy(capabilities)
    return EchoPolicy(capabilities, make_canceller())


def is_repeated(text: str, said: str) -> bool:
    """Whether most of the text's words were said, in this order; a text without words is not."""
    words, own = _compared(text), _compared(said)
    return bool(words) and _longest_common(words, own) >= OWN_SHARE * len(words)


def _compared(text: str) -> list[str]:
    words = _WORD.findall(text.lower().replace("'", "").replace("’", ""))
    return [word[:COMPARED_LETTERS] for word in words[-COMPARED_WORDS:]]


def _longest_common(words: list[str], others: list[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(others) + 1)
    for word in words:
        diagonal = 0
        for index, other in enumerate(others, 1):
            above = lengths[index]
            lengths[index] = diagonal + 1 if word == other else max(above, lengths[index - 1])
            diagonal = above
    return lengths[-1]
