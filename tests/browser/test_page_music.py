"""Music through the page: streamed by the server, or from the page's own music box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, expect, sync_playwright
from stage import HERE, server
from visitor import Visitor, quiet_microphone, visitor

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

AUDIBLE, SILENT = "loudness() > 0.02", "loudness() < 0.001"
AT_REST = "listenai.situation.key === 'listening'"
MUSIC = "Object.values(listenai.state.streams).find(({source}) => source === 'music')"
# Nobody speaks: what sounds is music, a second of which has been heard.
ONLY_MUSIC = (
    "listenai.situation.detail.startsWith('Music plays.')"
    f" && {MUSIC}.played > {MUSIC}.sampleRate && {AUDIBLE}"
)
RESULTS = """
listenai.events.filter(({event}) => event.type === "sent" && event.message.type === "tool_result")
    .map(({event}) => event.message.result)
"""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


@pytest.fixture
def user(playwright: Playwright, url: str, tmp_path: Path) -> Iterator[Visitor]:
    """With a page whose loudness is measured."""
    with visitor(playwright, url, quiet_microphone(tmp_path)) as opened:
        opened.page.add_init_script(path=HERE / "outlets.js")
        opened.page.reload()
        yield opened


def test_the_servers_music_is_played_and_shown_until_stop(user: Visitor) -> None:
    """A stream of its own, which goes on behind the answer; then silence, and no word of it."""
    user.connect()
    vitals = user.page.locator("#vitals")
    expect(vitals).not_to_contain_text("music")
    user.types("Play some music.")
    card = user.rows("tool")
    expect(card).to_contain_text("succeeded")
    expect(card).to_contain_text("on the server")
    user.until(ONLY_MUSIC, "music sounds when the answer is over")
    expect(vitals).to_contain_text("music")
    user.types("Stop.")
    user.until(f"{AT_REST} && {SILENT}", "silence after stop")
    expect(vitals).not_to_contain_text("music")
    user.types("What is twelve times seven?")
    user.until(f"listenai.situation.key === 'speaking' && {AUDIBLE}", "the answer sounds")
    expect(vitals).not_to_contain_text("music")


def test_music_goes_on_under_an_answer(user: Visitor) -> None:
    """And after it, as the same stream."""
    user.connect()
    user.types("Play some music.")
    user.until(ONLY_MUSIC, "music sounds when the answer is over")
    stream = user.page.evaluate(f"{MUSIC}.id")
    answer = user.asks("What is twelve times seven?")
    assert "84" in answer or "eighty" in answer
    user.until(ONLY_MUSIC, "music sounds after another answer")
    assert user.page.evaluate(f"{MUSIC}.id") == stream


def test_the_pages_own_music_box_plays_when_the_assistant_asks(user: Visitor) -> None:
    """`play_music` is then a tool of the device: the page answers, and nothing is streamed."""
    user.page.click("#tab-settings")
    user.page.check("[name=ownMusic]")
    user.connect()
    user.types("Play some music.")
    card = user.rows("tool")
    expect(card).to_contain_text("succeeded")
    expect(card).to_contain_text("on this page")
    title = "Small rain, a music box tune"
    assert user.page.evaluate(RESULTS) == [{"action": "play", "title": title}]
    user.until(f"{AT_REST} && {AUDIBLE}", "the box sounds when the answer is over")
    assert not user.page.evaluate(MUSIC)
    user.types("Stop the music.")
    user.until(f"{AT_REST} && {SILENT}", "silence after stop")
    assert user.page.evaluate(RESULTS)[1:] == [{"action": "stop", "was_playing": True}]
