"""The LLM service as the official `openai` client sees it, through real sockets."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import httpx
import openai
import pytest
import trio
from fakes import FakeChatModel, call

from listenai.engines.base import ChatMessage, ChatModel, ReplyPart, ReplyText, ReplyUsage
from listenai.engines.embedded_chat import EmbeddedChatModel
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import Upstream
from listenai.errors import ChatModelError, ConfigurationError
from listenai.services.llm.protocol import ApiError, read_question
from listenai.services.llm.server import make_llm_app, serve_llm

MODEL = "gpt-3.5-turbo"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
HELLO = [{"role": "user", "content": "Hello there."}]
Answer = TypeVar("Answer")


@asynccontextmanager
async def serving(model: ChatModel, *, api_key: str = "", **options: Any) -> AsyncIterator[str]:
    """The service on a port of the kernel's choice; its base URL."""
    app = make_llm_app(model, api_key=api_key, model_names=[MODEL, "other"], **options)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(partial(serve_llm, app, port=0))
        with trio.fail_after(10):
            yield url
        nursery.cancel_scope.cancel()


async def ask(url: str, use: Callable[[openai.OpenAI], Answer], api_key: str = "any") -> Answer:
    """What the official client makes of the service, in a thread."""

    def run() -> Answer:
        with openai.OpenAI(base_url=url, api_key=api_key, max_retries=0, timeout=5) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


def complete(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **fields})


def stream(client: openai.OpenAI, **fields: Any) -> list[Any]:
    return list(complete(client, stream=True, **fields))


def answering(*parts: ReplyPart) -> FakeChatModel:
    return FakeChatModel(lambda _messages: parts, delay=0)


# --- answers -------------------------------------------------------------------------------


async def test_a_plain_answer() -> None:
    """Text, reason and usage, in the client's own types."""
    model = answering(ReplyText("Hello "), ReplyText("to you."), ReplyUsage(7, 3))
    async with serving(model) as url:
        answer = await ask(url, complete)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello to you.")
    assert choice.finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.model, answer.object) == (MODEL, "chat.completion")
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)


