"""Hearing and speaking without PyTorch: SenseVoice, Kokoro and Piper through sherpa-onnx.

It computes on the CPU and lets go of the GIL, so it runs in threads of the server itself.
A computation cannot be stopped: an utterance is decoded in one piece, some hundredths of its
length, and a sentence is spoken clause by clause.

The library ends the whole process over a model that it does not understand, and version 2
no longer turns text into phonemes by itself.  So files are looked at first, and versions
below 2 are asked for.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import trio

from listenai.audio import SAMPLE_BYTES, SAMPLE_RATE
from listenai.engines.base import SpeakerMemory, SpeechChunk
from listenai.engines.model_files import MODELS, model_file, refusal
from listenai.engines.whole_utterance import Samples, WholeUtterance, samples_of
from listenai.errors import EngineError, SynthesizerError, TranscriberError

# Decoding on two cores at a time; what waits for a thread can be cancelled.
DEFAULT_THREADS = 2
PARTIAL_SECONDS = 0.5  # audio between two partial transcripts: each decodes all of it anew
MIN_SAMPLES = 1600  # 100 ms; SenseVoice joins seven frames, and has none of less than 85 ms

# A clause is what cannot be stopped: a second or two of speech.
MIN_CLAUSE_WIDTH = 24  # letters; a Chinese character counts as three
CHUNK_MS = 200
MAX_SENTENCE_CHARACTERS = 2000
DEFAULT_VOICES = ("default", "doubao-通用女声")  # the second: spec 000's example
# kokoro-multi-lang-v1_0: its speakers come by name, those of a language side by side.
_KOKORO_SPEAKERS, _KOKORO_DEFAULTS = 53, {"en": 3, "zh": 47}


# --- hearing -----------------------------------------------------------------------------


class SherpaTranscriber:
    """Speech to text by SenseVoice (engines.base.Transcriber); made by `open`.

    A language is loaded when it is first spoken: 300 MB each with the small model.
    dropped_partials: partial transcripts not made because all threads were busy.
    """

    languages: Sequence[str] = ("zh", "en", "ja", "ko", "yue")

    def __init__(self, load: Callable[[str], Any], threads: int) -> None:
        """Not for callers: see `open`."""
        self.dropped_partials = 0
        self._load = load
        self._recognizers: dict[str, Any] = {}
        self._loading = trio.Lock()
        self._threads = trio.CapacityLimiter(threads)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        *,
        language: str = "en",
        threads: int = DEFAULT_THREADS,
        itn: bool = True,
    ) -> AsyncIterator[SherpaTranscriber]:
        """Loads the model of a folder for one language, others later; alive in the `async with`.

        itn: punctuation, and numbers as digits.  Raises TranscriberError.
        """
        needs = (b"lfr_window_size", b"neg_mean", b"vocab_size")
        _check("sherpa-sensevoice", folder, needs, TranscriberError)

        def load(code: str) -> Any:
            sherpa = _import(TranscriberError)
            with _translated(TranscriberError, f"SenseVoice could not be loaded from {folder}"):
                return sherpa.OfflineRecognizer.from_sense_voice(
                    model=str(model_file(folder, "model.int8.onnx", "model.onnx")),
                    tokens=str(folder / "tokens.txt"),
                    language=code,
                    use_itn=itn,
                    num_threads=1,
                )

        transcriber = cls(load, threads)
        await transcriber._recognizer(transcriber._code_of(language))
        yield transcriber

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[WholeUtterance]:
        """Collects one utterance; raises TranscriberError for an unknown language."""
        del speaker  # the model keeps nothing of a voice
        recognizer = await self._recognizer(self._code_of(language))

        async def decode(pcm: bytes, *, partial: bool) -> str | None:
            if partial and self._threads.available_tokens < 1:  # somebody would have to wait
                self.dropped_partials += 1
                return None
            return await self._decode(recognizer, samples_of(pcm))

        yield WholeUtterance(decode, min_samples=MIN_SAMPLES, partial_seconds=PARTIAL_SECONDS)

    async def _decode(self, recognizer: Any, samples: Samples) -> str:
        def run() -> str:
            with _translated(TranscriberError, "SenseVoice failed"):
                stream = recognizer.create_stream()
                stream.accept_waveform(SAMPLE_RATE, samples)
                recognizer.decode_stream(stream)
                return str(stream.result.text).strip()

        return await trio.to_thread.run_sync(run, limiter=self._threads)

    def _code_of(self, language: str) -> str:
        primary, *rest = language.lower().replace("_", "-").split("-")
        code = "yue" if primary == "zh" and {"yue", "hk", "mo"} & set(rest) else primary
        if code not in self.languages:
            raise TranscriberError(
                f"SenseVoice does not understand {language!r}; allowed: {', '.join(self.languages)}"
            )
        return code

    async def _recognizer(self, code: str) -> Any:
        async with self._loading:
            if code not in self._recognizers:
                loaded = await trio.to_thread.run_sync(self._load, code, limiter=self._threads)
                self._recognizers[code] = loaded
        return self._recognizers[code]


# --- speaking ----------------------------------------------------------------------------


class SherpaSynthesizer:
    """Speaks with Kokoro or a Piper voice (engines.base.Synthesizer); made by `open`.

    The default voice follows the language where the model has a speaker for it.
    """

    def __init__(self, tts: Any) -> None:
        """Not for callers: see `open`."""
        self.sample_rate = int(tts.sample_rate)
        speakers = max(1, int(tts.num_speakers))
        self._speakers = {f"speaker-{number}": number for number in range(speakers)}
        self._defaults = _KOKORO_DEFAULTS if speakers == _KOKORO_SPEAKERS else {}
        self.voices: Mapping[str, str] = {
            **dict.fromkeys(DEFAULT_VOICES, "a voice of the conversation's language"),
            **{name: f"speaker {number} of the model" for name, number in self._speakers.items()},
        }
        self._tts = tts
        # What turns text into phonemes is one for all; a clause at a time, so that short
        # sentences need not wait for long ones.
        self._thread = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, *, model: str = "sherpa-kokoro", threads: int = DEFAULT_THREADS
    ) -> AsyncIterator[SherpaSynthesizer]:
        """Loads the model of a folder; alive in the `async with`.

        model: "sherpa-kokoro" or "sherpa-piper".  threads: that compute one clause together.
        Raises SynthesizerError.
        """
        configure = {"sherpa-kokoro": _kokoro, "sherpa-piper": _piper}.get(model)
        if configure is None:
            raise SynthesizerError(
                f"there is no model {model!r}; allowed: sherpa-kokoro, sherpa-piper"
            )
        kind = b"style_dim" if model == "sherpa-kokoro" else b"comment"
        _check(model, folder, (b"sample_rate", b"n_speakers", kind), SynthesizerError)

        def load() -> Any:
            sherpa = _import(SynthesizerError)
            with _translated(SynthesizerError, f"{model} could not be loaded from {folder}"):
                parts = sherpa.OfflineTtsModelConfig(
                    **configure(sherpa, folder), num_threads=threads, provider="cpu"
                )
                return sherpa.OfflineTts(sherpa.OfflineTtsConfig(model=parts, max_num_sentences=1))

        yield cls(await trio.to_thread.run_sync(load))

    @trio.as_safe_channel
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Streams one sentence in chunks of 200 ms; no word timings, no chunks without words.

        The next clause is computed while one is heard.  Raises SynthesizerError for an unknown
        voice or more than MAX_SENTENCE_CHARACTERS.
        """
        speaker = self._speaker_of(voice_id, language)
        if len(text) > MAX_SENTENCE_CHARACTERS:
            raise SynthesizerError(
                f"a sentence of {len(text)} characters is too long, allowed are "
                f"{MAX_SENTENCE_CHARACTERS}; split it into shorter ones"
            )
        clauses = clauses_of(text)
        spoken_in, spoken = trio.open_memory_channel[bytes](len(clauses))
        step = self.sample_rate * CHUNK_MS // 1000 * SAMPLE_BYTES
        async with spoken, trio.open_nursery() as nursery:
            nursery.start_soon(self._speak, clauses, speaker, spoken_in)
            async for pcm in spoken:
                for start in range(0, len(pcm), step):
                    yield SpeechChunk(pcm[start : start + step])

    async def _speak(
        self, clauses: Sequence[str], speaker: int, spoken: trio.MemorySendChannel[bytes]
    ) -> None:
        with spoken:
            for clause in clauses:
                pcm = await trio.to_thread.run_sync(
                    self._say, clause, speaker, limiter=self._thread
                )
                await spoken.send(pcm)

    def _say(self, clause: str, speaker: int) -> bytes:
        parts: list[Samples] = []

        def keep(samples: Samples, _progress: float) -> int:
            parts.append(np.array(samples, np.float32))  # it is freed when we return
            return 1  # go on

        with _translated(SynthesizerError, f"sherpa-onnx failed on {len(clause)} characters"):
            self._tts.generate(clause, sid=speaker, speed=1.0, callback=keep)
        wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return bytes((np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes())

    def _speaker_of(self, voice_id: str, language: str) -> int:
        if voice_id in DEFAULT_VOICES:
            return self._defaults.get(language.lower().split("-")[0], 0)
        if voice_id not in self._speakers:
            raise SynthesizerError(
                f"there is no voice {voice_id!r}; choose one of {', '.join(self.voices)}"
            )
        return self._speakers[voice_id]


_CLAUSE = re.compile(r".*?(?:[,;:.!?]\s+|[，、；：。！？]\s*|$)", re.DOTALL)  # "3.5" is one word


def clauses_of(text: str) -> list[str]:
    """The text cut after punctuation, into pieces not shorter than MIN_CLAUSE_WIDTH if possible.

    Nothing is lost or changed: joined, they are the text.  [] for text without words.
    """
    clauses = [""]
    for piece in _CLAUSE.findall(text):
        if _width(clauses[-1]) >= MIN_CLAUSE_WIDTH:
            clauses.append("")
        clauses[-1] += piece
    if len(clauses) > 1 and not _has_words(clauses[-1]):
        last = clauses.pop()
        clauses[-1] += last
    return clauses if _has_words(text) else []


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _width(text: str) -> int:
    return sum(3 if character > "\u2e7f" else 1 for character in text if character.isalnum())


# --- the library -------------------------------------------------------------------------


def _kokoro(sherpa: Any, folder: Path) -> dict[str, Any]:
    lexicons = [folder / name for name in ("lexicon-us-en.txt", "lexicon-zh.txt")]
    dictionary = folder / "dict"
    return {
        "kokoro": sherpa.OfflineTtsKokoroModelConfig(
            model=str(model_file(folder, "model.int8.onnx", "model.onnx")),
            voices=str(folder / "voices.bin"),
            tokens=str(folder / "tokens.txt"),
            data_dir=str(folder / "espeak-ng-data"),
            lexicon=",".join(str(path) for path in lexicons if path.exists()),
            dict_dir=str(dictionary) if dictionary.is_dir() else "",
        )
    }


def _piper(sherpa: Any, folder: Path) -> dict[str, Any]:
    return {
        "vits": sherpa.OfflineTtsVitsModelConfig(
            model=str(model_file(folder, "*.onnx")),
            tokens=str(folder / "tokens.txt"),
            data_dir=str(folder / "espeak-ng-data"),
        )
    }


@contextmanager
def _translated(error_type: type[EngineError], what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the library has no exceptions of its own
        raise error_type(f"{what}: {error}") from error


def _import(error_type: type[EngineError]) -> Any:
    try:
        sherpa = import_module("sherpa_onnx")
    except (ImportError, OSError) as error:
        raise error_type(
            f"sherpa-onnx cannot be loaded ({error}); install it with  "
            "pip install 'listenai[sherpa]',  or choose another engine"
        ) from error
    if not sherpa.__version__.startswith("1."):
        raise error_type(
            f"sherpa-onnx {sherpa.__version__} does not turn text into phonemes by itself; "
            "install a version below 2 with  pip install 'listenai[sherpa]'"
        )
    return sherpa


def _check(name: str, folder: Path, needs: Sequence[bytes], error_type: type[EngineError]) -> None:
    """Raises `error_type` for missing files and graphs that the library would die of."""
    if problem := refusal(MODELS[name], folder):
        raise error_type(problem)
    path = model_file(folder, *MODELS[name].files[0])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        missing = [key.decode() for key in needs if data.rfind(key) < 0]
    if missing:
        raise error_type(
            f"{path} is not a model made for sherpa-onnx: it does not say its "
            f"{', '.join(missing)}; download {MODELS[name].hub_id}"
        )
