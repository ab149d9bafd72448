"""Tools lent by MCP servers: a real program and real HTTP, and files that are wrong."""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hypercorn.trio
import psutil
import pytest
import trio
from devices import mcp_stdio_server
from fakes import tool as fake_tool
from hypercorn.config import Config
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import ListenHandler

from listenai.effects import Effects
from listenai.errors import ConfigurationError, ToolError
from listenai.events import ToolSchema
from listenai.tools.base import ToolRegistry
from listenai.tools.mcp import FIRST_ATTEMPT_SECONDS, LONGEST_WAIT_SECONDS, backoff, lend_tools
from listenai.tools.mcp_connection import MAX_RESULT_CHARACTERS, MAX_TOOLS
from listenai.tools.mcp_servers import (
    HttpMcpServer,
    McpServer,
    StdioMcpServer,
    read_mcp_servers,
)

PROGRAM = Path(mcp_stdio_server.__file__)
NAMES = {
    *("add", "say", "show", "fail", "fail_silently", "crash", "state", "wait", "lie"),
    *("build_a_room", "paint"),
}
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
# Starting a program takes a second; over HTTP, the quick tests do the same in the other era.
QUICK_ERA = pytest.mark.parametrize(
    "era", [pytest.param("modern", marks=pytest.mark.slow), "legacy"]
)

# The SDK's client forgets the generators of a stream that it has closed.
sdk_over_http = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")