async def test_a_streamed_answer() -> None:
    """A chunk for each part, in order; usage comes last where it is asked for."""
    model = answering(ReplyText("Hello "), ReplyText("you."))
    async with serving(model) as url:
        chunks = await ask(url, stream)
        counted = await ask(url, partial(stream, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert [delta.content for delta in deltas] == ["", "Hello ", "you.", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    assert counted[-1].choices == []
    assert counted[-1].usage.completion_tokens == 2  # words, where the model does not count
    assert counted[-1].usage.prompt_tokens == 2


async def test_several_tool_calls() -> None:
    """Whole and streamed: each with its id, name, arguments and index."""
    parts = (call("get_weather", '{"city":"Paris"}', "c1"), call("get_weather", "{}", "c2"))
    async with serving(answering(*parts)) as url:
        answer = await ask(url, partial(complete, tools=[WEATHER]))
        chunks = await ask(url, partial(stream, tools=[WEATHER]))
        one = await ask(url, partial(complete, tools=[WEATHER], parallel_tool_calls=False))
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    calls = answer.choices[0].message.tool_calls
    told = [(each.id, each.function.name, each.function.arguments) for each in calls]
    assert told == [("c1", "get_weather", '{"city":"Paris"}'), ("c2", "get_weather", "{}")]
    streamed = [each for chunk in chunks for each in chunk.choices[0].delta.tool_calls or ()]
    assert [(each.index, each.id) for each in streamed] == [(0, "c1"), (1, "c2")]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert len(one.choices[0].message.tool_calls) == 1


async def test_the_model_sees_what_was_asked() -> None:
    """Messages, tools and settings; parts of text are joined, developers are the system."""
    model = answering(ReplyText("Ok."))
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "?"}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    more = {"temperature": 0.25, "max_tokens": 9, "top_p": 0.5, "user": "u", "seed": 1}
    async with serving(model) as url:
        await ask(url, partial(complete, messages=messages, tools=[WEATHER], **more))
        await ask(url, partial(complete, tools=[WEATHER], tool_choice="none"))
    assert model.asked[0][1] == [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "What?"),
        ChatMessage("assistant", "", (call("f", "{}", "c1"),)),
        ChatMessage("tool", "42", tool_call_id="c1"),
    ]
    assert model.tools[0][0].name == "get_weather"
    assert model.tools[0][0].parameters == WEATHER["function"]["parameters"]  # type: ignore[index]
    assert model.tools[1] == []
    assert (model.settings[0].temperature, model.settings[0].max_tokens) == (0.25, 9)


async def test_the_embedded_assistant_answers_and_calls_tools() -> None:
    """A whole round: question, tool call, result, spoken answer; and a limit that is reached."""
    question = [{"role": "user", "content": "what is the weather in london"}]
    async with serving(EmbeddedChatModel()) as url:
        asked = await ask(url, partial(complete, messages=question, tools=[WEATHER]))
        said = asked.choices[0].message
        assert json.loads(said.tool_calls[0].function.arguments)["city"].lower() == "london"
        result = {
            "role": "tool",
            "tool_call_id": said.tool_calls[0].id,
            "content": json.dumps({"error": "no network"}),
        }
        told = [*question, said.model_dump(exclude_none=True), result]
        answer = await ask(url, partial(complete, messages=told, tools=[WEATHER]))
        assert answer.choices[0].message.content
        cut = await ask(url, partial(complete, max_tokens=2))
    assert cut.choices[0].finish_reason == "length"
    assert len(cut.choices[0].message.content.split()) == 2


async def test_an_upstream_is_asked_for_us() -> None:
    """Our own client as the model behind the service: a service behind a service."""
    far = answering(ReplyText("From "), ReplyText("afar."), ReplyUsage(5, 2))
    async with serving(far) as upstream, httpx.AsyncClient() as client:
        near = OpenAIChatModel(client, [Upstream(upstream)], model=MODEL, random=random.Random(0))
        async with serving(near) as url:
            answer = await ask(url, complete)
    assert answer.choices[0].message.content == "From afar."
    assert answer.usage.total_tokens == 7


# --- errors --------------------------------------------------------------------------------


async def test_keys_are_checked() -> None:
    """Without and with a wrong key: AuthenticationError; the health needs none."""
    async with serving(answering(ReplyText("Hi.")), api_key="right") as url:
        with pytest.raises(openai.AuthenticationError, match="not the right one"):
            await ask(url, complete, "wrong")
        with pytest.raises(openai.AuthenticationError):
            await ask(url, lambda client: client.models.list(), "wrong")
        assert (await ask(url, complete, "right")).choices[0].message.content == "Hi."
        async with httpx.AsyncClient() as client:
            nobody = await client.post(f"{url}/chat/completions", json={})
            health = await client.get(url.replace("/v1", "/health"))
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "missing_api_key")
    assert health.json() == {"status": "ok", "models": [MODEL, "other"], "replies": 0}


async def test_models_are_listed() -> None:
    """All of them, one of them, and none that is not there."""
    async with serving(answering()) as url:
        listed = await ask(url, lambda client: client.models.list())
        assert [model.id for model in listed.data] == [MODEL, "other"]
        assert (await ask(url, lambda client: client.models.retrieve("other"))).id == "other"
        with pytest.raises(openai.NotFoundError, match=r"choose one of gpt-3\.5-turbo, other"):
            await ask(url, lambda client: client.models.retrieve("gpt-9"))
        with pytest.raises(openai.NotFoundError, match=r"gpt-9.*does not exist"):
            await ask(url, partial(complete, model="gpt-9"))


