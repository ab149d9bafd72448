"""Models are listed as they lie, and fetched from a stand-in for the hub on this machine."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config as HypercornConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from listenai.app.model_download import HubFile, matches, wanted
from listenai.app.models import Places, PullFailed, as_lines, chosen_models, places_of, pull, survey
from listenai.config import Config
from listenai.engines.model_files import MODELS, problems_of

PIPER = MODELS["sherpa-piper"]
COMMIT = "c0ffee" * 6 + "c0ff"
STEP = 10 * 1024 * 1024  # the hub's library writes a file in steps of this size
WEIGHTS = bytes(range(256)) * (STEP // 256 + 4096)
FILES = {
    "en_US-lessac-medium.onnx": WEIGHTS,
    "tokens.txt": b"_ 0\n^ 1\n",
    "espeak-ng-data/en_dict": b"dictionary",
    "README.md": b"# A voice",
    "test.wav": b"RIFF",
}


# --- a stand-in for the hub ----------------------------------------------------------------


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@attrs.define(eq=False)
class Hub:
    """What of the hub's API a download takes; files of more than 1 KiB are in its large storage."""

    files: Mapping[str, bytes] = attrs.field(factory=lambda: dict(FILES))
    damaged: set[str] = attrs.field(factory=set)  # files that arrive otherwise than announced
    stalled: set[str] = attrs.field(factory=set)  # files of which the second half never comes
    asked: list[tuple[str, str | None]] = attrs.field(factory=list)  # file, its Range header
    url: str = ""

    async def describe(self, request: Request) -> Response:
        """The list of a repository's files."""
        repository = "{owner}/{name}".format(**request.path_params)
        if repository != PIPER.hub_id:
            headers = {"X-Error-Code": "RepoNotFound"}
            return JSONResponse({"error": "Repository not found"}, 404, headers=headers)
        siblings = [_sibling(name, content) for name, content in self.files.items()]
        return JSONResponse({"id": repository, "sha": COMMIT, "siblings": siblings})

    async def resolve(self, request: Request) -> Response:
        """A file, or the rest of it; large ones lie elsewhere."""
        name = request.path_params["path"]
        if len(self.files[name]) > 1024 and not request.url.path.startswith("/storage/"):
            return RedirectResponse(f"/storage{request.url.path}", 302)
        wants = request.headers.get("range")
        self.asked.append((name, wants))
        content = self.files[name]
        if name in self.damaged:
            content = b"?" * len(content)
        start = int(wants.removeprefix("bytes=").split("-")[0]) if wants else 0
        headers = {"Content-Length": str(len(content) - start)}
        if wants:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = self._body(name, content[start:])
        return StreamingResponse(body, 206 if wants else 200, headers=headers)

    async def _body(self, name: str, content: bytes) -> AsyncIterator[bytes]:
        if name in self.stalled:
            yield content[: STEP + 1]
            await trio.sleep_forever()
        yield content


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
    if len(content) > 1024:
        about["blobId"] = git_hash(b"version https://git-lfs...")
        about["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return about


@asynccontextmanager
async def open_hub(**about: Any) -> AsyncIterator[Hub]:
    hub = Hub(**about)
    app = Starlette(
        routes=[
            Route("/api/models/{owner}/{name}", hub.describe),
            Route("/{owner}/{name}/resolve/{revision}/{path:path}", hub.resolve),
            Route("/storage/{owner}/{name}/resolve/{revision}/{path:path}", hub.resolve),
        ]
    )
    config = HypercornConfig()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.0
    async with trio.open_nursery() as nursery:
        serving = partial(hypercorn.trio.serve, cast(Any, app), config)
        [hub.url] = await nursery.start(serving)
        yield hub
        nursery.cancel_scope.cancel()


@attrs.frozen
class Home:
    """A user who has nothing yet."""

    folder: Path

    @property
    def snapshot(self) -> Path:
        """Where the hub's own tools would lay the voice."""
        owner, name = PIPER.hub_id.split("/")
        hub = self.folder / ".cache" / "huggingface" / "hub"
        return hub / f"models--{owner}--{name}" / "snapshots" / COMMIT

    def environment(self, hub_url: str) -> dict[str, str]:
        taken = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "HF_ENDPOINT": hub_url}
        return {**taken, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}

    async def models(self, hub_url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """`python -m listenai models …`, to its end."""
        return await trio.run_process(
            [sys.executable, "-m", "listenai", "models", *arguments],
            capture_stdout=True, capture_stderr=True, check=False,
            cwd=self.folder, env=self.environment(hub_url),
        )  # fmt: skip

    async def models_on_a_terminal(
        self, hub_url: str, *arguments: str
    ) -> tuple[subprocess.CompletedProcess[bytes], str]:
        """The same where errors and progress go to a terminal; and what it shows."""
        ours, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 100))
        try:
            done = await trio.run_process(
                [sys.executable, "-m", "listenai", "models", *arguments],
                capture_stdout=True, stderr=terminal, check=False,
                cwd=self.folder, env=self.environment(hub_url),
            )  # fmt: skip
            return done, os.read(ours, 1 << 16).decode()
        finally:
            os.close(terminal)
            os.close(ours)

    async def pull(self, hub_url: str, name: str) -> list[str]:
        """The same without a process: what is told."""
        told: list[str] = []
        places = places_of(Config(), self.environment(hub_url))
        await trio.to_thread.run_sync(pull, name, places, told.append)
        return told


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# --- downloading ---------------------------------------------------------------------------


