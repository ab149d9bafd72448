"""Voices of VoxCPM: recordings that it goes on from, and a JSON file that names them.

    voices.json     [{"id": "anna", "description": "calm, female",
                      "wav": "anna.wav", "text": "What is said in anna.wav."}, …]

The first voice is the default one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
import cattrs

from listenai.errors import SynthesizerError
from listenai.wav import WavError, read_wav

VOICES_FILE = "voices.json"
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 30.0  # of a prompt: less is no voice, more is slow


@attrs.frozen
class Voice:
    """A recording and the words in it; or, for VoxCPM 2 alone, a description of a voice.

    cfg_value and inference_timesteps: this voice's own instead of the synthesizer's.
    """

    id: str
    description: str = ""
    wav: str | None = None  # file name beside voices.json: 16-bit PCM, any rate
    text: str | None = None  # exactly what is said in it
    style: str | None = None  # "warm female voice", in place of a recording
    cfg_value: float | None = None
    inference_timesteps: int | None = None


def read_voices(folder: Path) -> Sequence[Voice]:
    """The voices of a folder, the default one first; raises SynthesizerError."""
    path = folder / VOICES_FILE
    converter = cattrs.Converter(forbid_extra_keys=True)
    try:
        voices = converter.structure(json.loads(path.read_text("utf-8")), list[Voice])
    except OSError as error:
        raise SynthesizerError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise SynthesizerError(f"{path} is not JSON: {error}") from error
    except cattrs.BaseValidationError as error:
        told = "; ".join(cattrs.transform_error(error))
        raise SynthesizerError(f"{path} is not a list of voices: {told}") from error
    problems = [
        f"{voice.id!r}: {problem}" for voice in voices for problem in _faults(voice, folder)
    ]
    ids = [voice.id for voice in voices]
    problems += [
        f"{name!r} is there twice" for name in sorted({i for i in ids if ids.count(i) > 1})
    ]
    if not voices:
        problems.append("it has no voice; without any, leave the folder out")
    if problems:
        raise SynthesizerError(f"{path}: {'; '.join(problems)}")
    return voices


def _faults(voice: Voice, folder: Path) -> list[str]:
    faults = []
    if bool(voice.wav) != bool(voice.text):
        faults.append("a recording needs both wav and text, the words that are said in it")
    if bool(voice.wav) == bool(voice.style):
        faults.append("a voice needs either wav and text, or style")
    if voice.wav:
        try:
            seconds = read_wav(folder / voice.wav).seconds
        except WavError as error:
            faults.append(str(error))
        else:
            if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
                faults.append(
                    f"{voice.wav} plays {seconds:.1f} s; allowed are {SHORTEST_SECONDS:g} to "
                    f"{LONGEST_SECONDS:g} s"
                )
    return faults
