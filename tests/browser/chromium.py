"""Debian's Chromium through Playwright, with a fake microphone, and the harness in it.

The page's policy forbids `eval`, so that Playwright's own way to wait for a condition does
not work; `until` asks again and again in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Playwright
from stage import need
from watched import Harness

_EXECUTABLE = "/usr/bin/chromium"
_FLAGS = (
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ALLOWED = "--use-fake-ui-for-media-stream"  # whoever asks for the microphone gets it
FAKE = "--use-fake-device-for-media-stream"


def hears(file: Path) -> Sequence[str]:
    """Flags for a microphone that hears a file, once, from the moment that it is opened."""
    return ALLOWED, FAKE, f"--use-file-for-fake-audio-capture={file}%noloop"


@contextmanager
def chromium(
    playwright: Playwright,
    *flags: str,
    env: Mapping[str, str] | None = None,
    provoked: str = r"(?!)",
    **context: Any,
) -> Iterator[Page]:
    """A page in a browser of its own; fails at the end where the page had an error.

    provoked: a regular expression of errors that the test means to cause.
    """
    need("chromium")
    browser = playwright.chromium.launch(
        executable_path=_EXECUTABLE,
        args=[*_FLAGS, *flags],
        env={**os.environ, **(env or {})},
        ignore_default_args=["--mute-audio"],
    )
    errors: list[str] = []
    try:
        page = browser.new_context(**context).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if _is_ours(said) else None)
        yield page
    finally:
        browser.close()
    errors = [error for error in errors if not re.search(provoked, error)]
    assert not errors, f"the page said: {errors}"


def _is_ours(said: Any) -> bool:
    """Errors of the page; that a server does not answer is what some tests are about."""
    return said.type == "error" and "net::ERR" not in said.text and "WebSocket" not in said.text


def open_harness(page: Page, url: str) -> Harness:
    """Loads the harness."""
    page.goto(url)
    harness = Harness(page.evaluate)
    harness.until("window.harness !== undefined", 10)
    return harness
