"""SANS-IO: requests for chat completions in OpenAI's format, from the side of a server.

Fields that are not known are passed over, because OpenAI's clients send many.  Those that would
change what the answer means, and cannot be obeyed, are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import attrs

from listenai.engines.base import ChatMessage, ChatSettings, ToolCall
from listenai.errors import ListenAIError
from listenai.events import ToolSchema

MAX_BODY_BYTES = 4 << 20
MAX_TOKENS = 1_000_000

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SHOWN_CHARACTERS = 40

Fields = dict[str, Any]


class ApiError(ListenAIError):
    """An answer that is an error, as OpenAI's clients understand it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Fields = {
            "error": {"message": message, "type": kind, "param": param, "code": code}
        }


@attrs.frozen
class Question:
    """A request for a completion, checked."""

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSchema, ...]
    settings: ChatSettings
    stream: bool
    include_usage: bool  # of a stream
    parallel_tool_calls: bool


# --- the request ---------------------------------------------------------------------------


def read_question(body: bytes, models: Sequence[str]) -> Question:
    """The question that a body asks; raises ApiError naming the field and what is allowed."""
    fields = _object(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        _refuse("model", f"must be the name of a model, one of {', '.join(models)}", model)
    if model not in models:
        raise ApiError(
            f"the model {_shown(model)} does not exist here; choose one of {', '.join(models)}",
            status=404,
            param="model",
            code="model_not_found",
        )
    _refuse_unsupported(fields)
    stream = _flag(fields, "stream", default=False)
    return Question(
        model,
        _messages(fields.get("messages")),
        _tools(fields),
        _settings(fields),
        stream,
        _include_usage(fields, stream),
        _flag(fields, "parallel_tool_calls", default=True),
    )


def _object(body: bytes) -> Fields:
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # half pairs, NaN
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not JSON in UTF-8: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise ApiError(f"the body must be a JSON object, not {_shown(value)}")
    return value


def _refuse(param: str, problem: str, value: object) -> NoReturn:
    raise ApiError(f"'{param}' {problem}, not {_shown(value)}", param=param, code="invalid_value")


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"text of {len(value)} characters"
    return json.dumps(value, ensure_ascii=False)[: 2 * _SHOWN_CHARACTERS]


_IS_SUPPORTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "n": (lambda value: value == 1, "must be 1: there is one answer to a request"),
    "stop": (lambda value: value == [], "is not supported: leave it out"),
    "logprobs": (lambda value: value is False, "is not supported: leave it out"),
    "functions": (lambda value: value == [], "is not supported: use 'tools'"),
    "tool_choice": (lambda value: value in ("auto", "none"), "must be 'auto' or 'none'"),
    "response_format": (
        lambda value: isinstance(value, dict) and value.get("type") == "text",
        "must be {'type': 'text'}",
    ),
    "modalities": (lambda value: value == ["text"], "must be ['text']"),
}


def _refuse_unsupported(fields: Fields) -> None:
    for name, (is_supported, problem) in _IS_SUPPORTED.items():
        value = fields.get(name)
        if value is not None and not is_supported(value):
            raise ApiError(f"'{name}' {problem}", param=name, code="unsupported_value")


