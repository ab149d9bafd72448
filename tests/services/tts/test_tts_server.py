"""The TTS service as a client sees it, through real sockets."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio_websocket import ConnectionClosed
from tts_stage import CHUNK_SAMPLES, SteppedVoice, chunk_of, peer, serving, stranger, whole

from listenai.errors import ConfigurationError, SynthesizerError
from listenai.services.tts.server import TtsDeadlines, serve_tts

pytestmark = pytest.mark.usefixtures("nothing_left")


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


async def get(port: int, path: str, headers: str = "") -> tuple[int, bytes]:
    """Status and body of an HTTP request."""
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                answer += data
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


async def test_a_text_is_spoken_as_it_is_made() -> None:
    """`ready`, then `start`, the words, each chunk, and `end` with the length of it all."""
    voice = SteppedVoice(chunks=3)
    async with serving(voice) as service, stranger(service.url) as client:
        voices = {"default": "a voice", "deep": "D"}
        assert await client.hear() == {"type": "ready", "voices": voices, "sample_rate": 16_000}
        await client.ask("r1", "Hello you.")
        start = {"sample_rate": 16_000, "channels": 1, "format": "pcm_s16le"}
        words = [{"text": "Hello", "start_ms": 0.0}, {"text": "you.", "start_ms": 2.312}]
        assert await client.hear_until("end") == [
            {"type": "start", "request_id": "r1", **start},
            {"type": "words", "request_id": "r1", "words": words},
            *(chunk_of("Hello you.", index) for index in range(3)),
            {"type": "end", "request_id": "r1", "duration_ms": 3 * CHUNK_SAMPLES / 16},
        ]


async def test_a_text_is_spoken_whole() -> None:
    """In mode "full" all audio is one message, and the engine is free before it is sent."""
    voice = SteppedVoice()
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.", mode="full")
        *told, audio, end = await client.hear_until("end")
        assert [message["type"] for message in told] == ["start", "words"]
        assert audio == whole(voice, "Hello.")
        assert end["duration_ms"] == voice.chunks * CHUNK_SAMPLES / 16


async def test_requests_wait_for_their_turn() -> None:
    """One after the other, in their order, none mixed with another."""
    voice = SteppedVoice()
    async with serving(voice) as service, peer(service.url) as client:
        texts = [f"Sentence {index}." for index in range(9)]
        for index, text in enumerate(texts):
            await client.ask(f"{index}", text)
        for index, text in enumerate(texts):
            start, _words, *audio, end = await client.hear_until("end")
            assert start["request_id"] == end["request_id"] == f"{index}"
            assert b"".join(audio) == whole(voice, text)
    assert voice.most_alive == 1


async def test_the_tenth_request_is_one_too_many() -> None:
    """One speaks and eight wait; the next is BUSY, and those before it go on."""
    voice = SteppedVoice(chunks=1, steps=trio.Semaphore(0))
    async with serving(voice) as service, peer(service.url) as client:
        for index in range(10):
            await client.ask(f"{index}", "Hello.")
        failure = (await client.hear_until("error"))[-1]
        assert (failure["code"], failure["request_id"]) == ("BUSY", "9")
        assert "8 requests wait already" in failure["message"]
        assert voice.steps
        for index in range(9):
            voice.steps.release()
            assert (await client.hear_until("end"))[-1]["request_id"] == f"{index}"


async def test_cancelled_while_it_is_spoken() -> None:
    """The engine is left within one chunk, then `cancelled` comes, and no chunk after it."""
    voice = SteppedVoice(chunks=1000, steps=trio.Semaphore(3))
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "A long story.")
        while not isinstance(await client.hear(), bytes):
            pass
        await client.say("cancel", request_id="r1")
        *_, cancelled = await client.hear_until("cancelled")
        assert cancelled["request_id"] == "r1"
        assert voice.left == ["A long story."]
        assert voice.alive == 0
        assert voice.steps
        for _ in range(2000):
            voice.steps.release()
        await client.ask("r2", "Next.")
        heard = await client.hear_until("end")
        assert heard[0]["request_id"] == "r2"
        assert b"".join(heard[2:-1]) == whole(voice, "Next.")


async def test_cancelled_before_its_turn() -> None:
    """A request that waits is forgotten at once; the one that is spoken goes on."""
    voice = SteppedVoice(chunks=2, steps=trio.Semaphore(0))
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "First.")
        await client.ask("r2", "Second.")
        await client.say("cancel", request_id="r2")
        assert (await client.hear_until("cancelled"))[-1]["request_id"] == "r2"
        assert voice.steps
        voice.steps.release()
        voice.steps.release()
        assert (await client.hear_until("end"))[-1]["request_id"] == "r1"
        assert voice.spoken == ["First."]


async def test_what_is_over_is_cancelled_too() -> None:
    """Every cancel is answered, so that nobody has to know who was quicker."""
    async with serving(SteppedVoice()) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.")
        await client.hear_until("end")
        await client.say("cancel", request_id="r1")
        assert await client.hear() == {"type": "cancelled", "request_id": "r1"}


async def test_voices_are_told() -> None:
    """`voices` lists ids and what they are."""
    async with serving(SteppedVoice()) as service, peer(service.url) as client:
        await client.say("voices")
        assert await client.hear() == {
            "type": "voices",
            "voices": {"default": "a voice", "deep": "D"},
        }


async def test_bad_requests_are_told_and_forgiven() -> None:
    """The error says what is allowed, with the request's id, and the connection goes on."""
    voice = SteppedVoice(chunks=1, steps=trio.Semaphore(0))
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.", voice_id="shrill")
        assert await client.hear() == {
            "type": "error",
            "code": "INVALID_MESSAGE",
            "message": "there is no voice 'shrill'; choose one of default, deep",
            "request_id": "r1",
        }
        await client.socket.send_message(b"audio")
        assert (
            "audio is binary, and comes from the service only" in (await client.hear())["message"]
        )
        await client.ask("r1", "\0")
        assert (await client.hear())["request_id"] == "r1"
        await client.ask("r2", "Hello.")
        await client.ask("r2", "Hello again.")
        failure = (await client.hear_until("error"))[-1]
        assert failure["message"] == "a request with this id is not over yet"
        assert voice.steps
        voice.steps.release()
        assert (await client.hear_until("end"))[-1]["request_id"] == "r2"


