"""The protocol reference says everything, and nothing that is not so."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import get_args

import attrs
import httpx
import pytest
from starlette.routing import Route

from listenai import events
from listenai.device import Capabilities
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.messages import CLIENT_MESSAGES, DeviceTool
from listenai.dialects.reference import AUDIO_LAWS, CLOSE_CODES, ERROR_CODES, NOTICES
from listenai.errors import ErrorCode
from listenai.server.http import make_http_app
from listenai.server.protocol_docs import PATH, protocol_page, protocol_route

PAGE = protocol_page({"/listenai": ["ListenAI"], "/ws": ["Hotpin", "ListenAI"]}, ["/", "/health"])
TEXT = html.unescape(re.sub(r"<[^>]+>", "", PAGE))


def section(title: str) -> str:
    """The HTML under a heading of the page."""
    found = re.search(rf"<h2[^>]*>{title}</h2>\n(.*?)(?=<h2|</body>)", PAGE, re.DOTALL)
    assert found, f"no section {title!r}"
    return found[1]


def part(title: str, heading: str) -> str:
    """All that stands under headings that name this message, in a section."""
    parts = re.split(r"(?=<h3>)", section(title))
    found = [one for one in parts if re.match(rf"<h3>(<code>)?{heading}\b", one)]
    assert found, f"no {heading!r} in {title!r}"
    return "".join(found)


@pytest.mark.parametrize("kind", CLIENT_MESSAGES)
def test_every_message_of_a_device_is_there_with_its_fields(kind: str) -> None:
    """Its type, what it means, each field, and what that may hold."""
    words, cls = part("Messages from the device", kind), CLIENT_MESSAGES[kind]
    assert html.escape((cls.__doc__ or "").split("`")[0].strip()) in words
    for field in attrs.fields(cls):
        assert f"<code>{field.name}</code>" in words
    assert words.count("<tr>") == (len(attrs.fields(cls)) + 1 if attrs.fields(cls) else 0)


def test_the_rules_are_those_that_messages_are_checked_by() -> None:
    """The page has the words of the errors."""
    dialect = ListenAIDialect()
    for message in ({"vad_threshold": 7}, {"output_sample_rate": 1}, {"interruptible": 1}):
        with pytest.raises(Exception, match="must be") as refused:
            dialect.receive(json.dumps({"type": "configure", **message}), 0.0)
        allowed = str(refused.value).partition("must be ")[2].partition(", not ")[0]
        assert html.escape(allowed) in part("Messages from the device", "configure")


@pytest.mark.parametrize("cls", [Capabilities, DeviceTool])
def test_the_objects_in_messages_are_there(cls: type) -> None:
    """Field by field."""
    for field in attrs.fields(cls):
        assert f"<code>{field.name}</code>" in section("Messages from the device")


def messages_of(notice: type[events.Notice]) -> list[Mapping[str, object]]:
    """The examples of a notice as a device gets them; none of a binary one."""
    dialect = ListenAIDialect()
    sent = [text for one in NOTICES[notice].examples for text in dialect.send(one, 0.0)]
    return [json.loads(text) for text in sent if isinstance(text, str)]


# What devices of this dialect are never told.
UNTOLD = {events.NothingUnderstood, events.VoiceNoticed, events.Answer}
TOLD = [notice for notice in get_args(events.Notice) if notice not in UNTOLD]


@pytest.mark.parametrize("notice", TOLD, ids=lambda cls: cls.__name__)
def test_every_notice_is_described_field_by_field(notice: type[events.Notice]) -> None:
    """Its examples have every field that it can have, each has its meaning, all is on the page."""
    messages = messages_of(notice)
    assert {type(one) for one in NOTICES[notice].examples} == {notice}
    names = {name for message in messages for name in message} - {"type"}
    assert names == set(NOTICES[notice].fields)
    assert all(NOTICES[notice].fields.values())
    for kind in {str(message["type"]) for message in messages} or {"binary"}:
        words = part("Messages to the device", kind)
        assert html.escape((notice.__doc__ or "").split("`")[0].split("\n")[0]) in words
        assert all(f"<code>{name}</code>" in words for name in names)


def test_no_field_is_left_out_of_the_examples() -> None:
    """Every field of a notice has another value than "left out" in one of them."""
    for notice, row in NOTICES.items():
        for field in attrs.fields(notice):
            assert any(getattr(one, field.name) is not None for one in row.examples) or (
                (notice, field.name) == (events.TurnMetrics, "certainty")  # null is sent there
            )


def test_every_error_code_is_there_with_its_meaning() -> None:
    assert set(ERROR_CODES) == set(ErrorCode)
    for code, meaning in ERROR_CODES.items():
        assert code in section("Error codes")
        assert meaning.replace("`", "") in TEXT


def test_close_codes_laws_and_paths_are_there() -> None:
    for code in CLOSE_CODES:
        assert f"<td>{code}</td>" in section("Close codes")
    for law in AUDIO_LAWS:
        assert law.replace("`", "") in TEXT
    assert "Hotpin or ListenAI" in section("Connecting")
    assert '<a href="/health">' in section("Connecting")


def test_it_is_written_for_people_who_do_not_read_the_source() -> None:
    """No names of classes, no documents that they do not have."""
    inside = [cls.__name__ for cls in (*get_args(events.Notice), *get_args(events.Request))]
    inside.remove("Answer")  # a word of the page's as well
    inside.remove("Answer")
    assert not [name for name in [*inside, "PROTOCOLS.md", "attrs", "None"] if name in TEXT]


async def test_it_is_served_and_loads_nothing() -> None:
    """It may load nothing, and lists what else is served."""
    app = make_http_app(health=dict, routes=[protocol_route({"/": ["ListenAI"]}), Route("/x", str)])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://example.test") as http:
        answer = await http.get(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert not re.search(r"<script|<link|<img|src=|\bon\w+=", answer.text)
    assert f'href="{PATH}"' in answer.text
    assert 'href="/x"' in answer.text
