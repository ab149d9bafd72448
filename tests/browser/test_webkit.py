"""The page's modules in WebKitGTK, the engine of Safari."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service
from smoke import check_smoke
from stage import harness_server, harness_url, need, process, server, sound_card, wait_for
from watched import Harness

pytestmark = [
    pytest.mark.browser,
    pytest.mark.engines,
    pytest.mark.slow,
    # Selenium's own WebKitGTK driver still calls its base class in the old way.
    pytest.mark.filterwarnings("ignore:setting remote_server_addr:DeprecationWarning"),
]

_FLAGS = (
    "--automation",
    "--enable-media-stream=true",
    "--enable-mock-capture-devices=true",
    "--autoplay-policy=allow",
    "--private",
)


@contextmanager
def screen(directory: Path) -> Iterator[dict[str, str]]:
    """An X server without a screen; the environment of programs that use it."""
    need("Xvfb")
    number = directory / "display"
    with number.open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        command = ["Xvfb", "-displayfd", str(file.fileno()), "-screen", "0", "1280x800x24"]
        with process(command, pass_fds=(file.fileno(),)):
            display = wait_for(lambda: number.read_text().strip(), 10, "Xvfb tells its display")
            yield {"DISPLAY": f":{display}"}


@contextmanager
def webkit(env: dict[str, str]) -> Iterator[webdriver.WebKitGTK]:
    """A browser of its own."""
    need("WebKitWebDriver")
    options = Options()
    options.binary_location = str(_mini_browser())
    for flag in _FLAGS:
        options.add_argument(flag)
    more = {
        "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
        "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # CI runs as root
    }
    service = Service("/usr/bin/WebKitWebDriver", env={**os.environ, **env, **more})
    driver = webdriver.WebKitGTK(options=options, service=service)
    try:
        driver.set_script_timeout(30)
        yield driver
    finally:
        driver.quit()


def _mini_browser() -> Path:
    found = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))
    assert found, "please install: apt-get install -y webkit2gtk-driver"
    return found[-1]


def evaluator(driver: webdriver.WebKitGTK) -> Any:
    """Gives what an expression is in the page, promises waited for."""

    def evaluate(expression: str) -> Any:
        answer = driver.execute_async_script(
            "const answer = arguments[arguments.length - 1];"
            f"Promise.resolve().then(() => ({expression}))"
            ".then((value) => answer(JSON.stringify({value})),"
            "      (error) => answer(JSON.stringify({error: String(error)})));"
        )
        result = json.loads(answer)
        assert "error" not in result, f"{expression}: {result['error']}"
        return result.get("value")

    return evaluate


def test_webkit_connects_captures_plays_pauses_and_flushes(tmp_path: Path) -> None:
    """With its own mock microphone, against a real server."""
    with (
        server() as url,
        harness_server() as port,
        sound_card(tmp_path) as sound,
        screen(tmp_path) as display,
        webkit({**sound, **display}) as driver,
    ):
        driver.get(harness_url(port, url))
        harness = Harness(evaluator(driver))
        harness.until("window.harness !== undefined", 10)
        check_smoke(harness)
