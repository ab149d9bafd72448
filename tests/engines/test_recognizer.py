"""The ear on mock time, with a detector and a transcriber that understand numbered frames.

A frame of these tests carries its loudness in the first sample and its number in
the second; the transcriber's text is the numbers of the loud frames it was fed.
So a transcript tells exactly which audio reached the transcriber.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Literal, Self

import attrs
import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from listenai.audio import FRAME_BYTES, FRAME_SAMPLES, FRAME_SECONDS
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.recognizer import (
    FEED_BYTES,
    PARTIAL_SECONDS,
    PRE_ROLL_FRAMES,
    SegmentingRecognizer,
)
from listenai.errors import ErrorCode, TranscriberError
from listenai.speech import (
    FinalTranscript,
    PartialTranscript,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    SpeechSuspected,
    TranscriptionFailed,
)

SILENCE_FRAMES = 5

# --- the fakes -----------------------------------------------------------------------------


class Microphone:
    """Makes numbered frames."""

    def __init__(self) -> None:
        self.frames = 0

    def speech(self, frames: int) -> list[bytes]:
        return self._make(frames, loudness=10_000)

    def silence(self, frames: int) -> list[bytes]:
        return self._make(frames, loudness=0)

    def _make(self, frames: int, loudness: int) -> list[bytes]:
        made = []
        for _ in range(frames):
            samples = np.zeros(FRAME_SAMPLES, np.int16)
            samples[0], samples[1] = loudness, self.frames
            self.frames += 1
            made.append(samples.tobytes())
        return made


def numbers(pcm: bytes | bytearray, *, loud_only: bool = False) -> list[int]:
    """The numbers of the whole frames in this audio."""
    whole = len(pcm) - len(pcm) % FRAME_BYTES
    frames = np.frombuffer(bytes(pcm[:whole]), np.int16).reshape(-1, FRAME_SAMPLES)
    return [int(frame[1]) for frame in frames if frame[0] or not loud_only]


def words(*spans: Iterable[int]) -> str:
    return " ".join(str(number) for span in spans for number in span)


class LoudnessDetector:
    """A frame is speech when its first sample is loud."""

    def __init__(self) -> None:
        self.closed = False

    def process(self, frame: bytes) -> float:
        assert len(frame) == FRAME_BYTES
        return 0.9 if np.frombuffer(frame, np.int16)[0] else 0.1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


@attrs.define(eq=False)
class NumberUtterance:
    """One session of the NumberTranscriber."""

    transcriber: NumberTranscriber
    language: str
    speaker: SpeakerMemory
    audio: bytearray = attrs.field(factory=bytearray)
    chunk_sizes: list[int] = attrs.field(factory=list)
    partials_at: list[float] = attrs.field(factory=list)
    closed: bool = False

    async def accept(self, pcm: bytes) -> None:
        self.chunk_sizes.append(len(pcm))
        self.audio += pcm
        await self.transcriber.work("accept")

    async def partial(self) -> str:
        self.partials_at.append(trio.current_time())
        await self.transcriber.work("partial")
        return words(numbers(self.audio, loud_only=True)) if self.transcriber.tells_partials else ""

    async def finish(self) -> Transcript:
        text = words(numbers(self.audio, loud_only=True))
        await self.transcriber.work("finish")
        return Transcript(text, complete=True)


Step = Literal["open", "accept", "partial", "finish"]


@attrs.define(eq=False)
class NumberTranscriber:
    """Understands the numbers of loud frames; steps may take time, or fail."""

    seconds: dict[Step, float] = attrs.field(factory=dict)
    failures: dict[Step, Exception] = attrs.field(factory=dict)
    gates: dict[Step, trio.Event] = attrs.field(factory=dict)
    tells_partials: bool = True
    languages: tuple[str, ...] = ("en", "zh")
    sessions: list[NumberUtterance] = attrs.field(factory=list)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[NumberUtterance]:
        await self.work("open")
        session = NumberUtterance(self, language, speaker)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.closed = True

    async def work(self, step: Step) -> None:
        await trio.sleep(self.seconds.get(step, 0))
        if step in self.gates:
            await self.gates[step].wait()
        if step in self.failures:
            raise self.failures[step]


@attrs.define(eq=False)
class Ear:
    """A recognizer, its microphone and what was heard, with times."""

    transcriber: NumberTranscriber
    microphone: Microphone = attrs.field(factory=Microphone)
    detector: LoudnessDetector = attrs.field(factory=LoudnessDetector)
    events: list[SpeechEvent] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    on_event: Callable[[SpeechEvent], None] = lambda _: None
    recognizer: SegmentingRecognizer = attrs.field(init=False)

    def hear(self, event: SpeechEvent) -> None:
        self.events.append(event)
        self.times.append(trio.current_time())
        self.on_event(event)

    async def listen(self, frames: Iterable[bytes]) -> None:
        """Frames as they come from a device, one every 16 ms."""
        for frame in frames:
            self.recognizer.accept(frame)
            await trio.sleep(FRAME_SECONDS)

    async def say(self, frames: int) -> range:
        """Speech and just enough silence; the numbers of the speech."""
        spoken = range(self.microphone.frames, self.microphone.frames + frames)
        await self.listen(self.microphone.speech(frames))
        await self.listen(self.microphone.silence(SILENCE_FRAMES))
        return spoken

    async def pause(self, frames: int) -> None:
        await self.listen(self.microphone.silence(frames))

    def of(self, *kinds: type[SpeechEvent]) -> list[SpeechEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    def finals(self) -> list[tuple[int, str]]:
        return [(e.segment_id, e.text) for e in self.events if isinstance(e, FinalTranscript)]

    def time_of(self, kind: type[SpeechEvent]) -> float:
        return next(t for t, e in zip(self.times, self.events, strict=True) if isinstance(e, kind))


@asynccontextmanager
async def open_ear(
    transcriber: NumberTranscriber | None = None,
    *,
    suspicion: tuple[int, int] = (3, 4),
    cap_seconds: float = 30.0,
) -> AsyncIterator[Ear]:
    ear = Ear(transcriber or NumberTranscriber())
    factory = SegmentingRecognizerFactory(lambda: ear.detector, ear.transcriber)
    async with factory.open(ear.hear, suspicion=suspicion, cap_seconds=cap_seconds) as recognizer:
        ear.recognizer = recognizer
        yield ear


# --- one segment ---------------------------------------------------------------------------


async def test_a_segment_is_told_in_order_and_at_once(autojump_clock: MockClock) -> None:
    """Start, suspicion and end come with their frames; the text follows."""
    async with open_ear(NumberTranscriber(tells_partials=False)) as ear:
        began = trio.current_time()
        await ear.pause(2)
        spoken = await ear.say(20)
        assert ear.events == [
            SpeechStarted(1),
            SpeechSuspected(1),
            SpeechEnded(1, pytest.approx(began + 21 * FRAME_SECONDS), transcript_follows=True),
            FinalTranscript(1, words(spoken), complete=True),
        ]
        frame_numbers = [round((at - began) / FRAME_SECONDS) for at in ear.times]
        assert frame_numbers == [2, 4, 26, 26]


async def test_the_pre_roll_is_heard_by_the_transcriber(autojump_clock: MockClock) -> None:
    """The first words are not lost: about 300 ms before the first speech frame are fed too."""
    async with open_ear() as ear:
        await ear.pause(40)
        spoken = await ear.say(20)
        (session,) = ear.transcriber.sessions
        first, last = 40 - PRE_ROLL_FRAMES, spoken[-1] + SILENCE_FRAMES
        assert numbers(session.audio) == list(range(first, last + 1))


async def test_a_click_is_no_speech(autojump_clock: MockClock) -> None:
    """Too short an utterance has no transcript, and no session was opened for it."""
    async with open_ear() as ear:
        await ear.pause(30)
        await ear.say(2)
        await ear.pause(30)
        assert [type(event) for event in ear.events] == [SpeechStarted, SpeechEnded]
        assert not ear.events[-1].transcript_follows
        assert not ear.transcriber.sessions


async def test_what_was_too_short_is_kept_as_pre_roll(autojump_clock: MockClock) -> None:
    """Speech right after a blip is heard together with it."""
    async with open_ear() as ear:
        await ear.pause(30)
        blip = await ear.say(2)
        spoken = await ear.say(20)
        assert ear.finals() == [(2, words(blip, spoken))]
        first = spoken[0] - PRE_ROLL_FRAMES
        assert numbers(ear.transcriber.sessions[0].audio)[0] == first


async def test_too_short_speech_that_was_suspected_closes_its_session(
    autojump_clock: MockClock,
) -> None:
    """A cough that opened the transcriber is forgotten; nothing of it is told."""
    async with open_ear(NumberTranscriber(seconds={"accept": 0.5})) as ear:
        await ear.pause(30)
        await ear.say(8)
        await ear.pause(60)
        assert [type(event) for event in ear.events] == [
            SpeechStarted,
            SpeechSuspected,
            SpeechEnded,
        ]
        assert [session.closed for session in ear.transcriber.sessions] == [True]


@pytest.mark.parametrize("suspicion", [(3, 4), (8, 10), (20, 20)])
async def test_a_short_word_is_speech(
    autojump_clock: MockClock, suspicion: tuple[int, int]
) -> None:
    """ "no" is 272 ms: 17 frames, whether or not they suffice for suspicion."""
    async with open_ear(suspicion=suspicion) as ear:
        await ear.pause(30)
        spoken = await ear.say(17)
        await ear.pause(2)
        assert ear.finals() == [(1, words(spoken))]


async def test_no_session_is_opened_before_suspicion(autojump_clock: MockClock) -> None:
    """The first blip of a segment costs nothing."""
    async with open_ear(suspicion=(8, 10)) as ear:
        await ear.listen(ear.microphone.speech(7))
        assert not ear.transcriber.sessions
        await ear.listen(ear.microphone.speech(1))
        assert len(ear.transcriber.sessions) == 1


async def test_audio_is_fed_while_it_is_spoken_in_small_chunks(autojump_clock: MockClock) -> None:
    """No chunk is longer than 60 ms, and most of the audio is fed before the end."""
    async with open_ear() as ear:
        await ear.pause(30)
        await ear.listen(ear.microphone.speech(100))
        (session,) = ear.transcriber.sessions
        assert len(session.audio) > (100 + PRE_ROLL_FRAMES) * FRAME_BYTES - FEED_BYTES
        await ear.pause(20)
        assert max(session.chunk_sizes) <= 1920
        assert session.closed


async def test_partials_are_asked_for_now_and_then(autojump_clock: MockClock) -> None:
    """While speech goes on, at most every 150 ms; the texts grow towards the final."""
    async with open_ear() as ear:
        await ear.say(100)
        (session,) = ear.transcriber.sessions
        gaps = np.diff(session.partials_at)
        assert len(gaps) >= 7
        assert min(gaps) >= PARTIAL_SECONDS
        texts = [event.text for event in ear.of(PartialTranscript)]
        assert len(texts) == len(session.partials_at)
        assert all(later.startswith(text) for text, later in pairwise(texts))
        assert isinstance(ear.events[-1], FinalTranscript)


async def test_partials_without_news_are_not_told(autojump_clock: MockClock) -> None:
    """Neither an empty text nor the same text again."""
    async with open_ear(NumberTranscriber(tells_partials=False)) as ear:
        await ear.say(60)
        assert ear.transcriber.sessions[0].partials_at
        assert not ear.of(PartialTranscript)
    async with open_ear() as ear:
        ear.recognizer.configure(language="en", threshold=0.5, silence_frames=60)
        await ear.listen(ear.microphone.speech(20))
        await ear.pause(59)
        texts = [event.text for event in ear.of(PartialTranscript)]
        assert len(texts) == len(set(texts))
        assert len(ear.transcriber.sessions[0].partials_at) > len(texts)


async def test_a_partial_that_became_empty_is_not_told(autojump_clock: MockClock) -> None:
    """A transcriber that takes its words back says nothing by it."""
    async with open_ear() as ear:
        await ear.listen(ear.microphone.speech(30))
        told = ear.of(PartialTranscript)
        ear.transcriber.tells_partials = False
        await ear.listen(ear.microphone.speech(30))
        assert told
        assert ear.of(PartialTranscript) == told


async def test_a_partial_that_comes_late_is_not_told(autojump_clock: MockClock) -> None:
    """After the end of its segment nobody wants it: the final is on its way."""
    async with open_ear(NumberTranscriber(seconds={"partial": 0.3})) as ear:
        spoken = await ear.say(20)  # it ends while the second partial is being made
        assert isinstance(ear.events[-1], SpeechEnded)
        await ear.pause(30)
        (session,) = ear.transcriber.sessions
        ended_at = ear.time_of(SpeechEnded)
        assert session.partials_at[-1] < ended_at < session.partials_at[-1] + 0.3
        assert ear.events[-1] == FinalTranscript(1, words(spoken), complete=True)
        assert isinstance(ear.events[-2], SpeechEnded)


# --- joined segments -----------------------------------------------------------------------


async def test_segments_are_joined_until_committed(autojump_clock: MockClock) -> None:
    """Each final covers the utterance so far; a short pause is kept as it was."""
    async with open_ear() as ear:
        await ear.pause(PRE_ROLL_FRAMES)
        first = await ear.say(20)
        await ear.pause(10)
        second = await ear.say(20)
        await ear.pause(2)
        assert ear.finals() == [(1, words(first)), (2, words(first, second))]
        audio = numbers(ear.transcriber.sessions[1].audio)
        assert audio == list(range(second[-1] + SILENCE_FRAMES + 1))


async def test_a_long_pause_is_shortened_to_the_pre_roll(autojump_clock: MockClock) -> None:
    """Between joined segments stand the first one's silence frames and the pre-roll."""
    async with open_ear() as ear:
        first = await ear.say(20)
        await ear.pause(100)
        second = await ear.say(20)
        await ear.pause(2)
        audio = numbers(ear.transcriber.sessions[1].audio)
        before = range(first[-1] + SILENCE_FRAMES + 1)
        after = range(second[0] - PRE_ROLL_FRAMES, second[-1] + SILENCE_FRAMES + 1)
        assert audio == [*before, *after]


