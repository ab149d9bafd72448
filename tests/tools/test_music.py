"""The music tool, with a player and without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from listenai.errors import ToolError
from listenai.tools.music import MusicTool


class Jukebox:
    """Plays whatever it is asked for."""

    async def control(self, action: str, query: str | None) -> Mapping[str, Any]:
        return {"title": f"{query or 'a song'} ({action})"}


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({}, {"action": "play", "title": "a song (play)"}),
        ({"query": "jazz"}, {"action": "play", "title": "jazz (play)"}),
        ({"action": "next", "query": None}, {"action": "next", "title": "a song (next)"}),
    ],
)
async def test_the_player_is_controlled(
    arguments: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """The result is the action and what the player tells."""
    assert await MusicTool(Jukebox()).run(arguments) == result


async def test_without_a_player_it_says_so() -> None:
    """It does not pretend."""
    with pytest.raises(ToolError, match="no music player on this device"):
        await MusicTool().run({"action": "play"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "dance"}, "one of play, stop, pause, resume, next, previous, not 'dance'"),
        ({"action": ["play"]}, "one of play"),
        ({"query": 7}, "is text: a title, an artist or a genre"),
    ],
)
async def test_wrong_arguments_are_refused(arguments: Mapping[str, Any], message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ToolError, match=message):
        await MusicTool(Jukebox()).run(arguments)
