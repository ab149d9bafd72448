"""The client of OpenAI-compatible servers, against one on a real socket."""

from __future__ import annotations

import gc
import logging
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import openai_server
import pytest
import trio
from openai_server import (
    DONE,
    NEVER,
    NO_CHOICES,
    Answer,
    Behaviour,
    OpenAIServer,
    Sleep,
    calling,
    chunk,
    cutting,
    ending_early,
    failing,
    garbling,
    open_openai_server,
    refusing,
    saying,
    stalling,
    whole,
)

from listenai.engines.base import (
    ChatMessage,
    ChatModel,
    ChatSettings,
    ReplyPart,
    ReplyText,
    ReplyUsage,
    ToolCall,
)
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import FAILURES_TO_OPEN, REST_SECONDS, BreakerState, Upstream
from listenai.errors import ChatModelError, ConfigurationError
from listenai.events import ToolSchema

KEY = "sk-test-0123456789abcdef"
WEATHER = ToolSchema("get_weather", "Tells the weather.", {"type": "object", "properties": {}})
TOKEN_SECONDS, TOTAL_SECONDS = 10.0, 40.0


@pytest.fixture
def mock_time(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time that passes only while nothing moves; real sockets take part."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


@asynccontextmanager
async def chat_model(
    *urls: str, retries: int = 0, api_key: str = ""
) -> AsyncIterator[OpenAIChatModel]:
    """A model that asks these servers; without patience it tries each once."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield OpenAIChatModel(
            client,
            [Upstream(url) for url in urls],
            model="m1",
            random=random.Random(1),
            api_key=api_key,
            token_seconds=TOKEN_SECONDS,
            total_seconds=TOTAL_SECONDS,
            retries=retries,
        )
    gc.collect()  # a generator that nobody closed would warn now


async def ask(
    model: ChatModel, *messages: ChatMessage, tools: Sequence[ToolSchema] = ()
) -> list[ReplyPart]:
    """All parts of a reply."""
    asked = messages or (ChatMessage("user", "hello"),)
    async with model.open_reply(asked, tools, ChatSettings(0.3, 99)) as parts:
        return [part async for part in parts]


async def collect(
    model: ChatModel, parts: list[ReplyPart], settings: ChatSettings | None = None
) -> None:
    """Asks, and keeps what comes before it goes wrong."""
    question = [ChatMessage("user", "hello")]
    async with model.open_reply(question, [], settings or ChatSettings()) as reply:
        async for part in reply:
            parts.append(part)  # noqa: PERF401 - a comprehension would lose it all


async def meet(model: ChatModel, do: Callable[[], None]) -> None:
    """Asks, and does this at every part."""
    async with model.open_reply([ChatMessage("user", "hello")], [], ChatSettings()) as reply:
        async for _part in reply:
            do()


async def refused(model: ChatModel) -> str:
    """The words of the error that a reply ends with."""
    with pytest.raises(ChatModelError) as caught:
        await ask(model)
    assert not isinstance(caught.value, ExceptionGroup)
    assert caught.value.timed_out == ("sent nothing" in str(caught.value))
    return str(caught.value)


def said(parts: Sequence[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


@contextmanager
def nobody() -> Iterator[str]:
    """A URL that is kept from everyone, so that nobody answers there."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


# --- replies -----------------------------------------------------------------------------


async def test_a_reply_comes_token_by_token() -> None:
    """With what it cost at the end; the request has key, model, settings and messages."""
    async with (
        open_openai_server(api_key=KEY) as server,
        chat_model(server.url, api_key=KEY) as model,
    ):
        parts = await ask(model, ChatMessage("user", "hello"), tools=[WEATHER])
    assert parts == [ReplyText("Hello"), ReplyText(" there."), ReplyUsage(11, 7)]
    body = server.requests[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m1", 0.3, 99)
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert body["tools"][0]["function"]["name"] == "get_weather"
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


async def test_a_token_is_there_before_the_next_one_comes(
    mock_time: trio.testing.MockClock,
) -> None:
    """Nothing is gathered on the way."""
    async with (
        open_openai_server(saying("a b c", every=2)) as server,
        chat_model(server.url) as model,
    ):
        began = trio.current_time()
        times: list[float] = []
        await meet(model, lambda: times.append(trio.current_time() - began))
    assert [round(at) for at in times[:3]] == [4, 6, 8]  # the first chunk has no text


async def test_a_conversation_with_several_tools_in_one_reply() -> None:
    """Ids that a server does not give are made up, and the next request agrees with itself."""
    two = calling(
        ("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"}), ids=[None] * 2
    )
    async with open_openai_server(two, two) as server, chat_model(server.url) as model:
        history = [ChatMessage("user", "weather?")]
        for _ in range(2):
            calls = [part for part in await ask(model, *history) if isinstance(part, ToolCall)]
            history.append(ChatMessage("assistant", "", tuple(calls)))
            history += [ChatMessage("tool", "{}", tool_call_id=call.call_id) for call in calls]
        await ask(model, *history)
    assert [call.arguments for call in calls] == ['{"city": "Oslo"}', '{"city": "Rome"}']
    sent = server.requests[-1].body["messages"]
    asked = [call["id"] for message in sent for call in message.get("tool_calls", ())]
    assert asked == [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    assert len(set(asked)) == 4


async def test_replies_share_a_connection() -> None:
    """One that was read to its end is used again, though its last bytes come late."""
    late = Answer([*saying("a").steps, Sleep(0.01)])
    async with open_openai_server(usual=late) as server, chat_model(server.url) as model:
        for _ in range(3):
            await ask(model)
    assert len({asked.client_port for asked in server.requests}) == 1


async def test_one_json_document_instead_of_a_stream() -> None:
    """Is read as a reply."""
    async with open_openai_server(whole("Hi there.")) as server, chat_model(server.url) as model:
        assert await ask(model) == [ReplyText("Hi there."), ReplyUsage(11, 7)]


async def test_a_server_that_never_closes_its_answer(mock_time: trio.testing.MockClock) -> None:
    """The model has stopped: the reply ends a second later."""
    open_end = Answer([chunk({"content": "Hi"}), chunk(finish="stop"), Sleep()])
    async with open_openai_server(open_end) as server, chat_model(server.url) as model:
        began = trio.current_time()
        assert await ask(model) == [ReplyText("Hi")]
        assert trio.current_time() - began < 2
        await server.requests[0].left.wait()


async def test_a_cut_after_the_model_has_stopped() -> None:
    """Is no error: everything was said."""
    cut = Answer([chunk({"content": "Hi"}), chunk(finish="stop"), openai_server.Cut()])
    async with open_openai_server(cut) as server, chat_model(server.url) as model:
        assert await ask(model) == [ReplyText("Hi")]


# --- fields that a server refuses --------------------------------------------------------


@pytest.mark.parametrize("field", ["stream_options", "temperature", "max_tokens", "tools"])
async def test_a_refused_field_is_left_out_from_then_on(field: str) -> None:
    """The user notices nothing; the second reply needs one request only."""
    message = f"'{field}' is not supported with this model"
    async with (
        open_openai_server(refusing(400, message)) as server,
        chat_model(server.url) as model,
    ):
        for _ in range(2):
            assert said(await ask(model, tools=[WEATHER])) == "Hello there."
    assert [field in asked.body for asked in server.requests] == [True, False, False]


async def test_a_refusal_that_says_nothing_may_mean_the_newest_field() -> None:
    """It is tried without, and remembered because that worked."""
    async with open_openai_server(refusing(422, "bad")) as server, chat_model(server.url) as model:
        for _ in range(2):
            assert said(await ask(model)) == "Hello there."
    assert ["stream_options" in asked.body for asked in server.requests] == [True, False, False]


async def test_a_request_that_is_wrong_whatever_is_left_out() -> None:
    """The server's words are told, and nothing is remembered."""
    wrong = refusing(400, "the messages are too long")
    async with open_openai_server(wrong, wrong) as server, chat_model(server.url) as model:
        assert "too long" in await refused(model)
        await ask(model)
    assert "stream_options" in server.requests[-1].body


# --- errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (stalling("Well"), "sent nothing for 10 s"),
        (cutting("Well"), "broke the connection off"),
        (ending_early("Well"), "broke its reply off in the middle"),
        (garbling("Well"), "sent a chunk that is not JSON"),
        (failing("Well", "out of memory"), "reported an error: out of memory"),
    ],
    ids=["stalls", "is cut", "ends early", "garbles", "fails"],
)
async def test_a_reply_that_has_begun_and_goes_wrong(
    mock_time: trio.testing.MockClock, behaviour: Answer, problem: str
) -> None:
    """What came is heard, then the error is told; nothing is asked a second time."""
    async with open_openai_server(behaviour) as server, chat_model(server.url, retries=3) as model:
        parts: list[ReplyPart] = []
        with pytest.raises(ChatModelError, match=problem) as caught:
            await collect(model, parts)
        assert said(parts) == "Well"
        assert type(caught.value) is ChatModelError
        assert caught.value.timed_out == ("sent nothing" in problem)
        assert server.url in str(caught.value)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("settings", "problem", "seconds"),
    [
        (ChatSettings(token_seconds=5), "sent nothing for 5 s", 5),
        (ChatSettings(reply_seconds=3), "took longer than 3 s altogether", 3),
    ],
    ids=["token", "reply"],
)
async def test_a_reply_may_have_less_patience(
    mock_time: trio.testing.MockClock, settings: ChatSettings, problem: str, seconds: float
) -> None:
    """Than the model has for all of them."""
    async with open_openai_server(stalling("Well")) as server, chat_model(server.url) as model:
        began = trio.current_time()
        with pytest.raises(ChatModelError, match=problem) as caught:
            await collect(model, [], settings)
        assert caught.value.timed_out
        assert trio.current_time() - began == pytest.approx(seconds, abs=1)


