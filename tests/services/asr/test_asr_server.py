"""The ASR service through real sockets, with engines that understand numbered frames."""

from __future__ import annotations

import logging

import pytest
import trio
from asr_fakes import (
    Client,
    LoudnessDetector,
    NumberTranscriber,
    Service,
    connected,
    frames,
    in_time,
    serving,
    start_service,
    words,
)
from trio_websocket import ConnectionClosed, ConnectionRejected

from listenai.audio import FRAME_BYTES
from listenai.errors import EngineError, TranscriberError
from listenai.services.asr.ear import COMMAND_BYTES, Inbox
from listenai.services.asr.protocol import (
    Configure,
    Configured,
    Error,
    Finish,
    Finished,
    Ping,
    Pong,
    Ready,
    Reset,
    Result,
    ServiceErrorCode,
    Vad,
    WasReset,
)
from listenai.services.sockets import open_socket, why_lost

SPEECH, SILENCE = range(20), range(20, 25)  # 320 ms of speech, and the silence that ends it
HANDSHAKE = b"""GET / HTTP/1.1\r
Host: x\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r
Sec-WebSocket-Version: 13\r
\r
"""
WHOLE = frames(SPEECH) + frames(SILENCE, loud=False)


def finals(messages) -> list[Result]:
    return [message for message in messages if isinstance(message, Result) and message.is_final]


async def begin(client: Client) -> Ready:
    ready = await client.receive()
    assert isinstance(ready, Ready)
    return ready


async def close_of(client: Client) -> int:
    """The code with which the service hangs up."""
    with in_time():
        try:
            while True:
                await client.socket.get_message()
        except ConnectionClosed as closed:
            return closed.reason.code


async def connect_until_ready(service: Service) -> None:
    """Tries until the service takes a client."""
    with in_time():
        while True:
            async with connected(service) as client:
                if isinstance(await client.receive(), Ready):
                    return


# --- audio in, results out -----------------------------------------------------------------


async def test_ready_comes_first():
    """Sample rate, languages and whether there are partial results."""
    async with serving() as service, connected(service) as client:
        assert await client.receive() == Ready(16_000, ("en", "zh"), True)


@pytest.mark.parametrize("size", [77, 511, 512, 513, 5000, len(WHOLE)])
async def test_a_segment_is_told_whatever_the_size_of_messages(size):
    """vad when speech starts and stops, with frame and probability; then the text and its times."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        for start in range(0, len(WHOLE), size):
            await client.send(WHOLE[start : start + size])
        messages = []
        while not finals(messages):
            messages.append(await client.receive())
        assert [m for m in messages if isinstance(m, Vad)] == [
            Vad(True, 1, 0.9),
            Vad(False, 25, 0.1),
        ]
        [final] = finals(messages)
        assert final == Result(words(SPEECH), True, False, 1, 0.0, 25 * 16.0, True)


async def test_partial_results_come_before_the_end():
    """The words so far, while somebody speaks."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(frames(range(8)))
        started, partial = await client.receive(), await client.receive()
        assert started == Vad(True, 1, 0.9)
        assert isinstance(partial, Result)
        assert (partial.is_final, partial.speeching, partial.segment_id) == (False, True, 1)
        assert words(range(8)).startswith(partial.text)
        assert partial.text


async def test_each_segment_has_a_text_of_its_own():
    """Also where the second was spoken before the first was recognised: its audio waits."""
    transcriber = NumberTranscriber(gate=trio.Event())
    async with serving(transcriber) as service, connected(service) as client:
        await begin(client)
        await client.send(WHOLE, frames(range(30, 50)) + frames(SILENCE, loud=False))
        await transcriber.wait_until(lambda: transcriber.finishing)
        transcriber.gate.set()
        messages = []
        while len(finals(messages)) < 2:
            messages.append(await client.receive())
        first, second = finals(messages)
        assert (first.segment_id, first.text) == (1, words(SPEECH))
        assert (second.segment_id, second.text) == (2, words(range(30, 50)))
        assert (second.start_ms, second.end_ms) == (25 * 16, 50 * 16)
        assert [m for m in messages if isinstance(m, Vad)] == [
            Vad(True, 1, 0.9),
            Vad(False, 25, 0.1),
            Vad(True, 26, 0.9),
            Vad(False, 50, 0.1),
        ]


