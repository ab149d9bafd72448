"""The HTTP side of the port, asked in memory."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from listenai.server.http import index_page, make_http_app

HEALTHY = {
    "status": "ok",
    "version": "1.2.3",
    "uptime_seconds": 12.5,
    "services": {"asr": "ok", "llm": "ok", "tts": "ok"},
}
DEGRADED = {**HEALTHY, "status": "degraded"}

pytestmark = pytest.mark.usefixtures("nothing_left")


def client(
    health: Mapping[str, object] = HEALTHY, base_url: str = "http://example.test:8765"
) -> httpx.AsyncClient:
    async def extra(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("extra")

    app = make_http_app(health=lambda: health, routes=[Route("/metrics", extra)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


@pytest.mark.parametrize("path", ["/", "/test_client.html"])
async def test_the_page_says_how_to_connect(path: str) -> None:
    """It names the URL by which the server was reached, and the talk command."""
    async with client() as http:
        answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "python -m listenai talk --url ws://example.test:8765/" in answer.text


async def test_the_page_may_load_and_run_nothing() -> None:
    """The policy forbids all, and the page names no other address."""
    async with client() as http:
        answer = await http.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "http://" not in answer.text.replace("ws://example.test", "")


async def test_behind_tls_the_page_names_wss() -> None:
    """The scheme of the request is the scheme of the URL."""
    async with client(base_url="https://example.test") as http:
        assert "python -m listenai talk --url wss://example.test/" in (await http.get("/")).text


async def test_a_host_header_cannot_write_html() -> None:
    """What the page repeats is escaped."""
    async with client() as http:
        answer = await http.get("/", headers={"Host": "x<script>alert(1)</script>"})
    assert "<script" not in answer.text
    assert "ws://&lt;script&gt;&quot;" in index_page('ws://<script>"')


async def test_health_is_shown_as_it_is() -> None:
    """Also when degraded, the answer is 200: it is an answer about the server."""
    for health in (HEALTHY, DEGRADED):
        async with client(health) as http:
            answer = await http.get("/health")
        assert (answer.status_code, answer.json()) == (200, health)
        assert answer.headers["cache-control"] == "no-store"


async def test_ready_is_a_status_code() -> None:
    """200 when all is well, 503 when not, with the same body."""
    for health, status in ((HEALTHY, 200), (DEGRADED, 503)):
        async with client(health) as http:
            answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()) == (status, health)


async def test_other_origins_may_read() -> None:
    """Simple requests and preflights are allowed for GET; other methods are not."""
    async with client() as http:
        for path in ("/", "/health", "/health/ready"):
            answer = await http.get(path, headers={"Origin": "http://elsewhere.test"})
            assert answer.headers["access-control-allow-origin"] == "*"
        preflight = {"Origin": "http://elsewhere.test", "Access-Control-Request-Method": "GET"}
        answer = await http.options("/health", headers=preflight)
        assert answer.status_code == 200
        assert "GET" in answer.headers["access-control-allow-methods"]
        preflight["Access-Control-Request-Method"] = "DELETE"
        assert (await http.options("/health", headers=preflight)).status_code == 400


async def test_head_has_the_headers_and_no_body() -> None:
    """Monitors may ask with HEAD."""
    async with client() as http:
        for path in ("/", "/health", "/health/ready"):
            asked, got = await http.head(path), await http.get(path)
            assert asked.status_code == got.status_code
            assert asked.headers["content-length"] == str(len(got.content))


async def test_unknown_paths_and_methods_are_refused_in_json() -> None:
    """A 404 lists what there is, added routes too; a 405 says what is allowed."""
    async with client() as http:
        missing = await http.get("/helth")
        wrong = await http.delete("/health")
        assert (await http.get("/metrics")).text == "extra"
    assert missing.status_code == 404
    assert missing.json()["path"] == "/helth"
    assert missing.json()["known_paths"] == [
        "/",
        "/test_client.html",
        "/health",
        "/health/ready",
        "/metrics",
    ]
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    assert wrong.json()["error"] == "Method Not Allowed"