async def test_a_model_that_fails_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Before the first word a 502 in the model's words; afterwards an error in the stream.

    Each is logged.
    """
    fail = ChatModelError("the upstream is down")
    async with serving(FakeChatModel("", fail=fail)) as url:
        with pytest.raises(openai.InternalServerError, match="the upstream is down") as raised:
            await ask(url, complete)
        assert raised.value.status_code == 502
        with pytest.raises(openai.InternalServerError, match="the upstream is down"):
            await ask(url, stream)
    async with serving(FakeChatModel("One two", fail=fail)) as url:
        with pytest.raises(openai.APIError, match="the upstream is down"):
            await ask(url, stream)
    logged = [line for line in caplog.messages if line.startswith("llm_failed")]
    assert logged == [f"llm_failed: began={began}" for began in (False, False, True)]


async def test_a_bug_is_a_500_in_json() -> None:
    """The client gets an error it can read; the service goes on."""
    async with serving(FakeChatModel("", fail=RuntimeError("a bug"))) as url:
        with pytest.raises(openai.InternalServerError, match="its log says why"):
            await ask(url, complete)
        await ask(url, lambda client: client.models.list())


async def test_bad_requests_are_told() -> None:
    """In OpenAI's format, with the field."""
    async with serving(answering(ReplyText("Hi."))) as url:
        with pytest.raises(openai.BadRequestError, match=r"temperature.*from 0 to 2") as raised:
            await ask(url, partial(complete, temperature=3))
        assert (raised.value.param, raised.value.type) == ("temperature", "invalid_request_error")
        async with httpx.AsyncClient() as client:
            there = f"{url}/chat/completions"
            assert (await client.post(there, content=b"{")).status_code == 400
            assert (await client.post(there, content=b" " * (5 << 20))).status_code == 413
            assert (await client.get(there)).json()["error"]["type"] == "invalid_request_error"
            assert (await client.get(url + "/x")).status_code == 404


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "'model' must be the name of a model"),
    ({"messages": []}, "'messages' must be a list of one message at least"),
    ({"messages": ["Hi"]}, "'messages[0]' must be an object"),
    ({"messages": [{"role": "robot", "content": ""}]}, "'messages[0].role' must be one of"),
    ({"messages": [{"role": "user"}]}, "'messages[0].content' must be text, or a list"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "'messages[0].content[0]' must be a part of type 'text'",
    ),
    (
        {"messages": [{"role": "tool", "tool_call_id": "c1", "content": ""}]},
        "'messages[0].tool_call_id' must be the id of a call",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": 1, "function": {}}]}]},
        "'messages[0].tool_calls[0]' must have texts",
    ),
    ({"max_tokens": 0}, "'max_tokens' must be a whole number from 1 to"),
    ({"max_completion_tokens": 1.5}, "'max_completion_tokens' must be a whole number"),
    ({"temperature": True}, "'temperature' must be a number from 0 to 2, not true"),
    ({"stream": "yes"}, "'stream' must be true or false"),
    ({"stream_options": {"include_usage": True}}, "may be given with 'stream': true only"),
    ({"n": 2}, "'n' must be 1"),
    ({"stop": ["x"]}, "'stop' is not supported"),
    ({"tool_choice": "required"}, "'tool_choice' must be 'auto' or 'none'"),
    ({"response_format": {"type": "json_object"}}, "must be {'type': 'text'}"),
    ({"tools": [{"type": "search"}]}, "'tools[0]' must be an object of type 'function'"),
    ({"tools": [WEATHER, WEATHER]}, "'tools' must have different names"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "'tools[0].function.name' must be 1 to 64",
    ),
]


@pytest.mark.parametrize(
    ("fields", "problem"), REFUSED, ids=[str(each[0])[:40] for each in REFUSED]
)
def test_what_is_no_question_is_told(fields: dict[str, Any], problem: str) -> None:
    """The error names the field and what is allowed."""
    body = json.dumps({"model": MODEL, "messages": HELLO} | fields).encode()
    with pytest.raises(ApiError) as raised:
        read_question(body, [MODEL])
    assert problem in str(raised.value)
    assert raised.value.status == 400