async def test_the_shortest_word_counts_when_joined(autojump_clock: MockClock) -> None:
    """The minimum is the utterance's, not the segment's: "turn it … up"."""
    async with open_ear() as ear:
        first = await ear.say(20)
        second = await ear.say(2)
        await ear.pause(2)
        assert ear.finals() == [(1, words(first)), (2, words(first, second))]


async def test_partials_do_not_step_back_while_joined_audio_is_replayed(
    autojump_clock: MockClock,
) -> None:
    """A slow replay tells no part of what was already told."""
    async with open_ear(NumberTranscriber(seconds={"accept": 0.03})) as ear:
        first = await ear.say(100)
        await ear.pause(80)
        await ear.say(200)
        partials = [e.text for e in ear.events if e == PartialTranscript(2, getattr(e, "text", ""))]
        assert partials
        assert all(text.startswith(words(first)) for text in partials)


async def test_after_commit_a_new_utterance_begins(autojump_clock: MockClock) -> None:
    """The next final holds its own segment only."""
    async with open_ear() as ear:
        await ear.say(20)
        await ear.pause(2)
        ear.recognizer.commit()
        second = await ear.say(20)
        await ear.pause(2)
        assert ear.finals()[1:] == [(2, words(second))]


async def test_a_commit_forgets_what_is_still_being_transcribed(autojump_clock: MockClock) -> None:
    """No final comes for a segment that was forgotten, and its session is closed."""
    async with open_ear(NumberTranscriber(seconds={"finish": 1.0})) as ear:
        await ear.say(20)
        ear.recognizer.commit()
        await ear.pause(100)
        assert not ear.finals()
        assert ear.transcriber.sessions[0].closed
        second = await ear.say(20)
        await ear.pause(100)
        assert ear.finals() == [(2, words(second))]


