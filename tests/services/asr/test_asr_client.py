"""The ASR service as a transcriber: through real sockets, with services that come and go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from asr_fakes import NumberTranscriber, frames, in_time, serving, start_service, words

from listenai.engines import recognizer
from listenai.engines.base import SpeakerMemory, Transcript
from listenai.errors import (
    ConfigurationError,
    TranscriberAway,
    TranscriberError,
)
from listenai.services.asr import lines
from listenai.services.asr.client import REPLAY_SECONDS, AsrServiceTranscriber
from listenai.services.asr.protocol import Result

SPEECH = range(20)


@asynccontextmanager
async def client_of(*urls: str, **options) -> AsyncIterator[AsrServiceTranscriber]:
    """A client that lives for the block; jitter is the same on every run."""
    client = AsrServiceTranscriber(urls, chance=random.Random(1).random, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.serve)
        yield client
        nursery.cancel_scope.cancel()


def opened(client: AsrServiceTranscriber, speaker: SpeakerMemory | None = None, language="en"):
    return client.open_utterance(language=language, speaker=speaker or SpeakerMemory())


async def transcribe(client, pcm: bytes, speaker: SpeakerMemory | None = None) -> Transcript:
    with in_time():
        async with opened(client, speaker) as utterance:
            await utterance.accept(pcm)
            return await utterance.finish()


async def wait_lines(client: AsrServiceTranscriber, count: int) -> None:
    """Waits until the client holds so many connections."""
    with in_time():
        while len(client._lines._lines) != count:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def free_port() -> int:
    """A port on which nobody listens."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


# --- an utterance --------------------------------------------------------------------------


UTTERANCES = {
    "speech": frames(SPEECH),
    "silence around and within": frames(range(30), loud=False)
    + frames(SPEECH)
    + frames(range(60), loud=False)
    + frames(SPEECH)
    + frames(range(30), loud=False),
    "one frame": frames([7]),
    "less than a frame": frames([7])[:100],
    "silence alone": frames(range(40), loud=False),
}


@pytest.mark.parametrize("name", UTTERANCES)
@pytest.mark.parametrize("size", [333, 512, 1920])
async def test_the_engine_gets_what_was_accepted(name, size):
    """Nothing is cut, dropped or added, but for the rest of the last frame."""
    pcm = UTTERANCES[name]
    local = NumberTranscriber()
    async with local.open_utterance(language="en", speaker=SpeakerMemory()) as utterance:
        await utterance.accept(pcm)
        expected = await utterance.finish()
    async with serving() as service, client_of(service.url) as client:
        with in_time():
            async with opened(client) as utterance:
                for start in range(0, len(pcm), size):
                    await utterance.accept(pcm[start : start + size])
                transcript = await utterance.finish()
        [session] = service.transcriber.sessions
        assert session.audio[: len(pcm)] == pcm
        assert not any(session.audio[len(pcm) :])
        if name != "less than a frame":
            assert transcript == expected
            assert session.audio == pcm


async def test_nothing_said_asks_nobody():
    """An empty utterance has no words."""
    async with serving() as service, client_of(service.url) as client:
        assert await transcribe(client, b"") == Transcript("")
        assert not service.transcriber.sessions


async def test_partials_come_while_somebody_speaks():
    """The words so far, without asking the service."""
    async with serving() as service, client_of(service.url) as client, opened(client) as utterance:
        assert await utterance.partial() == ""
        for number in SPEECH:
            await utterance.accept(frames([number]))
        with in_time():
            while not (text := await utterance.partial()):
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert words(SPEECH).startswith(text)
        assert (await utterance.finish()).text == words(SPEECH)


async def test_an_utterance_that_the_service_cuts_is_joined():
    """Longer than its cap: two final results, one text, with spaces where the language has any."""
    numbers = range(int(31 / 0.016))
    async with serving() as service, client_of(service.url) as client:
        assert (await transcribe(client, frames(numbers))).text == words(numbers)
        assert len(service.transcriber.sessions) == 2
        with in_time():
            async with opened(client, language="zh") as utterance:
                await utterance.accept(frames(numbers))
                assert (await utterance.finish()).text.replace(" ", "") == words(numbers).replace(
                    " ", ""
                )
        assert service.transcriber.sessions[-1].language == "zh"


