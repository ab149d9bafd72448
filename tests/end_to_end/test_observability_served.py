"""What a server tells of itself while devices talk to it: metrics, logs, traces."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trio
from fakes import FakeChatModel, FakeSynthesizer, call
from openai_server import (
    Answer,
    Asked,
    calling,
    failing,
    open_openai_server,
    refusing,
    saying,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from served import SECONDS, Peer, begun, connected, served, server_process, words_in
from trio.testing import wait_all_tasks_blocked

from listenai.engines.base import ChatMessage, ReplyPart, ReplyText, ReplyUsage
from listenai.errors import ChatModelError

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]


# --- metrics ---------------------------------------------------------------------------------


class ScriptedMind(FakeChatModel):
    """Calls a tool, fails, or answers, by what was said last; and tells what it cost."""

    told_costs = 0  # so often

    def _parts(self, messages: Sequence[ChatMessage]) -> Sequence[ReplyPart]:
        last = messages[-1]
        self.fail = ChatModelError("no mind today") if "fail" in last.content else None
        if last.role == "user" and "louder" in last.content:
            return [call("set_volume", '{"level": 50}')]
        if last.role == "user" and "unheard of" in last.content:
            return [call("unheard_of")]
        text = "One two three." + " On and on." * ("long" in last.content)
        return [ReplyText(text), ReplyUsage(30, 4)]

    async def _stream(self, parts: Sequence[ReplyPart]) -> AsyncGenerator[ReplyPart]:
        async with aclosing(super()._stream(parts)) as stream:
            async for part in stream:  # who is interrupted does not take the last
                self.told_costs += isinstance(part, ReplyUsage)
                yield part


async def script(peer: Peer) -> None:
    """Everything that a connection can do, one after the other."""
    await peer.send("configure", end_of_turn_ms=0, system_prompt="Be polite.")
    await peer.turn("hello", 1)
    await peer.turn("louder", 2)
    await peer.turn("something unheard of", 3)
    await peer.turn("fail", 4)
    # Spoken, and over a reply: it is paused, flushed, and the next turn begins.
    await peer.send("text", text="a long one")
    await peer.until("tts_audio", state="start")
    await peer.speak("no.wav")
    await peer.until("interrupted", turn_id=5)
    await peer.until("turn_metrics", turn_id=6)
    # The button, and a text over a reply.
    await peer.send("text", text="a long one")
    await peer.until("tts_audio", state="start")
    await peer.send("interrupt")
    await peer.until("turn_metrics", turn_id=7)
    await peer.send("text", text="a long one")
    await peer.until("tts_audio", state="start")
    await peer.turn("short", 9)
    await peer.send_raw("nonsense")
    await peer.send("sing")
    await peer.send("start_session")
    await peer.send("ping", id="last")
    await peer.until("pong", id="last")


def expected(peers: Sequence[Peer], dialect: str = "ListenAI") -> Counter[str]:
    """Every counter, from what the devices saw."""
    counts: Counter[str] = Counter()
    for peer in peers:
        counts[f'connections_opened_total{{dialect="{dialect}"}}'] += 1
        counts['connections_closed_total{code="1000"}'] += 1  # they said goodbye
        counts['messages_total{direction="in"}'] += peer.sent_messages
        counts['message_bytes_total{direction="in"}'] += peer.sent_bytes
        counts['messages_total{direction="out"}'] += len(peer.got)
        counts['message_bytes_total{direction="out"}'] += peer.got_bytes
        for ready in peer.all("status", state="ready"):
            kind = "restored" if ready["restored"] else "new"
            counts[f'sessions_opened_total{{kind="{kind}"}}'] += 1
        for error in peer.all("error"):
            counts[f'errors_total{{code="{error["code"]}"}}'] += 1
        counts += _turns(peer)
        counts += _tools(peer)
    return counts


def _turns(peer: Peer) -> Counter[str]:
    """What the device could see of its turns."""
    counts: Counter[str] = Counter()
    interrupted = {m["turn_id"] for m in peer.all("interrupted")}
    failed = {m["turn_id"] for m in peer.all("error") if "turn_id" in m}
    spoken = {m["turn_id"] for m in peer.all("asr_result", is_final=True)}
    for metrics in peer.all("turn_metrics"):
        number = metrics["turn_id"]
        cause = "user_said" if number in spoken else "user_typed"
        outcome = "failed" if number in failed else "played"
        outcome = "interrupted" if number in interrupted else outcome
        counts[f'turns_left_total{{cause="{cause}",outcome="{outcome}"}}'] += 1
        counts["turn_wait_seconds_count"] += 1
        for name, value in metrics.items():
            if name.endswith("_ms") and value is not None:
                counts[f'turn_stage_seconds_count{{stage="{name[:-3]}"}}'] += 1
    counts['interruption_latency_seconds_count{signal="pause"}'] += len(peer.all("pause"))
    counts['interruption_latency_seconds_count{signal="flush"}'] += len(peer.all("flush"))
    counts["false_alarms_total"] += len(peer.all("resume"))
    counts['speech_segments_total{result="words"}'] += len(spoken)
    return counts


def _tools(peer: Peer) -> Counter[str]:
    counts: Counter[str] = Counter()
    run = {(m["turn_id"], m["call_id"]) for m in peer.all("tool_call")}
    for returned in peer.all("tool_result"):
        asked = (returned["turn_id"], returned["call_id"]) in run
        name = returned["name"] if asked else "unknown"
        outcome = "ok" if returned["ok"] else "error"
        counts[f'tool_calls_total{{outcome="{outcome}",tool="{name}"}}'] += 1
        if name != "unknown":
            counts[f'tool_duration_seconds_count{{tool="{name}"}}'] += 1
    return counts


# Of the process and its settings, not of what devices did.
OTHERS = ("process_", "loop_lag", "connection_places", "pool_size")


def counted(samples: Mapping[str, float]) -> dict[str, float]:
    """What is not zero, of all that counts: buckets and sums tell the same things again."""
    return {
        short: value
        for name, value in samples.items()
        if not (short := name.removeprefix("listenai_")).startswith(OTHERS)
        and value
        and "_bucket" not in name
        and "_sum" not in name
    }


async def test_every_counter_is_what_the_devices_saw():
    """Two talks and a device that says nonsense: messages, bytes, turns, tools, errors, stages."""
    mind, peers = ScriptedMind(), list[Peer]()
    engines = {"chat_model": mind, "synthesizer": FakeSynthesizer(0.6)}
    async with served(engines=engines) as server:
        async with begun(server.ws, session_id="den") as peer:
            peers.append(peer)
            await script(peer)
        async with begun(server.ws, session_id="den") as peer:
            peers.append(peer)
            await peer.turn("hello")
            await peer.until("status", state="listening")
        async with connected(server.ws) as peer:
            peers.append(peer)
            await peer.send_raw("[]")
            await peer.until("error")
        with trio.fail_after(SECONDS):
            while (samples := await server.metrics())['listenai_connections{dialect="ListenAI"}']:
                await wait_all_tasks_blocked(0.01)
    wanted = expected(peers)
    for by in ("speech", "button", "text"):
        wanted[f'interruptions_total{{by="{by}"}}'] = 1
    for kind, cost in (("prompt", 30), ("completion", 4)):
        wanted[f'llm_tokens_total{{kind="{kind}"}}'] = cost * mind.told_costs
    wanted["sessions"] = 1
    assert counted(samples) == {name: value for name, value in wanted.items() if value}
    assert samples["listenai_process_resident_memory_bytes"] > 1e6
    assert samples["listenai_process_cpu_seconds_total"] > 0
    # The script was what it is meant to be.
    ends = {name for name in wanted if name.startswith(("turns_left", "tool_calls", "errors"))}
    assert len(ends) == 4 + 2 + 4, ends


async def test_bytes_of_texts_are_counted_not_characters():
    """Two or three a character in most languages."""
    async with served() as server:
        async with begun(server.ws) as peer:
            await peer.send("ping", id="你好")
            await peer.until("pong", id="你好")
        counts = await server.metrics()
        assert counts['listenai_message_bytes_total{direction="in"}'] == peer.sent_bytes


async def test_a_goodbye_is_told_from_a_lost_connection():
    """1000 where the device has closed with it; 1006 where it is gone without a word."""
    async with served() as server:
        async with begun(server.ws) as peer:
            assert await peer.answers()
        with trio.fail_after(SECONDS):
            while (samples := await server.metrics())['listenai_connections{dialect="ListenAI"}']:
                await wait_all_tasks_blocked(0.01)
    assert samples.get('listenai_connections_closed_total{code="1000"}') == 1


# --- logs ------------------------------------------------------------------------------------

# Said, typed, configured, answered, passed to tools and returned by them.
SECRETS = (
    *("rosebud", "xanadu", "zanzibar", "honolulu", "timbuktu", "samarkand", "popocatepetl"),
    *("kilimanjaro", "tell me a story", "story"),
)


def answer_of_a_model(asked: Asked) -> Answer:
    """A tool call, an answer with a word of its own, or a failure in the middle of one."""
    last = asked.body["messages"][-1]
    if last["role"] == "user" and "xanadu" in last["content"]:
        return calling(("get_weather", {"city": "timbuktu"}), ("lamp", {"of": "samarkand"}))
    if last["role"] == "user" and "zanzibar" in last["content"]:
        return failing("honolulu is", "popocatepetl has erupted")
    return saying("honolulu is far. honolulu is far.")


async def talk_of_everything(peer: Peer) -> None:
    """Typed, spoken, with tools of all sorts, interrupted, mistaken and refused."""
    await peer.send("configure", system_prompt="rosebud", end_of_turn_ms=0)
    await peer.send("text", text="what of xanadu")
    asked = await peer.until("tool_call", target="device")
    await peer.send("tool_result", call_id=asked["call_id"], result="kilimanjaro")
    await peer.until("turn_metrics", turn_id=1)
    await peer.send("text", text="what of zanzibar")
    assert (await peer.until("error"))["code"] == "LLM_ERROR"
    await peer.until("turn_metrics", turn_id=2)
    await peer.speak("tell_me_a_story.wav")
    spoken = await peer.until("asr_result", is_final=True)
    assert spoken["text"] == "tell me a story"
    await peer.until("tts_audio", state="start")
    await peer.send("interrupt")
    await peer.until("turn_metrics", turn_id=3)
    await peer.send("configure", voice_id="rosebud")
    await peer.send("rosebud", rosebud="rosebud")
    await peer.send_raw("rosebud")
    await peer.send("start_session", session_id="rosebud")
    for _ in range(4):
        await peer.until("error")
    await peer.send("end_session")
    assert await peer.close_code() == 1000


async def test_a_log_at_debug_holds_no_word_of_a_session(tmp_path: Path):
    """Of a process with the embedded ear and voice; every line of a turn has its three ids."""
    lamp = {"name": "lamp", "description": "rosebud", "parameters": {"type": "object"}}
    async with (
        open_openai_server(usual=answer_of_a_model) as model,
        server_process(
            directory=tmp_path,
            LLM_BASE_URL=model.url + "/v1",
            WEATHER_GEOCODING_URL=model.url + "/nowhere",
            CLOUD_LOG_LEVEL="DEBUG",
        ) as server,
    ):
        async with begun(server.ws, session_id="den", device_tools=[lamp]) as peer:
            await talk_of_everything(peer)
        assert len(model.requests) >= 4
        await server.wait_logged("connection_closed")
        await server.end()
        text, log = server.logged.decode(), server.log
    assert words_in(text, SECRETS) == []
    told = {line["event"] for line in log}
    assert {
        *("connection_opened", "session_opened", "configured", "text_typed", "turn_begun"),
        *("speech_started", "speech_ended", "final_transcript", "turn_started", "reply_done"),
        *("tool_called", "tool_returned", "device_answered", "stream_started", "turn_metrics"),
        *("stream_flushed", "interrupt_pressed", "error_reported", "connection_closed"),
    } <= told
    assert {line["level"] for line in log} >= {"DEBUG", "INFO", "WARNING"}
    for line in log:
        assert {"time", "level", "logger", "event"} <= set(line)
    [connection] = {line["connection"] for line in log if "connection" in line}
    turns = [line for line in log if line["event"] in ("turn_started", "turn_left", "tool_called")]
    assert {line["turn"] for line in turns} == {1, 2, 3}
    assert {(line["connection"], line["session"]) for line in turns} == {(connection, "den")}


async def test_a_refusal_that_repeats_the_question_is_not_logged(tmp_path: Path):
    """An upstream's explanation may hold what the user has said."""
    refusal = refusing(400, "Invalid content: 'rosebud'")
    async with (
        open_openai_server(usual=refusal) as model,
        server_process(directory=tmp_path, LLM_BASE_URL=model.url + "/v1") as server,
    ):
        async with begun(server.ws) as peer:
            await peer.send("text", text="rosebud")
            assert (await peer.until("error"))["code"] == "LLM_ERROR"
        await server.wait_logged("connection_closed")
        await server.end()
        assert "rosebud" not in server.logged.decode()


