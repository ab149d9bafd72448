"""Azure's speech services, against a stand-in on a real socket that refuses what Azure refuses."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from azure_server import (
    HEARING_PATH,
    KEY,
    AzureServer,
    heard,
    open_azure_server,
    recognition,
    refused,
    sounding,
)
from openai_server import NEVER, Answer, Cut, Sleep

from listenai.engines.azure_resource import LOCALES, AzureResource, locale_of
from listenai.engines.azure_synthesizer import AzureSynthesizer, ssml
from listenai.engines.azure_transcriber import MIN_SAMPLES, AzureTranscriber
from listenai.engines.base import SpeakerMemory
from listenai.errors import (
    ConfigurationError,
    EngineError,
    SynthesizerAway,
    SynthesizerError,
    TranscriberAway,
    TranscriberError,
)

TIMEOUT_SECONDS = 10.0
SECOND = random.Random(1).randbytes(2 * 16_000)


@pytest.fixture
def mock_time(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time that passes only while nothing moves; real sockets take part."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


@asynccontextmanager
async def transcriber(server: AzureServer, key: str = KEY) -> AsyncIterator[AzureTranscriber]:
    resource = AzureResource(key, server.url)
    async with AzureTranscriber.open(
        resource, random=random.Random(1), timeout_seconds=TIMEOUT_SECONDS
    ) as opened:
        yield opened
    gc.collect()  # a generator that nobody closed would warn now


@asynccontextmanager
async def synthesizer(
    server: AzureServer, key: str = KEY, voice: str = ""
) -> AsyncIterator[AzureSynthesizer]:
    resource = AzureResource(key, server.url)
    async with AzureSynthesizer.open(
        resource, random=random.Random(1), voice=voice, timeout_seconds=TIMEOUT_SECONDS
    ) as opened:
        yield opened
    gc.collect()


async def hear(asked: AzureTranscriber, pcm: bytes = SECOND, language: str = "en") -> str:
    async with asked.open_utterance(language=language, speaker=SpeakerMemory()) as utterance:
        await utterance.accept(pcm)
        return (await utterance.finish()).text


async def speak(
    asked: AzureSynthesizer, text: str, voice_id: str = "default", language: str = "en"
) -> bytes:
    async with asked.open_speech(text, voice_id=voice_id, language=language) as chunks:
        return b"".join([chunk.pcm async for chunk in chunks])


# --- hearing -----------------------------------------------------------------------------


async def test_an_utterance_is_one_request() -> None:
    """A WAV file, the locale of the language, and the key in the header for it."""
    async with open_azure_server() as server, transcriber(server) as asked:
        async with asked.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
            await utterance.accept(SECOND + b"\0")
            assert await utterance.partial() == ""
            assert (await utterance.finish()).text == "Hello there."
        assert asked.languages == tuple(LOCALES)
    [request] = server.requests
    assert request.path == HEARING_PATH
    assert request.query == {"language": "en-US", "format": "simple"}
    assert request.headers["accept"] == "application/json"
    assert request.pcm == SECOND


@pytest.mark.parametrize(
    ("language", "locale"),
    [("en", "en-US"), ("EN_gb", "en-GB"), ("zh", "zh-CN"), ("yue", "zh-HK"), ("tlh", None)],
)
def test_languages_have_azures_names(language: str, locale: str | None) -> None:
    """Those that people use."""
    assert locale_of(language) == locale


async def test_an_unknown_language_is_refused_unasked() -> None:
    """With those that are known."""
    async with open_azure_server() as server, transcriber(server) as asked:
        with pytest.raises(TranscriberError, match=r"'tlh' is no language .*allowed: en, zh"):
            await hear(asked, language="tlh")
    assert server.requests == []


async def test_too_little_is_no_speech_and_too_much_is_several_requests() -> None:
    """Azure takes a minute at most."""
    script = [heard("One"), heard("two.")]
    async with open_azure_server(*script) as server, transcriber(server) as asked:
        assert await hear(asked, SECOND[: 2 * MIN_SAMPLES - 1]) == ""
        assert server.requests == []
        assert await hear(asked, SECOND * 61) == "One two."
    assert [len(request.pcm) for request in server.requests] == [60 * 32_000, 32_000]


@pytest.mark.parametrize("status", ["NoMatch", "InitialSilenceTimeout", "BabbleTimeout"])
async def test_nothing_understood_is_no_words(status: str) -> None:
    """And no error."""
    async with open_azure_server(recognition(status)) as server, transcriber(server) as asked:
        assert await hear(asked) == ""


async def test_a_failure_of_the_service_is_asked_about_once_more() -> None:
    """It says itself that this may pass; so does a status of 503."""
    script = [recognition("Error"), Answer([], 503), heard("Yes.")]
    async with open_azure_server(*script) as server, transcriber(server) as asked:
        with pytest.raises(TranscriberAway, match="failed"):
            await hear(asked)
        assert await hear(asked) == "Yes."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer([b"<html>"], media_type="text/html"), "something else than a transcript"),
        (recognition("Odd"), r"something else than a transcript \(RecognitionStatus Odd\)"),
        (refused(400, "BadRequest", "invalid language"), r"refused the request \(status 400"),
        (refused(403, "Forbidden", "no quota"), "does not allow this API key"),
    ],
)
async def test_what_is_no_transcript_is_an_error(answer: Answer, told: str) -> None:
    """One that will not pass: nobody tries again."""
    async with open_azure_server(answer) as server, transcriber(server) as asked:
        with pytest.raises(TranscriberError, match=told) as caught:
            await hear(asked)
    assert not isinstance(caught.value, TranscriberAway)
    assert "Azure speech recognition" in str(caught.value)
    assert len(server.requests) == 1


async def test_a_wrong_key_is_told_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in errors, nor in logs, nor in a repr."""
    wrong = "fedcba9876543210fedcba9876543210"
    async with open_azure_server() as server:
        async with transcriber(server, wrong) as asked:
            with pytest.raises(TranscriberError, match="does not accept the API key") as heard_it:
                await hear(asked)
        async with synthesizer(server, wrong) as asked_too:
            with pytest.raises(SynthesizerError, match="does not accept the API key") as spoke:
                await speak(asked_too, "hello")
    with caplog.at_level(logging.DEBUG):
        told = f"{heard_it.value}{spoke.value}{caplog.text}{AzureResource(wrong, 'http://a')}"
    assert wrong not in told