@pytest.mark.parametrize("count", [2, 5, 12, 13, 40])
async def test_audio_that_stops_for_a_while_loses_no_word(monkeypatch, count):
    """The service ends its segment then, and puts aside what is too short: it is still told."""
    monkeypatch.setattr(recognizer, "STOPPED_SECONDS", 0.03)
    async with serving() as service, client_of(service.url) as client, opened(client) as utterance:
        await utterance.accept(frames(range(count)))
        with in_time():
            with trio.move_on_after(0.2):  # nothing is told of what is put aside
                await service.transcriber.wait_until(
                    lambda: service.transcriber.sessions and service.transcriber.sessions[0].closed
                )
            assert (await utterance.finish()).text == words(range(count))


async def test_utterances_side_by_side_have_a_line_each():
    """And each its own text."""
    texts = {}
    async with serving() as service, client_of(service.url, warm=1) as client:

        async def say(number: int) -> None:
            pcm = frames(range(number * 100, number * 100 + 20))
            texts[number] = (await transcribe(client, pcm)).text

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(say, number)
        assert len(service.transcriber.sessions) == 8
    assert texts == {n: words(range(n * 100, n * 100 + 20)) for n in range(8)}


# --- what the service says -----------------------------------------------------------------


async def test_languages_are_the_services_own():
    """Until one has told, those of the specification."""
    async with (
        serving(NumberTranscriber(languages=("en", "ko"))) as service,
        client_of(service.url) as client,
    ):
        with in_time():
            await client.wait_ready()
        assert client.languages == ("en", "ko")
        with pytest.raises(TranscriberError, match="'zh'; allowed: en, ko"):
            async with opened(client, language="zh"):
                pass
    assert AsrServiceTranscriber(["ws://127.0.0.1:9"], chance=lambda: 0.5).languages == (
        *("zh", "en", "ja"),
    )


async def test_an_engine_that_fails_is_an_error_and_the_line_goes_on():
    """TranscriberError with the engine's words, not to be tried again."""
    transcriber = NumberTranscriber(failures=[TranscriberError("the model is on fire")])
    async with serving(transcriber) as service, client_of(service.url) as client:
        with pytest.raises(TranscriberError, match="the model is on fire") as failed:
            await transcribe(client, frames(SPEECH))
        assert not isinstance(failed.value, TranscriberAway)
        assert (await transcribe(client, frames(SPEECH))).text == words(SPEECH)


async def test_a_service_that_takes_too_long_is_an_error():
    """After timeout_seconds; the other service is asked next."""
    slow = NumberTranscriber(gate=trio.Event())
    async with (
        serving(slow) as one,
        serving() as other,
        client_of(one.url, other.url, timeout_seconds=0.2, warm=0) as client,
    ):
        with pytest.raises(TranscriberError, match=r"no answer within 0\.2 s; speak again"):
            await transcribe(client, frames(SPEECH))
        assert (await transcribe(client, frames(SPEECH))).text == words(SPEECH)
        assert len(other.transcriber.sessions) == 1
        await slow.wait_until(lambda: all(session.closed for session in slow.sessions))


async def test_hotwords_reach_the_engine():
    """Every utterance has them."""
    async with serving() as service, client_of(service.url, hotwords=["ListenAI"]) as client:
        await transcribe(client, frames(SPEECH))
        [session] = service.transcriber.sessions
        assert session.speaker.values["hotwords"] == ("ListenAI",)


# --- whose voice ---------------------------------------------------------------------------


async def test_another_speaker_on_a_line_is_not_taken_for_the_last():
    """The same memory for the same speaker; a reset before anybody else."""
    first, second = SpeakerMemory(), SpeakerMemory()
    async with serving() as service, client_of(service.url, warm=0) as client:
        for speaker in (first, first, second):
            await transcribe(client, frames(SPEECH), speaker)
        assert len(client._lines._lines) == 1
        memories = [session.speaker for session in service.transcriber.sessions]
    assert memories[0] is memories[1]
    assert memories[2] is not memories[0]


async def test_a_speaker_gets_the_line_of_last_time():
    """Others take a line that is nobody's while there is one, or the one left longest ago."""
    speakers = [SpeakerMemory() for _ in range(3)]
    async with serving() as service, client_of(service.url, warm=2) as client:
        await wait_lines(client, 2)
        for number in (0, 1, 0, 2, 0):
            await transcribe(client, frames(SPEECH), speakers[number])
        memories = [session.speaker for session in service.transcriber.sessions]
        assert memories[0] is memories[2] is memories[4]
        assert len({id(memory) for memory in memories}) == 3