async def test_a_model_is_fetched_checked_and_found(home: Home) -> None:
    """What is needed and no more, after saying what, from where and under which licence."""
    async with open_hub() as hub:
        done, bar = await home.models_on_a_terminal(hub.url, "pull", "piper")
        assert done.returncode == 0, bar
        told = done.stdout.decode()
        fetched = [name for name, _ in hub.asked]
        again = await home.pull(hub.url, "sherpa-piper")
    assert f"12 MB in 3 files from {hub.url}/{PIPER.hub_id} (licence: {PIPER.licence})" in told
    assert f"sherpa-piper is complete: {home.snapshot}" in told
    assert fetched == ["en_US-lessac-medium.onnx", "tokens.txt", "espeak-ng-data/en_dict"]
    for name in fetched:
        assert (home.snapshot / name).read_bytes() == FILES[name]
    assert not list(home.snapshot.rglob("*.incomplete"))
    assert problems_of(PIPER, home.snapshot) == []
    assert "100%" in bar
    assert again == [f"sherpa-piper is here already: {home.snapshot}"]
    assert len(hub.asked) == len(fetched)


async def test_a_download_goes_on_where_it_was_broken_off(home: Home) -> None:
    """Even where the process was killed; what has arrived is not asked for again."""
    async with open_hub(stalled={"en_US-lessac-medium.onnx"}) as hub:
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                [sys.executable, "-m", "listenai", "models", "pull", "piper"],
                capture_stdout=True, capture_stderr=True, check=False,
                cwd=home.folder, env=home.environment(hub.url),
            )  # fmt: skip
            process = await nursery.start(run)
            with trio.fail_after(30):
                # Another process's file: nobody tells.
                while sum(_sizes(home)) < STEP:  # noqa: ASYNC110
                    await trio.sleep(0.02)
            process.kill()
        listed = (await home.models(hub.url)).stdout.decode()
        hub.stalled.clear()
        hub.asked.clear()
        await home.pull(hub.url, "piper")
    assert "sherpa-piper is incomplete: " in listed
    assert hub.asked[0] == ("en_US-lessac-medium.onnx", f"bytes={STEP}-")
    assert (home.snapshot / "en_US-lessac-medium.onnx").read_bytes() == WEIGHTS


def _parts(home: Home) -> list[Path]:
    return list(home.folder.rglob("*.incomplete"))


def _sizes(home: Home) -> list[int]:
    return [part.stat().st_size for part in _parts(home)]


@pytest.mark.parametrize("name", ["en_US-lessac-medium.onnx", "tokens.txt"])
async def test_what_arrives_damaged_is_not_kept(home: Home, name: str) -> None:
    """Of the announced size, but of another hash; the next attempt starts it anew."""
    async with open_hub(damaged={name}) as hub:
        with pytest.raises(PullFailed, match=f"^{name} arrived damaged"):
            await home.pull(hub.url, "piper")
        assert not (home.snapshot / name).exists()
        assert not _parts(home)
        hub.damaged.clear()
        await home.pull(hub.url, "piper")
    assert problems_of(PIPER, home.snapshot) == []


async def test_models_dir_is_where_it_goes(home: Home) -> None:
    """By our name for it, so that another machine may be given the folder."""
    places = Places(home.folder / "models", home.folder / ".cache")
    assert places.folder_for(PIPER, COMMIT) == home.folder / "models" / "sherpa-piper"
    assert Places(None, home.folder / ".cache").folder_for(PIPER, COMMIT) == home.snapshot


async def test_without_network_the_error_is_clear(home: Home) -> None:
    """One line: what did not work, and three ways on."""
    done = await home.models("http://127.0.0.1:1", "pull", "piper")
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("listenai: http://127.0.0.1:1 cannot be reached")
    for way in ("Run the same command again", "HF_ENDPOINT", "MODELS_DIR"):
        assert way in line