@pytest.mark.parametrize("step", ["partial", "finish"])
async def test_a_commit_at_the_very_moment_of_a_text(autojump_clock: MockClock, step: Step) -> None:
    """A text that is ready, but not yet told, is forgotten too."""
    async with open_ear() as ear:
        first = await ear.say(20)
        await ear.pause(2)
        ear.transcriber.gates[step] = trio.Event()
        if step == "finish":
            await ear.say(20)
        else:
            await ear.listen(ear.microphone.speech(20))
        before = len(ear.events)
        ear.transcriber.gates[step].set()
        ear.recognizer.commit()
        await ear.pause(10)
        later = [getattr(event, "text", "") for event in ear.events[before:]]
        assert not any(words(first) in text for text in later)


async def test_a_commit_while_speech_goes_on_keeps_that_speech(autojump_clock: MockClock) -> None:
    """What was joined before is dropped; the segment going on begins the new utterance."""
    async with open_ear() as ear:
        await ear.say(20)
        await ear.pause(50)
        start = ear.microphone.frames
        await ear.listen(ear.microphone.speech(20))
        ear.recognizer.commit()
        await ear.say(20)
        await ear.pause(2)
        assert ear.finals()[1:] == [(2, words(range(start, start + 40)))]
        assert numbers(ear.transcriber.sessions[-1].audio)[0] == start - PRE_ROLL_FRAMES
        assert all(session.closed for session in ear.transcriber.sessions)


