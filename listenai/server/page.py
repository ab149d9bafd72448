"""The browser page: the files of `web/`, as they are, under a policy that lets nothing else run.

What is served is listed when the server starts, and a request must name one of these
exactly: no path is ever put together from what somebody sent.  The files themselves
are read for each request, so that in a checkout a reload shows what was edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from listenai.errors import ConfigurationError

INDEX = "index.html"
INDEX_PATHS = ("/", "/test_client.html")  # the latter is spec 000's name for it

# Modules, styles and worklets are the page's own; `connect-src` lets it talk to a server on
# another address, which spec 000 asks for ("Remote address configuration").
HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": "; ".join(
            (
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self' data:",
                "connect-src 'self' ws: wss:",
                "worker-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
            )
        ),
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",  # kept, but asked for: a new version shows at once
    }
)

# Files of other kinds are not for browsers: settings and declarations of the type checker.
_CONTENT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".svg": "image/svg+xml",
        ".jsonl": "application/jsonl",
        ".png": "image/png",
        ".wav": "audio/wav",
    }
)
_NOT_SERVED = ("tests", "tsconfig.json")  # first parts of relative paths

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "web", _PACKAGE.parent / "web")  # of an installed wheel, of a checkout


def web_directory() -> Path:
    """Where the page's files are; raises ConfigurationError where they are not installed."""
    for place in _PLACES:
        if (place / INDEX).is_file():
            return place
    places = " or ".join(map(str, _PLACES))
    raise ConfigurationError(
        [f"the browser page is missing: no {INDEX} in {places}; install the package again"]
    )


def page_routes(directory: Path) -> list[BaseRoute]:
    """The page at `/` and `/test_client.html`, and each of its files at its relative path.

    directory: of `index.html`, as `web_directory` finds it.
    """
    index = _show(directory / INDEX)
    files = [
        Route(f"/{file.relative_to(directory).as_posix()}", _show(file))
        for file in sorted(directory.rglob("*"))
        if _is_served(file.relative_to(directory)) and file.is_file()
    ]
    return [*(Route(path, index) for path in INDEX_PATHS), PageFiles(files)]


class PageFiles(BaseRoute):
    """Many files as one route without a `path`: a list of what the server has stays short."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: Final[Mapping[str, Route]] = {route.path: route for route in routes}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As the file's own route does; no match where no file has that very path."""
        route = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        return route.matches(scope) if route else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that matched."""
        await self.routes[scope["path"]].handle(scope, receive, send)


def _is_served(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return relative.suffix in _CONTENT_TYPES and relative.parts[0] not in _NOT_SERVED and not hidden


def _show(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """What answers requests for one file: 200, or 304 to those who have this content."""

    async def show(request: Request) -> Response:
        content = await trio.to_thread.run_sync(file.read_bytes)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {**HEADERS, "ETag": tag}
        if tag in _tags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_CONTENT_TYPES[file.suffix], headers=headers)

    return show


def _tags(if_none_match: str) -> list[str]:
    """The entity tags of the header, compared weakly as RFC 9110, 13.1.2, has it."""
    return [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
