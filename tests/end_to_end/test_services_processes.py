"""Speech recognition, language model and synthesis as processes of their own, and their deaths."""

from __future__ import annotations

import re
import socket
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from end_to_end_assistant import (
    Running,
    open_assistant,
    open_processes,
    spoken_text,
    start,
    start_assistant,
)
from end_to_end_server import TEXTS, recording
from served import Served

from listenai.app.models import Places
from listenai.app.voices import FIRST_ANSWER_SECONDS, open_synthesizer
from listenai.audio import SAMPLE_RATE
from listenai.client.device import Device
from listenai.client.turns import Arrived, Reply, Turn
from listenai.config import Config
from listenai.errors import ConfigurationError

pytestmark = pytest.mark.engines

SECONDS = 30.0  # for any one thing that is waited for
SOME_WORDS = 0.7  # seconds
EXCUSE = "Sorry, I cannot answer right now."

# A TTS service as slow as a large model: what is lost with it is in mid sentence.
SLOW_VOICE = """
import sys
from contextlib import asynccontextmanager
import attrs, trio
from listenai.engines.espeak import EspeakSynthesizer
from listenai.services.tts.server import serve_tts

class Slow(EspeakSynthesizer):
    @asynccontextmanager
    async def open_speech(self, text, **about):
        async with super().open_speech(text, **about) as chunks:
            yield self.slowly(chunks)

    async def slowly(self, chunks):
        async for chunk in chunks:
            yield chunk
            await trio.sleep(len(chunk.pcm) / 2 / self.sample_rate * 0.8)

async def main():
    async with trio.open_nursery() as nursery:
        async def serve(task_status):
            port = int(sys.argv[sys.argv.index("--port") + 1])
            await serve_tts(Slow(), port=port, task_status=task_status)
        [url] = await nursery.start(serve)
        print(f"listening: {url}", flush=True)

trio.run(main)
"""


# --- processes -----------------------------------------------------------------------------


@attrs.define
class Service:
    """One stage as a process, which can be killed and is then started where it was."""

    processes: trio.Nursery
    log: Path
    command: Sequence[str]
    url: str = ""
    running: Running | None = None

    async def start(self) -> None:
        """Returns once it listens."""
        port = re.search(r":(\d+)", self.url)
        where = ["--host", "127.0.0.1", "--port", port[1] if port else "0"]
        command = [*self.command, *where]
        self.running = await start(self.processes, command, r"listening: \S+\n", self.log)
        url = re.search(r"listening: (\S+)\n", self.running.printed)[1]
        assert self.url in {"", url}
        self.url = url

    async def kill(self) -> None:
        """SIGKILL: it has no time for a goodbye."""
        self.running.process.kill()
        with trio.fail_after(SECONDS):
            await self.running.process.wait()


@attrs.frozen
class Processes:
    """The server and its three services."""

    server: Served
    asr: Service
    tts: Service
    llm: Service

    async def health(self) -> tuple[str, set[str]]:
        """Its status, and which services are degraded."""
        told = (await self.server.ask("/health")).json()
        return told["status"], {n for n, state in told["services"].items() if state == "degraded"}


@asynccontextmanager
async def all_as_processes(
    folder: Path, tts_command: Sequence[str] = ("-m", "listenai", "tts")
) -> AsyncIterator[Processes]:
    """Four processes that know each other by their URLs only."""
    async with open_processes() as processes:
        log = folder / "log"
        asr, tts, llm = (
            Service(processes, log, command)
            for command in (["-m", "listenai", "asr"], tts_command, ["-m", "listenai", "llm"])
        )
        async with trio.open_nursery() as starting:
            for service in (asr, tts, llm):
                starting.start_soon(service.start)
        server, _ = await start_assistant(
            processes,
            log,
            ASR_SERVICE_URL=asr.url,
            TTS_SERVICE_URL=tts.url,
            LLM_BASE_URL=llm.url,
        )
        yield Processes(server, asr, tts, llm)
    logged = log.read_text("utf-8")
    assert "Traceback" not in logged, logged


# --- a device ------------------------------------------------------------------------------


# Answers that tell the time, or are stopped somewhere.
OF_THE_MOMENT = {"what_time_is_it.wav", "timer_ten_minutes.wav", "tell_me_a_story.wav"}


async def asked(device: Device, name: str) -> Reply:
    """The answer to a spoken fixture; long ones are soon stopped by the button."""
    await device.speak(recording(name))
    if name == "comma_pause.wav":
        with trio.fail_after(SECONDS):
            await device.wait_until(lambda: any(plays_music(event) for event in device.log.events))
        await device.interrupt()
    if name == "tell_me_a_story.wav":
        await device.wait_sound(SECONDS)
        await trio.sleep(2)
        await device.interrupt()
    return await device.wait_reply(SECONDS)


def plays_music(event: Arrived) -> bool:
    return event.type == "tts_audio" and event.message.get("source") == "music"