class WatchedRegistry(ToolRegistry):
    """A registry that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._touched = trio.Event()

    def register(self, tool: Any) -> None:
        super().register(tool)
        self._touch()

    def unregister(self, name: str) -> None:
        super().unregister(name)
        self._touch()

    def _touch(self) -> None:
        self._touched.set()
        self._touched = trio.Event()

    @property
    def names(self) -> set[str]:
        return {tool.schema.name for tool in self}

    async def wait_for(self, right: Callable[[set[str]], bool]) -> None:
        while not right(self.names):
            await self._touched.wait()

    async def call(self, name: str, **arguments: Any) -> Any:
        tool = self.get(name)
        assert tool, f"no {name} among {self.names}"
        return await tool.run(arguments)


def house(era: str = "modern", name: str = "house") -> StdioMcpServer:
    return StdioMcpServer(name, sys.executable, (str(PROGRAM), era))


@asynccontextmanager
async def lending(
    *servers: McpServer, registry: WatchedRegistry | None = None, **options: Any
) -> AsyncIterator[WatchedRegistry]:
    """Servers that are connected, as far as they can be."""
    registry = registry or WatchedRegistry()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(lend_tools, servers, registry, **options))
            yield registry
            nursery.cancel_scope.cancel()


async def begun_waiting(registry: WatchedRegistry, waits: int = 1) -> None:
    """Returns when so many calls of `wait` are in progress."""
    while (await registry.call("state"))["begun"] < waits:
        pass


# --- a program ----------------------------------------------------------------------------


@ERAS
async def test_a_program_lends_its_tools(era: str) -> None:
    """All pages are listed, names made valid, arguments passed, results turned into data."""
    async with lending(house(era)) as registry:
        assert registry.names == NAMES
        add = registry.get("add")
        assert add
        assert add.schema == ToolSchema("add", "does add", mcp_stdio_server.ADD)
        assert await registry.call("add", a=2, b=0.5) == {"sum": 2.5}
        assert await registry.call("say", words=["one", "two"]) == "one\ntwo"
        assert await registry.call("show") == (
            "look:\n"
            "(image, image/png: it cannot be shown here)\n"
            "(audio, audio/wav: it cannot be shown here)\n"
            "(link: manual, file:///manual)\n"
            "inside\n"
            "(resource: file:///b)"
        )
        long = await registry.call("say", words=["x" * 2 * MAX_RESULT_CHARACTERS])
        assert long == "x" * MAX_RESULT_CHARACTERS + " … (the rest was left out)"
        with pytest.raises(ToolError, match=r"^the oven is cold$"):
            await registry.call("fail")
        with pytest.raises(ToolError, match="fail_silently failed and did not say why"):
            await registry.call("fail_silently")
        with pytest.raises(ToolError, match="house sent an answer I cannot read"):
            await registry.call("lie")  # what it promised in its output schema is not so
        with pytest.raises(ToolError, match="house refused the call"):
            await registry.call("add", a=1)
    assert registry.names == set()


@QUICK_ERA
async def test_tools_that_change_are_listed_again(era: str) -> None:
    """A new one comes, an old one goes, a changed one changes, the others stay."""
    async with lending(house(era)) as registry:
        stays, paints = registry.get("add"), registry.get("paint")
        await registry.call("build_a_room")
        await registry.wait_for(lambda names: names == NAMES - {"say"} | {"enter"})
        assert registry.get("add") is stays
        changed = registry.get("paint")
        assert changed is not paints
        assert changed
        assert changed.schema.parameters == mcp_stdio_server.ADD


@QUICK_ERA
async def test_a_cancelled_call_is_cancelled_over_there(era: str) -> None:
    """The turn leaves at once; the server is told."""
    async with lending(house(era)) as registry:
        async with trio.open_nursery() as turn:
            turn.start_soon(registry.call, "wait")
            await begun_waiting(registry)
            turn.cancel_scope.cancel()
        while not (state := await registry.call("state"))["cancelled"]:
            pass
        assert (state["begun"], state["cancelled"]) == (1, 1)


async def test_a_program_that_crashes_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """Calls in progress fail in words, the tools go, and come back from a new process."""
    async with lending(house("legacy")) as registry:
        first, say = (await registry.call("state"))["pid"], registry.get("say")
        assert say
        lost: list[str] = []

        async def wait_in_vain() -> None:
            with pytest.raises(ToolError) as error:
                await registry.call("wait")
            lost.append(str(error.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_in_vain)
            await begun_waiting(registry)
            with pytest.raises(ToolError, match="the connection to house was lost during the call"):
                await registry.call("crash")
        assert lost == ["the connection to house was lost during the call"]
        await registry.wait_for(lambda names: not names)
        with pytest.raises(ToolError, match="house is not connected now"):
            await say.run({})
        await registry.wait_for(lambda names: names == NAMES)
        assert (await registry.call("state"))["pid"] != first
        assert not psutil.pid_exists(first)
    assert "mcp_lost server=house reason=the server closed the connection" in caplog.text


async def test_nothing_remains_when_it_is_over() -> None:
    """No process and no task, also of two servers with a call in progress."""
    before = trio.lowlevel.current_statistics().tasks_living

    async def wait_in_vain(registry: WatchedRegistry) -> None:
        with pytest.raises(ToolError, match="was lost during the call"):
            await registry.call("wait")

    async with trio.open_nursery() as nursery:
        async with lending(house(), house(name="shed")) as registry:
            one, other = ({f"{name}_{tool}" for tool in NAMES} for name in ("house", "shed"))
            assert registry.names in (NAMES | one, NAMES | other)
            assert len(_children()) == 2
            nursery.start_soon(wait_in_vain, registry)
            await begun_waiting(registry)
        assert registry.names == set()
        assert _children() == []
    assert trio.lowlevel.current_statistics().tasks_living == before


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@sdk_over_http
async def test_a_server_in_trouble_is_alone_in_it(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One that there is not, one that says nothing and one that talks nonsense delay the start
    by no more than 10 s, and are tried again and again beside one that works."""
    caplog.set_level(logging.DEBUG)
    mock_clock.rate = 10.0  # real programs need real time, but not ours
    silent = StdioMcpServer("silent", sys.executable, ("-c", "import time; time.sleep(1000)"))
    babbling = StdioMcpServer("babbling", sys.executable, ("-c", "print('whispered')"))
    missing = StdioMcpServer("missing", "there-is-no-such-program")
    registry = WatchedRegistry()
    house = mcp_stdio_server.make_server(mcp_stdio_server.House())
    async with served(house) as works, trio.open_nursery() as nursery:
        began = trio.current_time()
        servers = [silent, missing, babbling, works]
        await nursery.start(partial(lend_tools, servers, registry))
        assert FIRST_ATTEMPT_SECONDS <= trio.current_time() - began < 25.0
        await registry.wait_for(lambda names: names == NAMES)
        await trio.sleep(35)
        assert caplog.text.count("server=missing") > 3
        assert registry.names == NAMES
        nursery.cancel_scope.cancel()
    assert _children() == []
    assert "mcp_lost server=silent reason=no answer within 30 s" in caplog.text
    assert "mcp_lost server=missing reason=No such file or directory" in caplog.text
    assert "mcp_lost server=babbling reason=the server closed the connection" in caplog.text
    warned = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len([message for message in warned if "server=missing" in message]) == 1
    assert "whispered" not in caplog.text


