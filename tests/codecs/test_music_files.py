"""Music files of every format, whole and broken, and the tune where there are none."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from listenai.audio import dbfs
from listenai.codecs.music_files import LONGEST_TEXT, MusicLibrary
from listenai.codecs.resampling import StreamResampler
from listenai.codecs.tune import compose
from listenai.music import MusicError, Track, TrackReader

RATE = 44_100
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def tone(seconds: float = 2.5, *, left: float = 0.3, right: float = 0.3) -> np.ndarray:
    wave = np.sin(np.arange(round(seconds * RATE)) * (2 * np.pi * 440 / RATE))
    return np.stack((left * wave, right * wave), axis=1)


def write(path: Path, samples: np.ndarray, **tags: str) -> Path:
    """A music file; its format by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    kind = FORMATS[path.suffix.lower()]
    with soundfile.SoundFile(path, "w", RATE, channels, format=kind) as file:
        for tag, text in tags.items():
            setattr(file, tag, text)
        file.write(samples)
    return path


def library_of(directory: Path | None) -> MusicLibrary:
    library = MusicLibrary(directory, StreamResampler)
    library.scan()
    return library


def pieces(reader: TrackReader) -> list[bytes]:
    """All that is read, up to and without the end."""
    read = []
    while pcm := reader.read():
        read.append(pcm)
    assert reader.read() == b""
    reader.close()
    return read


def samples_of(audio: bytes) -> np.ndarray:
    return np.frombuffer(audio, "<i2") / 32768


def pitch(audio: bytes, rate: int) -> float:
    samples = samples_of(audio)
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read(tmp_path: Path, suffix: str, rate: int):
    """As mono PCM of the wanted rate, about a second at a time: its length, level and pitch."""
    write(tmp_path / f"song{suffix}", tone())
    library = library_of(tmp_path)
    read = pieces(library.open(library.tracks[0], rate))
    audio = b"".join(read)
    slack = 0.1 if suffix == ".mp3" else 0.0002  # MP3 adds its own frames
    assert len(audio) / 2 / rate == pytest.approx(2.5, abs=slack)
    assert max(map(len, read)) <= 2 * rate * 1.1
    assert pitch(audio, rate) == pytest.approx(440, abs=1)
    assert dbfs(audio) == pytest.approx(20 * np.log10(0.3) - 3.01, abs=0.6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_tags_are_read(tmp_path: Path, suffix: str):
    """Title, artist and genre."""
    path = tmp_path / "Moods" / f"01{suffix}"
    write(path, tone(0.2), title="Blue  Café\n", artist="The Fakes", genre="Jazz")
    assert library_of(tmp_path).tracks == (
        Track("Blue Café", "The Fakes", "Jazz", f"Moods/01{suffix}"),
    )


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("01 - Blue_Moon.wav", "Blue Moon"),
        ("07.Night.wav", "Night"),
        ("99 Balloons.wav", "99 Balloons"),
        ("1999.wav", "1999"),
        ("___.wav", "___.wav"),
        ("月亮.wav", "月亮"),
    ],
)
def test_a_file_without_tags_is_called_by_its_name(tmp_path: Path, file: str, title: str):
    """Without the number of the track, if that leaves something."""
    write(tmp_path / file, tone(0.1))
    assert [track.title for track in library_of(tmp_path).tracks] == [title]


def test_a_tag_has_a_bound(tmp_path: Path):
    """Titles go to the chat model."""
    write(tmp_path / "a.flac", tone(0.1), title="x" * 5000)
    assert len(library_of(tmp_path).tracks[0].title) == LONGEST_TEXT


def test_files_are_found_in_order(tmp_path: Path):
    """In subfolders too, whatever the case; hidden and other files are none."""
    names = ["b.wav", "A.wav", "disc/2.WAV", "disc/1.wav", ".hidden/x.wav", "._c.wav"]
    for name in names:
        write(tmp_path / name, tone(0.1))
    (tmp_path / "cover.jpg").write_bytes(b"no music")
    os.mkfifo(tmp_path / "pipe.mp3")  # opening it would wait for ever
    found = [track.name for track in library_of(tmp_path).tracks]
    assert found == ["A.wav", "b.wav", "disc/1.wav", "disc/2.WAV"]


def test_a_name_that_is_no_text_can_be_played(tmp_path: Path):
    """File names are bytes; the title is text that can be sent."""
    path = write(tmp_path / "a.wav", tone(0.2))
    path.rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")))
    library = library_of(tmp_path)
    assert library.tracks[0].title == "caf?"
    assert pieces(library.open(library.tracks[0], RATE))


