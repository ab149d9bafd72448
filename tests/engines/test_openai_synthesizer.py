"""Speech synthesis by OpenAI-compatible servers, against one on a real socket."""

from __future__ import annotations

import gc
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
import trio
from openai_audio_server import (
    RATE,
    Answer,
    all_over,
    open_audio_server,
    pieces_of,
    speaking,
    speaking_wav,
    speech_of,
    wav_of,
)
from openai_server import NEVER, Cut, Sleep, refusing

from listenai.engines.base import SpeechChunk, Synthesizer
from listenai.engines.openai_synthesizer import (
    MAX_SENTENCE_SECONDS,
    OpenAISynthesizer,
    PcmReader,
)
from listenai.engines.upstreams import FAILURES_TO_OPEN, BreakerState, Upstream
from listenai.errors import ConfigurationError, SynthesizerAway, SynthesizerError

KEY = "sk-test-0123456789abcdef"
TIMEOUT_SECONDS = 10.0
TEXT = "The weather is fine."
SPEECH = speech_of(TEXT)
VOICES = {"bella": "warm, female"}


@pytest.fixture
def mock_time(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time that passes only while nothing moves; real sockets take part."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


@asynccontextmanager
async def synthesizer(
    *urls: str, api_key: str = "", sample_rate: int = RATE
) -> AsyncIterator[OpenAISynthesizer]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield OpenAISynthesizer(
            client,
            [Upstream(url) for url in urls],
            model="tts-1",
            voice="alloy",
            random=random.Random(1),
            api_key=api_key,
            timeout_seconds=TIMEOUT_SECONDS,
            sample_rate=sample_rate,
            voices=VOICES,
        )
    gc.collect()  # a generator that nobody closed would warn now


async def collect(
    asked: Synthesizer, chunks: list[bytes], text: str = TEXT, voice_id: str = "default"
) -> None:
    """Speaks, and keeps what comes before it goes wrong."""
    async with asked.open_speech(text, voice_id=voice_id, language="en") as speech:
        async for chunk in speech:
            assert isinstance(chunk, SpeechChunk)
            assert chunk.pcm
            assert len(chunk.pcm) % 2 == 0
            chunks.append(chunk.pcm)


async def speak(asked: Synthesizer, text: str = TEXT, voice_id: str = "default") -> bytes:
    """All audio of a sentence."""
    chunks: list[bytes] = []
    await collect(asked, chunks, text, voice_id)
    return b"".join(chunks)


async def failing(asked: Synthesizer, chunks: list[bytes] | None = None) -> SynthesizerError:
    """The error that a sentence ends with."""
    with pytest.raises(SynthesizerError) as caught:
        await collect(asked, [] if chunks is None else chunks)
    return caught.value


async def refused(asked: Synthesizer) -> str:
    """The words of an error that will not pass, before any audio."""
    chunks: list[bytes] = []
    error = await failing(asked, chunks)
    assert not isinstance(error, SynthesizerAway), error
    assert chunks == []
    return str(error)


async def away(asked: Synthesizer, chunks: list[bytes] | None = None) -> str:
    """The words of an error that may pass."""
    error = await failing(asked, chunks)
    assert isinstance(error, SynthesizerAway), error
    return str(error)


@contextmanager
def nobody() -> Iterator[str]:
    """A URL that is kept from everyone, so that nobody answers there."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


# --- what is asked -----------------------------------------------------------------------


async def test_a_sentence_is_one_request() -> None:
    """For a stream of raw PCM, with the model, the voice and the key."""
    async with (
        open_audio_server(api_key=KEY) as server,
        synthesizer(f"{server.url}/v1", api_key=KEY) as asked,
    ):
        assert await speak(asked) == SPEECH
        assert asked.sample_rate == RATE
    (request,) = server.requests
    assert request.fields == {
        "model": "tts-1",
        "input": TEXT,
        "voice": "alloy",
        "response_format": "pcm",
        "stream": True,
    }


@pytest.mark.parametrize(
    ("voice_id", "sent"),
    [
        ("default", "alloy"),
        ("doubao-通用女声", "alloy"),
        ("alloy", "alloy"),
        ("bella", "bella"),
        ("unlisted", "unlisted"),
    ],
)
async def test_voices(voice_id: str, sent: str) -> None:
    """Those that work everywhere are the configured one; the server knows its own."""
    async with open_audio_server() as server, synthesizer(server.url) as asked:
        await speak(asked, voice_id=voice_id)
        assert (voice_id in asked.voices) == (voice_id != "unlisted")
        assert asked.voices["bella"] == VOICES["bella"]
    assert server.requests[0].fields["voice"] == sent


@pytest.mark.parametrize("text", ["", " \n", "…", "🙂!"])
async def test_a_text_without_words_is_silence(text: str) -> None:
    """Nobody is asked."""
    async with open_audio_server() as server, synthesizer(server.url) as asked:
        assert await speak(asked, text) == b""
    assert server.requests == []


async def test_any_text_can_be_sent() -> None:
    """In any language, with halves of characters mended."""
    async with open_audio_server() as server, synthesizer(server.url) as asked:
        await speak(asked, "今日は晴れ \ud83d")
    assert server.requests[0].fields["input"] == "今日は晴れ \ufffd"


@pytest.mark.parametrize(
    ("refusal", "field", "instead"),
    [
        (refusing(400, "Unknown parameter: 'stream'"), "stream", None),
        (refusing(422, "response_format: Input should be 'wav'"), "response_format", "wav"),
    ],
)
async def test_a_refused_field_is_changed_from_then_on(
    refusal: Answer, field: str, instead: str | None
) -> None:
    """The user notices nothing; the second sentence needs one request only."""
    async with open_audio_server(refusal) as server, synthesizer(server.url) as asked:
        for _ in range(2):
            assert await speak(asked) == SPEECH
    assert [each.fields.get(field) for each in server.requests][1:] == [instead, instead]


async def test_a_server_that_refuses_every_field() -> None:
    """Is asked once for each, and then told of."""
    script = [
        refusing(400, "response_format is not supported"),
        refusing(400, "stream is not supported with response_format wav"),
        refusing(400, "stream is not supported, and response_format neither"),
    ]
    async with open_audio_server(*script) as server, synthesizer(server.url) as asked:
        assert "neither" in await refused(asked)
    assert len(server.requests) == 3


# --- what is answered --------------------------------------------------------------------


@pytest.mark.parametrize("piece", [7, 4801, 10**9])
@pytest.mark.parametrize("wav", [False, True], ids=["pcm", "wav"])
async def test_audio_equals_byte_for_byte(wav: bool, piece: int) -> None:
    """In pieces of any size, in whole samples."""
    text = "Hi" if piece < 10 else TEXT
    pcm = speech_of(text)
    answer = speaking_wav(wav_of(pcm), piece=piece) if wav else speaking(text, piece=piece)
    async with open_audio_server(answer) as server, synthesizer(server.url) as asked:
        assert await speak(asked, text) == pcm


async def test_audio_comes_as_it_is_made(mock_time: trio.testing.MockClock) -> None:
    """Nothing is gathered on the way."""
    steps = [part for piece in pieces_of(SPEECH[:30_000], 10_000) for part in (Sleep(2), piece)]
    slow = Answer(steps, media_type="audio/pcm")
    async with open_audio_server(slow) as server, synthesizer(server.url) as asked:
        began = trio.current_time()
        async with asked.open_speech(TEXT, voice_id="default", language="en") as speech:
            times = {round(trio.current_time() - began) async for _ in speech}
    assert times == {2, 4, 6}


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a RIFF file."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes) -> bytes:
    """A WAV file of these chunks."""
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


FORMAT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
EXTENSIBLE = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 2 * RATE, 2, 16, 22, 16, 4) + bytes(
    [1, 0, 0, 0, 0, 0, 16, 0, 128, 0, 0, 170, 0, 56, 155, 113]
)
UNKNOWN = riff(chunk(b"fmt ", FORMAT)) + b"data"


@pytest.mark.parametrize(
    "file",
    [
        riff(chunk(b"LIST", b"who"), chunk(b"fmt ", FORMAT), chunk(b"data", SPEECH)),
        riff(chunk(b"fmt ", FORMAT), chunk(b"data", SPEECH), chunk(b"LIST", b"made by no one")),
        riff(chunk(b"fmt ", EXTENSIBLE), chunk(b"data", SPEECH)),
        UNKNOWN + bytes(4) + SPEECH,
        UNKNOWN + b"\xff\xff\xff\xff" + SPEECH,
        UNKNOWN + b"\x00\xf0\xff\x7f" + SPEECH,
    ],
    ids=["chunk before", "chunk after", "extensible", "size 0", "size -1", "size 2 GiB"],
)
def test_wav_files_as_servers_write_them(file: bytes) -> None:
    """Also those that were begun before anyone knew how long they would be; cut anywhere."""
    for piece in (1, 2, 7, 999, len(file)):
        reader = PcmReader(RATE)
        parts = [reader.push(file[at : at + piece]) for at in range(0, len(file), piece)]
        assert b"".join(parts) == SPEECH
        assert all(len(part) % 2 == 0 for part in parts)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (speaking_wav(wav_of(SPEECH, rate=16_000)), "at 16000 Hz and not at 24000"),
        (speaking(TEXT, media_type="audio/L16;rate=16000"), "at 16000 Hz and not at 24000"),
        (speaking_wav(wav_of(SPEECH, channels=2)), "2 channels; allowed is 16-bit PCM, mono"),
        (speaking_wav(wav_of(SPEECH, width=3)), "24 bits"),
        (speaking_wav(riff(chunk(b"data", SPEECH))), "does not say its format"),
        (speaking_wav(riff(chunk(b"fmt ", b"1234"), chunk(b"data", SPEECH))), "half a format"),
        (speaking_wav(riff(chunk(b"LIST", bytes(99_999)))), "without an end of its header"),
        (speaking(TEXT, media_type="audio/mpeg"), "answers with audio/mpeg"),
        (Answer([b"ID3\4" + SPEECH], media_type="audio/wav"), "compressed audio"),
        (Answer([b"<html>Welcome"], media_type="text/html"), "text/html instead of audio"),
        (
            Answer([b'{"error": {"message": "no GPU"}}'], media_type="application/json"),
            "application/json instead of audio: no GPU",
        ),
        (Answer([SPEECH], headers={"Content-Encoding": "gzip"}), "compresses its answers (gzip)"),
        (refusing(401, f"Incorrect API key provided: {KEY}"), "does not accept the API key"),
        (refusing(404, "no voice 'alloy'"), "no voice 'alloy'"),
    ],
)
async def test_answers_that_are_of_no_use(answer: Answer, words: str) -> None:
    """Are an error in words, at once, without the key; another server may do better."""
    async with (
        open_audio_server(answer) as server,
        synthesizer(server.url, api_key=KEY) as asked,
    ):
        told = await refused(asked)
    assert words in told
    assert server.url in told
    assert KEY not in told
    assert len(server.requests) == 1
    async with (
        open_audio_server(answer) as first,
        open_audio_server() as second,
        synthesizer(first.url, second.url) as asked,
    ):
        assert await speak(asked) == SPEECH


async def test_a_model_of_another_rate() -> None:
    """Is well, where it is expected."""
    answer = speaking_wav(wav_of(SPEECH, rate=16_000))
    async with (
        open_audio_server(answer) as server,
        synthesizer(server.url, sample_rate=16_000) as asked,
    ):
        assert await speak(asked) == SPEECH


async def test_a_sentence_without_an_end() -> None:
    """Is stopped, and the server is told."""
    second = bytes(2 * RATE)
    endless = Answer([second] * int(MAX_SENTENCE_SECONDS + 60), media_type="audio/pcm")
    chunks: list[bytes] = []
    async with open_audio_server(endless) as server, synthesizer(server.url) as asked:
        error = await failing(asked, chunks)
        with trio.fail_after(1):
            await server.requests[0].left.wait()
    assert not isinstance(error, SynthesizerAway)
    assert "finds no end" in str(error)
    assert sum(map(len, chunks)) <= MAX_SENTENCE_SECONDS * 2 * RATE


# --- again, and elsewhere ----------------------------------------------------------------

PASSING = {
    "500": refusing(500),
    "429": refusing(429),
    "cut": Answer([Cut()], media_type="audio/pcm"),
    "cut in the header": Answer([wav_of(SPEECH)[:30], Cut()], media_type="audio/wav"),
    "no audio": Answer([], media_type="audio/pcm"),
    "no audio in the file": speaking_wav(wav_of(b"")),
    "half a header": Answer([wav_of(SPEECH)[:30]], media_type="audio/wav"),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING)
async def test_what_may_pass_is_tried_again(
    mock_time: trio.testing.MockClock, failure: Answer
) -> None:
    """Once; then synthesis is away."""
    async with open_audio_server(failure) as server, synthesizer(server.url) as asked:
        assert await speak(asked) == SPEECH
    async with open_audio_server(usual=failure) as server, synthesizer(server.url) as asked:
        chunks: list[bytes] = []
        assert server.url in await away(asked, chunks)
        assert chunks == []
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "failure",
    [*PASSING.values(), NEVER, Answer([Sleep()], media_type="audio/pcm")],
    ids=[*PASSING, "never answers", "stalls"],
)
async def test_another_server_is_asked_first(
    mock_time: trio.testing.MockClock, failure: Answer
) -> None:
    """Whatever is wrong with the first."""
    async with (
        open_audio_server(failure) as first,
        open_audio_server() as second,
        synthesizer(first.url, second.url) as asked,
    ):
        assert await speak(asked) == SPEECH
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_a_server_that_is_not_there() -> None:
    """Is passed over; without another one, synthesis is away."""
    with nobody() as url:
        async with open_audio_server() as server, synthesizer(url, server.url) as asked:
            assert await speak(asked) == SPEECH
        async with synthesizer(url) as asked:
            assert f"speech synthesis at {url} cannot be reached" in await away(asked)


@pytest.mark.parametrize(
    ("ending", "words"), [(Cut(), "broke the connection off"), (Sleep(), "sent nothing for 10 s")]
)
async def test_a_server_lost_in_mid_sentence(
    mock_time: trio.testing.MockClock, ending: Cut | Sleep, words: str
) -> None:
    """What has come is heard, nobody says the sentence over, and synthesis is away."""
    answer = Answer([SPEECH[:10_001], ending], media_type="audio/pcm")
    chunks: list[bytes] = []
    async with (
        open_audio_server(usual=answer) as first,
        open_audio_server() as second,
        synthesizer(first.url, second.url) as asked,
    ):
        assert words in await away(asked, chunks)
        assert b"".join(chunks) == SPEECH[:10_000]
        assert second.requests == []

        for _ in range(FAILURES_TO_OPEN - 1):
            await away(asked)
        assert asked.upstreams[0].state is BreakerState.OPEN
        assert await speak(asked) == SPEECH


async def test_a_slow_listener_is_nobodys_silence(mock_time: trio.testing.MockClock) -> None:
    """What is taken late was sent in time."""
    steps = [SPEECH[:10_000], Sleep(1), SPEECH[10_000:]]
    async with (
        open_audio_server(Answer(steps, media_type="audio/pcm")) as server,
        synthesizer(server.url) as asked,
        asked.open_speech(TEXT, voice_id="default", language="en") as speech,
    ):
        heard = b""
        async for piece in speech:
            heard += piece.pcm
            await trio.sleep(5 * TIMEOUT_SECONDS)
    assert heard == SPEECH


async def test_nothing_of_what_is_said_is_logged(
    caplog: pytest.LogCaptureFixture, mock_time: trio.testing.MockClock
) -> None:
    """Failures are, with the server's name."""
    caplog.set_level(logging.DEBUG, "listenai")
    async with (
        open_audio_server(refusing(500, "cannot say 'my secret'")) as server,
        synthesizer(server.url) as asked,
    ):
        await speak(asked, "my secret")
    assert f"upstream={server.url} outcome=broken" in caplog.text
    assert "secret" not in caplog.text


async def test_sentences_at_the_same_time_do_not_mix() -> None:
    """Each has its own connection and its own audio."""

    async def check(asked: Synthesizer, text: str) -> None:
        assert await speak(asked, text) == speech_of(text)

    async with (
        open_audio_server() as server,
        synthesizer(server.url) as asked,
        trio.open_nursery() as nursery,
    ):
        for number in range(12):
            nursery.start_soon(check, asked, "a" * (number + 1))


# --- leaving -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        NEVER,
        Answer([Sleep()], media_type="audio/pcm"),
        Answer([SPEECH, Sleep()], media_type="audio/pcm"),
    ],
    ids=["before the head", "before the audio", "in a stall"],
)
async def test_a_cancelled_sentence_leaves_no_connection(behaviour: Answer) -> None:
    """The server sees at once that nobody listens, and is not shut out."""
    async with open_audio_server(behaviour) as server, synthesizer(server.url) as asked:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, asked)
            await server.wait_asked()
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await server.requests[0].left.wait()
        assert await speak(asked) == SPEECH


