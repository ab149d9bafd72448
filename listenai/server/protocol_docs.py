"""`/docs/protocol`: the reference of the ListenAI protocol, written from the message types.

What a message is called, what its fields are, which values they take and what an
example looks like come from the types and the dialect that the server itself uses;
so the page cannot say anything that is not so.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

import attrs
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from listenai import events
from listenai.device import Capabilities
from listenai.dialects.fields import rule_of
from listenai.dialects.listenai import ListenAIDialect
from listenai.dialects.messages import CLIENT_MESSAGES, PLAIN_RULES, DeviceTool
from listenai.dialects.reference import (
    AUDIO_LAWS,
    CLOSE_CODES,
    ERROR_CODES,
    NOTICES,
    ORDER_OF_A_TURN,
    NoticeRow,
)
from listenai.server.http import PAGE_HEADERS, PAGE_STYLE

PATH = "/docs/protocol"

_STYLE = """
body { max-width: 52rem; } table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
         border-bottom: 1px solid #8884; }
h3 { margin-bottom: 0; }
"""


def protocol_route(dialects: Mapping[str, Sequence[str]]) -> Route:
    """The route of the page.

    dialects: each WebSocket path and the names of the dialects that are spoken there.
    """

    async def show(request: Request) -> Response:
        routes = request.app.routes
        paths = [path for route in routes if (path := getattr(route, "path", ""))]
        return HTMLResponse(protocol_page(dialects, paths), headers=PAGE_HEADERS)

    return Route(PATH, show)


def protocol_page(dialects: Mapping[str, Sequence[str]], http_paths: Iterable[str]) -> str:
    """The whole reference as HTML that loads and runs nothing."""
    sections = {
        "Connecting": _connecting(dialects, http_paths),
        "Messages from the device": _client_messages(),
        "Messages to the device": _server_messages(),
        "Order": _list(ORDER_OF_A_TURN),
        "The laws of audio": _list(AUDIO_LAWS),
        "Error codes": _table(("code", "meaning"), ERROR_CODES.items()),
        "Close codes": _table(("code", "meaning"), CLOSE_CODES.items()),
    }
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    contents = _list(f"[{title}](#{anchor})" for title, anchor in anchors.items())
    body = "".join(
        f'<h2 id="{anchors[title]}">{title}</h2>\n{content}' for title, content in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ListenAI protocol</title>\n<style>{PAGE_STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>The ListenAI protocol</h1>\n{contents}{body}</body>\n</html>\n"
    )


# --- sections ------------------------------------------------------------------------------


def _connecting(dialects: Mapping[str, Sequence[str]], http_paths: Iterable[str]) -> str:
    first = json.dumps({"type": "start_session", "capabilities": {"pause": True, "flush": True}})
    return (
        _paragraph(
            "Open a WebSocket.  Text messages are JSON objects with a `type`, binary messages are "
            "audio.  The server says nothing before the first message, which is usually"
        )
        + _code(first)
        + _paragraph("Audio may come without it: a session is made as if it had been asked for.")
        + _table(
            ("WebSocket path", "dialect"),
            ((f"`{path}`", " or ".join(names)) for path, names in dialects.items()),
        )
        + _paragraph("Over HTTP there are " + ", ".join(f"[`{p}`]({p})" for p in http_paths) + ".")
    )


def _client_messages() -> str:
    messages = (_client_message(kind, cls) for kind, cls in CLIENT_MESSAGES.items())
    parts = (
        f"<h3>{_inline(title)}</h3>\n{_paragraph(_words(cls))}{_fields(cls)}"
        for title, cls in (
            ("In `start_session`: `capabilities`", Capabilities),
            ("In `start_session`: each of `device_tools`", DeviceTool),
        )
    )
    return "".join([*messages, *parts])


def _client_message(kind: str, cls: type) -> str:
    return _heading(kind) + _paragraph(_words(cls)) + _fields(cls)


def _fields(cls: type) -> str:
    """A table of a message's fields, by their rules; nothing where it has none."""
    hints = get_type_hints(cls, include_extras=True)
    rows = [
        (
            f"`{field.name}`",
            "required" if field.default is attrs.NOTHING else "optional",
            _allowed(hints[field.name]),
        )
        for field in attrs.fields(cls)
    ]
    return _table(("field", "", "value"), rows) if rows else ""


def _allowed(annotation: Any) -> str:
    """What a field may hold, in the words of its rule; an object's fields are shown elsewhere."""
    if get_origin(annotation) is UnionType or NoneType in get_args(annotation):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return " or ".join(map(_allowed, kinds))
    rule = rule_of(annotation, PLAIN_RULES)
    return rule.allowed if rule else "an object, see below"


def _server_messages() -> str:
    encode = ListenAIDialect().send
    return "".join(_server_message(row, encode) for row in NOTICES.values())


def _server_message(
    row: NoticeRow, encode: Callable[[events.Notice, float], Sequence[str | bytes]]
) -> str:
    words = _paragraph(_words(type(row.examples[0])))
    texts = [text for example in row.examples for text in encode(example, 0.0)]
    if not row.fields:
        sizes = ", ".join(f"{len(binary)} bytes" for binary in texts)
        return f"<h3>binary</h3>\n{words}{_paragraph(f'For example {sizes}.')}"
    kinds = {json.loads(text)["type"] for text in texts}
    rows = ((f"`{name}`", meaning) for name, meaning in row.fields.items())
    table = _table(("field", "meaning"), rows)
    return _heading(*kinds) + words + "".join(_code(str(text)) for text in texts) + table


# --- HTML ----------------------------------------------------------------------------------

_INLINE: Final = re.compile(r"\[(?P<words>[^]]+)\]\((?P<target>[^)]+)\)|`(?P<code>[^`]+)`")


def _words(cls: type) -> str:
    """A class's docstring."""
    return " ".join((cls.__doc__ or "").split())


def _inline(text: str) -> str:
    """Escaped text; what is in backticks is code, [words](target) a link."""

    def replace(match: re.Match[str]) -> str:
        if match["code"]:
            return f"<code>{match['code']}</code>"
        return f'<a href="{match["target"]}">{_inline(html.unescape(match["words"]))}</a>'

    return _INLINE.sub(replace, html.escape(text))


def _heading(*kinds: str) -> str:
    return f"<h3><code>{html.escape(' '.join(kinds))}</code></h3>\n"


def _paragraph(text: str) -> str:
    return f"<p>{_inline(text)}</p>\n"


def _code(text: str) -> str:
    return f"<pre><code>{html.escape(text)}</code></pre>\n"


def _list(texts: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{_inline(text)}</li>\n" for text in texts) + "</ul>\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    lines = (
        "<tr>" + "".join(f"<td>{_inline(str(cell))}</td>" for cell in row) + "</tr>\n"
        for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{''.join(lines)}</table>\n"
