"""Tools that other installed packages offer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from listenai.errors import ConfigurationError
from listenai.tools.entry_points import load_custom_tools

EXAMPLE = Path(__file__).parent / "example_package"

TOOL = '''
from listenai.tools.functions import tool

@tool
async def {name}() -> str:
    """Do it."""
    return "done"
'''
CLASS = """
from listenai.events import ToolSchema
from listenai.tools.base import ToolTraits

class Clock:
    schema = ToolSchema("read_clock", "Read the clock.", {"type": "object"})
    traits = ToolTraits()

    async def run(self, arguments):
        return "noon"
"""


def declare(site: Path, name: str, version: str, entries: dict[str, str]) -> None:
    """What an installer writes beside a package's modules."""
    information = site / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (information / "METADATA").write_text(metadata)
    lines = ["[listenai.tools]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")


Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package of one module for this process: its name, source and offered object."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)

    def install(name: str, source: str, offered: str) -> None:
        module = f"offers_{name.replace('-', '_')}_{tmp_path.name}"
        (tmp_path / f"{module}.py").write_text(source)
        declare(tmp_path, name, "1.0", {"mine": f"{module}:{offered}"})

    yield install
    for module in set(sys.modules) - modules:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("source", "offered", "names"),
    [
        (TOOL.format(name="act"), "act", ["act"]),
        (TOOL.format(name="act") + "tools = [act]", "tools", ["act"]),
        (TOOL.format(name="act") + "tools = (act,)", "tools", ["act"]),
        (TOOL.format(name="act") + "def make():\n    return act", "make", ["act"]),
        (TOOL.format(name="act") + "def make():\n    return [act]", "make", ["act"]),
        ("nothing = []", "nothing", []),
        (CLASS, "Clock", ["read_clock"]),
        (CLASS + "clock = Clock()", "clock", ["read_clock"]),
    ],
)
async def test_what_an_entry_point_may_be(
    install: Install, source: str, offered: str, names: list[str]
) -> None:
    """A tool, several, or what returns them when it is called."""
    install("example", source, offered)
    tools = load_custom_tools()
    assert [tool.schema.name for tool in tools] == names
    assert {await tool.run({}) for tool in tools} <= {"done", "noon"}


def test_the_order_is_by_package(install: Install) -> None:
    """However they were installed: the chat model is told of tools in the same order."""
    install("zebra", TOOL.format(name="second"), "second")
    install("ant", TOOL.format(name="first"), "first")
    assert [tool.schema.name for tool in load_custom_tools()] == ["first", "second"]


@pytest.mark.parametrize(
    ("source", "offered", "message"),
    [
        ("import nowhere_at_all", "x", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("1 / 0", "x", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("", "x", "cannot be loaded: AttributeError"),
        ("x = 7", "x", "gives int, not a tool: decorate the function with"),
        ("def x(): return [3]", "x", "gives int, not a tool"),
        ("def x(city): ...", "x", "cannot be called without arguments: TypeError"),
        ("async def x(): ...\nx = [x]", "x", "gives function, not a tool"),
        (CLASS, "Clock.schema", "gives ToolSchema, not a tool"),
    ],
)
def test_a_package_that_offers_no_tool(
    install: Install, source: str, offered: str, message: str
) -> None:
    """Is named, with its entry point and what to do."""
    install("broken-tools", source, offered)
    with pytest.raises(ConfigurationError) as caught:
        load_custom_tools()
    [problem] = caught.value.problems
    assert problem.startswith("broken-tools 1.0, entry point 'mine' (offers_broken_tools")
    assert message in problem
    assert problem.endswith("; correct or uninstall that package")


def test_every_problem_is_told(install: Install) -> None:
    """At once."""
    install("broken-a", "x = 1", "x")
    install("broken-b", "x = 2", "x")
    install("good", TOOL.format(name="act"), "act")
    with pytest.raises(ConfigurationError) as caught:
        load_custom_tools()
    assert [problem.split()[0] for problem in caught.value.problems] == ["broken-a", "broken-b"]


def test_two_tools_of_one_name(install: Install) -> None:
    """Both packages are named."""
    install("ant", TOOL.format(name="act"), "act")
    install("bee", TOOL.format(name="act"), "act")
    with pytest.raises(ConfigurationError, match=r"bee 1\.0.* tool 'act' is also one of ant 1\.0"):
        load_custom_tools()


def test_a_name_of_our_own_tools(install: Install) -> None:
    """Is taken."""
    install("ant", TOOL.format(name="get_weather"), "get_weather")
    with pytest.raises(ConfigurationError, match="'get_weather' is also one of ListenAI itself"):
        load_custom_tools(taken=["get_weather"])


def test_without_such_packages_there_are_no_tools() -> None:
    """As in a fresh installation."""
    assert load_custom_tools() == []


ASK = """
import json, sys, trio
from listenai.tools.entry_points import load_custom_tools
tools = {tool.schema.name: tool for tool in load_custom_tools()}
result = trio.run(tools["find_recipe"].run, {"dish": "Porridge", "diet": "vegan"})
print(json.dumps({"tools": list(tools), "result": result}))
"""


def test_the_example_package(tmp_path: Path) -> None:
    """Installed as its project file says, its tools are found and run by another process."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(EXAMPLE / "src", tmp_path, dirs_exist_ok=True)
    declare(
        tmp_path, project["name"], project["version"], project["entry-points"]["listenai.tools"]
    )
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r})\n{ASK}"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert told == {"tools": ["roll_dice", "find_recipe"], "result": ["oats", "water"]}
