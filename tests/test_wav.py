"""WAV files: what is written is read back, and what cannot be read says why."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listenai.wav import WavError, read_wav, write_wav


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    samples=st.lists(st.integers(-32768, 32767), min_size=1, max_size=50),
    rate=st.sampled_from([8_000, 16_000, 22_050, 48_000]),
)
def test_what_is_written_is_read_back(tmp_path: Path, samples: list[int], rate: int) -> None:
    """Samples and rate survive a round trip."""
    path = tmp_path / "a.wav"
    write_wav(path, struct.pack(f"<{len(samples)}h", *samples), rate)
    recording = read_wav(path)
    assert recording.samples[:, 0].tolist() == samples
    assert recording.sample_rate == rate
    assert recording.seconds == len(samples) / rate


def test_channels_are_kept_apart(tmp_path: Path) -> None:
    """A stereo file gives one column a channel."""
    path = tmp_path / "stereo.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(struct.pack("<6h", 1, -1, 2, -2, 3, -3))
    assert np.array_equal(read_wav(path).samples, [[1, -1], [2, -2], [3, -3]])


def test_a_file_cut_off_gives_the_whole_frames_it_has(tmp_path: Path) -> None:
    """What a recorder that died has left is still readable."""
    path = tmp_path / "cut.wav"
    write_wav(path, struct.pack("<4h", 1, 2, 3, 4), 16_000)
    path.write_bytes(path.read_bytes()[:-3])
    assert read_wav(path).samples[:, 0].tolist() == [1, 2]


def _wav_of_width(path: Path, width: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(16_000)
        file.writeframes(bytes(10 * width))


def test_refusals_name_the_file_and_the_reason(tmp_path: Path) -> None:
    """Every unreadable file is a WavError with a sentence."""
    files = {
        "missing.wav": "No such file",
        "text.wav": "not a 16-bit PCM WAV file",
        "short.wav": "ends within its header",
        "empty.wav": "holds no audio",
        "wide.wav": "24-bit samples, allowed are 16",
        "floats.wav": "unknown format: 3",
        "folder.wav": "Is a directory",
    }
    (tmp_path / "text.wav").write_text("this is a letter, not a sound")
    (tmp_path / "short.wav").write_bytes(b"RIFF")
    write_wav(tmp_path / "empty.wav", b"", 16_000)
    _wav_of_width(tmp_path / "wide.wav", 3)
    (tmp_path / "folder.wav").mkdir()
    floats = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36, b"WAVE", b"fmt ", 16, 3, 1, 1, 4, 4, 32)
    (tmp_path / "floats.wav").write_bytes(floats + struct.pack("<4sI", b"data", 0))
    for name, reason in files.items():
        with pytest.raises(WavError) as caught:
            read_wav(tmp_path / name)
        assert name in str(caught.value)
        assert reason in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Writing where there is no folder says so."""
    with pytest.raises(WavError, match=r"cannot write .*nowhere.*No such file"):
        write_wav(tmp_path / "nowhere" / "a.wav", bytes(2), 16_000)
