"""The browser page is served whole, with nothing beside it, under a strict policy."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from loopback import talk
from starlette.applications import Starlette

from listenai.errors import ConfigurationError
from listenai.server import page
from listenai.server.front_door import Endpoint, serve_front_door
from listenai.server.page import PageFiles, page_routes, web_directory

CHECKOUT = Path(__file__).parents[2]
FILES = {
    "index.html": b"<!doctype html><title>page</title>",
    "style.css": b"body {}",
    "app.js": b"import './ui/log.js';",
    "ui/log.js": "// Größe".encode(),
    "icon.svg": b"<svg/>",
}
HIDDEN = {
    "tests/app.test.js": b"secret",
    "tsconfig.json": b"secret",
    "worklets/globals.d.ts": b"secret",
    ".env": b"secret",
    ".git/config.json": b"secret",
    "README.md": b"secret",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    for name, content in {**FILES, **HIDDEN, "../outside.js": b"secret"}.items():
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_bytes(content)
    return web


@pytest.fixture
async def http(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=page_routes(directory)))
    async with httpx.AsyncClient(transport=transport, base_url="http://example.test") as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/test_client.html", "/index.html"])
async def test_the_page_is_at_its_paths(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.content) == (200, FILES["index.html"])
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("style.css", "text/css; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("ui/log.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_files_have_their_content_and_type(
    http: httpx.AsyncClient, name: str, content_type: str
) -> None:
    answer = await http.get("/" + name)
    assert (answer.status_code, answer.content) == (200, FILES[name])
    assert answer.headers["content-type"] == content_type
    head = await http.head("/" + name)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(FILES[name])))


@pytest.mark.parametrize("path", ["/", "/app.js", "/icon.svg"])
async def test_nothing_but_the_page_itself_may_run(http: httpx.AsyncClient, path: str) -> None:
    """Also its files carry the policy: a worklet or a picture may be opened alone."""
    headers = (await http.get(path)).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self' ws: wss:"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.search(r"unsafe|\*|https?:", headers["content-security-policy"])
    assert "microphone=(self)" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"


async def test_what_was_not_changed_is_not_sent_again(
    http: httpx.AsyncClient, directory: Path
) -> None:
    """Browsers always ask; an edit shows with the next request."""
    first = await http.get("/app.js")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for asked in (tag, f"W/{tag}", f'"other", {tag}'):
        again = await http.get("/app.js", headers={"If-None-Match": asked})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert "content-security-policy" in again.headers
    (directory / "app.js").write_bytes(b"// edited")
    edited = await http.get("/app.js", headers={"If-None-Match": tag})
    assert (edited.status_code, edited.content) == (200, b"// edited")
    assert edited.headers["etag"] != tag


@pytest.mark.parametrize("name", HIDDEN)
async def test_what_is_not_for_browsers_is_not_served(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get("/" + name)).status_code == 404


TRAVERSALS = [
    "/../outside.js",
    "/ui/../../outside.js",
    "/%2e%2e/outside.js",
    "/..%2foutside.js",
    "/..%5coutside.js",
    "/ui/%2e%2e%2f%2e%2e%2foutside.js",
    "//outside.js",
    "/./app.js%00",
    "/app.js/",
    "/ui",
    "/ui/",
    "/APP.JS",
]


async def test_no_path_leads_out(directory: Path) -> None:
    """Sent byte by byte through the front door, since clients tidy paths before they ask."""
    app = Starlette(routes=page_routes(directory))
    (directory.parent / "outside.js").write_bytes(b"secret")

    async def converse(*_: object) -> None:
        raise AssertionError("no WebSocket was asked for")

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(_serve, app, converse)
        for path in TRAVERSALS:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            answer = await talk(address.port, request)
            assert re.match(rb"HTTP/1.1 (404|400|307) ", answer), (path, answer)
            assert b"secret" not in answer
            assert b"import" not in answer
        assert b"import" in await talk(address.port, b"GET /app.js HTTP/1.1\r\nHost: x\r\n\r\n")
        nursery.cancel_scope.cancel()


async def _serve(app: Starlette, converse, *, task_status) -> None:
    await serve_front_door(
        app, converse, lambda _head: None, endpoints=[Endpoint()], task_status=task_status
    )


async def test_other_methods_are_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post("/app.js")).status_code == 405
    assert (await http.delete("/")).status_code == 405


def test_a_checkout_serves_its_own_files() -> None:
    assert web_directory() == CHECKOUT / "web"


def test_without_the_files_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_PLACES", (Path("/nowhere/web"),))
    with pytest.raises(ConfigurationError, match="install the package again"):
        web_directory()


async def test_every_file_that_the_page_names_is_served() -> None:
    """From the page through its styles, modules and worklets: no broken link, nothing foreign."""
    transport = httpx.ASGITransport(Starlette(routes=page_routes(web_directory())))
    base = httpx.URL("http://example.test/")
    waiting, seen = [base], set()
    async with httpx.AsyncClient(transport=transport) as http:
        while waiting:
            url = waiting.pop()
            answer = await http.get(url)
            assert answer.status_code == 200, f"{url} is named, and missing"
            seen.add(url.path)
            for name in _named(answer):
                target = url.join(name)
                assert target.host == base.host, f"{url} names {target}"
                if target.path not in seen:
                    waiting.append(target)
    assert {"/connection.js", "/worklets/capture.js", "/worklets/player.js"} <= seen


_NAMES = {
    "text/html": r"""(?:src|href)="(?!data:|#)([^"]+)\"""",
    "text/javascript": r"""(?:\bfrom\s+|\bimport\s*\(?\s*|new URL\()"(\.[^"]+)\"""",
    "text/css": r"""url\("?(?!data:)([^")]+)""",
}


def _named(answer: httpx.Response) -> list[str]:
    """The addresses in a file that a browser loads; links to other pages are left out."""
    pattern = _NAMES.get(answer.headers["content-type"].partition(";")[0], r"(?!)")
    return [name for name in re.findall(pattern, answer.text) if re.search(r"\.\w+$", name)]


@pytest.mark.slow
def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    """Every file that is served from a checkout is in the wheel, and is found there."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CHECKOUT, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    where = "from listenai.server.page import *; print(web_directory())"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Path(found) == tmp_path / "listenai" / "web"
    assert _served(Path(found)) == _served(CHECKOUT / "web")


def _served(directory: Path) -> set[str]:
    files = page_routes(directory)[-1]
    assert isinstance(files, PageFiles)
    return set(files.routes)
