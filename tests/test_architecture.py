"""Who may import whom, and what no module may do.

The design in one table: every module of `listenai` is in the first tier whose patterns match
its name, and may import what that tier allows.  Imports are read from the source, those inside
functions and under `if TYPE_CHECKING` too.  The rules are tried on planted sources below, so
that none of them can pass by looking at nothing.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import attrs
import pytest

# --- the rules, as data ------------------------------------------------------------------

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {
    *("listenai", "firmware", "web", "scripts", "tests"),
    *("pyproject.toml", "README.md", "LICENSE", "requirements.lock"),
}
LONGEST_MODULE = 400  # lines
MEDIAN_MODULE = 150

DATA = {"attr", "attrs", "cattr", "cattrs", "numpy"}  # plain values: allowed everywhere
EVERYTHING = {"*"}
# What waits, what differs from run to run, and what reaches out of the process.
IMPURE_STDLIB = {
    *("time", "sched", "random", "secrets", "uuid"),
    *("os", "platform", "shutil", "tempfile", "signal", "logging", "getpass"),
    *("asyncio", "threading", "concurrent", "multiprocessing", "subprocess", "queue"),
    *("socket", "socketserver", "select", "selectors", "ssl", "http", "urllib.request"),
}


@attrs.frozen
class Tier:
    """Modules by name below `listenai`, and what they may import."""

    name: str
    modules: tuple[str, ...]  # shell patterns; `*` matches dots too
    imports: set[str]  # names of tiers
    foreign: set[str]  # third-party packages
    stdlib_denied: set[str] = attrs.field(factory=set)
    more_foreign: int = 0  # so many third-party packages beside `foreign`


TIERS = (
    Tier(
        "pure",
        (
            *(
                "errors",
                "audio",
                "wav",
                "events",
                "settings",
                "device",
                "effects",
                "wire",
                "observer",
                "speech",
                "music",
            ),
            *("", "codecs", "conversation", "dialects", "engines", "server", "services"),
            *("services.asr", "services.tts", "services.llm", "sessions", "telemetry", "tools"),
            *("*.base", "dialects.*", "services.*.protocol"),
            *("commands", "*.commands", "engines.segmenter", "engines.embedded_phrases"),
            *("engines.openai_request", "engines.openai_stream", "engines.upstreams"),
            *("engines.model_files", "engines.voxcpm_voices", "services.pool"),
            *("services.tts.messages", "services.llm.completion"),
            *(
                "conversation.floor",
                "conversation.actions",
                "conversation.endpointing",
                "conversation.playout",
            ),
            *("conversation.mixer", "conversation.sentences", "conversation.heard"),
            *("conversation.items", "conversation.echo", "conversation.echo_evidence"),
            *("conversation.echo_reference", "conversation.limits"),
            *("conversation.floor_states", "conversation.phrases"),
        ),
        imports={"pure"},
        foreign=DATA,
        stdlib_denied=IMPURE_STDLIB,
    ),
    Tier(
        "adapter",
        ("codecs.*", "engines.*", "sessions.*", "tools.*", "services.*", "telemetry.*"),
        imports={"pure"},
        foreign=DATA | {"trio"},
        more_foreign=1,
    ),
    Tier(
        "conversation",
        ("conversation.*",),
        imports={"pure", "conversation"},
        foreign=DATA | {"trio"},
        stdlib_denied=IMPURE_STDLIB - {"logging"},  # the firewall tells of bugs
    ),
    Tier("server", ("server.*",), imports={"pure", "conversation", "server"}, foreign=EVERYTHING),
    Tier(
        "config",
        ("config", "config.*"),
        imports={"pure", "config"},
        foreign=DATA | {"dotenv"},
    ),
    Tier("client", ("client", "client.*"), imports={"pure", "client"}, foreign=EVERYTHING),
    Tier(
        "app",
        ("app", "app.*"),
        imports={"pure", "adapter", "conversation", "server", "config", "client", "app"},
        foreign=EVERYTHING,
    ),
    Tier(
        "cli",
        ("cli", "__main__"),
        imports={"pure", "config", "app", "client", "cli"},
        foreign=EVERYTHING,
    ),
)

# Where chance and the calendar are given to everyone else.
STDLIB_GRANTED = {"effects": {"random", "time", "uuid"}}

# Modules of these packages do not import each other, but for `base` and the stated parts.
SIBLINGS = ("codecs", "dialects", "engines", "services", "sessions", "telemetry", "tools")

# (module, its part) -> why these two are one thing in two files.
PARTS = {
    ("dialects.listenai", "dialects.messages"): "the ListenAI dialect's incoming messages",
    ("dialects.fields", "dialects.json_text"): "errors show values as they came",
    **{
        (f"dialects.{each}", f"dialects.{shared}"): "what all dialects share"
        for each in (
            *("listenai", "messages", "hotpin", "hotpin_messages", "prompt_voice"),
            *("prompt_voice_messages", "configurator", "ninja", "ninja_messages"),
        )
        for shared in ("json_text", "fields")
    },
    ("dialects.hotpin", "dialects.hotpin_messages"): "its words",
    ("dialects.hotpin", "dialects.hotpin_reply"): "its WAV file",
    ("dialects.prompt_voice", "dialects.prompt_voice_messages"): "its words",
    ("dialects.prompt_voice", "dialects.prompt_voice_times"): "its metrics",
    ("dialects.ninja", "dialects.ninja_messages"): "its words",
    ("dialects.ninja", "dialects.ninja_stages"): "its stages and metrics",
    ("dialects.ninja", "dialects.mailboxes"): "what waits for who is away",
    **{
        ("codecs.decoding", f"codecs.{each}"): "the codec of each encoding"
        for each in ("resampling", "opus", "webm")
    },
    ("codecs.music_files", "codecs.tune"): "what is played where there are no files",
    ("engines.openai_chat", "engines.openai_http"): "its HTTP answers and their deadlines",
    ("engines.openai_chat", "engines.openai_request"): "what is asked",
    ("engines.openai_chat", "engines.openai_stream"): "what is answered",
    ("engines.openai_chat", "engines.upstreams"): "which server is asked",
    ("engines.openai_stream", "engines.openai_request"): "names of tools, there and back",
    ("engines.recognizer", "engines.segmenter"): "the recognizer's segmentation, without waiting",
    ("engines.ears", "engines.recognizer"): "what an ear is",
    ("engines.ears", "engines.conditioning"): "what is done to its sound",
    ("engines.ears", "engines.noise_floor"): "a detector that adapts",
    ("engines.gain_control", "engines.noise_floor"): "what is noise is not made louder",
    **{
        ("engines.conditioning", f"engines.{each}"): "the steps"
        for each in ("gain_control", "noise_floor", "noise_reduction")
    },
    ("engines.embedded_chat", "engines.embedded_phrases"): "what the embedded chat model says",
    ("engines.funasr", "engines.funasr_model"): "the model and its thread",
    ("engines.funasr_model", "engines.model_files"): "which files it needs",
    ("engines.openai_transcriber", "engines.openai_audio"): "which server is asked, and how",
    ("engines.openai_synthesizer", "engines.openai_audio"): "which server is asked, and how",
    **{
        (f"engines.{each}", f"engines.{part}"): "what all clients of OpenAI's API share"
        for each in ("openai_audio", "openai_transcriber", "openai_synthesizer")
        for part in ("openai_http", "openai_request", "upstreams")
    },
    ("engines.sherpa", "engines.model_files"): "which files it needs",
    **{
        (f"engines.{each}", "engines.whole_utterance"): "hears a whole utterance before it writes"
        for each in (
            *("funasr", "openai_transcriber", "sherpa"),
            *("vosk", "whisper", "azure_transcriber"),
        )
    },
    ("engines.whisper", "engines.model_files"): "which files it needs",
    ("engines.azure_resource", "engines.openai_audio"): "which server is asked, and how",
    ("engines.azure_resource", "engines.upstreams"): "which server is asked",
    ("engines.azure_synthesizer", "engines.openai_synthesizer"): "how PCM comes in",
    **{
        (f"engines.azure_{each}", f"engines.{part}"): "what all that ask over HTTP share"
        for each in ("transcriber", "synthesizer")
        for part in (
            *("azure_resource", "openai_audio", "openai_http"),
            *("openai_request", "upstreams"),
        )
    },
    ("engines.hosted_chat", "engines.openai_chat"): "what both clouds speak",
    ("engines.hosted_chat", "engines.upstreams"): "which server is asked",
    ("engines.voxcpm", "engines.voxcpm_model"): "the model and its thread",
    ("engines.voxcpm", "engines.voxcpm_voices"): "its voices",
    ("engines.voxcpm_model", "engines.model_files"): "which files it needs",
    ("engines.voxcpm_model", "engines.voxcpm_voices"): "its voices",
    ("services.asr.client", "services.asr.lines"): "its connections",
    ("services.asr.server", "services.asr.ear"): "one client's audio",
    ("services.tts.client", "services.tts.link"): "one connection",
    **{
        (f"services.{each}", f"services.{shared}"): "what both ends of all services share"
        for each in ("asr.client", "asr.lines", "asr.server", "tts.client", "tts.link", "sockets")
        for shared in ("pool", "sockets")
        if each != shared
    },
    ("services.tts.server", "services.pool"): "what both ends of all services share",
    ("services.tts.server", "services.sockets"): "what both ends of all services share",
    ("telemetry.events_log", "telemetry.logs"): "fields that every line of a turn has",
    ("telemetry.metrics", "telemetry.counting"): "what is counted of conversations",
    ("tools.functions", "tools.type_hints"): "a function's arguments as a JSON Schema",
    ("tools.mcp", "tools.mcp_connection"): "one server: connected, lost, connected again",
    ("tools.mcp", "tools.mcp_servers"): "the servers' JSON file",
    ("tools.mcp_connection", "tools.mcp_servers"): "how to reach a server",
    ("tools.validation", "tools.complaints"): "what is wrong with arguments, in words",
    ("tools.validation", "tools.patterns"): "regular expressions that cannot run away",
    ("engines.sphinx", "engines.sphinx_library"): "PocketSphinx's C API, without tasks",
    ("engines.sphinx", "engines.sphinx_agreement"): "which of its two decoders to believe",
    ("engines.sphinx_library", "engines.sphinx_agreement"): "the decoders' words are its input",
}

# module -> (packages beside trio, why one is not enough)
FOREIGN_TOGETHER = {
    "engines.espeak": ({"espeakng_loader", "soxr"}, "22 050 Hz is resampled where it is made"),
    "services.llm.server": ({"hypercorn", "starlette"}, "an application, and what serves it"),
    "services.sockets": ({"trio_websocket", "wsproto"}, "the one lets the other's error out"),
    "tools.mcp_connection": ({"mcp", "httpx2"}, "headers are set on the SDK's own HTTP client"),
    "tools.validation": ({"jsonschema", "referencing"}, "its $ref, told to fetch nothing"),
    "engines.funasr_model": ({"funasr", "torch"}, "its only input in memory is a torch tensor"),
    "engines.voxcpm_model": (
        {"voxcpm", "torch", "torchaudio", "soxr"},
        "its torchaudio is stood in for, its voices resampled",
    ),
}

# Home folders and work trees: (?:…) keeps the pattern from finding itself.
MACHINE_PATH = re.compile(r"(?<![\w.$}-])(?:/(?:home|Users|root|work)/\w|[A-Z]:\\Users\\)")


# --- reading sources ---------------------------------------------------------------------

Sources = Mapping[str, str]  # dotted name below listenai ("" is the package) -> source


def sources_of(package: Path) -> dict[str, str]:
    """Every module of a package by its dotted name below the package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def imports_in(name: str, tree: ast.AST, sources: Sources) -> Iterator[str]:
    """The absolute names of all modules imported anywhere in a module."""
    packages = {module.rpartition(".")[0] for module in sources}
    package = name if name in packages else name.rpartition(".")[0]
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                origin = node.module or ""
                if node.level:
                    above = f"listenai.{package}".rstrip(".").split(".")
                    above = above[: len(above) - node.level + 1]
                    origin = ".".join([*above, origin]).rstrip(".")
                for alias in node.names:  # `from listenai import errors` imports a module
                    member = f"{origin}.{alias.name}"
                    is_module = member.removeprefix("listenai.") in sources
                    is_module = is_module or member in IMPURE_STDLIB
                    yield member if is_module else origin
            case ast.Call(args=[ast.Constant(value=str(module)), *_]) if called(node) in {
                "import_module",
                "__import__",
            }:
                yield module


