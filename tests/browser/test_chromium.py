"""The page's microphone, connection and loudspeaker in Chromium, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import ALLOWED, FAKE, chromium, hears, open_harness
from end_to_end_server import TEXTS
from playwright.sync_api import Page, Playwright, sync_playwright
from stage import (
    harness_server,
    harness_url,
    microphone_file,
    server,
    silence,
    sound_card,
    unplug,
)
from watched import LOUD, Harness, added_samples

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

BEGINNING = silence(0.7)  # a fake microphone loses its first moments
START = "harness.microphone.start({})"
CONTEXT_RATE = 44_100  # of Chromium without a sound card; the server is asked for the same


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with harness_server() as running:
        yield running


def connect(page: Page, harness: Harness) -> None:
    """Opens the loudspeaker, a session and the microphone."""
    page.click("#unlock")
    harness.until("tap.rate() > 0", 5)
    harness.call("harness.connection.connect()")
    harness.event(type="state", state="open")
    harness.call(START)


def test_a_question_is_heard_and_its_answer_played_without_a_gap(
    playwright: Playwright, url: str, port: int, tmp_path: Path
) -> None:
    """The transcript is exact; what the loudspeaker got is what the server sent."""
    name = "twelve_times_seven.wav"
    question = microphone_file(tmp_path / "question.wav", BEGINNING, name, silence(20))
    with chromium(playwright, *hears(question)) as page:
        at_rate = f"&output_sample_rate={CONTEXT_RATE}"
        harness = open_harness(page, harness_url(port, url, more=at_rate))
        connect(page, harness)
        assert harness.call("tap.rate()") == CONTEXT_RATE
        final = harness.message("asr_result", is_final=True, seconds=15)["message"]
        assert final["text"] == TEXTS[name]
        report = harness.event(type="report", final=True, seconds=20)
        sent = harness.received(report["streamId"])
        assert report["playedSamples"] == len(sent)
        assert harness.states("player") == ["buffering", "playing", "idle"]
        assert not harness.has(type="underrun")
        assert not harness.has(type="dropped")
        played = harness.recorded()
        assert np.abs(played).max() > LOUD
        gap_ms = 1000 * added_samples(played, sent) / CONTEXT_RATE
        assert gap_ms <= 5, f"{gap_ms:.1f} ms of silence in between"


def test_speech_over_an_answer_stops_it_at_once(
    playwright: Playwright, url: str, port: int, tmp_path: Path
) -> None:
    """Silent 30 ms after `pause`, flushed for good, and the server knows to the sample."""
    words = ("tell_me_a_story.wav", silence(5), "what_time_is_it.wav", silence(20))
    story = microphone_file(tmp_path / "story.wav", BEGINNING, *words)
    with chromium(playwright, *hears(story)) as page:
        harness = open_harness(page, harness_url(port, url))
        connect(page, harness)
        begin = harness.message("tts_audio", state="start", seconds=15)
        stream_id, turn_id = begin["message"]["stream_id"], begin["message"]["turn_id"]
        pause = harness.message("pause", stream_id=stream_id, seconds=15)
        flush = harness.message("flush", stream_id=stream_id)
        interrupted = harness.message("interrupted", turn_id=turn_id)["message"]
        second = harness.message("tts_audio", state="start", stream_id=stream_id + 1)
        # Silent from the pause on, but for what was on its way and the fade.
        assert np.abs(harness.between(begin, pause)).max() > LOUD
        for held, until in harness.pauses(second):
            sounds_ms = harness.sound_after_ms(held, until)
            assert sounds_ms <= 30, f"{sounds_ms:.1f} ms of sound after `pause`"
        assert flush["at"] > pause["at"]
        # What was played is known to the sample, and the server was told.
        counts = harness.call(f"harness.flushed({stream_id})")
        received = len(harness.received(stream_id))
        report = harness.event(type="report", streamId=stream_id, final=True)
        assert counts["played"] == report["playedSamples"]
        assert counts["played"] + counts["discarded"] == received
        assert counts["discarded"] > 0
        played_ms = 1000 * report["playedSamples"] / begin["message"]["sample_rate"]
        assert interrupted["certainty"] == "reported"
        assert played_ms - report["outputLatencyMs"] == pytest.approx(
            interrupted["played_ms"], abs=1
        )
        assert interrupted["heard_text"].startswith("There was once")
        assert not harness.has(type="stale")
        # The interruption was a question of its own.
        name = "what_time_is_it.wav"
        transcript = harness.message("asr_result", is_final=True, turn_id=turn_id + 1)
        assert transcript["message"]["text"] == TEXTS[name]


def test_a_server_that_was_killed_is_come_back_to(playwright: Playwright, port: int) -> None:
    """With the same session id, and states that say what goes on."""
    with chromium(playwright, ALLOWED, FAKE) as page:
        with server() as url:
            harness = open_harness(page, harness_url(port, url))
            connect(page, harness)
            harness.event(type="state", state="live")
            session_id = harness.call("harness.connection.sessionId")
        lost = harness.event(type="state", state="reconnecting")
        assert lost["retryInMs"] <= 500
        assert lost["sessionId"] == session_id
        with server(port=int(url.rstrip("/").rpartition(":")[2])):
            harness.until("harness.connection.state === 'open'", 30)
            assert harness.call("harness.connection.sessionId") == session_id
            sent = "harness.events.filter((e) => e.type === 'sent').map((e) => e.message)"
            starts = f"{sent}.filter((m) => m.type === 'start_session')"
            assert harness.call(f"{starts}.at(-1).session_id") == session_id
            states = harness.states("connection")
            assert states[:3] == ["connecting", "open", "reconnecting"]
            assert states[-1] == "open"
            # The microphone went on: the new server hears it.
            harness.until("harness.microphoneSamples.count > 16000", 10)
            harness.until(f"{sent}.at(-1).type === 'audio'", 10)


def test_without_leave_the_microphone_is_denied(
    playwright: Playwright, url: str, port: int
) -> None:
    with chromium(playwright, FAKE) as page:
        harness = open_harness(page, harness_url(port, url))
        harness.call(START)
        assert "address bar" in harness.event(type="state", state="denied")["message"]
        assert harness.states("microphone") == ["asking", "denied"]


def test_a_leave_that_is_taken_back_is_told(playwright: Playwright, url: str, port: int) -> None:
    with chromium(playwright, FAKE, permissions=["microphone"]) as page:
        harness = open_harness(page, harness_url(port, url))
        harness.call(START)
        harness.event(type="state", state="live")
        page.context.clear_permissions()
        assert "taken away" in harness.event(type="state", state="lost")["message"]


def test_a_microphone_that_is_unplugged_is_told(
    playwright: Playwright, url: str, port: int, tmp_path: Path
) -> None:
    """A real one, of a sound card that goes; the next start says that there is none."""
    with sound_card(tmp_path) as env, chromium(playwright, ALLOWED, env=env) as page:
        harness = open_harness(page, harness_url(port, url))
        harness.call(START)
        harness.event(type="state", state="live")
        harness.until("harness.microphoneSamples.count > 0", 5)
        unplug(env)
        assert "unplugged" in harness.event(type="state", state="lost")["message"]


def test_without_any_microphone_it_is_missing(playwright: Playwright, url: str, port: int) -> None:
    with chromium(playwright, ALLOWED, env={"PULSE_SERVER": "unix:/nowhere"}) as page:
        harness = open_harness(page, harness_url(port, url))
        harness.call(START)
        assert "Plug one in" in harness.event(type="state", state="missing")["message"]


def test_a_page_from_a_plain_address_says_why_it_may_not_listen(
    playwright: Playwright, url: str, port: int
) -> None:
    """As from another machine over HTTP."""
    elsewhere = "--host-resolver-rules=MAP lan.test 127.0.0.1"
    with chromium(playwright, ALLOWED, FAKE, elsewhere) as page:
        harness = open_harness(page, harness_url(port, url, host="lan.test"))
        harness.call(START)
        assert "HTTPS" in harness.event(type="state", state="insecure")["message"]


def test_a_page_that_nobody_has_touched_is_blocked_until_a_click(
    playwright: Playwright, url: str, port: int
) -> None:
    """What came meanwhile is kept, and heard after it."""
    with chromium(playwright) as page:
        page.goto(harness_url(port, url, more="&tone"))
        page.wait_for_timeout(1500)  # asking would count as touching
        harness = Harness(page.evaluate)
        assert harness.states("player") == ["buffering", "blocked"]
        page.click("#unlock")
        harness.event(type="state", state="playing")
        assert harness.call("harness.player.flush(1)")["discarded"] > 0


def test_muted_is_silence_and_not_nothing(playwright: Playwright, url: str, port: int) -> None:
    """The fake microphone beeps; muted, frames still come, so that the server hears the end."""
    with chromium(playwright, ALLOWED, FAKE) as page:
        harness = open_harness(page, harness_url(port, url))
        harness.call(START)
        harness.until("harness.microphoneSamples.loud > 0", 10)
        harness.call("harness.microphone.muted = true")
        harness.until("(harness.microphoneSamples.quiet ?? 0) > 16000", 10)
        harness.call("harness.microphone.muted = false")
        harness.until("harness.microphoneSamples.quiet === 0", 10)


@pytest.mark.parametrize("frame_ms", [10, 100])
def test_frames_have_the_length_that_was_asked_for(
    playwright: Playwright, url: str, port: int, frame_ms: int
) -> None:
    with chromium(playwright, ALLOWED, FAKE) as page:
        harness = open_harness(page, harness_url(port, url))
        harness.call(f"harness.microphone.start({{frameMs: {frame_ms}}})")
        harness.until("harness.microphoneSamples.count > 0", 10)
        assert harness.call("harness.microphoneSamples.frame") == 16 * frame_ms
        harness.call("harness.microphone.stop()")
        assert harness.states("microphone") == ["asking", "live", "off"]
