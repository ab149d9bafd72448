"""The JavaScript of spec 004, "Client Integration", in Chromium with a real MediaRecorder.

The code is taken from the specification as it stands; its placeholder for a token is filled in,
and its address, localhost:3002, leads to the server's port.
"""

from __future__ import annotations

import re
from pathlib import Path

import jwt
import pytest
from chromium import chromium, hears
from end_to_end_server import TEXTS
from playwright.sync_api import Page, sync_playwright
from stage import microphone_file, server, silence, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

TESTS = Path(__file__).parents[1]
SPEC = (TESTS / "spec" / "spec_004.txt").read_text("utf-8")
PAGE = (TESTS / "devices" / "ninja_client.html").read_text("utf-8")
SECRET = "a secret of tests, longer than thirty-two bytes"
PLACEHOLDER = "'your-jwt-token'"
ADDRESS = "localhost:3002"  # which the specification writes into its code


def page_of_the_specification() -> str:
    """The client, each section in its place."""
    sections = re.findall(r"#### (.+?)\n\n```javascript\n(.+?)```", SPEC, re.DOTALL)
    assert [title[0] for title, _ in sections] == ["1", "2", "3", "4"]
    page = PAGE
    for title, code in sections:
        assert page.count(f"/* {title} */") == 1
        page = page.replace(f"/* {title} */", code)
    assert page.count(PLACEHOLDER) == 1
    assert ADDRESS in page
    return page.replace(PLACEHOLDER, f"'{jwt.encode({'sub': 'user-123'}, SECRET, 'HS256')}'")


def open_client(page: Page) -> list[str]:
    """Opens the client; what it logs."""
    logged: list[str] = []
    page.on("console", lambda said: logged.append(said.text))
    # Into a page that really came from there: an invented one may not talk to this machine.
    page.goto(f"http://{ADDRESS}/health")
    page.set_content(page_of_the_specification())
    wait_for(lambda: page.evaluate("window.client !== undefined"), 15, "a session and a recorder")
    return logged


def wait_logged(page: Page, logged: list[str], pattern: str) -> None:
    """Until a whole line matches; what the page logs comes in while the page is asked something."""

    def found() -> bool:
        return page.evaluate("true") and any(re.fullmatch(pattern, line) for line in logged)

    try:
        wait_for(found, 20, pattern)
    except AssertionError as error:
        raise AssertionError(f"{error}; logged: {logged[-20:]}") from None


def test_the_documents_client_is_understood_and_answered(tmp_path: Path) -> None:
    """It gets a token, is heard through WebM, sees transcript and answer, and plays every file."""
    name = "what_time_is_it.wav"
    question = microphone_file(tmp_path / "question.wav", silence(0.7), name, silence(20))
    with (
        server(ALLOWED_ORIGINS="", JWT_SECRET=SECRET) as url,
        sync_playwright() as playwright,
    ):
        port = url.rstrip("/").rpartition(":")[2]
        leads_there = f"--host-resolver-rules=MAP {ADDRESS} 127.0.0.1:{port}"
        autoplay = "--autoplay-policy=no-user-gesture-required"
        no_icon = r"404 \(\)"  # of the page that is only there to be replaced
        with chromium(
            playwright, *hears(question), leads_there, autoplay, provoked=no_icon
        ) as page:
            logged = open_client(page)
            assert page.evaluate("client.mediaRecorder.mimeType") == "audio/webm;codecs=opus"
            wait_logged(page, logged, f"Transcript: {TEXTS[name]}")
            wait_logged(page, logged, r"AI Response: It is \d.+")
            wait_for(lambda: page.evaluate("played.seconds > 1"), 20, "the voice")
            assert page.evaluate("played.errors") == []
            assert page.evaluate("client.ws.readyState") == 1
            assert "Connected to realtime server" in logged
