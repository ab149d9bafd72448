"""What a monitor gets from the port, and what all HTTP answers have in common.

Everything else that speaks HTTP is added as routes by the composition root.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

# {"status": "ok" | "degraded" | "draining", …}, JSON as it is
Health = Callable[[], Mapping[str, object]]

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

# What pages of other origins may send, where they may: MCP clients in a browser need all of it.
_CORS_METHODS = ("GET", "HEAD", "POST", "DELETE")
_CORS_HEADERS = (
    *("Authorization", "X-API-Key", "Content-Type"),
    *("Mcp-Session-Id", "Mcp-Protocol-Version", "Last-Event-ID"),
)

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


def make_http_app(
    *,
    health: Health,
    routes: Sequence[BaseRoute] = (),
    allowed_origins: Sequence[str] = (),
) -> Starlette:
    """The HTTP side of the port: `/health`, `/health/ready` and these routes.

    health: what `/health` shows; it is ready unless its "status" is "draining": what
        is degraded still serves, and gets well by serving.
    routes: more of them; they come after these and are listed with them in a 404.
    allowed_origins: whose pages may read answers, as `Origins.allowed` has them; "*": all.
    """

    async def show_health(_request: Request) -> Response:
        return JSONResponse(dict(health()), headers=_NOT_STORED)

    async def show_ready(_request: Request) -> Response:
        state = dict(health())
        status = 503 if state.get("status") == "draining" else 200
        return JSONResponse(state, status_code=status, headers=_NOT_STORED)

    every_route: list[BaseRoute] = [
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
        # Keys come in headers that a page has to know, never by themselves as cookies do.
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=allowed_origins,
                allow_methods=_CORS_METHODS,
                allow_headers=_CORS_HEADERS,
                expose_headers=("Mcp-Session-Id",),
            )
        ],
        exception_handlers={HTTPException: refuse},
    )
