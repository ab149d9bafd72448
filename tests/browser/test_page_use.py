"""Ways to use the page: typing, push-to-talk, settings that stay, keys, an address of the LAN."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end_server import TEXTS
from playwright.sync_api import Playwright, expect, sync_playwright
from stage import microphone_file, server, silence
from visitor import quiet_microphone, visitor

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

QUESTION = "twelve_times_seven.wav"
KEY = "a-key-of-ann"
# What the browser says of a refusal, whatever a page does.
REFUSED = "status of 401"
SENT = "listenai.events.filter(({event}) => event.type === 'sent').map(({event}) => event.message)"
FRAMES = "listenai.events.some(({source, event}) => source === 'microphone' && event.samples)"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def locked_url() -> Iterator[str]:
    """Of a server that wants a key."""
    with server(API_KEYS=f"ann:{KEY}") as running:
        yield running


def test_a_typed_question_is_shown_and_answered(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """The field is empty then; without a connection, what was typed stays in it."""
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        user.types("What is twelve times seven?")
        expect(user.rows("system")).to_contain_text("Not connected: connect first")
        assert user.page.input_value("#message") == "What is twelve times seven?"
        user.connect()
        assert "84" in user.asks("What is twelve times seven?")
        assert user.page.input_value("#message") == ""
        row = user.rows("user")
        expect(row.locator(".text")).to_have_text("What is twelve times seven?")
        expect(row.locator(".chip")).to_have_text("typed")


@pytest.mark.parametrize("way", ["pointer", "key"])
def test_push_to_talk_sends_what_is_said_while_it_is_held(
    playwright: Playwright, url: str, tmp_path: Path, way: str
) -> None:
    """Nothing before and nothing after; letting go ends the turn, which would else wait."""
    spoken = microphone_file(tmp_path / "spoken.wav", silence(8), QUESTION, silence(1))
    patient = {"mode": "push_to_talk", "server": {"end_of_turn_ms": 10_000}}
    with visitor(playwright, url, spoken) as user:
        user.page.evaluate(
            "(settings) => localStorage.setItem('listenai.settings', JSON.stringify(settings))",
            patient,
        )
        user.page.reload()
        user.connect()
        expect(user.page.locator("#detail")).to_have_text("Hold the ring, or Space, and talk.")
        expect(user.page.locator("#talk-text")).to_have_text("Hold to talk")
        user.until("listenai.state.session.configuration.end_of_turn_ms === 10000")
        assert not user.page.evaluate(FRAMES)
        if way == "pointer":
            user.page.hover("#talk")
            user.page.mouse.down()
        else:
            user.page.evaluate("document.activeElement.blur()")
            user.page.keyboard.down("Space")
        user.until(f"listenai.state.entries.some(({{text}}) => text === {TEXTS[QUESTION]!r})")
        assert user.page.evaluate("listenai.state.turns.length") == 0
        if way == "pointer":
            user.page.mouse.up()
        else:
            user.page.keyboard.up("Space")
        expect(user.rows("assistant").locator(".heard")).to_contain_text("84")
        kinds = user.page.evaluate(f"{SENT}.map(({{type}}) => type)")
        assert "audio" in kinds[: kinds.index("end_of_speech")]
        assert "audio" not in kinds[kinds.index("end_of_speech") :]


def test_settings_outlive_a_reload(playwright: Playwright, url: str, tmp_path: Path) -> None:
    """Those of the page and those of the assistant; the latter are asked for at the next start."""
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        page = user.page
        page.click("#tab-settings")
        page.select_option("[name=theme]", "dark")
        page.fill("[name=prebufferMs]", "200")
        page.uncheck("[name=echoCancellation]")
        page.check("#mode [value=push_to_talk]", force=True)  # its label is what one sees
        page.locator("#volume").fill("40")
        page.fill("[name=system_prompt]", "Be brief.")
        page.fill("[name=vad_threshold]", "0.6")
        page.click("#apply")
        expect(page.locator("#apply-note")).to_have_text("Kept for the next connection.")
        before = page.evaluate("listenai.settings")
        page.reload()
        assert page.evaluate("listenai.settings") == before
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.click("#tab-settings")
        expect(page.locator("[name=prebufferMs]")).to_have_value("200")
        expect(page.locator("[name=echoCancellation]")).not_to_be_checked()
        expect(page.locator("#mode [value=push_to_talk]")).to_be_checked()
        expect(page.locator("#volume-value")).to_have_text("40%")
        expect(page.locator("[name=system_prompt]")).to_have_value("Be brief.")
        user.connect()
        user.until("listenai.state.session.configuration.vad_threshold === 0.6")
        assert page.evaluate("listenai.state.session.configuration.system_prompt") == "Be brief."


def test_a_reloaded_page_goes_on_with_its_session(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    with visitor(playwright, url, quiet_microphone(tmp_path)) as user:
        user.connect()
        session_id = user.page.evaluate("listenai.state.session.id")
        user.asks("What is twelve times seven?")
        user.page.reload()
        user.connect()
        assert user.page.evaluate("listenai.state.session.id") == session_id
        expect(user.rows("system").filter(has_text="goes on")).to_have_count(1)


# --- keys -------------------------------------------------------------------------------------


def test_without_its_key_the_page_says_what_to_do(
    playwright: Playwright, locked_url: str, tmp_path: Path
) -> None:
    """The button leads to the field for it; then it connects."""
    with visitor(playwright, locked_url, quiet_microphone(tmp_path), provoked=REFUSED) as user:
        user.page.click("#connect")
        user.sees("Not let in")
        expect(user.page.locator("#detail")).to_contain_text("Check the key in Settings.")
        expect(user.page.locator("#detail")).to_contain_text("A valid key is needed.")
        user.page.click("#recover")
        user.page.fill("[name=key]", KEY)
        user.page.press("[name=key]", "Tab")
        user.connect()


def test_a_key_in_the_address_is_used_and_no_longer_shown(
    playwright: Playwright, locked_url: str, tmp_path: Path
) -> None:
    """It stays with the tab, and never comes into an export."""
    with visitor(playwright, f"{locked_url}?key={KEY}", quiet_microphone(tmp_path)) as user:
        assert user.page.url == locked_url
        user.connect()
        with user.page.expect_download() as download:
            user.page.click("#export")
        with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
            assert all(KEY.encode() not in archive.read(name) for name in archive.namelist())
        user.page.reload()
        user.connect()


# --- elsewhere --------------------------------------------------------------------------------


def test_over_http_from_elsewhere_one_can_type_and_is_told_why_not_more(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """Browsers give microphone and sound to https and localhost alone."""
    elsewhere = url.replace("localhost", "lan.test")
    assert elsewhere != url
    resolve = "--host-resolver-rules=MAP lan.test 127.0.0.1"
    with visitor(playwright, elsewhere, quiet_microphone(tmp_path), resolve) as user:
        user.page.click("#connect")
        user.sees("Microphone blocked")
        expect(user.page.locator("#detail")).to_contain_text("https")
        user.types("What is twelve times seven?")
        expect(user.rows("assistant")).to_contain_text("84")