@pytest.mark.parametrize("problem", [None, ZeroDivisionError], ids=["enough", "a bug"])
async def test_leaving_in_the_middle_leaves_no_connection(
    problem: type[Exception] | None,
) -> None:
    """A consumer that has heard enough stops the server; its own error comes out as it is."""
    stalling = Answer([SPEECH, Sleep()], media_type="audio/pcm")

    async def listen(asked: Synthesizer) -> None:
        async with asked.open_speech(TEXT, voice_id="default", language="en") as speech:
            await anext(speech)
            if problem:
                raise problem

    async with open_audio_server(stalling) as server, synthesizer(server.url) as asked:
        if problem:
            with pytest.raises(problem):
                await listen(asked)
        else:
            await listen(asked)
        with trio.fail_after(1):
            await server.requests[0].left.wait()
        assert asked.upstreams[0].state is BreakerState.CLOSED


async def test_wherever_a_sentence_is_cancelled_the_next_one_works() -> None:
    """After any number of steps: no connection stays open."""
    async with open_audio_server() as server, synthesizer(server.url) as asked:
        for steps in range(0, 90, 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak, asked)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            with trio.fail_after(2):
                assert await speak(asked) == SPEECH
        with trio.fail_after(2):
            await all_over(server.requests)


async def test_sentences_share_a_connection() -> None:
    """One that was heard to its end after another."""
    async with open_audio_server() as server, synthesizer(server.url) as asked:
        for _ in range(3):
            await speak(asked)
    assert len({request.client_port for request in server.requests}) == 1


# --- what it is made with ----------------------------------------------------------------


async def test_what_it_cannot_be_made_with() -> None:
    """A key that no header can have is not told."""
    with pytest.raises(ConfigurationError, match="key of speech synthesis") as caught:
        async with synthesizer("http://h", api_key="two words"):
            raise AssertionError
    assert "two words" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="one base URL at least"):
        async with synthesizer():
            raise AssertionError
