"""Opus packets there and back through the real libopus."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.audio import dbfs
from listenai.codecs.opus import (
    ENCODER_RATES,
    FRAMES_MS,
    OpusDecoder,
    OpusEncoder,
    load_library,
)
from listenai.errors import EngineError

pytestmark = pytest.mark.engines


def tone(seconds: float, rate: int = 16_000) -> bytes:
    phase = np.arange(round(seconds * rate)) * (2 * np.pi * 440 / rate)
    return (np.sin(phase) * 8_000).astype("<i2").tobytes()


def pitch(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2")
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


@pytest.mark.parametrize("rate", ENCODER_RATES)
@pytest.mark.parametrize("frame_ms", FRAMES_MS)
def test_a_tone_comes_back(rate: int, frame_ms: int) -> None:
    """At 16 kHz, whatever it was: as long as before and to the end of a frame, and as loud."""
    encoder, decoder = OpusEncoder(rate, frame_ms), OpusDecoder()
    packets = encoder.push(tone(0.99, rate)) + encoder.flush()
    pcm = b"".join(map(decoder.push, packets))
    assert len(packets) == -(-990 // frame_ms)
    assert len(pcm) == len(packets) * frame_ms * 32
    assert sum(map(len, packets)) < len(pcm) / 3
    middle = pcm[9_600:-6_400]
    assert pitch(middle) == pytest.approx(440, abs=2)
    assert dbfs(middle) == pytest.approx(dbfs(tone(1)), abs=2)


@settings(max_examples=20, deadline=None)
@given(piece=st.integers(1, 4_000))
def test_pieces_do_not_matter(piece: int) -> None:
    """Odd ones too."""
    pcm = tone(0.2)
    once, again = OpusEncoder(), OpusEncoder()
    pieces = [pcm[at : at + piece] for at in range(0, len(pcm), piece)]
    assert [packet for each in pieces for packet in again.push(each)] == once.push(pcm)
    assert again.flush() == once.flush() == []


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_do_no_harm(data: bytes) -> None:
    """They are sound of at most 120 ms, or refused; the next packet is decoded."""
    decoder = OpusDecoder()
    try:
        assert len(decoder.push(data)) <= 3_840
    except ValueError as error:
        assert "no Opus packet" in str(error)  # noqa: PT017 -- some random bytes are one
    assert len(decoder.push(OpusEncoder().push(tone(0.02))[0])) == 640


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "an empty message"), (b"\x03", "1 bytes are no Opus packet")]
)
def test_what_is_no_packet_is_refused(data: bytes, words: str) -> None:
    """Nothing is made up in its place."""
    with pytest.raises(ValueError, match=words):
        OpusDecoder().push(data)


@pytest.mark.parametrize(("rate", "frame_ms"), [(22_050, 20), (16_000, 30), (16_000, 0)])
def test_settings_that_opus_lacks_are_refused(rate: int, frame_ms: int) -> None:
    """With those that it has."""
    with pytest.raises(ValueError, match="allowed are 5, 10, 20, 40, 60 ms at 8000, 12000"):
        OpusEncoder(rate, frame_ms)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The library is imported anew, in the test and after it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opuslib_next"]:
        monkeypatch.delitem(sys.modules, name)
    load_library.cache_clear()
    yield monkeypatch
    load_library.cache_clear()


def test_a_missing_package_says_what_to_install(forgotten: pytest.MonkeyPatch) -> None:
    """None in `sys.modules` is how Python says: not installed."""
    forgotten.setitem(sys.modules, "opuslib_next", None)
    with pytest.raises(EngineError, match=r"pip install 'listenai\[opus\]'"):
        OpusDecoder()


def test_a_missing_library_says_what_to_install(
    forgotten: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package that fails like the real one where there is no libopus."""
    (tmp_path / "opuslib_next.py").write_text('raise Exception("Could not find Opus library.")')
    forgotten.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match="apt-get install libopus0; macOS: brew install opus"):
        OpusEncoder()
