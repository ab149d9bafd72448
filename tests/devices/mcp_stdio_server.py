"""A small MCP server for tests: as a program on standard input and output, or to be served.

`python mcp_stdio_server.py modern|legacy`: legacy knows no protocol that is younger than
2025-11-25.  What it writes to standard error must not be seen anywhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp import MCPError, types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

PAGE = 3  # tools of a page
SECRET = "whispered"  # on standard error
OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}
ADD = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
SUM = {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}

Run = Callable[[Any, dict[str, Any]], Awaitable[types.CallToolResult]]


def text(*words: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=word) for word in words])


class House:
    """The tools, and what they remember."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.begun = self.cancelled = 0
        self.tools: dict[str, tuple[types.Tool, Run]] = {}
        self.offer("add", self.add, ADD, SUM)
        for run in (self.say, self.show, self.fail, self.fail_silently, self.crash, self.state):
            self.offer(run.__name__)
        self.offer("wait", self.wait)
        self.offer("lie", self.lie, OBJECT, SUM)
        self.offer("build.a room", self.build)
        self.offer("paint", self.paint)

    def offer(
        self, name: str, run: Run | None = None, schema: Any = OBJECT, output: Any = None
    ) -> None:
        tool = types.Tool(
            name=name, description=f"does {name}", input_schema=schema, output_schema=output
        )
        self.tools[name] = tool, run or getattr(self, name)

    async def list_tools(
        self, _ctx: Any, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        tools = [tool for tool, _ in self.tools.values()]
        start = int(params.cursor) if params and params.cursor else 0
        following = str(start + PAGE) if start + PAGE < len(tools) else None
        return types.ListToolsResult(tools=tools[start : start + PAGE], next_cursor=following)

    async def call_tool(
        self, ctx: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        print(SECRET, params.name, file=sys.stderr, flush=True)
        if params.name not in self.tools:
            raise MCPError(types.INVALID_PARAMS, f"no tool {params.name}")
        return await self.tools[params.name][1](ctx, params.arguments or {})

    # --- the tools -----------------------------------------------------------------------

    async def add(self, _ctx: Any, arguments: dict[str, Any]) -> types.CallToolResult:
        total = arguments["a"] + arguments["b"]
        content = [types.TextContent(text=str(total))]
        return types.CallToolResult(content=content, structured_content={"sum": total})

    async def say(self, _ctx: Any, arguments: dict[str, Any]) -> types.CallToolResult:
        return text(*arguments.get("words", ["hello"]))

    async def show(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        return types.CallToolResult(
            content=[
                types.TextContent(text="look:"),
                types.ImageContent(data="aGk=", mime_type="image/png"),
                types.AudioContent(data="aGk=", mime_type="audio/wav"),
                types.ResourceLink(name="manual", uri="file:///manual"),
                types.EmbeddedResource(
                    resource=types.TextResourceContents(uri="file:///a", text="inside")
                ),
                types.EmbeddedResource(
                    resource=types.BlobResourceContents(uri="file:///b", blob="aGk=")
                ),
            ]
        )

    async def fail(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        content = [types.TextContent(text="the oven is cold")]
        return types.CallToolResult(content=content, is_error=True)

    async def fail_silently(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        return types.CallToolResult(content=[], is_error=True)

    async def lie(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        return types.CallToolResult(content=[], structured_content={"sum": "many"})

    async def crash(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        os._exit(1)

    async def state(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        state = {"pid": os.getpid(), "begun": self.begun, "cancelled": self.cancelled}
        return types.CallToolResult(content=[], structured_content=state)

    async def wait(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        self.begun += 1
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return text("never")

    async def build(self, ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        """One tool more, one less, one other; and says so."""
        self.offer("enter", self.say)
        self.offer("paint", self.paint, ADD)
        del self.tools["say"]
        await ctx.session.send_tool_list_changed()
        await self.bus.publish(ToolsListChanged())
        return text("built")

    async def paint(self, _ctx: Any, _arguments: dict[str, Any]) -> types.CallToolResult:
        return text("painted")


def make_server(house: House, *, legacy: bool = False) -> Server[Any]:
    """A server of the SDK with these tools."""
    server: Server[Any] = Server(
        "house",
        version="1",
        on_list_tools=house.list_tools,
        on_call_tool=house.call_tool,
        on_subscriptions_listen=None if legacy else ListenHandler(house.bus),
    )
    if legacy:

        async def refuse(_ctx: Any, _params: Any) -> types.EmptyResult:
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found")

        server.add_request_handler("server/discover", types.RequestParams, refuse)
    return server


async def main(era: str) -> None:
    server = make_server(House(), legacy=era == "legacy")
    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    async with stdio_server() as (reading, writing):
        if era == "modern":
            await server.run(reading, writing, options)
        else:
            await serve_loop(server, reading, writing, lifespan_state={}, init_options=options)


if __name__ == "__main__":
    anyio.run(main, [*sys.argv, "modern"][1], backend="trio")
