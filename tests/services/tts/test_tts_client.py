"""A TTS service as a Synthesizer: the same audio, lost and found, cancelled, and shared."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection
from tts_stage import SteppedVoice, chunk_of, serving, start, whole

from listenai.engines.base import SpeechChunk, Synthesizer, WordTiming
from listenai.engines.espeak import EspeakSynthesizer
from listenai.errors import ConfigurationError, SynthesizerAway, SynthesizerError
from listenai.services.sockets import LOST, accept_socket
from listenai.services.tts import link
from listenai.services.tts.client import MAX_IDLE_LINKS, TtsServiceSynthesizer
from listenai.services.tts.link import LinkDeadlines, Speech
from listenai.services.tts.messages import Reply, Start

pytestmark = pytest.mark.usefixtures("nothing_left")


@asynccontextmanager
async def speaking(*urls: str, **options: Any) -> AsyncIterator[TtsServiceSynthesizer]:
    """A client that keeps its connections, and knows the first service."""
    client = TtsServiceSynthesizer(urls, random=random.Random(0), **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with trio.fail_after(8):
            await client.ready(5)
            yield client
        nursery.cancel_scope.cancel()


async def say(
    synthesizer: Synthesizer, text: str, voice_id: str = "default", language: str = "en"
) -> list[SpeechChunk]:
    """Every chunk of a sentence."""
    async with synthesizer.open_speech(text, voice_id=voice_id, language=language) as chunks:
        return [chunk async for chunk in chunks]


async def listen(
    synthesizer: Synthesizer, heard: list[bytes], after: Callable[[int], Awaitable[None]]
) -> None:
    """Hears a sentence; `after(n)` is called when n chunks were heard."""
    async with synthesizer.open_speech("Hi.", voice_id="default", language="en") as chunks:
        async for chunk in chunks:
            heard.append(chunk.pcm)
            await after(len(heard))


async def nothing(_count: int) -> None:
    """What is done after a chunk, ordinarily."""


def pcm(chunks: Sequence[SpeechChunk]) -> bytes:
    return b"".join(chunk.pcm for chunk in chunks)


def words(chunks: Sequence[SpeechChunk]) -> list[WordTiming]:
    return [word for chunk in chunks for word in chunk.words]


async def until(condition: Callable[[], object]) -> None:
    """Lets everything else go on until it is so."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what the other side of a socket does
            await trio.sleep(0.001)


# --- one service -------------------------------------------------------------------------


async def test_it_speaks_as_the_engine_behind_it() -> None:
    """Voices, rate, and every chunk with its words are those of the engine."""
    voice = SteppedVoice()
    text = "To be, or not to be: that is 1 question, or 2."
    async with serving(voice) as service, speaking(service.url) as client:
        assert client.sample_rate == voice.sample_rate
        assert client.voices == voice.voices
        assert await say(client, text) == await say(voice, text)


