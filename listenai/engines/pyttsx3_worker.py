"""One process in which pyttsx3 speaks: `python -m listenai.engines.pyttsx3_worker FILE`.

Its loop cannot be stopped, keeps the GIL while a driver plays, and prints to standard output; so
it has a process of its own, which whoever wants it to stop ends.  FILE is written anew for each
phrase, because files are all that pyttsx3 writes.

    standard input      a line {"text": …, "voice": …} for each phrase
    standard output     a line first: {"sample_rate": Hz, "voices": {id: [name, language…]}}; then
                        for each phrase a line {"bytes": n} and n bytes of int16 mono PCM; in place
                        of any line {"error": …}
"""

from __future__ import annotations

import json
import os
import sys
import wave
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

WORDS_A_MINUTE = 175  # spec 002 2.4.1
PROBE = "a"  # is spoken to find out the sample rate
# espeak's driver cancels a phrase that begins before its thread has come to rest from the last one:
# the file has no samples then.
ATTEMPTS = 4
REST_SECONDS = 0.02
_WANTED = "16-bit mono WAV files"


class _Failed(Exception):
    """The driver cannot do it; the message says what it did."""


def main() -> None:
    """Speaks until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as nowhere:  # what drivers print is no answer
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    file = Path(sys.argv[1])
    try:
        engine = _open_engine()
        rate, _ = _speak(engine, file, PROBE, "")
    except Exception as error:  # of any driver, on any system
        _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _answer(answers, {"sample_rate": rate, "voices": _voices(engine)})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            spoken, pcm = _speak(engine, file, asked["text"], asked["voice"])
            if spoken != rate:
                raise ValueError(f"this voice has {spoken} samples a second, the others {rate}")
        except Exception as error:
            _answer(answers, {"error": f"{type(error).__name__}: {error}"})
        else:
            _answer(answers, {"bytes": len(pcm)}, pcm)


def _open_engine() -> Any:
    engine = import_module("pyttsx3").init()
    engine.setProperty("rate", WORDS_A_MINUTE)
    return engine


def _voices(engine: Any) -> dict[str, list[str]]:
    """By id: the voice's name, and its languages, like "en-us"."""
    found = {}
    for voice in engine.getProperty("voices"):
        languages = [each for each in voice.languages or [] if isinstance(each, str)]
        found[str(voice.id)] = [str(voice.name), *languages]
    return found


def _speak(engine: Any, file: Path, text: str, voice: str) -> tuple[int, bytes]:
    """The sample rate and the audio; voice: "" for the one that was used before."""
    if voice:
        engine.setProperty("voice", voice)
    for _ in range(ATTEMPTS - 1):
        rate, pcm = _write(engine, file, text)
        if pcm:
            return rate, pcm
        Event().wait(REST_SECONDS)
    return _write(engine, file, text)  # nothing at all: so it sounds


def _write(engine: Any, file: Path, text: str) -> tuple[int, bytes]:
    written = Event()
    listening = engine.connect("finished-utterance", lambda **_told: written.set())
    file.unlink(missing_ok=True)
    engine.save_to_file(text, str(file))
    engine.runAndWait()  # espeak's driver returns from it while a thread of its own still writes
    written.wait()
    engine.disconnect(listening)
    try:
        with wave.open(str(file), "rb") as recording:
            form = recording.getnchannels(), recording.getsampwidth()
            if form != (1, 2):
                raise _Failed(f"pyttsx3 wrote WAV of {form}, not {_WANTED}")
            return recording.getframerate(), recording.readframes(recording.getnframes())
    except FileNotFoundError as error:
        raise _Failed("pyttsx3 wrote nothing") from error
    except wave.Error as error:
        raise _Failed(f"pyttsx3 wrote something else than {_WANTED} ({error})") from error
    finally:
        file.unlink(missing_ok=True)


def _answer(answers: BinaryIO, line: dict[str, Any], pcm: bytes = b"") -> None:
    answers.write(json.dumps(line).encode() + b"\n" + pcm)
    answers.flush()


if __name__ == "__main__":
    main()