async def test_a_click_is_no_segment():
    """Spec 000: less than 0.3 s of speech has no result."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(frames(range(5)) + frames(SILENCE, loud=False), Finish())
        messages = await client.receive_until(Finished)
        assert [m for m in messages if isinstance(m, Vad)] == [
            Vad(True, 1, 0.9),
            Vad(False, 10, 0.1),
        ]
        assert not finals(messages)


async def test_an_utterance_is_cut_at_the_configured_length():
    """Two segments of speech without a pause, neither with more audio than allowed."""
    async with serving(max_utterance_seconds=1.0) as service, connected(service) as client:
        await begin(client)
        await client.send(frames(range(100)), Finish())  # 1.6 s
        first, second = finals(await client.receive_until(Finished))
        assert (first.segment_id, second.segment_id) == (1, 2)
        assert f"{first.text} {second.text}" == words(range(100))
        longest = max(len(session.audio) for session in service.transcriber.sessions)
        assert 0.9 * 32_000 < longest <= 32_000


async def test_a_segment_without_text_is_an_error_and_the_next_one_is_told():
    """ASR_ERROR with the engine's words; the connection goes on."""
    transcriber = NumberTranscriber(failures=[TranscriberError("the model is on fire")])
    async with serving(transcriber) as service, connected(service) as client:
        await begin(client)
        await client.send(WHOLE)
        assert (await client.receive_until(Error))[-1] == Error(
            ServiceErrorCode.ASR_ERROR, "the model is on fire"
        )
        await client.send(WHOLE, Finish())
        [final] = finals(await client.receive_until(Finished))
        assert (final.segment_id, final.text) == (2, words(SPEECH))


async def test_clients_do_not_hear_each_other():
    """Each connection has an ear of its own."""
    async with serving() as service, connected(service) as one, connected(service) as other:
        for client, numbers in ((one, range(20)), (other, range(40, 70))):
            await begin(client)
            await client.send(frames(numbers), Finish())
        for client, numbers in ((one, range(20)), (other, range(40, 70))):
            [final] = finals(await client.receive_until(Finished))
            assert (final.segment_id, final.text) == (1, words(numbers))


# --- commands ------------------------------------------------------------------------------


async def test_a_ping_is_answered_while_the_engine_is_busy():
    """Whatever waits to be recognised."""
    transcriber = NumberTranscriber(gate=trio.Event())
    async with serving(transcriber) as service, connected(service) as client:
        await begin(client)
        await client.send(WHOLE, Ping())
        assert (await client.receive_until(Pong))[-1] == Pong()
        await transcriber.wait_until(lambda: transcriber.finishing)
        await client.send(WHOLE, Ping())
        assert not finals(await client.receive_until(Pong))


async def test_finish_ends_what_is_being_said_however_short():
    """Half a frame at its end is filled up; its answer comes after the result."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(frames([1, 2, 3])[:-300], Finish())
        [final] = finals(await client.receive_until(Finished))
        assert (final.text, final.end_ms) == ("1 2 3", 48.0)
        audio = bytes(service.transcriber.sessions[-1].audio)
        assert audio == frames([1, 2, 3])[:-300] + bytes(300)


async def test_finish_without_speech_is_answered():
    """There is nothing to tell, and no engine is asked."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(Finish(), frames(range(3), loud=False), Finish())
        assert [await client.receive(), await client.receive()] == [Finished(), Finished()]
        assert not service.transcriber.sessions


async def test_threshold_zero_takes_everything_as_one_segment():
    """Silence neither ends the segment nor is left out, until `finish`."""
    audio = frames(range(2), loud=False) + WHOLE + frames(range(50), loud=False) + WHOLE
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(Configure(threshold=0.0), audio, Finish())
        messages = await client.receive_until(Finished)
        [final] = finals(messages)
        assert final.text == words([*SPEECH, *SPEECH])
        assert bytes(service.transcriber.sessions[-1].audio) == audio
        assert [m.speeching for m in messages if isinstance(m, Vad)] == [True, False]


async def test_configure_is_answered_with_what_is_in_force():
    """What is left out stays; the engine gets language and hotwords."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(
            Configure("zh", ("Li Wei",), silence_frames=9), Configure(threshold=0.7), WHOLE
        )
        expected = Configured("zh", ("Li Wei",), 0.5, 9)
        assert await client.receive() == expected
        assert await client.receive() == expected.changed(Configure(threshold=0.7))
        await service.transcriber.wait_heard(20)
        [session] = service.transcriber.sessions
        assert (session.language, session.speaker.values["hotwords"]) == ("zh", ("Li Wei",))
        await client.send(Ping())
        before = await client.receive_until(Pong)
        assert [m.speeching for m in before if isinstance(m, Vad)] == [True]  # 5 frames, not 9


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("hello", "must be JSON"),
        ('{"command":"configure","hop_size":160}', "the only hop size"),
        ('{"command":"configure","language":"fr"}', "'fr' is not understood; allowed: en, zh"),
    ],
)
async def test_a_bad_command_is_told_and_changes_nothing(message, complaint):
    """INVALID_MESSAGE; the connection goes on."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(message, Configure())
        error, settings = await client.receive(), await client.receive()
        assert isinstance(error, Error)
        assert error.code is ServiceErrorCode.INVALID_MESSAGE
        assert complaint in error.message
        assert settings == Configured()


