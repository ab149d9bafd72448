"""The scripted device's loudspeaker: plays in real time, loses nothing, tells the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.audio import SAMPLE_BYTES
from listenai.client.speaker import Law, PlaybackReport, Span, Speaker, loudness, timeline

RATE = 1_000  # one sample a millisecond: times can be read as samples


def pcm(samples: int, first: int = 0) -> bytes:
    """Samples that count up, so that order and loss show."""
    return (np.arange(first, first + samples) % 30_000).astype(np.int16).tobytes()


def playing(samples: int = 100) -> Speaker:
    """A speaker whose stream 1 began to play at time 10."""
    speaker = Speaker()
    speaker.start(1, RATE, 10.0)
    speaker.receive(pcm(samples), 10.0)
    return speaker


def laws(speaker: Speaker) -> list[Law]:
    return [violation.law for violation in speaker.violations]


# --- playing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "played"), [(10.0, 0), (10.0005, 0), (10.001, 1), (10.0505, 50), (10.1, 100), (99, 100)]
)
def test_it_plays_in_real_time(now: float, played: int) -> None:
    """At any time exactly the samples that are due have been played."""
    speaker = playing()
    speaker.advance(now)
    assert speaker.streams[1].played == played
    assert speaker.queued(1) == 100 - played


def test_a_late_message_leaves_a_gap() -> None:
    """Having run dry it goes on when audio comes, in a new span; the gap is counted."""
    speaker = playing(100)
    speaker.receive(pcm(50, 100), 10.3)
    speaker.advance(10.4)
    first, second = speaker.spans
    assert (first.started_at, first.ended_at) == (10.0, pytest.approx(10.1))
    assert (second.started_at, second.ended_at) == (10.3, pytest.approx(10.35))
    assert speaker.streams[1].gaps == 1


def test_messages_in_time_leave_no_gap() -> None:
    """Chunks that overlap in time are one span."""
    speaker = playing(100)
    speaker.receive(pcm(100, 100), 10.05)
    speaker.advance(10.3)
    (span,) = speaker.spans
    assert bytes(span.pcm) == pcm(200)
    assert speaker.streams[1].gaps == 0


def test_the_next_stream_follows_at_its_own_rate() -> None:
    """A stream that waits behind another begins to the sample where that one ends."""
    speaker = playing(100)
    speaker.end(1, 100, 10.01)
    speaker.start(2, 2 * RATE, 10.02)
    speaker.receive(pcm(100), 10.02)
    speaker.advance(10.125)
    assert speaker.streams[2].played == 50
    assert [span.started_at for span in speaker.spans] == pytest.approx([10.0, 10.1])


def test_a_sink_gets_the_sound_instead_of_the_log() -> None:
    """With a sink everything played goes there and no span is kept."""
    heard: list[tuple[bytes, int]] = []
    speaker = Speaker(lambda sound, rate: heard.append((sound, rate)))
    speaker.start(1, RATE, 0.0)
    speaker.receive(pcm(10), 0.0)
    speaker.advance(0.004)
    speaker.advance(1.0)
    assert heard == [(pcm(4), RATE), (pcm(6, 4), RATE)]
    assert speaker.spans == []


# --- pause, resume, flush ----------------------------------------------------------------


def test_pause_stops_at_once_and_resume_goes_on_to_the_sample() -> None:
    """Nothing is lost or repeated, and the clock moves by the pause."""
    speaker = playing(100)
    speaker.pause(1, 10.040)
    speaker.advance(10.9)
    assert speaker.streams[1].played == 40
    assert not speaker.idle
    speaker.resume(1, 11.040)
    speaker.advance(12.0)
    first, second = speaker.spans
    assert (second.started_at, second.ended_at) == pytest.approx((11.04, 11.1))
    assert bytes(first.pcm + second.pcm) == pcm(100)
    assert speaker.violations == []


def test_flush_forgets_and_reports_what_was_played() -> None:
    """A flush is answered at once, with the samples that were really heard."""
    speaker = playing(100)
    speaker.pause(1, 10.030)
    speaker.flush(1, 10.5)
    stream = speaker.streams[1]
    assert (stream.played, stream.discarded, speaker.idle) == (30, 70, True)
    assert speaker.take_reports()[-1] == PlaybackReport(1, 30)
    assert not speaker.paused


def test_flush_of_a_playing_stream_leaves_the_next_one() -> None:
    """What is queued of another stream begins at once, with all its samples."""
    speaker = playing(100)
    speaker.start(2, 2 * RATE, 10.02)
    speaker.receive(pcm(100), 10.02)
    speaker.flush(1, 10.04)
    speaker.advance(10.05)
    assert (speaker.streams[1].played, speaker.streams[1].discarded) == (40, 60)
    assert (speaker.streams[2].played, speaker.queued(2)) == (20, 80)
    assert speaker.spans[1].started_at == 10.04


def test_a_start_ends_a_pause() -> None:
    """PROTOCOLS: no binary between pause and the next resume or start."""
    speaker = playing(100)
    speaker.pause(1, 10.01)
    speaker.flush(1, 10.02)
    speaker.start(2, RATE, 10.03)
    speaker.receive(pcm(10), 10.03)
    speaker.advance(11)
    assert speaker.streams[2].played == 10
    assert speaker.violations == []


# --- laws --------------------------------------------------------------------------------


def test_audio_in_a_pause_is_a_violation_and_kept() -> None:
    """The law is broken, but no sound is lost."""
    speaker = playing(10)
    speaker.pause(1, 10.5)
    speaker.receive(pcm(10, 10), 10.6)
    assert laws(speaker) == [Law.PAUSED]
    speaker.resume(1, 11.0)
    speaker.advance(12.0)
    assert speaker.streams[1].played == 20
    assert speaker.spans[1].started_at == 11.0


def test_audio_after_flush_is_stale() -> None:
    """It is dropped and counted until the next stream starts."""
    speaker = playing(10)
    speaker.flush(1, 10.0)
    speaker.receive(pcm(7), 10.1)
    assert (laws(speaker), speaker.stale_samples, speaker.idle) == ([Law.FLUSHED], 7, True)
    speaker.start(2, RATE, 10.2)
    speaker.receive(pcm(5), 10.2)
    assert (speaker.queued(2), speaker.stale_samples) == (5, 7)


def test_audio_of_no_stream_in_a_pause_breaks_the_law_of_pauses() -> None:
    """The stream had ended, its end still waits to be heard: nothing may come."""
    speaker = playing(100)
    speaker.end(1, 100, 10.0)
    speaker.pause(1, 10.01)
    speaker.receive(pcm(5), 10.02)
    assert (laws(speaker), speaker.stale_samples) == ([Law.PAUSED], 5)


def test_audio_outside_of_a_stream_is_a_violation() -> None:
    """Before the first start, and after an end."""
    speaker = Speaker()
    speaker.receive(pcm(1), 0.0)
    speaker.start(1, RATE, 0.0)
    speaker.receive(pcm(1), 0.0)
    speaker.end(1, 1, 0.0)
    speaker.receive(pcm(1), 0.0)
    assert laws(speaker) == [Law.UNOPENED, Law.UNOPENED]
    assert speaker.stale_samples == 2


def test_a_miscounted_end_an_odd_byte_and_an_unknown_stream_are_violations() -> None:
    """What would make devices lose count is told."""
    speaker = playing(10)
    speaker.receive(b"\1\2\3", 10.0)
    speaker.end(1, 10, 10.0)
    speaker.pause(9, 10.0)
    assert laws(speaker) == [Law.WHOLE_SAMPLES, Law.COUNTED, Law.KNOWN_STREAM]
    assert not speaker.paused


# --- reports -----------------------------------------------------------------------------


def test_reports_come_while_playing_and_at_the_end() -> None:
    """Every 250 ms, and once more when the stream has been played out; each once."""
    speaker = playing(600)
    speaker.end(1, 600, 10.0)
    reports = []
    for tick in range(100):
        speaker.advance(10 + tick * 0.01)
        reports += speaker.take_reports()
    # The first report follows the first sound, so that a server knows that it plays.
    assert [report.played_samples for report in reports] == [10, 260, 510, 600]


# --- properties --------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 400)),
        st.tuples(st.just("audio"), st.integers(0, 300)),
        st.tuples(st.sampled_from(["pause", "resume", "flush", "start", "end"]), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(STEPS)
def test_conservation_and_truth(steps: list[tuple[str, int]]) -> None:
    """Whatever happens: played + queued + discarded = received, and reports are what was heard."""
    speaker = Speaker()
    now, given_samples = 0.0, 0
    for step, number in steps:
        match step:
            case "wait":
                now += number / 1000
                speaker.advance(now)
            case "audio":
                given_samples += number
                speaker.receive(pcm(number), now)
            case "start" if number not in speaker.streams:
                speaker.start(number, RATE * number, now)
            case "end":
                speaker.end(number, 0, now)
            case "pause" | "resume" | "flush":
                getattr(speaker, step)(number, now)
        for report in speaker.take_reports():
            heard = speaker.heard({report.stream_id})
            assert report.played_samples * SAMPLE_BYTES == sum(len(span.pcm) for span in heard)
    for stream in speaker.streams.values():
        assert stream.played + speaker.queued(stream.id) + stream.discarded == stream.received
    total = sum(stream.received for stream in speaker.streams.values())
    assert total + speaker.stale_samples == given_samples
    ends = [(span.started_at, span.ended_at) for span in speaker.spans]
    assert all(end <= begin + 1e-3 for (_, end), (begin, _) in itertools.pairwise(ends))
    assert all(end <= now + 1e-6 for _, end in ends)


CHUNKS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=10)


@given(chunks=CHUNKS, at=st.integers(0, 1000), pause=st.integers(0, 5000))
def test_a_pause_moves_time(chunks: list[tuple[int, int]], at: int, pause: int) -> None:
    """With a pause the same is heard, its part after the pause later by exactly the pause."""

    def heard(pause_ms: int) -> list[tuple[int, int]]:
        """(ms at which it was heard, its value) of every sample, without the pause."""
        speaker = Speaker()
        speaker.start(1, RATE, 0.0)
        arrivals, now = [], 0
        for wait, size in chunks:
            now += wait
            arrivals.append((now if now < at else now + pause_ms, size))
        paused = not pause_ms
        total = 0
        for when, size in [*arrivals, (100_000, 0)]:
            if not paused and when >= at:
                speaker.pause(1, at / 1000)
                speaker.resume(1, (at + pause_ms) / 1000)
                paused = True
            speaker.receive(pcm(size, total), when / 1000)
            total += size
        found = []
        for span in speaker.spans:
            begin = round(span.started_at * RATE)
            values = np.frombuffer(bytes(span.pcm), np.int16).tolist()
            times = range(begin, begin + len(values))
            found += [
                (t if t < at else t - pause_ms, value)
                for t, value in zip(times, values, strict=True)
            ]
        return found

    assert heard(pause) == heard(0)


@given(CHUNKS)
def test_in_the_end_everything_has_been_played_in_order(chunks: list[tuple[int, int]]) -> None:
    """Left alone, all that came is heard, in order, and the last report says so."""
    speaker = Speaker()
    speaker.start(1, RATE, 0.0)
    now, total = 0.0, 0
    for wait, size in chunks:
        now += wait / 1000
        speaker.receive(pcm(size, total), now)
        total += size
    speaker.end(1, total, now)
    speaker.advance(now + 10)
    assert b"".join(span.pcm for span in speaker.spans) == pcm(total)
    assert speaker.take_reports()[-1] == PlaybackReport(1, total)


# --- recordings --------------------------------------------------------------------------


def test_the_timeline_keeps_silence_and_brings_rates_together() -> None:
    """It begins with the first sound; what lies between spans is silence."""
    loud = np.full(100, 1_000, np.int16).tobytes()
    spans = [Span(6.0, 2, 2 * RATE, bytearray(2 * loud)), Span(5.0, 1, RATE, bytearray(loud))]
    room = np.frombuffer(timeline(spans, RATE), np.int16)
    assert abs(len(room) - 1_100) <= 1
    assert room[:100].tolist() == [1_000] * 100
    assert not room[100:1_000].any()
    assert room[1_020:1_080].mean() == pytest.approx(1_000, rel=0.05)
    assert timeline([], RATE) == b""


def test_loudness_is_measured_in_windows() -> None:
    """Windows of 20 ms, the last one perhaps shorter, against −40 dBFS."""
    quiet, loud = np.full(30, 300, np.int16), np.full(20, 400, np.int16)  # −40.8 and −38.3 dBFS
    window, found = loudness(np.concatenate([quiet[:20], loud, quiet[:10]]).tobytes(), RATE)
    assert (window, found.tolist()) == (20, [False, True, False])
    assert not len(loudness(b"", RATE)[1])


def test_the_first_sound_is_the_first_loud_window() -> None:
    """Leading silence of a reply is not a sound."""
    speaker = Speaker()
    speaker.start(1, RATE, 5.0)
    sound = np.concatenate([np.zeros(60, np.int16), np.full(60, 5_000, np.int16)])
    speaker.receive(sound.tobytes(), 5.0)
    speaker.advance(5.05)
    assert speaker.first_sound_at({1}) is None
    speaker.advance(5.2)
    assert speaker.first_sound_at({1}) == pytest.approx(5.06)
    assert speaker.first_sound_at({2}) is None
