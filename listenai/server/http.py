"""What a browser or a monitor gets from the port: a page that explains, and the health.

Everything else that speaks HTTP is added as routes by the composition root.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

Health = Callable[[], Mapping[str, object]]  # {"status": "ok" | "degraded", …}, JSON as it is
Index = Callable[[str], str]  # the server's WebSocket URL -> a page of HTML

# Our pages load nothing, run nothing and cannot be framed; their style is their own.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_NOT_STORED = {"Cache-Control": "no-store"}  # health is of this moment

PAGE_STYLE = """
body { font: 1rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto;
       padding: 0 1rem; color: #1c1f24; background: #fff; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
pre { padding: .75rem 1rem; background: #f1f3f5; border-radius: .5rem; overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  body { color: #e8eaed; background: #16181c; } pre { background: #23262b; }
  a { color: #8ab4f8; }
}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ListenAI</title>
<style>{style}</style>
</head>
<body>
<h1>ListenAI</h1>
<p>A realtime voice assistant: speak, hear an answer, interrupt it at any moment.
This server is running.</p>
<h2>Talk to it</h2>
<pre><code>python -m listenai talk --url {url} question.wav</code></pre>
<h2>Connect a device</h2>
<p>Open a WebSocket at <code>{url}</code>, send 16 kHz mono 16-bit PCM as binary messages,
and play what comes back: <a href="/docs/protocol">the protocol</a> has every message.</p>
<h2>Watch it</h2>
<p><a href="/health">/health</a> says how it is; <a href="/health/ready">/health/ready</a>
answers 200 when it can serve and 503 when it cannot.</p>
</body>
</html>
"""


def index_page(websocket_url: str) -> str:
    """A plain page: what this is and how to connect."""
    return _PAGE.format(style=PAGE_STYLE, url=html.escape(websocket_url))


def make_http_app(
    *, health: Health, index: Index = index_page, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """The HTTP side of the port: `/`, `/test_client.html`, `/health`, `/health/ready`.

    health: what `/health` shows; ready means that its "status" is "ok".
    index: the page, given the ws:// or wss:// URL by which this server was reached.
    routes: more of them; they come after these and are listed with them in a 404.
    """

    async def show_index(request: Request) -> Response:
        return HTMLResponse(index(_websocket_url(request)), headers=PAGE_HEADERS)

    async def show_health(_request: Request) -> Response:
        return JSONResponse(dict(health()), headers=_NOT_STORED)

    async def show_ready(_request: Request) -> Response:
        state = dict(health())
        status = 200 if state.get("status") == "ok" else 503
        return JSONResponse(state, status_code=status, headers=_NOT_STORED)

    every_route: list[BaseRoute] = [
        Route("/", show_index),
        Route("/test_client.html", show_index),
        Route("/health", show_health),
        Route("/health/ready", show_ready),
        *routes,
    ]
    known = [path for route in every_route if (path := getattr(route, "path", ""))]

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem: dict[str, object] = {
            "error": error.detail,
            "path": request.url.path,
            "method": request.method,
        }
        if error.status_code == 404:
            problem["known_paths"] = known
        return JSONResponse(problem, status_code=error.status_code, headers=error.headers)

    return Starlette(
        routes=every_route,
        # Anyone may look at the page and the health; nothing here takes credentials.
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "HEAD"])],
        exception_handlers={HTTPException: refuse},
    )


def _websocket_url(request: Request) -> str:
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}/"
