"""Music on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.music import Action
from listenai.tools.base import ToolTraits

ACTIONS = tuple(action.value for action in Action)


class MusicPlayer(Protocol):
    """Whatever plays music in one conversation."""

    async def control(self, action: str, query: str | None) -> Mapping[str, Any]:
        """Does one of ACTIONS; tells what plays now, e.g. its `title`.  Raises ToolError."""


class MusicTool:
    """play_music for one conversation; without a player it says so."""

    schema = ToolSchema(
        "play_music",
        "Play music on the device, or control the music that plays.",
        {
            "type": "object",
            "properties": {
                "action": {"type": "string", "enum": list(ACTIONS), "default": "play"},
                "query": {
                    "type": "string",
                    "description": "what to play: a title, an artist or a genre",
                },
            },
            "additionalProperties": False,
        },
    )
    traits = ToolTraits()

    def __init__(self, player: MusicPlayer | None = None) -> None:
        self._player = player

    async def run(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does the action; returns it with what the player tells.  Raises ToolError."""
        action, query = arguments.get("action") or "play", arguments.get("query")
        if action not in ACTIONS:
            raise ToolError(
                f'the "action" of play_music is one of {", ".join(ACTIONS)}, not {action!r}'
            )
        if query is not None and not isinstance(query, str):
            raise ToolError('the "query" of play_music is text: a title, an artist or a genre')
        if self._player is None:
            raise ToolError("there is no music player on this device yet")
        return {"action": action, **await self._player.control(action, query)}
