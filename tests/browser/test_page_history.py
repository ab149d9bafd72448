"""What the page shows as heard is what the language model is told that it has said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server
from openai_server import OpenAIServer, saying
from playwright.sync_api import Playwright, expect, sync_playwright
from stage import microphone_file, server, silence
from visitor import Visitor, quiet_microphone, visitor

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.slow]

STORY = (
    "Once there was a lamp that stood at the end of a long pier. Every night it counted the boats"
    " that came home. One evening the fog was so thick that it counted none at all. So it began"
    " to hum, quietly at first, and then as loudly as a lamp can. Far out on the water somebody"
    " heard the hum and turned the wheel. By the morning every boat lay in its place. Nobody ever"
    " asked the lamp how it had done that. But since then there is music when the fog comes in."
)
PLAYED = "Object.values(listenai.state.streams).some((s) => s.played > {} * s.sampleRate)"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


def said_before(model: OpenAIServer) -> Sequence[str]:
    """What the assistant has said, as the last request tells it."""
    messages: Sequence[dict[str, Any]] = model.requests[-1].body["messages"]
    return [message["content"] for message in messages if message["role"] == "assistant"]


def shown_as_heard(user: Visitor) -> str:
    """Of the answer that was interrupted; the rest is struck out."""
    row = user.page.locator("#log .k-assistant.interrupted")
    expect(row).to_be_visible()
    heard = row.locator(".heard").text_content() or ""
    struck = row.locator(".unheard").text_content() or ""
    assert heard
    assert struck
    assert STORY.startswith(f"{heard} {struck}")  # the model was asked for no more of it
    return heard


@pytest.mark.parametrize("seconds", [0.5, 4])
def test_after_the_button_the_model_knows_what_was_heard(
    playwright: Playwright, tmp_path: Path, seconds: float
) -> None:
    """Early in the answer and later on; the next question is typed."""
    with (
        chat_server(saying(STORY)) as model,
        server(LLM_BASE_URL=model.url) as url,
        visitor(playwright, url, quiet_microphone(tmp_path)) as user,
    ):
        user.connect()
        user.types("Tell me a story.")
        user.until(PLAYED.format(seconds))
        user.page.click("#talk")
        heard = shown_as_heard(user)
        assert len(model.requests) == 1
        user.types("Go on.")
        user.until("listenai.state.turns.length > 1")
        expect(user.rows("assistant")).to_have_count(2)
        assert len(model.requests) == 2
        assert said_before(model) == [heard]


def test_after_speech_over_it_the_model_knows_what_was_heard(
    playwright: Playwright, tmp_path: Path
) -> None:
    """The interruption itself is the next question."""
    words = ("tell_me_a_story.wav", silence(6), "what_time_is_it.wav", silence(30))
    spoken = microphone_file(tmp_path / "spoken.wav", silence(3), *words)
    with (
        chat_server(saying(STORY)) as model,
        server(LLM_BASE_URL=model.url) as url,
        visitor(playwright, url, spoken) as user,
    ):
        user.page.click("#connect")
        heard = shown_as_heard(user)
        expect(user.rows("assistant")).to_have_count(2)
        assert len(model.requests) == 2
        assert said_before(model) == [heard]