async def test_reset_forgets_everything_but_the_settings():
    """Also what an engine is working on and what waits; numbers begin anew."""
    transcriber = NumberTranscriber(gate=trio.Event())
    async with serving(transcriber) as service, connected(service) as client:
        await begin(client)
        await client.send(Configure(silence_frames=7), frames(SPEECH), Finish())
        await transcriber.wait_until(lambda: transcriber.finishing)
        first = transcriber.sessions[-1]
        await client.send(WHOLE, Configure(threshold=0.6), Finish(), Reset())
        before = await client.receive_until(WasReset)
        assert not finals(before)
        assert not any(isinstance(message, Finished) for message in before)
        assert first.closed
        transcriber.gate.set()
        await client.send(frames(range(60, 80)), Finish())
        after = await client.receive_until(Finished)
        assert after[0] == Configured(threshold=0.6, silence_frames=7)
        [final] = finals(after)
        assert (final.segment_id, final.text, final.start_ms) == (1, words(range(60, 80)), 0)
        assert transcriber.sessions[-1].speaker is not first.speaker


async def test_every_reset_is_answered():
    """Two in one go too."""
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(Reset(), Reset(), Ping())
        got = [await client.receive() for _ in range(3)]
        assert sorted(type(message).__name__ for message in got) == ["Pong", "WasReset", "WasReset"]


# --- connections ---------------------------------------------------------------------------


async def test_a_service_that_loads_says_so():
    """MODEL_NOT_READY and 1013, then ready once it is."""
    loaded = trio.Event()
    async with serving(loaded=loaded) as service:
        async with connected(service) as client:
            error = await client.receive()
            assert isinstance(error, Error)
            assert error.code is ServiceErrorCode.MODEL_NOT_READY
            assert await close_of(client) == 1013
        loaded.set()
        await connect_until_ready(service)


async def test_a_full_service_says_so_and_takes_others_later():
    """BUSY and 1013; a place is free when a client has left."""
    async with serving(max_connections=1) as service:
        async with connected(service) as client:
            await begin(client)
            async with connected(service) as other:
                error = await other.receive()
                assert isinstance(error, Error)
                assert error.code is ServiceErrorCode.BUSY
                assert await close_of(other) == 1013
            await client.send(Ping())
            assert await client.receive() == Pong()
        await connect_until_ready(service)


async def test_another_path_is_not_found():
    """404 in the handshake."""
    async with serving() as service:
        with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as rejected:
            async with open_socket(f"{service.url}tts", seconds=5, max_message_bytes=1024):
                pass
        assert why_lost(rejected.value) == "the handshake was answered with 404"


async def test_stopping_says_goodbye():
    """1001 to each client, in mid segment too; the engine is left."""
    async with trio.open_nursery() as nursery:
        service: Service = await start_service(nursery)
        async with connected(service) as client:
            await begin(client)
            await client.send(frames(SPEECH))
            await service.transcriber.wait_heard(5)
            with in_time():
                nursery.start_soon(service.stop)
                assert await close_of(client) == 1001
            with in_time(1):  # not the two seconds for a client that says nothing
                await service.over.wait()
        assert all(session.closed for session in service.transcriber.sessions)


async def test_a_client_that_reads_nothing_is_hung_up_on():
    """It holds up nobody, and no more than a bounded number of messages wait for it."""
    transcriber = NumberTranscriber(suffix="x" * 300_000)
    async with serving(transcriber) as service, connected(service) as client:
        with in_time(20):
            try:
                while True:
                    await client.send(frames(range(3)), Finish())
            except ConnectionClosed:
                pass
        assert 10 < transcriber.finishing < 1000


async def test_a_client_that_answers_no_ping_is_let_go():
    """The connection ends; a client that answers stays."""
    async with (
        serving(ping_interval=0.05, ping_timeout=0.1) as service,
        connected(service) as living,
    ):
        await begin(living)
        async with await trio.open_tcp_stream("127.0.0.1", service.port) as silent:
            await silent.send_all(HANDSHAKE)
            with in_time(5):
                while await silent.receive_some():
                    pass
        await living.send(Ping())
        assert await living.receive() == Pong()


