"""WAV files of 16-bit PCM: read whole, written whole; and the header alone, for the wire."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt

from listenai.audio import SAMPLE_BYTES
from listenai.errors import ListenAIError

Samples = npt.NDArray[np.int16]

HEADER_BYTES = 44
_UNKNOWN_SIZE = 0xFFFFFFFF  # what players take for "until it ends"

_HINT = "convert it with: ffmpeg -i FILE -c:a pcm_s16le OUT.wav"


class WavError(ListenAIError):
    """A file that cannot be read or written as 16-bit PCM WAV; the message names it."""


@attrs.frozen(eq=False)
class Recording:
    """What a WAV file holds."""

    samples: Samples  # shape (samples, channels)
    sample_rate: int  # Hz

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return len(self.samples) / self.sample_rate


def read_wav(path: Path) -> Recording:
    """The samples of a 16-bit PCM WAV file, at its own rate and channels; raises WavError."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except OSError as error:
        raise WavError(f"cannot read {path}: {error.strerror or error}") from error
    except EOFError as error:
        raise WavError(f"{path} is not a WAV file: it ends within its header; {_HINT}") from error
    except wave.Error as error:
        raise WavError(f"{path} is not a 16-bit PCM WAV file ({error}); {_HINT}") from error
    if width != SAMPLE_BYTES:
        raise WavError(f"{path} has {8 * width}-bit samples, allowed are 16; {_HINT}")
    if rate <= 0:
        raise WavError(f"{path} has a sample rate of {rate} Hz, must be positive; {_HINT}")
    # A file cut off while it was written may end within a frame, or announce more than it has.
    whole = len(data) - len(data) % (channels * SAMPLE_BYTES)
    if not whole:
        raise WavError(f"{path} holds no audio")
    samples = np.frombuffer(data[:whole], "<i2").astype(np.int16).reshape(-1, channels)
    return Recording(samples, rate)


def write_wav(path: Path, pcm: bytes, sample_rate: int) -> None:
    """Writes int16 little-endian mono PCM, `sample_rate` in Hz; raises WavError."""
    try:
        with path.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(SAMPLE_BYTES)
            file.setframerate(sample_rate)
            file.writeframes(pcm)
    except OSError as error:
        raise WavError(f"cannot write {path}: {error.strerror or error}") from error


def wav_bytes(pcm: bytes, sample_rate: int) -> bytes:
    """A whole WAV file of int16 little-endian mono PCM, `sample_rate` in Hz."""
    return wav_header(sample_rate, len(pcm)) + pcm


def wav_header(sample_rate: int, pcm_bytes: int | None = None) -> bytes:
    """The HEADER_BYTES before 16-bit mono PCM; pcm_bytes None: a stream, as long as it lasts.

    sample_rate in Hz.
    """
    size = _UNKNOWN_SIZE if pcm_bytes is None else pcm_bytes
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        min(size + HEADER_BYTES - 8, _UNKNOWN_SIZE),
        b"WAVE",
        b"fmt ",
        16,  # bytes of what describes the format
        1,  # PCM
        1,  # channel
        sample_rate,
        sample_rate * SAMPLE_BYTES,
        SAMPLE_BYTES,  # of a sample of all channels
        8 * SAMPLE_BYTES,
        b"data",
        size,
    )