async def test_an_engine_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """TTS_ERROR with the engine's own words; the text is in no log."""
    voice = SteppedVoice(fail=SynthesizerError("out of memory"))
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "A secret.")
        failure = (await client.hear_until("error"))[-1]
        assert failure == {
            "type": "error",
            "code": "TTS_ERROR",
            "message": "out of memory",
            "request_id": "r1",
        }
        voice.fail = None
        await client.ask("r2", "Hello.")
        await client.hear_until("end")
    assert "secret" not in caplog.text


async def test_a_bug_ends_its_own_connection(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, its client is told 1011, and nobody else notices."""
    voice = SteppedVoice(chunks=1, fail=RuntimeError("a bug"))
    async with (
        serving(voice) as service,
        peer(service.url) as other,
        peer(service.url) as client,
    ):
        await client.ask("r1", "Hello.")
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear_until("end")
        assert closed.value.reason
        assert closed.value.reason.code == 1011
        voice.fail = None
        await other.ask("r1", "Hello.")
        await other.hear_until("end")
    assert "tts_connection_failed" in caplog.text


async def test_a_model_that_loads_is_waited_for() -> None:
    """MODEL_NOT_READY at first, `ready` when it has loaded; `/health` says the same."""
    loaded = trio.Event()
    async with (
        serving(SteppedVoice(), loaded=loaded) as service,
        stranger(service.url) as client,
    ):
        assert (await client.hear())["code"] == "MODEL_NOT_READY"
        status, body = await get(service.port, "/health")
        assert (status, body) == (503, b'{"status": "loading", "connections": 1}\n')
        loaded.set()
        assert (await client.hear())["type"] == "ready"
        status, body = await get(service.port, "/health")
        assert (status, body) == (200, b'{"status": "ok", "connections": 1}\n')


async def test_other_paths_are_refused() -> None:
    """The answer to a handshake elsewhere is a 404; to plain HTTP, an error of the client's."""
    deadlines = TtsDeadlines(handshake=0.3)
    async with serving(SteppedVoice(), deadlines=deadlines) as service:
        status, body = await get(service.port, "/asr", UPGRADE)
        assert (status, body) == (404, b"there is /tts here, and no more")
        assert (await get(service.port, "/tts"))[0] == 400


async def test_too_many_connections_are_told_to_come_back() -> None:
    """The one too many is closed with 1013; after one has left there is room again."""
    async with serving(SteppedVoice(), max_connections=1) as service:
        async with peer(service.url), stranger(service.url) as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.hear()
            assert closed.value.reason
            assert closed.value.reason.code == 1013
        async with peer(service.url):
            pass


async def test_a_service_that_stops_says_goodbye() -> None:
    """1001, in mid sentence too; the engine is left."""
    voice = SteppedVoice(steps=trio.Semaphore(1))
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.")
        await client.hear()
        await service.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear_until("end")
        assert closed.value.reason
        assert closed.value.reason.code == 1001
    assert voice.left == ["Hello."]


async def test_a_client_that_leaves_frees_the_engine() -> None:
    """Also without a goodbye."""
    voice = SteppedVoice(steps=trio.Semaphore(1))
    async with serving(voice) as service:
        async with peer(service.url) as client:
            await client.ask("r1", "Hello.")
            await client.hear()
            await trio.aclose_forcefully(client.socket._stream)
        assert await voice.given_back() == ["Hello."]


async def test_a_client_that_reads_nothing_frees_the_engine() -> None:
    """A message that is not taken in time ends the connection."""
    voice = SteppedVoice(chunks=1 << 20)
    deadlines = TtsDeadlines(stall=0.1)
    async with serving(voice, deadlines=deadlines) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.")
        assert await voice.given_back() == ["Hello."]


async def test_a_port_in_use_is_told() -> None:
    """With what can be done about it."""
    async with serving(SteppedVoice()) as service:
        with pytest.raises(ConfigurationError, match=f"port {service.port}.*choose another port"):
            await serve_tts(SteppedVoice(), port=service.port)


class TunedVoice(SteppedVoice):
    """A voice with parameters; remembers with which it was asked for."""

    asked: dict[str, object]

    def tuned(self, **parameters: object) -> SteppedVoice:
        self.asked = parameters
        return SteppedVoice(chunks=2)


async def test_parameters_reach_an_engine_that_has_them() -> None:
    """cfg_value, inference_timesteps and style; other engines do not look at them."""
    voice = TunedVoice()
    parameters = {"cfg_value": 2.5, "inference_timesteps": 12, "style": "calm"}
    async with serving(voice) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.", **parameters)
        assert (await client.hear_until("end"))[-1]["duration_ms"] == 2 * CHUNK_SAMPLES / 16
    assert voice.asked == parameters
    async with serving(SteppedVoice()) as service, peer(service.url) as client:
        await client.ask("r1", "Hello.", **parameters)
        await client.hear_until("end")


async def test_the_service_pings() -> None:
    """A client that answers no pings, because it has gone without a word, loses its engine."""
    voice = SteppedVoice(steps=trio.Semaphore(0))
    deadlines = TtsDeadlines(ping_interval=0.01, ping_timeout=0.1)
    async with (
        serving(voice, deadlines=deadlines) as service,
        await trio.open_tcp_stream("127.0.0.1", service.port) as silent,
    ):
        await silent.send_all(f"GET /tts HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
        while b"ready" not in await silent.receive_some():
            pass
        ask = '{"type":"synthesize","request_id":"1","text":"Hi.","voice_id":"default"}'
        await silent.send_all(bytes([0x81, 0x80 | len(ask), 0, 0, 0, 0]) + ask.encode())
        assert await voice.given_back() == ["Hi."]