class Recorded(EspeakSynthesizer):
    """espeak-ng, never twice quite the same, and what it has said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[SpeechChunk] = []

    @asynccontextmanager
    async def open_speech(
        self, text: str, *, voice_id: str, language: str
    ) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        speech = super().open_speech(text, voice_id=voice_id, language=language)
        async with speech as chunks:
            self.said = [chunk async for chunk in chunks]
        yield chunks_of(self.said)


async def chunks_of(said: Sequence[SpeechChunk]) -> AsyncIterator[SpeechChunk]:
    for chunk in said:
        yield chunk


@pytest.mark.parametrize("mode", ["streaming", "full"])
@pytest.mark.engines
async def test_espeak_behind_a_service_is_espeak(mode: str) -> None:
    """The audio and word timings that the engine has made, to the byte and the sample."""
    espeak = Recorded()
    async with serving(espeak) as service, speaking(service.url, mode=mode) as client:
        for text, voice_id, language in [
            ("Hello there. I'm 25 years old, and you?", "default", "en"),
            ('He said "the cat, the catalogue, the cat".', "en-gb+f3", "en"),
            ("你好，今天天气怎么样？", "doubao-通用女声", "zh"),
        ]:
            heard = await say(client, text, voice_id, language)
            assert pcm(heard) == pcm(espeak.said) != b""
            assert words(heard) == words(espeak.said) != []
        assert await say(client, "...") == []


async def test_a_mistake_of_ours_costs_a_connection_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a connection raises is told in the log; the next sentence has another."""
    mistakes = iter([RuntimeError("ours")])
    decode = link.decode_reply

    def decode_amiss(text: str) -> Reply:
        reply = decode(text)
        if isinstance(reply, Start) and (mistake := next(mistakes, None)):
            raise mistake
        return reply

    monkeypatch.setattr(link, "decode_reply", decode_amiss)
    voice = SteppedVoice()
    async with serving(voice) as service, speaking(service.url) as client:
        with pytest.raises(SynthesizerAway):
            await say(client, "Hi.")
        await client.ready(5)
        assert await say(client, "Hi.") == await say(voice, "Hi.")
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage().startswith("tts_connection_failed")
    assert record.exc_info


async def test_text_that_no_request_may_hold_is_mended() -> None:
    """Control characters and half characters become blanks; a blank text is silence."""
    voice = SteppedVoice()
    async with serving(voice) as service, speaking(service.url) as client:
        assert words(await say(client, "a\0 b\ud800")) == [
            WordTiming(0, 1, 0),
            WordTiming(3, 4, 37),
        ]
        assert await say(client, " \n\0") == []
    assert voice.spoken == ["a  b "]


async def test_what_the_service_cannot_say_is_told() -> None:
    """Unknown voices, long texts and engine errors are SynthesizerError in the service's words."""
    voice = SteppedVoice()
    async with serving(voice) as service, speaking(service.url) as client:
        with pytest.raises(SynthesizerError, match="no voice 'x'; choose one of default, deep"):
            await say(client, "Hello.", "x")
        with pytest.raises(SynthesizerError, match="at most 2000 characters"):
            await say(client, "Hello. " * 300)
        voice.fail_first = SynthesizerError("out of memory")
        with pytest.raises(SynthesizerError, match="out of memory") as raised:
            await say(client, "Hello.")
        assert not isinstance(raised.value, SynthesizerAway)
        voice.fail_first = None
        voice.fail = SynthesizerError("lost the thread")
        heard: list[bytes] = []
        with pytest.raises(SynthesizerError, match="lost the thread"):
            await listen(client, heard, nothing)
        assert heard == [chunk_of("Hi.", 0)]
        voice.fail = None
        assert pcm(await say(client, "Hello.")) == whole(voice, "Hello.")


async def test_a_sentence_that_is_left_is_cancelled_there() -> None:
    """Leaving does not wait; the engine stops, and the next sentence has nothing of the old one."""
    voice = SteppedVoice(chunks=10_000, steps=trio.Semaphore(0))
    async with serving(voice) as service, speaking(service.url) as client:
        assert voice.steps
        for number in range(5):
            text = f"Story {number}."
            voice.steps.release()
            async with client.open_speech(text, voice_id="default", language="en") as chunks:
                assert (await anext(chunks)).pcm == chunk_of(text, 0)
                voice.steps.release()
                voice.steps.release()
            await until(lambda: len(voice.left) == number + 1)  # noqa: B023
        voice.steps, voice.chunks = None, 3
        assert pcm(await say(client, "The end.")) == whole(voice, "The end.")


