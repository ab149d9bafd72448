"""What spec 001 promises its pages, through a real socket.

Spoken turns are a page's that knows the specification and no more, with the real ear, mind and
voice; what fails, waits or is only said at the end comes from engines that do as they are told.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from end_to_end_server import DATA, TEXTS, RunningServer
from fakes import FakeChatModel, FakeSynthesizer, call
from served import SECONDS, Peer, Served, connected, served

from listenai.app.dialects import prompt_voice_profile
from listenai.client.connection import ServerUnreachable
from listenai.config import Config
from listenai.engines.base import ReplyText, SpeakerMemory
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.ten_vad import TenVadDetector
from listenai.errors import ChatModelError, SynthesizerError, TranscriberError

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

PAGE = Path(__file__).parents[1] / "devices" / "prompt_voice.py"
HEARD = "what will the weather be in london"  # whatever is said to the engines that take no time
TEN_SECONDS = FakeSynthesizer(10.0)  # of a sentence


# --- a page written from the specification ---------------------------------------------------


@attrs.frozen
class Visit:
    """What a page was told, and what it has played."""

    told: Sequence[Mapping[str, Any]]
    replies: Sequence[Mapping[str, Any]]

    def all(self, kind: str) -> list[Mapping[str, Any]]:
        return [message for message in self.told if message["type"] == kind]

    @property
    def transcripts(self) -> list[str]:
        return [message["text"] for message in self.all("final_transcript")]

    @property
    def infos(self) -> list[str]:
        return [message["message"] for message in self.all("info")]


async def visit(url: str, scenario: str, *names: str) -> Visit:
    """The page's user does this with these recordings; it fails where a promise is broken."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, str(PAGE), url, scenario, *(str(DATA / name) for name in names)],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()
    return Visit(**json.loads(done.stdout))


async def test_the_page_knows_nothing_of_the_code():
    """Its imports are the standard library's and a WebSocket client's."""
    source = PAGE.read_text("utf-8")
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    ours = {"base64", "io", "json", "queue", "sys", "threading", "time", "typing", "wave"}
    assert imported == ours | {"websockets"}


async def test_a_page_asks_by_a_button_and_hears_the_answer(server: RunningServer):
    """At 48 kHz; transcript, tokens, numbered chunks of 200 ms, phrases, and times in order."""
    page = await visit(server.url + "ws", "push_to_talk", "what_time_is_it.wav")
    assert page.transcripts == [TEXTS["what_time_is_it.wav"]]
    [final], [metrics] = page.all("final_transcript"), page.all("metrics")
    assert str(uuid.UUID(final["id"])) == final["id"] == metrics["id"]
    *tokens, done = page.all("llm_token")
    assert (done["text"], done["done"]) == ("", True)
    assert not any(token["done"] for token in tokens)
    assert "it is" in "".join(token["text"] for token in tokens).lower()
    [reply] = page.replies
    assert reply["sounds"]
    assert set(reply["rates"]) == {16_000}
    assert max(reply["seconds"]) == 0.2
    assert sum(reply["seconds"]) > 1
    assert reply["phrases"][-1] == len(reply["seconds"])
    assert page.infos == ["ready"]
    assert [m["type"] for m in page.told[-2:]] == ["tts_complete", "metrics"]
    times = [at for index in range(5) if (at := metrics[f"t{index}"]) is not None]
    assert len(times) == 4 + bool(page.all("partial_transcript"))
    assert times == sorted(times)
    assert times[-1] - times[0] < SECONDS
    assert metrics["rtf"] >= 0


async def test_a_page_talks_on_without_touching_anything(server: RunningServer):
    """Several utterances in one session; the second question comes with the first answer."""
    page = await visit(server.url + "ws2", "hands_free", "twelve_times_seven.wav", "no.wav")
    assert page.transcripts == [TEXTS["twelve_times_seven.wav"], TEXTS["no.wav"]]
    assert len({message["id"] for message in page.all("final_transcript")}) == 2
    assert len(page.all("partial_transcript")) >= 2  # what they say is still uncertain
    assert all(metrics["t1"] <= metrics["t2"] for metrics in page.all("metrics"))
    assert len(page.replies) == 2
    first, second = server.chat_model.asked
    assert [message.role for message in first] == ["system", "user"]
    assert [message.role for message in second] == ["system", "user", "assistant", "user"]
    done = [m["type"] == "llm_token" and m["done"] for m in page.told].index(True)
    tokens = [m["text"] for m in page.told[:done] if m["type"] == "llm_token"]
    assert second[2].content.split() == "".join(tokens).split()


