"""PCM: frames of any messages, levels, gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.audio import FRAME_BYTES, SILENCE_DBFS, Framer, dbfs, scaled, seconds


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


@given(messages=st.lists(st.binary(max_size=1500), max_size=12))
@settings(max_examples=100, deadline=None)
def test_frames_are_whole_and_nothing_is_lost(messages: list[bytes]):
    """Messages of any size, odd ones too: joined, the frames are what came, but for the rest."""
    framer = Framer()
    frames = [frame for message in messages for frame in framer.push(message)]
    audio = b"".join(messages)
    assert all(len(frame) == FRAME_BYTES for frame in frames)
    assert b"".join(frames) == audio[: len(audio) - len(audio) % FRAME_BYTES]


def test_a_frame_is_given_at_once():
    """As soon as its last byte is there."""
    framer = Framer()
    assert list(framer.push(bytes(FRAME_BYTES))) == [bytes(FRAME_BYTES)]
    assert list(framer.push(bytes(FRAME_BYTES - 1))) == []
    assert len(list(framer.push(b"x"))) == 1


def test_a_message_of_one_frame_waits_its_turn():
    """What came before it is given before it."""
    framer = Framer()
    list(framer.push(b"x" * 100))
    assert list(framer.push(b"y" * FRAME_BYTES)) == [b"x" * 100 + b"y" * (FRAME_BYTES - 100)]


def test_reset_forgets_the_rest():
    """What follows is a new beginning."""
    framer = Framer()
    list(framer.push(b"x" * 100))
    framer.reset()
    assert list(framer.push(b"y" * FRAME_BYTES)) == [b"y" * FRAME_BYTES]


@pytest.mark.parametrize(
    ("audio", "level"),
    [
        (b"", SILENCE_DBFS),
        (bytes(512), SILENCE_DBFS),
        (pcm(-32768, -32768), 0.0),
        (pcm(16384, -16384), -6.02),
        (pcm(1, 0, 0, 0), -96.33),
    ],
)
def test_levels(audio: bytes, level: float):
    """RMS below full scale; silence has a number too."""
    assert dbfs(audio) == pytest.approx(level, abs=0.01)


@given(st.lists(st.integers(-32768, 32767), max_size=300))
@settings(max_examples=50, deadline=None)
def test_levels_are_finite(samples: list[int]):
    """Between silence and full scale, whatever is heard."""
    assert SILENCE_DBFS <= dbfs(pcm(*samples)) <= 0.0


def test_seconds():
    """Of the device's rate, or another."""
    assert seconds(bytes(512)) == 0.016
    assert seconds(bytes(480), 24_000) == 0.01


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (100, (1000, -1000, 32767)),
        (50, (500, -500, 16383)),
        (0, (0, 0, 0)),
        (200, (2000, -2000, 32767)),  # clipped, not wrapped
    ],
)
def test_gain(percent: int, expected: tuple[int, ...]):
    """A share of the amplitude."""
    assert scaled(pcm(1000, -1000, 32767), percent) == pcm(*expected)
