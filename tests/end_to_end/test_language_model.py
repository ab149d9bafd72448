"""The language model behind an OpenAI-compatible API, from a device's question to its sound."""

from __future__ import annotations

import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from end_to_end_assistant import (
    open_assistant,
    open_processes,
    spoken_text,
    start_assistant,
    start_model,
)
from end_to_end_server import TEXTS, recording
from openai_server import (
    NEVER,
    NO_CHOICES,
    Answer,
    Asked,
    calling,
    cutting,
    ending_early,
    failing,
    garbling,
    open_openai_server,
    refusing,
    saying,
    stalling,
)
from served import Served, serving_engines

from listenai.app import open_engines
from listenai.app.choices import Choice
from listenai.client.device import Device
from listenai.client.turns import Reply
from listenai.config import Config
from listenai.engines.openai_chat import OpenAIChatModel
from listenai.engines.upstreams import Upstream

pytestmark = pytest.mark.engines

EXCUSE = "Sorry, I cannot answer right now."
TOKEN_SECONDS = 1.0  # of silence, before a server is given up


async def ask(device: Device, text: str) -> Reply:
    """The answer to a typed question, which was heard."""
    await device.type_text(text)
    return await device.wait_reply(30)


# --- a reply -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_spoken_question_is_answered_while_the_model_still_writes():
    """Its words go to the model with our prompt; the first sentence is heard before the last came;
    what it cost is counted."""
    answer = "It is noon. " + " ".join(["And the bells ring in the village."] * 3)
    async with (
        open_openai_server(usual=saying(answer, every=0.15, cost=(31, 12))) as model,
        open_assistant(llm_base_url=(model.url,), llm_model="stand-in", llm_api_key="k") as server,
        Device.connect(server.ws) as device,
    ):
        await device.speak(recording("what_time_is_it.wav"))
        reply = await device.wait_reply()
        assert not device.log.violations
        [asked] = model.requests
        assert reply.transcript == TEXTS["what_time_is_it.wav"] == asked.last_text
        assert asked.headers["authorization"] == "Bearer k"
        wanted = {"model": "stand-in", "stream": True, "temperature": 0.7, "max_tokens": 2048}
        assert wanted.items() <= asked.body.items()
        assert [message["role"] for message in asked.body["messages"]] == ["system", "user"]
        assert {tool["function"]["name"] for tool in asked.body["tools"]} == {
            "get_weather",
            "set_volume",
            "play_music",
        }
        assert reply.text == answer
        assert reply.audible
        assert spoken_text(reply) == answer
        assert reply.metrics["first_audio_ms"] < reply.metrics["text_done_ms"] - 1000
        assert not reply.errors
        counted = await server.metrics()
        assert counted['listenai_llm_tokens_total{kind="prompt"}'] == 31
        assert counted['listenai_llm_tokens_total{kind="completion"}'] == 12


async def test_tools_run_side_by_side_and_their_results_keep_the_calls_order():
    """Two of the device, answered the other way round, and one of the server."""
    empty = {"type": "object", "properties": {}}
    own = [{"name": n, "description": n, "parameters": empty} for n in ("open_door", "make_tea")]
    calls = calling(("open_door", {}), ("set_volume", {"level": 80}), ("make_tea", {}))
    async with (
        open_openai_server(calls, saying("All done.")) as model,
        open_assistant(llm_base_url=(model.url,)) as server,
        Device.connect(server.ws, device_tools=own) as device,
    ):
        await device.type_text("do it all")

        def called() -> list[str]:
            return [e.message["call_id"] for e in device.log.events if e.type == "tool_call"]

        await device.wait_until(lambda: len(called()) == 3)  # all of them, and none has returned
        for call_id, result in (("call_3", "tea"), ("call_1", "open")):
            await device.send({"type": "tool_result", "call_id": call_id, "result": result})
            await device.wait_until(
                lambda call_id=call_id: any(
                    run.call_id == call_id and run.ok for run in device.log.turns[1].tools
                )
            )
        reply = await device.wait_reply()
        assert {(run.name, run.target) for run in reply.tools} == {
            ("open_door", "device"),
            ("set_volume", "server"),
            ("make_tea", "device"),
        }
        assert spoken_text(reply) == "All done."
        [_, second] = model.requests
        *_, call, first, volume, tea = second.body["messages"]
        assert [each["id"] for each in call["tool_calls"]] == ["call_1", "call_2", "call_3"]
        assert [m["tool_call_id"] for m in (first, volume, tea)] == ["call_1", "call_2", "call_3"]
        assert [first["content"], tea["content"]] == ['"open"', '"tea"']
        assert '"level": 80' in volume["content"]


