"""`/docs/troubleshooting`: the table of troubles as a page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from listenai.server.http import PAGE_HEADERS, PAGE_STYLE
from listenai.server.troubles import SECTIONS, Trouble

PATH = "/docs/troubleshooting"

_CODE = re.compile(r"`([^`]+)`")
_LINKED = re.compile(r"<code>(/(?:health|metrics|docs/protocol))</code>")


def troubleshooting_route() -> Route:
    """The route of the page."""
    page = troubleshooting_page()

    async def show(_request: Request) -> Response:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    return Route(PATH, show)


def troubleshooting_page() -> str:
    """Everything of the table as HTML that loads and runs nothing."""
    body = "".join(
        f"<h2>{html.escape(title)}</h2>\n{_section(SECTIONS[title])}" for title in SECTIONS
    )
    first = (
        "`python -m listenai doctor` checks what can be checked from here, says what to do a line"
        " for each, and ends with status 0 only if nothing is broken."
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ListenAI troubleshooting</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>When it does not work</h1>\n<p>{_inline(first)}</p>\n{body}</body>\n</html>\n"
    )


def _section(troubles: Sequence[Trouble]) -> str:
    return "".join(
        f'<h3 id="{trouble.anchor}">{_inline(trouble.title)}</h3>\n'
        f"<p><strong>{_inline(_sentence(trouble.todo))}</strong></p>\n"
        + "".join(f"<p>{_inline(paragraph)}</p>\n" for paragraph in trouble.more)
        for trouble in troubles
    )


def _sentence(todo: str) -> str:
    """With a capital, unless a command or name begins it, and a full stop."""
    return f"{todo[0].upper()}{todo[1:]}."


def _inline(text: str) -> str:
    """Escaped; what is in backticks is code, our own pages are linked."""
    coded = _CODE.sub(r"<code>\1</code>", html.escape(text))
    return _LINKED.sub(r'<a href="\1"><code>\1</code></a>', coded)
