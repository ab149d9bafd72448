"""The commands as a user starts them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
from end_to_end_server import DATA

COMMAND = [sys.executable, "-m", "listenai"]


@asynccontextmanager
async def serving(*options: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """`serve` as a process, once it has printed its URL; killed if it still runs at the end."""
    command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", "0", *options]
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            deliver_cancel=_kill,
        )
        process = await nursery.start(run)
        with trio.fail_after(20):
            printed = b""
            # Behind the engines that were chosen; a line may come in two pieces.
            while not (url := re.search(rb"open (http://\S+)\n", printed)):
                part = await process.stdout.receive_some()
                assert part, printed
                printed += part
        yield process, url[1].decode()
        nursery.cancel_scope.cancel()


async def _kill(process: trio.Process) -> None:
    process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_ends_the_server_cleanly(number: int):
    """Status 0, quickly, without a traceback."""
    async with serving("--fake-engines") as (process, url):
        async with httpx.AsyncClient() as client:
            health = (await client.get(url + "health")).json()
        assert health["status"] == "ok"
        assert set(health["services"]) == {"asr", "llm", "tts"}
        process.send_signal(number)
        with trio.fail_after(5):
            status = await process.wait()
            said = await process.stderr.receive_some()
        assert status == 0, said
        assert b"Traceback" not in said


@pytest.mark.engines
async def test_the_server_is_ready_in_three_seconds():
    """With the embedded engines, from process start to the printed URL."""
    began = time.monotonic()
    async with serving():
        assert time.monotonic() - began < 3


def test_help_names_the_options():
    """For both commands."""
    for command, options in {
        "serve": ["--host", "--port"],
        "talk": ["--url", "--barge-in"],
    }.items():
        done = subprocess.run(
            [*COMMAND, command, "--help"], capture_output=True, text=True, check=True
        )
        assert all(option in done.stdout for option in options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "many"], "CLOUD_PORT='many': must be a whole number from 0 to 65535"),
        (["serve", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["talk", "nowhere.wav", "--url", "ws://127.0.0.1:1/"], "nowhere.wav"),
        (["talk", str(DATA / "no.wav"), "--url", "ws://127.0.0.1:1/"], "127.0.0.1"),
        (["talk"], "WAV"),
    ],
)
def test_what_cannot_work_ends_with_status_2(arguments: list[str], said: str):
    """And one plain sentence, not a traceback."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.engines
@pytest.mark.slow
def test_talk_asks_a_server_of_its_own(tmp_path):
    """The README's second command: transcript, tool, answer, saved reply, status 0."""
    saved = tmp_path / "reply.wav"
    done = subprocess.run(
        [*COMMAND, "talk", str(DATA / "weather_beijing.wav"), "--save", str(saved)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "what is the weather in beijing" in done.stdout
    assert "get_weather" in done.stdout
    assert saved.stat().st_size > 32_000