async def test_a_commit_during_the_first_segment_disturbs_nothing(
    autojump_clock: MockClock,
) -> None:
    """The session that is being fed goes on."""
    async with open_ear() as ear:
        await ear.listen(ear.microphone.speech(20))
        ear.recognizer.commit()
        await ear.say(20)
        await ear.pause(2)
        assert ear.finals() == [(1, words(range(40)))]
        assert len(ear.transcriber.sessions) == 1


async def test_a_commit_from_within_hear_is_fine(autojump_clock: MockClock) -> None:
    """Whoever hears the final, or that there is none, may take the utterance right there."""
    async with open_ear() as ear:
        taken = (FinalTranscript, SpeechEnded)
        ear.on_event = lambda event: (
            ear.recognizer.commit()
            if isinstance(event, taken) and not getattr(event, "transcript_follows", False)
            else None
        )
        first = await ear.say(20)
        await ear.pause(30)
        await ear.say(1)
        await ear.pause(30)
        second = await ear.say(20)
        await ear.pause(2)
        assert ear.finals() == [(1, words(first)), (3, words(second))]


async def test_speech_that_resumes_while_a_final_is_pending(autojump_clock: MockClock) -> None:
    """The first final is for the earlier audio; the second, in order, for all of it."""
    async with open_ear(NumberTranscriber(seconds={"finish": 0.5})) as ear:
        first = await ear.say(20)
        second = await ear.say(20)
        third = await ear.say(20)
        await ear.pause(100)
        assert [e.segment_id for e in ear.of(SpeechEnded)] == [1, 2, 3]
        assert ear.finals() == [
            (1, words(first)),
            (2, words(first, second)),
            (3, words(first, second, third)),
        ]
        assert (
            ear.times[ear.events.index(ear.of(FinalTranscript)[0])]
            > ear.times[ear.events.index(SpeechStarted(2))]
        )


