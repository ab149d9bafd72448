"""Requests to OpenAI-compatible servers, and what their refusals mean."""

from __future__ import annotations

import json
import re

import pytest

from listenai.engines.base import ChatMessage, ChatSettings, ToolCall
from listenai.engines.openai_request import (
    MAX_SAID,
    ToolNames,
    as_json,
    chat_url,
    error_text,
    explain_refusal,
    refused_field,
    request_fields,
)
from listenai.events import ToolSchema

WEATHER = ToolSchema("get_weather", "Tells the weather.", {"type": "object", "properties": {}})
SETTINGS = ChatSettings(temperature=0.3, max_tokens=99)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/api", "https://h/api/v1/chat/completions"),
        ("https://h/api/paas/v4", "https://h/api/paas/v4/chat/completions"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/x?api-version=1", "https://h/x/v1/chat/completions?api-version=1"),
    ],
)
def test_where_chats_are_completed(base: str, url: str) -> None:
    """A base URL works with /v1, without it, and with another version."""
    assert chat_url(base) == url


def test_a_whole_request() -> None:
    """Settings, tools and a history with a tool round, the system message first."""
    call = ToolCall("c1", "get_weather", '{"city": "北京"}')
    messages = [
        ChatMessage("user", "weather?"),
        ChatMessage("system", "Be brief."),
        ChatMessage("assistant", "", (call,)),
        ChatMessage("tool", '{"low": 1}', tool_call_id="c1"),
        ChatMessage("assistant", ""),  # says nothing: left out
        ChatMessage("assistant", "Cold."),
    ]
    fields = request_fields(messages, [WEATHER], SETTINGS, model="m", names=ToolNames([WEATHER]))
    assert json.loads(as_json(fields)) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.3,
        "max_tokens": 99,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "北京"}'},
                    }
                ],
            },
            {"role": "tool", "content": '{"low": 1}', "tool_call_id": "c1"},
            {"role": "assistant", "content": "Cold."},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Tells the weather.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    }


def test_without_tools_there_is_no_list_of_tools() -> None:
    """An empty list is an error with some servers."""
    fields = request_fields([], [], SETTINGS, model="m", names=ToolNames([]))
    assert "tools" not in fields


def test_fields_that_were_refused_are_left_out() -> None:
    """The limit of tokens then goes by its newer name."""
    fields = request_fields(
        [],
        [WEATHER],
        SETTINGS,
        model="m",
        names=ToolNames([WEATHER]),
        refused={"stream_options", "temperature", "max_tokens", "tools"},
    )
    assert fields == {"model": "m", "messages": [], "stream": True, "max_completion_tokens": 99}


@pytest.mark.parametrize("written", ["", "{oops", "[1]", "[" * 100_000])
def test_arguments_that_a_model_got_wrong_do_not_come_back(written: str) -> None:
    """Some servers fail on them, turns later."""
    messages = [ChatMessage("assistant", "", (ToolCall("c", "f", written),))]
    fields = request_fields(messages, [], SETTINGS, model="m", names=ToolNames([]))
    assert fields["messages"][0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_half_characters_are_sent_as_replacements() -> None:
    """A body can always be encoded."""
    fields = request_fields(
        [ChatMessage("user", "a\ud83d")], [], SETTINGS, model="m", names=ToolNames([])
    )
    assert json.loads(as_json(fields))["messages"][0]["content"] == "a\ufffd"


def test_names_of_tools_are_such_as_servers_take() -> None:
    """Different tools keep different names, and each finds its way back."""
    own = ["lamp.on", "lamp_on", "lamp:on", "灯", "x" * 64, "x" * 63 + "."]
    names = ToolNames([ToolSchema(name, "", {}) for name in own])
    sent = [names.sent(name) for name in own]
    assert len(set(sent)) == len(own)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in sent)
    assert [names.own(name) for name in sent] == own
    assert names.sent("not offered!") == "not_offered_"


# --- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b'{"error": {"message": "no\\n such  thing"}}', "no such thing"),
        (b'{"error": "plain"}', "plain"),
        (b'{"message": {"detail": [{"msg": "Extra inputs"}]}}', "Extra inputs"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b"<html>502</html>", ""),
        (b"{}", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_what_a_server_says_is_one_line(answer: bytes, told: str) -> None:
    """Whatever shape its explanation has."""
    assert error_text(answer) == told


def test_what_a_server_says_is_short() -> None:
    """A page of explanation is cut."""
    told = error_text(json.dumps({"error": {"message": "x" * 999}}).encode())
    assert len(told) == MAX_SAID
    assert told.endswith("…")


ALL = {"stream_options", "temperature", "max_tokens", "tools"}


@pytest.mark.parametrize(
    ("says", "sent", "field"),
    [
        ("Unknown parameter: 'stream_options'.", ALL, "stream_options"),
        ("'loc': ['body', 'stream_options'], 'Extra inputs are not permitted'", ALL, "stream_o"),
        ("'temperature' is not supported with this model", ALL, "temperature"),
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'",
            ALL,
            "max_tokens",
        ),
        ("gemma:2b does not support tools", ALL, "tools"),
        ("unexpected keyword in tools[0].parameters", ALL - {"stream_options"}, None),
        ("bad request", ALL, "stream_options"),  # it names none: the newest
        ("bad request", ALL - {"stream_options"}, None),
        ("max_tokens is too large", ALL - {"stream_options"}, None),
    ],
)
def test_the_field_that_a_server_does_not_know(
    says: str, sent: set[str], field: str | None
) -> None:
    """It is found in what real servers say."""
    found = refused_field(json.dumps({"error": says}).encode(), sent)
    assert found == field or (field and found and found.startswith(field))


@pytest.mark.parametrize(
    ("status", "says", "meaning"),
    [
        (401, "", "does not accept the key: check LLM_API_KEY"),
        (402, "pay", "no credit left"),
        (403, "region", "'m1' (status 403: region)"),
        (404, "The model `m1` does not exist", "the model 'm1' is not known at http://h: set LLM"),
        (404, 'model "m1" not found, try pulling it', "the model 'm1' is not known at http://h"),
        (400, "Model Not Exist", "the model 'm1' is not known"),
        (404, "", "no chat API at http://h: check LLM_BASE_URL"),
        (400, "context too long", "http://h refused the request (status 400: context too long)"),
        (307, "", "has moved"),
        (429, "slow", "too many requests (status 429: slow)"),
        (503, "", "http://h failed (status 503)"),
    ],
)
def test_what_a_status_means(status: int, says: str, meaning: str) -> None:
    """In words that a user can act on."""
    assert meaning in explain_refusal(status, says, model="m1", name="http://h")
