"""One connection to an MCP server: opened by the SDK, called through, watched, translated.

Calls run in the connection's nursery and not in the turn's: a turn that is cancelled leaves at
once, while the call still tells the server that nobody waits for it.
"""

# ruff: noqa: PLC0415 -- importing the SDK costs 0.5 s and 42 MB: only where servers are given

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TextIO

import attrs
import trio

from listenai.errors import ConfigurationError, ToolError
from listenai.events import JsonObject, ToolSchema
from listenai.tools.base import ToolTraits
from listenai.tools.mcp_servers import HttpMcpServer, McpServer, StdioMcpServer

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp.client import Transport

_log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0  # to start, shake hands and list; older servers may cost a probe of 10 s
LISTEN_AGAIN_SECONDS = 60.0  # after a subscription has ended
MAX_TOOLS = 128  # of one server; chat models take no more
MAX_PAGES = 128  # of a listing: a cursor may lead round in circles
MAX_RESULT_CHARACTERS = 10_000  # of a result, as of any item of the history
_HTTP_READ_SECONDS = 300.0  # between two pieces of an answer
# They log the messages of their exceptions, which hold what was said.
_TALKATIVE = ("mcp", "client", "httpx2", "httpcore2")


def load_sdk() -> None:
    """Imports the SDK, which blocks; raises ConfigurationError where it is not installed."""
    try:
        for package in ("mcp", "httpx2"):
            importlib.import_module(package)
    except ImportError as error:
        message = "MCP servers are given, but not the package for them: pip install 'listenai[mcp]'"
        raise ConfigurationError([message]) from error
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)


_CLOSED = "the server closed the connection"


class ConnectionLost(Exception):
    """The connection is over; the message says how."""


def reason_of(failure: BaseException) -> str:
    """Why a connection ended, in words that hold nothing of what was sent over it."""
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED

    causes = list(_leaves(failure))
    # That it was closed is what most others come with.
    cause = next((cause for cause in causes if not isinstance(cause, ConnectionLost)), causes[0])
    if isinstance(cause, ConnectionLost):
        return str(cause)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(cause, MCPError):
        return _CLOSED if cause.code == CONNECTION_CLOSED else f"error {cause.code} of MCP"
    return type(cause).__name__


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for each in failure.exceptions:
            yield from _leaves(each)
    else:
        yield failure


@attrs.frozen
class ListedTool:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: JsonObject


@attrs.define
class _Signals:
    """What a server tells unasked."""

    lost: trio.Event = attrs.field(factory=trio.Event)
    changed: trio.Event = attrs.field(factory=trio.Event)  # its list of tools

    async def hear(self, message: object) -> None:
        """Takes the SDK's notifications."""
        from mcp.types import ToolListChangedNotification

        await trio.lowlevel.checkpoint()
        if isinstance(message, ToolListChangedNotification):
            self.changed.set()


@asynccontextmanager
async def open_connection(server: McpServer) -> AsyncIterator[Connection]:
    """A connection that has shaken hands; leaving ends it, and the program it was made to.

    What ends it from the other side is raised here, in groups: ConnectionLost or whatever the
    SDK raises.  A program gets 2 s to end by itself and 2 s more after SIGTERM.
    """
    signals = _Signals()
    async with _open_client(server, signals) as client, trio.open_nursery() as nursery:
        connection = Connection(server.name, client, nursery, signals)
        nursery.start_soon(_raise_when, signals.lost)
        nursery.start_soon(_follow_changes, client, signals)
        try:
            yield connection
        finally:
            connection.is_open = False
            nursery.cancel_scope.cancel()


async def _raise_when(lost: trio.Event) -> None:
    await lost.wait()
    raise ConnectionLost(_CLOSED)


async def _follow_changes(client: Client, signals: _Signals) -> None:
    """Subscribes to changes, which newer protocols demand; older servers tell them unasked."""
    from mcp import MCPError
    from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

    tools = client.server_capabilities.tools
    while tools and tools.list_changed:
        try:
            async with client.listen(tools_list_changed=True) as events:
                signals.changed.set()  # perhaps, before we listened
                async for _ in events:
                    signals.changed.set()
        except ListenNotSupportedError:
            return
        except (MCPError, SubscriptionLost):
            signals.changed.set()  # perhaps unseen, or the server has gone: listing will tell
        await trio.sleep(LISTEN_AGAIN_SECONDS)


@attrs.define(eq=False)
class Connection:
    """What an open connection can do."""

    server_name: str
    _client: Client
    _nursery: trio.Nursery
    _signals: _Signals
    is_open: bool = True

    async def wait_changed(self) -> None:
        """Waits until the tools are not what was listed last."""
        await self._signals.changed.wait()

    async def list_tools(self) -> list[ListedTool]:
        """Every tool of every page, as far as the bounds go."""
        self._signals.changed = trio.Event()  # a change from now on counts
        capabilities = self._client.server_capabilities
        tools: list[ListedTool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES if capabilities.tools else 0):
            page = await self._client.list_tools(cursor=cursor)
            tools += [
                ListedTool(tool.name, tool.description or "", tool.input_schema)
                for tool in page.tools
            ]
            cursor = page.next_cursor
            if cursor is None or len(tools) > MAX_TOOLS:
                break
        if cursor is not None or len(tools) > MAX_TOOLS:
            kept = min(MAX_TOOLS, len(tools))
            _log.warning("mcp_too_many_tools server=%s kept=%d", self.server_name, kept)
        return tools[:MAX_TOOLS]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The SDK's CallToolResult.  Raises ToolError."""
        if not self.is_open:
            raise ToolError(f"{self.server_name} is not connected now; try again later")
        call = _Call()
        self._nursery.start_soon(call.run, self._client, name, dict(arguments))
        try:
            await call.done.wait()
        finally:
            call.scope.cancel()  # that tells the server, and we need not wait for it
        return call.outcome(self.server_name)


