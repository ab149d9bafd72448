"""Vosk: speech to text that follows the audio, by Kaldi models of one language each.

The library computes without the GIL, so it runs in threads of the server itself.  A model is
loaded once and shared; each utterance has a recognizer of its own, which decodes audio as it
comes.  Given no folder, the library would download a model; so it always is given one.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.engines.whole_utterance import space_of
from listenai.errors import TranscriberError

DEFAULT_FOLDER = "./model"  # spec 002
DEFAULT_LANGUAGE = "en"
# Utterances decoded at the same moment: a core each, a fraction of the time.
DEFAULT_THREADS = 2
# Spec 002 2.2.2: "Process audio in 4000-byte chunks"; 125 ms, which is how long a cancelled
# utterance may keep its thread.
STEP_BYTES = 4000
_ENDED = 1  # AcceptWaveform: a pause ended a sentence, whose text is to be taken

# Spec 002 2.2.1: "Contains: am/, conf/, graph/, ivector/"; models of 2019 had it all in one place.
_ACOUSTIC_MODELS = ("am/final.mdl", "final.mdl")
_CONFIGURATIONS = ("conf/mfcc.conf", "mfcc.conf")
_FOLDER_NAME = re.compile(r"vosk-model-(?:small-|tiny-)?(?:spk-)?([a-z]{2,3})(?=-|$)")
_CODES = {"cn": "zh", "ua": "uk", "vn": "vi", "kz": "kk", "br": "br", "tl": "tl"}  # others: ISO


class KaldiRecognizer(Protocol):
    """What is used of Vosk's own recognizer; texts are JSON."""

    # ruff: noqa: N802 - Vosk's names
    def AcceptWaveform(self, data: bytes) -> int:
        """Decodes int16 mono 16 kHz; 1 where that ended a sentence."""

    def PartialResult(self) -> str:
        """The sentence so far."""

    def Result(self) -> str:
        """The sentence that has ended."""

    def FinalResult(self) -> str:
        """The sentence that ends here."""


class VoskTranscriber:
    """Speech to text by Vosk (engines.base.Transcriber); made by `open`.

    make_recognizer: blocking; a new recognizer for one utterance.
    """

    def __init__(
        self,
        make_recognizer: Callable[[], KaldiRecognizer],
        languages: Sequence[str],
        *,
        threads: int = DEFAULT_THREADS,
    ) -> None:
        self.languages: Sequence[str] = tuple(languages)
        self._make_recognizer = make_recognizer
        self._threads = trio.CapacityLimiter(threads)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, *, language: str = "", threads: int = DEFAULT_THREADS
    ) -> AsyncIterator[VoskTranscriber]:
        """Loads the model of a folder; alive in the `async with`.

        language: of the model; "": as its folder's name tells, else English.
        Raises TranscriberError.
        """
        _check(folder)

        def load() -> tuple[Any, Any]:
            vosk = _import()
            vosk.SetLogLevel(-1)  # Kaldi's lines about its parameters; errors are raised
            with _translated(f"{folder} holds no model that Vosk can load"):
                return vosk, vosk.Model(str(folder))

        vosk, model = await trio.to_thread.run_sync(load)
        yield cls(
            lambda: vosk.KaldiRecognizer(model, SAMPLE_RATE),
            (language or language_of(folder),),
            threads=threads,
        )

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[VoskUtterance]:
        """A private recognizer; raises TranscriberError for another language than the model's."""
        del speaker  # a recognizer forgets a voice with its utterance
        if _primary(language) not in map(_primary, self.languages):
            raise TranscriberError(
                f"this Vosk model does not understand {language!r}; allowed: "
                f"{', '.join(self.languages)} (VOSK_LANGUAGE says which language a model is of)"
            )
        with _translated("Vosk made no recognizer"):
            recognizer = await trio.to_thread.run_sync(self._make_recognizer, limiter=self._threads)
        yield VoskUtterance(recognizer, self._threads, space_of(language))


class VoskUtterance:
    """One utterance (engines.base.Utterance); made by VoskTranscriber.open_utterance."""

    def __init__(
        self, recognizer: KaldiRecognizer, threads: trio.CapacityLimiter, space: str
    ) -> None:
        self._recognizer, self._threads, self._space = recognizer, threads, space
        self._rest = b""  # half a sample, waiting for its other half
        self._texts: list[str] = []  # of sentences that a pause has ended

    async def accept(self, pcm: bytes) -> None:
        """Decodes audio of any length, int16 mono 16 kHz, in steps of STEP_BYTES."""
        data = self._rest + pcm
        whole = len(data) - len(data) % SAMPLE_BYTES
        self._rest = data[whole:]
        for start in range(0, whole, STEP_BYTES):
            step = data[start : min(start + STEP_BYTES, whole)]
            await trio.to_thread.run_sync(self._feed, step, limiter=self._threads)

    async def partial(self) -> str:
        """The words so far."""
        return await trio.to_thread.run_sync(self._listen, limiter=self._threads)

    async def finish(self) -> Transcript:
        """The words of everything accepted."""
        return Transcript(await trio.to_thread.run_sync(self._end, limiter=self._threads))

    # --- in a thread ---------------------------------------------------------------------

    def _feed(self, step: bytes) -> None:
        with _translated("Vosk failed"):
            if self._recognizer.AcceptWaveform(step) == _ENDED:
                self._texts.append(_text_in(self._recognizer.Result(), "text"))

    def _listen(self) -> str:
        with _translated("Vosk failed"):
            return self._joined(_text_in(self._recognizer.PartialResult(), "partial"))

    def _end(self) -> str:
        with _translated("Vosk failed"):
            return self._joined(_text_in(self._recognizer.FinalResult(), "text"))

    def _joined(self, last: str) -> str:
        return self._space.join(filter(None, [*self._texts, last]))


def language_of(folder: Path) -> str:
    """The language of a model as the name of its folder tells, like vosk-model-small-en-us-0.15."""
    match = _FOLDER_NAME.match(folder.resolve().name)
    return _CODES.get(match[1], match[1]) if match else DEFAULT_LANGUAGE


def _primary(language: str) -> str:
    return language.lower().replace("_", "-").split("-")[0]


def _text_in(result: str, key: str) -> str:
    return str(json.loads(result).get(key, "")).strip()


def _check(folder: Path) -> None:
    """Raises TranscriberError for a folder that holds no model."""
    get = "unpack one of https://alphacephei.com/vosk/models there, or set VOSK_MODEL_PATH"
    if not folder.is_dir():
        raise TranscriberError(f"Vosk's model is not here: there is no folder {folder}; {get}")
    for names in (_ACOUSTIC_MODELS, _CONFIGURATIONS):
        if not any((folder / name).exists() for name in names):
            raise TranscriberError(f"{folder} is no Vosk model: it has no {names[0]}; {get}")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Vosk raises nothing more telling than Exception
        raise TranscriberError(f"{what}: {error}") from error


def _import() -> Any:
    try:
        return import_module("vosk")
    except (ImportError, OSError) as error:
        raise TranscriberError(
            f"Vosk cannot be loaded ({error}); install it with  pip install 'listenai[vosk]',  "
            "or choose another ASR_ENGINE"
        ) from error
