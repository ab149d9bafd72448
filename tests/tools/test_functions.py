"""Tools made of functions: what a chat model is told of them, and how they run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal

import attrs
import pytest
import trio

from listenai.errors import ToolError
from listenai.telemetry.logs import JsonFormatter
from listenai.tools.base import Tool, ToolTraits
from listenai.tools.functions import THREADS_OF_A_TOOL, tool
from listenai.tools.validation import JsonSchemaChecker


class Colour(StrEnum):
    RED = "red"
    WARM_WHITE = "warm white"


class Floor(IntEnum):
    CELLAR = -1
    GROUND = 0


class Answer(Enum):
    YES = "yes"
    NOT_SURE = None


@attrs.frozen
class Lamp:
    room: str
    floor: Annotated[Floor, "where the room is"] = Floor.GROUND
    dimmed: float | None = None


@attrs.frozen
class Switched:
    lamp: Lamp
    at: datetime


@attrs.frozen
class Folder:
    inside: list[Folder]


def described(function: Callable[..., Any]) -> dict[str, Any]:
    """The schemas of the arguments of its tool."""
    properties = tool(function).schema.parameters["properties"]
    assert isinstance(properties, dict)
    return properties


# --- what the chat model is told ------------------------------------------------------------


def test_a_function_is_a_tool() -> None:
    """By its name, docstring and hints."""

    @tool
    async def set_alarm(hour: int, label: str = "alarm", repeat: Literal["no", "daily"] = "no"):
        """Ring at an hour,
        once or more often.

        Nobody but a programmer reads this paragraph.

        Args:
            hour: Hour of the day,
                from 0 to 23: a whole number.
            label (str, optional): What to say.

        Returns:
            label: never read.
        """

    assert set_alarm.schema.name == "set_alarm"
    assert set_alarm.schema.description == "Ring at an hour, once or more often."
    assert set_alarm.schema.parameters == {
        "type": "object",
        "properties": {
            "hour": {
                "type": "integer",
                "description": "Hour of the day, from 0 to 23: a whole number.",
            },
            "label": {"type": "string", "default": "alarm", "description": "What to say."},
            "repeat": {"type": "string", "enum": ["no", "daily"], "default": "no"},
        },
        "required": ["hour"],
        "additionalProperties": False,
    }
    assert set_alarm.traits == ToolTraits()


def test_name_and_traits_are_the_decorators() -> None:
    """The function keeps its own name, and can be called as it was."""

    @tool(name="stop-it", timeout_seconds=2, background=True, patience_seconds=1, announce=True)
    def stop(what: str = "all") -> str:
        """Stop something."""
        return f"{what} stopped"

    assert stop.schema.name == "stop-it"
    assert stop.traits == ToolTraits(2, True, 1, True)
    assert stop("clock") == "clock stopped"


LAMP = {
    "type": "object",
    "properties": {
        "room": {"type": "string"},
        "floor": {
            "type": "integer",
            "enum": [-1, 0],
            "description": "where the room is",
        },
        "dimmed": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    },
    "required": ["room"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            Literal[1, "two", True],
            {"type": ["integer", "string", "boolean"], "enum": [1, "two", True]},
        ),
        (Colour, {"type": "string", "enum": ["red", "warm white"]}),
        (Answer, {"type": ["string", "null"], "enum": ["yes", None]}),
        (Annotated[int, 7, "how many"], {"type": "integer", "description": "how many"}),
        (
            list[Annotated[str, "one"]],
            {"type": "array", "items": {"type": "string", "description": "one"}},
        ),
        (list[Lamp], {"type": "array", "items": LAMP}),
    ],
)
def test_hints_become_schemas(hint: Any, expected: dict[str, Any]) -> None:
    """Which every checker can use."""

    def act(argument):
        """Act."""

    act.__annotations__ = {"argument": hint}
    assert described(act) == {"argument": expected}
    JsonSchemaChecker().check_schema(tool(act).schema)


def test_defaults_are_told_as_json() -> None:
    """As the tool would be given them."""

    def light(lamp: Lamp = Lamp("hall"), colour: Colour = Colour.RED, on: bool | None = None):
        """Light a lamp."""

    schemas = described(light)
    assert schemas["lamp"]["default"] == {"room": "hall", "floor": 0, "dimmed": None}
    assert (schemas["colour"]["default"], schemas["on"]["default"]) == ("red", None)


def no_docstring(a: int) -> None: ...


def no_hint(a) -> None:
    """Act."""


def unsupported(a: set[int]) -> None:
    """Act."""


def bare_list(a: list) -> None:  # type: ignore[type-arg]
    """Act."""


def keys_of_numbers(a: dict[int, str]) -> None:
    """Act."""


def recursive(a: Folder) -> None:
    """Act."""


def unknown_name(a: Missing) -> None:  # type: ignore[name-defined] # noqa: F821
    """Act."""


def any_arguments(*a: int) -> None:
    """Act."""


def any_names(**a: int) -> None:
    """Act."""


def by_place(a: int, /) -> None:
    """Act."""


def wrong_default(a: str = None) -> None:  # type: ignore[assignment] # noqa: RUF013
    """Act."""


def infinite_default(a: float = float("inf")) -> None:
    """Act."""


def literal_bytes(a: Literal[b"x"]) -> None:
    """Act."""


def described_twice(a: int) -> None:
    """Act.

    Args:
        a: This.
        b: That.
    """


def yields(a: int) -> Iterator[int]:
    """Act."""
    yield a


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_docstring, "no_docstring: it has no docstring"),
        (no_hint, "a has no type hint; there are str, int"),
        (unsupported, r"a is set\[int\], which has no JSON Schema; there are str, int"),
        (bare_list, "a is list, which has no"),
        (keys_of_numbers, r"a is dict\[int, str\], which"),
        (recursive, r"a\.inside is Folder, which"),
        (unknown_name, "'Missing' is not defined: its type hints must be names of its module"),
        (any_arguments, r"\*a: .*int.* stands for any arguments; name them"),
        (any_names, r"\*\*a: .*int.* stands for any arguments; name them"),
        (by_place, "a cannot be given by name; take away the /"),
        (wrong_default, "the default None is wrong: a: it must be a string"),
        (infinite_default, "the default inf is wrong: a: it must be a number"),
        (literal_bytes, "are not all text, numbers"),
        (described_twice, '"Args:" describe b, which it does not take'),
        (yields, "it yields; return a list"),
        (lambda: None, "'<lambda>' is no name of a tool"),
    ],
)
def test_what_cannot_be_a_tool(function: Callable[..., Any], message: str) -> None:
    """Is told when it is decorated, with what can."""
    with pytest.raises(TypeError, match=message):
        tool(function)


# --- arguments and results -----------------------------------------------------------------


@tool
async def light(
    lamps: list[Lamp],
    colour: Colour | None = None,
    level: int = 100,
    labels: dict[str, str] = {},  # noqa: B006
) -> Any:
    """Light lamps."""
    return repr((lamps, colour, level, labels))


async def test_arguments_come_as_the_hints_say() -> None:
    """Enumerations, attrs classes, and whole numbers that were written with a point."""
    arguments = {
        "lamps": [{"room": "hall", "floor": -1, "dimmed": 1}],
        "colour": "warm white",
        "level": 50.0,
        "labels": {"a": "b"},
    }
    JsonSchemaChecker().check_arguments(light.schema, arguments)
    expected = ([Lamp("hall", Floor.CELLAR, 1.0)], Colour.WARM_WHITE, 50, {"a": "b"})
    assert await light.run(arguments) == repr(expected)


async def test_arguments_may_be_left_out() -> None:
    """Then they are the function's own defaults."""
    assert await light.run({"lamps": []}) == repr(([], None, 100, {}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "wrong arguments of light: lamps: it is missing"),
        ({"lamps": [], "size": 1}, "'size': there is no such argument"),
        ({"lamps": "hall"}, "lamps: it must be an array"),
        ({"lamps": [], "level": "50"}, "level: it must be an integer"),
        ({"lamps": [], "level": True}, "level: it must be an integer"),
        ({"lamps": [], "level": 0.5}, "level: it must be an integer"),
        ({"lamps": [], "colour": "blue"}, "colour: it must be one of Colour, None"),
        ({"lamps": [], "labels": {"a": 1}}, "it must be a string"),
        ({"lamps": [{"room": 7}]}, r"lamps\.room: it must be a string"),
        ({"lamps": [{}]}, r"lamps\.room: required field missing"),
        ({"lamps": [{"room": "hall", "size": 1}]}, "size"),
        ({"lamps": [{"room": "hall", "dimmed": "half"}]}, "lamps.dimmed: it must be one of float"),
        ({"lamps": [7]}, "lamps: "),
    ],
)
async def test_nothing_is_coerced(arguments: dict[str, Any], message: str) -> None:
    """Also where nobody has held the arguments against the schema before."""
    with pytest.raises(ToolError, match=message):
        await light.run(arguments)