def called(node: ast.Call) -> str:
    """The last name of what is called: `b` for `a.b(…)` and for `a.b[int](…)`."""
    function = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def tier_of(name: str) -> Tier | None:
    return next(
        (tier for tier in TIERS if any(fnmatchcase(name, pattern) for pattern in tier.modules)),
        None,
    )


# --- the rules on modules ----------------------------------------------------------------


def import_problems(name: str, source: str, sources: Sources) -> Iterator[str]:
    """What a module imports against its tier."""
    tier = tier_of(name)
    if tier is None:
        yield f"{name} is in no tier: give it a row in TIERS, and a line in the design"
        return
    tree = ast.parse(source)
    granted = STDLIB_GRANTED.get(name, set())
    if is_given_chance(tree):
        granted = granted | {"random"}
    foreign = set()
    for imported in sorted(set(imports_in(name, tree, sources))):
        top = imported.split(".")[0]
        if top == "listenai":
            yield from own_import_problems(name, tier, imported.partition(".")[2])
        elif top in sys.stdlib_module_names:
            if {top, imported} & (tier.stdlib_denied - granted):
                yield f"{name} ({tier.name}) may not import {imported}: it is given from outside"
        else:
            foreign.add(top)
    if "time" in tier.stdlib_denied - granted and any(map(reads_calendar, ast.walk(tree))):
        yield f"{name} ({tier.name}) may not ask the calendar: the date is given from outside"
    together = FOREIGN_TOGETHER.get(name, (set(), ""))[0]
    more = foreign - tier.foreign - together
    if len(more) > tier.more_foreign - bool(together) and tier.foreign != EVERYTHING:
        yield f"{name} ({tier.name}) may not import the packages {', '.join(sorted(more))}"


