"""What a tool is, and where the tools of a server and of a conversation are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import attrs

from listenai.events import ToolSchema


@attrs.frozen
class ToolTraits:
    """How a tool is run."""

    timeout_seconds: float = 30.0  # longer, and it has failed
    # A background tool goes on when its turn is interrupted or no longer waits for it, and its
    # result becomes part of the history.  Others are cancelled with their turn.
    background: bool = False
    patience_seconds: float = 10.0  # a turn waits so long for a background tool
    announce: bool = False  # a result no turn waited for is told when the floor is free


class Tool(Protocol):
    """Something the assistant can do."""

    @property
    def schema(self) -> ToolSchema:
        """What the chat model is told of it."""

    @property
    def traits(self) -> ToolTraits:
        """How it is run."""

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Does it; returns JSON-compatible data.  Raises ToolError with words for the model."""


class ArgumentChecker(Protocol):
    """Holds arguments against the schemas of tools."""

    def check_schema(self, schema: ToolSchema) -> None:
        """Raises ValueError, saying why, for `parameters` that are no usable JSON Schema."""

    def check_arguments(self, schema: ToolSchema, arguments: Mapping[str, Any]) -> None:
        """Raises ToolError that names every wrong argument and what is allowed."""


class ToolRegistry:
    """Tools by name, in the order they were registered; those `behind` come after our own.

    A conversation's registry stands before the server's, whose tools may come and go.
    """

    def __init__(self, behind: ToolRegistry | None = None) -> None:
        self._tools: dict[str, Tool] = {}
        self._behind = behind

    def register(self, tool: Tool) -> None:
        """Adds a tool; raises ValueError when the name is taken here."""
        if tool.schema.name in self._tools:
            raise ValueError(f"a tool named {tool.schema.name!r} is registered already")
        self._tools[tool.schema.name] = tool

    def unregister(self, name: str) -> None:
        """Removes a tool; raises KeyError when there is none of that name here."""
        del self._tools[name]

    def get(self, name: str) -> Tool | None:
        """The tool of that name, ours before one behind, or None."""
        tool = self._tools.get(name)
        return self._behind.get(name) if tool is None and self._behind else tool

    def __iter__(self) -> Iterator[Tool]:
        own = tuple(self._tools.values())
        yield from own
        if self._behind:
            yield from (tool for tool in self._behind if tool.schema.name not in self._tools)
