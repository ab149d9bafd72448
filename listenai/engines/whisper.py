"""Whisper through faster-whisper: speech to text in some hundred languages, on CPU or GPU.

CTranslate2 computes without the GIL, so it runs in threads of the server itself.  It works in
windows of 30 s, however short the audio is, and a window cannot be stopped: whoever leaves an
utterance waits for the one that is being computed.  Given a model's size instead of a folder, the
library would download it; so the folder is found, and looked at, before the library sees it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import trio

from listenai.audio import SAMPLE_RATE
from listenai.engines.base import SpeakerMemory
from listenai.engines.model_files import Model, refusal
from listenai.engines.whole_utterance import WholeUtterance, samples_of, space_of
from listenai.errors import ConfigurationError, TranscriberError

DEFAULT_MODEL = "small-int8"  # spec 001
# Each computes one utterance at a time; what waits for a thread can be cancelled.
DEFAULT_THREADS = 2
PARTIAL_SECONDS = 1.0  # spec 001; each partial transcript costs a whole window
MIN_SAMPLES = 1600  # 100 ms: Whisper makes words up for less
BEAMS = 5  # faster-whisper's own
PARTIAL_BEAMS = 1  # quick: the next one corrects it

_MEGABYTES: Mapping[str, int] = {
    "tiny": 78,
    "tiny.en": 78,
    "base": 148,
    "base.en": 148,
    "small": 486,
    "small.en": 486,
    "medium": 1530,
    "medium.en": 1530,
    "large-v1": 3090,
    "large-v2": 3090,
    "large-v3": 3090,
}
COMPUTE_TYPES = ("int8", "int8_float16", "int8_float32", "int16", "float16", "bfloat16", "float32")
_NAME = re.compile(rf"(?P<size>[\w.-]+?)(-(?P<compute>{'|'.join(COMPUTE_TYPES)}))?")


@attrs.frozen
class WhisperModel:
    """A model by its name, and with which numbers it computes."""

    model: Model
    compute_type: str  # as CTranslate2 names it; "default": as it was saved
    folder: Path | None = None  # where a folder was named


def read_model_name(name: str) -> WhisperModel:
    """What "small", "small-int8", "large-v3-float16" or the path of a folder stand for.

    Raises ConfigurationError for others, with what there is.
    """
    if "/" in name:
        return WhisperModel(_model(Path(name).name, "", 0), "default", Path(name))
    match = _NAME.fullmatch(name)
    if match is None or match["size"] not in _MEGABYTES:
        raise ConfigurationError(
            [
                f"there is no Whisper model {name!r}: allowed are {', '.join(_MEGABYTES)}, each"
                f" with or without -{', -'.join(COMPUTE_TYPES)}; or the path of a folder, with a /"
            ]
        )
    size = match["size"]
    model = _model(f"faster-whisper-{size}", f"Systran/faster-whisper-{size}", _MEGABYTES[size])
    return WhisperModel(model, match["compute"] or "default")


def _model(name: str, hub_id: str, megabytes: int) -> Model:
    files = (("model.bin",), ("config.json",), ("tokenizer.json",), ("vocabulary.*",))
    return Model(name, "asr", "faster-whisper", (), megabytes, "MIT", hub_id, files)


class WhisperTranscriber:
    """Speech to text by Whisper (engines.base.Transcriber); made by `open`.

    dropped_partials: partial transcripts not made because all threads were busy.
    """

    def __init__(self, model: Any, threads: int) -> None:
        """Not for callers: see `open`."""
        self.languages: Sequence[str] = tuple(model.supported_languages)
        self.dropped_partials = 0
        self._model = model
        self._threads = trio.CapacityLimiter(threads)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        whisper: WhisperModel,
        *,
        device: str = "cpu",
        threads: int = DEFAULT_THREADS,
    ) -> AsyncIterator[WhisperTranscriber]:
        """Loads the model of a folder; alive in the `async with`.

        device: "cpu" or "cuda".  threads: utterances that are computed at a time.
        Raises TranscriberError.
        """
        if problem := refusal(whisper.model, folder):
            raise TranscriberError(problem)

        def load() -> Any:
            library = _import()
            with _translated(f"{whisper.model.name} could not be loaded from {folder}"):
                model = library.WhisperModel(
                    str(folder),
                    device=device,
                    compute_type=whisper.compute_type,
                    cpu_threads=1,
                    num_workers=threads,
                )
                # CUDA's libraries are looked for at the first use: rather now than by a user.
                segments, _ = model.transcribe(samples_of(bytes(2 * SAMPLE_RATE)), language="en")
                next(iter(segments), None)
                return model

        yield cls(await trio.to_thread.run_sync(load), threads)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[WholeUtterance]:
        """Collects one utterance; raises TranscriberError for a language that is not understood."""
        del speaker  # the model keeps nothing of a voice
        code = self._code_of(language)

        async def decode(pcm: bytes, *, partial: bool) -> str | None:
            if partial and self._threads.available_tokens < 1:  # somebody would have to wait
                self.dropped_partials += 1
                return None
            return await self._decode(pcm, code, PARTIAL_BEAMS if partial else BEAMS)

        yield WholeUtterance(
            decode,
            min_samples=MIN_SAMPLES,
            partial_seconds=PARTIAL_SECONDS,
            joined_by=space_of(code),
        )

    async def _decode(self, pcm: bytes, code: str, beams: int) -> str:
        def begin() -> Iterator[Any]:
            with _translated("Whisper failed"):
                segments, _ = self._model.transcribe(
                    samples_of(pcm),
                    language=code,
                    beam_size=beams,
                    # Other temperatures are retries of what went wrong: several times the wait.
                    temperature=0.0,
                    # What it believes to have heard before leads it into loops.
                    condition_on_previous_text=False,
                    without_timestamps=True,
                )
                return iter(segments)

        def window() -> str | None:
            with _translated("Whisper failed"):
                segment = next(segments, None)
                return None if segment is None else str(segment.text).strip()

        # The thread may change between two windows; there is never more than one.
        segments = await trio.to_thread.run_sync(begin, limiter=self._threads)
        texts = []
        while (text := await trio.to_thread.run_sync(window, limiter=self._threads)) is not None:
            texts.append(text)
        return space_of(code).join(filter(None, texts))

    def _code_of(self, language: str) -> str:
        primary, *rest = language.lower().replace("_", "-").split("-")
        is_cantonese = primary == "zh" and {"yue", "hk", "mo"} & set(rest)
        code = "yue" if is_cantonese and "yue" in self.languages else primary
        if code not in self.languages:
            raise TranscriberError(
                f"this Whisper model does not understand {language!r}; allowed: "
                f"{', '.join(self.languages)}"
            )
        return code


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library raises RuntimeError and ValueError of all kinds
        raise TranscriberError(f"{what}: {error}") from error


def _import() -> Any:
    try:
        return import_module("faster_whisper")
    except (ImportError, OSError) as error:
        raise TranscriberError(
            f"faster-whisper cannot be loaded ({error}); install it with  "
            "pip install 'listenai[faster-whisper]',  or choose another ASR_ENGINE"
        ) from error