def test_nulls_and_unknown_fields_are_passed_over() -> None:
    """OpenAI's clients send many."""
    names = "temperature max_tokens stream stream_options tools tool_choice n stop response_format"
    body = {"model": MODEL, "messages": HELLO, **dict.fromkeys(names.split()), "new_field": [1]}
    question = read_question(json.dumps(body).encode(), [MODEL])
    assert question.messages == (ChatMessage("user", "Hello there."),)
    assert not question.stream


@pytest.mark.parametrize("body", [b"\xff", b"[" * 100_000, b'"\\ud800"', b'{"a":NaN}', b"[]"])
def test_what_is_no_json_object_is_told(body: bytes) -> None:
    """Whatever the bytes are."""
    with pytest.raises(ApiError, match="the body"):
        read_question(body, [MODEL])


# --- who leaves, and who is one too many ---------------------------------------------------


@attrs.define
class EndlessModel:
    """Speaks until it is stopped; knows how many are speaking."""

    alive: int = 0
    first: bool = True
    news: trio.Event = attrs.field(factory=trio.Event)

    @asynccontextmanager
    async def open_reply(
        self, messages: Sequence[ChatMessage], tools: Any, settings: Any
    ) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        self.alive += 1
        self._tell()
        try:
            async with aclosing(self._parts()) as parts:
                yield parts
        finally:
            self.alive -= 1
            self._tell()

    async def _parts(self) -> AsyncGenerator[ReplyPart]:
        if self.first:
            yield ReplyText("And ")
        await trio.sleep_forever()

    def _tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def wait(self, alive: int) -> None:
        while self.alive != alive:
            await self.news.wait()


@pytest.mark.parametrize("streams", [True, False])
async def test_a_client_that_leaves_stops_the_model(streams: bool) -> None:
    """In mid stream, and while it waits for a whole answer."""
    model = EndlessModel(first=streams)
    body = {"model": MODEL, "messages": HELLO, "stream": streams}
    async with serving(model) as url, httpx.AsyncClient() as client:
        async with trio.open_nursery() as nursery:

            async def post() -> None:
                async with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
                    async for _line in answer.aiter_lines():
                        pass

            nursery.start_soon(post)
            await model.wait(1)
            nursery.cancel_scope.cancel()
        await model.wait(0)


async def test_too_many_replies_at_a_time_are_refused() -> None:
    """429, and room again when one has ended."""
    model = EndlessModel()
    async with serving(model, max_replies=1) as url, httpx.AsyncClient() as client:
        body = {"model": MODEL, "messages": HELLO, "stream": True}
        async with client.stream("POST", f"{url}/chat/completions", json=body):
            with pytest.raises(openai.RateLimitError, match="try again"):
                await ask(url, complete)
        await model.wait(0)
        async with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
            assert answer.status_code == 200


async def test_a_service_stops_gracefully() -> None:
    """Replies that are being made have their time."""
    stop = trio.Event()
    app = make_llm_app(FakeChatModel("One two three", delay=0.05), api_key="", model_names=[MODEL])
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(partial(serve_llm, app, port=0, stop=stop))
        answers: list[Any] = []

        async def keep() -> None:
            answers.append(await ask(url, complete))

        nursery.start_soon(keep)
        await trio.sleep(0.1)
        stop.set()
    assert answers[0].choices[0].message.content == "One two three "


async def test_a_port_in_use_is_told() -> None:
    """With what can be done about it."""
    async with serving(answering()) as url:
        port = int(url.split(":")[2].removesuffix("/v1"))
        app = make_llm_app(answering(), api_key="", model_names=[MODEL])
        with pytest.raises(ConfigurationError, match=f"port {port}.*choose another port"):
            await serve_llm(app, port=port)


def test_a_service_has_a_model() -> None:
    """Nobody could ask it otherwise."""
    with pytest.raises(ConfigurationError, match="name of one model"):
        make_llm_app(answering(), api_key="", model_names=[])