# --- the end of speech ---------------------------------------------------------------------


async def test_audio_that_stops_ends_the_segment(autojump_clock: MockClock) -> None:
    """A client that sends its recording at once, without silence, is answered a second later."""
    async with open_ear() as ear:
        sent_at = trio.current_time()
        ear.recognizer.accept(b"".join(ear.microphone.speech(60)))
        await trio.sleep(5)
        assert ear.finals() == [(1, words(range(60)))]
        assert ear.time_of(SpeechEnded) == pytest.approx(sent_at + 1.0)
        assert ear.of(SpeechEnded) == [SpeechEnded(1, sent_at, transcript_follows=True)]
        ear.recognizer.commit()
        ear.recognizer.accept(b"".join(ear.microphone.speech(20)))
        await trio.sleep(5)
        assert ear.finals()[1:] == [(2, words(range(60, 80)))]


async def test_audio_that_stutters_does_not_end_the_segment(autojump_clock: MockClock) -> None:
    """Gaps below a second, again and again, are the network's."""
    async with open_ear() as ear:
        for _ in range(5):
            await ear.listen(ear.microphone.speech(5))
            await trio.sleep(0.9)
        assert not ear.of(SpeechEnded)


async def test_push_to_talk_ends_the_segment_at_once(autojump_clock: MockClock) -> None:
    """Also in mid speech, and even when it is shorter than a click may be."""
    async with open_ear() as ear:
        await ear.pause(30)
        await ear.listen(ear.microphone.speech(6))
        ear.recognizer.end_speech()
        assert ear.of(SpeechEnded) != []
        assert ear.events[-1].transcript_follows
        await ear.listen(ear.microphone.speech(20))
        assert ear.finals() == [(1, words(range(30, 36)))]
        assert SpeechStarted(2) in ear.events


