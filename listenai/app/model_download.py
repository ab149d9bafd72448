"""Fetches one model from Hugging Face, a file after the other, and checks each.

The hub's own library asks, retries and shows the progress bars; what it no longer does is to go
on with a file that another run has begun, which for gigabytes over a home line is what matters.
So a file is written beside its place, under the name of its content, and moved there when it is
whole and its hash is the hub's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.file_download import http_get

from listenai.app.models import Places, PullFailed, Tell
from listenai.engines.model_files import Model

LIST_SECONDS = 30.0  # for the hub's list of files
SPARE_BYTES = 100 << 20  # that stay free on the disk
_COMMIT = re.compile(r"[0-9a-f]{40}")
_STEP = 1 << 20  # of a file that is hashed
# Of several forms of the same weights, one will do; other files are small.
_WEIGHTS = (".onnx", ".bin", ".safetensors", ".pt", ".pth")
# Nothing that a model needs: pictures and recordings of the hub's page, and hidden files.
_NOT_NEEDED = ("*.wav", "*.mp3", "*.mp4", "*.png", "*.jpg", "*.jpeg", "*.gif", ".git*", "*.md")


@attrs.frozen
class HubFile:
    """One file as the hub describes it."""

    name: str  # path in the repository
    size: int  # bytes
    sha256: str | None  # of large files
    git_hash: str  # of small ones: SHA-1 of git's blob


@attrs.frozen
class Download:
    """What is to be fetched, and where to."""

    model: Model
    hub_url: str
    commit: str
    folder: Path
    files: Sequence[HubFile]
    tell: Tell

    @classmethod
    def of(cls, model: Model, places: Places, tell: Tell) -> Download:
        """Asks the hub what there is.  Raises PullFailed where it does not tell."""
        hub_url = places.hub_url or constants.ENDPOINT
        try:
            hub = HfApi(endpoint=hub_url)
            info = hub.model_info(model.hub_id, files_metadata=True, timeout=LIST_SECONDS)
        except Exception as error:  # of the library, or of the HTTP client that it uses today
            raise PullFailed(_why(model, hub_url, error)) from error
        commit = info.sha or ""
        files = wanted(model, [_hub_file(each) for each in info.siblings or ()])
        strange = [file.name for file in files if not _is_inside(file.name)]
        if strange or not _COMMIT.fullmatch(commit):  # these become paths on this machine
            told = strange[0] if strange else commit
            raise PullFailed(f"{hub_url} names {told!r}, which is no file of a model: not trusted")
        return cls(model, hub_url, commit, places.folder_for(model, commit), files, tell)

    def run(self) -> Path:
        """Fetches what is not there yet; the folder.  Raises PullFailed."""
        missing = [file for file in self.files if not self._is_there(file)]
        total = sum(file.size for file in missing)
        self.tell(
            f"{self.model.name}: {_megabytes(total)} MB in {len(missing)} files from"
            f" {self.hub_url}/{self.model.hub_id} (licence: {self.model.licence})"
            f" into {self.folder}"
        )
        self._check_room(total)
        try:
            for file in missing:
                self._fetch(file)
        except PullFailed:
            raise
        except Exception as error:  # as above, and of the disk
            raise PullFailed(_why(self.model, self.hub_url, error)) from error
        return self.folder

    def _is_there(self, file: HubFile) -> bool:
        path = self.folder / file.name
        return path.is_file() and matches(path, file)

    def _check_room(self, total: int) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            problem = f"{self.folder}: {error.strerror}; choose another place with MODELS_DIR"
            raise PullFailed(problem) from error
        if free < total + SPARE_BYTES:
            problem = (
                f"{self.folder} has room for {_megabytes(free)} MB, and {_megabytes(total)} MB are"
                " to come; make room, or choose another place with MODELS_DIR"
            )
            raise PullFailed(problem)

    def _fetch(self, file: HubFile) -> None:
        """One file: from where an earlier run was broken off, checked, and only then in place."""
        place = self.folder / file.name
        part = place.with_name(f"{place.name}.{(file.sha256 or file.git_hash)[:12]}.incomplete")
        part.parent.mkdir(parents=True, exist_ok=True)
        token = get_token()
        with part.open("ab") as output:
            begun = output.tell()
            if begun > file.size:
                output.truncate(begun := 0)
            http_get(
                hf_hub_url(
                    self.model.hub_id, file.name, revision=self.commit, endpoint=self.hub_url
                ),
                output,
                resume_size=begun,
                headers={"Authorization": f"Bearer {token}"} if token else None,
                expected_size=file.size,
                displayed_filename=file.name,
            )
        if not matches(part, file):
            part.unlink()
            raise PullFailed(
                f"{file.name} arrived damaged: its size or hash is not the hub's; it was"
                " removed, run the same command again"
            )
        part.replace(place)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def wanted(model: Model, listed: Sequence[HubFile]) -> list[HubFile]:
    """The files to fetch: all that may be needed, and of weights in several forms the first."""
    names = [file.name for file in listed]
    left_out = set(_other_forms(model, names))
    return [
        file
        for file in listed
        if file.name not in left_out
        and not any(fnmatchcase(file.name, each) for each in _NOT_NEEDED)
    ]


def _other_forms(model: Model, names: Sequence[str]) -> Iterator[str]:
    for forms in model.files:
        there = [form for form in forms if form in names and form.endswith(_WEIGHTS)]
        yield from there[1:]


def matches(path: Path, file: HubFile) -> bool:
    """Whether size and hash are the hub's."""
    size = path.stat().st_size
    if size != file.size:
        return False
    if file.sha256:
        return _digest(path, hashlib.sha256()) == file.sha256
    return _digest(path, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)) == file.git_hash


def _digest(path: Path, hasher: Any) -> str:
    with path.open("rb") as content:
        while step := content.read(_STEP):
            hasher.update(step)
    return str(hasher.hexdigest())


def _hub_file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    return HubFile(
        sibling.rfilename,
        int(sibling.size or 0),
        lfs.sha256 if lfs else None,
        sibling.blob_id or "",
    )


def _why(model: Model, hub: str, error: Exception) -> str:
    """What went wrong, and what to do."""
    if isinstance(error, GatedRepoError):
        return f"{hub} gives {model.hub_id} only to who agreed: do so there, and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub} has no {model.hub_id}; does HF_ENDPOINT name the hub you mean?"
    if isinstance(error, HfHubHTTPError):
        return f"{hub} answers {error.response.status_code}; try again later"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError):
        return f"{model.name}: {error.strerror}; what has arrived is kept"
    return (
        f"{hub} cannot be reached ({type(error).__name__}): {model.name} was not downloaded, what"
        " has arrived is kept.  Run the same command again with network, set HF_ENDPOINT to a"
        " mirror, or copy the model's folder from another machine into MODELS_DIR"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:.0f}"
