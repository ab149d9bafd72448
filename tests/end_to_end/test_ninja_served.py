"""What spec 004 promises its clients, through a real socket.

Spoken calls are a client's that knows the document alone, with the real ear, mind and voice;
what fails or waits comes from engines that do as they are told.
"""

from __future__ import annotations

import ast
import base64
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from devices import ninja
from devices.ninja import Call, open_call
from end_to_end_assistant import open_assistant
from end_to_end_server import TEXTS, recording
from fakes import FakeChatModel, FakeSynthesizer, call
from served import SILENCE, Served, served

from listenai.app.dialects import ninja_profile
from listenai.config import Config
from listenai.dialects.mailboxes import KEPT_SECONDS
from listenai.engines.base import ReplyText
from listenai.errors import ChatModelError, SynthesizerError
from listenai.server.call_tokens import CallTokens

pytestmark = pytest.mark.engines

SECRET = "a secret of tests, longer than thirty-two bytes"
USER, CALL = "user-123", "call-456"


def session_token(user_id: str = USER, call_id: str = CALL, secret: str = SECRET) -> str:
    """What POST /auth/websocket gives a user."""
    token = jwt.encode({"sub": user_id}, secret, "HS256")
    return CallTokens(secret, time.time).issue(token, user_id, call_id)


def place(server: Served) -> str:
    return server.ws + "realtime/ws"


@asynccontextmanager
async def calling(
    server: Served, user_id: str = USER, call_id: str = CALL, **options: Any
) -> AsyncIterator[Call]:
    """A call with its session."""
    token = session_token(user_id, call_id)
    async with open_call(place(server), token, user_id, call_id, **options) as opened:
        yield opened


async def ask(opened: Call, name: str = "no.wav") -> None:
    """Says something, and waits until the turn was measured."""
    measured = len(opened.all("metrics"))
    await opened.speak(recording(name) + SILENCE)
    await opened.wait(lambda: len(opened.all("metrics")) > measured)


# --- a client that knows the document alone --------------------------------------------------