async def test_push_to_talk_in_the_silence_before_the_end(autojump_clock: MockClock) -> None:
    """Silence that the detector has not yet taken for the end is not waited for."""
    async with open_ear() as ear:
        await ear.listen(ear.microphone.speech(20))
        await ear.pause(2)
        ear.recognizer.end_speech()
        await trio.sleep(0.01)
        assert ear.finals() == [(1, words(range(20)))]


async def test_push_to_talk_with_nothing_said_says_nothing(autojump_clock: MockClock) -> None:
    """Neither in silence nor after a segment whose text is already told."""
    async with open_ear() as ear:
        await ear.pause(30)
        ear.recognizer.end_speech()
        assert not ear.events
        await ear.say(20)
        await ear.pause(2)
        told = list(ear.events)
        ear.recognizer.end_speech()
        await ear.pause(100)
        assert ear.events == told


# --- too long, too slow, broken ------------------------------------------------------------


async def test_an_overlong_utterance_is_cut_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    """Every cut has a final; each holds the whole text so far, the last one all of it."""
    async with open_ear(cap_seconds=2.0) as ear:
        spoken = await ear.say(510)  # 8.2 s
        await ear.pause(2)
        finals = ear.finals()
        assert [segment_id for segment_id, _ in finals] == [1, 2, 3, 4, 5]
        assert finals[-1] == (5, words(spoken))
        assert all(later.startswith(text) for (_, text), (_, later) in pairwise(finals))
        assert ear.recognizer.cut_takes == 4
        assert max(len(session.audio) for session in ear.transcriber.sessions) <= 2 * 32_000


async def test_many_segments_are_cut_too(autojump_clock: MockClock) -> None:
    """The cap holds for the joined utterance."""
    async with open_ear(cap_seconds=2.0) as ear:
        spoken = []
        for _ in range(10):
            spoken.append(await ear.say(30))
            await ear.pause(20)
        assert ear.finals()[-1][1] == words(*spoken)
        assert ear.recognizer.cut_takes >= 3
        assert max(len(session.audio) for session in ear.transcriber.sessions) <= 2 * 32_000


async def test_cut_text_is_joined_as_the_language_writes(autojump_clock: MockClock) -> None:
    """Chinese has no spaces between words."""
    async with open_ear(cap_seconds=1.0) as ear:
        ear.recognizer.configure(language="zh", threshold=0.5, silence_frames=5)
        await ear.say(70)
        await ear.pause(2)
        assert ear.finals()[-1][1] == words(range(62)) + words(range(62, 70))


async def test_a_commit_forgets_the_text_of_cut_takes(autojump_clock: MockClock) -> None:
    """What follows the commit is told without it."""
    async with open_ear(cap_seconds=1.0) as ear:
        await ear.listen(ear.microphone.speech(80))
        ear.recognizer.commit()
        await ear.say(20)
        await ear.pause(2)
        assert ear.finals()[-1] == (2, words(range(62, 100)))


