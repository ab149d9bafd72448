"""The page's modules in Firefox ESR."""

from __future__ import annotations

from pathlib import Path

import pytest
from firefox import firefox
from smoke import check_smoke
from stage import harness_server, harness_url, server, sound_card
from watched import Harness

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]


def test_firefox_connects_captures_plays_pauses_and_flushes(tmp_path: Path) -> None:
    """With its own fake microphone, against a real server."""
    with (
        server() as url,
        harness_server() as port,
        sound_card(tmp_path) as env,
        firefox(tmp_path, env) as page,
    ):
        page.open(harness_url(port, url))
        harness = Harness(page.evaluate)
        harness.until("window.harness !== undefined", 10)
        check_smoke(harness)
