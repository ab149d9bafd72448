"""Tools from outside: lent to MCP clients, borrowed from MCP servers, installed, interrupted."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import httpx
import httpx2  # the MCP SDK's
import pytest
import trio
from end_to_end_assistant import (
    TESTS,
    open_assistant,
    open_processes,
    spoken_text,
    start_assistant,
)
from end_to_end_server import TEXTS, recording
from fakes import FakeTool, tool
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai_server import Answer, Asked, calling, open_openai_server, saying

from listenai.client.device import Device
from listenai.conversation.dialogue import Engines
from listenai.tools.base import ToolRegistry, ToolTraits

STDIO_SERVER = TESTS / "devices" / "mcp_stdio_server.py"
EXAMPLE = TESTS / "tools" / "example_package"
OFFERED = ["get_weather", "roll_dice", "find_recipe"]  # without a conversation

# The official client forgets the generators of a stream that it has closed.
official_client = pytest.mark.filterwarnings(
    "ignore:Async generator 'http(x|core)2:ResourceWarning"
)


@pytest.fixture
def example_site(tmp_path: Path) -> Path:
    """A folder of installed packages: the example alone, as its project file says."""
    site = tmp_path / "site"
    shutil.copytree(EXAMPLE / "src", site)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    information = site / f"listenai_example_tools-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    offers = project["entry-points"]["listenai.tools"]
    lines = ["[listenai.tools]", *(f"{name} = {value}" for name, value in offers.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def call_result(asked: Asked) -> str:
    """What the tool said, as the model reads it."""
    message = asked.body["messages"][-1]
    assert message["role"] == "tool"
    return str(message["content"])


def repeat_result(asked: Asked) -> Answer:
    """Says what the tool said."""
    return saying(f"It says {call_result(asked)}.")


# --- ours, for MCP clients -----------------------------------------------------------------


@official_client
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_and_calls_our_tools(
    mode: Literal["auto", "legacy"], example_site: Path, monkeypatch: pytest.MonkeyPatch
):
    """Those that need no conversation: our own, and those of an installed package."""
    monkeypatch.syspath_prepend(example_site)
    settings = {"mcp_server_name": "kitchen", "mcp_instructions": "Be kind."}
    async with (
        open_assistant(fake=True, **settings) as server,
        Client(f"{server.http}/mcp", mode=mode) as client,
    ):
        assert client.server_info.name == "kitchen"
        assert client.instructions == "Be kind."
        listed = (await client.list_tools()).tools
        assert sorted(each.name for each in listed) == sorted(OFFERED)
        [recipe] = [each for each in listed if each.name == "find_recipe"]
        assert recipe.input_schema["required"] == ["dish"]
        found = await client.call_tool("find_recipe", {"dish": "porridge"})
        assert json.loads(found.content[0].text) == ["oats", "water"]
        unknown = await client.call_tool("find_recipe", {"dish": "porridge", "diet": "raw"})
        assert unknown.is_error
        assert "diet" in unknown.content[0].text


@pytest.mark.engines
@pytest.mark.slow
@official_client
async def test_a_server_with_keys_and_an_installed_tool(example_site: Path):
    """As a process: /mcp answers 401 without a key; with one, MCP client and device both get the
    package's tool to run, and the device hears what it said."""
    async with (
        open_openai_server(calling(("find_recipe", {"dish": "pancakes"})), repeat_result) as model,
        open_processes() as processes,
    ):
        server, _ = await start_assistant(
            processes,
            example_site.parent / "log",
            LLM_BASE_URL=model.url,
            API_KEYS="ann:opensesame",
            PYTHONPATH=str(example_site),
        )
        url = f"{server.http}/mcp"
        async with httpx.AsyncClient() as http:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                answer = await http.post(url, json={}, headers=headers)
                assert answer.status_code == 401
        key = {"Authorization": "Bearer opensesame"}
        async with (
            httpx2.AsyncClient(headers=key) as http2,
            Client(streamable_http_client(url, http_client=http2)) as client,
        ):
            assert sorted(each.name for each in (await client.list_tools()).tools) == sorted(
                OFFERED
            )
            result = await client.call_tool("find_recipe", {"dish": "pancakes", "diet": "vegan"})
            assert (result.is_error, result.content[0].text) == (True, "pancakes are not vegan")
        async with Device.connect(server.ws, api_key="opensesame") as device:
            await device.type_text("how do I make pancakes")
            reply = await device.wait_reply(30)
            [run] = reply.tools
            assert (run.name, run.ok, run.outcome) == (
                "find_recipe",
                True,
                ["flour", "milk", "eggs"],
            )
            assert "flour" in spoken_text(reply)
            assert reply.audible