async def test_a_hub_without_the_model_is_told(home: Home) -> None:
    """And a name that is none lists those there are, without asking anybody."""
    async with open_hub() as hub:
        missing = f"{hub.url} has no {MODELS['sherpa-kokoro'].hub_id}"
        with pytest.raises(PullFailed, match=re.escape(missing)):
            await home.pull(hub.url, "kokoro")
        with pytest.raises(PullFailed, match="no model 'whisper'; there are default, fun-asr-"):
            await home.pull(hub.url, "whisper")
    assert hub.asked == []


async def test_what_a_hub_leaves_out_is_told(home: Home) -> None:
    """A repository that changed is not taken for a model."""
    files = {name: content for name, content in FILES.items() if name != "tokens.txt"}
    async with open_hub(files=files) as hub:
        with pytest.raises(PullFailed, match=r"has no tokens\.txt"):
            await home.pull(hub.url, "piper")


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/elsewhere", "a/../../../b"])
async def test_a_hub_cannot_write_elsewhere(home: Home, name: str) -> None:
    """Names of files are paths on this machine."""
    async with open_hub(files={**FILES, name: b"evil"}) as hub:
        with pytest.raises(PullFailed, match="not trusted"):
            await home.pull(hub.url, "piper")
    assert hub.asked == []


# --- choosing ------------------------------------------------------------------------------


def test_names_may_be_short_and_default_suits_the_machine() -> None:
    assert [each.name for each in chosen_models("kokoro")] == ["sherpa-kokoro"]
    assert [each.name for each in chosen_models("voxcpm-0.5b")] == ["voxcpm-0.5b"]
    for has_gpu in (True, False):
        default = chosen_models("default", has_gpu=has_gpu)
        assert sorted(each.does for each in default) == ["asr", "tts"]
        assert [each.needs_gpu for each in default] == [has_gpu, has_gpu]
    with pytest.raises(PullFailed, match="there are default, "):
        chosen_models("gpt")


def test_of_weights_in_several_forms_one_is_fetched() -> None:
    """The first that we load; small alternatives are all taken."""
    model = MODELS["sherpa-kokoro"]
    names = ["model.onnx", "model.int8.onnx", "voices.bin", "lexicon-us-en.txt", "lexicon-zh.txt"]
    listed = [HubFile(name, 1, None, "") for name in names]
    kept = [file.name for file in wanted(model, listed)]
    assert kept == ["model.int8.onnx", "voices.bin", "lexicon-us-en.txt", "lexicon-zh.txt"]
    only = [file.name for file in wanted(model, listed[:1])]
    assert only == ["model.onnx"]


def test_a_file_is_known_by_size_and_hash(tmp_path: Path) -> None:
    """By the hub's hash of large files, or by git's of small ones."""
    file = tmp_path / "x"
    file.write_bytes(b"hello")
    large = HubFile("x", 5, sha256(b"hello"), "")
    small = HubFile("x", 5, None, git_hash(b"hello"))
    assert matches(file, large)
    assert matches(file, small)
    for other in (
        attrs.evolve(large, size=6),
        attrs.evolve(large, sha256=sha256(b"hallo")),
        attrs.evolve(small, git_hash=git_hash(b"hallo")),
    ):
        assert not matches(file, other)


# --- listing -------------------------------------------------------------------------------


def test_the_list_says_what_is_here_and_what_is_not(tmp_path: Path) -> None:
    """Found, incomplete with what is missing, or not here; and where each is looked for."""
    places = Places(tmp_path / "models", tmp_path / "cache")
    whole = tmp_path / "models" / "sherpa-piper"
    (whole / "espeak-ng-data").mkdir(parents=True)
    for name in ("voice.onnx", "tokens.txt", "espeak-ng-data/en_dict"):
        (whole / name).write_text("x")
    part = tmp_path / "models" / "VoxCPM-0.5B"
    part.mkdir()
    (part / "config.json").write_text("{}")
    text = "\n".join(as_lines(places))
    for model in MODELS.values():
        [row] = [line for line in text.splitlines() if line.startswith(f"{model.name} ")][:1]
        assert f"{model.megabytes} MB" in row
        assert model.licence in row
        assert " ".join(model.languages) in row
    assert f"in {whole}" in text
    assert "voxcpm-0.5b is incomplete: " in text
    assert "tokenizer.json" in text
    assert f"{tmp_path / 'models'}  (MODELS_DIR)" in text
    states = {each.model.name: (each.folder, bool(each.problems)) for each in survey(places)}
    assert states["sherpa-piper"] == (whole, False)
    assert states["voxcpm-0.5b"] == (None, True)
    assert states["sherpa-kokoro"] == (None, False)


def test_the_cache_is_where_the_environment_says(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert places_of(Config(), home).cache_folder == tmp_path / ".cache"
    elsewhere = {**home, "XDG_CACHE_HOME": str(tmp_path / "c")}
    assert places_of(Config(), elsewhere).cache_folder == tmp_path / "c"
