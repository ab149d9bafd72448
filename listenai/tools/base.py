"""What a tool is, and where the tools of a server are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from listenai.events import ToolSchema


class Tool(Protocol):
    """Something the assistant can do."""

    schema: ToolSchema

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Does it; returns JSON-compatible data.  Raises ToolError with words for the model."""


class ToolRegistry:
    """The server's tools by name, in the order they were registered."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    def register(self, tool: Tool) -> None:
        """Adds a tool; raises ValueError when the name is taken."""
        if tool.schema.name in self._tools:
            raise ValueError(f"a tool named {tool.schema.name!r} is registered already")
        self._tools[tool.schema.name] = tool

    def unregister(self, name: str) -> None:
        """Removes a tool; raises KeyError when there is none of that name."""
        del self._tools[name]

    def get(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))
