"""What spec 003 promises its pages, through a real socket.

Spoken turns are a page's that knows the document and the messages alone, with the real ear, mind
and voice; what fails, waits or is only counted comes from engines that do as they are told.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from devices import configurator
from devices.configurator import Page, open_page
from end_to_end_server import TEXTS, RunningServer, recording
from fakes import FakeChatModel, FakeSynthesizer, call
from served import SILENCE, Served, connected, served

from listenai.app.dialects import configurator_profile
from listenai.client.connection import ServerUnreachable
from listenai.config import Config
from listenai.dialects.configurator import Channel
from listenai.engines.base import ReplyText, SpeakerMemory
from listenai.engines.ears import SegmentingRecognizerFactory
from listenai.engines.ten_vad import TenVadDetector
from listenai.engines.timed import HEARD_TEXT
from listenai.errors import ChatModelError, SynthesizerError, TranscriberError

pytestmark = [pytest.mark.engines, pytest.mark.usefixtures("nothing_left")]

PAGE = Path(configurator.__file__).read_text("utf-8")
CLOCK = "what_time_is_it.wav"
TEN_SECONDS = FakeSynthesizer(10.0)  # of a sentence


def upsampled(pcm: bytes) -> bytes:
    """16 kHz at 48 kHz: each sample three times."""
    return np.repeat(np.frombuffer(pcm, np.int16), 3).tobytes()


async def say(page: Page, name: str = "no.wav") -> None:
    """Into the open microphone, with the silence after it; waits for the whole answer."""
    known = len(page.responses)
    page.hear(recording(name) + SILENCE)
    await page.until("response", known + 1)


async def sound_ends(page: Page, count: int = 1) -> None:
    await page.until("audio_end", count)


# --- a page that knows the document alone ----------------------------------------------------


async def test_the_page_knows_nothing_of_the_code():
    """It imports nothing of ours."""
    tree = ast.parse(PAGE)
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
    assert {"trio", "trio_websocket"} <= imported
    assert not any("listenai" in name or name in ("served", "fakes") for name in imported)


async def test_a_question_is_heard_and_answered(server: RunningServer):
    """From a 48 kHz microphone; voice, words, text and sound, each in its place."""
    async with open_page(server.url + "voice") as page:
        page.open_microphone(48_000)
        page.hear(upsampled(recording(CLOCK)))
        page.close_microphone()
        await sound_ends(page)
        assert page.transcripts == [TEXTS[CLOCK]]
        [response] = page.responses
        assert "it is" in response.lower()
        assert "".join(m["text"] for m in page.all("response_delta")) == response
        begin, end = page.all("vad")
        assert (begin["speaking"], end["speaking"]) == (True, False)
        assert -60 <= begin["threshold"] == end["threshold"] <= -30
        assert page.speaker.loud
        assert page.speaker.seconds > 1
        assert page.speaker.lost == 0
        order = [page.kinds.index(kind) for kind in ("vad", "response_delta", "audio_start")]
        assert order == sorted(order)
        assert not page.all("error")


async def test_speech_over_a_story_stops_it(server: RunningServer):
    """`stop_audio`, no sound of the story after it, and the words are the next question."""
    async with open_page(server.url + "voice") as page:
        page.open_microphone()
        page.hear(recording("tell_me_a_story.wav") + SILENCE)
        await page.wait(lambda: page.speaker.seconds > 3)
        page.hear(recording("twelve_times_seven.wav") + SILENCE)
        await page.until("response", 2)
        await sound_ends(page)
        assert page.transcripts == [TEXTS["tell_me_a_story.wav"], TEXTS["twelve_times_seven.wav"]]
        sounds = [k for k in page.kinds if k in ("audio_start", "audio_end", "stop_audio")]
        assert sounds == ["audio_start", "stop_audio", "audio_start", "audio_end"]
        assert page.speaker.thrown_away < 0.25
        assert "84" in page.responses[1] or "eighty" in page.responses[1]
        [_, asked] = server.chat_model.asked
        assert asked[-2].role == "assistant"
        assert 0 < len(asked[-2].content) < len(page.responses[0])  # what was heard


async def test_one_session_is_written_and_spoken(server: RunningServer):
    """By its id across both places, there and back again; what was said is known."""
    async with open_page(server.url + "chat") as page:
        assert page.all("session")[0]["resumed"] is False
        assert "84" in await page.answer("what is twelve times seven")
        assert set(page.kinds) == {"session", "response_delta", "response"}
        session_id = page.session_id
    async with open_page(server.url + "voice", session_id) as page:
        assert page.all("session") == [
            {"type": "session", "session_id": session_id, "resumed": True}
        ]
        page.open_microphone()
        await say(page, CLOCK)
        await sound_ends(page)
    async with open_page(server.url + "chat", session_id) as page:
        await page.answer("thank you")
    roles = [[message.role for message in asked] for asked in server.chat_model.asked]
    assert [len(asked) for asked in roles] == [2, 4, 6]
    assert roles[-1] == ["system", "user", "assistant", "user", "assistant", "user"]


async def test_a_page_without_a_network_comes_back(server: RunningServer):
    """Backs off, resumes its session, opens its microphone again, asks again what was unanswered.

    What was said meanwhile is kept, the newest seconds of it.
    """
    async with open_page(server.url + "voice") as page:
        page.open_microphone()
        await say(page, "twelve_times_seven.wav")
        await sound_ends(page)
        before = page.speaker.seconds
        page.type("tell me a story")
        await page.wait(lambda: page.speaker.seconds > before + 2.5)
        await page.lose_network()
        page.hear(bytes(10 * 32_000))
        await page.wait(lambda: page.connections == 2)
        first, second = page.all("session")
        assert second == first | {"resumed": True}
        assert page.dropped_seconds == pytest.approx(7, abs=0.2)
        known = page.speaker.seconds
        await page.wait(lambda: page.speaker.seconds > known + 1)
        story = server.chat_model.asked[-1]
        assert [m.content for m in story if m.role == "user"][-2:] == ["tell me a story"] * 2
        heard = story[-2]
        assert heard.role == "assistant"
        page.hear(recording("stop.wav") + SILENCE)
        await page.until("stop_audio")
        await page.until("response", 2)
        assert 0 < len(heard.content) < len(page.responses[-1])


# --- engines that do as they are told --------------------------------------------------------


@asynccontextmanager
async def opened(server: Served, path: str = "voice", **options: Any):
    """A page; at `/voice` its microphone is open."""
    async with open_page(server.ws + path, **options) as page:
        if path == "voice":
            page.open_microphone()
        yield page


SPOKEN = ["session", "vad", "transcript", "response_delta", "audio_start", "audio", "audio_end"]


async def test_a_turn_has_its_order():
    """What was heard, then text and sound; nothing of states, tools or times."""
    async with served() as server, opened(server) as page:
        await say(page)
        await sound_ends(page)
        firsts = list(dict.fromkeys(page.kinds))
        assert [kind for kind in firsts if kind != "response"] == SPOKEN
        assert page.transcripts == [HEARD_TEXT]
        assert [text.split() for text in page.responses] == [["One", "two", "three."]]


@pytest.mark.parametrize("path", ["chat", "voice"])
async def test_tools_are_used_without_a_message(path: str):
    """The page has none for them; what they gave is in the answer."""
    chat = FakeChatModel(
        lambda messages: (
            [call("set_volume", '{"level": 50}')]
            if messages[-1].role == "user"
            else [ReplyText(f"It is done: {messages[-1].content}")]
        )
    )
    async with served(engines={"chat_model": chat}) as server, opened(server, path) as page:
        assert (await page.answer("quieter")).startswith("It is done: {")
        assert [m.role for m in chat.asked[1][1]] == ["system", "user", "assistant", "tool"]
        assert not page.all("error")


@attrs.frozen
class BrokenTranscriber:
    """Understands nothing."""

    languages: Sequence[str] = ("en",)

    @asynccontextmanager
    async def open_utterance(self, *, language: str, speaker: SpeakerMemory):
        yield self

    async def accept(self, pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def partial(self) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def finish(self) -> Any:
        await trio.lowlevel.checkpoint()
        raise TranscriberError("no model")


async def test_an_engine_that_fails_is_told_and_the_page_talks_on():
    """With the code of its stage; a reply that was begun ends with its text."""
    deaf = SegmentingRecognizerFactory(TenVadDetector, BrokenTranscriber())
    async with served(engines={"recognizers": deaf}) as server, opened(server) as page:
        page.hear(recording("no.wav") + SILENCE)
        await page.until("error", code="ASR_ERROR")
        assert await page.answer("then in writing")
    chat = FakeChatModel("One two", fail=ChatModelError("gone"))
    async with served(engines={"chat_model": chat}) as server, opened(server, "chat") as page:
        assert (await page.answer("hello")).startswith("One two")  # and an apology
        await page.until("error", code="LLM_ERROR")
        chat.fail = None
        await page.answer("hello")
        assert len(page.all("error")) == 1
    mute = FakeSynthesizer(1.0, fail=SynthesizerError("gone"))
    for path, errors in (("voice", 1), ("chat", 0)):
        async with served(engines={"synthesizer": mute}) as server, opened(server, path) as page:
            await page.answer("hello")
            if errors:
                await page.until("error", code="TTS_ERROR")
            mute.fail = None
            await page.answer("hello")
            assert len(page.all("error")) == errors
            mute.fail = SynthesizerError("gone")


async def test_a_bad_message_is_explained_and_the_page_talks_on():
    """What was wrong, what is allowed, and what to do."""
    bad = (
        ("hello", "INVALID_MESSAGE", "not JSON"),
        ('{"type":"ping"}', "UNKNOWN_MESSAGE_TYPE", "known types: session, message, analytics"),
        ('{"type":"audio_start","sample_rate":96000}', "INVALID_MESSAGE", "8000 to 48000"),
        ('{"type":"session","session_id":"b"}', "SESSION_ERROR", "already"),
        (bytes(512), "INVALID_MESSAGE", "send audio_start first"),
        (bytes(512), None, ""),  # was said
        ('{"type":"audio_end"}', "INVALID_MESSAGE", "send audio_start first"),
    )
    told = [(code, words) for _, code, words in bad if code]
    async with served() as server, open_page(server.ws + "voice") as page:
        for message, _, _ in bad:
            page.send_raw(message)
        await page.until("error", len(told))
        for error, (code, words) in zip(page.all("error"), told, strict=True):
            assert error["code"] == code
            assert words in error["message"]
        assert await page.answer("hello")
    async with served() as server, open_page(server.ws + "chat") as page:
        page.send_raw(bytes(512))
        assert "/voice" in (await page.until("error"))["message"]
        assert await page.answer("hello")


async def test_silence_is_answered_too():
    """Who has closed the microphone waits for something."""
    async with served() as server, opened(server) as page:
        page.hear(bytes(32_000))
        page.close_microphone()
        assert (await page.until("transcript"))["text"] == ""
        assert page.all("transcript")[0]["final"]
        page.open_microphone()
        await say(page)
        page.close_microphone()
        page.ask_analytics()  # answered in order: nothing more was said of words
        await page.until("analytics")
        assert page.transcripts == ["", HEARD_TEXT]


async def test_a_noisy_room_has_a_higher_threshold():
    """`vad` tells where speech begins: above what the microphone hears all the time."""
    noise = np.random.default_rng(3).normal(0, 328, 16_000 * 6).astype(np.int16)  # -40 dBFS
    thresholds = []
    for room in (b"", noise.tobytes()):
        async with served() as server, opened(server) as page:
            page.hear(room)
            loud = np.frombuffer(recording(CLOCK), np.int16).astype(np.int32)
            noisy = loud + np.resize(noise if room else [0], loud.shape)
            page.hear(noisy.clip(-32768, 32767).astype(np.int16).tobytes())
            page.close_microphone()
            await page.until("transcript", final=True)
            thresholds.append(page.all("vad", speaking=True)[-1]["threshold"])
    quiet, noisy_room = thresholds
    assert quiet == -60.0
    assert noisy_room == pytest.approx(-40 + 6, abs=2)


async def test_what_is_counted_is_told_when_it_is_asked_for():
    """Of the session, which outlives the connection; and of the connection."""
    async with served(engines={"synthesizer": FakeSynthesizer(1.0)}) as server:
        async with opened(server) as page:
            await say(page)
            await page.wait(lambda: page.speaker.seconds > 0.7)
            page.type("stop")  # over the sound of the first
            await page.until("response", 2)
            await sound_ends(page)
            page.ask_analytics()
            first = await page.until("analytics")
        async with opened(server, "chat", session_id=page.session_id) as page:
            page.ask_analytics()
            second = await page.until("analytics")
    assert first["session_id"] == second["session_id"]
    assert first["session"]["interactions"] >= 1
    assert second["session"]["interactions"] == 2
    assert second["session"]["messages"] == 4
    assert first["connection"]["turns"] >= first["connection"]["interruptions"] == 1
    assert first["connection"]["mean_latency_ms"] > 0
    assert second["connection"] == {
        "turns": 0,
        "interruptions": 0,
        "errors": 0,
        "mean_latency_ms": None,
    }


async def test_voice_is_paced_and_text_is_not():
    """Little is ahead of the loudspeaker; who only reads does not wait for a voice."""
    words = " ".join(f"Sentence number {n} is as long as that." for n in range(6))
    engines = {"chat_model": FakeChatModel(words, delay=0.0), "synthesizer": FakeSynthesizer(5.0)}
    async with served(engines=engines) as server:
        async with opened(server, "chat") as page:
            began = trio.current_time()
            assert (await page.answer("tell me")).split() == words.split()
            assert trio.current_time() - began < 5  # of thirty seconds of speech
            assert (await page.answer("and again")).split() == words.split()
        async with opened(server) as page:
            page.type("tell me")
            await page.until("audio")
            began = trio.current_time()
            await page.wait(lambda: page.speaker.seconds >= 1)
            assert 1 - 0.16 - 0.1 <= trio.current_time() - began < 3


# --- sessions and who may have them ----------------------------------------------------------


async def test_a_session_is_open_in_one_place():
    """The newer page has it: the older is told, and does not come back by itself."""
    async with (
        served() as server,
        opened(server, "chat") as older,
        opened(server, session_id=older.session_id) as newer,
    ):
        assert await older.end() == 4001
        assert "taken over" in (await older.until("error", code="SESSION_ERROR"))["message"]
        assert newer.all("session")[0]["resumed"] is True
        assert await newer.answer("hello")


async def test_sessions_are_apart():
    """Two pages at a time: neither knows what the other was told."""
    chat = FakeChatModel("One two.")
    async with (
        served(engines={"chat_model": chat}) as server,
        opened(server, "chat") as one,
        opened(server, "chat") as other,
    ):
        assert one.session_id != other.session_id
        await one.answer("my name is Ada")
        await other.answer("who am I")
        assert [m.content for m in chat.asked[1][1] if m.role == "user"] == ["who am I"]


async def test_a_key_is_asked_for_in_the_handshake():
    """And a session belongs to who made it: somebody else gets an error, then one of his own."""
    async with served(api_keys="alice:one,bob:two") as server:
        for path in ("chat", "voice"):
            with pytest.raises(ServerUnreachable, match="401"):
                async with connected(server.ws + path):
                    pass
        async with opened(server, "chat", key="one") as alice:
            mine = alice.session_id
        async with connected(server.ws + "chat", "two") as bob:
            await bob.send("session", session_id=mine)
            assert (await bob.until("error"))["code"] == "SESSION_ERROR"
            await bob.send("message", text="hello")
            session = await bob.until("session")
            assert session["session_id"] != mine
            assert await bob.until("response")


async def test_a_shutdown_lets_replies_end():
    """Then 1001, and the page would come back."""
    draining = trio.Event()
    async with (
        served(draining=draining, engines={"synthesizer": FakeSynthesizer(1.0)}) as server,
        connected(server.ws + "voice") as peer,
    ):
        await peer.send("message", text="hello")
        await peer.until("audio")
        draining.set()
        assert await peer.close_code() == 1001
        assert peer.all("audio_end")
        assert len(peer.pcm) == 32_000


async def test_who_says_nothing_is_closed():
    """1008 after the time for a first message."""
    async with (
        served(first_message_seconds=0.2) as server,
        connected(server.ws + "chat") as peer,
    ):
        assert await peer.close_code() == 1008


async def test_the_profile_is_set_as_configured():
    """The randomness and the length of replies are the server's."""
    config = Config(temperature=0.2, max_tokens=99)
    for channel in Channel:
        profile = configurator_profile(config, channel)
        assert (profile.temperature, profile.max_tokens) == (0.2, 99)
    assert configurator_profile(config, Channel.VOICE).conditioning.adaptive_threshold
    chat = FakeChatModel("One.")
    settings = {"temperature": 0.2, "max_tokens": 99}
    async with (
        served(engines={"chat_model": chat}, **settings) as server,
        opened(server, "chat") as page,
    ):
        await page.answer("hello")
    [asked] = chat.settings
    assert (asked.temperature, asked.max_tokens) == (0.2, 99)


async def test_messages_are_plain_json():
    """As any page reads them: one object, characters as they are."""
    async with (
        served(engines={"chat_model": FakeChatModel("Grüß dich 🙂.")}) as server,
        connected(server.ws + "chat") as peer,
    ):
        await peer.send("message", text="hello")
        await peer.until("response")
        assert "Grüß dich 🙂." in json.dumps(peer.got, ensure_ascii=False)
