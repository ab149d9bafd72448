"""What the page shows beside the conversation: colours, tools, counts, spectrum and settings."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import ALLOWED, FAKE, chromium, hears
from playwright.sync_api import Page, Playwright, expect, sync_playwright
from stage import microphone_file, server, silence, wait_for
from test_page_in_chromium import listened_in

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

LATER_MS = 30_000
VOICE = "en-gb"  # not the server's choice
HUES = {"system": "blue", "user": "purple", "assistant": "orange", "error": "red", "tool": "green"}
# How often the spectrum is made of a Fourier transform and drawn; what the microphone is asked.
SPIES = """
window.drawn = window.analysed = 0;
const clear = CanvasRenderingContext2D.prototype.clearRect;
CanvasRenderingContext2D.prototype.clearRect = function (...area) {
  if (this.canvas.id === "spectrum") window.drawn += 1;
  return clear.apply(this, area);
};
const analyse = AnalyserNode.prototype.getByteFrequencyData;
AnalyserNode.prototype.getByteFrequencyData = function (bins) {
  window.analysed += 1;
  return analyse.call(this, bins);
};
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wanted) => {
  window.wanted = wanted.audio;
  return ask(wanted);
};
"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


def colour_of(page: Page, kind: str) -> str:
    """What people call the colour of the newest row of this kind."""
    row = page.locator(f"#log .k-{kind} .who").last
    told = row.evaluate("(one) => getComputedStyle(one).color")
    red, green, blue = (int(number) / 255 for number in re.findall(r"\d+", told)[:3])
    degrees = colorsys.rgb_to_hsv(red, green, blue)[0] * 360
    names = [(15, "red"), (50, "orange"), (160, "green"), (240, "blue"), (300, "purple")]
    return next((name for end, name in names if degrees < end), "red")


def statistics(page: Page) -> dict[str, str]:
    pairs = page.locator("#stats").evaluate(
        "(list) => [...list.querySelectorAll('dt')].map((one) => [one.textContent,"
        " one.nextElementSibling.textContent])"
    )
    return dict(pairs)


