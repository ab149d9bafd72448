"""Model folders are looked at before any library sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from listenai.engines.funasr_model import FAMILIES
from listenai.engines.model_files import (
    MODELS,
    Model,
    find_model,
    folders_of,
    model_file,
    problems_of,
    refusal,
)
from listenai.engines.sherpa import SherpaTranscriber

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def fill(folder: Path, model: Model) -> Path:
    """A folder with something under the first name of each file."""
    for first, *_ in model.files:
        path = folder / first.replace("*", "voice")
        if first.endswith("/"):
            path.mkdir(parents=True)
            path /= "phondata"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something")
    return folder


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_whole_folder_has_no_problems(tmp_path: Path, model: Model) -> None:
    """For each model: everything it needs is enough."""
    folder = fill(tmp_path, model)
    assert problems_of(model, folder) == []
    assert refusal(model, folder) is None


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_each_missing_file_is_named(tmp_path: Path, model: Model) -> None:
    """An empty folder has one problem for each file, which names it."""
    problems = problems_of(model, tmp_path)
    assert len(problems) == len(model.files)
    for problem, names in zip(problems, model.files, strict=True):
        assert names[0] in problem


def test_a_refusal_says_what_to_download_and_where(tmp_path: Path) -> None:
    """With size and licence, and a command to copy."""
    said = refusal(MODELS["fun-asr-nano"], tmp_path)
    assert said is not None
    assert f"{tmp_path} has no model.pt" in said
    assert "2000 MB, Apache-2.0" in said
    assert f"hf download FunAudioLLM/Fun-ASR-Nano-2512 --local-dir {tmp_path}" in said


def test_a_folder_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    """Not a list of all the files it lacks."""
    folder = tmp_path / "nowhere"
    assert problems_of(MODELS["voxcpm-0.5b"], folder) == [f"there is no folder {folder}"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "its download was cut off"), (LFS_POINTER, "git lfs pull")],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes, complaint: str) -> None:
    """Empty files, and the pointers that a clone without git-lfs leaves."""
    model = MODELS["fun-asr-nano"]
    path = fill(tmp_path, model) / "model.pt"
    path.write_bytes(content)
    (problem,) = problems_of(model, tmp_path)
    assert str(path) in problem
    assert complaint in problem


def test_one_of_several_names_is_enough(tmp_path: Path) -> None:
    """The whole model instead of the small one; the small one is preferred."""
    model = MODELS["sherpa-sensevoice"]
    small = fill(tmp_path, model) / "model.int8.onnx"
    whole = small.rename(tmp_path / "model.onnx")
    assert problems_of(model, tmp_path) == []
    assert model_file(tmp_path, *model.files[0]) == whole
    small.write_bytes(b"something")
    assert model_file(tmp_path, *model.files[0]) == small


def test_a_broken_file_is_told_rather_than_its_missing_alternative(tmp_path: Path) -> None:
    """Whoever downloaded model.onnx wants to hear of that one."""
    model = MODELS["sherpa-sensevoice"]
    fill(tmp_path, model)
    (tmp_path / "model.int8.onnx").unlink()
    (tmp_path / "model.onnx").write_bytes(b"")
    assert problems_of(model, tmp_path) == [
        f"{tmp_path / 'model.onnx'}: the file is empty: its download was cut off"
    ]


def test_an_empty_folder_is_no_data(tmp_path: Path) -> None:
    """espeak-ng's data must be there, not only its folder."""
    model = MODELS["sherpa-kokoro"]
    (fill(tmp_path, model) / "espeak-ng-data" / "phondata").unlink()
    assert "the folder is empty" in problems_of(model, tmp_path)[0]


def test_models_are_found_where_the_hubs_put_them(tmp_path: Path) -> None:
    """In Hugging Face's snapshots, the newest by name, and in ModelScope's folder."""
    model = MODELS["fun-asr-nano"]
    snapshots = "huggingface/hub/models--FunAudioLLM--Fun-ASR-Nano-2512/snapshots"
    places = ("modelscope/hub/models/FunAudioLLM/Fun-ASR-Nano-2512", f"{snapshots}/abc")
    for place in places:
        found = fill(tmp_path / place, model)
        folders = list(folders_of(model, models_folder=None, cache_folder=tmp_path))
        assert find_model(model, folders) == found


def test_our_own_folder_comes_before_the_hubs(tmp_path: Path) -> None:
    """By our name for the model, or by the hub's."""
    model = MODELS["voxcpm-0.5b"]
    fill(tmp_path / "cache/modelscope/hub/openbmb/VoxCPM-0.5B", model)
    for place in ("models/openbmb/VoxCPM-0.5B", "models/VoxCPM-0.5B", "models/voxcpm-0.5b"):
        found = fill(tmp_path / place, model)
        folders = list(
            folders_of(model, models_folder=tmp_path / "models", cache_folder=tmp_path / "cache")
        )
        assert find_model(model, folders) == found


def test_an_incomplete_folder_is_passed_over(tmp_path: Path) -> None:
    """What lies nowhere whole is not found."""
    model = MODELS["voxcpm-0.5b"]
    half = tmp_path / "half"
    half.mkdir()
    assert find_model(model, [half]) is None
    assert find_model(model, [half, fill(tmp_path / "whole", model)]) == tmp_path / "whole"


def test_the_languages_are_those_of_the_engines() -> None:
    """What the list promises, the engine accepts."""
    for name, family in FAMILIES.items():
        assert set(MODELS[name].languages) <= set(family.languages)
    assert MODELS["sherpa-sensevoice"].languages == tuple(SherpaTranscriber.languages)
