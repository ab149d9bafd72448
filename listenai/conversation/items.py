"""SANS-IO: what was said and done, and the history a chat model sees of it."""

from __future__ import annotations

from collections.abc import Iterable

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
    """The last `limit` messages (a call and its results never parted), oldest first.

    What a chat model would not accept is left out: a result whose call is gone, a call
    without a result.
    """
    blocks: list[list[ChatMessage]] = []
    calling = _Calls()
    for item in items:
        match item:
            case UserItem(text=text):
                blocks += [calling.close(), [ChatMessage("user", text)]]
            case AssistantItem(text=text):
                blocks += [calling.close(), [ChatMessage("assistant", text)]]
            case ToolCallItem(call=call):
                if calling.answered:  # the next round
                    blocks.append(calling.close())
                calling.calls[call.call_id] = call
            case ToolResultItem(call_id=call_id, content=content):
                calling.results[call_id] = content
    blocks.append(calling.close())
    return _limited(blocks, limit)


@attrs.define
class _Calls:
    """Calls that stand together, as one message of the chat model, and their results."""

    calls: dict[str, ToolCall] = attrs.field(factory=dict)
    results: dict[str, str] = attrs.field(factory=dict)

    @property
    def answered(self) -> bool:
        return self.calls.keys() <= self.results.keys()

    def close(self) -> list[ChatMessage]:
        """The messages, none where there was nothing; the next calls are another group."""
        calls = [call for call in self.calls.values() if call.call_id in self.results]
        answers = [
            ChatMessage("tool", self.results[call.call_id], tool_call_id=call.call_id)
            for call in calls
        ]
        self.calls, self.results = {}, {}
        return [ChatMessage("assistant", "", tuple(calls)), *answers] if calls else []


def _limited(blocks: Iterable[list[ChatMessage]], limit: int) -> list[ChatMessage]:
    """The last blocks that fit, whole."""
    messages: list[ChatMessage] = []
    for block in reversed(list(blocks)):
        if len(block) + len(messages) > limit:
            break
        messages = block + messages
    return messages