async def test_a_page_takes_back_what_was_said(server: RunningServer):
    """Nobody is asked, nothing is transcribed; the next capture is as good as the first."""
    page = await visit(server.url + "ws", "cancel", "tell_me_a_story.wav", "what_time_is_it.wav")
    assert page.transcripts == [TEXTS["what_time_is_it.wav"]]
    assert page.infos == ["ready", "cancelled", "ready"]
    [asked] = server.chat_model.asked
    assert asked[-1].content == TEXTS["what_time_is_it.wav"]


async def test_a_page_is_stopped_by_its_user(server: RunningServer):
    """`info`, `tts_complete`, and no chunk of the story after it; what was unheard is forgotten."""
    page = await visit(
        server.url + "ws", "barge_in", "tell_me_a_story.wav", "twelve_times_seven.wav"
    )
    assert page.transcripts == [TEXTS["tell_me_a_story.wav"], TEXTS["twelve_times_seven.wav"]]
    assert page.infos == ["ready", "interrupted"]
    story, answer = page.replies
    assert 30 <= len(story["seconds"]) < 60  # of some hundred
    assert answer["seconds"]
    at = page.told.index({"type": "info", "message": "interrupted"})
    assert page.told[at - 1] == {"type": "llm_token", "text": "", "done": True}
    assert page.told[at + 1] == {"type": "tts_complete"}
    [_, asked] = server.chat_model.asked
    told = "".join(m["text"] for m in page.told[:at] if m["type"] == "llm_token")
    assert asked[-2].role == "assistant"
    assert 0 < len(asked[-2].content) < len(told)


async def test_a_page_is_stopped_by_its_button(server: RunningServer):
    """`start` during a reply: the user wants to speak."""
    page = await visit(
        server.url + "ws", "press_again", "tell_me_a_story.wav", "twelve_times_seven.wav"
    )
    assert page.transcripts == [TEXTS["tell_me_a_story.wav"], TEXTS["twelve_times_seven.wav"]]
    assert page.infos == ["ready", "interrupted", "ready"]
    story, answer = page.replies
    assert 5 <= len(story["seconds"]) < 10
    assert answer["seconds"]


# --- engines that do as they are told --------------------------------------------------------


@asynccontextmanager
async def started(server: Served, path: str = "ws", **start: Any) -> AsyncIterator[Peer]:
    """A page that has begun a capture."""
    async with connected(server.ws + path) as peer:
        await peer.send("start", **start)
        await peer.until("info", message="ready")
        yield peer


async def ask(peer: Peer, name: str = "no.wav") -> list[str]:
    """Says something; the types of all messages of the turn, runs of one type once."""
    before = len(peer.got)
    await peer.speak(name)
    await peer.until("metrics")
    types = [message["type"] for message in peer.got[before:]]
    return [kind for index, kind in enumerate(types) if index == 0 or kind != types[index - 1]]


TURN = [
    *("partial_transcript", "final_transcript", "llm_token"),
    *("tts_chunk", "tts_phrase_done", "tts_complete", "metrics"),
]


async def test_tools_are_used_without_a_message():
    """The page has none for them; what they gave is in the answer."""
    chat = FakeChatModel(
        lambda messages: (
            [call("set_volume", '{"level": 50}')]
            if messages[-1].role == "user"
            else [ReplyText(f"It is done: {messages[-1].content}")]
        )
    )
    async with served(engines={"chat_model": chat}) as server, started(server) as peer:
        assert await ask(peer) == TURN
        assert [m.role for m in chat.asked[1][1]] == ["system", "user", "assistant", "tool"]
        [reply] = [m["text"] for m in peer.all("llm_token", done=False)]
        assert reply.startswith("It is done: {")


