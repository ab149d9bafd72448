"""How loud the assistant speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.tools.base import ToolTraits

MIN_LEVEL, MAX_LEVEL = 0, 100  # percent (spec 000: "0-100 range")


class VolumeTool:
    """set_volume for one conversation: made with how to read its level and how to set it."""

    schema = ToolSchema(
        "set_volume",
        "Set the volume of the device: either to a level, or louder or quieter by a change.",
        {
            "type": "object",
            "properties": {
                "level": {"type": "integer", "minimum": MIN_LEVEL, "maximum": MAX_LEVEL},
                "change": {
                    "type": "integer",
                    "minimum": -MAX_LEVEL,
                    "maximum": MAX_LEVEL,
                    "description": "added to the level, instead of a new one",
                },
            },
            "additionalProperties": False,
        },
    )
    traits = ToolTraits()

    def __init__(self, read: Callable[[], int], apply: Callable[[int], None]) -> None:
        self._read = read
        self._apply = apply

    async def run(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sets the level; returns the new `level` and the `previous` one, percent.

        Raises ToolError for a level outside 0-100, or for none or both of level and change.
        """
        level, change = arguments.get("level"), arguments.get("change")
        if (level is None) == (change is None):
            raise ToolError('set_volume needs either "level" (0-100) or "change" (-100 to 100)')
        previous = self._read()
        if level is not None:
            wanted = _checked("level", level, MIN_LEVEL)
        else:
            wanted = previous + _checked("change", change, -MAX_LEVEL)
        wanted = min(MAX_LEVEL, max(MIN_LEVEL, wanted))
        self._apply(wanted)
        return {"level": wanted, "previous": previous}


def _checked(name: str, value: Any, lowest: int) -> int:
    """A whole number, also as 50.0, as some models write it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not lowest <= value <= MAX_LEVEL:
        raise ToolError(
            f'the "{name}" of set_volume is a whole number from {lowest} to {MAX_LEVEL}, '
            f"not {value!r}"
        )
    return value