# --- others', for us -----------------------------------------------------------------------


@pytest.mark.engines
@pytest.mark.slow
async def test_a_tool_of_an_mcp_server_is_called_in_a_spoken_turn(tmp_path: Path):
    """A program that MCP_SERVERS_FILE names: offered to the model, called, its result spoken."""
    servers = tmp_path / "servers.json"
    program = {"command": sys.executable, "args": [str(STDIO_SERVER)]}
    servers.write_text(json.dumps({"mcpServers": {"house": program}}))
    async with (
        open_openai_server(calling(("add", {"a": 80, "b": 4})), repeat_result) as model,
        open_assistant(llm_base_url=(model.url,), mcp_servers_file=str(servers)) as server,
        Device.connect(server.ws) as device,
    ):
        await device.speak(recording("twelve_times_seven.wav"))
        reply = await device.wait_reply()
        assert reply.transcript == TEXTS["twelve_times_seven.wav"]
        offered = {each["function"]["name"]: each for each in model.requests[0].body["tools"]}
        assert offered["add"]["function"]["parameters"]["required"] == ["a", "b"]
        assert {"get_weather", "set_volume", "play_music", "say"} < set(offered)
        [run] = reply.tools
        assert (run.name, run.target, run.ok) == ("add", "server", True)
        assert '"sum": 84' in call_result(model.requests[1])
        assert "84" in spoken_text(reply)
        assert reply.audible
        assert not device.log.violations


# --- barge-in ------------------------------------------------------------------------------


@attrs.define
class _Kitchen:
    """Two tools that end with their turn, and one that goes on."""

    quick: list[FakeTool] = attrs.field(
        factory=lambda: [tool("look_up", delay=3600.0), tool("search", delay=3600.0)]
    )
    oven: FakeTool = attrs.field(
        factory=lambda: tool(
            "preheat",
            delay=4.0,
            result="the oven is hot",
            traits=ToolTraits(background=True, patience_seconds=60.0),
        )
    )

    def install(self, engines: Engines) -> Engines:
        registry = ToolRegistry()
        for each in (*self.quick, self.oven):
            registry.register(each)
        return attrs.evolve(engines, make_tools=lambda _session, _music: registry)


def results_in(messages: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What came of each tool's calls, by the tool's name."""
    calls = {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls", ())
    }
    results: dict[str, list[str]] = {}
    for message in messages:
        if message["role"] == "tool":
            results.setdefault(calls[message["tool_call_id"]], []).append(message["content"])
    return results


@pytest.mark.engines
@pytest.mark.slow
async def test_speech_over_three_tools_ends_two_and_lets_the_third_go_on():
    """A "stop" is answered at once; the history says what was cut short, and what the third did."""
    kitchen = _Kitchen()
    three = calling(("look_up", {}), ("preheat", {}), ("search", {}))
    async with (
        open_openai_server(three, saying("Stopped."), saying("It is hot.")) as model,
        open_assistant(kitchen.install, llm_base_url=(model.url,)) as server,
        Device.connect(server.ws) as device,
    ):
        await device.type_text("make dinner")
        await device.wait_until(
            lambda: sum(event.type == "tool_call" for event in device.log.events) == 3
        )
        assert [len(each.runs) for each in (*kitchen.quick, kitchen.oven)] == [1, 1, 1]
        await device.speak(recording("stop.wav"))
        reply = await device.wait_reply(30)
        assert (reply.transcript, spoken_text(reply)) == ("stop", "Stopped.")
        assert device.log.turns[1].interrupted is not None
        assert results_in(model.requests[1].body["messages"]) == {
            "look_up": ['{"error": "interrupted"}'],
            "search": ['{"error": "interrupted"}'],
        }

        def returned() -> list[Mapping[str, Any]]:
            return [e.message for e in device.log.events if e.type == "tool_result"]

        with trio.fail_after(10):
            await device.wait_until(lambda: bool(returned()))
        [late] = returned()
        assert (late["name"], late["ok"], late["turn_id"]) == ("preheat", True, 1)
        assert [each.finished for each in kitchen.quick] == [[], []]
        await device.type_text("is it hot")
        assert spoken_text(await device.wait_reply(30)) == "It is hot."
        history = results_in(model.requests[2].body["messages"])
        assert history["preheat"] == ['"the oven is hot"']
        assert history["look_up"] == history["search"] == ['{"error": "interrupted"}']
        assert not device.log.violations
