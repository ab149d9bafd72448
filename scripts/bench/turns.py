"""What the diaries of devices say about a server: its overhead, its pauses, its failures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

import attrs
from load import AUDIO, Diary
from speech import Segment

from listenai.engines import timed

# What the timed engines take between the end of a segment and the first audio.  The sentence
# ends with the last token, so nothing of it overlaps.
INJECTED_SECONDS = (
    timed.TRANSCRIPT_SECONDS
    + timed.FIRST_TOKEN_SECONDS
    + timed.TOKEN_SECONDS * (len(timed.REPLY_TOKENS) - 1)
    + timed.FIRST_CHUNK_SECONDS
)
EARLIEST_SECONDS = -0.02  # audio so much before the delays allow is the previous reply's
SPEAKING_SECONDS = 0.3  # audio within this before a decision: the reply was being spoken


@attrs.frozen
class Overheads:
    """Per turn: first audio, after the decision and the injected delays."""

    milliseconds: list[float]
    missed: int  # turns without an answer in time


@attrs.frozen
class Interruptions:
    """Per barge-in: how soon the device was told, and whether the server then kept quiet."""

    pause_ms: list[float]  # from the message that completes the suspicion to `pause`
    flush_ms: list[float]  # from the message that ends the segment, and the ASR delay, to `flush`
    missed: int  # no `pause`, or no `flush`, before the next sentence
    silent: int  # the reply was not being spoken; nothing to interrupt
    stale_audio: int  # audio messages between `pause` and the next reply: must be 0


def overheads(diaries: Sequence[Diary], segments: Sequence[Segment], *, skip: int = 1) -> Overheads:
    """What the server adds to the decision and the delays, for all turns but the first `skip`."""
    found, missed = [], 0
    for diary in diaries:
        for segment, following in _pairs(diary, segments, skip):
            sent, too_late = diary.sent[segment.ended], diary.sent[following.ended]
            first = _first_after(diary.heard[AUDIO], sent)
            overhead = first - sent - INJECTED_SECONDS
            if first >= too_late or overhead < EARLIEST_SECONDS:
                missed += 1
            else:
                found.append(overhead * 1e3)
    return Overheads(found, missed)


def interruptions(
    diaries: Sequence[Diary], segments: Sequence[Segment], *, skip: int = 2
) -> Interruptions:
    """How fast speech over a reply stops it, for all sentences but the first `skip`."""
    pauses, flushes = [], []
    missed = silent = stale = 0
    for diary in diaries:
        audio = diary.heard[AUDIO]
        for segment, following in _pairs(diary, segments, skip):
            suspected, ended = diary.sent[segment.suspected], diary.sent[segment.ended]
            heard_last = audio[bisect_right(audio, suspected) - 1 :][:1]
            if not heard_last or not suspected - SPEAKING_SECONDS < heard_last[0] <= suspected:
                silent += 1
                continue
            pause = _first_after(diary.heard["pause"], suspected)
            transcribed = ended + timed.TRANSCRIPT_SECONDS
            flush = _first_after(diary.heard["flush"], suspected)
            if max(pause, flush) >= diary.sent[following.suspected]:
                missed += 1
                continue
            pauses.append((pause - suspected) * 1e3)
            flushes.append((flush - transcribed) * 1e3)
            next_reply = ended + INJECTED_SECONDS + EARLIEST_SECONDS
            stale += bisect_right(audio, next_reply) - bisect_right(audio, pause)
    return Interruptions(pauses, flushes, missed, silent, stale)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value that so many percent do not exceed (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _pairs(
    diary: Diary, segments: Sequence[Segment], skip: int
) -> Iterator[tuple[Segment, Segment]]:
    """Each segment with the one after it; the run may have cut off the last one's answer."""
    sent = [s for s in segments if s.suspected in diary.sent and s.ended in diary.sent]
    yield from pairwise(sent[skip:])


def _first_after(times: Sequence[float], moment: float) -> float:
    """The first of the ascending times after the moment; infinity when there is none."""
    at = bisect_right(times, moment)
    return times[at] if at < len(times) else float("inf")
