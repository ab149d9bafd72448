"""Our tools for MCP clients: the official one, older ones by hand, and pages that may not."""

from __future__ import annotations

import itertools
import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import httpx
import pytest
import trio
from fakes import FakeTool
from fakes import tool as fake_tool
from mcp import Client, MCPError
from mcp.types import CallToolResult, TextContent
from starlette.applications import Starlette
from starlette.routing import Route

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.server.front_door import Address, Endpoint, serve_front_door
from listenai.server.mcp_endpoint import MAX_BODY_BYTES, MAX_REQUESTS, McpEndpoint
from listenai.tools.base import ToolRegistry, ToolTraits

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
MODERN = "2026-07-28"  # the version whose requests are whole in themselves
ERAS = pytest.mark.parametrize("era", ["2024-11-05", "2025-11-25", MODERN])
LAMP = ToolSchema(
    "set_lamp", "Sets the lamp.", {"type": "object", "properties": {"on": {"type": "boolean"}}}
)

# The official client forgets the generators of a stream that it has closed.
official_client = pytest.mark.filterwarnings(
    "ignore:Async generator 'http(x|core)2:ResourceWarning"
)

pytestmark = pytest.mark.usefixtures("nothing_left")


class NeedsNames:
    """An argument checker that knows which arguments there are."""

    def check_schema(self, schema: ToolSchema) -> None:
        pass

    def check_arguments(self, schema: ToolSchema, arguments: Mapping[str, Any]) -> None:
        known = schema.parameters.get("properties", {})
        for name in arguments:
            if name not in known:
                raise ToolError(f"{schema.name} has no {name!r}; it has: {', '.join(known)}")


def endpoint(*tools: FakeTool, origins: Sequence[str] = ()) -> McpEndpoint:
    registry = ToolRegistry()
    for each in tools:
        registry.register(each)
    return McpEndpoint(
        registry,
        NeedsNames(),
        name="kitchen",
        version="2.1",
        instructions="Be kind.",
        allowed_origins=origins,
    )


@asynccontextmanager
async def served(mcp: McpEndpoint) -> AsyncIterator[str]:
    """The URL of an endpoint behind a front door."""

    async def serve(*, task_status: trio.TaskStatus[Sequence[Address]]) -> None:
        app = Starlette(routes=[Route("/mcp", mcp)])
        door = partial(serve_front_door, app, _no_devices, _no_devices, endpoints=[Endpoint()])
        await door(task_status=task_status)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            addresses: Sequence[Address] = await nursery.start(serve)
            yield addresses[0].url() + "/mcp"
            nursery.cancel_scope.cancel()


def _no_devices(*_: Any) -> Any:
    raise AssertionError("MCP comes by HTTP")