async def test_a_service_that_says_nothing_is_away(mock_time: object) -> None:
    """After the longest silence it may keep."""
    async with open_azure_server(NEVER) as server, transcriber(server) as asked:
        began = trio.current_time()
        with pytest.raises(TranscriberAway, match="sent nothing for 10 s"):
            await hear(asked)
        assert trio.current_time() - began == pytest.approx(TIMEOUT_SECONDS, abs=0.5)


async def test_who_stops_waiting_hangs_up() -> None:
    """Azure knows at once."""
    async with open_azure_server(NEVER) as server, transcriber(server) as asked:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, asked)
            request = await server.wait_asked()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await request.left.wait()


# --- speaking ----------------------------------------------------------------------------


async def test_speech_comes_while_it_is_made() -> None:
    """Whole samples, though the pieces are odd."""
    pcm = bytes(range(200))
    async with (
        open_azure_server(sounding(pcm[:99], Sleep(0.01), pcm[99:])) as server,
        synthesizer(server) as asked,
    ):
        async with asked.open_speech("Hi", voice_id="default", language="en") as chunks:
            pieces = [chunk.pcm async for chunk in chunks]
        assert asked.sample_rate == 16_000
    assert b"".join(pieces) == pcm
    assert len(pieces) > 1
    assert all(len(piece) % 2 == 0 for piece in pieces)


@pytest.mark.parametrize(
    ("configured", "voice_id", "language", "voice"),
    [
        ("", "default", "en", "en-US-JennyNeural"),
        ("", "doubao-通用女声", "zh-CN", "zh-CN-XiaoxiaoNeural"),
        ("", "de-DE-KatjaNeural", "en", "de-DE-KatjaNeural"),
        ("", "default", "xx", "en-US-JennyNeural"),
        ("en-GB-SoniaNeural", "default", "zh", "en-GB-SoniaNeural"),
        ("en-GB-SoniaNeural", "zh-CN-XiaoxiaoNeural", "zh", "zh-CN-XiaoxiaoNeural"),
    ],
)
async def test_the_default_voice_follows_the_language(
    configured: str, voice_id: str, language: str, voice: str
) -> None:
    """Unless one is configured, or named."""
    async with open_azure_server() as server, synthesizer(server, voice=configured) as asked:
        assert await speak(asked, "hi", voice_id, language) == "hi".encode("utf-16-le")
    assert server.requests[0].spoken == (voice, "hi")