async def test_an_abandoned_utterance_is_forgotten_by_the_service():
    """Its engine is free at once, and nothing of it gets into the next utterance."""
    transcriber = NumberTranscriber(gate=trio.Event())
    async with serving(transcriber) as service, client_of(service.url, warm=1) as client:
        speaker = SpeakerMemory()
        async with opened(client, speaker) as utterance:
            await utterance.accept(frames(range(50)))
            with trio.move_on_after(5) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(utterance.finish)
                    await transcriber.wait_until(lambda: transcriber.finishing)
                    scope.cancel()
        await transcriber.wait_until(lambda: transcriber.sessions[0].closed)
        transcriber.gate.set()
        assert (await transcribe(client, frames(SPEECH), speaker)).text == words(SPEECH)


# --- services that come and go -------------------------------------------------------------


async def test_nobody_answers():
    """TranscriberAway at once, with each service and why."""
    url = f"ws://user:secret@127.0.0.1:{await free_port()}"
    async with client_of(url) as client:
        with trio.fail_after(1), pytest.raises(TranscriberAway) as away:
            async with opened(client):
                pass
        assert "127.0.0.1" in str(away.value)
        assert "refused" in str(away.value)
        assert "secret" not in str(away.value)


async def test_a_service_that_loads_is_away_and_then_there():
    """MODEL_NOT_READY; the client comes back by itself."""
    loaded = trio.Event()
    async with serving(loaded=loaded) as service, client_of(service.url) as client:
        with in_time(), pytest.raises(TranscriberAway, match="MODEL_NOT_READY"):
            async with opened(client):
                pass
        loaded.set()
        with in_time():
            await client.wait_ready()
        assert (await transcribe(client, frames(SPEECH))).text == words(SPEECH)


async def test_a_service_restarted_in_mid_utterance_hears_all_of_it():
    """On the same port, with an engine that has heard nothing."""
    async with trio.open_nursery() as nursery:
        service = await start_service(nursery)
        async with client_of(service.url) as client, opened(client) as utterance:
            await utterance.accept(frames(range(50)))
            await service.transcriber.wait_heard(30)
            await service.stop()
            again = await start_service(nursery, port=service.port)
            with in_time():
                await utterance.accept(frames(range(50, 80)))
                assert (await utterance.finish()).text == words(range(80))
            assert len(again.transcriber.sessions) == 1
        nursery.cancel_scope.cancel()


async def test_a_service_restarted_after_the_last_word_hears_all_of_it():
    """While its transcript is awaited."""
    async with trio.open_nursery() as nursery:
        service = await start_service(nursery, NumberTranscriber(gate=trio.Event()))
        async with client_of(service.url) as client, opened(client) as utterance:
            await utterance.accept(frames(range(50)))
            texts = []

            async def finish() -> None:
                texts.append((await utterance.finish()).text)

            with in_time():
                async with trio.open_nursery() as finishing:
                    finishing.start_soon(finish)
                    await service.transcriber.wait_until(lambda: service.transcriber.finishing)
                    await service.stop()
                    await start_service(nursery, port=service.port)
            assert texts == [words(range(50))]
        nursery.cancel_scope.cancel()


async def test_another_service_takes_over():
    """One of two dies in mid utterance: the other one hears all of it."""
    async with trio.open_nursery() as nursery:
        services = [await start_service(nursery) for _ in range(2)]
        urls = [service.url for service in services]
        async with client_of(*urls) as client, opened(client) as utterance:
            await utterance.accept(frames(range(50)))
            async with trio.open_nursery() as waiting:
                for service in services:

                    async def heard(service=service) -> None:
                        await service.transcriber.wait_heard(30)
                        waiting.cancel_scope.cancel()

                    waiting.start_soon(heard)
            [used] = [service for service in services if service.transcriber.sessions]
            [other] = [service for service in services if not service.transcriber.sessions]
            await used.stop()
            with in_time():
                await utterance.accept(frames(range(50, 60)))
                assert (await utterance.finish()).text == words(range(60))
            assert len(other.transcriber.sessions) == 1
            for _ in range(3):
                assert (await transcribe(client, frames(SPEECH))).text == words(SPEECH)
        nursery.cancel_scope.cancel()


async def test_the_least_loaded_service_is_used():
    """Two utterances at a time, two services: one each."""
    async with (
        serving() as one,
        serving() as other,
        client_of(one.url, other.url) as client,
        opened(client) as first,
        opened(client) as second,
    ):
        for utterance in (first, second):
            await utterance.accept(frames(SPEECH))
            await utterance.finish()
        assert [len(service.transcriber.sessions) for service in (one, other)] == [1, 1]