def request(method: str, params: Mapping[str, Any], era: str, request_id: int = 1) -> Any:
    """Arguments for `post`, as a client of that version sends them."""
    headers, body = dict(HEADERS), dict(params)
    if era != "2024-11-05":  # which knows no such header
        headers["MCP-Protocol-Version"] = era
    if era == MODERN:
        headers |= {"Mcp-Method": method} | ({"Mcp-Name": body["name"]} if "name" in body else {})
        body["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": era,
            "io.modelcontextprotocol/clientInfo": {"name": "by hand", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": body}
    return {"headers": headers, "content": json.dumps(message)}


def answer_in(response: httpx.Response) -> Any:
    """The one message of an answer, which may be a stream of events."""
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
        (line,) = lines
        return json.loads(line.removeprefix("data: "))
    return response.json()


def in_memory(mcp: McpEndpoint) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(mcp), base_url="http://here")


def words_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


# --- the official client, through the front door ------------------------------------------


@official_client
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_and_calls(mode: Literal["auto", "legacy"]) -> None:
    """It learns who we are, sees the schemas, and gets results as JSON and as text."""
    lamp = FakeTool(LAMP, result={"was": "aus", "hell": "größer"})
    mcp = endpoint(lamp, fake_tool("sing", result="la la"), fake_tool("count", result=[1, 2]))
    async with served(mcp) as url, Client(url, mode=mode) as client:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("kitchen", "2.1")
        assert client.instructions == "Be kind."
        listed = (await client.list_tools()).tools
        assert [each.name for each in listed] == ["set_lamp", "sing", "count"]
        assert (listed[0].description, listed[0].input_schema) == (
            "Sets the lamp.",
            LAMP.parameters,
        )
        result = await client.call_tool("set_lamp", {"on": True})
        assert result.structured_content == lamp.result
        assert "größer" in words_of(result)
        assert words_of(await client.call_tool("sing")) == "la la"
        assert words_of(await client.call_tool("count", {})) == "[1, 2]"
        assert lamp.runs == [{"on": True}]


@official_client
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_what_goes_wrong_is_told_to_the_model(
    mode: Literal["auto", "legacy"], caplog: pytest.LogCaptureFixture
) -> None:
    """ToolError, arguments and bugs are results; a tool that there is not is an error."""
    mcp = endpoint(
        FakeTool(LAMP),
        fake_tool("bake", fail=ToolError("the oven is cold")),
        fake_tool("break", fail=RuntimeError("pipe at 10.0.0.7")),
    )
    async with served(mcp) as url, Client(url, mode=mode) as client:
        cold = await client.call_tool("bake", {})
        assert (cold.is_error, words_of(cold)) == (True, "the oven is cold")
        wrong = await client.call_tool("set_lamp", {"of": "whispered"})
        assert wrong.is_error
        assert words_of(wrong) == "set_lamp has no 'of'; it has: on"
        caplog.clear()
        broken = await client.call_tool("break", {})
        assert (broken.is_error, words_of(broken)) == (True, "break does not work")
        assert [record.getMessage() for record in caplog.records] == ["tool_failed tool=break"]
        with pytest.raises(MCPError, match="no tool 'fly'; there are: set_lamp, bake, break"):
            await client.call_tool("fly", {})


async def test_tools_that_come_and_go_are_seen_at_the_next_request() -> None:
    """The registry is asked each time."""
    registry = ToolRegistry()
    mcp = McpEndpoint(registry, NeedsNames(), name="a", version="1")
    async with served(mcp) as url, Client(url, cache=None) as client:
        assert (await client.list_tools()).tools == []
        registry.register(FakeTool(ToolSchema("late", "comes later", {})))
        (late,) = (await client.list_tools()).tools
        assert (late.name, late.input_schema) == ("late", {"type": "object"})
        registry.unregister("late")
        assert (await client.list_tools()).tools == []


# --- by hand ------------------------------------------------------------------------------


async def test_a_client_of_2024_is_served() -> None:
    """Handshake, notification, list and call, each on a connection of its own, without session."""
    era = "2024-11-05"
    hello = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "a", "version": ""}}
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    async with served(endpoint(FakeTool(LAMP))) as url, httpx.AsyncClient() as http:
        welcome = await http.post(url, **request("initialize", hello, era))
        assert welcome.headers["connection"] == "close"
        assert "mcp-session-id" not in welcome.headers
        result = answer_in(welcome)["result"]
        assert result["protocolVersion"] == era
        assert result["capabilities"]["tools"] == {"listChanged": False}
        noted = await http.post(url, headers=HEADERS, json=initialized)
        assert (noted.status_code, noted.content) == (202, b"")
        listed = answer_in(await http.post(url, **request("tools/list", {}, era)))
        assert [each["name"] for each in listed["result"]["tools"]] == ["set_lamp"]
        call = {"name": "set_lamp", "arguments": {"on": False}}
        called = answer_in(await http.post(url, **request("tools/call", call, era, 7)))
        assert called["id"] == 7
        assert called["result"]["content"] == [{"type": "text", "text": "done"}]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS"])
async def test_there_is_nothing_but_post(method: str) -> None:
    """No stream to listen to and no session to end: 405, which clients take as that."""
    async with served(endpoint()) as url, httpx.AsyncClient() as http:
        answer = await http.request(method, url, headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "POST" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ((), None, 200),
        ((), "http://here", 403),  # our own name, as after DNS rebinding
        (("https://a.test/",), "https://A.test", 200),
        (("https://a.test",), "https://a.test:8443", 403),
        (("https://a.test",), "https://a.test.evil", 403),
        (("https://a.test",), "null", 403),
        (("*",), "https://evil.test", 200),
    ],
)
async def test_only_pages_of_allowed_origins_may_call(
    allowed: Sequence[str], origin: str | None, status: int
) -> None:
    """A request without an origin does not come from a page."""
    asked = request("tools/list", {}, "2025-11-25")
    if origin is not None:
        asked["headers"]["Origin"] = origin
    async with in_memory(endpoint(origins=allowed)) as http:
        assert (await http.post("/mcp", **asked)).status_code == status


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        ("no JSON", {}, 400),
        ("{}", {}, 400),
        ("[]", {}, 400),
        ("{}", {"Content-Type": "text/plain"}, 400),
        ("{}", {"Accept": "text/html"}, 406),
        ("{}", {"MCP-Protocol-Version": "2031-01-01"}, 400),
        ("x" * (MAX_BODY_BYTES + 1), {}, 413),
    ],
)
async def test_nonsense_is_refused(content: str, headers: Mapping[str, str], status: int) -> None:
    """The status says what kind of nonsense, and the endpoint goes on."""
    async with in_memory(endpoint(FakeTool(LAMP))) as http:
        bad = await http.post("/mcp", content=content, headers=HEADERS | dict(headers))
        assert bad.status_code == status
        good = await http.post("/mcp", **request("tools/list", {}, "2025-11-25"))
        assert answer_in(good)["result"]["tools"]


# --- time, in memory ----------------------------------------------------------------------


@ERAS
async def test_a_tool_has_its_own_time(era: str, autojump_clock: trio.testing.MockClock) -> None:
    """What takes longer has failed, and says so."""
    slow = fake_tool("bake", delay=100.0, traits=ToolTraits(timeout_seconds=12.5))
    async with in_memory(await warm(endpoint(slow))) as http:
        answer = await http.post("/mcp", **request("tools/call", {"name": "bake"}, era))
    result = answer_in(answer)["result"]
    assert result["isError"]
    assert result["content"][0]["text"] == "bake took longer than 12.5 seconds"
    assert slow.finished == []
    assert trio.current_time() < 20.0