def is_given_chance(tree: ast.AST) -> bool:
    """Whether `random` serves for the type of a given generator alone: `chance: random.Random`."""
    generators = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "Random"
    ]
    made = any(isinstance(node, ast.Call) and called(node) == "Random" for node in ast.walk(tree))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "random"]
    return not made and bool(named) and all(name in generators for name in named)


def reads_calendar(node: ast.AST) -> bool:
    """Whether this is `datetime.now()` or one of its kin; dates that are given may be named."""
    match node:
        case ast.Call(func=ast.Attribute(attr="now" | "utcnow" | "today", value=calendar)):
            return ast.unparse(calendar).split(".")[-1] in {"datetime", "date"}
    return False


def own_import_problems(name: str, tier: Tier, imported: str) -> Iterator[str]:
    """What is wrong with a module importing another one of this package."""
    other = tier_of(imported)
    stated = (name, imported) in PARTS
    if other is None:
        yield f"{name} imports {imported}, which is in no tier"
    elif other.name not in tier.imports and not stated:
        yield f"{name} ({tier.name}) may not import {imported} ({other.name})"
    elif are_siblings(name, imported) and not stated:
        yield f"{name} may not import its sibling {imported}: siblings know only their base"


def are_siblings(name: str, imported: str) -> bool:
    """Whether two modules are alternatives in one package; a service's own parts are not."""
    mine, *rest = name.split(".")
    theirs, *other = imported.split(".")
    if mine != theirs or mine not in SIBLINGS or not rest or not other:
        return False
    same_service = mine == "services" and rest[0] == other[0]
    return other[-1] != "base" and not same_service


