"""Which files each model needs, where they are looked for, and what they are.

The libraries take missing files badly: FunASR starts with random weights, VoxCPM asks a
hub for another model, sherpa-onnx ends the process.  So a folder is looked at before any
of them sees it, and what is missing is told by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

_LFS_POINTER = b"version https://git-lfs"  # what `git clone` without git-lfs leaves in its place


@attrs.frozen
class Model:
    """One model that ListenAI can load from a folder; `megabytes`: about what is downloaded."""

    name: str
    does: Literal["asr", "tts"]
    extra: str  # of this package: pip install 'listenai[EXTRA]'
    languages: tuple[str, ...]
    megabytes: int
    licence: str
    hub_id: str  # "owner/name" on Hugging Face
    # Each entry is needed; where it has several names, any one of them will do.  A pattern
    # with `*` stands for one file, a name that ends in "/" for a folder that is not empty.
    files: tuple[tuple[str, ...], ...]
    needs_gpu: bool = False  # slower than speech without one


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model(
            "fun-asr-nano",
            "asr",
            "funasr",
            ("zh", "en", "ja"),
            2000,
            "Apache-2.0",
            "FunAudioLLM/Fun-ASR-Nano-2512",
            (
                ("model.pt",),
                ("config.yaml",),
                ("configuration.json",),
                ("Qwen3-0.6B/config.json",),
                ("Qwen3-0.6B/tokenizer.json", "Qwen3-0.6B/vocab.json"),
            ),
            needs_gpu=True,
        ),
        Model(
            "sensevoice-small",
            "asr",
            "funasr",
            ("zh", "en", "ja", "ko", "yue"),
            900,
            "FunASR Model License 1.1",
            "FunAudioLLM/SenseVoiceSmall",
            (
                ("model.pt",),
                ("config.yaml",),
                ("configuration.json",),
                ("am.mvn",),
                ("chn_jpn_yue_eng_ko_spectok.bpe.model",),
            ),
        ),
        Model(
            "voxcpm-0.5b",
            "tts",
            "voxcpm",
            ("zh", "en"),
            1600,
            "Apache-2.0",
            "openbmb/VoxCPM-0.5B",
            (
                ("config.json",),
                ("model.safetensors", "pytorch_model.bin"),
                ("audiovae.safetensors", "audiovae.pth"),
                ("tokenizer.json",),
                ("tokenizer_config.json",),
            ),
            needs_gpu=True,
        ),
        Model(
            "sherpa-sensevoice",
            "asr",
            "sherpa",
            ("zh", "en", "ja", "ko", "yue"),
            229,
            "FunASR Model License 1.1",
            "csukuangfj/sherpa-onnx-sense-voice-zh-en-ja-ko-yue-2024-07-17",
            (("model.int8.onnx", "model.onnx"), ("tokens.txt",)),
        ),
        Model(
            "sherpa-kokoro",
            "tts",
            "sherpa",
            ("en", "zh"),
            350,
            "Apache-2.0",
            "csukuangfj/kokoro-multi-lang-v1_0",
            (
                ("model.int8.onnx", "model.onnx"),
                ("voices.bin",),
                ("tokens.txt",),
                ("espeak-ng-data/",),
                ("lexicon-us-en.txt", "lexicon-gb-en.txt", "lexicon-zh.txt"),
            ),
        ),
        Model(
            "sherpa-piper",
            "tts",
            "sherpa",
            ("en",),
            61,
            "MIT; each voice has a licence of its own",
            "csukuangfj/vits-piper-en_US-lessac-medium",
            (("*.onnx",), ("tokens.txt",), ("espeak-ng-data/",)),
        ),
    )
}


def folders_of(
    model: Model, *, models_folder: Path | None, cache_folder: Path | None
) -> Iterator[Path]:
    """Where a model may lie, best first; the folders need not exist.

    models_folder: holds a folder for each model, by our name or the hub's.
    cache_folder: what the hubs' own tools fill, usually ~/.cache.
    """
    owner, _, name = model.hub_id.partition("/")
    if models_folder:
        yield from (models_folder / model.name, models_folder / name, models_folder / owner / name)
    if cache_folder:
        snapshots = cache_folder / "huggingface" / "hub" / f"models--{owner}--{name}" / "snapshots"
        if snapshots.is_dir():
            yield from sorted(snapshots.iterdir(), reverse=True)
        for hub in ("modelscope/hub/models", "modelscope/hub"):
            yield cache_folder / hub / owner / name


def find_model(model: Model, folders: Sequence[Path]) -> Path | None:
    """The first of these folders that has all files of the model, or None."""
    return next((folder for folder in folders if not problems_of(model, folder)), None)


def problems_of(model: Model, folder: Path) -> list[str]:
    """What keeps the model from being loaded from this folder, a sentence each; [] if nothing."""
    if not folder.is_dir():
        return [f"there is no folder {folder}"]
    problems = (_problem_of(folder, names) for names in model.files)
    return [problem for problem in problems if problem]


def refusal(model: Model, folder: Path) -> str | None:
    """Why the model cannot be loaded from this folder and what to do, or None if it can."""
    if not (problems := problems_of(model, folder)):
        return None
    return (
        f"{model.name} cannot be loaded: {'; '.join(problems)}.  Download it "
        f"({model.megabytes} MB, {model.licence}):  "
        f"hf download {model.hub_id} --local-dir {folder}"
    )


def model_file(folder: Path, *names: str) -> Path:
    """The first of these names, or of the files that match a pattern, that exists in the folder.

    Raises FileNotFoundError; after `problems_of` found nothing it does not for the model's files.
    """
    for name in names:
        if found := _files(folder, name):
            return found[0]
    raise FileNotFoundError(f"{folder} has no {' or '.join(names)}")


def _files(folder: Path, name: str) -> list[Path]:
    if "*" in name:
        return sorted(folder.glob(name))
    path = folder / name
    return [path] if path.exists() else []


def _problem_of(folder: Path, names: Sequence[str]) -> str | None:
    """What is wrong with the one file that any of these names may have."""
    problems = [f"{folder / name.rstrip('/')}: {_fault(folder, name)}" for name in names]
    if any(_fault(folder, name) is None for name in names):
        return None
    there = [f for f, name in zip(problems, names, strict=True) if _files(folder, name)]
    if there:  # the broken one is more telling than its alternatives' absence
        return there[0]
    return f"{folder} has no {' or '.join(names)}"


def _fault(folder: Path, name: str) -> str | None:
    """What is wrong with a file of this name; None: nothing."""
    files = _files(folder, name)
    if not files:
        return "it is missing"
    path = files[0]
    if name.endswith("/"):
        return None if path.is_dir() and any(path.iterdir()) else "the folder is empty"
    if not path.is_file():
        return "it is not a file"
    with path.open("rb") as file:
        beginning = file.read(len(_LFS_POINTER))
    if not beginning:
        return "the file is empty: its download was cut off"
    if beginning == _LFS_POINTER:
        return "only a git-lfs pointer is there, not the file: fetch it with git lfs pull"
    return None
