"""An ear made of a detector and a transcriber.

Two halves share one buffer.  Plain code takes frames, finds segments and appends
them to the utterance; it never waits.  One background task follows behind: it
reads the same buffer, feeds the transcriber and tells what it understood.  The
buffer is the only queue between them, so a slow transcriber delays its texts and
nothing else.

An utterance is every segment since the last commit, each with the pre-roll before
it, so that the joined audio is continuous, or has its pauses shortened.  The text
of a segment is the text of the joined audio up to its end: when speech resumes, all
of it is transcribed anew, because recognizers understand whole sentences better
than pieces.  An utterance that outgrows its cap goes on in a new *take*: the text of
the earlier takes is kept and put before what follows.

Whatever `hear` is told, it may call back (`commit`, `configure`): state is settled
before each call.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence

import attrs
import trio

from listenai.audio import FRAME_BYTES, FRAME_SECONDS, SAMPLE_BYTES, SAMPLE_RATE, AudioStep, Framer
from listenai.engines.base import Detector, SpeakerMemory, Transcriber, Utterance
from listenai.engines.segmenter import Change, Segmenter
from listenai.errors import ErrorCode, TranscriberAway, TranscriberError
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    SpeechSuspected,
    TranscriptionDelayed,
    TranscriptionFailed,
)

_log = logging.getLogger(__name__)

# 304 ms (9.5 KiB): the detector is late by a frame, and misses quiet first consonants.
PRE_ROLL_FRAMES = 19
# Spec 000: "Minimum speech duration filtering (0.3 seconds)".  The shortest words are not
# that long for the detector ("no": 272 ms), so some of the pre-roll counts as speech; all
# of it would let every click pass.
MIN_SPEECH_SECONDS = 0.3
SPOKEN_PRE_ROLL_SECONDS = 0.1
# 60 ms: what the embedded transcriber takes in one step of at most 13 ms.
FEED_BYTES = 60 * SAMPLE_RATE // 1000 * SAMPLE_BYTES
PARTIAL_SECONDS = 0.15  # partials more often than this cost more than they show
STOPPED_SECONDS = 1.0  # no audio for so long in mid speech: the segment is over
MIN_CAP_SECONDS = 1.0  # a take must have room for its pre-roll and some speech
AWAY_SECONDS = 60.0  # a service that was restarted has loaded its model by then
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 2.0
UNSPACED_LANGUAGES = ("zh", "ja", "yue", "th")


@attrs.define(eq=False)
class _Take:
    """Joined audio that is transcribed as one; `text_before` says what came in earlier takes."""

    audio: bytearray = attrs.field(factory=bytearray)  # int16 mono 16 kHz, at most the cap
    text_before: str | None = None  # None: not known until the earlier takes are transcribed


@attrs.define(eq=False)
class _Segment:
    """One run of speech in a take, and the scope in which it is transcribed."""

    id: int
    language: str
    take: _Take
    start: int  # where it begins in the take, bytes
    end: int | None = None  # None: still going on
    frames: int = 0
    spoken_frames: int = 0  # up to the last speech frame
    last_speech_at: float = 0.0
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class SegmentingRecognizer:
    """One device's ear (engines.base.Recognizer); made by SegmentingRecognizerFactory.

    It keeps at most twice `cap_seconds` of audio: the take being heard and, while the
    transcriber is behind, the one before it.  `cut_takes` counts takes that were full,
    `overdue_segments` segments that failed because the transcriber was a whole take behind.
    """

    def __init__(
        self,
        detector: Detector,
        transcriber: Transcriber,
        hear: Callable[[SpeechEvent], None],
        *,
        suspicion: tuple[int, int],
        cap_seconds: float,
        steps: Sequence[AudioStep] = (),
        loudness_threshold: Callable[[], float | None] = lambda: None,
    ) -> None:
        """steps: what is done to each frame before all else.

        loudness_threshold: dBFS below which nothing is speech now; None: loudness does not count.
        """
        if cap_seconds < MIN_CAP_SECONDS:
            raise ValueError(
                f"an utterance cannot be cut after {cap_seconds} s; allowed is {MIN_CAP_SECONDS} s "
                "or more (default 30 s)"
            )
        self.cut_takes = self.overdue_segments = 0
        self._detector, self._transcriber, self._hear = detector, transcriber, hear
        self._segmenter = Segmenter(suspicion=suspicion)
        self._steps, self._loudness_threshold = tuple(steps), loudness_threshold
        self._framer = Framer()
        self._speaker = SpeakerMemory()
        self._language = "en"
        self._cap_seconds = cap_seconds
        self._cap_bytes = int(cap_seconds * SAMPLE_RATE) * SAMPLE_BYTES
        self._pre_roll = deque[bytes](maxlen=PRE_ROLL_FRAMES)
        self._take = _Take()
        self._segment: _Segment | None = None  # while somebody speaks
        self._last_segment_id, self._last_frame_at = 0, 0.0
        self._joined_frames = 0  # speech in the utterance's segments that are over
        # Segments to be transcribed, in order, the first in work.  Bounded by the takes: each
        # segment holds some frames of one.
        self._owed = deque[_Segment]()
        self._text = ""  # of the utterance, as far as it is transcribed
        self._news = trio.Event()  # wakes the transcribing task
        self._wanted_bytes = math.inf  # of the take: so much audio is news
        self._started = trio.Event()  # wakes the task that notices the end of audio

    # --- plain code: called by the connection ------------------------------------------------

    def accept(self, pcm: bytes) -> None:
        """Takes audio of any length: int16 mono 16 kHz; never waits."""
        now = trio.current_time()
        for frame in self._framer.push(pcm):
            self._accept_frame(frame, now)

    def end_speech(self) -> None:
        """Ends the segment that is going on, however short it is; its transcript follows.

        So does the audio: part of a frame that is waiting for the rest is forgotten.
        """
        self._framer.reset()
        if self._segment is not None:
            self._segmenter.end()
            self._hear(self._end_segment(self._segment, keep=True))

    def commit(self) -> None:
        """What comes next is a new utterance, also the rest of a segment still going on."""
        current = self._segment
        only_current = current is not None and current.start == 0
        for segment in [segment for segment in self._owed if segment is not current]:
            self._abandon(segment)
        self._joined_frames, self._text = 0, ""
        if current is None:
            self._take = _Take(text_before="")
        elif only_current:
            self._take.text_before = ""
        else:  # it was joined to the old utterance: begin it anew without
            self._take = _Take(current.take.audio[current.start :], "")
            self._segment = attrs.evolve(
                current, take=self._take, start=0, scope=trio.CancelScope()
            )
            if self._abandon(current):
                self._owe(self._segment)

    def configure(self, *, language: str, threshold: float, silence_frames: int) -> None:
        """Settings from the next segment on.

        threshold: probability of speech, 0 to 1; silence_frames: 1 or more.  Raises ValueError.
        """
        self._segmenter.configure(threshold=threshold, silence_frames=silence_frames)
        self._language = language

    def suspect_after(self, suspicion: tuple[int, int]) -> None:
        """Another suspicion from the next frame on.  Raises ValueError."""
        self._segmenter.suspect_after(suspicion)

    # --- plain code: segments ------------------------------------------------------------------

    def _accept_frame(self, frame: bytes, now: float) -> None:
        self._last_frame_at = now
        for step in self._steps:
            frame = step.process(frame)
        probability = self._detector.process(frame)
        change = self._segmenter.push(probability)
        if _log.isEnabledFor(logging.DEBUG):
            _log_frame(probability, self._segmenter)
        if Change.STARTED in change:
            self._segment = self._begin_segment()
        segment = self._segment
        if segment is None:
            self._pre_roll.append(frame)
            return
        self._append(segment, frame, now)
        if Change.SUSPECTED in change:
            self._owe(segment)

        events: list[SpeechEvent] = []
        if Change.STARTED in change:
            events.append(SpeechStarted(segment.id, self._loudness_threshold()))
        if Change.SUSPECTED in change:
            events.append(SpeechSuspected(segment.id))
        if Change.ENDED in change:
            events.append(self._end_segment(segment))
        elif len(segment.take.audio) + FRAME_BYTES > self._cap_bytes:
            self._segmenter.end()
            events += [*self._cut(), self._end_segment(segment, keep=True)]
        for event in events:
            self._hear(event)

    def _append(self, segment: _Segment, frame: bytes, now: float) -> None:
        segment.take.audio += frame
        segment.frames += 1
        if self._segmenter.speeching and not self._segmenter.silent_frames:
            segment.spoken_frames = segment.frames
            segment.last_speech_at = now
        if len(segment.take.audio) >= self._wanted_bytes:
            self._news.set()

    def _begin_segment(self) -> _Segment:
        pre_roll = b"".join(self._pre_roll)
        self._pre_roll.clear()
        if len(self._take.audio) + len(pre_roll) + FRAME_BYTES > self._cap_bytes:
            for event in self._cut():
                self._hear(event)
        self._last_segment_id += 1
        segment = _Segment(self._last_segment_id, self._language, self._take, len(self._take.audio))
        self._take.audio += pre_roll
        self._started.set()
        return segment

    def _end_segment(self, segment: _Segment, *, keep: bool = False) -> SpeechEnded:
        """The segment is over; too short an utterance is not kept unless `keep`."""
        self._segment = None
        spoken = self._joined_frames + segment.spoken_frames
        keep = keep or spoken * FRAME_SECONDS + SPOKEN_PRE_ROLL_SECONDS >= MIN_SPEECH_SECONDS
        audio = segment.take.audio
        if keep:
            segment.end = len(audio)
            self._joined_frames = spoken
            if segment not in self._owed:
                self._owe(segment)
            self._news.set()
        else:  # a click, or the beginning of a word: it may still be wanted before the next
            self._abandon(segment)
            self._pre_roll.extend(
                bytes(audio[at : at + FRAME_BYTES])
                for at in range(segment.start, len(audio), FRAME_BYTES)
            )
            del audio[segment.start :]
        return SpeechEnded(segment.id, segment.last_speech_at, transcript_follows=keep)

    def _cut(self) -> list[SpeechEvent]:
        """The take is full: the utterance goes on in a new one.  What is a take behind fails."""
        self.cut_takes += 1
        overdue = [segment for segment in self._owed if segment.take is not self._take]
        self._take = _Take()
        for segment in overdue:
            self._abandon(segment)
        self.overdue_segments += len(overdue)
        message = (
            f"speech recognition is more than {self._cap_seconds:g} s behind and gave up on this "
            "segment; speak again, or run a faster transcriber"
        )
        return [TranscriptionFailed(late.id, ErrorCode.ASR_ERROR, message) for late in overdue]

    def _owe(self, segment: _Segment) -> None:
        self._owed.append(segment)
        self._news.set()

    def _abandon(self, segment: _Segment) -> bool:
        """Nothing will be told of this segment any more; whether anything would have been."""
        segment.scope.cancel()
        if segment not in self._owed:
            return False
        self._owed.remove(segment)
        return True

    # --- background tasks ----------------------------------------------------------------------

    async def serve_transcripts(self) -> None:
        """Transcribes what is owed, one segment at a time, in order."""
        while True:
            while not self._owed:
                await self._wait_news()
            await self._transcribe(self._owed[0])

    async def serve_audio_stops(self) -> None:
        """Ends a segment as silence would when no audio comes for STOPPED_SECONDS."""
        while True:
            while self._segment is None:
                self._started = trio.Event()
                await self._started.wait()
            stopped_at = self._last_frame_at + STOPPED_SECONDS
            if trio.current_time() < stopped_at:
                await trio.sleep_until(stopped_at)
            else:
                self._segmenter.end()
                self._hear(self._end_segment(self._segment))

    async def _wait_news(self) -> None:
        """Waits until the plain code has changed something; the caller looks what."""
        self._news = trio.Event()
        await self._news.wait()

    async def _wait_audio(self, size: int) -> None:
        """Waits until the take has so many bytes, or anything else has changed."""
        self._wanted_bytes = size
        try:
            await self._wait_news()
        finally:
            self._wanted_bytes = math.inf

    async def _transcribe(self, segment: _Segment) -> None:
        take = segment.take
        if take.text_before is None:
            take.text_before = self._text
        with segment.scope:
            outcome = await self._understand(segment)
        if segment.scope.cancel_called:
            return  # and no longer owed
        self._owed.remove(segment)
        if isinstance(outcome, FinalTranscript):
            self._text = outcome.text
        self._hear(outcome)

    async def _understand(self, segment: _Segment) -> FinalTranscript | TranscriptionFailed:
        """The segment's text; a transcriber that is away is tried again, with all of it."""
        away_since: float | None = None
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._try_to_understand(segment)
            except TranscriberError as error:
                now = trio.current_time()
                away = isinstance(error, TranscriberAway)
                if not away or now - (away_since or now) > AWAY_SECONDS:
                    while segment.end is None:  # what failed is told after SpeechEnded
                        await self._wait_news()
                    return TranscriptionFailed(segment.id, error.code, str(error), error.timed_out)
                if away_since is None:
                    away_since = now
                    self._hear(TranscriptionDelayed(segment.id, error.code, str(error)))
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)

    async def _try_to_understand(self, segment: _Segment) -> FinalTranscript:
        async with self._transcriber.open_utterance(
            language=segment.language, speaker=self._speaker
        ) as utterance:
            await self._feed(segment, utterance)
            heard = await utterance.finish()
        return FinalTranscript(segment.id, _whole_text(segment, heard.text), heard.complete)

    async def _feed(self, segment: _Segment, utterance: Utterance) -> None:
        """Feeds the take up to the segment's end; asks for partials while it goes on."""
        audio = segment.take.audio
        fed = 0
        last_text, asked_at = "", float("-inf")
        while segment.end is None or fed < segment.end:
            if segment.end is None and len(audio) - fed < FEED_BYTES:
                await self._wait_audio(fed + FEED_BYTES)
                continue
            stop = fed + FEED_BYTES if segment.end is None else min(segment.end, fed + FEED_BYTES)
            await utterance.accept(bytes(audio[fed:stop]))
            fed = stop

            # Words of the replayed part alone would look like a step back.
            now = trio.current_time()
            replayed = fed > segment.start
            if segment.end is None and replayed and now - asked_at >= PARTIAL_SECONDS:
                asked_at = now
                text = await utterance.partial()
                await trio.lowlevel.checkpoint_if_cancelled()  # abandoned just now: not a word
                if text and text != last_text and segment.end is None:
                    last_text = text
                    self._hear(PartialTranscript(segment.id, _whole_text(segment, text)))


def _log_frame(probability: float, state: Segmenter) -> None:
    """Spec 000, "Event Logging": "Per-frame debug logging with state information"."""
    numbers = state.frames, probability, state.speeching, state.silent_frames
    _log.debug("frame number=%d p=%.3f speeching=%s silent_frames=%d", *numbers)


def _whole_text(segment: _Segment, text: str) -> str:
    """The text of the utterance: of the earlier takes, and this."""
    before = segment.take.text_before
    if not before or not text:
        return before or text
    return before + ("" if segment.language.startswith(UNSPACED_LANGUAGES) else " ") + text
