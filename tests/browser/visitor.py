"""Somebody who uses the real page in Chromium: connects, types, waits for what shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from chromium import chromium, hears
from playwright.sync_api import Locator, Page, Playwright, expect
from stage import microphone_file, silence, wait_for

LATER_MS = 30_000  # by then all has happened that a busy machine makes wait
expect.set_options(timeout=LATER_MS)
_REST = "['listening', 'typing'].includes(listenai.situation.key)"


@attrs.frozen
class Visitor:
    """The page, and what one does there."""

    page: Page

    def connect(self) -> None:
        """By the button; the server listens then."""
        self.page.click("#connect")
        self.sees("Listening")

    def sees(self, title: str) -> None:
        """Waits for what the page says is going on."""
        expect(self.page.locator("#title")).to_have_text(title)

    def types(self, text: str) -> None:
        """A message, sent with Enter."""
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def asks(self, text: str) -> str:
        """Types a question; the answer, heard to its end."""
        answers = self.rows("assistant")
        before = answers.count()
        self.types(text)
        expect(answers).to_have_count(before + 1)
        answer = answers.last
        expect(answer.locator(".ahead")).to_have_count(0)
        self.until(_REST, "the answer is over")
        return answer.locator(".heard").text_content() or ""

    def rows(self, kind: str) -> Locator:
        """Those of the conversation that are whole: user, assistant, tool, system or error."""
        return self.page.locator(f"#log .k-{kind}:not(.partial)")

    def until(self, expression: str, words: str = "") -> Any:
        """Asks until the expression is true."""
        ask = partial(self.page.evaluate, expression)
        return wait_for(ask, LATER_MS / 1000, words or expression)


@contextmanager
def visitor(
    playwright: Playwright, url: str, microphone: Path, *flags: str, **context: Any
) -> Iterator[Visitor]:
    """In a browser of their own, with the page open.  microphone: the file that it hears."""
    with chromium(playwright, *hears(microphone), *flags, **context) as page:
        page.goto(url)
        yield Visitor(page)


def quiet_microphone(directory: Path) -> Path:
    """A microphone in a silent room."""
    return microphone_file(directory / "silence.wav", silence(1))
