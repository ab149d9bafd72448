"""Tools of other packages: whatever is installed and offers some is found."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeGuard

from listenai.errors import ConfigurationError
from listenai.events import ToolSchema
from listenai.tools.base import Tool, ToolTraits

GROUP = "listenai.tools"


def load_custom_tools(taken: Collection[str] = ()) -> list[Tool]:
    """The tools that installed packages offer as entry points of the group `listenai.tools`.

    taken: names that are no longer free, of our own tools.

    An entry point is a tool, several in a list or tuple, or what returns them when it is called.
    Raises ConfigurationError with every problem, each naming the package and what to do.
    """
    offers: dict[str, str] = dict.fromkeys(taken, "ListenAI itself")
    tools: list[Tool] = []
    problems: list[str] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (_package(entry), entry.name)):
        offer = f"{_package(entry)}, entry point {entry.name!r} ({entry.value})"
        try:
            found = _load(entry)
        except _BadOfferError as error:
            problems.append(f"{offer}: {error}; correct or uninstall that package")
            continue
        for tool in found:
            name = tool.schema.name
            if name in offers:
                problems.append(
                    f"{offer}: its tool {name!r} is also one of {offers[name]}: rename one of them,"
                    " or uninstall a package"
                )
            else:
                offers[name] = offer
                tools.append(tool)
    if problems:
        raise ConfigurationError(problems)
    return tools


class _BadOfferError(Exception):
    """The entry point cannot be used; the text says why."""


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"


def _load(entry: EntryPoint) -> list[Tool]:
    offered = _called("cannot be loaded", entry.load)
    if not _is_tool(offered) and callable(offered):
        offered = _called("cannot be called without arguments", offered)
    found = list(offered) if isinstance(offered, list | tuple) else [offered]
    for tool in found:
        if not _is_tool(tool):
            raise _BadOfferError(
                f"it gives {type(tool).__name__}, not a tool: decorate the function with"
                " `listenai.tools.functions.tool`, or write a class like `listenai.tools.base.Tool`"
            )
    return found


def _called(failure: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # whatever a stranger's module raises: it is theirs to read
        raise _BadOfferError(f"it {failure}: {type(error).__name__}: {error}") from error


def _is_tool(offered: Any) -> TypeGuard[Tool]:
    return (
        not isinstance(offered, type)  # a class is called, and gives its tool
        and isinstance(getattr(offered, "schema", None), ToolSchema)
        and isinstance(getattr(offered, "traits", None), ToolTraits)
        and callable(getattr(offered, "run", None))
    )