async def test_leaving_frees_the_connection_after_it_was_cancelled() -> None:
    """Until the engine was left another connection is used; afterwards the same one again."""
    connections = []
    may_cancel = trio.Event()

    async def converse(socket: WebSocketConnection) -> None:
        connections.append(socket)
        await tell(socket, "ready", voices={"default": ""}, sample_rate=16_000)
        while True:
            asked = json.loads(await socket.get_message())
            about = {"request_id": asked["request_id"]}
            if asked["type"] == "cancel":
                await socket.send_message(b"old!")  # was on its way
                await tell(socket, "end", duration_ms=1, **about)
                await may_cancel.wait()
                await tell(socket, "cancelled", **about)
                continue
            await tell(socket, "start", sample_rate=16_000, channels=1, format="pcm_s16le", **about)
            await socket.send_message(asked["text"].encode())
            if asked["text"] != "leave":
                await tell(socket, "end", duration_ms=1, **about)

    async with scripted(converse) as url, speaking(url) as client:
        async with client.open_speech("leave", voice_id="default", language="en") as chunks:
            assert (await anext(chunks)).pcm == b"leave"
        assert isinstance(chunks, Speech)
        await until(lambda: chunks.over)  # the old `end` has come
        assert pcm(await say(client, "next")) == b"next"
        may_cancel.set()
        for _ in range(10):
            assert pcm(await say(client, "more")) == b"more"
    assert len(connections) <= 3  # the first, one for `next`, and perhaps a warm one


async def test_a_crowd_s_connections_are_closed_when_it_has_gone() -> None:
    """Each sentence has a connection of its own; a few are kept."""
    voice = SteppedVoice(chunks=1, instances=20, steps=trio.Semaphore(0))
    async with serving(voice) as service, speaking(service.url) as client:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(say, client, f"Sentence {number}.")
            await until(lambda: voice.alive == 20)
            assert voice.steps
            for _ in range(20):
                voice.steps.release()
        line = client._lines[0]
        await until(lambda: len(line.links) == len(line.idle) == MAX_IDLE_LINKS)
        assert line.upstream.load == 0


async def test_streams_never_share_an_instance() -> None:
    """Eight streams on a pool of two: each sounds as if it were alone."""
    voice = SteppedVoice(chunks=20, instances=2)  # it asserts that no instance is shared
    heard: dict[str, bytes] = {}

    async def hear(client: TtsServiceSynthesizer, text: str) -> None:
        heard[text] = pcm(await say(client, text))

    texts = [f"Sentence {number}." for number in range(8)]
    async with (
        serving(voice) as service,
        speaking(service.url) as client,
        trio.open_nursery() as nursery,
    ):
        for text in texts:
            nursery.start_soon(hear, client, text)
    assert heard == {text: whole(voice, text) for text in texts}
    assert voice.most_alive == 2


# --- a service that goes and comes ---------------------------------------------------------


async def test_nobody_there_is_told_at_once() -> None:
    """SynthesizerAway names the URL and the problem, without its secrets."""
    client = TtsServiceSynthesizer(["ws://me:pass@127.0.0.1:9/tts?key=1"], random=random.Random(0))
    with pytest.raises(SynthesizerAway, match="no connection yet"):
        assert client.sample_rate
    assert client.voices == {}
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with pytest.raises(SynthesizerAway, match=r"no connection to ws://127.0.0.1:9/tts.*; wait"):
            await client.ready(0.1)
        with pytest.raises(SynthesizerAway):
            assert client.sample_rate
        nursery.cancel_scope.cancel()


async def test_a_server_may_start_before_its_service() -> None:
    """`ready` waits until the service is there."""
    async with trio.open_nursery() as nursery:
        service = await start(nursery, SteppedVoice())
        await service.stop()
        client = TtsServiceSynthesizer([service.url], random=random.Random(0))
        await nursery.start(client.run)
        with pytest.raises(SynthesizerAway):
            await client.ready(0.05)
        await start(nursery, SteppedVoice(), port=service.port)
        await client.ready(10)
        assert pcm(await say(client, "Hi.")) == whole(SteppedVoice(), "Hi.")
        nursery.cancel_scope.cancel()


