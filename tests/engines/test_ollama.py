"""Finding an Ollama on this machine."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
import trio

from listenai.engines.ollama import FIND_SECONDS, OLLAMA_URL, OllamaFound, find_ollama

CHAT = {"name": "llama3.2:latest", "details": {"family": "llama"}}
OLDER = {"name": "qwen3:4b"}


async def find(answer: httpx.Response | Exception, url: str = OLLAMA_URL) -> OllamaFound | None:
    """What is found where this is the answer to `GET /api/tags`."""

    def respond(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://127.0.0.1:11434/api/tags"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client:
        return await find_ollama(client, url)


def listing(*models: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"models": models})


@pytest.mark.parametrize("url", [OLLAMA_URL, f"{OLLAMA_URL}/", f"{OLLAMA_URL}/v1"])
async def test_the_first_chat_model_is_named(url: str) -> None:
    """In the order in which Ollama lists them."""
    found = await find(listing(CHAT, OLDER), url)
    assert found == OllamaFound(url, ("llama3.2:latest", "qwen3:4b"))
    assert found.model == "llama3.2:latest"


@pytest.mark.parametrize(
    "other",
    [
        {"name": "nomic-embed-text:latest", "details": {"family": "nomic-bert"}},
        {"name": "all-minilm"},
        {"name": "bge-m3:latest"},
        {"name": "x", "details": {"family": "bert"}},
        {"name": "llama-embedding", "capabilities": ["embedding"]},
        "no object",
    ],
)
async def test_models_that_cannot_chat_are_passed_over(other: Any) -> None:
    """Those that make vectors of texts."""
    found = await find(listing(other, CHAT))
    assert found
    assert found.model == "llama3.2:latest"


async def test_an_ollama_without_models() -> None:
    """Answers, but cannot be talked with yet."""
    found = await find(listing())
    assert found
    assert found.model is None


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.Response(404),
        httpx.Response(307, headers={"Location": "http://elsewhere"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"models": None}),
        httpx.Response(200, json={"models": [{}]}),
    ],
)
async def test_somebody_else_or_nobody(answer: httpx.Response | Exception) -> None:
    """Is no Ollama, and no error."""
    assert await find(answer) is None


async def say_nothing(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_somebody_who_accepts_and_says_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Delays the start by half a second at most."""
    autojump_clock.autojump_threshold = 0.05  # real sockets take part
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
        port = listener.socket.getsockname()[1]
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            began = trio.current_time()
            assert await find_ollama(client, f"http://127.0.0.1:{port}") is None
            assert trio.current_time() - began == pytest.approx(FIND_SECONDS)
        nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    """Is told at once."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            url = f"http://127.0.0.1:{kept.getsockname()[1]}"
            assert await find_ollama(client, url) is None