async def until(device: Device, is_true: Callable[[], object]) -> None:
    with trio.fail_after(SECONDS):
        await device.wait_until(lambda: bool(is_true()))


def errors(device: Device) -> list[tuple[str, int | None]]:
    return [(e.message["code"], e.message.get("turn_id")) for e in device.log.errors]


def sentences(turn: Turn | Reply) -> list[str]:
    """What was announced to be said aloud, in order."""
    return [m["text"].strip() for m in messages(turn.events, "tts_audio", state="sentence")]


def messages(events: Sequence[Arrived], kind: str, **fields: Any) -> list[dict[str, Any]]:
    found = [dict(event.message) for event in events if event.type == kind]
    return [message for message in found if fields.items() <= message.items()]


def audio_since(device: Device, when: float) -> float:
    """Seconds of it that have come."""
    came = [e.message["samples"] for e in device.log.events if e.type == "audio" and e.at >= when]
    return sum(came) / SAMPLE_RATE


def words_told(parts: Sequence[str]) -> list[str]:
    """The words of sentences, where one that was broken off is followed by its unspoken end."""
    words: list[str] = []
    for part in (part.split() for part in parts):
        if words[-len(part) :] == part:
            continue
        words += part
    return words


# --- tests -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_spoken_fixtures_pass_as_in_one_process(tmp_path: Path):
    """The same transcript and the same answer, audibly, and not much later."""
    names = sorted(TEXTS)
    async with open_assistant() as server:
        alone = await replies(server, names)
    async with all_as_processes(tmp_path) as processes:
        apart = await replies(processes.server, names)
        assert await processes.health() == ("ok", set())
    for name in names:
        assert apart[name].transcript == alone[name].transcript == TEXTS[name]
        if name not in OF_THE_MOMENT:
            assert apart[name].text == alone[name].text
            assert spoken_text(apart[name]) == spoken_text(alone[name])
        assert apart[name].audible == alone[name].audible
        assert apart[name].errors == ()
    middle_alone, middle_apart = (
        statistics.median(reply.voice_to_voice_ms or 0.0 for reply in told.values())
        for told in (alone, apart)
    )
    print(f"voice to voice, ms: one process {middle_alone:.0f}, four {middle_apart:.0f}")
    assert 0 < middle_apart < middle_alone + 500


async def replies(server: Served, names: Sequence[str]) -> dict[str, Reply]:
    """The answers of one server, each to a device of its own, a few at a time."""
    told: dict[str, Reply] = {}
    places = trio.CapacityLimiter(3)  # there are two embedded ears

    async def ask(name: str) -> None:
        async with places, Device.connect(server.ws) as device:
            told[name] = await asked(device, name)
            assert not device.log.violations

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(ask, name)
    return told


@pytest.mark.slow
async def test_one_conversation_outlives_each_of_its_services(tmp_path: Path):
    """On one connection all three are killed and started again: no word is lost."""
    async with (
        all_as_processes(tmp_path) as processes,
        Device.connect(processes.server.ws) as device,
    ):
        await ear_dies_for_a_moment(processes, device)
        await ear_is_away(processes, device)
        await voice_is_away(processes, device)
        await mind_is_away(processes, device)
        reply = await asked(device, "weather_beijing.wav")
        assert reply.transcript == TEXTS["weather_beijing.wav"]
        assert [tool.name for tool in reply.tools] == ["get_weather"]
        assert reply.audible
        assert await processes.health() == ("ok", set())
        assert not device.log.violations


async def ear_dies_for_a_moment(processes: Processes, device: Device) -> None:
    """Started again at once: the user notices nothing."""
    name = "twelve_times_seven.wav"
    async with trio.open_nursery() as speaking:
        speaking.start_soon(device.speak, recording(name))
        await until(device, lambda: device.log.state == "hearing")
        assert speaking.child_tasks  # in mid utterance
        await processes.asr.kill()
        await processes.asr.start()
    reply = await device.wait_reply(SECONDS)
    assert reply.transcript == TEXTS[name]
    assert reply.audible
    assert errors(device) == []
    assert await processes.health() == ("ok", set())


async def ear_is_away(processes: Processes, device: Device) -> None:
    """For long: the device is told, what was said is kept, and is answered afterwards."""
    name = "rain_paris.wav"
    before = device.log.last_turn_id
    async with trio.open_nursery() as speaking:
        speaking.start_soon(device.speak, recording(name))
        await until(device, lambda: device.log.state == "hearing")
        assert speaking.child_tasks
        await processes.asr.kill()
    await until(device, lambda: device.log.errors)
    assert errors(device) == [("ASR_ERROR", None)]
    assert await processes.health() == ("degraded", {"asr"})
    await processes.asr.start()
    await until(device, lambda: any(turn.closed for turn in device.log.turns_after(before)))
    [turn] = device.log.turns_after(before)
    assert turn.transcript == TEXTS[name]
    assert await processes.health() == ("ok", set())
    assert len(device.log.errors) == 1