# --- faults --------------------------------------------------------------------------------

FAULTS = {
    "it never answers": NEVER,
    "it answers without a reply": NO_CHOICES,
    "it stops in mid sentence": stalling("One two"),
    "it is cut off": cutting("One two"),
    "it ends too early": ending_early("One two"),
    "it sends no JSON": garbling("One two"),
    "it reports an error": failing("One two", "out of memory"),
    "the key is wrong": refusing(401),
    "the path is wrong": refusing(404),
    "the request is wrong": refusing(400),
    "too many requests, for a minute": refusing(429, retry_after="60"),
    "it is broken": refusing(500),
    "it is starting": refusing(503),
    "only tools, for ever": calling(("set_volume", {"level": 50})),
}


@asynccontextmanager
async def failing_assistant(fault: Answer, shared: object) -> AsyncIterator[Served]:
    """A server whose model fails at "fail", with engines that others use too."""

    def behave(asked: Asked) -> Answer:
        asks_for_it = [m for m in asked.body["messages"] if m["role"] == "user"][-1]["content"]
        return fault if asks_for_it == "fail" else saying("Well again.")

    async with open_openai_server(usual=behave) as model, httpx.AsyncClient() as client:
        chat_model = OpenAIChatModel(
            client,
            [Upstream(model.url)],
            model="stand-in",
            random=random.Random(0),
            token_seconds=TOKEN_SECONDS,
        )
        engines = attrs.evolve(shared, chat_model=chat_model)
        async with serving_engines(Config(host="127.0.0.1", port=0), engines) as server:
            yield server


@pytest.mark.slow
async def test_every_fault_is_told_and_excused_aloud_and_the_next_turn_works():
    """LLM_ERROR in words for the user, a short line that is heard, and then all is well."""

    async def check(name: str, fault: Answer, shared: object) -> None:
        async with (
            failing_assistant(fault, shared) as server,
            Device.connect(server.ws) as device,
        ):
            began = trio.current_time()
            reply = await ask(device, "fail")
            assert [error["code"] for error in reply.errors] == ["LLM_ERROR"], name
            assert len(reply.errors[0]["message"]) > 20, name
            assert spoken_text(reply).endswith(EXCUSE), name
            assert reply.text.endswith(EXCUSE + " "), name
            assert reply.audible, name
            assert reply.first_sound_at - began < TOKEN_SECONDS + 4, name
            if fault.status != 429:  # which has said when to come back
                assert spoken_text(await ask(device, "hello")) == "Well again.", name
            assert not device.log.violations, name

    async with open_engines() as shared, trio.open_nursery() as nursery:
        for name, fault in FAULTS.items():
            nursery.start_soon(check, name, fault, shared)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_model_that_dies_or_freezes_in_mid_answer(blow: int, tmp_path: Path):
    """Told within its timeout and excused aloud; the next turn on the same connection works once
    it is back on its port.  Both are processes, and the server logs nothing of what was said."""
    log = tmp_path / "log"
    async with open_processes() as processes:
        model, url = await start_model(processes, log, "--every", "0.15")
        settings = {"LLM_BASE_URL": url, "LLM_TOKEN_TIMEOUT": str(TOKEN_SECONDS)}
        server, printed = await start_assistant(processes, log, **settings)
        assert f"language model: gpt-3.5-turbo at {url} (LLM_BASE_URL)\n" in printed
        async with Device.connect(server.ws) as device:
            await device.type_text("One two three. " + "Four five six seven. " * 4)
            await device.wait_sound()
            struck = trio.current_time()
            model.send_signal(blow)
            error = await device.wait_event("error")
            assert error.message["code"] == "LLM_ERROR"
            assert error.at - struck < TOKEN_SECONDS + 0.5
            reply = await device.wait_reply()
            assert reply.text.startswith("You said: One two three.")
            assert spoken_text(reply).endswith(EXCUSE)
            if blow == signal.SIGSTOP:
                model.send_signal(signal.SIGCONT)
            else:
                await model.wait()
                await start_model(processes, log, "--port", url.rpartition(":")[2])
            assert spoken_text(await ask(device, "hello")) == "You said: hello."
            await device.speak(recording("what_time_is_it.wav"))
            assert spoken_text(await device.wait_reply()) == "You said: what time is it."
            assert not device.log.violations
    logged = log.read_text("utf-8")
    assert "LLM_ERROR" in logged
    assert "seven" not in logged