async def warm(mcp: McpEndpoint) -> McpEndpoint:
    """Past its first request, which waits for a thread; the clock would not wait for that."""
    async with in_memory(mcp) as http:
        await http.post("/mcp", **request("tools/list", {}, MODERN))
    return mcp


class Asked:
    """One request to an ASGI application, with the times of what it sends."""

    def __init__(self, asked: Any) -> None:
        self.sent: list[tuple[float, Mapping[str, Any]]] = []
        self.hung_up = trio.Event()
        self._body = [asked["content"].encode()]
        headers = [
            (name.lower().encode(), text.encode()) for name, text in asked["headers"].items()
        ]
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "http_version": "1.1",
            "headers": headers,
        }

    async def receive(self) -> Any:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append((trio.current_time(), message))


@ERAS
async def test_a_slow_tool_is_not_taken_for_a_dead_connection(
    era: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The front door waits 60 s for a byte: while the tool works, some come every 15 s."""
    slow = fake_tool("bake", delay=200.0, traits=ToolTraits(timeout_seconds=300.0))
    asked = Asked(request("tools/call", {"name": "bake"}, era))
    mcp = await warm(endpoint(slow))
    began = trio.current_time()
    await mcp(asked.scope, asked.receive, asked.send)
    times = [began, *(at for at, _ in asked.sent)]
    assert times[-1] - began >= 200.0
    assert max(b - a for a, b in itertools.pairwise(times)) <= 30.0
    assert b"done" in b"".join(message.get("body", b"") for _, message in asked.sent)


@ERAS
async def test_hanging_up_ends_the_call(era: str, autojump_clock: trio.testing.MockClock) -> None:
    """Nobody would hear of the result."""
    slow = fake_tool("bake", delay=1000.0, traits=ToolTraits(timeout_seconds=2000.0))
    asked = Asked(request("tools/call", {"name": "bake"}, era))
    mcp = await warm(endpoint(slow))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mcp, asked.scope, asked.receive, asked.send)
        await trio.sleep(5)
        assert len(slow.runs) == 1
        asked.hung_up.set()
    assert slow.finished == []
    assert trio.current_time() < 60.0


async def test_too_many_requests_are_told_to_come_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """There is room again as soon as one was answered."""
    slow = fake_tool("bake", delay=10.0)
    mcp = await warm(endpoint(slow))
    call = request("tools/call", {"name": "bake"}, "2025-11-25")
    async with in_memory(mcp) as http:
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_REQUESTS):
                nursery.start_soon(partial(http.post, "/mcp", **call))
            await trio.sleep(5)
            refused = await http.post("/mcp", **call)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        assert (await http.post("/mcp", **call)).status_code == 200
    assert len(slow.finished) == MAX_REQUESTS + 1


# --- what it costs ------------------------------------------------------------------------

ASK = """
import sys, httpx, trio
{before}
from listenai.server.mcp_endpoint import McpEndpoint
from listenai.tools.base import ToolRegistry
endpoint = McpEndpoint(ToolRegistry(), None, name="a", version="1")
assert not [name for name in sys.modules if name.split(".")[0] in ("mcp", "pydantic")] or {before!r}
async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint)) as http:
        answer = await http.post("http://here/mcp", headers={headers}, content={content!r})
        print(answer.status_code, answer.text)
trio.run(main)
assert "mcp" in sys.modules
"""


async def ask_in_a_new_process(before: str = "") -> str:
    asked = request("tools/list", {}, "2025-11-25")
    script = ASK.format(before=before, **asked)
    command = [sys.executable, "-W", "error", "-c", script]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def test_the_sdk_is_imported_by_the_first_request() -> None:
    """And that one is answered."""
    answer = await ask_in_a_new_process()
    assert answer.startswith("200 ")
    assert '"tools":[]' in answer


async def test_without_the_sdk_the_answer_says_what_to_install() -> None:
    """The server itself goes on."""
    answer = await ask_in_a_new_process("sys.modules['mcp'] = None")
    assert answer.startswith("501 ")
    assert "pip install 'listenai[mcp]'" in answer


async def test_nothing_of_what_is_said_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither arguments nor results nor broken messages, at any level."""
    caplog.set_level(logging.DEBUG)
    mcp = endpoint(fake_tool("sing", result="whispered"), FakeTool(LAMP))
    call = {"name": "set_lamp", "arguments": {"of": "whispered"}}
    async with in_memory(mcp) as http:
        for era in ("2025-11-25", MODERN):
            await http.post("/mcp", **request("tools/call", {"name": "sing"}, era))
            await http.post("/mcp", **request("tools/call", call, era))
            await http.post("/mcp", **request("tools/call", {"name": ["whispered"]}, "2025-11-25"))
        await http.post("/mcp", headers=HEADERS, content='{"whispered": ')
    assert "whispered" not in caplog.text