def tool_returning(result: Any) -> Tool:
    @tool
    async def give() -> Any:
        """Give something."""
        return result

    return give


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (None, None),
        ((1, "two"), [1, "two"]),
        ({"when": date(2026, 11, 21)}, {"when": "2026-11-21"}),
        (
            [Switched(Lamp("hall"), datetime(2026, 11, 21, 8, 30, tzinfo=UTC))],
            [
                {
                    "lamp": {"room": "hall", "floor": 0, "dimmed": None},
                    "at": "2026-11-21T08:30:00+00:00",
                }
            ],
        ),
        ([Colour.RED, Floor.CELLAR], ["red", -1]),
    ],
)
async def test_results_are_json_data(result: Any, data: Any) -> None:
    """Whatever attrs classes, enumerations and times they were made of."""
    assert await tool_returning(result).run({}) == data


def circular() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "result", [float("nan"), [float("inf")], {1, 2}, b"bytes", object(), {(1, 2): 3}, circular()]
)
async def test_a_result_that_is_no_json(result: Any) -> None:
    """Is told as that, because the tool has done its work."""
    with pytest.raises(ToolError, match="give did its work, but what it returned is not JSON"):
        await tool_returning(result).run({})


# --- running -------------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread() -> None:
    """So that it may wait for whatever it likes."""

    @tool
    def where() -> int:
        """Tell the thread."""
        return threading.get_ident()

    assert await where.run({}) != threading.get_ident()