def test_the_client_knows_nothing_of_the_code() -> None:
    """It imports nothing of ours."""
    tree = ast.parse(Path(ninja.__file__).read_text("utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {"trio", "wave"} <= imported
    assert not any("listenai" in name or name in ("served", "fakes") for name in imported)


async def test_a_call_is_understood_and_answered() -> None:
    """Transcript, text, sound that fits the client's buffer, every stage in order, metrics."""
    async with (
        open_assistant(llm_engine="embedded", jwt_secret=SECRET) as server,
        calling(server) as caller,
    ):
        assert caller.all("connection_status") == [
            {"status": "connected", "sessionId": CALL, "resumed": False}
        ]
        await ask(caller, "what_time_is_it.wav")
        [final] = caller.all("transcript", isFinal=True)
        assert final["text"] == TEXTS["what_time_is_it.wav"]
        *deltas, done = caller.all("ai_response")
        assert done["done"]
        assert "".join(delta["text"] for delta in deltas) == done["text"]
        assert "it is" in done["text"].lower()
        assert caller.played.seconds > 1
        assert caller.played.lost == 0
        check_stages(caller)
        check_sound(caller)
        [metrics] = caller.all("metrics")
        assert set(metrics) == {"connection", "processing", "system"}
        assert all(value is not None for value in metrics["processing"].values())
        assert metrics["processing"]["totalLatencyMs"] > 0
        assert metrics["system"]["memoryBytes"] > 1 << 20
        assert {message["callId"] for message in caller.got if "callId" in message} == {CALL}


def check_stages(caller: Call) -> None:
    """Each is started once and then completed, in the order of the pipeline."""
    assert len(caller.stages) == 8
    for status in ("started", "completed"):
        at = [caller.stages.index(f"{stage} {status}") for stage in ("stt", "intent", "ai", "tts")]
        assert at[:3] == sorted(at[:3])
        assert at[1] < at[3]
    assert caller.stages[-1] == "tts completed"
    assert all("latencyMs" in data for data in caller.all("processing_status", status="completed"))


def check_sound(caller: Call) -> None:
    """Files come between `start` and `end` or `stop`, and nowhere else."""
    playing = False
    for message in caller.got:
        if message["type"] == "audio_response":
            playing = message["data"]["state"] == "start"
        elif message["type"] == "file":
            assert playing


async def test_speech_over_a_story_stops_it() -> None:
    """`stop`, no file of the story after it, and the words are the next question."""
    async with (
        open_assistant(llm_engine="embedded", jwt_secret=SECRET) as server,
        calling(server) as caller,
    ):
        await caller.speak(recording("tell_me_a_story.wav") + SILENCE)
        await caller.wait(lambda: caller.played.files > 10)
        await caller.speak(recording("twelve_times_seven.wav") + SILENCE)
        await caller.wait(lambda: len(caller.all("metrics")) == 2)
        states = [data["state"] for data in caller.all("audio_response")]
        assert states == ["start", "stop", "start", "end"]
        check_sound(caller)
        texts = [data["text"] for data in caller.all("transcript", isFinal=True)]
        assert texts == [TEXTS["tell_me_a_story.wav"], TEXTS["twelve_times_seven.wav"]]
        assert "tts cancelled" in caller.stages
        [_, answer] = [data for data in caller.all("ai_response", turnId=2) if "84" in data["text"]]
        assert answer["done"]


async def test_audio_as_text_is_as_good() -> None:
    """For clients that cannot send binary: base64 in audio_chunk."""
    async with served(jwt_secret=SECRET) as server, calling(server) as caller:
        pcm = recording("no.wav") + SILENCE
        for start in range(0, len(pcm), ninja.MAX_CHUNK_BYTES):
            chunk = base64.b64encode(pcm[start : start + ninja.MAX_CHUNK_BYTES]).decode()
            await caller.send("audio_chunk", audio=chunk)
        await caller.until("transcript", isFinal=True)
        await caller.until("ai_response", done=True)


# --- what a turn tells -----------------------------------------------------------------------


async def test_the_intent_names_the_tool() -> None:
    """Which the server runs: the client has no part in it."""
    chat = FakeChatModel(
        lambda messages: (
            [call("set_volume", '{"level": 50}')]
            if messages[-1].role == "user"
            else [ReplyText(f"It is done: {messages[-1].content}")]
        )
    )
    async with (
        served(engines={"chat_model": chat}, jwt_secret=SECRET) as server,
        calling(server) as caller,
    ):
        await ask(caller)
        [intent] = caller.all("processing_status", stage="intent", status="completed")
        assert intent["tool"] == "set_volume"
        assert intent["latencyMs"] > 0
        done = await caller.until("ai_response", done=True)
        assert done["text"].startswith("It is done: {")


async def test_an_engine_that_fails_is_told_and_the_call_goes_on() -> None:
    """With the code of the stage, and nothing left open."""
    for code, engines in (
        ("LLM_ERROR", {"chat_model": FakeChatModel("", fail=ChatModelError("gone"))}),
        ("TTS_ERROR", {"synthesizer": FakeSynthesizer(1.0, fail=SynthesizerError("gone"))}),
    ):
        async with served(engines=engines, jwt_secret=SECRET) as server, calling(server) as caller:
            await ask(caller)
            [error] = caller.all("error")
            assert error["code"] == code
            assert error["turnId"] == 1
            assert balance(caller) == 0
            await ask(caller)
            assert len(caller.all("error", code=code)) == 2


def balance(caller: Call) -> int:
    """How many stages were started and not ended."""
    ends = ("completed", "cancelled")
    return sum(1 if stage.endswith("started") else -stage.endswith(ends) for stage in caller.stages)


async def test_a_bad_message_is_explained_and_the_call_goes_on() -> None:
    async with served(jwt_secret=SECRET) as server, calling(server) as caller:
        bad = (
            ("{", "INVALID_MESSAGE", "not JSON"),
            ('{"type":"offer"}', "UNKNOWN_MESSAGE_TYPE", "known types: session_start"),
            ('{"type":"audio_chunk","data":{}}', "INVALID_MESSAGE", "'data.audio' is missing"),
        )
        for message, _, _ in bad:
            await caller.send_raw(message)
        await caller.wait(lambda: len(caller.all("error")) == len(bad))
        for error, (_, code, words) in zip(caller.all("error"), bad, strict=True):
            assert error["code"] == code
            assert words in error["message"]
        await caller.send("heartbeat")
        await caller.until("heartbeat", pong=True)
        assert caller.heartbeats == 1


async def test_metrics_come_when_they_are_asked_for() -> None:
    """And count what this connection did."""
    async with served(jwt_secret=SECRET) as server, calling(server) as caller:
        await caller.send_raw(bytes(4096))
        await caller.send("metrics")
        metrics = await caller.until("metrics")
        assert metrics["connection"]["messagesReceived"] == 3
        assert metrics["processing"]["audioChunksProcessed"] == 1


async def test_compression_is_not_there() -> None:
    """It is accepted, and said not to be."""
    async with (
        served(jwt_secret=SECRET) as server,
        calling(server, enableCompression=True) as caller,
    ):
        [status] = caller.all("connection_status")
        assert status["unsupported"] == ["enableCompression"]


# --- who may call ----------------------------------------------------------------------------


async def refused(server: Served, token: str, user_id: str = USER) -> dict[str, Any]:
    """The error of a session_start that is not accepted; the server closes."""
    async with ninja.connect(place(server), CALL) as caller:
        await caller.send("session_start", userId=user_id, callId=CALL, authToken=token)
        assert await caller.end() == 1008
        assert not caller.all("connection_status")
        [error] = caller.all("error")
        return error


async def test_a_wrong_token_is_refused() -> None:
    """UNAUTHORIZED with the reason, then 1008; whatever came first."""
    async with served(jwt_secret=SECRET) as server:
        for token, user_id, words in (
            ("nonsense", USER, "not a JSON Web Token"),
            (session_token(secret="b" * 32), USER, "not signed"),
            (session_token(call_id="call-7"), USER, "another user or call"),
            (session_token(), "user-7", "another user or call"),
            (jwt.encode({"sub": USER, "callId": CALL}, SECRET, "HS256"), USER, "not signed"),
        ):
            error = await refused(server, token, user_id)
            assert error["code"] == "UNAUTHORIZED"
            assert words in error["message"]
        async with ninja.connect(place(server), CALL) as caller:
            await caller.speak(bytes(4096))
            assert await caller.end() == 1008
            assert "session_start" in caller.all("error", code="UNAUTHORIZED")[0]["message"]


async def test_without_a_secret_nobody_can_call() -> None:
    """And whoever runs the server reads what to do."""
    async with served() as server:
        error = await refused(server, session_token())
        assert "JWT_SECRET is not set" in error["message"]
        assert "openssl rand -hex 32" in error["message"]


async def test_api_keys_are_not_asked_of_callers() -> None:
    """The token is checked in band; the same server's other clients need their keys."""
    async with served(jwt_secret=SECRET, api_keys="a-key") as server:
        async with calling(server) as caller:
            assert caller.all("connection_status")
        assert (await server.ask("/metrics")).status_code == 401


async def test_a_token_is_had_on_the_same_port() -> None:
    """With the token that a user has already; nobody needs an API key for it."""
    token = jwt.encode({"sub": USER}, SECRET, "HS256")
    async with served(jwt_secret=SECRET, api_keys="a-key") as server:
        session = await ninja.authenticate(server.http, token, USER, CALL)
        async with open_call(place(server), session, USER, CALL) as caller:
            assert caller.all("connection_status", sessionId=CALL)


async def test_a_call_belongs_to_its_user() -> None:
    """Another one with the same callId is refused, also after the first has hung up."""
    async with served(jwt_secret=SECRET) as server:
        async with calling(server):
            pass
        token = session_token("user-7")
        async with ninja.connect(place(server), CALL) as other:
            await other.send("session_start", userId="user-7", callId=CALL, authToken=token)
            assert await other.end() == 1008
            [error] = other.all("error")
            assert error["code"] == "SESSION_ERROR"
            assert "belongs to somebody else" in error["message"]


# --- away and back ---------------------------------------------------------------------------


async def test_who_comes_back_goes_on_with_the_call() -> None:
    """With the same token; the connection broke in mid answer, and the history is there.

    What could not be told any more, how that turn ended, comes first.
    """
    chat = FakeChatModel("One two three. Four five six.")
    async with served(engines={"chat_model": chat}, jwt_secret=SECRET) as server:
        async with calling(server) as caller:
            await caller.speak(recording("no.wav") + SILENCE)
            await caller.wait(lambda: caller.played.files)
            await trio.aclose_forcefully(caller.stream)
        async with calling(server) as caller:
            await caller.speak(recording("no.wav") + SILENCE)
            await caller.wait(lambda: len(caller.all("metrics")) == 2)
            status, *missed = caller.got[: 1 + caller.got[0]["data"]["queuedMessages"]]
            assert status["type"] == "connection_status"
            assert status["data"]["resumed"]
            assert status["data"]["droppedMessages"] == 0
            assert missed[-1]["type"] == "metrics"
            counted = [metrics["connection"]["reconnections"] for metrics in caller.all("metrics")]
            assert counted == [0, 1]
        assert [message.role for message in chat.asked[-1][1]].count("user") == 2


def test_every_attempt_of_a_client_is_in_time() -> None:
    """Five attempts with exponential backoff, and the messages are still kept."""
    assert ninja.delays() == [1, 2, 4, 8, 16]
    assert list(itertools.accumulate(ninja.delays()))[-1] < KEPT_SECONDS


async def test_a_newer_connection_takes_the_call_over() -> None:
    """The older one is told, and closed with 4001."""
    async with (
        served(jwt_secret=SECRET) as server,
        calling(server) as older,
        calling(server) as newer,
    ):
        assert newer.all("connection_status")[0]["resumed"]
        assert await older.end() == 4001
        assert older.all("error", code="SESSION_ERROR")


async def test_a_call_that_is_ended_is_forgotten() -> None:
    """`session_end`: disconnected, 1000; the next call of that name is a new one."""
    async with served(jwt_secret=SECRET) as server:
        async with calling(server) as caller:
            await ask(caller)
            await caller.send("session_end")
            assert await caller.end() == 1000
            assert caller.all("connection_status")[-1] == {
                "status": "disconnected",
                "sessionId": CALL,
            }
        async with calling(server) as caller:
            assert caller.all("connection_status")[0]["resumed"] is False


async def test_many_call_at_once() -> None:
    """Each has a session, an answer and messages of its own."""

    async def talk(server: Served, number: int) -> None:
        async with calling(server, f"user-{number}", f"call-{number}") as caller:
            await ask(caller)
            assert {m["callId"] for m in caller.got if "callId" in m} == {f"call-{number}"}
            assert caller.all("ai_response", done=True)

    async with served(jwt_secret=SECRET) as server:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(talk, server, number)


async def test_a_server_that_goes_says_so() -> None:
    """Graceful shutdown: disconnected, 1001."""
    draining = trio.Event()
    async with served(draining=draining, jwt_secret=SECRET) as server, calling(server) as caller:
        draining.set()
        assert await caller.end() == 1001
        assert caller.all("connection_status")[-1]["status"] == "disconnected"


def test_the_profile_is_the_documents() -> None:
    """Threshold 0.3, three minutes at most, ten messages of history."""
    profile = ninja_profile(Config())
    assert profile.configuration.vad_threshold == 0.3
    assert profile.utterance_seconds == 180.0
    assert profile.history_messages == 10
    assert profile.lead_seconds_unstoppable == 0.16
    assert ninja_profile(Config(ninja_utterance_ms=5000)).utterance_seconds == 5.0
