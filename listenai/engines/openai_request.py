"""SANS-IO: requests for chat completions as OpenAI's API has them, and what a refusal means.

Servers differ in what they accept: names of tools, empty messages, fields that came later.
What is sent is what all of them take; what one refuses is left out the next time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from listenai.engines.base import ChatMessage, ChatSettings, ToolCall
from listenai.events import ToolSchema

MAX_SAID = 200  # characters of a server's own error message that are told

# Fields that some servers refuse, and without which an answer is still an answer.
OPTIONAL_FIELDS = ("stream_options", "temperature", "max_completion_tokens", "max_tokens", "tools")

_NOT_SUPPORTED = r"not support"
_UNSUPPORTED = (
    r"not support|unsupported|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed"
    r"|forbidden"
)
_UNKNOWN_MODEL = (
    r"model.*(not found|not exist|not known)|(invalid|unknown|no such) model|not found.*model"
)
_MEANINGS = {
    401: "{name} does not accept the key: check LLM_API_KEY",
    402: "the account at {name} has no credit left",
    403: "{name} does not allow this key to use the model {model!r}",
    404: "there is no chat API at {name}: check LLM_BASE_URL",
    429: "{name} has had too many requests",
}
_REFUSED = "{name} refused the request"


def chat_url(base_url: str) -> str:
    """Where chats are completed: below /v1, unless the URL names a version or the whole path."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        versioned = re.search(r"/v\d\w*(/|$)", path)
        path += "/chat/completions" if versioned else "/v1/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


class ToolNames:
    """Names as servers accept them, `[A-Za-z0-9_-]{1,64}`, and back; the tools decide them."""

    def __init__(self, tools: Sequence[ToolSchema]) -> None:
        self._sent: dict[str, str] = {}
        for tool in tools:
            name, count = _acceptable(tool.name), 1
            while name in self._sent.values():
                count += 1
                name = f"{_acceptable(tool.name)[:60]}_{count}"
            self._sent[tool.name] = name
        self._own = {sent: own for own, sent in self._sent.items()}

    def sent(self, name: str) -> str:
        """The name that the server sees."""
        return self._sent.get(name) or _acceptable(name)

    def own(self, name: str) -> str:
        """The name of the tool that a server asks for; one that is unknown stays as it is."""
        return self._own.get(name, name)


def _acceptable(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "_"


def request_fields(
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolSchema],
    settings: ChatSettings,
    *,
    model: str,
    names: ToolNames,
    refused: Container[str] = (),
) -> dict[str, Any]:
    """The fields of a streaming request, without the optional ones that are `refused`."""
    spoken = [m for m in messages if m.role != "assistant" or m.content or m.tool_calls]
    ordered = sorted(spoken, key=lambda message: message.role != "system")
    fields: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, names) for message in ordered],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": settings.temperature,
    }
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    fields[limit] = settings.max_tokens
    if tools:  # an empty list is an error with some
        fields["tools"] = [_tool(tool, names) for tool in tools]
    return {key: value for key, value in fields.items() if key not in refused}


def as_json(fields: dict[str, Any]) -> bytes:
    """The body of a request, UTF-8 whatever texts it holds."""
    return mended(json.dumps(fields, ensure_ascii=False)).encode()


def _tool(tool: ToolSchema, names: ToolNames) -> dict[str, Any]:
    function = {
        "name": names.sent(tool.name),
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def _message(message: ChatMessage, names: ToolNames) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": names.sent(call.name), "arguments": _arguments(call)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _arguments(call: ToolCall) -> str:
    """What the model wrote; nothing where that is no object: servers fail on it turns later."""
    return call.arguments if is_object(call.arguments) else "{}"


def is_object(text: str) -> bool:
    """Whether this is the JSON of an object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def mended(text: str) -> str:
    """Halves of characters are joined, or replaced: what remains can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


# --- refusals ----------------------------------------------------------------------------


def error_text(answer: bytes | dict[str, Any]) -> str:
    """What a server says went wrong, in one short line; "" where it says nothing."""
    try:
        found: Any = json.loads(answer) if isinstance(answer, bytes) else answer
    except (ValueError, RecursionError):
        return ""  # a page of HTML tells nobody anything
    while isinstance(found, (dict, list)) and found:
        if isinstance(found, list):
            found = found[0]
        else:
            keys = [key for key in ("error", "message", "detail", "msg") if found.get(key)]
            found = found[keys[0]] if keys else None
    line = " ".join(mended(str(found or "")).split())
    return line if len(line) <= MAX_SAID else line[: MAX_SAID - 1] + "…"


def refused_field(answer: bytes, sent: Container[str]) -> str | None:
    """The optional field for which a request was refused (status 400 or 422), as far as is told.

    An answer that names none is believed to mean `stream_options`, the newest of them.
    """
    told = answer.decode("utf-8", "replace")
    for field in OPTIONAL_FIELDS:
        # A schema may be wrong in many ways; tools are given up only where there are none.
        reason = _UNSUPPORTED if field != "tools" else _NOT_SUPPORTED
        if field in sent and field in told and re.search(reason, told, re.IGNORECASE):
            return field
    return "stream_options" if "stream_options" in sent else None


def explain_refusal(status: int, says: str, *, model: str, name: str) -> str:
    """What an HTTP status of the server `name` means, and what a user can do about it."""
    if status in {400, 404, 422} and re.search(_UNKNOWN_MODEL, says, re.IGNORECASE):
        meaning = f"the model {model!r} is not known at {name}: set LLM_MODEL to one that it has"
    elif 300 <= status < 400:
        meaning = f"{name} has moved: set LLM_BASE_URL to where it is now"
    else:
        wording = _MEANINGS.get(status, "{name} failed" if status >= 500 else _REFUSED)
        meaning = wording.format(name=name, model=model)
    return f"{meaning} (status {status}{': ' if says else ''}{says})"