async def test_a_service_that_stops_in_mid_sentence_is_away() -> None:
    """What had come is heard first; started again on its port, it is used without more ado."""
    voice = SteppedVoice(steps=trio.Semaphore(2))
    async with trio.open_nursery() as nursery:
        service = await start(nursery, voice)
        async with speaking(service.url) as client:
            heard: list[bytes] = []

            async def stop(count: int) -> None:
                if count == 2:
                    await service.stop()

            with pytest.raises(SynthesizerAway, match="is away: the connection was closed"):
                await listen(client, heard, stop)
            assert heard == [chunk_of("Hi.", 0), chunk_of("Hi.", 1)]
            with pytest.raises(SynthesizerAway):
                await say(client, "Hello?")
            voice.steps = None
            again = await start(nursery, voice, port=service.port)
            await until(lambda: client._lines[0].idle)
            assert pcm(await say(client, "Hi.")) == whole(voice, "Hi.")
            await again.stop()


SERVICE = """
import sys, trio
from listenai.engines.timed import TimedSynthesizer
from listenai.services.tts.server import serve_tts
async def main():
    async with trio.open_nursery() as nursery:
        synthesizer = TimedSynthesizer(int(sys.argv[2]))
        from functools import partial
        urls = await nursery.start(partial(serve_tts, synthesizer, port=int(sys.argv[1])))
        print(urls[0], flush=True)
trio.run(main)
"""