async def test_a_server_that_only_keeps_the_connection_alive(
    mock_time: trio.testing.MockClock,
) -> None:
    """Comments are no tokens."""
    alive = Answer([step for _ in range(30) for step in (Sleep(1), b": processing\n\n")])
    async with open_openai_server(alive) as server, chat_model(server.url) as model:
        began = trio.current_time()
        assert "sent nothing for 10 s" in await refused(model)
        assert trio.current_time() - began == pytest.approx(TOKEN_SECONDS, abs=1)


async def test_a_model_that_thinks_aloud_is_waited_for(mock_time: trio.testing.MockClock) -> None:
    """Reasoning is not told, but it is progress."""
    thoughts = [step for _ in range(3) for step in (Sleep(9), chunk({"reasoning_content": "m"}))]
    slow = Answer([*thoughts, *saying("Done.").steps])
    async with open_openai_server(slow) as server, chat_model(server.url) as model:
        assert said(await ask(model)) == "Done."


async def test_a_model_that_thinks_for_ever(mock_time: trio.testing.MockClock) -> None:
    """The whole reply has a deadline."""
    thoughts = [step for _ in range(99) for step in (Sleep(9), chunk({"reasoning_content": "m"}))]
    async with open_openai_server(Answer(thoughts)) as server, chat_model(server.url) as model:
        began = trio.current_time()
        assert "within 40 s" in await refused(model)
        assert trio.current_time() - began == pytest.approx(TOTAL_SECONDS, abs=1)