async def test_partials_do_not_step_back_after_a_replay():
    """What was shown before stays until there is more."""
    async with trio.open_nursery() as nursery:
        service = await start_service(nursery)
        async with client_of(service.url) as client, opened(client) as utterance:
            with in_time():
                for number in range(60):
                    await utterance.accept(frames([number]))
                while not (before := await utterance.partial()):
                    await trio.testing.wait_all_tasks_blocked(0.001)
                await service.stop()
                again = await start_service(nursery, port=service.port)
                await utterance.accept(frames(range(60, 140)))
                shown = [await utterance.partial()]
                while len(shown[-1]) <= len(before):
                    await utterance.accept(frames([999]))
                    await again.transcriber.wait_heard(1)
                    shown.append(await utterance.partial())
            assert shown[0] == before
            assert [len(text) for text in shown] == sorted(len(text) for text in shown)
        nursery.cancel_scope.cancel()


async def test_a_long_utterance_is_not_replayed():
    """Beyond what is kept, TranscriberAway lets the caller send everything again."""
    async with trio.open_nursery() as nursery:
        service = await start_service(nursery)
        async with client_of(service.url) as client, opened(client) as utterance:
            long = range(int((REPLAY_SECONDS + 1) / 0.016))
            with in_time():
                await utterance.accept(frames(long))
                await utterance.accept(frames(range(40)))
                await service.stop()
                with pytest.raises(TranscriberAway, match="in a long utterance"):
                    await utterance.finish()
        nursery.cancel_scope.cancel()


async def test_a_mistake_of_ours_costs_a_line_and_not_the_server(monkeypatch, caplog):
    """Whatever a line raises is told in the log; its utterance is sent again on another."""
    mistakes = iter([RuntimeError("ours")])
    read = lines.read_message

    def read_amiss(text: str):
        message = read(text)
        if isinstance(message, Result) and (mistake := next(mistakes, None)):
            raise mistake
        return message

    monkeypatch.setattr(lines, "read_message", read_amiss)
    async with serving() as service, client_of(service.url) as client:
        assert (await transcribe(client, frames(SPEECH))).text == words(SPEECH)
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage().startswith("asr_line_failed")
    assert record.exc_info


async def test_a_service_that_dies_of_an_utterance_is_not_fed_it_for_ever():
    """After a few replays it is TranscriberAway."""

    class Deadly(NumberTranscriber):
        """A bug in the engine ends each connection."""

        @asynccontextmanager
        async def open_utterance(self, *, language, speaker):
            async with super().open_utterance(language=language, speaker=speaker):
                raise ZeroDivisionError
            yield

    async with serving(Deadly()) as service, client_of(service.url) as client:
        with pytest.raises(TranscriberAway, match=r"again and again|no speech recognition"):
            await transcribe(client, frames(SPEECH))
        assert len(service.transcriber.sessions) <= 4


async def test_something_else_at_the_address_is_no_service():
    """An HTTP server, or a WebSocket that says something else, is away, with the reason."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with client_of(f"ws://127.0.0.1:{port}") as client:
            with in_time(), pytest.raises(TranscriberAway, match="handshake was answered with 200"):
                async with opened(client):
                    pass
        nursery.cancel_scope.cancel()


# --- warm lines ----------------------------------------------------------------------------


async def test_lines_are_kept_warm_and_those_too_many_are_closed(monkeypatch):
    """As many as were asked for, beside those in use; replaced when they are lost."""
    monkeypatch.setattr(lines, "IDLE_SECONDS", 0.0)
    async with trio.open_nursery() as nursery:
        service = await start_service(nursery)
        async with client_of(service.url, warm=2) as client:
            await wait_lines(client, 2)
            async with opened(client) as one, opened(client) as other:
                await wait_lines(client, 4)
                for utterance in (one, other):
                    await utterance.accept(frames(SPEECH))
                    await utterance.finish()
            await wait_lines(client, 2)
            await service.stop()
            await wait_lines(client, 0)
            await start_service(nursery, port=service.port)
            await wait_lines(client, 2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["http://x:9200", "ws://", "ws://a b", "ws://x:99999", "x:9200"])
def test_a_bad_url_is_refused(url):
    """With what it must be like."""
    with pytest.raises(ConfigurationError, match="it must be like ws://127"):
        AsrServiceTranscriber([url], chance=lambda: 0.5)


def test_no_url_is_refused():
    """There is nobody to ask."""
    with pytest.raises(ValueError, match="at least one URL"):
        AsrServiceTranscriber([], chance=lambda: 0.5)