@asynccontextmanager
async def process(port: int, audio_ms: int) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A service in a process of its own: its URL, and what kills it."""
    command = [sys.executable, "-c", SERVICE, str(port), str(audio_ms)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, stdout=subprocess.PIPE, check=False)
        running: trio.Process = await nursery.start(run, command)
        assert running.stdout
        url = b""
        while not url.endswith(b"\n"):
            url += await running.stdout.receive_some(1)
        yield url.decode().strip(), partial(running.send_signal, signal.SIGKILL)
        running.send_signal(signal.SIGKILL)


async def test_a_process_that_is_killed_is_away_until_it_is_back() -> None:
    """SIGKILL in mid sentence, and started again on the same port: no new client."""
    async with process(0, 20_000) as (url, kill), speaking(url) as client:

        async def kill_it(_count: int) -> None:
            kill()

        with pytest.raises(SynthesizerAway):
            await listen(client, [], kill_it)
        port = int(url.split(":")[2].removesuffix("/tts"))
        async with process(port, 500):
            await until(lambda: client._lines[0].idle)
            assert len(pcm(await say(client, "Hello."))) == 500 * 32


# --- several services ----------------------------------------------------------------------


async def test_the_least_loaded_service_is_asked() -> None:
    """Sentences spread over two services."""
    voices = [SteppedVoice(steps=trio.Semaphore(0)) for _ in range(2)]
    async with (
        serving(voices[0]) as one,
        serving(voices[1]) as other,
        speaking(one.url, other.url) as client,
        trio.open_nursery() as nursery,
    ):
        await until(lambda: all(line.idle for line in client._lines))
        for number in range(6):
            nursery.start_soon(say, client, f"Sentence {number}.")
        await until(lambda: sum(voice.alive for voice in voices) == 6)
        assert [voice.alive for voice in voices] == [3, 3]
        nursery.cancel_scope.cancel()


async def test_another_service_takes_over_before_anything_was_heard() -> None:
    """The first fails in any way; the listener does not notice, and it rests."""
    broken, well = SteppedVoice(fail_first=SynthesizerError("no memory")), SteppedVoice()
    async with (
        serving(broken) as one,
        serving(well) as other,
        speaking(one.url, other.url) as client,
    ):
        await until(lambda: all(line.idle for line in client._lines))
        for _ in range(5):
            assert pcm(await say(client, "Hello.")) == whole(well, "Hello.")
        assert len(broken.spoken) < 5
        assert len(well.spoken) == 5
        await one.stop()
        assert pcm(await say(client, "Hello.")) == whole(well, "Hello.")
        well.fail_first = SynthesizerError("no voice")
        with pytest.raises(SynthesizerError, match="no voice"):
            await say(client, "Hello.")


async def test_a_dying_service_costs_the_listener_nothing() -> None:
    """It dies between the request and the first audio: the other one speaks."""
    dying, well = SteppedVoice(steps=trio.Semaphore(0)), SteppedVoice()
    async with (
        serving(dying) as one,
        serving(well) as other,
        speaking(one.url, other.url) as client,
        trio.open_nursery() as nursery,
    ):
        await until(lambda: all(line.idle for line in client._lines))
        client._lines[1].upstream.load += 1  # so that the first one is asked

        async def die() -> None:
            await until(lambda: dying.alive)
            await one.stop()

        nursery.start_soon(die)
        assert pcm(await say(client, "Hello.")) == whole(well, "Hello.")
        assert dying.left == ["Hello."]


async def test_a_service_with_another_rate_is_refused() -> None:
    """It is told why, and the others go on; alone, it is taken as it is."""
    ordinary, fast = SteppedVoice(), SteppedVoice(sample_rate=24_000)
    async with (
        serving(ordinary) as one,
        speaking(one.url, "ws://127.0.0.1:9/tts") as client,
        trio.open_nursery() as nursery,
    ):
        other = await start(nursery, fast)
        line = client._lines[1]
        line.upstream.url = other.url
        await until(
            lambda: "it speaks at 24000 Hz and the others at 16000" in line.upstream.problem
        )
        assert pcm(await say(client, "Hello.")) == whole(ordinary, "Hello.")
        assert client.sample_rate == 16_000
        await one.stop()
        await until(lambda: line.idle)
        assert client.sample_rate == 24_000
        assert pcm(await say(client, "Hello.")) == whole(fast, "Hello.")
        nursery.cancel_scope.cancel()


async def test_the_voices_are_those_that_all_services_have() -> None:
    """Any service may be asked for any of them."""
    few = SteppedVoice(voices={"deep": "D"})
    async with (
        serving(SteppedVoice()) as one,
        serving(few) as other,
        speaking(one.url, other.url) as client,
    ):
        await until(lambda: all(line.idle for line in client._lines))
        assert client.voices == {"deep": "D"}


# --- services that do not do as they should ------------------------------------------------


async def tell(socket: WebSocketConnection, kind: str, **fields: Any) -> None:
    await socket.send_message(json.dumps({"type": kind, **fields}))


@asynccontextmanager
async def scripted(
    converse: Callable[[WebSocketConnection], Awaitable[None]],
) -> AsyncIterator[str]:
    """A service that does as the test says; its URL."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with accept_socket(
                stream, path="/tts", seconds=5, max_message_bytes=1 << 16
            ) as socket:
                await converse(socket)
        except* LOST:
            pass

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        yield f"ws://127.0.0.1:{port}/tts"
        nursery.cancel_scope.cancel()


def after_ready(
    answer: Callable[[WebSocketConnection, str], Awaitable[None]],
) -> Callable[[WebSocketConnection], Awaitable[None]]:
    """A service that gets ready, and answers every message by `answer(socket, request_id)`."""

    async def converse(socket: WebSocketConnection) -> None:
        await tell(socket, "ready", voices={"default": ""}, sample_rate=16_000)
        while True:
            request_id = json.loads(await socket.get_message())["request_id"]
            await answer(socket, request_id)

    return converse


async def test_silence_has_an_end() -> None:
    """A service that says nothing for too long is an error of this sentence."""

    async def begin_only(socket: WebSocketConnection, request_id: str) -> None:
        await tell(socket, "start", request_id=request_id, sample_rate=16_000)

    deadlines = LinkDeadlines(silence=0.1)
    async with (
        scripted(after_ready(begin_only)) as url,
        speaking(url, deadlines=deadlines) as client,
    ):
        with pytest.raises(SynthesizerError, match=r"has sent nothing for 0\.1 s"):
            await say(client, "Hello.")