async def test_nothing_of_what_is_said_is_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in the log, at any level, nor what the program writes to standard error."""
    caplog.set_level(logging.DEBUG)
    async with lending(house()) as registry:
        assert await registry.call("say", words=["whispered"]) == "whispered"
        with pytest.raises(ToolError):
            await registry.call("add", whispered=1)
    shown = capfd.readouterr()
    assert mcp_stdio_server.SECRET not in caplog.text + shown.out + shown.err
    assert "mcp_tools server=house count=11" in caplog.text


# --- HTTP ---------------------------------------------------------------------------------


class KeyNeeded:
    """An application that asks for a key."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-key") != b"open sesame":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


@asynccontextmanager
async def served(server: Server[Any]) -> AsyncIterator[HttpMcpServer]:
    """A server of the SDK, with sessions, on a port of the kernel's choice."""
    app: Any = KeyNeeded(server.streamable_http_app())
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("served")
    config.graceful_timeout = 0.1
    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(partial(hypercorn.trio.serve, app, config))
        yield HttpMcpServer("web", f"{bound}/mcp", {"X-Key": "open sesame"})
        nursery.cancel_scope.cancel()


@sdk_over_http
@ERAS
async def test_a_server_behind_http_lends_its_tools(
    era: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The headers are sent; calls, changes and cancelling work as with a program."""
    caplog.set_level(logging.DEBUG)
    server = mcp_stdio_server.make_server(mcp_stdio_server.House(), legacy=era == "legacy")
    async with served(server) as web, lending(web) as registry:
        assert registry.names == NAMES
        assert await registry.call("add", a=1, b=2) == {"sum": 3}
        assert await registry.call("say", words=["whispered"]) == "whispered"
        ours = [each for each in caplog.records if not each.name.startswith("sse_starlette")]
        assert "whispered" not in "".join(record.getMessage() for record in ours)
        with pytest.raises(ToolError, match=r"^the oven is cold$"):
            await registry.call("fail")
        async with trio.open_nursery() as turn:
            turn.start_soon(registry.call, "wait")
            await begun_waiting(registry)
            turn.cancel_scope.cancel()
        while not (await registry.call("state"))["cancelled"]:
            pass
        await registry.call("build_a_room")
        if era == "modern":  # an older server says it to whoever is listening at that moment
            await registry.wait_for(lambda names: names == NAMES - {"say"} | {"enter"})


@sdk_over_http
async def test_a_change_before_we_listen_is_seen() -> None:
    """Between the first listing and the subscription there is time for a new tool."""
    registry, rooms = WatchedRegistry(), mcp_stdio_server.House()
    server, listen = mcp_stdio_server.make_server(rooms), ListenHandler(rooms.bus)

    async def change_and_listen(ctx: Any, params: Any) -> Any:
        await registry.wait_for(lambda names: names == NAMES)
        rooms.offer("late", rooms.say)
        return await listen(ctx, params)

    parameters = mcp_stdio_server.types.SubscriptionsListenRequestParams
    server.add_request_handler("subscriptions/listen", parameters, change_and_listen)
    async with served(server) as web, lending(web, registry=registry):
        await registry.wait_for(lambda names: names == NAMES | {"late"})


@sdk_over_http
@ERAS
async def test_a_server_behind_http_that_goes_takes_its_tools_along(era: str) -> None:
    """It is noticed by the next call, at the latest."""
    server = mcp_stdio_server.make_server(mcp_stdio_server.House(), legacy=era == "legacy")
    gone, has_gone = trio.Event(), trio.Event()

    async def serve(*, task_status: trio.TaskStatus[HttpMcpServer]) -> None:
        async with served(server) as web:
            task_status.started(web)
            await gone.wait()
        has_gone.set()

    async with trio.open_nursery() as nursery:
        web: HttpMcpServer = await nursery.start(serve)
        async with lending(web) as registry:
            assert registry.names == NAMES
            say = registry.get("say")
            assert say
            gone.set()
            await has_gone.wait()
            with pytest.raises(ToolError) as error:
                await say.run({})
            assert str(error.value) in {
                "web is not connected now; try again later",
                "the connection to web was lost during the call",
            }
            await registry.wait_for(lambda names: not names)


@sdk_over_http
async def test_a_refused_key_is_told_by_its_state_only(caplog: pytest.LogCaptureFixture) -> None:
    """No tools, and neither URL nor key in the log."""
    caplog.set_level(logging.DEBUG)
    server = mcp_stdio_server.make_server(mcp_stdio_server.House())
    async with served(server) as web, lending(HttpMcpServer("web", web.url + "?s=secret")) as none:
        assert none.names == set()
    assert "mcp_lost server=web reason=HTTP 401: it may want a key" in caplog.text
    assert "secret" not in caplog.text


# --- names and bounds ---------------------------------------------------------------------


class RefusesPaint:
    """An argument checker that does not like one schema."""

    def check_schema(self, schema: ToolSchema) -> None:
        if schema.name == "paint":
            raise ValueError("no")

    def check_arguments(self, schema: ToolSchema, arguments: Mapping[str, Any]) -> None:
        pass


@sdk_over_http
async def test_names_are_valid_and_never_taken_twice() -> None:
    """Ours stay; what clashes is called after its server, and numbered if need be."""
    names = ["add", "add!", "add?", "set lamp", "größe", "", "x" * 80, "x" * 81]
    rooms = mcp_stdio_server.House()
    rooms.tools = {name: (_plain(name), rooms.say) for name in names}
    registry = WatchedRegistry()
    registry.register(ours := fake_tool("add"))
    server = mcp_stdio_server.make_server(rooms)
    async with served(server) as web, lending(web, registry=registry):
        assert registry.names - {"add"} == {
            *("web_add", "add_", "web_add_", "set_lamp", "gr__e", "tool"),
            *("x" * 64, "web_" + "x" * 60),
        }
        assert registry.get("add") is ours
    assert registry.names == {"add"}


@sdk_over_http
async def test_a_server_lends_no_more_than_its_share_and_nothing_unusable() -> None:
    """Tools beyond the bound are left out, and those whose schema cannot be checked."""
    rooms = mcp_stdio_server.House()
    rooms.offer("paint")
    for number in range(MAX_TOOLS):
        rooms.offer(f"say{number}", rooms.say)
    server = mcp_stdio_server.make_server(rooms)
    async with served(server) as web, lending(web, checker=RefusesPaint()) as registry:
        assert len(registry.names) == MAX_TOOLS - 1
        assert "paint" not in registry.names


def _plain(name: str) -> Any:
    return mcp_stdio_server.types.Tool(name=name, input_schema=mcp_stdio_server.OBJECT)


def test_attempts_are_ever_further_apart_and_never_in_step() -> None:
    """From half a second to a minute, each between half and whole."""
    waits = backoff(random.Random(1))
    firsts = [next(waits) for _ in range(20)]
    longest = 0.5
    for wait in firsts:
        assert longest / 2 <= wait <= longest
        longest = min(2 * longest, LONGEST_WAIT_SECONDS)
    assert max(firsts) > LONGEST_WAIT_SECONDS / 2
    others = backoff(Effects(random.Random(2)).random)
    assert firsts != [next(others) for _ in range(20)]


# --- what it costs ------------------------------------------------------------------------

LEND = """
import sys, trio
{before}
from listenai.tools.base import ToolRegistry
from listenai.tools.mcp import lend_tools
from listenai.tools.mcp_servers import StdioMcpServer, read_mcp_servers
from listenai.errors import ConfigurationError
async def main(servers):
    async with trio.open_nursery() as nursery:
        await nursery.start(lend_tools, servers, ToolRegistry())
trio.run(main, [])
loaded = [name for name in sys.modules if name.split(".")[0] in ("mcp", "httpx2", "pydantic")]
assert loaded == {loaded}, loaded
{after}
"""


async def run_python(script: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def test_without_servers_the_sdk_is_not_imported() -> None:
    """Which would cost half a second and 42 MB."""
    await run_python(LEND.format(before="", loaded=[], after=""))


async def test_without_the_sdk_servers_are_a_problem_of_configuration() -> None:
    """The message says what to install."""
    after = """
try:
    trio.run(main, [StdioMcpServer("house", "true")])
except* ConfigurationError as problem:
    print(problem.exceptions[0])
"""
    before = "sys.modules['mcp'] = None"
    told = await run_python(LEND.format(before=before, loaded=["mcp"], after=after))
    assert "pip install 'listenai[mcp]'" in told


# --- the file -----------------------------------------------------------------------------


def write(folder: Path, document: Any) -> Path:
    path = folder / "mcp.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")
    return path


def test_the_usual_file_is_read(tmp_path: Path) -> None:
    """Programs and URLs, in order, without those that are disabled; secrets are not shown."""
    document = {
        "mcpServers": {
            "files": {"command": "npx", "args": ["-y", "files", "secret-a"]},
            "off": {"command": "off", "disabled": True},
            "notes": {
                "type": "stdio",
                "command": "notes",
                "cwd": "/srv",
                "disabled": False,
                "env": {"KEY": "secret-b"},
            },
            "web": {"url": "https://web.test/mcp?key=secret-c"},
            "wiki": {
                "type": "http",
                "url": "http://[::1]:8/mcp",
                "headers": {"Authorization": "Bearer secret-d"},
            },
        }
    }
    servers = read_mcp_servers(write(tmp_path, document))
    assert servers == (
        StdioMcpServer("files", "npx", ("-y", "files", "secret-a")),
        StdioMcpServer("notes", "notes", (), {"KEY": "secret-b"}, "/srv"),
        HttpMcpServer("web", "https://web.test/mcp?key=secret-c"),
        HttpMcpServer("wiki", "http://[::1]:8/mcp", {"Authorization": "Bearer secret-d"}),
    )
    assert "secret" not in repr(servers)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", r"must be JSON in UTF-8: Expecting"),
        ("[]", r'must be of the form \{"mcpServers"'),
        ('{"servers": {}}', r'must be of the form \{"mcpServers"'),
        ('{"mcpServers": []}', r'must be of the form \{"mcpServers"'),
        ('{"mcpServers": {"a": {}, "a": {}}}', r"'a' is there twice"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, document: str, message: str) -> None:
    """The message names the file and shows the form."""
    path = write(tmp_path, document)
    with pytest.raises(ConfigurationError, match=message) as error:
        read_mcp_servers(path)
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(ConfigurationError, match=r"none\.json: cannot be read: No such file"):
        read_mcp_servers(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, 'either "command"'),
        ("npx", 'either "command"'),
        ({"command": "a", "url": "http://b"}, 'either "command"'),
        ({"command": ""}, "'command' must be text that is not empty"),
        ({"command": ["a", "b"]}, "'command' must be text"),
        ({"command": "a", "cwd": 3}, "'cwd' must be text"),
        ({"command": "a", "args": "b"}, '"args" must be a list of texts'),
        ({"command": "a", "args": [8080]}, '"args" must be a list of texts'),
        ({"command": "a", "env": {"PORT": 8080}}, '"env" must be an object of texts'),
        ({"command": "a", "env": ["B=c"]}, '"env" must be an object of texts'),
        ({"command": "a", "env": {"B=c": "d"}}, '"env" must have names without "="'),
        ({"command": "a", "arg": []}, "unknown field 'arg'; allowed beside 'command' are command,"),
        ({"command": "a", "type": "http"}, "\"type\" must be stdio where there is 'command'"),
        ({"command": "a", "disabled": "yes"}, '"disabled" must be true or false'),
        ({"url": "b.test/mcp"}, '"url" must be a URL that begins with http:// or https://'),
        ({"url": "http://:80"}, '"url" must be a URL'),
        ({"url": "http://b:99999"}, '"url" must be a URL'),
        ({"url": 80}, '"url" must be a URL'),
        ({"url": "http://b", "args": []}, "unknown field 'args'; allowed beside 'url' are url,"),
        ({"url": "http://b", "type": "sse"}, "the older SSE transport is not supported"),
        ({"url": "http://b", "headers": {"A": 1}}, '"headers" must be an object of texts'),
        ({"url": "http://b", "headers": {"A B": "c"}}, "'A B' must name a header"),
        ({"url": "http://b", "headers": {"A": "b\r\nC: d"}}, "'A' must name a header"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(
    tmp_path: Path, entry: Any, message: str
) -> None:
    """File, server and field; a disabled server is not excused."""
    document = {"mcpServers": {"lights": entry, "fine": {"command": "a"}}}
    with pytest.raises(ConfigurationError) as error:
        read_mcp_servers(write(tmp_path, document))
    (problem,) = error.value.problems
    assert problem.startswith(f"{tmp_path / 'mcp.json'}: server 'lights': ")
    assert message in problem


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """Not one per start."""
    document = {"mcpServers": {" ": {"command": "", "args": 1}, "b": {}}, "inputs": []}
    with pytest.raises(ConfigurationError) as error:
        read_mcp_servers(write(tmp_path, document))
    assert len(error.value.problems) == 5
