"""SANS-IO: the loudspeaker of the scripted device.

It plays what it is given in real time, as a sound card would: from the moment the
first sample arrives, at the stream's rate, as long as it has something to play.
`advance(now)` plays up to now; every other method advances first.  Pausing moves
the clock and loses nothing.  What was heard is kept as spans of sound, each with
the time it began; audio that the protocol forbids is counted as a violation.

    received = played + queued + discarded          (per stream, in samples)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable
from enum import StrEnum

import attrs
import numpy as np
import numpy.typing as npt
import soxr

from listenai.audio import SAMPLE_BYTES

REPORT_SECONDS = 0.25  # between playback reports while playing
LOUD_DBFS = -40.0  # sound above this level is audible in a room
WINDOW_SECONDS = 0.02  # levels are measured over windows of this length

_TIME_SLACK = 1e-6  # samples: times that differ by rounding only are the same sample


def loudness(pcm: bytes, sample_rate: int) -> tuple[int, npt.NDArray[np.bool_]]:
    """Samples in a window, and which windows of int16 mono PCM are louder than LOUD_DBFS."""
    window = max(1, round(sample_rate * WINDOW_SECONDS))
    samples = np.frombuffer(pcm, np.int16).astype(np.float64) / 32768
    starts = np.arange(0, len(samples), window)
    if not len(starts):
        return window, np.zeros(0, np.bool_)
    lengths = np.minimum(window, len(samples) - starts)
    power = np.add.reduceat(samples * samples, starts) / lengths
    return window, power > 10 ** (LOUD_DBFS / 10)


class Law(StrEnum):
    """What the protocol promises a device."""

    PAUSED = "no audio between pause and resume"
    FLUSHED = "no audio after flush"
    UNOPENED = "no audio outside of a stream"
    WHOLE_SAMPLES = "audio in whole samples"
    COUNTED = "`tts_audio end` counts the samples that were sent"
    KNOWN_STREAM = "every stream is opened before it is spoken of"
    WELL_FORMED = "every message is a JSON object with its fields"


@attrs.frozen
class Violation:
    """A broken law."""

    at: float  # Trio's time
    law: Law
    detail: str


@attrs.frozen
class PlaybackReport:
    """What the device tells the server about its loudspeaker."""

    stream_id: int
    played_samples: int


@attrs.define(eq=False)
class SpeakerStream:
    """One stream's account, in samples."""

    id: int
    sample_rate: int  # Hz
    received: int = 0
    played: int = 0
    discarded: int = 0  # by flush
    ended: bool = False
    flushed: bool = False
    reported: int = -1  # in the last playback report
    gaps: int = 0  # times it ran dry before its end

    @property
    def over(self) -> bool:
        """Whether nothing of it is still to be played."""
        return self.flushed or (self.ended and self.played == self.received)


@attrs.define(eq=False)
class Span:
    """Sound without a gap."""

    started_at: float  # Trio's time
    stream_id: int
    sample_rate: int  # Hz
    pcm: bytearray  # int16 mono

    @property
    def ended_at(self) -> float:
        """When its last sample had been heard."""
        return self.started_at + len(self.pcm) / SAMPLE_BYTES / self.sample_rate