# --- which server --------------------------------------------------------------------------


async def test_another_server_takes_over(unused_url: str):
    """Where nobody listens, and where the first fails: nobody hears of it."""
    async with (
        open_openai_server(usual=refusing(503)) as broken,
        open_openai_server(usual=saying("I am the third.")) as good,
        open_assistant(llm_base_url=(unused_url, broken.url, good.url)) as server,
        Device.connect(server.ws) as device,
    ):
        for _ in range(2):
            reply = await ask(device, "hello")
            assert spoken_text(reply) == "I am the third."
            assert not reply.errors


@pytest.fixture
def unused_url() -> Iterator[str]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


async def chosen(**settings: object) -> str:
    """Which language model the server says that it takes, and why."""
    told: list[Choice] = []
    async with open_assistant(tell=told.append, **settings):
        [choice] = [choice for choice in told if choice.stage == "language model"]
        return f"{choice.engine} ({choice.reason})"


async def test_servers_that_are_named_are_taken():
    """In their order, and nothing else is looked for."""
    urls = ("http://127.0.0.1:9/v1", "http://127.0.0.1:99")
    wanted = "stand-in at http://127.0.0.1:9/v1, then http://127.0.0.1:99 (LLM_BASE_URL)"
    assert await chosen(llm_base_url=urls, llm_model="stand-in") == wanted


async def test_the_embedded_assistant_is_chosen_where_it_is_asked_for():
    """It, and not the server that is named as well."""
    told = await chosen(llm_engine="embedded", llm_base_url=("http://127.0.0.1:9",))
    assert told == "the embedded assistant (LLM_ENGINE=embedded)"


@pytest.mark.parametrize(
    ("models", "settings", "wanted"),
    [
        (["qwen3:4b", "llama3.2"], {}, "qwen3:4b at {url} (no LLM_BASE_URL, but this Ollama "),
        (["qwen3:4b"], {"llm_model": "phi4"}, "phi4 at {url} (no LLM_BASE_URL, but this Ollama "),
        (["nomic-embed-text"], {}, "the embedded assistant (the Ollama on this machine has no mo"),
        (None, {}, "the embedded assistant (no LLM_BASE_URL, and no Ollama answers on this machi"),
    ],
)
async def test_an_ollama_on_this_machine_is_found_or_not(
    models: Sequence[str] | None,
    settings: Mapping[str, str],
    wanted: str,
    unused_url: str,
):
    """With its first chat model, unless another is named; the reason is told."""
    async with ollama(models) if models else nobody(unused_url) as url:
        assert (await chosen(ollama_url=url, **settings)).startswith(wanted.format(url=url))


@asynccontextmanager
async def nobody(url: str) -> AsyncIterator[str]:
    yield url


@asynccontextmanager
async def ollama(models: Sequence[str]) -> AsyncIterator[str]:
    """Lists these models to whoever asks."""
    body = json.dumps({"models": [{"name": name} for name in models]}).encode()

    async def answer(stream: trio.SocketStream) -> None:
        request = await stream.receive_some()
        assert request.startswith(b"GET /api/tags ")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)

    async with trio.open_nursery() as nursery:
        serve_one = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve_one)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