@pytest.mark.parametrize(
    "bytes_sent", [b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01nonsense\r\n\r\n"]
)
async def test_a_bad_handshake_is_nobody_elses_trouble(bytes_sent):
    """The service goes on."""
    async with serving() as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        if bytes_sent:
            await stream.send_all(bytes_sent)
        await stream.aclose()
        async with connected(service) as client:
            await begin(client)


async def test_a_bug_ends_its_own_connection_only(caplog):
    """1011, an error in the log, and nothing of what was said in it."""
    transcriber = NumberTranscriber(failures=[ZeroDivisionError("oops")])
    async with serving(transcriber) as service, connected(service) as living:
        await begin(living)
        async with connected(service) as client:
            await begin(client)
            await client.send(WHOLE)
            assert await close_of(client) == 1011
        with in_time():
            while not (errors := [r for r in caplog.records if r.levelno >= logging.ERROR]):
                await trio.testing.wait_all_tasks_blocked(0.001)
        [record] = errors
        assert record.getMessage().startswith("connection_failed")
        await living.send(Ping())
        assert await living.receive() == Pong()


class BrokenDetector(LoudnessDetector):
    """Fails on its first frame."""

    def process(self, frame: bytes) -> float:
        raise EngineError("the detector is closed")


async def test_a_broken_detector_is_told_before_hanging_up():
    """ASR_ERROR with its words, then 1013."""
    async with serving(open_detector=BrokenDetector) as service, connected(service) as client:
        await begin(client)
        await client.send(frames([1]))
        assert await client.receive() == Error(ServiceErrorCode.ASR_ERROR, "the detector is closed")
        assert await close_of(client) == 1013


async def test_each_frame_is_logged_at_debug_with_the_state_it_leads_to(caplog):
    """Number, probability, whether somebody speaks, and how many frames have been silent."""
    caplog.set_level(logging.DEBUG, logger="listenai")
    async with serving() as service, connected(service) as client:
        await begin(client)
        await client.send(frames(range(20)) + frames(range(20, 26), loud=False), Finish())
        await client.receive_until(Finished)
    logged = [m for m in caplog.messages if m.startswith("frame ")]
    assert logged == [
        *(f"frame number={n} p=0.900 speeching=True silent_frames=0" for n in range(1, 21)),
        *(f"frame number={20 + n} p=0.100 speeching=True silent_frames={n}" for n in range(1, 5)),
        *(f"frame number={n} p=0.100 speeching=False silent_frames=0" for n in (25, 26)),
    ]


async def test_what_is_said_is_not_logged(caplog):
    """Frames, probabilities and lengths are."""
    caplog.set_level(logging.DEBUG, logger="listenai")
    async with serving() as service:
        async with connected(service) as client:
            await begin(client)
            await client.send(frames(range(1234, 1254)), Finish())
            [final] = finals(await client.receive_until(Finished))
        with in_time():
            while not any("client_left client=1" in line for line in caplog.messages):
                await trio.lowlevel.checkpoint()
    logged = [record.getMessage() for record in caplog.records]
    assert "1240" in final.text
    assert not any("1240" in line for line in logged)
    assert "speech_started frame=1 p=0.900" in logged
    assert "speech_ended segment=1 frames=20 kept=True" in logged
    assert "segment_told segment=1 frames=20" in logged
    assert "client_connected client=1" in logged
    assert any(
        line.startswith("client_heard client=1 audio_messages=1 seconds=0.3") for line in logged
    )


# --- the inbox -----------------------------------------------------------------------------


async def test_the_inbox_is_bounded_and_keeps_the_order(autojump_clock):
    """What is put comes out, in order; `put` waits while it is full."""
    inbox = Inbox(4 * FRAME_BYTES)
    put: list[bytes | Finish] = [frames([number]) for number in range(40)]
    put[20:20] = [Finish()]
    taken = []
    async with trio.open_nursery() as nursery:

        async def fill() -> None:
            for item in put:
                await inbox.put(item)

        nursery.start_soon(fill)
        await trio.testing.wait_all_tasks_blocked()
        assert inbox.held_bytes == 4 * FRAME_BYTES
        while len(b"".join(item for item in taken if isinstance(item, bytes))) < 40 * FRAME_BYTES:
            taken.append(await inbox.take())
    before, after = taken[: taken.index(Finish())], taken[taken.index(Finish()) + 1 :]
    assert (b"".join(before), b"".join(after)) == (frames(range(20)), frames(range(20, 40)))
    assert inbox.held_bytes == 0


async def test_a_forgetful_inbox_keeps_settings():
    """What was said is gone; how to listen is not."""
    inbox = Inbox(10**6)
    for item in (frames([1]), Configure("zh"), Finish(), frames([2])):
        await inbox.put(item)
    inbox.forget()
    assert inbox.held_bytes == COMMAND_BYTES
    await inbox.put(frames([3]))
    assert [await inbox.take(), await inbox.take()] == [Configure("zh"), frames([3])]
