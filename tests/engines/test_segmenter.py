"""Segments of speech: a table of the spec's rules, and an independent account of them."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listenai.engines.segmenter import Change, Segmenter

LETTERS = {
    Change.NOTHING: ".",
    Change.STARTED: "S",
    Change.SUSPECTED: "!",
    Change.ENDED: "E",
    Change.STARTED | Change.SUSPECTED: "B",
}


def changes(segmenter: Segmenter, frames: str) -> str:
    """One letter a frame; in `frames` # is speech and - silence."""
    return "".join(LETTERS[segmenter.push(1.0 if frame == "#" else 0.0)] for frame in frames)


@pytest.mark.parametrize(
    ("frames", "expected", "suspicion"),
    [
        ("-----", ".....", (3, 4)),
        ("#----------", "S....E.....", (3, 4)),
        ("####-----", "S.!.....E", (3, 4)),
        ("#-##-----", "S..!....E", (3, 4)),
        ("#--##-----", "S........E", (3, 4)),
        ("##----##----#-----", "S................E", (3, 4)),
        ("##----###-----", "S.......!....E", (3, 4)),
        ("##########-----###-----", "S.!...........ES.!....E", (3, 4)),
        ("##-----##-----", "S.....ES.....E", (3, 10)),
        ("#########-----", "S......!.....E", (8, 10)),
        ("##-###-###-----", "S........!....E", (8, 10)),
        ("#-#-#-#-#-#-----", "S..............E", (8, 10)),
        ("#-----", "B....E", (1, 1)),
    ],
)
def test_frames_make_segments(frames: str, expected: str, suspicion: tuple[int, int]) -> None:
    """Speech starts at once, ends after five silent frames, is suspected once a segment."""
    assert changes(Segmenter(suspicion=suspicion), frames) == expected


def test_the_threshold_itself_is_speech() -> None:
    """A probability equal to the threshold is speech, one below it is not."""
    segmenter = Segmenter(suspicion=(3, 4), threshold=0.5)
    assert segmenter.push(0.4999) is Change.NOTHING
    assert segmenter.push(0.5) is Change.STARTED


def test_state_is_tracked() -> None:
    """`speeching`, the silence counter and the frame counter follow the frames."""
    segmenter = Segmenter(suspicion=(3, 4))
    changes(segmenter, "--##---")
    assert (segmenter.speeching, segmenter.silent_frames, segmenter.frames) == (True, 3, 7)
    changes(segmenter, "--")
    assert (segmenter.speeching, segmenter.silent_frames, segmenter.frames) == (False, 0, 9)


def test_settings_wait_for_the_next_segment() -> None:
    """A segment ends by the settings it began with."""
    segmenter = Segmenter(suspicion=(3, 4))
    segmenter.push(0.6)
    segmenter.configure(threshold=0.9, silence_frames=1)
    assert segmenter.push(0.6) is Change.NOTHING
    assert changes(segmenter, "-----") == "....E"
    assert segmenter.push(0.6) is Change.NOTHING
    assert changes(segmenter, "#-") == "SE"


def test_settings_apply_at_once_in_silence() -> None:
    """Between segments there is nothing to wait for."""
    segmenter = Segmenter(suspicion=(3, 4))
    segmenter.configure(threshold=0.2, silence_frames=2)
    assert segmenter.push(0.3) is Change.STARTED
    assert changes(segmenter, "--") == ".E"


def test_a_segment_can_be_ended_from_outside() -> None:
    """After `end` the next speech frame starts a segment with a suspicion of its own."""
    segmenter = Segmenter(suspicion=(3, 4))
    assert changes(segmenter, "####") == "S.!."
    segmenter.end()
    assert not segmenter.speeching
    assert changes(segmenter, "####") == "S.!."


@pytest.mark.parametrize("suspicion", [(0, 4), (5, 4), (-1, 0)])
def test_an_unreachable_suspicion_is_refused(suspicion: tuple[int, int]) -> None:
    """The message says what is allowed."""
    with pytest.raises(ValueError, match="1 <= needed <= window"):
        Segmenter(suspicion=suspicion)


@pytest.mark.parametrize(
    ("threshold", "silence_frames", "message"),
    [
        (-0.1, 5, "allowed is 0 to 1"),
        (1.1, 5, "allowed is 0 to 1"),
        (float("nan"), 5, "allowed is 0 to 1"),
        (0.5, 0, "allowed is 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    threshold: float, silence_frames: int, message: str
) -> None:
    """Refused settings change nothing."""
    segmenter = Segmenter(suspicion=(3, 4))
    with pytest.raises(ValueError, match=message):
        segmenter.configure(threshold=threshold, silence_frames=silence_frames)
    assert changes(segmenter, "#-----") == "S....E"


@given(
    frames=st.text(alphabet="#-", max_size=120),
    silence_frames=st.integers(1, 8),
    window=st.integers(1, 12),
    data=st.data(),
)
def test_segments_are_what_the_rules_say(
    frames: str, silence_frames: int, window: int, data: st.DataObject
) -> None:
    """An account by whole strings, without running state, gives the same changes."""
    needed = data.draw(st.integers(1, window))
    segmenter = Segmenter(suspicion=(needed, window), silence_frames=silence_frames)
    heard = changes(segmenter, frames)

    expected = ["."] * len(frames)
    at = 0
    while (start := frames.find("#", at)) >= 0:
        silence = frames.find("-" * silence_frames, start)
        over = silence >= 0
        end = silence + silence_frames - 1 if over else len(frames)
        suspected = [
            here
            for here in range(start, end)
            if frames[max(start, here + 1 - window) : here + 1].count("#") >= needed
        ]
        expected[start] = "S"
        if suspected:
            expected[suspected[0]] = "B" if suspected[0] == start else "!"
        if over:
            expected[end] = "E"
        at = end + 1
    assert heard == "".join(expected)


def test_a_frame_costs_microseconds() -> None:
    """Far less than the detector (60 µs); the bound leaves room for a busy machine."""
    segmenter = Segmenter(suspicion=(8, 10))
    probabilities = [0.9, 0.1, 0.8, 0.2] * 250

    def run() -> None:
        for probability in probabilities:
            segmenter.push(probability)

    best = min(timeit.repeat(run, number=1, repeat=5)) / len(probabilities)
    assert best < 10e-6, f"{best * 1e6:.2f} µs a frame"
