"""Whatever a device sends becomes 16 kHz PCM."""

from __future__ import annotations

import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.audio import Encoding
from listenai.codecs.decoding import MOST_SECONDS, make_decoder
from listenai.codecs.opus import OpusEncoder
from listenai.codecs.resampling import StreamResampler

pytestmark = pytest.mark.engines

RECORDINGS = Path(__file__).parent / "recordings"
WRITERS = ("chromium", "firefox", "ffmpeg")


@pytest.fixture(scope="module")
def spoken() -> bytes:
    """What was recorded: PCM of 16 kHz."""
    with wave.open(str(RECORDINGS.parents[1] / "data" / "no.wav")) as file:
        return file.readframes(file.getnframes())


def recording(writer: str) -> bytes:
    return (RECORDINGS / f"{writer}.webm").read_bytes()


def decoded(data: bytes, piece: int = 10**9, encoding: Encoding = Encoding.WEBM_OPUS) -> bytes:
    decoder = make_decoder(encoding, 48_000)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    return b"".join(map(decoder.push, pieces))


def likeness(pcm: bytes, spoken: bytes) -> tuple[float, float]:
    """How alike two sounds are, 0 to 1, and how much later the first is, in ms."""
    heard, said = (np.frombuffer(each, "<i2").astype(float) for each in (pcm, spoken))
    size = 1 << 17
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(said, size).conj())
    late = int(match.argmax())
    late -= size * (late > size // 2)
    return float(match.max() / np.sqrt((heard**2).sum() * (said**2).sum())), late / 16


# How alike, and how late the sound is.  FFmpeg's pre-skip is taken away; Chromium says that it
# has none, and began 3 ms before the sound; FFmpeg had 32 kbit/s for stereo, a third of theirs.
@pytest.mark.parametrize(
    ("writer", "least", "late_ms"),
    [("chromium", 0.99, 9.2), ("firefox", 0.99, 0), ("ffmpeg", 0.89, 0)],
)
def test_recordings_sound_like_what_was_recorded(
    writer: str, least: float, late_ms: float, spoken: bytes
) -> None:
    """Of browsers, and of FFmpeg in stereo."""
    alike, late = likeness(decoded(recording(writer)), spoken)
    assert alike > least
    assert late == pytest.approx(late_ms, abs=0.5)


@settings(max_examples=25, deadline=None)
@given(writer=st.sampled_from(WRITERS), piece=st.integers(1, 15_000))
def test_pieces_do_not_matter(writer: str, piece: int) -> None:
    """The same PCM, to the byte."""
    assert decoded(recording(writer), piece) == decoded(recording(writer))


def test_one_recording_after_the_other() -> None:
    """Each begins with a decoder of its own, so that nothing of the last is heard in it."""
    first, second = recording("firefox"), recording("ffmpeg")
    assert decoded(first + second, 1_000) == decoded(first) + decoded(second)


def test_opus_packets_are_decoded_one_a_message(spoken: bytes) -> None:
    """Bad ones are lost alone."""
    decoder = make_decoder(Encoding.OPUS, 48_000)
    packets = OpusEncoder().push(spoken)
    pcm = b""
    for packet in packets:
        pcm += decoder.push(packet)
        with pytest.raises(ValueError, match="no Opus packet"):
            decoder.push(b"\x03")
    alike, late = likeness(pcm, spoken)
    assert alike > 0.89
    assert late == pytest.approx(6.5, abs=0.5)
    assert len(pcm) == len(packets) * 640


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("piece", [1, 777, 3_200])
def test_pcm_is_resampled_in_any_pieces(rate: int, piece: int, spoken: bytes) -> None:
    """Odd ones too: half a sample waits for the other half."""
    resampler = StreamResampler(16_000, rate)
    sent = resampler.push(spoken) + resampler.flush()
    decoder = make_decoder(Encoding.PCM, rate)
    pushed = [decoder.push(sent[at : at + piece]) for at in range(0, len(sent), piece)]
    assert all(len(each) % 2 == 0 for each in pushed)
    pcm = b"".join(pushed)
    alike, late = likeness(pcm, spoken)
    assert alike > 0.97
    assert late == pytest.approx(0, abs=0.5)
    assert len(spoken) - len(pcm) < 0.062 * 32_000  # what the resampler keeps back


def test_a_rate_that_no_microphone_has_is_refused() -> None:
    """With the rates that are allowed."""
    for rate in (0, 7_999, 48_001):
        with pytest.raises(ValueError, match=f"{rate} Hz is not allowed; allowed is 8000 to 48000"):
            make_decoder(Encoding.PCM, rate)


def test_a_bad_packet_in_a_recording_costs_its_message() -> None:
    """The next one is heard."""
    data = recording("firefox")
    broken = bytearray(data)
    at = data.index(b"\xa3", 5_000)
    assert data[at + 5] == 0x82  # the block's track; three bytes on, the packet begins
    broken[at + 9 : at + 11] = b"\xff\x3f"  # says that it holds 63 frames of 20 ms
    decoder = make_decoder(Encoding.WEBM_OPUS, 0)
    before = decoder.push(bytes(broken[:at]))
    with pytest.raises(ValueError, match="no Opus packet"):
        decoder.push(bytes(broken[at : at + 1_000]))
    after = decoder.push(bytes(broken[at + 1_000 :]))
    assert len(before) + len(after) > 0.8 * len(decoded(data))


def test_hours_in_a_message_are_refused() -> None:
    """Packets of one byte hold 60 ms each; what was decoded is dropped, and the next is heard."""
    begin = recording("ffmpeg")
    flood = b"\xa3\x85\x81\0\0\x80\x18" * (MOST_SECONDS * 1_000 // 60 + 1)
    decoder = make_decoder(Encoding.WEBM_OPUS, 0)
    decoder.push(begin)
    with pytest.raises(ValueError, match=f"more than {MOST_SECONDS} s of sound"):
        decoder.push(flood)
    assert len(decoder.push(flood[:700])) == 100 * 60 * 32
    assert decoder.push(begin) == decoded(begin)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3_000), pieces=st.lists(st.binary(max_size=100), max_size=6))
def test_random_bytes_do_no_harm(at: int, pieces: list[bytes]) -> None:
    """Nothing but ValueError, and a new recording is heard."""
    good = recording("ffmpeg")
    decoder = make_decoder(Encoding.WEBM_OPUS, 0)
    decoder.push(good[:at])
    for piece in pieces:
        try:
            decoder.push(piece)
        except ValueError:
            continue
    assert decoder.push(good) == decoded(good)


def test_a_message_costs_a_fraction_of_a_millisecond(
    record_property: Callable[[str, object], None],
) -> None:
    """A browser's 100 ms stay under 1 ms in the median (measured: 0.2 ms)."""
    durations = []
    for _ in range(5):
        decoder = make_decoder(Encoding.WEBM_OPUS, 0)
        data = recording("firefox")
        for at in range(0, len(data), 1_650):
            began = time.perf_counter()
            decoder.push(data[at : at + 1_650])
            durations.append(time.perf_counter() - began)
    median = sorted(durations)[len(durations) // 2]
    record_property("median_us", round(median * 1e6))
    assert median < 1e-3, f"{median * 1e6:.0f} µs a message"
