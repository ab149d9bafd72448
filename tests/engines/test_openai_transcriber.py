"""Speech recognition by OpenAI-compatible servers, against one on a real socket."""

from __future__ import annotations

import gc
import logging
import random
import socket
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO

import httpx
import pytest
import trio
from openai_audio_server import (
    Answer,
    all_over,
    hearing,
    hearing_plainly,
    open_audio_server,
)
from openai_server import NEVER, Cut, Sleep, refusing

from listenai.engines.base import SpeakerMemory, Transcriber
from listenai.engines.openai_transcriber import (
    LANGUAGES,
    MAX_ANSWER_BYTES,
    MIN_SAMPLES,
    OpenAITranscriber,
)
from listenai.engines.upstreams import FAILURES_TO_OPEN, REST_SECONDS, BreakerState, Upstream
from listenai.engines.whole_utterance import MAX_SECONDS
from listenai.errors import ConfigurationError, TranscriberAway, TranscriberError

KEY = "sk-test-0123456789abcdef"
TIMEOUT_SECONDS = 10.0
SPEECH = random.Random(1).randbytes(2 * 16_000)  # a second


@pytest.fixture
def mock_time(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time that passes only while nothing moves; real sockets take part."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


@asynccontextmanager
async def transcriber(*urls: str, api_key: str = "") -> AsyncIterator[OpenAITranscriber]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield OpenAITranscriber(
            client,
            [Upstream(url) for url in urls],
            model="whisper-1",
            random=random.Random(1),
            api_key=api_key,
            timeout_seconds=TIMEOUT_SECONDS,
        )
    gc.collect()  # a generator that nobody closed would warn now


async def hear(
    asked: Transcriber, *pieces: bytes, language: str = "en", partials: bool = False
) -> str:
    """The words of an utterance."""
    async with asked.open_utterance(language=language, speaker=SpeakerMemory()) as utterance:
        for piece in pieces or (SPEECH,):
            await utterance.accept(piece)
            if partials:
                assert await utterance.partial() == ""
        return (await utterance.finish()).text


async def failing(asked: Transcriber) -> TranscriberError:
    """The error that an utterance ends with."""
    with pytest.raises(TranscriberError) as caught:
        await hear(asked)
    return caught.value


async def refused(asked: Transcriber) -> str:
    """The words of an error that will not pass."""
    error = await failing(asked)
    assert not isinstance(error, TranscriberAway), error
    return str(error)


async def away(asked: Transcriber) -> str:
    """The words of an error that may pass."""
    error = await failing(asked)
    assert isinstance(error, TranscriberAway), error
    assert error.timed_out == ("sent nothing" in str(error))
    return str(error)


@contextmanager
def nobody() -> Iterator[str]:
    """A URL that is kept from everyone, so that nobody answers there."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


# --- what is asked -----------------------------------------------------------------------


async def test_an_utterance_is_one_request() -> None:
    """With all its audio as a WAV file, the model, the language and the key."""
    pieces = [SPEECH[:1], SPEECH[1:4097], SPEECH[4097:]]
    async with (
        open_audio_server(api_key=KEY) as server,
        transcriber(server.url, api_key=KEY) as asked,
    ):
        assert await hear(asked, *pieces, partials=True) == "Hello there."
    (request,) = server.requests
    assert request.fields == {"model": "whisper-1", "language": "en", "response_format": "json"}
    assert request.headers["accept-encoding"] == "identity"
    assert request.pcm == SPEECH
    with wave.open(BytesIO(request.file)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)


@pytest.mark.parametrize(
    ("language", "sent"), [("zh-CN", "zh"), ("en_US", "en"), ("JA", "ja"), ("", None)]
)
async def test_languages_are_iso_codes(language: str, sent: str | None) -> None:
    """Without a country; where none is known, the model finds out."""
    async with open_audio_server() as server, transcriber(server.url) as asked:
        await hear(asked, language=language)
        assert asked.languages == LANGUAGES
    assert server.requests[0].fields.get("language") == sent


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/audio/transcriptions"])
async def test_base_urls_as_people_write_them(path: str) -> None:
    """All lead to the same place."""
    async with open_audio_server() as server, transcriber(f"{server.url}{path}") as asked:
        assert await hear(asked) == "Hello there."


async def test_too_little_is_no_speech() -> None:
    """Nobody is asked; one sample more is asked about."""
    enough = 2 * MIN_SAMPLES
    async with open_audio_server() as server, transcriber(server.url) as asked:
        assert await hear(asked, b"") == ""
        assert await hear(asked, SPEECH[: enough - 1]) == ""
        assert server.requests == []
        assert await hear(asked, SPEECH[:enough]) == "Hello there."


async def test_half_a_sample_at_the_end_is_left_out() -> None:
    """A server would refuse the file, or hear noise."""
    async with open_audio_server() as server, transcriber(server.url) as asked:
        await hear(asked, SPEECH[:-1])
    assert server.requests[0].pcm == SPEECH[:-2]


@pytest.mark.parametrize(("language", "text"), [("en", "one three"), ("zh", "onethree")])
async def test_a_long_utterance_is_several_requests(language: str, text: str) -> None:
    """None longer than is allowed, and together they hold every sample."""
    minute = bytes(range(1, 251)) * int(MAX_SECONDS * 32_000 / 250)
    audio = minute + minute[::-1] + SPEECH
    pieces = [audio[at : at + 1_000_001] for at in range(0, len(audio), 1_000_001)]
    script = [hearing(" one "), hearing(""), hearing("three")]
    async with open_audio_server(*script) as server, transcriber(server.url) as asked:
        assert await hear(asked, *pieces, language=language) == text
    sent = [request.pcm for request in server.requests]
    assert b"".join(sent) == audio
    assert max(map(len, sent)) == len(minute)


async def test_utterances_share_a_connection() -> None:
    """One answer that was read to its end after another."""
    async with open_audio_server() as server, transcriber(server.url) as asked:
        for _ in range(3):
            await hear(asked)
    assert len({request.client_port for request in server.requests}) == 1


# --- what is answered --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (hearing(" 你好,世界。\n"), "你好,世界。"),
        (hearing(""), ""),
        (Answer([b'{"te', b'xt": "a', b' b"}'], media_type="application/json"), "a b"),
        (hearing_plainly("Hello.\n"), "Hello."),
        (hearing_plainly("42"), "42"),
        (hearing_plainly(""), ""),
        (hearing_plainly("Hello.", media_type=""), "Hello."),
        (hearing_plainly('{"text": "Hello."}'), "Hello."),
        (Answer([rb'{"text": "half \ud83d"}'], media_type="application/json"), "half \ufffd"),
    ],
)
async def test_transcripts_as_servers_write_them(answer: Answer, text: str) -> None:
    """JSON, whatever it is called, or plain text; what cannot be encoded is mended."""
    async with open_audio_server(answer) as server, transcriber(server.url) as asked:
        assert await hear(asked) == text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer([b'{"txt": 1}'], media_type="application/json"), "holds no text"),
        (Answer([b'{"text": 1}'], media_type=""), "JSON that holds no text"),
        (Answer([b'{"text": "a'], media_type="application/json"), "holds no text"),
        (Answer([b"[" * 100_000], media_type="application/json"), "holds no text"),
        (Answer([b'{"error": {"message": "cold"}}'], media_type="application/json"), "cold"),
        (hearing_plainly("<html>Welcome", "text/html"), "text/html that holds no text"),
        (hearing_plainly("", ""), "holds no text"),
        (hearing_plainly("a" * (MAX_ANSWER_BYTES + 1)), "more than"),
        (Answer([b"x"], headers={"Content-Encoding": "br"}), "compresses"),
    ],
)
async def test_answers_that_are_no_transcripts(answer: Answer, words: str) -> None:
    """Are an error in words, at once; another server may do better."""
    async with open_audio_server(answer) as server, transcriber(server.url) as asked:
        assert words in await refused(asked)
    assert len(server.requests) == 1
    async with (
        open_audio_server(answer) as first,
        open_audio_server() as second,
        transcriber(first.url, second.url) as asked,
    ):
        assert await hear(asked) == "Hello there."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusing(401, f"Incorrect API key provided: {KEY}"), "does not accept the API key"),
        (refusing(403), "check both"),
        (refusing(404, "The model `whisper-1` does not exist"), "does not exist"),
        (refusing(400, "Unsupported language: 'en'"), "Unsupported language: 'en'"),
        (refusing(307), "has moved"),
    ],
)
async def test_a_refusal_is_told(answer: Answer, words: str) -> None:
    """With what the server says, and never the key."""
    async with (
        open_audio_server(answer) as server,
        transcriber(server.url, api_key=KEY) as asked,
    ):
        told = await refused(asked)
    assert words in told
    assert server.url in told
    assert KEY not in told
    assert "Incorrect" not in told  # servers show parts of the key
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", [KEY, "token0123456789"])
async def test_a_key_that_a_server_shows_is_not_told(key: str) -> None:
    """Whatever the status, and whatever it looks like."""
    async with (
        open_audio_server(usual=refusing(500, f"no such key: {key}")) as server,
        transcriber(server.url, api_key=key) as asked,
    ):
        assert "no such key: [key]" in await away(asked)


# --- again, and elsewhere ----------------------------------------------------------------

PASSING = {
    "500": refusing(500),
    "429": refusing(429),
    "cut": Answer([Cut()]),
    "cut in mid answer": Answer([b'{"text": "a', Cut()], media_type="application/json"),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING)
async def test_what_may_pass_is_tried_again(
    mock_time: trio.testing.MockClock, failure: Answer
) -> None:
    """Once, with the same audio; then recognition is away."""
    async with open_audio_server(failure) as server, transcriber(server.url) as asked:
        assert await hear(asked) == "Hello there."
    assert [request.pcm for request in server.requests] == [SPEECH, SPEECH]
    async with open_audio_server(usual=failure) as server, transcriber(server.url) as asked:
        assert server.url in await away(asked)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "failure",
    [*PASSING.values(), refusing(401), refusing(429, retry_after="60"), NEVER, Answer([Sleep()])],
    ids=[*PASSING, "401", "429 for long", "never answers", "stalls"],
)
async def test_another_server_is_asked_first(
    mock_time: trio.testing.MockClock, failure: Answer
) -> None:
    """Whatever is wrong with the first."""
    async with (
        open_audio_server(failure) as first,
        open_audio_server() as second,
        transcriber(first.url, f"{second.url}/v1") as asked,
    ):
        assert await hear(asked) == "Hello there."
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_a_server_that_is_not_there() -> None:
    """Is passed over; without another one, recognition is away."""
    with nobody() as url:
        async with open_audio_server() as server, transcriber(url, server.url) as asked:
            assert await hear(asked) == "Hello there."
        async with transcriber(url) as asked:
            assert f"speech recognition at {url} cannot be reached" in await away(asked)


@pytest.mark.parametrize("silence", [NEVER, Answer([b"{", Sleep()])], ids=["head", "body"])
async def test_a_silent_server_has_a_deadline(
    mock_time: trio.testing.MockClock, silence: Answer
) -> None:
    """It is not asked again at once, and its connection is closed."""
    async with open_audio_server(usual=silence) as server, transcriber(server.url) as asked:
        began = trio.current_time()
        assert "sent nothing for 10 s" in await away(asked)
        assert trio.current_time() - began == pytest.approx(TIMEOUT_SECONDS, abs=1)
        with trio.fail_after(1):
            await server.requests[0].left.wait()
    assert len(server.requests) == 1


async def test_one_that_refuses_and_one_that_is_away(mock_time: trio.testing.MockClock) -> None:
    """The second may come back, so there is hope."""
    with nobody() as url:
        async with (
            open_audio_server(usual=refusing(404)) as server,
            transcriber(server.url, url) as asked,
        ):
            told = await away(asked)
    assert server.url in told
    assert url in told


async def test_a_server_that_keeps_failing_rests(mock_time: trio.testing.MockClock) -> None:
    """Nobody is asked meanwhile, and recognition is away; then it is back."""
    failures = [refusing(500)] * FAILURES_TO_OPEN
    async with open_audio_server(*failures) as server, transcriber(server.url) as asked:
        for _ in range(3):
            await away(asked)
        assert "asked again in" in await away(asked)
        assert len(server.requests) == FAILURES_TO_OPEN
        await trio.sleep(REST_SECONDS)
        assert await hear(asked) == "Hello there."
        assert asked.upstreams[0].state is BreakerState.CLOSED


async def test_nothing_of_what_is_said_is_logged(
    caplog: pytest.LogCaptureFixture, mock_time: trio.testing.MockClock
) -> None:
    """Failures are, with the server's name."""
    caplog.set_level(logging.DEBUG, "listenai")
    script = [refusing(500, "cannot hear 'my secret'"), hearing("my secret")]
    async with open_audio_server(*script) as server, transcriber(server.url) as asked:
        await hear(asked)
    assert f"upstream={server.url} outcome=broken" in caplog.text
    assert "secret" not in caplog.text


# --- leaving -----------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [NEVER, Answer([b"{", Sleep()])], ids=["head", "body"])
async def test_a_cancelled_request_leaves_no_connection(behaviour: Answer) -> None:
    """The server sees at once that nobody waits, and is not shut out."""
    async with open_audio_server(behaviour) as server, transcriber(server.url) as asked:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, asked)
            await server.wait_asked()
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await server.requests[0].left.wait()
        assert await hear(asked) == "Hello there."


async def test_wherever_a_request_is_cancelled_the_next_one_works() -> None:
    """After any number of steps: no connection stays open."""
    async with open_audio_server() as server, transcriber(server.url) as asked:
        for steps in range(0, 90, 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear, asked)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            with trio.fail_after(2):
                assert await hear(asked) == "Hello there."
        with trio.fail_after(2):
            await all_over(server.requests)


# --- what it is made with ----------------------------------------------------------------


async def test_what_it_cannot_be_made_with() -> None:
    """A key that no header can have is not told."""
    with pytest.raises(ConfigurationError, match="key of speech recognition") as caught:
        async with transcriber("http://h", api_key="two words"):
            raise AssertionError
    assert "two words" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="one base URL at least"):
        async with transcriber():
            raise AssertionError
    with pytest.raises(ConfigurationError, match="not the base URL of speech recognition"):
        async with transcriber("http://[v1.a]"):
            raise AssertionError