async def test_a_cancelled_plain_function_is_waited_for() -> None:
    """A thread cannot be stopped: what it does must not go on behind the turn's back."""
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    @tool
    def dig() -> None:
        """Dig."""
        began.set()
        may_end.wait(5)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dig.run, {})
        await trio.to_thread.run_sync(began.wait, 5)
        nursery.cancel_scope.cancel()
        may_end.set()
    assert ended.is_set()


async def test_a_tool_takes_a_few_threads_at_most() -> None:
    """Further calls wait for one."""
    running, most, may_end = [], [], threading.Event()

    @tool
    def stick() -> None:
        """Stick."""
        running.append(1)
        most.append(len(running))
        may_end.wait(5)
        running.pop()

    async with trio.open_nursery() as nursery:
        for _ in range(THREADS_OF_A_TOOL + 3):
            nursery.start_soon(stick.run, {})
        with trio.fail_after(5):
            while len(running) < THREADS_OF_A_TOOL:
                await trio.lowlevel.checkpoint()
        may_end.set()
    assert len(most) == THREADS_OF_A_TOOL + 3
    assert max(most) <= THREADS_OF_A_TOOL


SECRET = "my secret appointment"


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """The log as it is written."""
    return "\n".join(map(JsonFormatter().format, caplog.records))


async def fail(text: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        raise LookupError(text)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_mistake_in_a_tool(in_thread: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The chat model is told its kind, the log where it happened, and nobody what was said."""

    async def keep(text: str) -> None:
        """Keep a note."""
        await fail(text)

    def keep_in_thread(text: str) -> None:
        """Keep a note."""
        {}[text]

    kept = tool(name="keep")(keep_in_thread if in_thread else keep)
    with pytest.raises(ToolError) as caught:
        await kept.run({"text": SECRET})
    kind = "KeyError" if in_thread else "LookupError"
    assert str(caught.value) == f"keep failed: {kind}"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    log = logged(caplog)
    assert "tool_failed tool=keep" in log
    assert kind in log
    assert ("in keep_in_thread" if in_thread else "in fail") in log
    assert SECRET not in log


async def test_a_result_that_is_no_json_is_logged_without_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be what the user said."""
    with pytest.raises(ToolError):
        await tool_returning({SECRET: {SECRET}}).run({})
    assert "tool_failed tool=give" in logged(caplog)
    assert SECRET not in logged(caplog)


@pytest.mark.parametrize("in_nursery", [False, True])
async def test_a_tools_own_error_goes_through(
    in_nursery: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is meant for the chat model, also when it comes out of a nursery."""

    @tool
    async def book() -> None:
        """Book a table."""
        if in_nursery:
            async with trio.open_nursery():
                raise ToolError("the restaurant is full")
        raise ToolError("the restaurant is full")

    with pytest.raises(ToolError, match=r"^the restaurant is full$"):
        await book.run({})
    assert not caplog.records


async def test_cancellation_is_no_failure(autojump_clock: trio.testing.MockClock) -> None:
    """It goes through to the turn."""

    @tool
    async def wait() -> None:
        """Wait."""
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await wait.run({})
    assert scope.cancelled_caught
