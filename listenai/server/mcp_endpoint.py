"""Our tools for MCP clients, by streamable HTTP, without sessions.

Every request is whole in itself: the protocol of 2026 knows nothing else, and clients of older
ones (from 2024-11-05 on) accept that they are given no session.  So nothing is kept between
requests, none of them needs a task that outlives it, and a client that was connected before a
restart does not notice it.  The price: no notice that the tools have changed, and older clients
end a call by hanging up, not by asking to cancel it.

Answers are events where they take time: the SDK sends a comment every 15 s, so that neither our
own front door nor a proxy takes a slow tool for a dead connection.
"""

# ruff: noqa: PLC0415 -- importing the SDK costs 0.5 s and 42 MB: only once somebody asks

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from listenai.errors import ToolError
from listenai.tools.base import ArgumentChecker, Tool, ToolRegistry

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult

_log = logging.getLogger(__name__)

MAX_REQUESTS = 32  # at a time; more are told to come again
MAX_BODY_BYTES = 256 * 1024  # of a request: the arguments of one call
_INVALID_REQUEST = -32600  # of JSON-RPC
# They log the messages of their exceptions, which hold what was said.
_TALKATIVE = ("mcp", "sse_starlette")


class McpEndpoint:
    """An ASGI application that offers the tools of a registry, as they are at each request.

    It answers POST alone.  Give it to a `Route` and not a `Mount`, which would redirect.
    Whoever may not call tools is to be refused before this is asked.
    """

    def __init__(
        self,
        tools: ToolRegistry,
        checker: ArgumentChecker,
        *,
        name: str,
        version: str,
        instructions: str = "",
        allowed_origins: Sequence[str] = (),
    ) -> None:
        """allowed_origins: of web pages, as in "https://example.org"; "*" allows every page.

        Requests without an origin, which do not come from a page, are always allowed.
        """
        self._tools = tools
        self._checker = checker
        self._name, self._version, self._instructions = name, version, instructions
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}
        self._server: Server[Any] | None = None
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        refusal = self._refuse(scope["method"], Headers(scope=scope))
        if refusal:
            await refusal(scope, receive, send)
            return
        self._requests += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._requests -= 1

    def _refuse(self, method: str, headers: Headers) -> JSONResponse | None:
        """Why a request is not even looked at."""
        # A page whose name was made to point at us (DNS rebinding) has us as its own origin, so
        # that being asked by ourselves allows nothing.  Browsers send it with every POST.
        for origin in headers.getlist("origin"):
            if "*" not in self._origins and origin.lower() not in self._origins:
                return _problem(
                    HTTPStatus.FORBIDDEN,
                    "pages of this origin may not call tools here; an administrator can allow it",
                )
        if method != "POST":
            return _problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "send MCP messages by POST; there are no sessions to listen to or to end",
                {"Allow": "POST"},
            )
        if self._requests >= MAX_REQUESTS:
            return _problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", {"Retry-After": "5"}
            )
        return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._server is None:
            try:
                self._server = await trio.to_thread.run_sync(self._make_server)
            except ImportError:
                message = "this server has no MCP: pip install 'listenai[mcp]'"
                await _problem(HTTPStatus.NOT_IMPLEMENTED, message)(scope, receive, send)
                return
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        # One for each request: its tasks end here, and what breaks in them breaks no other.
        manager = StreamableHTTPSessionManager(
            self._server, stateless=True, max_request_body_size=MAX_BODY_BYTES
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    def _make_server(self) -> Server[Any]:
        """Imports the SDK, which blocks."""
        from mcp.server.lowlevel import Server

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return Server(
            self._name,
            version=self._version,
            instructions=self._instructions or None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def _list_tools(self, _context: object, _page: object) -> ListToolsResult:
        from mcp.types import ListToolsResult

        await trio.lowlevel.checkpoint()
        return ListToolsResult(tools=[_described(tool) for tool in self._tools])

    async def _call_tool(self, _context: object, call: CallToolRequestParams) -> CallToolResult:
        """Runs a tool; what went wrong is told to the model, which may do better."""
        from mcp import MCPError
        from mcp.types import INVALID_PARAMS

        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(tool.schema.name for tool in self._tools) or "none"
            raise MCPError(INVALID_PARAMS, f"there is no tool {call.name!r}; there are: {known}")
        arguments = call.arguments or {}
        try:
            self._checker.check_arguments(tool.schema, arguments)
            with trio.fail_after(tool.traits.timeout_seconds):
                return _result(await tool.run(arguments))
        except ToolError as error:
            return _failure(str(error))
        except trio.TooSlowError:
            return _failure(f"{call.name} took longer than {tool.traits.timeout_seconds:g} seconds")
        except Exception:  # a bug, which the others must not pay for
            _log.exception("tool_failed tool=%s", call.name)
            return _failure(f"{call.name} does not work")


def _described(tool: Tool) -> Any:
    from mcp import types

    schema = {"type": "object", **tool.schema.parameters}  # which MCP demands
    return types.Tool(
        name=tool.schema.name, description=tool.schema.description, input_schema=schema
    )


def _result(result: Any) -> CallToolResult:
    """JSON for those who can read it, and the same as text for the others."""
    from mcp import types

    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    structured = dict(result) if isinstance(result, Mapping) else None
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=structured
    )


def _failure(message: str) -> CallToolResult:
    from mcp import types

    return types.CallToolResult(content=[types.TextContent(text=message)], is_error=True)


def _problem(
    status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer to what is no request of MCP, in the form that MCP has for that."""
    error = {"code": _INVALID_REQUEST, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status, headers)