@attrs.frozen
class BrokenTranscriber:
    """Understands nothing."""

    problem: TranscriberError
    languages: Sequence[str] = ("en",)

    @asynccontextmanager
    async def open_utterance(
        self, *, language: str, speaker: SpeakerMemory
    ) -> AsyncIterator[BrokenTranscriber]:
        yield self

    async def accept(self, pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def partial(self) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def finish(self) -> Any:
        await trio.lowlevel.checkpoint()
        raise self.problem


def deaf(problem: TranscriberError) -> Any:
    return SegmentingRecognizerFactory(TenVadDetector, BrokenTranscriber(problem))


# The code, the engine that fails, and what follows the error.
MATRIX = [
    ("ASR_ERROR", {"recognizers": deaf(TranscriberError("no model"))}, []),
    ("ASR_TIMEOUT", {"recognizers": deaf(TranscriberError("late", timed_out=True))}, []),
    ("LLM_ERROR", {"chat_model": FakeChatModel("", fail=ChatModelError("gone"))}, TURN[2:]),
    (
        "LLM_TIMEOUT",
        {"chat_model": FakeChatModel("", fail=ChatModelError("late", timed_out=True))},
        TURN[2:],
    ),
    (
        "TTS_ERROR",
        {"synthesizer": FakeSynthesizer(1.0, fail=SynthesizerError("gone"))},
        ["llm_token", "tts_complete", "metrics"],
    ),
    (
        "TTS_TIMEOUT",
        {"synthesizer": FakeSynthesizer(1.0, fail=SynthesizerError("late", timed_out=True))},
        ["llm_token", "tts_complete", "metrics"],
    ),
]


@pytest.mark.parametrize(("code", "engines", "after"), MATRIX, ids=[row[0] for row in MATRIX])
async def test_each_code_is_told_and_the_page_talks_on(
    code: str, engines: dict[str, Any], after: list[str]
):
    """The error emission matrix: recoverable means that the connection goes on."""
    async with served(engines=engines) as server, started(server) as peer:
        await peer.speak("no.wav")
        error = await peer.until("error")
        assert (error["code"], error["recoverable"]) == (code, True)
        if after:
            await peer.until("metrics")
            types = [message["type"] for message in peer.got]
            assert {*after} <= {*types[types.index("final_transcript") :]}
            assert types[-1] == "metrics"
            assert len(peer.all("tts_complete")) == len(peer.all("llm_token", done=True)) == 1
        await peer.send("start")
        await peer.until("info", message="ready")


async def test_a_message_that_cannot_be_is_told_and_the_page_talks_on():
    """INVALID_MESSAGE, with what is allowed."""
    async with served() as server, started(server) as peer:
        for message, word in (
            ("start", "JSON"),
            ('{"type":"pause"}', "start, stop, cancel"),
            ('{"type":"start","sample_rate":96000}', "from 8000 to 48000"),
        ):
            await peer.send_raw(message)
            error = await peer.until("error")
            assert (error["code"], error["recoverable"]) == ("INVALID_MESSAGE", True)
            assert word in error["message"]
        assert await ask(peer) == TURN


async def test_silence_is_answered_too():
    """Who has pressed `stop` waits for something."""
    async with served() as server, started(server) as peer:
        await peer.send_raw(bytes(32_000))
        await peer.send("stop")
        await peer.until("info", message="nothing was understood")
        assert not peer.all("final_transcript")


async def test_cancel_stops_a_reply():
    """At once, though its voice has seconds to say."""
    async with (
        served(engines={"synthesizer": TEN_SECONDS}) as server,
        started(server) as peer,
    ):
        await peer.speak("no.wav")
        await peer.until("tts_chunk", seq=2)
        await peer.send("cancel")
        await peer.until("metrics")
        messages = [m["message"] for m in peer.all("info")]
        assert sorted(messages) == ["cancelled", "interrupted", "ready"]
        assert len(peer.all("tts_chunk")) < 10
        assert peer.got[-1]["type"] == "metrics"
        after = [m["type"] for m in peer.got[peer.got.index({"type": "tts_complete"}) :]]
        assert "tts_chunk" not in after


async def test_audio_is_paced():
    """A page holds little more than what it plays: so little is heard after an interruption."""
    async with served(engines={"synthesizer": TEN_SECONDS}) as server, started(server) as peer:
        await peer.speak("no.wav")
        await peer.until("tts_chunk", seq=1)
        began = trio.current_time()
        await peer.until("tts_chunk", seq=6)  # a second was sent before it
        assert 0.8 - 0.16 <= trio.current_time() - began < 3


async def test_an_answer_without_its_last_token_is_not_remembered():
    """Who cancels it before a word was heard is answered as if it had never been begun."""
    chat = FakeChatModel("One two three.", delay=0.05)
    async with served(engines={"chat_model": chat}) as server, started(server) as peer:
        await peer.speak("no.wav")
        await peer.until("llm_token", done=False)
        await peer.send("cancel")
        await peer.until("metrics")
        await peer.send("start")
        await ask(peer)
        [_, second] = [[m.role for m in messages] for _, messages in chat.asked]
        assert second == ["system", "user", "user"]


async def test_who_leaves_and_comes_back_begins_anew():
    """There are no session ids: nobody hears what another has asked."""
    chat = FakeChatModel("One two three.")
    async with served(engines={"chat_model": chat, "synthesizer": TEN_SECONDS}) as server:
        async with started(server) as peer:
            await peer.speak("no.wav")
            await peer.until("tts_chunk")
        async with started(server) as peer:
            await peer.speak("no.wav")
            await peer.until("tts_chunk", seq=1)
        assert [[m.role for m in messages] for _, messages in chat.asked] == [
            ["system", "user"]
        ] * 2


async def test_two_pages_do_not_disturb_each_other():
    """Sessions are independent: one cancels, the other hears its answer to the end."""
    async with (
        served(engines={"synthesizer": FakeSynthesizer(1.0)}) as server,
        started(server) as one,
        started(server, "ws2") as other,
    ):
        await one.speak("no.wav")
        await other.speak("no.wav")
        await one.until("tts_chunk")
        await one.send("cancel")
        await other.until("metrics")
        assert len(other.all("tts_chunk")) == 5
        assert not other.all("info", message="interrupted")


async def test_a_shutdown_is_told_to_everybody():
    """Replies are finished; then `info`, and 1001."""
    draining = trio.Event()
    async with (
        served(draining=draining, engines={"synthesizer": FakeSynthesizer(1.0)}) as server,
        started(server) as talking,
        started(server) as idle,
    ):
        await talking.speak("no.wav")
        await talking.until("tts_chunk")
        draining.set()
        for peer in (idle, talking):
            assert await peer.close_code() == 1001
            assert peer.got[-1] == {"type": "info", "message": "the server is shutting down"}
        assert len(talking.all("tts_chunk")) == 5
        assert len(talking.all("tts_complete")) == 1


async def test_the_path_and_the_first_message_choose():
    """`/ws` is shared: a page begins with `start`; on `/ws2` nobody else is spoken to."""
    async with served() as server:
        async with connected(server.ws + "ws") as peer:
            await peer.send("start_session")
            assert (await peer.until("status"))["state"] == "ready"
        async with connected(server.ws + "ws2") as peer:
            await peer.send("start_session")
            assert "start, stop, cancel" in (await peer.until("error"))["message"]
        async with connected(server.ws + "ws2") as peer:
            assert await ask(peer) == ["info", *TURN]


async def test_a_key_is_asked_for_in_the_handshake():
    """The specification has no message for one."""
    async with served(api_keys="page:sesame") as server:
        with pytest.raises(ServerUnreachable, match="401"):
            async with connected(server.ws + "ws2"):
                pass
        async with connected(server.ws + "ws") as peer:  # where others give theirs in a message
            await peer.send("start")
            error = await peer.until("error")
            assert (error["code"], error["recoverable"]) == ("UNAUTHORIZED", False)
            assert await peer.close_code() == 1008
        async with connected(server.ws + "ws2", "sesame") as peer:
            assert await ask(peer) == ["info", *TURN]


async def test_the_specs_variables_are_obeyed():
    """And its defaults are the defaults."""
    environment = {
        "OPENAI_MAX_TOKENS": "99",
        "OPENAI_TEMPERATURE": "0.25",
        "STREAM_VAD_SILENCE_MS": "1000",
        "STREAM_PARTIAL_INTERVAL_MS": "50",
    }
    config = Config.load(environment)
    names = ("max_tokens", "temperature", "silence_ms", "partial_interval_ms")
    chosen = {f"prompt_voice_{name}": getattr(config, f"prompt_voice_{name}") for name in names}
    assert [*chosen.values()] == [99, 0.25, 1000.0, 50.0]
    profile = prompt_voice_profile(Config())
    assert (profile.max_tokens, profile.temperature) == (150, 0.7)
    assert profile.configuration.end_of_turn_ms == 700
    assert prompt_voice_profile(config).configuration.end_of_turn_ms == 1000
    chat = FakeChatModel("One.")
    async with served(engines={"chat_model": chat}, **chosen) as server, started(server) as peer:
        await ask(peer)
    [asked] = chat.settings
    assert (asked.max_tokens, asked.temperature) == (99, 0.25)


@pytest.mark.parametrize(("silence_ms", "least", "most"), [(0.0, 0.0, 1.5), (1500.0, 1.5, 10.0)])
async def test_silence_ends_an_utterance_after_its_time(
    silence_ms: float, least: float, most: float
):
    """STREAM_VAD_SILENCE_MS, from the last word; the recording comes faster than it was said."""
    async with (
        served(prompt_voice_silence_ms=silence_ms) as server,
        started(server) as peer,
    ):
        await ask(peer)
        [metrics] = peer.all("metrics")
        assert least <= metrics["t2"] - metrics["t0"] < most
        assert peer.all("final_transcript", text=HEARD)
