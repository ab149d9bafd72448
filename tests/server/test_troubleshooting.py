"""The troubleshooting page and the doctor's advice are one table."""

from __future__ import annotations

import html
import re

import httpx
import pytest

from listenai.config.variables import defaults
from listenai.server.http import make_http_app
from listenai.server.troubles import SECTIONS, Trouble, advice
from listenai.server.troubleshooting import PATH, troubleshooting_page, troubleshooting_route

TROUBLES = [trouble for troubles in SECTIONS.values() for trouble in troubles]
PAGE = troubleshooting_page()
TEXT = html.unescape(re.sub(r"<[^>]+>", "", PAGE))


def entry(trouble: Trouble) -> str:
    """The text under the heading with this anchor."""
    found = re.search(rf'<h3 id="{trouble.anchor}">(.*?)(?=<h[23]|</body>)', PAGE, re.DOTALL)
    assert found, f"nothing at #{trouble.anchor}"
    return html.unescape(re.sub(r"<[^>]+>", "", found[1]))


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.anchor)
def test_every_trouble_is_on_the_page_with_its_advice(trouble: Trouble) -> None:
    """Where the anchor says, with all its paragraphs; the doctor says the same."""
    words = entry(trouble)
    for text in (trouble.title, trouble.todo[1:], *trouble.more):
        assert text.replace("`", "") in words
    assert advice(trouble.anchor) == trouble.todo.replace("`", "")


def test_anchors_are_different_and_fit_into_an_address() -> None:
    anchors = [trouble.anchor for trouble in TROUBLES]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[a-z-]+", anchor) for anchor in anchors)


def test_advice_is_one_sentence_for_a_line() -> None:
    """It goes on after a dash, so it neither ends nor breaks off."""
    for trouble in TROUBLES:
        assert "\n" not in trouble.todo
        assert not trouble.todo.endswith(".")
        assert trouble.todo.count("`") % 2 == 0
    with pytest.raises(KeyError):
        advice("nothing-like-this")


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        # spec 000, docs/: asr-troubleshooting, frame-size-mismatch, asr-getresults-infinite-loop,
        # asr-blocking-async-for
        ("asr-empty", "No text"),
        ("asr-frames", "512 bytes"),
        ("asr-results", "again and again"),
        ("asr-blocking", "stands still"),
        # spec 001: its error codes, "Known Limitations" and "Deployment Checklist"
        ("asr-timeout", "ASR_TIMEOUT"),
        ("llm-timeout", "LLM_TIMEOUT"),
        ("tts-timeout", "TTS_TIMEOUT"),
        ("espeak", "espeak-ng"),
        ("llm", "LLM_API_KEY"),
        ("browser", "AudioWorklet"),
        ("slow", "each session"),
        ("tts-late", "Long replies"),
        ("connection-refused", "firewall"),
        ("tls", "https"),
    ],
)
def test_the_known_problems_of_the_specs_are_there(problem: str, words: str) -> None:
    [trouble] = [each for each in TROUBLES if each.anchor == problem]
    assert words in entry(trouble)


def test_only_variables_that_exist_are_named() -> None:
    """What the page tells to set can be set."""
    known = {row.setting.variable for row in defaults()}
    codes = {"ASR_ERROR", "LLM_ERROR", "TTS_ERROR", "MODEL_NOT_READY", "BUSY"}
    named = set(re.findall(r"\b[A-Z]{3,}_[A-Z_]+\b", TEXT))
    assert named - codes <= known, named - codes - known


async def test_it_is_served_and_loads_nothing() -> None:
    """Under the policy of our pages."""
    transport = httpx.ASGITransport(make_http_app(health=dict, routes=[troubleshooting_route()]))
    async with httpx.AsyncClient(transport=transport, base_url="http://example.test") as http:
        answer = await http.get(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert not re.search(r"<script|<link|<img|src=|\bon\w+=", answer.text)
    assert '<a href="/metrics">' in answer.text
