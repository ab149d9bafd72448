"""Azure OpenAI and Groq, against stand-ins on real sockets."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from azure_server import CHAT_PATH, DEPLOYMENT, KEY, AzureServer, open_azure_server, refused
from openai_server import DONE, Answer, Cut, chunk, event, open_openai_server, saying, usage

from listenai.engines.base import (
    ChatMessage,
    ChatModel,
    ChatSettings,
    ReplyPart,
    ReplyText,
    ReplyUsage,
    ToolCall,
)
from listenai.engines.hosted_chat import (
    AZURE_API_VERSION,
    GROQ_MODEL,
    azure_chat_url,
    groq_chat_model,
    open_azure_chat_model,
)
from listenai.errors import ChatModelError, ConfigurationError
from listenai.events import ToolSchema

QUESTION = [ChatMessage("user", "Hello?")]


@asynccontextmanager
async def azure(
    server: AzureServer, key: str = KEY, deployment: str = DEPLOYMENT
) -> AsyncIterator[ChatModel]:
    async with open_azure_chat_model(
        server.url, key, deployment=deployment, random=random.Random(1)
    ) as model:
        yield model
    gc.collect()  # a generator that nobody closed would warn now


async def reply(model: ChatModel, tools: Sequence[ToolSchema] = ()) -> list[ReplyPart]:
    async with model.open_reply(QUESTION, tools, ChatSettings()) as parts:
        return [part async for part in parts]


async def failing(model: ChatModel) -> str:
    with pytest.raises(ChatModelError) as caught:
        await reply(model)
    cause = caught.value.__cause__
    if isinstance(cause, ChatModelError):  # in other words, and else the same
        assert caught.value.timed_out == cause.timed_out
    return str(caught.value)


# --- Azure -------------------------------------------------------------------------------


async def test_a_deployment_streams_its_reply() -> None:
    """At its path, with the version and the key in its own header; Azure's extras do no harm."""
    filtered = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    steps = [event(filtered), chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"})]
    answer = Answer([*steps, chunk({"content": " you"}), chunk(finish="stop"), usage(9, 2), DONE])
    async with open_azure_server(answer) as server, azure(server) as model:
        assert await reply(model) == [ReplyText("Hi"), ReplyText(" you"), ReplyUsage(9, 2)]
    [request] = server.requests
    assert request.path == CHAT_PATH.format(deployment=DEPLOYMENT)
    assert request.query == {"api-version": AZURE_API_VERSION}
    assert request.body["stream"] is True
    assert request.body["messages"] == [{"role": "user", "content": "Hello?"}]


async def test_a_deployment_calls_tools() -> None:
    """As every server of this API."""
    tool = ToolSchema("weather", "Tells the weather.", {"type": "object", "properties": {}})
    function = {"name": "weather", "arguments": "{}"}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    answer = Answer([chunk({"tool_calls": [call]}), chunk(finish="tool_calls"), DONE])
    async with open_azure_server(answer) as server, azure(server) as model:
        assert await reply(model, [tool]) == [ToolCall("c1", "weather", "{}")]
    assert server.requests[0].body["tools"][0]["function"]["name"] == "weather"


async def test_advice_names_azures_variables() -> None:
    """The key is not told."""
    wrong = "fedcba9876543210fedcba9876543210"
    async with open_azure_server() as server:
        async with azure(server, wrong) as model:
            said = await failing(model)
            assert "does not accept the key: check AZURE_OPENAI_KEY (status 401)" in said
            assert wrong not in said
        async with azure(server, deployment="gone") as model:
            said = await failing(model)
    assert "AZURE_OPENAI_ENDPOINT, and LLM_MODEL, the name of the deployment" in said
    assert "The API deployment for this resource does not exist." in said
    assert "LLM_BASE_URL" not in said


async def test_a_filtered_question_is_an_error() -> None:
    """With Azure's own words."""
    answer = refused(400, "content_filter", "The response was filtered")
    async with open_azure_server(answer, answer) as server, azure(server) as model:
        assert "The response was filtered" in await failing(model)


async def test_a_reply_that_breaks_off_is_an_error() -> None:
    """Once it has begun, nobody is asked again."""
    answer = Answer([chunk({"content": "Hi"}), Cut()])
    async with open_azure_server(answer) as server, azure(server) as model:
        assert "broke the connection off" in await failing(model)
    assert len(server.requests) == 1


async def test_who_does_not_want_the_reply_hangs_up() -> None:
    """In mid reply."""
    answer = saying("one two three four", every=5.0)
    async with open_azure_server(answer) as server, azure(server) as model:
        with trio.move_on_after(0.2):
            await reply(model)
        with trio.fail_after(5):
            await server.requests[0].left.wait()


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (
            "https://x.openai.azure.com/",
            "https://x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=1",
        ),
        (
            "https://x.openai.azure.com/openai",
            "https://x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=1",
        ),
        ("https://x.openai.azure.com/openai/v1/", "https://x.openai.azure.com/openai/v1/"),
        (
            "https://g/a/chat/completions?api-version=2",
            "https://g/a/chat/completions?api-version=2",
        ),
    ],
)
def test_endpoints_as_people_write_them(endpoint: str, url: str) -> None:
    """Also those that say all of it, and the one without versions."""
    assert azure_chat_url(endpoint, "my gpt", "1") == url


@pytest.mark.parametrize(
    ("endpoint", "key", "told"),
    [
        ("https://x", "", "AZURE_OPENAI_KEY: must be"),
        ("x.openai.azure.com", KEY, "AZURE_OPENAI_ENDPOINT=.*like https://NAME"),
    ],
)
async def test_what_can_be_no_resource_is_told(endpoint: str, key: str, told: str) -> None:
    """Before anybody is asked."""
    opening = open_azure_chat_model(endpoint, key, deployment="d", random=random.Random(1))
    with pytest.raises(ConfigurationError, match=told):
        async with opening:
            pytest.fail("there is no such resource")


# --- Groq --------------------------------------------------------------------------------


async def test_groq_is_an_address_a_key_and_a_model() -> None:
    """Spec 002's model by default; advice names Groq's variables."""
    async with (
        open_openai_server(api_key="gsk_1234567890", models=[GROQ_MODEL]) as server,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        url = f"{server.url}/v1"
        model = groq_chat_model(client, "gsk_1234567890", random=random.Random(1), url=url)
        parts = await reply(model)
        other = groq_chat_model(
            client, "gsk_1234567890", random=random.Random(1), url=url, model="gone"
        )
        wrong = groq_chat_model(client, "gsk_0987654321", random=random.Random(1), url=url)
        unknown, refusal = await failing(other), await failing(wrong)
    assert "".join(part.text for part in parts if isinstance(part, ReplyText)) == "Hello there."
    assert server.requests[0].body["model"] == "llama3-8b-8192"
    assert "'gone' is not known" in unknown
    assert "set LLM_MODEL" in unknown
    assert "check GROQ_API_KEY" in refusal
    assert "gsk_0987654321" not in refusal