async def test_the_consumers_time_is_not_the_servers(mock_time: trio.testing.MockClock) -> None:
    """A reply that is spoken while it is read may take longer than any deadline."""
    async with (
        open_openai_server(saying("a b c d", every=1)) as server,
        chat_model(server.url) as model,
        model.open_reply([ChatMessage("user", "x")], [], ChatSettings()) as parts,
    ):
        async for _part in parts:
            await trio.sleep(TOTAL_SECONDS)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (refusing(401, f"Incorrect API key provided: {KEY}"), "check LLM_API_KEY"),
        (refusing(403, f"{KEY} may not"), "does not allow this key to use the model 'm1'"),
        (refusing(404, "The model `m1` does not exist"), "the model 'm1' is not known at"),
        (refusing(404, "page not found"), "check LLM_BASE_URL"),
        (refusing(307), "has moved"),
        (refusing(429, "You exceeded your current quota"), "exceeded your current quota"),
        (NO_CHOICES, "its URL must be that of an OpenAI-compatible API"),
        (Answer([b"<html></html>"], media_type="text/html"), "OpenAI-compatible"),
        (Answer([chunk(finish="content_filter"), DONE]), "content filter"),
    ],
)
async def test_errors_say_what_to_do_and_never_the_key(answer: Answer, problem: str) -> None:
    """Whatever the server repeats of it."""
    async with open_openai_server(answer) as server, chat_model(server.url, api_key=KEY) as model:
        error = await refused(model)
    assert problem in error
    assert server.url in error
    assert KEY not in error
    assert "Incorrect" not in error, "what a server says of a wrong key may show it in part"
    assert "\n" not in error


