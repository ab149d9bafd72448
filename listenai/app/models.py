"""`python -m listenai models`: which models are here, and how to get the others.

Nothing is downloaded but by `pull`, which says first what it fetches, from where and under which
licence.  Files go where the engines look for them: into MODELS_DIR where it is set, else into
the cache of the hub's own tools, as these would lay them there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from listenai.config import Config
from listenai.engines.model_files import MODELS, Model, find_model, folders_of, problems_of
from listenai.errors import ListenAIError

Tell = Callable[[str], None]


class PullFailed(ListenAIError):
    """A model was not downloaded; says why and what to do."""


# extra of this package -> the package that says whether it is installed
_PACKAGES: Final[Mapping[str, str]] = {
    "funasr": "funasr",
    "voxcpm": "voxcpm",
    "sherpa": "sherpa_onnx",
}
# What `default` stands for: the best that keeps up with speech.
DEFAULT_WITH_GPU: Final = ("fun-asr-nano", "voxcpm-0.5b")
DEFAULT_WITHOUT_GPU: Final = ("sherpa-sensevoice", "sherpa-kokoro")
_GPU_DEVICE = Path("/dev/nvidiactl")  # there where a driver is loaded


@attrs.frozen
class Places:
    """Where models are looked for, and come from."""

    models_folder: Path | None  # MODELS_DIR
    cache_folder: Path  # what the hubs' tools fill
    hub_url: str | None = None  # None: the hub's own

    def folder_for(self, model: Model, commit: str) -> Path:
        """Where a download of it belongs."""
        if self.models_folder:
            return self.models_folder / model.name
        owner, _, name = model.hub_id.partition("/")
        hub = self.cache_folder / "huggingface" / "hub"
        return hub / f"models--{owner}--{name}" / "snapshots" / commit


def places_of(config: Config, environment: Mapping[str, str]) -> Places:
    """The places that the configuration and the environment name."""
    folder = config.models_dir
    cache = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~"), ".cache")
    hub_url = environment.get("HF_ENDPOINT", "").rstrip("/") or None
    return Places(Path(folder) if folder else None, Path(cache).expanduser(), hub_url)


@attrs.frozen
class Survey:
    """What is here of one model."""

    model: Model
    folder: Path | None  # where it is whole
    problems: tuple[str, ...]  # of the first folder that has a part of it
    looked_in: tuple[Path, ...]
    installed: bool  # whether the library that loads it is


def survey(places: Places) -> list[Survey]:
    """What is here of each model that ListenAI can use."""
    return [_survey(model, places) for model in MODELS.values()]


def _survey(model: Model, places: Places) -> Survey:
    folders = tuple(
        folders_of(model, models_folder=places.models_folder, cache_folder=places.cache_folder)
    )
    found = find_model(model, folders)
    part = next((folder for folder in folders if folder.is_dir()), None)
    problems = problems_of(model, part) if part and not found else ()
    installed = importlib.util.find_spec(_PACKAGES[model.extra]) is not None
    return Survey(model, found, tuple(problems), folders, installed)


def as_lines(places: Places) -> Iterator[str]:
    """The list that `models` prints."""
    rows: list[tuple[str, ...]] = [("MODEL", "DOES", "SIZE", "LANGUAGES", "LICENCE", "STATE")]
    surveyed = survey(places)
    rows += [_row(each) for each in surveyed]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    for each in surveyed:
        for problem in each.problems:
            yield f"{each.model.name} is incomplete: {problem}"
    extras = sorted({each.model.extra for each in surveyed if not each.installed})
    for extra in extras:
        names = ", ".join(each.model.name for each in surveyed if each.model.extra == extra)
        yield f"{names}: the library is not installed: pip install 'listenai[{extra}]'"
    yield "Each is looked for in, by its name or the hub's:"
    if places.models_folder:
        yield f"  {places.models_folder}  (MODELS_DIR)"
    yield f"  {places.cache_folder / 'huggingface' / 'hub'}  (the hub's own cache)"
    yield f"  {places.cache_folder / 'modelscope' / 'hub'}"
    yield "Get one: python -m listenai models pull NAME, or `default` for what suits this machine."
    yield "The embedded engines (PocketSphinx: en; espeak-ng: en, zh, ja) need none of them."


def _row(each: Survey) -> tuple[str, ...]:
    model = each.model
    state = f"in {each.folder}" if each.folder else "incomplete" if each.problems else "not here"
    gpu = ", GPU" if model.needs_gpu else ""
    return (
        model.name,
        f"{model.does}{gpu}",
        f"{model.megabytes} MB",
        " ".join(model.languages),
        model.licence,
        state,
    )


def chosen_models(name: str, *, has_gpu: bool | None = None) -> Sequence[Model]:
    """The models that `pull NAME` means; has_gpu: None: looked for.

    Raises PullFailed for none, listing those there are.
    """
    if name == "default":
        gpu = _GPU_DEVICE.exists() if has_gpu is None else has_gpu
        return [MODELS[each] for each in (DEFAULT_WITH_GPU if gpu else DEFAULT_WITHOUT_GPU)]
    # `kokoro` is enough for `sherpa-kokoro`.
    named = MODELS.get(name) or MODELS.get(f"sherpa-{name}")
    if named is None:
        known = ", ".join(["default", *MODELS])
        raise PullFailed(f"there is no model {name!r}; there are {known}")
    return [named]


def pull(name: str, places: Places, tell: Tell) -> None:
    """Downloads a model, or goes on with it, and checks what arrived.

    Raises PullFailed where that cannot work, saying what to do.
    """
    try:
        # An extra, and half a second: only for those who want it.
        from listenai.app.model_download import Download  # noqa: PLC0415
    except ImportError as error:
        problem = "downloading models needs `pip install 'listenai[models]'`"
        raise PullFailed(problem) from error
    for model in chosen_models(name):
        here = _survey(model, places).folder
        if here:
            tell(f"{model.name} is here already: {here}")
            continue
        folder = Download.of(model, places, tell).run()
        if problems := problems_of(model, folder):
            raise PullFailed(
                f"{model.name}: {model.hub_id} of this hub has not all that is needed:"
                f" {'; '.join(problems)}; remove that folder and download it from another hub"
                " (HF_ENDPOINT)"
            )
        tell(f"{model.name} is complete: {folder}")