class Speaker:
    """Plays streams; with a `sink` the sound goes there and is not kept."""

    def __init__(self, sink: Callable[[bytes, int], None] | None = None) -> None:
        self.streams: dict[int, SpeakerStream] = {}
        self.spans: list[Span] = []
        self.violations: list[Violation] = []
        self.stale_samples = 0  # arrived outside of any stream; never played
        self._sink = sink
        self._queue: deque[tuple[SpeakerStream, memoryview]] = deque()
        self._open: SpeakerStream | None = None  # where binary goes
        self._paused_at: float | None = None
        self._origin = 0.0  # when the present run of sound began; a pause moves it
        self._run = 0  # samples played of this run
        self._span: Span | None = None
        self._sounding: SpeakerStream | None = None  # played last
        self._reported_at = float("-inf")
        self._reports: list[PlaybackReport] = []

    # --- what the server says -------------------------------------------------------------

    def start(self, stream_id: int, sample_rate: int, now: float) -> None:
        """A stream opens; a pause ends with it."""
        self._resume(now)
        self._open = self.streams[stream_id] = SpeakerStream(stream_id, sample_rate)

    def receive(self, pcm: bytes, now: float) -> None:
        """Audio of the open stream: int16 mono at its rate."""
        self.advance(now)
        stream = self._open
        if len(pcm) % SAMPLE_BYTES:
            self._violate(now, Law.WHOLE_SAMPLES, f"a message of {len(pcm)} bytes")
            pcm = pcm[:-1]
        samples = len(pcm) // SAMPLE_BYTES
        if stream is None or stream.flushed or stream.ended:
            law = Law.UNOPENED if self._paused_at is None else Law.PAUSED
            law = Law.FLUSHED if stream is not None and stream.flushed else law
            self._violate(now, law, f"{samples} samples outside of a stream")
            self.stale_samples += samples
            return
        if self._paused_at is not None:
            self._violate(now, Law.PAUSED, f"{samples} samples of stream {stream.id}")
        if not samples:
            return
        if not self._queue:
            stream.gaps += stream.played > 0
            self._begin_run(now if self._paused_at is None else self._paused_at)
        stream.received += samples
        self._queue.append((stream, memoryview(pcm)))

    def end(self, stream_id: int, samples: int, now: float) -> None:
        """A stream is complete."""
        self.advance(now)
        stream = self._known(stream_id, now)
        if stream is None:
            return
        stream.ended = True
        if samples != stream.received:
            detail = f"stream {stream_id}: said {samples}, sent {stream.received}"
            self._violate(now, Law.COUNTED, detail)
        self._report_due(now)

    def pause(self, stream_id: int, now: float) -> None:
        """Stops the sound at once and keeps what is queued."""
        self.advance(now)
        if self._known(stream_id, now) is not None and self._paused_at is None:
            self._paused_at = now
            self._span = None

    def resume(self, stream_id: int, now: float) -> None:
        """Goes on where the pause stopped, to the sample."""
        if self._known(stream_id, now) is not None:
            self._resume(now)

    def flush(self, stream_id: int, now: float) -> None:
        """Forgets what is queued of a stream and reports what was played of it."""
        self._resume(now)
        stream = self._known(stream_id, now)
        if stream is None:
            return
        stream.flushed = True
        head = self._queue[0][0] if self._queue else None
        stream.discarded += self.queued(stream_id)
        self._queue = deque(entry for entry in self._queue if entry[0] is not stream)
        if head is stream:  # what is left, of another stream, begins now
            self._begin_run(now)
        self._report(stream, now)

    # --- playing --------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Plays up to now."""
        if self._paused_at is not None:
            return
        while self._queue:
            stream, pcm = self._queue[0]
            due = int((now - self._origin) * stream.sample_rate + _TIME_SLACK) - self._run
            if due <= 0:
                break
            size = min(due * SAMPLE_BYTES, len(pcm))
            self._play(stream, bytes(pcm[:size]))
            if size < len(pcm):
                self._queue[0] = (stream, pcm[size:])
                break
            self._queue.popleft()
            if not self._queue:
                self._span = None
            elif self._queue[0][0] is not stream:  # the next stream, perhaps at another rate
                self._begin_run(self._origin + self._run / stream.sample_rate)
        self._report_due(now)

    def take_reports(self) -> list[PlaybackReport]:
        """Playback reports that are due, oldest first; each is given once."""
        reports, self._reports = self._reports, []
        return reports

    @property
    def paused(self) -> bool:
        """Whether a pause holds."""
        return self._paused_at is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is queued."""
        return not self._queue

    def queued(self, stream_id: int) -> int:
        """Samples of a stream that are still to be played."""
        return sum(len(pcm) for stream, pcm in self._queue if stream.id == stream_id) // (
            SAMPLE_BYTES
        )

    # --- what was heard -------------------------------------------------------------------

    def heard(self, stream_ids: Container[int]) -> list[Span]:
        """The sound of these streams, in the order of time."""
        return [span for span in self.spans if span.stream_id in stream_ids]

    def first_sound_at(self, stream_ids: Container[int]) -> float | None:
        """When the first audible window of these streams began; None: nothing audible yet."""
        for span in self.heard(stream_ids):
            window, loud = loudness(bytes(span.pcm), span.sample_rate)
            if loud.any():
                return span.started_at + int(loud.argmax()) * window / span.sample_rate
        return None

    def _play(self, stream: SpeakerStream, pcm: bytes) -> None:
        stream.played += len(pcm) // SAMPLE_BYTES
        self._sounding = stream
        if self._sink is not None:
            self._sink(pcm, stream.sample_rate)
        else:
            if self._span is None or self._span.stream_id != stream.id:
                started_at = self._origin + self._run / stream.sample_rate
                self._span = Span(started_at, stream.id, stream.sample_rate, bytearray())
                self.spans.append(self._span)
            self._span.pcm += pcm
        self._run += len(pcm) // SAMPLE_BYTES

    def _begin_run(self, at: float) -> None:
        self._origin, self._run, self._span = at, 0, None

    def _resume(self, now: float) -> None:
        self.advance(now)
        if self._paused_at is not None:
            self._origin += now - self._paused_at
            self._paused_at = None

    def _report_due(self, now: float) -> None:
        stream = self._sounding
        if stream is None or stream.flushed or stream.played == stream.reported:
            return
        if stream.over or now - self._reported_at >= REPORT_SECONDS:
            self._report(stream, now)

    def _report(self, stream: SpeakerStream, now: float) -> None:
        stream.reported, self._reported_at = stream.played, now
        self._reports.append(PlaybackReport(stream.id, stream.played))

    def _known(self, stream_id: int, now: float) -> SpeakerStream | None:
        if stream_id not in self.streams:
            self._violate(now, Law.KNOWN_STREAM, f"stream {stream_id}")
        return self.streams.get(stream_id)

    def _violate(self, now: float, law: Law, detail: str) -> None:
        self.violations.append(Violation(now, law, detail))


def timeline(spans: Iterable[Span], sample_rate: int) -> bytes:
    """The spans as one recording from the first of them on, silence included, at this rate."""
    spans = sorted(spans, key=lambda span: span.started_at)
    if not spans:
        return b""
    begin = spans[0].started_at
    total = max(span.ended_at for span in spans) - begin
    room = np.zeros(round(total * sample_rate) + len(spans), np.int16)
    end = 0
    for span in spans:
        sound = np.frombuffer(bytes(span.pcm), np.int16)
        if span.sample_rate != sample_rate:
            sound = soxr.resample(sound, span.sample_rate, sample_rate)
        at = max(0, round((span.started_at - begin) * sample_rate))
        sound = sound[: len(room) - at]
        end = max(end, at + len(sound))
        room[at : at + len(sound)] = sound
    return room[:end].tobytes()
