"""The page as a user has it, in Chromium: what it shows and what is heard agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from chromium import ALLOWED, FAKE, chromium, hears
from end_to_end_server import TEXTS
from playwright.sync_api import Page, Playwright, expect, sync_playwright
from stage import HERE, microphone_file, server, silence
from watched import LOUD, Watched, sounding

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

BEGINNING = silence(1.5)  # a fake microphone loses its first moments
SESSION = "listenai.state.session.id"
QUIET = 30  # of 32 767: what resampling leaves before and after speech


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


@contextmanager
def listened_in(
    playwright: Playwright, url: str, flags: Sequence[str]
) -> Iterator[tuple[Page, Watched]]:
    """The page of a server, connected, and listened in on.

    That needs a worklet which the page's policy would refuse: here alone it is not in force.
    """
    module = "data:text/javascript," + quote((HERE / "recorder.js").read_text())
    with chromium(playwright, *flags, bypass_csp=True) as page:
        page.add_init_script(f"window.recorderModule = {json.dumps(module)}")
        page.add_init_script(path=HERE / "tap.js")
        page.goto(url)
        page.click("#connect")
        yield page, Watched(page.evaluate)


def test_the_page_shows_what_was_asked_and_plays_the_answer(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """The exact transcript; a reply that is heard whole, without a gap of 5 ms."""
    name = "twelve_times_seven.wav"
    question = microphone_file(tmp_path / "question.wav", BEGINNING, name, silence(30))
    with listened_in(playwright, url, hears(question)) as (page, watched):
        asked = page.locator("#log .k-user:not(.partial) .text")
        expect(asked).to_have_text(TEXTS[name], timeout=15_000)
        start = watched.message("tts_audio", state="start")["message"]
        answered = page.locator("#log .k-assistant .heard")
        done = watched.message("llm_response", done=True)["message"]
        expect(answered).to_have_text(done["text"], timeout=15_000)
        watched.until("listenai.state.player.state === 'idle'", 15)
        sent = sounding(watched.received(start["stream_id"]), QUIET)
        played = sounding(watched.recorded(), QUIET)
        assert np.abs(played).max() > LOUD
        gap_ms = 1000 * (
            len(played) / watched.call("tap.rate()") - len(sent) / start["sample_rate"]
        )
        assert abs(gap_ms) <= 5, f"{gap_ms:.1f} ms longer than what was sent"


def test_speech_over_the_answer_stops_it_and_the_page_shows_what_was_heard(
    playwright: Playwright, url: str, tmp_path: Path
) -> None:
    """Silent 30 ms after `pause`; the heard text is the one of the server's `interrupted`."""
    words = ("tell_me_a_story.wav", silence(5), "what_time_is_it.wav", silence(30))
    story = microphone_file(tmp_path / "story.wav", BEGINNING, *words)
    with listened_in(playwright, url, hears(story)) as (page, watched):
        begin = watched.message("tts_audio", state="start", seconds=20)
        stream_id, turn_id = begin["message"]["stream_id"], begin["message"]["turn_id"]
        watched.message("flush", stream_id=stream_id, seconds=20)
        interrupted = watched.message("interrupted", turn_id=turn_id)["message"]
        second = watched.message("tts_audio", state="start", stream_id=stream_id + 1)
        pauses = watched.pauses(second)
        assert pauses
        assert np.abs(watched.between(begin, pauses[0][0])).max() > LOUD
        for held, until in pauses:
            sounds_ms = watched.sound_after_ms(held, until)
            assert sounds_ms <= 30, f"{sounds_ms:.1f} ms of sound after `pause`"
        assert interrupted["certainty"] == "reported"
        assert interrupted["heard_text"].startswith("There was once")
        row = page.locator("#log .k-assistant.interrupted")
        expect(row.locator(".heard")).to_have_text(interrupted["heard_text"])
        expect(row.locator(".unheard")).to_have_text(interrupted["unheard_text"])
        asked = page.locator("#log .k-user:not(.partial) .text").last
        expect(asked).to_have_text(TEXTS["what_time_is_it.wav"])


def test_the_page_says_that_the_server_has_gone_and_comes_back(playwright: Playwright) -> None:
    """With the same session id, in the same tab, without a click."""
    with chromium(playwright, ALLOWED, FAKE) as page:
        with server() as url:
            page.goto(url)
            page.click("#connect")
            expect(page.locator("#title")).to_have_text("Listening")
            session_id = page.evaluate(SESSION)
            assert session_id
        expect(page.locator("#title")).to_have_text("Reconnecting")
        with server(port=int(url.rstrip("/").rpartition(":")[2])):
            expect(page.locator("#title")).to_have_text("Listening", timeout=30_000)
            assert page.evaluate(SESSION) == session_id
            expect(page.locator("#log .k-system").last).to_contain_text("Connected")


@pytest.mark.parametrize(
    ("flags", "title"), [((FAKE,), "Microphone refused"), ((ALLOWED,), "No microphone")]
)
def test_the_page_says_what_is_wrong_with_the_microphone(
    playwright: Playwright, url: str, flags: Sequence[str], title: str
) -> None:
    with chromium(playwright, *flags) as page:
        page.goto(url)
        page.click("#connect")
        expect(page.locator("#title")).to_have_text(title)
        expect(page.locator("#recover")).to_have_text("Try again")


def test_a_microphone_that_is_taken_away_is_told(playwright: Playwright, url: str) -> None:
    with chromium(playwright, FAKE, permissions=["microphone"]) as page:
        page.goto(url)
        page.click("#connect")
        expect(page.locator("#title")).to_have_text("Listening")
        page.context.clear_permissions()
        expect(page.locator("#title")).to_have_text("Microphone lost")
