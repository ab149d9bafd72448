"""The volume tool of one conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from listenai.errors import ToolError
from listenai.tools.volume import VolumeTool


class Loudspeaker:
    """A conversation's volume."""

    def __init__(self, level: int) -> None:
        self.level = level

    def set(self, level: int) -> None:
        self.level = level

    def tool(self) -> VolumeTool:
        return VolumeTool(lambda: self.level, self.set)


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ({"level": 0}, 0),
        ({"level": 100}, 100),
        ({"level": 35.0}, 35),
        ({"change": 20}, 70),
        ({"change": -20, "level": None}, 30),
        ({"change": 80}, 100),
        ({"change": -100}, 0),
    ],
)
async def test_the_level_is_set_and_told(arguments: Mapping[str, Any], level: int) -> None:
    """A change stops at the ends of the range."""
    loudspeaker = Loudspeaker(50)
    assert await loudspeaker.tool().run(arguments) == {"level": level, "previous": 50}
    assert loudspeaker.level == level


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, 'either "level" .* or "change"'),
        ({"level": 3, "change": 4}, 'either "level" .* or "change"'),
        ({"level": 101}, "from 0 to 100, not 101"),
        ({"level": -1}, "from 0 to 100, not -1"),
        ({"level": "loud"}, "from 0 to 100, not 'loud'"),
        ({"level": True}, "from 0 to 100, not True"),
        ({"level": 0.5}, "from 0 to 100, not 0.5"),
        ({"level": float("inf")}, "from 0 to 100, not inf"),
        ({"level": float("nan")}, "from 0 to 100, not nan"),
        ({"change": 101}, '"change" .* from -100 to 100, not 101'),
    ],
)
async def test_wrong_arguments_change_nothing(arguments: Mapping[str, Any], message: str) -> None:
    """The chat model is told what is allowed."""
    loudspeaker = Loudspeaker(50)
    with pytest.raises(ToolError, match=message):
        await loudspeaker.tool().run(arguments)
    assert loudspeaker.level == 50