async def voice_is_away(processes: Processes, device: Device) -> None:
    """Killed in mid story: the text goes on, and so does the voice when it is back."""
    device.log.errors.clear()
    await device.type_text("Tell me a story.")
    turn, _ = await device.wait_sound(SECONDS)
    await processes.tts.kill()
    await until(device, lambda: device.log.errors)
    assert errors(device) == [("TTS_ERROR", turn.id)]
    assert await processes.health() == ("degraded", {"tts"})
    said = len(sentences(turn))
    await processes.tts.start()
    story = await device.wait_reply(90)
    assert story.turn_id == turn.id
    assert len(sentences(turn)) > said
    assert words_told(sentences(turn)) == story.text.split()
    assert len(story.audio) / 2 / story.sample_rate >= 20
    assert await processes.health() == ("ok", set())
    assert len(device.log.errors) == 1


async def mind_is_away(processes: Processes, device: Device) -> None:
    """An error and a spoken excuse; the next turn after it is back is answered."""
    device.log.errors.clear()
    await processes.llm.kill()
    await device.type_text("What is twelve times seven?")
    reply = await device.wait_reply(SECONDS)
    assert errors(device) == [("LLM_ERROR", reply.turn_id)]
    assert spoken_text(reply) == EXCUSE
    assert reply.audible
    assert await processes.health() == ("degraded", {"llm"})
    await processes.llm.start()
    await device.type_text("What is twelve times seven?")
    reply = await device.wait_reply(SECONDS)
    assert "84" in reply.text
    assert reply.errors == ()
    assert await processes.health() == ("ok", set())
    assert len(device.log.errors) == 1


@pytest.mark.slow
async def test_a_slow_voice_that_dies_goes_on_at_the_first_unspoken_word(tmp_path: Path):
    """In mid sentence: TTS_ERROR, then the rest of that sentence, and no word twice."""
    async with (
        all_as_processes(tmp_path, ["-c", SLOW_VOICE]) as processes,
        Device.connect(processes.server.ws) as device,
    ):
        await device.type_text("Tell me a story.")
        turn, _ = await device.wait_sound(SECONDS)
        await until(device, lambda: len(sentences(turn)) == 2)
        begun_at = trio.current_time()
        await until(device, lambda: audio_since(device, begun_at) >= SOME_WORDS)
        await processes.tts.kill()
        await until(device, lambda: device.log.errors)
        assert errors(device) == [("TTS_ERROR", turn.id)]
        assert len(sentences(turn)) == 2
        await processes.tts.start()
        await until(device, lambda: len(sentences(turn)) == 3)
        _, broken, rest = sentences(turn)
        assert broken.endswith(rest)
        assert 1 <= len(rest.split()) < len(broken.split())
        await device.interrupt()
        await until(device, lambda: turn.closed)
        assert not device.log.violations


@pytest.mark.slow
async def test_a_server_waits_for_a_voice_that_is_not_there_yet(tmp_path: Path):
    """It does not listen before; the order in which processes start does not matter."""
    log = tmp_path / "log"
    async with open_processes() as processes:
        voice = Service(processes, log, ["-m", "listenai", "tts"])
        await voice.start()
        await voice.kill()
        served: list[Served] = []

        async def serve() -> None:
            server, printed = await start_assistant(processes, log, TTS_SERVICE_URL=voice.url)
            assert voice.url in printed
            served.append(server)

        async with trio.open_nursery() as starting:
            starting.start_soon(serve)
            with trio.fail_after(SECONDS):
                while b"Connection refused" not in log.read_bytes():
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert not served
            await voice.start()
        async with Device.connect(served[0].ws) as device:
            await device.type_text("What is twelve times seven?")
            assert (await device.wait_reply(SECONDS)).audible


async def test_a_server_without_a_voice_gives_up_in_time(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
):
    """A sentence that names the setting and what is wrong; the command line makes it status 2."""
    autojump_clock.autojump_threshold = 0.01  # a refused connection takes real time
    with socket.socket() as deaf:  # bound, but it does not listen
        deaf.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{deaf.getsockname()[1]}/tts"
        client = httpx.AsyncClient()  # for OpenAI's audio API: nobody is asked by it
        config, places = Config(tts_service_url=(url,)), Places(None, tmp_path)
        opening = open_synthesizer(config, places, client, print)
        with pytest.RaisesGroup(ConfigurationError) as caught:
            async with opening:
                pytest.fail("there is no voice")
    assert trio.current_time() == pytest.approx(FIRST_ANSWER_SECONDS, abs=1)
    [error] = caught.value.exceptions
    [problem] = error.problems
    assert problem.startswith("TTS_SERVICE_URL: ")
    assert url in problem