async def test_an_account_without_quota_is_not_tried_again() -> None:
    """It is refused with the status of a limit, but no pause will help."""
    poor = refusing(429, "You exceeded your current quota")
    async with open_openai_server(usual=poor) as server, chat_model(server.url, retries=3) as model:
        assert "current quota" in await refused(model)
    assert len(server.requests) == 1


async def test_a_compressed_answer() -> None:
    """Would come in lumps, and was not asked for; the connection is closed."""
    packed = Answer([b"...", Sleep()], headers={"Content-Encoding": "gzip"})
    async with open_openai_server(packed) as server, chat_model(server.url) as model:
        assert "compresses its answers (gzip)" in await refused(model)
        with trio.fail_after(1):
            await server.requests[0].left.wait()


@pytest.mark.parametrize(
    ("key", "problem"), [("", "does not accept the key"), (KEY, "'m1' is not known at")]
)
async def test_a_wrong_key_and_an_unknown_model(key: str, problem: str) -> None:
    """As a server tells them that checks one after the other."""
    async with (
        open_openai_server(api_key=KEY, models=["m2"]) as server,
        chat_model(server.url, api_key=key) as model,
    ):
        assert problem in await refused(model)


async def test_nothing_that_was_said_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither by the user nor by the server, which may repeat it."""
    caplog.set_level(logging.DEBUG, "listenai")
    secret = "my pin is 1234"
    async with (
        open_openai_server(refusing(500, f"cannot say {secret}")) as server,
        chat_model(server.url) as model,
    ):
        with pytest.raises(ChatModelError):
            await ask(model, ChatMessage("user", secret))
    assert "outcome=broken" in caplog.text
    assert "1234" not in caplog.text


# --- again, and elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [refusing(500), refusing(503), refusing(429), cutting(""), failing("", "busy"), NO_CHOICES],
    ids=["500", "503", "429", "cut", "error", "no choices"],
)
async def test_what_may_pass_is_tried_again(
    mock_time: trio.testing.MockClock, failure: Answer
) -> None:
    """Before the first token, after a short pause."""
    silent = Answer(
        [step for step in failure.steps if step != chunk({"content": ""})], failure.status
    )
    async with (
        open_openai_server(silent, silent) as server,
        chat_model(server.url, retries=2) as model,
    ):
        began = trio.current_time()
        assert said(await ask(model)) == "Hello there."
        assert 0.2 < trio.current_time() - began < 1.5
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "failure",
    [
        refusing(500),
        refusing(401),
        refusing(404),
        refusing(429, retry_after="60"),
        NEVER,
        cutting(""),
    ],
    ids=["500", "401", "404", "429", "never answers", "is cut"],
)
async def test_another_server_is_asked_first(
    mock_time: trio.testing.MockClock, failure: Answer
) -> None:
    """Whatever is wrong with the first."""
    async with (
        open_openai_server(failure) as first,
        open_openai_server() as second,
        chat_model(first.url, f"{second.url}/v1", retries=2) as model,
    ):
        assert said(await ask(model)) == "Hello there."
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_a_server_that_is_not_there() -> None:
    """Is passed over; without another one, the error says where nobody was."""
    with nobody() as url:
        async with open_openai_server() as server, chat_model(url, server.url) as model:
            assert said(await ask(model)) == "Hello there."
        async with chat_model(url) as model:
            assert f"{url} cannot be reached" in await refused(model)


async def test_retry_after_is_obeyed(mock_time: trio.testing.MockClock) -> None:
    """When it is short enough for a user to wait."""
    limited = refusing(429, "slow down", retry_after="7")
    async with open_openai_server(limited) as server, chat_model(server.url, retries=1) as model:
        began = trio.current_time()
        await ask(model)
        assert trio.current_time() - began == pytest.approx(7, abs=0.5)


async def test_a_long_retry_after_is_told(mock_time: trio.testing.MockClock) -> None:
    """At once, and again for the next reply, without asking the server."""
    limited = refusing(429, "slow down", retry_after="60")
    async with open_openai_server(limited) as server, chat_model(server.url, retries=5) as model:
        began = trio.current_time()
        assert "asked again in 60 s" in await refused(model)
        await trio.sleep(20)
        assert "asked again in 40 s" in await refused(model)
        assert trio.current_time() - began < 22
        await trio.sleep(40)
        await ask(model)
    assert len(server.requests) == 2


async def test_all_attempts_together_have_a_deadline(mock_time: trio.testing.MockClock) -> None:
    """However many servers there are to be silent."""
    async with (
        open_openai_server(usual=NEVER) as server,
        chat_model(*[server.url] * 9, retries=9) as model,
    ):
        began = trio.current_time()
        assert "within 40 s" in await refused(model)
        assert trio.current_time() - began == pytest.approx(TOTAL_SECONDS, abs=1)


async def test_a_server_that_keeps_failing_rests(mock_time: trio.testing.MockClock) -> None:
    """It is not asked for a while; then one reply finds out that it is back."""
    async with (
        open_openai_server(*[refusing(500)] * FAILURES_TO_OPEN) as server,
        chat_model(server.url) as model,
    ):
        for _ in range(FAILURES_TO_OPEN):
            await refused(model)
        assert "asked again in" in await refused(model)
        assert len(server.requests) == FAILURES_TO_OPEN
        await trio.sleep(REST_SECONDS)
        assert said(await ask(model)) == "Hello there."


async def test_only_failures_in_a_row_count() -> None:
    """A whole reply in between, or one that was interrupted, shows that the server is well."""
    some = [refusing(500)] * (FAILURES_TO_OPEN - 1)
    script = [*some, saying("a b"), *some, saying("a b"), *some]
    async with open_openai_server(*script) as server, chat_model(server.url) as model:
        for _ in range(2):
            for _ in some:
                await refused(model)
            async with model.open_reply([ChatMessage("user", "x")], [], ChatSettings()) as parts:
                await anext(parts)
        for _ in some:
            await refused(model)
        assert said(await ask(model)) == "Hello there."


async def test_replies_at_the_same_time_do_not_mix() -> None:
    """Each has its own connection and its own words."""

    async def check(model: ChatModel, number: int) -> None:
        assert f"said: {number}." in said(await ask(model, ChatMessage("user", str(number))))

    async with (
        open_openai_server(usual=openai_server.echo) as server,
        chat_model(server.url) as model,
        trio.open_nursery() as nursery,
    ):
        for number in range(20):
            nursery.start_soon(check, model, number)


# --- leaving -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [NEVER, Answer([Sleep()]), stalling("Well"), saying("a b c d e f", every=5)],
    ids=["before the head", "before the first token", "in a stall", "between tokens"],
)
async def test_a_cancelled_reply_leaves_no_connection(
    mock_time: trio.testing.MockClock, behaviour: Behaviour
) -> None:
    """The server sees at once that nobody listens."""
    async with open_openai_server(behaviour) as server, chat_model(server.url) as model:
        with trio.move_on_after(7) as scope:
            await ask(model)
        assert scope.cancelled_caught
        with trio.fail_after(1):
            await server.requests[0].left.wait()


async def test_leaving_in_the_middle_leaves_no_connection() -> None:
    """A consumer that has heard enough stops the model."""
    async with open_openai_server(stalling("Well then")) as server, chat_model(server.url) as model:
        async with model.open_reply([ChatMessage("user", "x")], [], ChatSettings()) as parts:
            assert await anext(parts) == ReplyText("Well")
        with trio.fail_after(1):
            await server.requests[0].left.wait()
        gc.collect()


async def test_an_error_of_the_consumer_leaves_no_connection() -> None:
    """And it comes out as it is."""

    def fail() -> None:
        raise ZeroDivisionError

    async with open_openai_server(stalling("Well then")) as server, chat_model(server.url) as model:
        with pytest.raises(ZeroDivisionError):
            await meet(model, fail)
        with trio.fail_after(1):
            await server.requests[0].left.wait()


async def test_wherever_a_reply_is_cancelled_the_next_one_works() -> None:
    """After any number of steps: no connection stays open, no server stays shut out."""
    async with (
        open_openai_server(usual=saying("a b c d e f g h i j")) as server,
        chat_model(server.url) as model,
    ):
        for steps in range(0, 150, 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, model)
                for _ in range(steps):
                    await trio.testing.wait_all_tasks_blocked(0.0) if steps % 2 else None
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            with trio.fail_after(2):
                assert said(await ask(model)) == "a b c d e f g h i j"
        with trio.fail_after(2):
            await _all_over(server)


async def _all_over(server: OpenAIServer) -> None:
    """Until the server is done with every request, one way or the other."""
    for asked in server.requests:
        async with trio.open_nursery() as nursery:

            async def first(
                wait: Callable[[], Awaitable[None]], nursery: trio.Nursery = nursery
            ) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, asked.finished.wait)
            nursery.start_soon(first, asked.left.wait)


async def test_a_cancelled_probe_is_no_verdict(mock_time: trio.testing.MockClock) -> None:
    """A user who interrupts while a server is probed does not shut it out."""
    failures = [refusing(500)] * FAILURES_TO_OPEN
    async with open_openai_server(*failures, NEVER) as server, chat_model(server.url) as model:
        for _ in failures:
            await refused(model)
        await trio.sleep(REST_SECONDS)
        with trio.move_on_after(1):
            await ask(model)
        assert model.upstreams[0].state is BreakerState.OPEN
        assert said(await ask(model)) == "Hello there."


# --- what it is made with ----------------------------------------------------------------


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
async def test_a_key_that_no_header_can_have(key: str) -> None:
    """Is refused at the start, without being told."""
    with pytest.raises(ConfigurationError, match="key of the language model") as caught:
        async with chat_model("http://h", api_key=key):
            raise AssertionError
    assert key not in str(caught.value)


async def test_no_server_at_all() -> None:
    """Is a configuration that cannot work."""
    with pytest.raises(ConfigurationError, match="one base URL at least"):
        async with chat_model():
            raise AssertionError


# --- the stand-in as a process -----------------------------------------------------------


@asynccontextmanager
async def process(*options: str) -> AsyncIterator[tuple[str, trio.Process]]:
    """The stand-in in a process of its own: its URL, and itself."""
    script = Path(openai_server.__file__)
    async with trio.open_nursery() as nursery:
        running = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, str(script), *options],
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        with trio.fail_after(20):
            url = b""
            while not url.endswith(b"\n"):
                url += await running.stdout.receive_some()
        yield url.decode().strip(), running
        running.kill()


async def test_a_server_that_is_killed_in_the_middle() -> None:
    """Its client is told, and goes on."""
    options = ("--every", "0.05", "--tool", "get_weather", "--word", "weather")
    async with process(*options) as (url, server), chat_model(url) as model:
        assert said(await ask(model)) == "You said: hello."
        calls = await ask(model, ChatMessage("user", "the weather?"))
        assert calls == [ToolCall("call_1", "get_weather", "{}")]
        with pytest.raises(ChatModelError, match="broke the connection off"):
            await meet(model, partial(server.send_signal, signal.SIGKILL))
        await server.wait()
        assert "cannot be reached" in await refused(model)
