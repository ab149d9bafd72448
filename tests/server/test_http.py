"""The HTTP side of the port, asked in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from listenai.server.http import make_http_app

HEALTHY = {
    "status": "ok",
    "version": "1.2.3",
    "uptime_seconds": 12.5,
    "services": {"asr": "ok", "llm": "ok", "tts": "ok"},
}
DEGRADED = {**HEALTHY, "status": "degraded"}
DRAINING = {**HEALTHY, "status": "draining"}

pytestmark = pytest.mark.usefixtures("nothing_left")


def client(
    health: Mapping[str, object] = HEALTHY,
    base_url: str = "http://example.test:8765",
    allowed_origins: Sequence[str] = (),
) -> httpx.AsyncClient:
    async def extra(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("extra")

    app = make_http_app(
        health=lambda: health, routes=[Route("/metrics", extra)], allowed_origins=allowed_origins
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


async def test_health_is_shown_as_it_is() -> None:
    """Also when degraded, the answer is 200: it is an answer about the server."""
    for health in (HEALTHY, DEGRADED, DRAINING):
        async with client(health) as http:
            answer = await http.get("/health")
        assert (answer.status_code, answer.json()) == (200, health)
        assert answer.headers["cache-control"] == "no-store"


async def test_ready_is_a_status_code() -> None:
    """200 while it serves, however well; 503 from the drain on; with the same body."""
    for health, status in ((HEALTHY, 200), (DEGRADED, 200), (DRAINING, 503)):
        async with client(health) as http:
            answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()) == (status, health)


async def test_pages_of_other_origins_may_not_read() -> None:
    """Unless ALLOWED_ORIGINS says so."""
    async with client() as http:
        answer = await http.get("/health", headers={"Origin": "http://elsewhere.test"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("allowed", ["*", "http://friend.test"])
async def test_pages_of_allowed_origins_may_read_and_give_a_key(allowed: str) -> None:
    """Simple requests are answered with leave; preflights too, for what our routes know."""
    async with client(allowed_origins=(allowed,)) as http:
        origin = {"Origin": "http://friend.test"}
        answer = await http.get("/health", headers=origin)
        assert answer.headers["access-control-allow-origin"] == allowed
        asked = {
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        answer = await http.options("/health", headers=asked)
        assert answer.status_code == 200
        assert "POST" in answer.headers["access-control-allow-methods"]
        for change in (
            {"Access-Control-Request-Method": "PUT"},
            {"Access-Control-Request-Headers": "x-something"},
        ):
            assert (await http.options("/health", headers=asked | change)).status_code == 400


async def test_pages_that_are_not_allowed_are_told_apart() -> None:
    """A list holds for its origins alone."""
    async with client(allowed_origins=("http://friend.test",)) as http:
        answer = await http.get("/health", headers={"Origin": "http://friend.test.evil"})
    assert "access-control-allow-origin" not in answer.headers


async def test_head_has_the_headers_and_no_body() -> None:
    """Monitors may ask with HEAD."""
    async with client() as http:
        for path in ("/health", "/health/ready"):
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
        "/health",
        "/health/ready",
        "/metrics",
    ]
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    assert wrong.json()["error"] == "Method Not Allowed"