def use_problems(name: str, source: str) -> Iterator[str]:
    """What no module does, whatever its tier."""
    tree = ast.parse(source)
    from_time = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
        if alias.name == "sleep"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"{name}:{node.lineno} {why}" for why in call_problems(node, from_time))
    if any(imported.split(".")[0] == "asyncio" for imported in imports_in(name, tree, {})):
        yield f"{name} imports asyncio; this server runs on Trio"


def call_problems(node: ast.Call, sleeps: set[str]) -> Iterator[str]:
    match node.func:
        case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
            yield "sleeps in time.sleep, which stops every conversation; use trio.sleep"
        case ast.Name(id=function) if function in sleeps:
            yield "sleeps in time.sleep, which stops every conversation; use trio.sleep"
    for keyword in node.keywords:
        abandons = keyword.arg in {"abandon_on_cancel", "cancellable"}
        if abandons and not is_constant(keyword.value, False):
            yield "abandons a thread (abandon_on_cancel): its state would be used by two"
    if called(node) == "open_memory_channel":
        sizes = [*node.args, *(keyword.value for keyword in node.keywords)]
        if any(is_infinite(size) for size in sizes):
            yield "opens an unbounded memory channel; name a bound and its reason"


def is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def is_infinite(node: ast.expr) -> bool:
    match node:
        case ast.Name(id="inf") | ast.Attribute(attr="inf"):
            return True
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))]):
            return text.strip("+").lower() in {"inf", "infinity"}
    return False


