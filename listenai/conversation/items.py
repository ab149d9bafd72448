"""SANS-IO: what was said and done, and the history a chat model sees of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from listenai.engines.base import ChatMessage, ToolCall
from listenai.events import Certainty


@attrs.frozen
class UserItem:
    """What the user said or typed."""

    id: str
    at: float  # seconds since the epoch
    text: str


@attrs.frozen
class AssistantItem:
    """What the user heard (or saw) of a reply."""

    id: str
    at: float
    text: str
    certainty: Certainty
    interrupted: bool = False


@attrs.frozen
class ToolCallItem:
    """A tool that the assistant called; it stays, because it had effects."""

    id: str
    at: float
    call: ToolCall


@attrs.frozen
class ToolResultItem:
    """What came of a tool call."""

    id: str
    at: float
    call_id: str
    ok: bool
    content: str  # JSON


Item = UserItem | AssistantItem | ToolCallItem | ToolResultItem


def project(items: Iterable[Item], limit: int) -> list[ChatMessage]:
    """The last `limit` messages (a call and its results never parted), oldest first."""
    messages: list[ChatMessage] = []
    for item in items:
        match item:
            case UserItem(text=text):
                messages.append(ChatMessage("user", text))
            case AssistantItem(text=text):
                messages.append(ChatMessage("assistant", text))
            case ToolCallItem(call=call):
                _add_call(messages, call)
            case ToolResultItem(call_id=call_id, content=content):
                messages.append(ChatMessage("tool", content, tool_call_id=call_id))
    return _limited(messages, limit)


def _add_call(messages: list[ChatMessage], call: ToolCall) -> None:
    """Calls that stand together are one message, as the chat model made them."""
    if messages and messages[-1].tool_calls:
        last = messages.pop()
        messages.append(attrs.evolve(last, tool_calls=(*last.tool_calls, call)))
    else:
        messages.append(ChatMessage("assistant", "", (call,)))


def _limited(messages: Sequence[ChatMessage], limit: int) -> list[ChatMessage]:
    start = max(0, len(messages) - limit)
    while start < len(messages) and messages[start].role == "tool":
        start += 1  # its call was cut off: no chat model accepts it alone
    return list(messages[start:])