async def test_whatever_is_in_a_text_is_said_and_not_marked_up() -> None:
    """Signs of XML are text, what XML cannot hold is left out; no words are no request."""
    text = 'a <break time="9s"/> & b\x00\x1b\ud83d c\udc4b'
    async with open_azure_server() as server, synthesizer(server) as asked:
        await speak(asked, text)
        assert await speak(asked, " … ") == b""
        with pytest.raises(SynthesizerError, match="no voice 'x'; choose one of default, "):
            await speak(asked, "hi", "x")
    assert [request.spoken[1] for request in server.requests] == [
        'a <break time="9s"/> & b  \ufffd c\ufffd'
    ]
    assert 'xml:lang="en-GB"' in ssml("hi", "en-GB-SoniaNeural")


@pytest.mark.parametrize(
    ("answer", "told", "away"),
    [
        (Answer([], 400), r"refused the request \(status 400", False),
        (refused(429, "429", "Too many"), "has had too many requests", True),
        (Answer([], 502), r"failed \(status 502", True),
        (Answer([b"{}"], media_type="application/json"), "instead of audio", False),
        (sounding(), "sent no audio", True),
        (sounding(Cut()), "broke the connection off", True),
    ],
)
async def test_what_is_no_speech_is_an_error(answer: Answer, told: str, away: bool) -> None:
    """What may pass is asked for once more, and is away then."""
    async with open_azure_server(answer, answer) as server, synthesizer(server) as asked:
        with pytest.raises(SynthesizerError, match=told) as caught:
            await speak(asked, "hello")
    assert isinstance(caught.value, SynthesizerAway) is away
    assert len(server.requests) == (2 if away else 1)


async def test_speech_that_breaks_off_is_an_error() -> None:
    """And never the end of the sentence; what came before is heard."""
    async with (
        open_azure_server(sounding(b"ab", Cut())) as server,
        synthesizer(server) as asked,
        asked.open_speech("hello", voice_id="default", language="en") as chunks,
    ):
        assert (await anext(chunks)).pcm == b"ab"
        with pytest.raises(SynthesizerAway, match="broke the connection off"):
            await anext(chunks)


async def test_speech_that_stalls_is_an_error(mock_time: object) -> None:
    """In mid sentence, after the longest silence there may be."""
    async with (
        open_azure_server(sounding(b"ab", Sleep())) as server,
        synthesizer(server) as asked,
        asked.open_speech("hello", voice_id="default", language="en") as chunks,
    ):
        await anext(chunks)
        with pytest.raises(SynthesizerAway, match="sent nothing for 10 s"):
            await anext(chunks)


async def test_who_does_not_want_to_hear_it_hangs_up() -> None:
    """In mid sentence."""
    async with open_azure_server(sounding(b"ab", Sleep())) as server, synthesizer(server) as asked:
        async with asked.open_speech("hello", voice_id="default", language="en") as chunks:
            await anext(chunks)
        with trio.fail_after(5):
            await server.requests[0].left.wait()


# --- whose resource ----------------------------------------------------------------------


def test_a_resource_is_a_region_or_an_endpoint() -> None:
    """The addresses are those of the documentation."""
    service = _service("speech/recognition/conversation/cognitiveservices/v1")
    resource = AzureResource(KEY, region="eastus2")
    assert resource.url("stt", service) == (
        "https://eastus2.stt.speech.microsoft.com"
        "/speech/recognition/conversation/cognitiveservices/v1"
    )
    private = AzureResource(KEY, "https://mine.cognitiveservices.azure.com/")
    assert private.url("tts", _service("cognitiveservices/v1")) == (
        "https://mine.cognitiveservices.azure.com/tts/cognitiveservices/v1"
    )


def _service(path: str) -> object:
    from listenai.engines.openai_audio import Service

    return Service("a service", path, refused=EngineError, away=EngineError)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"key": KEY, "region": "East US 2"}, "AZURE_SPEECH_REGION='East US 2': .*like eastus2"),
        ({"key": KEY}, "AZURE_SPEECH_REGION='': "),
        ({"key": "", "region": "eastus2"}, "AZURE_SPEECH_KEY: must be"),
        ({"key": "ключ", "region": "eastus2"}, "AZURE_SPEECH_KEY: must be"),
    ],
)
def test_what_can_be_no_resource_is_told(given: dict[str, str], told: str) -> None:
    """Before anybody is asked; the key is not shown."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        AzureResource(**given)
    assert "ключ" not in str(caught.value)


async def test_a_voice_that_is_none_is_told() -> None:
    """Azure would answer 400 without a word."""
    with pytest.raises(ConfigurationError, match="AZURE_SPEECH_VOICE='Sonia': must be"):
        async with AzureSynthesizer.open(
            AzureResource(KEY, region="eastus2"), random=random.Random(1), voice="Sonia"
        ):
            pytest.fail("there is no such voice")
