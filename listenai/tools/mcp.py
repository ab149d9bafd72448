"""Tools that MCP servers lend to our registry, for as long as they are connected.

One task per server keeps it connected: it opens the connection, lists the tools, registers
them, and lists them again whenever the server says that they changed (and every minute, which
also shows that a server behind HTTP has gone).  Whatever ends the connection ends the task's
round: the tools are unregistered at once, then the transport is closed, and after a while the
next round begins.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from math import inf

import attrs
import trio

from listenai.effects import Effects
from listenai.events import ToolSchema
from listenai.tools.base import ArgumentChecker, ToolRegistry
from listenai.tools.mcp_connection import (
    ANSWER_SECONDS,
    Connection,
    ConnectionLost,
    ListedTool,
    McpTool,
    load_sdk,
    open_connection,
    reason_of,
)
from listenai.tools.mcp_servers import McpServer

_log = logging.getLogger(__name__)

FIRST_ATTEMPT_SECONDS = 10.0  # a server that takes longer does not delay our start
RELIST_SECONDS = 60.0  # between listings that nobody asked for
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0  # before connecting again
_NAME_CHARACTERS = 64  # of a function's name, in the protocol of chat models


async def lend_tools(
    servers: Sequence[McpServer],
    registry: ToolRegistry,
    *,
    checker: ArgumentChecker | None = None,
    effects: Effects | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keeps the servers connected and their tools registered, until cancelled.

    A tool whose name is taken is registered as `server_tool`.
    checker: leaves out tools whose schemas it does not accept.
    task_status: started after the first attempt to connect to each, at most 10 s.

    Raises ConfigurationError where the SDK is not installed.
    """
    if not servers:
        task_status.started()
        return
    await trio.to_thread.run_sync(load_sdk)
    chance = (effects or Effects()).random
    lenders = [_Lender(server, registry, checker, chance) for server in servers]
    async with trio.open_nursery() as nursery:
        for lender in lenders:
            nursery.start_soon(lender.lend)
        with trio.move_on_after(FIRST_ATTEMPT_SECONDS):
            for lender in lenders:
                await lender.attempted.wait()
        task_status.started()


@attrs.frozen
class _Lender:
    """One server, through all its connections."""

    server: McpServer
    registry: ToolRegistry
    checker: ArgumentChecker | None
    chance: random.Random
    attempted: trio.Event = attrs.field(factory=trio.Event)
    refused: set[str] = attrs.field(factory=set)  # tools that were warned of

    async def lend(self) -> None:
        """Connects, again and again; never raises what a server is to blame for."""
        waits, told = backoff(self.chance), ""
        while True:
            reason, began = "", trio.current_time()
            try:
                await self._lend_once()
            except* Exception as failure:
                reason = reason_of(failure)
            self.attempted.set()
            if trio.current_time() - began > LONGEST_WAIT_SECONDS:
                waits, told = backoff(self.chance), ""
            level = logging.DEBUG if reason == told else logging.WARNING
            _log.log(level, "mcp_lost server=%s reason=%s", self.server.name, reason)
            told = reason
            await trio.sleep(next(waits))

    async def _lend_once(self) -> None:
        """One connection, to its end."""
        with trio.CancelScope(deadline=trio.current_time() + ANSWER_SECONDS) as answering:
            async with open_connection(self.server) as connection:
                await self._keep_listed(connection, answering)
        if answering.cancelled_caught:
            raise ConnectionLost(f"no answer within {ANSWER_SECONDS:g} s")

    async def _keep_listed(self, connection: Connection, answering: trio.CancelScope) -> None:
        """Registers what the server has, again after every change; takes it back at the end."""
        lent: dict[str, McpTool] = {}
        try:
            while True:
                answering.deadline = trio.current_time() + ANSWER_SECONDS
                listed = await connection.list_tools()
                answering.deadline = inf
                self._update(lent, listed, connection)
                self.attempted.set()
                with trio.move_on_after(RELIST_SECONDS):
                    await connection.wait_changed()
        finally:
            for tool in lent.values():
                self.registry.unregister(tool.schema.name)

    def _update(
        self, lent: dict[str, McpTool], listed: Iterable[ListedTool], connection: Connection
    ) -> None:
        """Makes what is lent what was listed; tools that stay keep their names."""
        wanted = {tool.name: tool for tool in listed}
        before = list(lent)
        for name in before:
            if lent[name].listed != wanted.get(name):
                self.registry.unregister(lent.pop(name).schema.name)
        for name, tool in [pair for pair in wanted.items() if pair[0] not in lent]:
            schema = ToolSchema(self._free_name(name), tool.description, tool.parameters)
            if self._is_usable(schema):
                lent[name] = McpTool(schema, tool, connection)
                self.registry.register(lent[name])
        if list(lent) != before:
            _log.info("mcp_tools server=%s count=%d", self.server.name, len(lent))

    def _is_usable(self, schema: ToolSchema) -> bool:
        try:
            if self.checker:
                self.checker.check_schema(schema)
        except ValueError:
            level = logging.DEBUG if schema.name in self.refused else logging.WARNING
            self.refused.add(schema.name)
            _log.log(level, "mcp_bad_schema server=%s tool=%s", self.server.name, schema.name)
            return False
        return True

    def _free_name(self, name: str) -> str:
        """The tool's own name where it is free, else with the server's, else with a number too."""
        full = f"{self.server.name}_{name}"
        numbered = (_valid_name(full, f"_{number}") for number in itertools.count(2))
        candidates = itertools.chain([_valid_name(name), _valid_name(full)], numbered)
        return next(free for free in candidates if self.registry.get(free) is None)


def backoff(chance: random.Random) -> Iterator[float]:
    """Seconds to wait before each attempt: doubling, bounded, never in step with others."""
    longest = FIRST_WAIT_SECONDS
    while True:
        yield chance.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_WAIT_SECONDS)


def _valid_name(name: str, ending: str = "") -> str:
    valid = re.sub(r"[^a-zA-Z0-9_-]", "_", name) or "tool"
    return valid[: _NAME_CHARACTERS - len(ending)] + ending
