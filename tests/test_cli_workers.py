"""`listenai serve --workers`: one process, and a clear answer to who asks for more."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from listenai.cli import UNUSABLE, main


def serve(folder: Path, *options: str, port: str = "none") -> Result:
    """`listenai serve` with a port that ends it before it would listen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CLOUD_PORT", port)
        return CliRunner().invoke(main, ["serve", *options])


@pytest.mark.parametrize("workers", ["2", "0", "-1"])
def test_other_numbers_of_workers_are_refused(tmp_path: Path, workers: str) -> None:
    """The answer says why, and what to do instead; nothing is tried."""
    result = serve(tmp_path, "--workers", workers)
    assert result.exit_code == UNUSABLE
    said = " ".join(result.output.split())
    assert "--workers" in said
    assert f"{workers} is not possible, only 1" in said
    assert "sessions live in this process's memory; run one process, or several on ports" in said
    assert "behind a proxy that keeps a session's connections together" in said
    assert "CLOUD_PORT" not in said


def test_no_number_is_no_number_of_workers(tmp_path: Path) -> None:
    """A word is refused too."""
    result = serve(tmp_path, "--workers", "auto")
    assert result.exit_code == UNUSABLE
    assert "'auto' is not a valid integer" in result.output


@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_one_worker_goes_on_to_serve(tmp_path: Path, options: tuple[str, ...]) -> None:
    """It is what `serve` does anyway: the next thing that is wrong is the port."""
    result = serve(tmp_path, *options)
    assert result.exit_code == UNUSABLE
    assert "CLOUD_PORT" in result.output
    assert "workers" not in result.output