def size_problems(sources: Sources) -> Iterator[str]:
    """Modules that are too long; empty packages do not count towards the median."""
    lines = {name: source.count("\n") for name, source in sources.items()}
    for name, count in lines.items():
        if count > LONGEST_MODULE:
            yield f"{name} has {count} lines; {LONGEST_MODULE} are allowed"
    counted = [count for name, count in lines.items() if count > 1]
    if counted and (median := statistics.median(counted)) > MEDIAN_MODULE:
        yield f"modules have {median} lines in the median; {MEDIAN_MODULE} are allowed"


def problems_in(sources: Sources) -> list[str]:
    """Everything that is wrong with these modules."""
    problems = list(size_problems(sources))
    for name, source in sources.items():
        problems += import_problems(name, source, sources)
        problems += use_problems(name, source)
    return problems


# --- the rules on files ------------------------------------------------------------------


def files_of(root: Path) -> list[str]:
    """The files of the tree: what git tracks or would track; without git, what is no build output.

    Paths are relative to the root, with slashes.
    """
    if (git := shutil.which("git")) and (root / ".git").exists():
        command = [git, "-c", f"safe.directory={root}", "ls-files", "-z"]
        command += ["--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
        return [path for path in os.fsdecode(listed).split("\0") if path and (root / path).exists()]
    left_out = {".venv", "__pycache__", "node_modules", "build", "dist", ".git"}
    return [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not left_out & set(path.relative_to(root).parts)
    ]


def top_level_problems(files: list[str]) -> list[str]:
    """What lies at the top of the tree without belonging there."""
    tops = {path.split("/")[0] for path in files}
    return [
        f"{top} does not belong at the top level, beside {', '.join(sorted(TOP_LEVEL))}"
        for top in sorted(tops - TOP_LEVEL)
        if not top.startswith(".")
    ]


def machine_path_problems(path: str, text: str) -> list[str]:
    """Lines that name a place on one machine."""
    return [
        f"{path}:{number} names a path of one machine: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]


# --- the tree obeys ----------------------------------------------------------------------


def test_the_package_obeys_the_rules() -> None:
    """No module imports what its tier may not, does what none may, or is too long."""
    sources = sources_of(ROOT / "listenai")
    assert {"", "events", "engines.base"} <= set(sources)
    problems = problems_in(sources)
    assert not problems, "\n".join(problems)


def test_the_tree_obeys_the_rules() -> None:
    """Nothing strange lies at the top level, and no file names a path of one machine."""
    files = files_of(ROOT)
    assert {"pyproject.toml", "listenai/events.py", "tests/test_architecture.py"} <= set(files)
    texts = {path: (ROOT / path).read_text(encoding="utf-8", errors="replace") for path in files}
    found = [line for path, text in texts.items() for line in machine_path_problems(path, text)]
    problems = top_level_problems(files) + found
    assert not problems, "\n".join(problems)


# --- and the rules can fail --------------------------------------------------------------

PLANTED = [
    # a module, its source, and what must be said about it
    ("events", "import trio", "events (pure) may not import the packages trio"),
    ("audio", "import time", "audio (pure) may not import time"),
    ("effects", "import os", "effects (pure) may not import os"),
    ("engines.base", "def f():\n    import random", "(pure) may not import random"),
    ("commands", "import random\nx = random.Random(1)", "(pure) may not import random"),
    ("commands", "import random\nx: random.Random = random.choice(y)", "may not import random"),
    ("commands", "import datetime\nx = datetime.datetime.now()", "may not ask the calendar"),
    ("conversation.turn", "from datetime import date\nx = date.today()", "not ask the calendar"),
    ("errors", "import logging", "errors (pure) may not import logging"),
    ("dialects.ninja", "from urllib import request", "may not import urllib.request"),
    ("services.asr.protocol", "from concurrent.futures import Future", "concurrent.futures"),
    ("engines.segmenter", "import soxr", "(pure) may not import the packages soxr"),
    (
        "conversation.floor",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trio",
        "conversation.floor (pure) may not import the packages trio",
    ),
    (
        "conversation.heard",
        "from listenai.conversation.outbox import Gate",
        "may not import conversation.outbox (conversation)",
    ),
    ("conversation.heard", "from . import outbox", "may not import conversation.outbox"),
    ("conversation.turn", "import httpx", "(conversation) may not import the packages httpx"),
    ("conversation.turn", "import os", "(conversation) may not import os"),
    ("conversation.turn", "from ..engines import espeak", "may not import engines.espeak (adap"),
    ("engines.sphinx", "import listenai.conversation.turn", "may not import conversation.turn"),
    ("engines.sphinx", "import httpx, redis", "may not import the packages httpx, redis"),
    ("engines.espeak", "import soxr, httpx, espeakng_loader", "may not import the packages httpx"),
    ("engines.sphinx", "from listenai.engines import espeak", "import engines.espeak (adapter)"),
    ("engines.sphinx", "import listenai.engines.segmenter", "its sibling engines.segmenter"),
    ("dialects.ninja", "from listenai.dialects import hotpin", "its sibling dialects.hotpin"),
    ("dialects.ninja", "from .hotpin import X", "its sibling dialects.hotpin"),
    ("services.tts.client", "import listenai.services.asr.protocol", "services.asr.protocol"),
    ("services.tts.client", "import listenai.services.tts.server", "services.tts.server"),
    ("server.http", "import listenai.config", "server.http (server) may not import config"),
    ("server.http", "from listenai import app", "server.http (server) may not import app"),
    ("cli", "import listenai.engines.espeak", "cli (cli) may not import engines.espeak"),
    ("cli", "import_module('listenai.engines.sphinx')", "cli (cli) may not import engines.sphinx"),
    ("config", "import trio", "config (config) may not import the packages trio"),
    ("utils", "", "utils is in no tier"),
    ("app", "import listenai.utils", "app imports utils, which is in no tier"),
    ("server.http", "import asyncio", "imports asyncio"),
    ("app", "def f():\n    from asyncio.events import x", "imports asyncio"),
    ("app", "import time\ntime.sleep(1)", "app:2 sleeps in time.sleep"),
    ("app", "from time import sleep as nap\nnap(1)", "app:2 sleeps in time.sleep"),
    ("app", "run_sync(f, abandon_on_cancel=True)", "app:1 abandons a thread"),
    ("app", "open_memory_channel(math.inf)", "unbounded memory channel"),
    ("app", "trio.open_memory_channel[int](inf)", "unbounded memory channel"),
    ("app", "open_memory_channel(max_buffer_size=float('inf'))", "unbounded memory channel"),
    ("app", "x = 1\n" * 401, "app has 401 lines; 400 are allowed"),
    ("app", "x = 1\n" * 151, "modules have 151 lines in the median"),
]

ALLOWED = [
    ("effects", "import random, time, uuid"),
    ("audio", "import math, numpy, listenai.errors"),
    ("commands", "import random\ndef f(chance: random.Random): return chance.random()"),
    ("dialects.ninja", "import datetime\ndef f(now: datetime.datetime): return now.hour"),
    ("dialects.ninja", "from urllib.parse import urlsplit\nfrom listenai.dialects.base import X"),
    ("conversation.items", "from listenai.engines.base import ChatMessage"),
    ("conversation.turn", "import trio\nfrom listenai.conversation import heard, outbox"),
    ("engines.sphinx", "import os, threading, numpy, trio, pocketsphinx"),
    ("engines.espeak", "import espeakng_loader, soxr, trio"),
    ("engines.recognizer", "from listenai.engines.segmenter import Segmenter"),
    ("services.tts.client", "import trio_websocket\nfrom listenai.services.tts.protocol import X"),
    ("server.http", "import hypercorn, starlette, time\nimport listenai.conversation.turn"),
    ("app", "import listenai.config, listenai.engines.sphinx, listenai.server.http"),
    ("app", "trio.open_memory_channel[int](8)\nrun_sync(f, abandon_on_cancel=False)"),
    ("cli", "import click\nfrom listenai import app"),
]

NAMED_BY_THE_PLANTED = (
    *("", "app", "config", "errors", "server.http", "conversation", "conversation.heard"),
    *("conversation.outbox", "conversation.turn", "dialects.base", "dialects.hotpin"),
    *("engines", "engines.base", "engines.espeak", "engines.segmenter", "engines.sphinx"),
)
HOUSE = dict.fromkeys(NAMED_BY_THE_PLANTED, "")


@pytest.mark.parametrize(("name", "source", "complaint"), PLANTED)
def test_a_broken_rule_is_told(name: str, source: str, complaint: str) -> None:
    """Each rule finds what was planted against it."""
    assert complaint in "\n".join(problems_in(HOUSE | {name: source}))


@pytest.mark.parametrize(("name", "source"), ALLOWED)
def test_what_the_design_allows_is_not_told(name: str, source: str) -> None:
    """The rules leave alone what the design allows."""
    assert problems_in(HOUSE | {name: source}) == []


@pytest.mark.parametrize(
    "path", ["/" + "home/ada/x", "='/" + "Users/ada", "(/" + "work/main", "C:" + "\\Users\\ada"]
)
def test_a_machine_path_is_told(path: str) -> None:
    """Home folders and work trees are found, with their line."""
    assert machine_path_problems("a.py", f"fine\nx = {path!s}\n")[0].startswith("a.py:2 ")


@pytest.mark.parametrize("path", ["web/home/page.js", "https://x.org/home/y", "/usr/bin/env"])
def test_an_ordinary_path_is_not_told(path: str) -> None:
    """Relative paths, addresses and the system's own places may be named."""
    assert machine_path_problems("a.py", path) == []


def test_a_strange_file_at_the_top_is_told() -> None:
    """Only what the design lists lies at the top level; dot files may."""
    assert top_level_problems(["listenai/app.py", ".gitignore", ".ci/run"]) == []
    assert "notes.md does not belong" in top_level_problems(["notes.md"])[0]


def test_files_are_found_without_git(tmp_path: Path) -> None:
    """Where the tree is no git checkout, build outputs alone are left out."""
    for path in ("a/b.py", ".venv/c.py", "a/__pycache__/d.pyc"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert files_of(tmp_path) == ["a/b.py"]