async def test_a_commit_forgets_text_for_good(autojump_clock: MockClock) -> None:
    """Not even an utterance whose first take fails has the committed words before it."""
    async with open_ear(cap_seconds=1.0) as ear:
        await ear.say(20)
        await ear.pause(30)
        ear.recognizer.commit()
        ear.transcriber.failures["finish"] = TranscriberError("out of order")
        began = ear.microphone.frames
        await ear.listen(ear.microphone.speech(50))
        assert len(ear.of(TranscriptionFailed)) == 1
        ear.transcriber.failures.clear()
        await ear.say(20)
        await ear.pause(2)
        assert ear.finals()[-1][1] == words(range(began + 62 - PRE_ROLL_FRAMES, began + 70))


async def test_a_stuck_transcriber_delays_nothing_else(autojump_clock: MockClock) -> None:
    """Speech events come at the same times as with one that takes no time at all."""
    heard = []
    for transcriber in (NumberTranscriber(), NumberTranscriber(seconds={"open": float("inf")})):
        async with open_ear(transcriber) as ear:
            began = trio.current_time()
            await ear.say(30)
            await ear.pause(30)
            await ear.say(30)
            kinds = (SpeechStarted, SpeechSuspected, SpeechEnded)
            heard.append(
                [
                    (type(event), round(at - began, 6))
                    for event, at in zip(ear.events, ear.times, strict=True)
                    if isinstance(event, kinds)
                ]
            )
    assert heard[0] == heard[1]
    assert len(heard[0]) == 6


@pytest.mark.parametrize("step", ["open", "accept", "finish"])
async def test_a_take_behind_fails_aloud(autojump_clock: MockClock, step: Step) -> None:
    """A stuck transcriber keeps no more than two takes; what gives way is told and counted."""
    async with open_ear(NumberTranscriber(seconds={step: float("inf")}), cap_seconds=1.0) as ear:
        await ear.listen(ear.microphone.speech(62 * 5))
        failed = ear.of(TranscriptionFailed)
        assert [event.segment_id for event in failed] == [1, 2, 3, 4]
        assert failed[0].code is ErrorCode.ASR_ERROR
        assert "1 s behind" in failed[0].message
        assert ear.recognizer.overdue_segments == 4
        assert ear.recognizer.cut_takes == 5


@pytest.mark.parametrize("step", ["open", "accept", "partial", "finish"])
async def test_a_transcriber_error_is_told_after_the_segment(
    autojump_clock: MockClock, step: Step
) -> None:
    """One failure for the segment, after its end; the next segment brings the words back."""
    async with open_ear() as ear:
        ear.transcriber.failures[step] = TranscriberError("the model is gone")
        first = await ear.say(40)
        await ear.pause(2)
        assert ear.events == [
            SpeechStarted(1),
            SpeechSuspected(1),
            *ear.of(PartialTranscript),
            *ear.of(SpeechEnded),
            TranscriptionFailed(1, ErrorCode.ASR_ERROR, "the model is gone"),
        ]
        ear.transcriber.failures.clear()
        second = await ear.say(40)
        await ear.pause(2)
        assert ear.finals() == [(2, words(first, second))]


async def test_any_other_exception_is_a_bug_and_ends_the_ear(autojump_clock: MockClock) -> None:
    """It is raised to whoever opened the ear, and the detector is closed."""
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="bug"), flatten_subgroups=True):
        async with open_ear(NumberTranscriber(failures={"accept": RuntimeError("a bug")})) as ear:
            await ear.say(40)
    assert ear.detector.closed


@pytest.mark.parametrize("step", ["open", "accept", "partial", "finish"])
async def test_leaving_closes_everything(autojump_clock: MockClock, step: Step) -> None:
    """Whatever the transcriber is doing, its session and the detector are closed."""
    async with open_ear(NumberTranscriber(seconds={step: float("inf")})) as ear:
        await ear.say(40)
    assert all(session.closed for session in ear.transcriber.sessions)
    assert ear.detector.closed
    assert not ear.finals()


