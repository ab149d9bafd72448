"""Which MCP servers lend us tools: the usual JSON file, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from listenai.errors import ConfigurationError

_FORM = '{"mcpServers": {"a name": {"command": "…", "args": […]} or {"url": "https://…"}}}'
_TYPES = {"command": ("stdio",), "url": ("http", "streamable-http", "streamableHttp")}
_FIELDS = {
    "command": ("command", "args", "env", "cwd", "type", "disabled"),
    "url": ("url", "headers", "type", "disabled"),
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\t -~]*")  # RFC 9110, 5.5, in ASCII


@attrs.frozen
class StdioMcpServer:
    """A program that is started and speaks MCP on its standard input and output."""

    name: str
    command: str
    # Keys and passwords are given in any of these: they are never shown.
    args: tuple[str, ...] = attrs.field(default=(), repr=False)
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)  # beside PATH, HOME and such
    cwd: str | None = None  # None: ours


@attrs.frozen
class HttpMcpServer:
    """A server that speaks MCP by streamable HTTP."""

    name: str
    url: str = attrs.field(repr=False)  # its query may hold a key
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)  # of every request


McpServer = StdioMcpServer | HttpMcpServer


def read_mcp_servers(path: str | Path) -> tuple[McpServer, ...]:
    """The servers of a JSON file, in its order, without those that say `"disabled": true`.

    Raises ConfigurationError with every problem, each naming file, server and field.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_no_twins)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:  # of the encoding, of JSON, of twins
        raise ConfigurationError([f"{path}: must be JSON in UTF-8: {error}"]) from error
    entries = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise ConfigurationError([f"{path}: must be of the form {_FORM}"])
    problems = [
        f"{path}: unknown field {field!r} beside mcpServers; remove it"
        for field in document
        if field != "mcpServers"
    ]
    for name, entry in entries.items():
        problems += [f"{path}: server {name!r}: {problem}" for problem in _problems(name, entry)]
    if problems:
        raise ConfigurationError(problems)
    return tuple(
        _server(name, entry) for name, entry in entries.items() if not entry.get("disabled")
    )


def _no_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two fields with one name, one would be lost in silence."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twin!r} is there twice; rename or remove one")
    return fields


def _server(name: str, entry: Mapping[str, Any]) -> McpServer:
    """The server of an entry without problems."""
    if "url" in entry:
        return HttpMcpServer(name, entry["url"], entry.get("headers", {}))
    args = tuple(entry.get("args", ()))
    return StdioMcpServer(name, entry["command"], args, entry.get("env", {}), entry.get("cwd"))


def _problems(name: str, entry: Any) -> Iterator[str]:
    """What is wrong with one entry; values are not repeated, they may be secrets."""
    if not name.strip():
        yield "must have a name"
    if not isinstance(entry, dict) or ("command" in entry) == ("url" in entry):
        yield 'must be an object with either "command" (a program) or "url" (streamable HTTP)'
        return
    kind = "url" if "url" in entry else "command"
    for field in (field for field in entry if field not in _FIELDS[kind]):
        yield f"unknown field {field!r}; allowed beside {kind!r} are {', '.join(_FIELDS[kind])}"
    if entry.get("type", _TYPES[kind][0]) not in _TYPES[kind]:
        yield f'"type" must be {" or ".join(_TYPES[kind])} where there is {kind!r}' + (
            " (the older SSE transport is not supported)" if entry["type"] == "sse" else ""
        )
    if not isinstance(entry.get("disabled", False), bool):
        yield '"disabled" must be true or false'
    yield from _url_problems(entry) if kind == "url" else _command_problems(entry)


def _command_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    args, env = entry.get("args", []), entry.get("env", {})
    for field in ("command", "cwd"):
        if not (_is_text(entry.get(field, "none")) and entry.get(field, "none").strip()):
            yield f"{field!r} must be text that is not empty"
    if not isinstance(args, list) or not all(map(_is_text, args)):
        yield '"args" must be a list of texts (numbers in quotes too)'
    if not isinstance(env, dict) or not all(map(_is_text, env.values())):
        yield '"env" must be an object of texts (numbers in quotes too)'
    elif any(not key or "=" in key or "\0" in key for key in env):
        yield '"env" must have names without "=", none of them empty'


def _url_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    headers = entry.get("headers", {})
    if not _is_http_url(entry["url"]):
        yield '"url" must be a URL that begins with http:// or https:// and names a host'
    if not isinstance(headers, dict) or not all(map(_is_text, headers.values())):
        yield '"headers" must be an object of texts'
        return
    for header, value in headers.items():
        if not _HEADER_NAME.fullmatch(header) or not _HEADER_VALUE.fullmatch(value):
            yield f'"headers": {header!r} must name a header, its value be ASCII on one line'


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_http_url(value: object) -> bool:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port or of brackets
        return False
