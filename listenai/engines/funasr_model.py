"""A loaded FunASR model: which ones there are, how each is asked, what it answers.

Everything here waits for the processor, and belongs into threads: one at a time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import trio

from listenai.audio import SAMPLE_RATE
from listenai.engines.model_files import MODELS, refusal
from listenai.errors import TranscriberError
from listenai.wav import WavError, write_wav

# A partial transcript that takes longer from its first token on shows what it has: the final
# one must not wait for it.
PARTIAL_LIMIT_SECONDS = 0.4
# Fast speech has five syllables a second, and a token is a syllable or more: beyond this the
# language model repeats itself.
MAX_TOKENS_PER_SECOND, MORE_TOKENS = 15, 16
MAX_DUMPS = 1000  # then the oldest is overwritten

# ISO 639-3, the seven dialect groups that Fun-ASR-Nano was trained on.  It hears by itself
# which one is spoken; its prompt knows only "Chinese".
DIALECTS = ("yue", "wuu", "nan", "hak", "gan", "hsn", "cjy")
_DIALECT_REGIONS = {"hk": "yue", "mo": "yue"}

Samples = npt.NDArray[np.float32]  # mono 16 kHz, from -1 to 1


@attrs.define(eq=False)
class DecodingJob:
    """An utterance, or the beginning of one, that waits for the model."""

    samples: Samples
    language: str  # as the model calls it
    partial: bool
    hotwords: tuple[str, ...] = ()  # the speaker's own
    unwanted: bool = False  # read between two tokens by the thread
    text: str | None = None
    error: TranscriberError | None = None
    done: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen
class ModelFamily:
    """What differs between the models that FunASR loads."""

    name: str
    languages: Mapping[str, str]  # our code -> what `generate` takes
    options: Callable[[Sequence[str], bool], dict[str, Any]]  # hotwords, itn -> for `generate`
    writes_tokens: bool  # a language model that can be stopped between two of them

    def language_of(self, language: str) -> str:
        """What the model calls a language tag ("en", "zh-CN", "zh-HK", "yue")."""
        primary, *rest = language.lower().replace("_", "-").split("-")
        if primary == "zh":
            hints = (_DIALECT_REGIONS.get(part, part) for part in rest)
            primary = next((part for part in hints if part in self.languages), primary)
        if primary not in self.languages:
            raise TranscriberError(
                f"{self.name} does not understand {language!r}; "
                f"allowed: {', '.join(self.languages)}"
            )
        return self.languages[primary]


FAMILIES = {
    "fun-asr-nano": ModelFamily(
        "fun-asr-nano",
        {"zh": "中文", "en": "英文", "ja": "日文", **dict.fromkeys(DIALECTS, "中文")},
        lambda hotwords, itn: {"hotwords": list(hotwords), "itn": itn},
        writes_tokens=True,
    ),
    "sensevoice-small": ModelFamily(
        "sensevoice-small",
        {code: code for code in ("zh", "en", "ja", "ko", "yue")},
        lambda _, itn: {"use_itn": itn},
        writes_tokens=False,
    ),
}
_TAGS = re.compile(r"<\|[^|>]*\|>")  # SenseVoice writes language, mood and event before the text


class FunasrModel:
    """A loaded model; one thread at a time."""

    def __init__(
        self,
        family: ModelFamily,
        model: Any,
        hotwords: Sequence[str],
        itn: bool,
        dump_folder: Path | None,
    ) -> None:
        self.family = family
        self._torch = import_module("torch")
        self._model = model
        self._hotwords, self._itn = tuple(hotwords), itn
        self._dump_folder, self._dumps = dump_folder, 0

    @classmethod
    def load(
        cls,
        folder: Path,
        model: str,
        device: str,
        hotwords: Sequence[str],
        itn: bool,
        dump_folder: Path | None,
    ) -> FunasrModel:
        """Reads the weights: seconds, gigabytes.  Raises TranscriberError."""
        if model not in FAMILIES:
            raise TranscriberError(f"there is no model {model!r}; allowed: {', '.join(FAMILIES)}")
        if problem := refusal(MODELS[model], folder):
            raise TranscriberError(problem)
        try:
            auto_model = import_module("funasr").AutoModel(
                model=str(folder),
                device=device,
                ncpu=1,
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
            )
        except ImportError as error:
            raise TranscriberError(
                f"{model} needs packages that are not installed ({error}); type  pip install "
                "torch  and then  pip install 'listenai[funasr]',  or choose another transcriber"
            ) from error
        except Exception as error:  # the library has no exceptions of its own
            raise TranscriberError(f"{model} could not be loaded from {folder}: {error}") from error
        # With its CTC decoder the model makes timestamps, which nobody reads here, and
        # decodes a batch one by one.
        if getattr(auto_model.model, "ctc_decoder", None) is not None:
            auto_model.model.ctc_decoder = None
        return cls(FAMILIES[model], auto_model, hotwords, itn, dump_folder)

    def decode(self, batch: Sequence[DecodingJob]) -> list[str]:
        """The text of each job of one language and hotwords.  Raises TranscriberError."""
        hotwords = dict.fromkeys((*self._hotwords, *batch[0].hotwords))  # each once
        options = self.family.options(tuple(hotwords), self._itn)
        options |= {"language": batch[0].language, "batch_size": len(batch)}
        if self.family.writes_tokens:
            seconds = max(job.samples.size for job in batch) / SAMPLE_RATE
            options["max_length"] = int(seconds * MAX_TOKENS_PER_SECOND) + MORE_TOKENS
            options["llm_kwargs"] = {"stopping_criteria": [self._stopping(batch)]}
        audio = [self._torch.from_numpy(job.samples) for job in batch]
        try:
            self._dump(batch)
            results = self._model.generate(input=audio, **options)
            return [_TAGS.sub("", result["text"]).strip() for result in results]
        except WavError as error:
            raise TranscriberError(f"the utterance could not be kept: {error}") from error
        except Exception as error:  # the library has no exceptions of its own
            raise TranscriberError(
                f"{self.family.name} failed on {len(batch)} utterances: {type(error).__name__}"
            ) from error

    def _stopping(self, batch: Sequence[DecodingJob]) -> Callable[..., Any]:
        """Asked after each token, for each row: is it finished?"""
        first_token_at: float | None = None

        def stopped(token_ids: Any, _scores: Any, **_kwargs: Any) -> Any:
            nonlocal first_token_at
            first_token_at = first_token_at or time.monotonic()
            late = time.monotonic() > first_token_at + PARTIAL_LIMIT_SECONDS
            rows = [job.unwanted or (job.partial and late) for job in batch]
            return self._torch.tensor(rows, device=token_ids.device)

        return stopped

    def _dump(self, batch: Sequence[DecodingJob]) -> None:
        if self._dump_folder is None:
            return
        for job in batch:
            if not job.partial:
                name = f"utterance-{self._dumps % MAX_DUMPS:03}.wav"
                pcm = (job.samples * 32768).astype("<i2").tobytes()
                write_wav(self._dump_folder / name, pcm, SAMPLE_RATE)
                self._dumps += 1