@attrs.define(eq=False)
class _Call:
    """One call, in the connection's nursery."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Any = None
    error: Exception | None = None

    async def run(self, client: Client, name: str, arguments: dict[str, Any]) -> None:
        """Calls, keeping whatever comes of it: it is this call's, not the connection's."""
        try:
            with self.scope:
                self.result = await client.call_tool(name, arguments)
        except Exception as error:
            self.error = error
        finally:
            self.done.set()

    def outcome(self, server_name: str) -> Any:
        """The result, or ToolError."""
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        if isinstance(self.error, MCPError) and self.error.code != CONNECTION_CLOSED:
            raise ToolError(f"{server_name} refused the call: {_cut(self.error.message)}")
        if self.error and not isinstance(self.error, MCPError):
            raise ToolError(f"{server_name} sent an answer I cannot read") from self.error
        if self.result is None:
            raise ToolError(f"the connection to {server_name} was lost during the call")
        return self.result


# --- the SDK's client --------------------------------------------------------------------


@asynccontextmanager
async def _open_client(server: McpServer, signals: _Signals) -> AsyncIterator[Client]:
    import httpx2
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    def client(transport: Transport) -> Client:
        watched = _WatchedTransport(transport, signals.lost)
        return Client(watched, message_handler=signals.hear, cache=None)

    match server:
        case StdioMcpServer():
            parameters = StdioServerParameters(
                command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
            )
            with _nowhere() as complaints:  # which may hold what was said
                async with client(stdio_client(parameters, complaints)) as opened:
                    yield opened
        case HttpMcpServer():
            timeout = httpx2.Timeout(ANSWER_SECONDS, read=_HTTP_READ_SECONDS)
            async with httpx2.AsyncClient(
                headers=dict(server.headers),
                timeout=timeout,
                event_hooks={"response": [_raise_when_denied]},
            ) as http:
                # A goodbye to a server that has gone would take as long as a timeout.
                transport = streamable_http_client(
                    server.url, http_client=http, terminate_on_close=False
                )
                async with client(transport) as opened:
                    yield opened


async def _raise_when_denied(response: httpx2.Response) -> None:
    """Says what the SDK keeps to itself."""
    await trio.lowlevel.checkpoint()
    if response.status_code in {401, 403}:
        words = f"HTTP {response.status_code}: it may want a key among its headers"
        raise PermissionError(errno.EACCES, words)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


class _WatchedTransport:
    """A transport of the SDK that tells when nothing more will come from the server.

    The SDK's client tells it only to those who wait for an answer.
    """

    def __init__(self, transport: Transport, lost: trio.Event) -> None:
        self._transport = transport
        self._lost = lost

    async def __aenter__(self) -> tuple[Any, Any]:
        reading, writing = await self._transport.__aenter__()
        return _WatchedStream(reading, self._lost), writing

    async def __aexit__(self, *failure: Any) -> bool | None:  # noqa: PYI036 -- passed on
        return await self._transport.__aexit__(*failure)


class _WatchedStream:
    """What comes from the server; whoever reads it leaves when there is no more."""

    def __init__(self, stream: Any, lost: trio.Event) -> None:
        self._stream = stream
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)  # `receive`, `aclose`, and the sender's context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._stream.__anext__()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> bool | None:
        self._lost.set()
        left: bool | None = await self._stream.__aexit__(*failure)
        return left


# --- one tool ----------------------------------------------------------------------------


@attrs.frozen
class McpTool:
    """A tool of an MCP server, under the name that our registry has it by."""

    schema: ToolSchema
    listed: ListedTool
    connection: Connection = attrs.field(repr=False)
    traits: ToolTraits = attrs.field(factory=ToolTraits)

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Has the server do it: its structured result, else its text; cut where it is long.

        Raises ToolError with the server's words, or when the connection is lost.
        """
        result = await self.connection.call(self.listed.name, arguments)
        text = "\n".join(_describe(block) for block in result.content)
        if result.is_error:
            raise ToolError(_cut(text) or f"{self.schema.name} failed and did not say why")
        if result.structured_content is None:
            return _cut(text)
        as_text = json.dumps(result.structured_content, ensure_ascii=False)
        return _cut(as_text) if len(as_text) > MAX_RESULT_CHARACTERS else result.structured_content


def _describe(block: Any) -> str:
    """A piece of a result in words; what is no text is named and not passed on."""
    match block.type:
        case "text":
            return str(block.text)
        case "image" | "audio":
            return f"({block.type}, {block.mime_type}: it cannot be shown here)"
        case "resource_link":
            return f"(link: {block.name}, {block.uri})"
        case "resource":
            text = getattr(block.resource, "text", None)
            return f"(resource: {block.resource.uri})" if text is None else str(text)
    return f"({block.type}: it cannot be shown here)"


def _cut(text: str) -> str:
    if len(text) <= MAX_RESULT_CHARACTERS:
        return text
    return text[:MAX_RESULT_CHARACTERS] + " … (the rest was left out)"
