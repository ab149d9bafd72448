"""`python -m listenai asr` as a process, with what it logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trio
from asr_fakes import Client, in_time
from end_to_end_assistant import open_processes, start
from end_to_end_server import recording

from listenai.services.asr.protocol import Error, Finish, Finished, Ready, ServiceErrorCode
from listenai.services.sockets import open_socket

pytestmark = [pytest.mark.engines, pytest.mark.slow]

COMMAND = ["-m", "listenai", "asr", "--engine", "embedded", "--host", "127.0.0.1", "--port", "0"]
# What is logged first of all that is logged at each level, or not at all.
FRAME, SPEECH, LOADED = "frame number=", "speech_started frame=", "asr_ready seconds="


async def say(url: str, name: str) -> None:
    """A recording, as soon as the service is ready, until all of it is understood."""
    with in_time(30):
        while True:
            async with open_socket(url, seconds=5, max_message_bytes=1 << 20) as socket:
                client = Client(socket)
                greeting = await client.receive()
                if isinstance(greeting, Ready):
                    await client.send(recording(name), Finish())
                    await client.receive_until(Finished)
                    return
                assert isinstance(greeting, Error)
                assert greeting.code is ServiceErrorCode.MODEL_NOT_READY


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("DEBUG", {FRAME, SPEECH, LOADED}),
        ("INFO", {SPEECH, LOADED}),
        ("WARNING", set()),
    ],
)
async def test_it_logs_what_its_level_asks_for(tmp_path: Path, level: str, logged: set[str]):
    """Each frame, each segment, or only what is wrong; with time and component, never a word."""
    log = tmp_path / "log"
    async with open_processes() as processes:
        service = await start(processes, COMMAND, r"listening: \S+\n", log, CLOUD_LOG_LEVEL=level)
        [url] = re.findall(r"listening: (\S+)", service.printed)
        await say(url, "stop_the_music.wav")
        service.process.terminate()
        with trio.fail_after(10):
            await service.process.wait()
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    events = [line["event"] for line in lines]
    found = {start for start in (FRAME, SPEECH, LOADED) if any(e.startswith(start) for e in events)}
    assert found == logged
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
    assert not any("music" in event for event in events)