# --- settings ------------------------------------------------------------------------------


async def test_settings_apply_from_the_next_segment_on(autojump_clock: MockClock) -> None:
    """Language and silence frames of a segment are those it began with."""
    async with open_ear() as ear:
        await ear.listen(ear.microphone.speech(2))
        ear.recognizer.configure(language="zh", threshold=0.5, silence_frames=20)
        await ear.listen(ear.microphone.speech(20))
        await ear.pause(5)
        assert len(ear.of(SpeechEnded)) == 1
        await ear.listen(ear.microphone.speech(20))
        await ear.pause(19)
        assert len(ear.of(SpeechEnded)) == 1
        await ear.pause(1)
        assert len(ear.of(SpeechEnded)) == 2
        assert [session.language for session in ear.transcriber.sessions] == ["en", "zh"]


async def test_each_ear_has_one_speaker_memory(autojump_clock: MockClock) -> None:
    """Utterances of an ear share it; another ear has its own."""
    transcriber = NumberTranscriber()
    for _ in range(2):
        async with open_ear(transcriber) as ear:
            for _ in range(2):
                await ear.say(20)
                await ear.pause(2)
                ear.recognizer.commit()
    first, again, other, other_again = (session.speaker for session in transcriber.sessions)
    assert first is again
    assert other is other_again
    assert first is not other


async def test_a_cap_without_room_is_refused(autojump_clock: MockClock) -> None:
    """The message says what is allowed, and the detector is closed."""
    with pytest.raises(ValueError, match=r"allowed is 1\.0 s or more"):
        async with open_ear(cap_seconds=0.5):
            raise AssertionError("an ear was opened")


# --- any audio, any messages ---------------------------------------------------------------


async def outcome(pcm: bytes, sizes: list[int], cap_seconds: float) -> Ear:
    """What is heard of this audio in messages of these sizes, all at once, then nothing."""
    async with open_ear(NumberTranscriber(tells_partials=False), cap_seconds=cap_seconds) as ear:
        at = 0
        while at < len(pcm):
            size = sizes[at % len(sizes)]
            ear.recognizer.accept(pcm[at : at + size])
            at += size
        await trio.sleep(10)
        return ear


@settings(deadline=None, max_examples=60)
@given(
    spans=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    cap_seconds=st.sampled_from([1.0, 30.0]),
)
def test_messages_of_any_size_give_the_same_events_and_lose_nothing(
    spans: list[tuple[bool, int]], sizes: list[int], cap_seconds: float
) -> None:
    """How the audio is cut into messages does not matter; every segment gets what it was told."""
    microphone = Microphone()
    frames = [
        frame
        for loud, count in spans
        for frame in (microphone.speech(count) if loud else microphone.silence(count))
    ]
    pcm = b"".join(frames)

    def run(sizes: list[int]) -> Ear:
        clock = MockClock(autojump_threshold=0)
        return trio.run(outcome, pcm, sizes, cap_seconds, clock=clock)

    ear, same = run(sizes), run([FRAME_BYTES])
    assert ear.of(SpeechStarted, SpeechSuspected, SpeechEnded) == same.of(
        SpeechStarted, SpeechSuspected, SpeechEnded
    )
    assert ear.of(FinalTranscript, TranscriptionFailed) == same.of(
        FinalTranscript, TranscriptionFailed
    )
    promised = [e.segment_id for e in ear.of(SpeechEnded) if e.transcript_follows]
    told = [e.segment_id for e in ear.of(FinalTranscript, TranscriptionFailed)]
    assert told == promised
    if cap_seconds == 30.0 and told and told[-1] == len(ear.of(SpeechEnded)):
        final = [int(word) for word in ear.finals()[-1][1].split()]
        spoken = numbers(pcm, loud_only=True)
        assert final == spoken[-len(final) :]
        missing = len(spoken) - len(final)  # in utterances that were too short, long before
        assert missing == 0 or any(not e.transcript_follows for e in ear.of(SpeechEnded))