def test_what_cannot_be_read_is_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Counted, with names and reasons, and without paths; the rest can be played."""
    write(tmp_path / "good.wav", tone(0.1))
    write(tmp_path / "silent.wav", tone(0))
    write(tmp_path / "crowd.wav", np.zeros((100, 9)))
    (tmp_path / "text.flac").write_bytes(b"this is no music" * 100)
    with caplog.at_level(logging.WARNING):
        assert [track.title for track in library_of(tmp_path).tracks] == ["good"]
    [message] = caplog.messages
    assert "music_unreadable count=3" in message
    assert "text.flac cannot be read: Format not recognised" in message
    assert "crowd.wav holds 100 samples of 9 channels" in message
    assert "silent.wav holds 0 samples" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize("directory", [True, False])
def test_without_files_there_is_the_tune(tmp_path: Path, directory: bool):
    """In an empty folder, without a folder, and before the first scan."""
    where = tmp_path if directory else None
    library = MusicLibrary(where, StreamResampler)
    assert [track.title for track in library.tracks] == ["The ListenAI Tune"]
    library.scan()
    assert [track.title for track in library.tracks] == ["The ListenAI Tune"]
    read = pieces(library.open(library.tracks[0], 16_000))
    assert b"".join(read) == compose(16_000)
    assert {len(piece) for piece in read[:-1]} == {32_000}


def test_a_closed_tune_is_over(tmp_path: Path):
    """Like a closed file."""
    library = library_of(None)
    reader = library.open(library.tracks[0], 16_000)
    reader.read()
    reader.close()
    assert reader.read() == b""


def test_a_second_scan_finds_what_is_new(tmp_path: Path):
    """And with the first file the tune goes."""
    library = library_of(tmp_path)
    write(tmp_path / "new.wav", tone(0.1))
    library.scan()
    assert [track.title for track in library.tracks] == ["new"]


def test_a_folder_that_is_none_is_told(tmp_path: Path):
    """With what to do."""
    library = MusicLibrary(tmp_path / "music", StreamResampler)
    with pytest.raises(MusicError, match=r"music folder .* cannot be read: No such file.*make it"):
        library.scan()


def test_stereo_is_mixed_down_without_clipping(tmp_path: Path):
    """The mean of the sides: as loud as they are where they agree, silence where they cancel."""
    write(tmp_path / "loud.flac", tone(left=1.0, right=1.0))
    write(tmp_path / "one side.flac", tone(left=1.0, right=0.0))
    write(tmp_path / "opposed.flac", tone(left=0.5, right=-0.5))
    library = library_of(tmp_path)
    loud, one_side, opposed = (
        samples_of(b"".join(pieces(library.open(track, RATE)))) for track in library.tracks
    )
    assert np.abs(loud).max() == pytest.approx(1.0, abs=0.001)
    assert np.abs(np.diff(loud)).max() < 0.1  # wrapped, it would jump
    assert np.abs(one_side).max() == pytest.approx(0.5, abs=0.001)
    assert np.abs(opposed).max() <= 2 / 32768


def test_a_file_of_floats_saturates(tmp_path: Path):
    """Too loud is clipped; what is no number is silence."""
    samples = np.array([0.5, 2.0, -2.0, np.inf, -np.inf, np.nan], np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    library = library_of(tmp_path)
    read = samples_of(library.open(library.tracks[0], 16_000).read())
    assert read == pytest.approx([0.5, 1, -1, 1, -1, 0], abs=1e-4)


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_a_damaged_file_is_told(tmp_path: Path, suffix: str):
    """What is good of it is played; then it says so, and is over."""
    path = write(tmp_path / f"song{suffix}", np.random.default_rng(1).normal(0, 0.1, 8 * RATE))
    library = library_of(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = library.open(library.tracks[0], 16_000)
    read: list[bytes] = []
    with pytest.raises(MusicError, match=f"song{suffix} is damaged: "):
        read.extend(iter(reader.read, b""))
    assert len(b"".join(read)) / 2 / 16_000 > 2.5
    assert reader.read() == b""


def test_a_file_that_is_gone_is_told(tmp_path: Path):
    """Between scan and play anything can happen."""
    path = write(tmp_path / "song.mp3", tone(0.5))
    library = library_of(tmp_path)
    path.unlink()
    with pytest.raises(MusicError, match=r"song\.mp3 cannot be read: "):
        library.open(library.tracks[0], 16_000)


def test_closed_in_the_middle_it_is_over(tmp_path: Path):
    """And may be closed again."""
    write(tmp_path / "song.wav", tone())
    library = library_of(tmp_path)
    reader = library.open(library.tracks[0], 16_000)
    assert reader.read()
    reader.close()
    reader.close()
    assert reader.read() == b""
