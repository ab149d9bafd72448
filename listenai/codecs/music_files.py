"""Music files as PCM, with libsndfile: WAV, FLAC, Ogg and MP3 of one folder.

Everything but `tracks` blocks, on the disk or in the decoder, and belongs in a thread;
libsndfile works without the GIL.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import numpy as np
import soundfile

from listenai.audio import SAMPLE_BYTES
from listenai.codecs import tune
from listenai.music import MusicError, Track, TrackReader

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
MOST_TRACKS = 5_000  # a household's; searching them takes 3 ms, reading their tags 3 s
MOST_CHANNELS, HIGHEST_RATE = 8, 192_000  # one second as floats is then at most 6 MiB
READ_SECONDS = 1.0
MOST_NAMES_LOGGED = 10
LONGEST_TEXT = 200  # characters of a tag: titles go to the chat model

# Some formats only estimate their length, and a decoder may skip what it cannot read.
_COMPLETE = 0.9  # a file that ends before this share of its length is damaged

_TUNE = Track(tune.TITLE, tune.ARTIST, tune.GENRE)
_TRACK_NUMBER = re.compile(r"^\d{1,3}\s*[._-]\s*(?=\w)")

_log = logging.getLogger(__name__)


class Resampler(Protocol):
    """Converts the rate of a run of int16 mono PCM."""

    def push(self, pcm: bytes) -> bytes:
        """Takes audio at one rate, gives what is ready at the other."""

    def flush(self) -> bytes:
        """Gives the rest."""


class MusicLibrary:
    """The music files below a folder; where there are none, a tune of our own.

    Until the first `scan` it holds the tune alone.
    """

    def __init__(
        self, directory: Path | None, make_resampler: Callable[[int, int], Resampler]
    ) -> None:
        """`make_resampler` takes the rates from and to, in Hz."""
        self._directory = directory
        self._make_resampler = make_resampler
        self._tracks: Sequence[Track] = (_TUNE,)

    @property
    def tracks(self) -> Sequence[Track]:
        """What can be played, by folder and file name; never empty."""
        return self._tracks

    def scan(self) -> None:
        """Looks for files, in subfolders too; those that cannot be read are logged by name.

        Raises MusicError where the folder cannot be read.
        """
        if self._directory is None:
            return
        tracks: list[Track] = []
        unreadable: list[str] = []
        for name in _names_below(self._directory):
            if len(tracks) == MOST_TRACKS:
                _log.warning("music_left_out most_tracks=%d", MOST_TRACKS)
                break
            try:
                tracks.append(_described(self._directory, name))
            except MusicError as error:
                unreadable.append(f"{error}")
        if unreadable:
            some = unreadable[:MOST_NAMES_LOGGED]
            _log.warning("music_unreadable count=%d first=%s", len(unreadable), some)
        self._tracks = tuple(tracks) or (_TUNE,)

    def open(self, track: Track, rate: int) -> TrackReader:
        """Reads the track as int16 mono PCM of `rate` Hz.  Raises MusicError."""
        if not track.name:
            return _TuneReader(tune.compose(rate), round(READ_SECONDS * rate) * SAMPLE_BYTES)
        if self._directory is None:
            raise MusicError(f"{_shown(track.name)} is in no folder of this library")
        file = _opened(self._directory, track.name)
        return _FileReader(file, track.name, self._make_resampler(file.samplerate, rate))


@attrs.define
class _TuneReader:
    """The tune, which is in memory."""

    _pcm: bytes
    _read_bytes: int
    _at: int = 0

    def read(self) -> bytes:
        start, self._at = self._at, self._at + self._read_bytes
        return self._pcm[start : self._at]

    def close(self) -> None:
        self._at = len(self._pcm)


@attrs.define(eq=False)
class _FileReader:
    """A file that is decoded, mixed down and resampled, second by second."""

    _file: soundfile.SoundFile
    _name: str
    _resampler: Resampler
    _frames_read: int = 0

    def read(self) -> bytes:
        while not self._file.closed:
            try:
                block = self._file.read(
                    max(1, round(READ_SECONDS * self._file.samplerate)), "float32", always_2d=True
                )
            except (soundfile.SoundFileError, OSError) as error:
                self.close()
                raise MusicError(f"{_shown(self._name)} is damaged: {_why(error)}") from error
            self._frames_read += len(block)
            # A resampler may keep the first block back whole.
            if pcm := self._resampler.push(_mono(block)) if len(block) else self._finish():
                return pcm
        return b""

    def close(self) -> None:
        self._file.close()

    def _finish(self) -> bytes:
        """What the resampler kept back, of a file that is there to its end."""
        announced = self._file.frames
        self.close()
        if self._frames_read < announced * _COMPLETE:
            raise MusicError(
                f"{_shown(self._name)} is damaged: it ends after "
                f"{self._frames_read / announced:.0%} of its length"
            )
        return self._resampler.flush()


def _mono(block: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bytes:
    """The mean of the channels as int16; what is too loud saturates, what is no number is 0."""
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    if not np.isfinite(mono).all():
        mono = np.nan_to_num(mono, posinf=1.0, neginf=-1.0)
    return np.rint(mono * 32768).clip(-32768, 32767).astype(np.int16).tobytes()


def _names_below(directory: Path) -> Iterator[str]:
    """Names of regular music files, relative, with "/", in the order in which they are played."""

    def refuse(error: OSError) -> None:
        if error.filename == str(directory):
            raise MusicError(
                f"the music folder {directory} cannot be read: {error.strerror}; "
                "make it, allow reading it, or name another"
            ) from error
        _log.warning("music_folder_unreadable name=%r", os.path.basename(error.filename))

    for folder, subfolders, files in os.walk(directory, onerror=refuse):
        subfolders[:] = sorted((f for f in subfolders if f[0] != "."), key=str.casefold)
        for file in sorted(files, key=str.casefold):
            path = Path(folder, file)
            if path.suffix.lower() in SUFFIXES and not file.startswith(".") and path.is_file():
                yield path.relative_to(directory).as_posix()


def _described(directory: Path, name: str) -> Track:
    """A file's tags; its name serves as a title where it has none."""
    with _opened(directory, name) as file:
        title, artist, genre = map(_tidy, (file.title, file.artist, file.genre))
    stem = _tidy(_shown(Path(name).stem).replace("_", " "))
    return Track(title or _TRACK_NUMBER.sub("", stem) or _shown(name), artist, genre, name)


def _opened(directory: Path, name: str) -> soundfile.SoundFile:
    try:
        file = soundfile.SoundFile(os.fsencode(directory / name))
    except (soundfile.SoundFileError, OSError) as error:
        raise MusicError(f"{_shown(name)} cannot be read: {_why(error)}") from error
    if file.frames and file.channels <= MOST_CHANNELS and 0 < file.samplerate <= HIGHEST_RATE:
        return file
    file.close()
    raise MusicError(
        f"{_shown(name)} holds {file.frames} samples of {file.channels} channels at "
        f"{file.samplerate} Hz; what can be played has some, of at most {MOST_CHANNELS} channels "
        f"at {HIGHEST_RATE} Hz"
    )


def _why(error: Exception) -> str:
    """libsndfile's own words, without the path."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return text.removeprefix("Error : ").strip().rstrip(".")


def _tidy(text: str) -> str:
    """One line of bounded length."""
    return " ".join(text.split())[:LONGEST_TEXT]


def _shown(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become question marks."""
    return os.path.basename(name).encode("utf-8", "replace").decode()