def _flag(fields: Fields, name: str, *, default: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        _refuse(name, "must be true or false", value)
    return value


def _include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        _refuse("stream_options", "must be an object", options)
    if not stream:
        _refuse("stream_options", "may be given with 'stream': true only", options)
    return _flag(options, "include_usage", default=False)


def _settings(fields: Fields) -> ChatSettings:
    usual = ChatSettings()
    temperature = fields.get("temperature")
    if temperature is None:
        temperature = usual.temperature
    if not _is_number(temperature) or not 0 <= temperature <= 2:
        _refuse("temperature", "must be a number from 0 to 2", temperature)
    limits = [
        (name, fields[name])
        for name in ("max_completion_tokens", "max_tokens")
        if fields.get(name) is not None
    ]
    for name, limit in limits:
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_TOKENS:
            _refuse(name, f"must be a whole number from 1 to {MAX_TOKENS}", limit)
    max_tokens = limits[0][1] if limits else usual.max_tokens
    return ChatSettings(float(temperature), max_tokens)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _messages(value: object) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        _refuse("messages", "must be a list of one message at least", value)
    messages: list[ChatMessage] = []
    called: set[str] = set()
    for index, fields in enumerate(value):
        message = _message(fields, f"messages[{index}]")
        if message.role == "tool" and message.tool_call_id not in called:
            problem = "must be the id of a call in a message of the assistant before it"
            _refuse(f"messages[{index}].tool_call_id", problem, message.tool_call_id)
        called |= {call.call_id for call in message.tool_calls}
        messages.append(message)
    return tuple(messages)


_ROLES: Mapping[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def _message(fields: object, path: str) -> ChatMessage:
    if not isinstance(fields, dict):
        _refuse(path, "must be an object", fields)
    name = fields.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        _refuse(f"{path}.role", f"must be one of {', '.join(_ROLES)}", name)
    calls = _calls(fields.get("tool_calls"), path) if role == "assistant" else ()
    content = fields.get("content")
    if content is None and role == "assistant":
        content = ""
    call_id = fields.get("tool_call_id") if role == "tool" else None
    if role == "tool" and not isinstance(call_id, str):
        _refuse(f"{path}.tool_call_id", "must be text", call_id)
    return ChatMessage(role, _content(content, f"{path}.content"), calls, call_id)


def _content(content: object, path: str) -> str:
    """Text, or parts of text, which are joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        _refuse(path, "must be text, or a list of parts", content)
    texts = []
    for index, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ApiError(
                f"'{path}[{index}]' must be a part of type 'text'; there is no other here",
                param=f"{path}[{index}]",
                code="unsupported_value",
            )
        texts.append(text)
    return "".join(texts)


def _calls(value: object, path: str) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        _refuse(f"{path}.tool_calls", "must be a list", value)
    calls = []
    for index, fields in enumerate(value):
        where = f"{path}.tool_calls[{index}]"
        function = fields.get("function") if isinstance(fields, dict) else None
        if not isinstance(fields, dict) or not isinstance(function, dict):
            _refuse(where, "must be an object with 'id', 'type' and 'function'", fields)
        told: Fields = {"call_id": fields.get("id")}
        told |= {"name": function.get("name"), "arguments": function.get("arguments")}
        if not all(isinstance(text, str) for text in told.values()):
            _refuse(where, "must have texts 'id', 'function.name', 'function.arguments'", fields)
        calls.append(ToolCall(**told))
    return tuple(calls)


def _tools(fields: Fields) -> tuple[ToolSchema, ...]:
    value = fields.get("tools")
    if value is None:
        return ()
    if not isinstance(value, list):
        _refuse("tools", "must be a list", value)
    tools = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(value))
    if len({tool.name for tool in tools}) < len(tools):
        raise ApiError("'tools' must have different names", param="tools", code="invalid_value")
    return () if fields.get("tool_choice") == "none" else tools


def _tool(fields: object, path: str) -> ToolSchema:
    function = fields.get("function") if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or fields.get("type") != "function":
        _refuse(path, "must be an object of type 'function'", fields)
    if not isinstance(function, dict):
        _refuse(f"{path}.function", "must be an object", function)
    name, parameters = function.get("name"), function.get("parameters")
    description = function.get("description")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        _refuse(f"{path}.function.name", "must be 1 to 64 of the characters a-z A-Z 0-9 _ -", name)
    if description is not None and not isinstance(description, str):
        _refuse(f"{path}.function.description", "must be text", description)
    if parameters is not None and not isinstance(parameters, dict):
        _refuse(f"{path}.function.parameters", "must be a JSON Schema object", parameters)
    return ToolSchema(name, description or "", parameters or {"type": "object", "properties": {}})