async def test_a_service_that_does_not_cancel_is_left() -> None:
    """Its connection is given up, and another one made."""

    async def never_end(socket: WebSocketConnection, request_id: str) -> None:
        await socket.send_message(b"aa")

    deadlines = LinkDeadlines(cancel=0.1)
    async with (
        scripted(after_ready(never_end)) as url,
        speaking(url, deadlines=deadlines) as client,
    ):
        async with client.open_speech("Hello.", voice_id="default", language="en") as chunks:
            await anext(chunks)
            link = next(link for link in client._lines[0].links if link._speech)
        await until(lambda: link not in client._lines[0].links)
        assert "did not cancel in 0.1 s" in client._lines[0].upstream.problem
        assert client._lines[0].upstream.load == 0


async def test_a_service_that_answers_no_pings_is_away() -> None:
    """A connection that has died without a word is noticed in mid sentence."""

    async def freeze(socket: WebSocketConnection, request_id: str) -> None:
        socket._reader_running = False  # its library reads no more
        await trio.sleep_forever()

    deadlines = LinkDeadlines(ping_interval=0.02, ping_timeout=0.1)
    async with scripted(after_ready(freeze)) as url, speaking(url, deadlines=deadlines) as client:
        with pytest.raises(SynthesizerAway, match="does not answer pings"):
            await say(client, "Hello.")


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"aa" * 16_000 * 121, "takes more than 120 s to say"),
        ("nonsense", "it broke the protocol: not JSON"),
        ('{"type":"start","request_id":"1","sample_rate":8000}', "8000 Hz, though"),
        ('{"type":"error","code":"BUSY","message":"too many"}', "too many"),
        ('{"type":"error","code":"TTS_ERROR","message":"out of order"}', "out of order"),
    ],
    ids=["endless", "nonsense", "rate", "busy", "error"],
)
async def test_strange_answers_are_errors(message: str | bytes, problem: str) -> None:
    """Each in words, and as a SynthesizerError."""

    async def answer(socket: WebSocketConnection, request_id: str) -> None:
        await socket.send_message(message)

    async with scripted(after_ready(answer)) as url, speaking(url) as client:
        with pytest.raises(SynthesizerError, match=problem):
            await say(client, "Hello.")


async def test_audio_that_nobody_asked_for_ends_the_connection() -> None:
    """It could be of anybody."""

    async def converse(socket: WebSocketConnection) -> None:
        await tell(socket, "ready", voices={}, sample_rate=16_000)
        await socket.send_message(b"aa")
        await trio.sleep_forever()

    async with scripted(converse) as url, speaking(url) as client:
        await until(lambda: "audio that nobody asked for" in client._lines[0].upstream.problem)


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ('{"type":"error","code":"MODEL_NOT_READY","message":"still loading"}', "still loading"),
        ("hello", "it is no TTS service: not JSON"),
        ('{"type":"voices","voices":{}}', "it did not get ready in time"),
    ],
    ids=["loading", "stranger", "late"],
)
async def test_who_is_not_ready_is_away(first: str, problem: str) -> None:
    """With what it said."""

    async def converse(socket: WebSocketConnection) -> None:
        await socket.send_message(first)
        await trio.sleep_forever()

    deadlines = LinkDeadlines(connect=0.1)
    async with scripted(converse) as url, trio.open_nursery() as nursery:
        client = TtsServiceSynthesizer([url], random=random.Random(0), deadlines=deadlines)
        await nursery.start(client.run)
        await until(lambda: problem in client._lines[0].upstream.problem)
        with pytest.raises(SynthesizerAway, match=problem):
            await client.ready(0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("urls", [[], ["http://127.0.0.1:9300/tts"]])
async def test_urls_that_are_none_are_refused(urls: list[str]) -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigurationError):
        TtsServiceSynthesizer(urls, random=random.Random(0))