def test_a_spoken_command_is_shown_in_its_colours_and_counted(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """Transcript, tool card and answer, each with its time; then what was counted of it."""
    command = microphone_file(
        tmp_path / "command.wav", silence(1.5), "volume_fifty.wav", silence(60)
    )
    with chromium(playwright, *hears(command)) as page:
        page.goto(url)
        page.click("#connect")
        expect(page.locator("#pill-text")).to_have_text("Listening", timeout=LATER_MS)
        card = page.locator("#log .k-tool")
        expect(card).to_contain_text("succeeded", timeout=LATER_MS)
        expect(card.locator("use")).to_have_attribute("href", "#i-volume")
        terms = card.locator("dt").all_text_contents()
        values = card.locator("dd").all_text_contents()
        shown = dict(zip(terms, values, strict=True))
        assert shown["level"] == "50"
        assert "50" in shown["result"]
        assert re.search(r"\d ms", card.text_content() or "")
        answer = page.locator("#log .k-assistant .text")
        expect(answer).to_contain_text("volume", timeout=LATER_MS)
        expect(page.locator("#log .k-assistant .ahead")).to_have_count(0, timeout=LATER_MS)
        page.click("#tab-settings")
        page.fill("[name=voice_id]", "nobody")
        page.click("#apply")
        expect(page.locator("#log .k-error")).to_have_count(1, timeout=LATER_MS)
        assert {kind: colour_of(page, kind) for kind in HUES} == HUES
        times = page.locator("#log time").all_text_contents()
        assert len(times) == page.locator("#log > li").count()
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d", time) for time in times)
        # The newest message is in sight, the oldest is scrolled away, and can be scrolled to.
        oldest = page.locator("#log > li").first
        expect(oldest).not_to_be_in_viewport()
        page.locator("#log-scroller").evaluate("(one) => { one.scrollTop = 0; }")
        expect(oldest).to_be_in_viewport()
        page.click("#tab-stats")
        counted = statistics(page)
        assert counted["Connection"] == "connected"
        assert int(counted["Messages"]) == len(times)
        assert counted["Tool calls"] == "1"
        assert re.fullmatch(r"\d[\d\s]* ms", counted["Average latency"])
        before = counted["Session duration"]
        wait_for(lambda: statistics(page)["Session duration"] != before, 5, "the clock goes on")


def test_a_failed_tool_is_shown_as_such(playwright: Playwright, tmp_path: Path) -> None:
    """The weather, where nobody answers for it."""
    nowhere = "http://127.0.0.1:9/"
    with (
        server(WEATHER_GEOCODING_URL=nowhere, WEATHER_FORECAST_URL=nowhere) as url,
        chromium(playwright, ALLOWED, FAKE) as page,
    ):
        page.goto(url)
        page.click("#connect")
        expect(page.locator("#title")).to_have_text("Listening", timeout=LATER_MS)
        page.fill("#message", "What is the weather in Beijing?")
        page.press("#message", "Enter")
        card = page.locator("#log .k-tool")
        expect(card.locator(".status")).to_have_text("failed", timeout=LATER_MS)
        expect(card.locator("use")).to_have_attribute("href", "#i-weather")
        expect(card.locator("dt").last).to_have_text("reason")


def test_the_spectrum_moves_with_what_is_heard_as_often_as_was_chosen(
    playwright: Playwright, url: str
) -> None:
    """The microphone beeps once a second; it is asked to leave out echo and noise."""
    with chromium(playwright, ALLOWED, FAKE) as page:
        page.add_init_script(SPIES)
        page.goto(url)
        page.click("#connect")
        expect(page.locator("#title")).not_to_have_text("Not connected", timeout=LATER_MS)
        wait_for(lambda: page.evaluate("window.wanted"), 10, "the microphone is asked for")
        wanted = page.evaluate("window.wanted")
        assert wanted["echoCancellation"] is True
        assert wanted["noiseSuppression"] is True
        look = "document.querySelector('#spectrum').toDataURL()"
        pictures = set()
        for _ in range(20):
            pictures.add(page.evaluate(look))
            page.wait_for_timeout(100)
        assert len(pictures) > 5
        assert page.evaluate("window.analysed") > 5
        page.click("#tab-settings")
        drawn = {}
        for often in ("5", "60"):
            page.select_option("[name=visualiserFps]", often)
            began = page.evaluate("window.drawn")
            page.wait_for_timeout(2000)
            drawn[often] = page.evaluate("window.drawn") - began
        assert drawn["5"] <= 12 < drawn["60"], drawn


def test_volume_and_pause_rule_the_loudspeaker(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """At 0 % nothing sounds; paused, nothing more, until it goes on."""
    quiet = microphone_file(tmp_path / "quiet.wav", silence(1))
    with listened_in(playwright, url, hears(quiet)) as (page, watched):
        expect(page.locator("#title")).to_have_text("Listening", timeout=LATER_MS)
        page.locator("#volume").fill("0")
        expect(page.locator("#volume-value")).to_have_text("0%")
        page.fill("#message", "Tell me a story.")
        page.press("#message", "Enter")
        watched.until("listenai.state.player.state === 'playing'", 20)
        page.wait_for_timeout(1000)
        assert np.abs(watched.recorded()).max() == 0
        page.locator("#volume").fill("100")
        wait_for(lambda: np.abs(watched.recorded()).max() > 1000, 10, "it sounds")
        page.click("#pause")
        page.wait_for_timeout(300)
        held = len(watched.recorded())
        page.wait_for_timeout(700)
        assert not np.any(watched.recorded()[held:])
        page.click("#pause")
        wait_for(lambda: np.any(watched.recorded()[held:]), 10, "it goes on")


def test_settings_are_applied_and_kept(playwright: Playwright, url: str) -> None:
    """Language and voice reach the server, and are there again when the page is loaded anew."""
    with chromium(playwright, ALLOWED, FAKE) as page:
        page.goto(url)
        page.click("#connect")
        page.click("#tab-settings")
        language = page.locator("select[name=language]")
        # The embedded recognizer knows no other.
        expect(language.locator("option[value=en]")).to_have_count(1, timeout=LATER_MS)
        language.select_option("en")
        page.fill("[name=voice_id]", VOICE)
        page.click("#apply")
        in_force = "listenai.state.session.configuration?.voice_id"
        wait_for(lambda: page.evaluate(in_force) == VOICE, 10, "it is in force")
        page.reload()
        page.click("#connect")
        expect(language).to_have_value("en", timeout=LATER_MS)
        expect(page.locator("[name=voice_id]")).to_have_value(VOICE)
        wait_for(lambda: page.evaluate(in_force) == VOICE, 10, "it is kept")


def test_another_server_may_be_named(playwright: Playwright, url: str) -> None:
    """The page of one server connects to another; an address that cannot work is told."""
    with server() as other, chromium(playwright, ALLOWED, FAKE) as page:
        page.goto(url)
        page.click("#tab-settings")
        address = page.locator("[name=url]")
        address.fill("http://")
        address.blur()
        page.click("#connect")
        problem = page.locator("#log .k-error .text")
        expect(problem).to_contain_text("is no address", timeout=LATER_MS)
        address.fill("127.0.0.1:9")  # nobody listens there
        address.blur()
        page.click("#connect")
        expect(page.locator("#title")).to_have_text("Reconnecting", timeout=LATER_MS)
        page.click("#connect")
        expect(page.locator("#title")).to_have_text("Not connected")
        address.fill(other)
        address.blur()
        page.click("#connect")
        expect(page.locator("#title")).to_have_text("Listening", timeout=LATER_MS)
        connected_to = page.evaluate("listenai.state.connection.url")
        assert connected_to.split("//")[1] == other.split("//")[1]
