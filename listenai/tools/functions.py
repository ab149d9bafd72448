"""Tools from Python functions: hints and docstring say what a chat model must know."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, get_type_hints, overload

import attrs
import trio

from listenai.errors import ToolError
from listenai.events import ToolSchema
from listenai.tools.base import ToolTraits
from listenai.tools.type_hints import SUPPORTED, object_schema, read, schema_of, write

# A function that waits in a thread cannot be stopped; four stuck calls of one tool keep its
# fifth waiting, and nobody else.
THREADS_OF_A_TOOL = 4

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what chat completion services accept
_log = logging.getLogger(__name__)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *,
    name: str | None = None,
    timeout_seconds: float = ...,
    background: bool = ...,
    patience_seconds: float = ...,
    announce: bool = ...,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None, **traits: Any
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Makes a tool of a function; with keyword arguments, a decorator that does.

    name: the function's, if not given.  The rest are ToolTraits.

    The description is the docstring's first paragraph, those of arguments are in its Google-style
    "Args:" or in Annotated[…, "description"].  A function without `async` runs in a thread.  That
    cannot be stopped: when the turn is cancelled, or the timeout is over, the turn ends only once
    the function returns; one that waits for others needs time limits of its own.

    Raises TypeError for a function of which no tool can be made, and says why.
    """
    decorator = partial(_make_tool, name=name, traits=ToolTraits(**traits))
    return decorator(function) if function else decorator


@attrs.frozen(eq=False)
class FunctionTool:
    """A tool that calls a function; called itself, it is that function."""

    function: Callable[..., Any]
    schema: ToolSchema
    traits: ToolTraits
    hints: Mapping[str, Any]  # of each argument
    required: frozenset[str]
    _threads: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, THREADS_OF_A_TOOL), repr=False
    )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function, as if it were not decorated."""
        return self.function(*args, **kwargs)

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Calls the function; returns its result as JSON data.

        Raises ToolError for wrong arguments, whatever the function raises, and a result that is
        not JSON.  The function's own ToolError goes through, also out of its nursery.
        """
        call = partial(self.function, **self._read(arguments))
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await call()
            else:
                result = await trio.to_thread.run_sync(call, limiter=self._threads)
        except Exception as error:
            errors = _leaves(error)
            bugs = [error for error in errors if not isinstance(error, ToolError)]
            if not bugs:
                raise errors[0] from None
            for bug in bugs:
                _log_without_words(self.schema.name, bug)
            raise ToolError(f"{self.schema.name} failed: {type(bugs[0]).__name__}") from error
        return self._write(result)

    def _read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the hints want them: enumerations, attrs classes; nothing is coerced."""
        absent = self.required - arguments.keys()
        problems = [f"{name}: it is missing" for name in self.hints if name in absent]
        given = {}
        for name, value in arguments.items():
            if name not in self.hints:
                problems.append(f"{name!r}: there is no such argument")
                continue
            try:
                given[name] = read(value, self.hints[name], name)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ToolError(f"wrong arguments of {self.schema.name}: {'. '.join(problems)}")
        return given

    def _write(self, result: Any) -> Any:
        try:
            return json.loads(json.dumps(write(result), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            _log_without_words(self.schema.name, error)
            raise ToolError(
                f"{self.schema.name} did its work, but what it returned is not JSON: it must be"
                " made of text, finite numbers, true, false, None, lists, dicts and attrs classes"
            ) from error


def _leaves(error: Exception) -> list[Exception]:
    """What happened: nurseries raise groups."""
    if isinstance(error, ExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _log_without_words(name: str, error: BaseException) -> None:
    """Tells where it failed and how, not what the exception says: that may be what a user said."""
    kind = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})
    stand_in = kind().with_traceback(error.__traceback__)
    _log.error("tool_failed tool=%s", name, exc_info=stand_in)


# --- what can be read from a function ------------------------------------------------------


def _make_tool(
    function: Callable[..., Any], *, name: str | None, traits: ToolTraits
) -> FunctionTool:
    name = str(name or getattr(function, "__name__", ""))
    if not _NAME.fullmatch(name):
        raise TypeError(f"{name!r} is no name of a tool: 1 to 64 of A-Z, a-z, 0-9, _ and -")
    try:
        summary, described = _read_docstring(inspect.getdoc(function) or "")
        schemas, hints, required = {}, {}, []
        for parameter, hint in _parameters(function):
            schema = schema_of(hint, parameter.name)
            if text := described.pop(parameter.name, ""):
                schema = {**schema, "description": text}
            if parameter.default is parameter.empty:
                required.append(parameter.name)
            else:
                schema = {
                    **schema,
                    "default": _check_default(parameter.default, hint, parameter.name),
                }
            schemas[parameter.name], hints[parameter.name] = schema, hint
        if described:
            raise TypeError(f'its "Args:" describe {", ".join(described)}, which it does not take')
    except TypeError as error:
        raise TypeError(f"no tool can be made of {name}: {error}") from None
    parameters = object_schema(schemas, required)
    return FunctionTool(
        function, ToolSchema(name, summary, parameters), traits, hints, frozenset(required)
    )


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any]]:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError("it yields; return a list")
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"{error}: its type hints must be names of its module") from None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise TypeError(f"{parameter} stands for any arguments; name them")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"{parameter.name} cannot be given by name; take away the /")
        if parameter.name not in hints:
            raise TypeError(f"{parameter.name} has no type hint; there are {SUPPORTED}")
        yield parameter, hints[parameter.name]


def _check_default(default: Any, hint: Any, name: str) -> Any:
    """The default as JSON; raises TypeError for one that the hint does not allow."""
    plain = write(default)
    try:
        read(plain, hint, name)
    except ValueError as error:
        raise TypeError(f"the default {default!r} is wrong: {error}") from None
    return plain


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph, and what "Args:" tells of each argument, each on one line."""
    summary = " ".join(re.split(r"\n\s*\n", text)[0].split())
    if not summary:
        raise TypeError("it has no docstring, and by that the chat model knows when to call it")
    described: dict[str, str] = {}
    section = re.search(r"^(?:Args|Arguments):\n((?:[ \t]+.*\n|\n)*)", text + "\n", re.MULTILINE)
    lines = inspect.cleandoc("\n" + section[1]).splitlines() if section else []
    for line in lines:
        if entry := re.match(r"(\w+)(?: *\([^)]*\))?: *(.*)", line):
            name = entry[1]
            described[name] = entry[2]
        elif described:
            described[name] = f"{described[name]} {line.strip()}".strip()
    return summary, described
