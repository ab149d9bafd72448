"""The page behaves: says nothing to the console, asks nobody else, lets nothing foreign run."""

from __future__ import annotations

import io
import wave
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import numpy as np
import pytest
from end_to_end_server import TEXTS
from playwright.sync_api import Error, Page, Playwright, expect, sync_playwright
from stage import microphone_file, server, silence
from visitor import LATER_MS, quiet_microphone, visitor
from watched import LOUD

from listenai.server.page import HEADERS

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

QUESTION = "twelve_times_seven.wav"
ROWS = """
[...document.querySelectorAll("#log > li")].map((row) => [
    row.className, row.querySelector(".text, .toolcard").textContent])
"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


@attrs.define
class Traffic:
    """What a page said to the console, and where it went."""

    said: list[str] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)  # URLs

    def watch(self, page: Page) -> None:
        page.on("console", lambda one: self.said.append(f"{one.type}: {one.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.context.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))


@attrs.frozen
class Afternoon:
    """A whole session, and what was left of it."""

    traffic: Traffic
    rows: Sequence[Sequence[str]]  # of the conversation at the export: class and text
    archive: bytes


@pytest.fixture(scope="module")
def afternoon(
    playwright: Playwright, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Afternoon:
    """Talks, types, interrupts, exports, leaves, comes back, and watches the demo."""
    directory = tmp_path_factory.mktemp("afternoon")
    question = microphone_file(directory / "question.wav", silence(3), QUESTION, silence(1))
    traffic = Traffic()
    with visitor(playwright, url, question) as user:
        traffic.watch(user.page)
        user.page.reload()  # watched from its first request on
        user.page.click("#connect")
        expect(user.rows("user").locator(".text")).to_have_text(TEXTS[QUESTION])
        expect(user.rows("assistant").locator(".heard")).to_contain_text("84")
        user.sees("Listening")
        user.asks("Set the volume to fifty percent.")
        user.types("Tell me a story.")
        user.until(
            "Object.values(listenai.state.streams).at(-1).played > 0 && "
            "listenai.situation.key === 'speaking'"
        )
        user.page.click("#talk")
        expect(user.page.locator("#log .k-assistant.interrupted")).to_be_visible()
        user.sees("Listening")
        for tab in ("protocol", "stats", "settings", "log"):
            user.page.click(f"#tab-{tab}")
        user.page.click("#connect")
        user.sees("Not connected")
        rows = user.page.evaluate(ROWS)
        with user.page.expect_download() as download:
            user.page.click("#export")
        download.value.save_as(directory / "session.zip")
        user.connect()
        user.asks("What is twelve times seven?")
        user.page.click("#connect")
        user.sees("Not connected")
        user.page.click("#demo")
        user.until("listenai.state.entries.some(({kind}) => kind === 'assistant')")
        user.page.click("#replay-stop")
    return Afternoon(traffic, rows, (directory / "session.zip").read_bytes())


def test_the_console_stays_empty(afternoon: Afternoon) -> None:
    """No error, no warning, no line that somebody forgot, and none of the browser's own.

    Those come where a server refuses (`test_page_use.REFUSED`) or is gone (`chromium._is_ours`).
    """
    assert afternoon.traffic.said == []


def test_without_a_remote_address_nothing_leaves_the_origin(afternoon: Afternoon, url: str) -> None:
    """Each request and each socket goes to the server that the page is from.

    Playwright does not tell what a worklet loads; the policy's `script-src` limits that.
    """
    asked = [urlsplit(one) for one in afternoon.traffic.asked]
    assert {one.scheme for one in asked} <= {"http", "ws", "blob", "data"}
    assert {one.netloc for one in asked if one.netloc} == {urlsplit(url).netloc}
    # Nothing was missed: modules, the demo and both connections are among them.
    paths = {one.path for one in asked}
    assert {"/", "/app.js", "/audio/player.js", "/style.css", "/demo/session.jsonl"} <= paths
    assert sum(one.scheme == "ws" for one in asked) == 2


# --- export and replay -----------------------------------------------------------------------


def test_the_export_is_a_zip_that_others_can_read(afternoon: Afternoon) -> None:
    """Events as JSON lines, and what both said as sound."""
    with zipfile.ZipFile(io.BytesIO(afternoon.archive)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["assistant.wav", "session.jsonl", "you.wav"]
        lines = archive.read("session.jsonl").decode().splitlines()
        assert len(lines) > 100
        for name in ("you.wav", "assistant.wav"):
            with wave.open(io.BytesIO(archive.read(name))) as file:
                assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
                samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
                assert np.abs(samples.astype(int)).max() > LOUD
                assert len(samples) > file.getframerate()


def test_an_export_shows_the_same_conversation_again(
    playwright: Playwright, url: str, tmp_path: Path, afternoon: Afternoon
) -> None:
    """In another browser, through the page's file button, without a connection."""
    kinds = {row[0].split()[1] for row in afternoon.rows}
    assert kinds == {"k-system", "k-user", "k-assistant", "k-tool"}
    file = {"name": "a.zip", "mimeType": "application/zip", "buffer": afternoon.archive}
    traffic = Traffic()
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        traffic.watch(user.page)
        user.page.set_input_files("#open", [file])
        expect(user.page.locator("#replay-title")).to_have_text("a.zip")
        expect(user.page.locator("#replay-toggle")).to_have_text("Again", timeout=2 * LATER_MS)
        assert user.page.evaluate(ROWS) == afternoon.rows
    assert not [one for one in traffic.asked if one.startswith("ws")]


@pytest.mark.parametrize("content", [b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_export_is_refused_in_words(
    playwright: Playwright, url: str, tmp_path: Path, content: bytes
) -> None:
    """Something else, and a zip without anything in it."""
    file = {"name": "a.zip", "mimeType": "application/zip", "buffer": content}
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        user.page.set_input_files("#open", [file])
        expect(user.rows("error")).to_contain_text("Cannot replay: ")
        user.connect()


# --- what may run -----------------------------------------------------------------------------

INJECT = """
(() => {
    const script = document.createElement("script");
    script.append(document.createTextNode("window.injected = true"));
    document.body.append(script);
    return window.injected === true;
})()
"""


def test_an_injected_script_does_not_run(playwright: Playwright, url: str, tmp_path: Path) -> None:
    """The policy of the server is in force; without it, the same script runs."""
    quiet = quiet_microphone(tmp_path)
    with visitor(playwright, url, quiet, bypass_csp=True) as user:
        assert user.page.evaluate(INJECT) is True
    with visitor(playwright, url, quiet, provoked="TrustedScript") as user:
        answer = user.page.request.get(url)
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        user.page.evaluate(
            "window.violations = [], addEventListener('securitypolicyviolation',"
            " ({effectiveDirective}) => { violations.push(effectiveDirective); })"
        )
        with suppress(Error):  # or it only does nothing
            user.page.evaluate(INJECT)
        assert user.page.evaluate("window.injected") is None
        user.until("violations.length > 0", "the browser tells of the violation")


def test_the_page_cannot_ask_another_site(playwright: Playwright, url: str, tmp_path: Path) -> None:
    """By the policy, before anything goes out."""
    quiet, refused = quiet_microphone(tmp_path), "Content Security Policy"
    with server() as other:
        ask = f"fetch('{other}health', {{mode: 'no-cors'}}).then(() => 'sent', () => 'kept')"
        with visitor(playwright, url, quiet, bypass_csp=True) as user:
            assert user.page.evaluate(ask) == "sent"
        with visitor(playwright, url, quiet, provoked=refused) as user:
            assert user.page.evaluate(ask) == "kept"
