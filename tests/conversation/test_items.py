"""Items, and the history a chat model sees of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listenai.conversation.items import (
    AssistantItem,
    Item,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    project,
)
from listenai.engines.base import ChatMessage, ToolCall
from listenai.events import Certainty


def user(text: str) -> UserItem:
    return UserItem("u", 0.0, text)


def said(text: str) -> AssistantItem:
    return AssistantItem("a", 0.0, text, Certainty.ESTIMATED)


def call(call_id: str, name: str = "weather") -> ToolCallItem:
    return ToolCallItem("c", 0.0, ToolCall(call_id, name, "{}"))


def result(call_id: str, content: str = '"sunny"') -> ToolResultItem:
    return ToolResultItem("r", 0.0, call_id, True, content)


def shape(messages: list[ChatMessage]) -> list[str]:
    """One string a message: what matters of it."""
    lines = []
    for message in messages:
        calls = ",".join(each.call_id for each in message.tool_calls)
        lines.append(f"{message.role} {message.tool_call_id or calls or message.content}")
    return lines


def test_what_was_said_in_order():
    """Users and what was heard of the assistant."""
    messages = project([user("hello"), said("Hi."), user("bye")], 10)
    assert messages == [
        ChatMessage("user", "hello"),
        ChatMessage("assistant", "Hi."),
        ChatMessage("user", "bye"),
    ]


def test_a_call_and_its_result():
    """As the chat model made it, and what it was answered."""
    made = ToolCall("1", "weather", "{}")
    assert project([user("weather?"), call("1"), result("1"), said("Sunny.")], 10) == [
        ChatMessage("user", "weather?"),
        ChatMessage("assistant", "", (made,)),
        ChatMessage("tool", '"sunny"', tool_call_id="1"),
        ChatMessage("assistant", "Sunny."),
    ]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        # of one round: grouped, the results in the calls' order
        (
            [call("1"), call("2"), result("2"), result("1")],
            ["assistant 1,2", "tool 1", "tool 2"],
        ),
        # of two rounds, side by side: one after the other
        (
            [call("1"), result("1"), call("2"), result("2")],
            ["assistant 1", "tool 1", "assistant 2", "tool 2"],
        ),
        (
            [call("1"), call("2"), result("1"), call("3"), result("3"), result("2")],
            ["assistant 1,2,3", "tool 1", "tool 2", "tool 3"],
        ),
        # the model numbers its calls anew each time
        (
            [call("1"), result("1"), call("1"), result("1")],
            ["assistant 1", "tool 1", "assistant 1", "tool 1"],
        ),
        # text between the rounds
        (
            [call("1"), result("1"), said("And"), call("2"), result("2")],
            ["assistant 1", "tool 1", "assistant And", "assistant 2", "tool 2"],
        ),
        # a call without a result, results without their call
        ([user("hi"), call("1"), said("Hm.")], ["user hi", "assistant Hm."]),
        ([call("1"), call("2"), result("2")], ["assistant 2", "tool 2"]),
        ([result("0"), user("hi")], ["user hi"]),
        ([call("2"), result("1"), result("2")], ["assistant 2", "tool 2"]),
        ([result("1"), call("1"), user("hi")], ["user hi"]),
    ],
)
def test_calls_and_results(items: list[Item], expected: list[str]):
    """Every tool message follows the message that asked for it; every call is answered."""
    assert shape(project(items, 10)) == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, []),
        (1, ["assistant Sunny."]),
        (2, ["assistant Sunny."]),  # not without the call
        (3, ["assistant Sunny."]),
        (4, ["assistant 1,2", "tool 1", "tool 2", "assistant Sunny."]),
        (5, ["user weather?", "assistant 1,2", "tool 1", "tool 2", "assistant Sunny."]),
        (99, ["user weather?", "assistant 1,2", "tool 1", "tool 2", "assistant Sunny."]),
    ],
)
def test_the_limit_does_not_part_calls_from_results(limit: int, expected: list[str]):
    """Rather fewer messages than a history that no chat model accepts."""
    items = [user("weather?"), call("1"), call("2"), result("1"), result("2"), said("Sunny.")]
    assert shape(project(items, limit)) == expected


ITEMS = st.lists(
    st.one_of(
        st.sampled_from(["a", "b"]).map(user),
        st.sampled_from(["c", "d"]).map(said),
        st.sampled_from("123").map(call),
        st.sampled_from("123").map(result),
    ),
    max_size=20,
)


@given(items=ITEMS, limit=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_any_history_is_acceptable(items: list[Item], limit: int):
    """At most `limit` messages, the last ones; calls are answered at once, and nothing else is."""
    messages = project(items, limit)
    assert len(messages) <= limit
    whole = project(items, 1000)
    assert messages == whole[len(whole) - len(messages) :]
    texts = [item.text for item in items if isinstance(item, (UserItem, AssistantItem))]
    spoken = [each for each in whole if each.role != "tool" and not each.tool_calls]
    assert [message.content for message in spoken] == texts

    waiting: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id == waiting.pop(0)
        else:
            assert not waiting
            waiting = [each.call_id for each in message.tool_calls]
    assert not waiting