async def test_a_log_that_nobody_reads_stalls_nobody(tmp_path: Path):
    """At DEBUG, with standard error full: turns go on at their pace, and the end is in time."""
    async with server_process(
        "--fake-engines",
        directory=tmp_path,
        reads_log=False,
        CLOUD_LOG_LEVEL="DEBUG",
        CLOUD_RATE_LIMIT_ENABLED="false",
    ) as server:
        async with begun(server.ws) as peer:
            for number in range(1000):  # a line each
                await peer.send("playback", stream_id=1, played_samples=number)
            for _ in range(2):
                began = trio.current_time()
                await peer.turn()
                assert trio.current_time() - began < 4
            samples = await server.metrics()
            assert samples['listenai_queue_dropped_total{queue="log"}'] == 0
        seconds = await server.end()
        assert server.process.returncode == 0
        assert seconds < 3.0
        assert server.process.stderr
        written = os.read(server.process.stderr.fileno(), 1 << 20)
    assert len(written) > 60_000  # the pipe was full
    assert b"connection_closed" not in written


# --- traces ----------------------------------------------------------------------------------


class Collector(BaseHTTPRequestHandler):
    """Takes what is posted."""

    posted: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""


@contextmanager
def collecting() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OpenTelemetry collector on loopback: its URL, and what it took."""
    handler = type("Taken", (Collector,), {"posted": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", handler.posted
        finally:
            server.shutdown()
            thread.join()


async def test_traces_reach_a_collector(tmp_path: Path):
    """TRACING_URL: connection, turn and its parts, one trace, without a word; sent at the end."""
    with collecting() as (url, posted):
        async with server_process("--fake-engines", directory=tmp_path, TRACING_URL=url) as server:
            async with begun(server.ws, session_id="den") as peer:
                await peer.turn("rosebud")
            await server.wait_logged("connection_closed")
            await server.end()
            assert server.process.returncode == 0
    assert {path for path, _ in posted} == {"/v1/traces"}
    assert b"rosebud" not in b"".join(body for _, body in posted)
    assert b"London" not in b"".join(body for _, body in posted)
    requests = [ExportTraceServiceRequest.FromString(body) for _, body in posted]
    spans = [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"connection", "turn", "llm", "tts"}
    assert len({span.trace_id for span in spans}) == 1
    assert by_name["turn"].parent_span_id == by_name["connection"].span_id
    assert by_name["llm"].parent_span_id == by_name["turn"].span_id
    attributes = {each.key: each.value for each in by_name["connection"].attributes}
    assert attributes["session.id"].string_value == "den"
